"""The network: a stem, stages of blocks, a head."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from deepskip.describe.spec import Spec


class Network(nn.Module):
    """A built `Spec`: images [n, c, h, w] → logits [n, classes].

    `stages` maps stage ids to blocks by id, so a block is `net.stages["s1"]["b1"]` and its parameters are
    called `stages.s1.b1.branch.conv1.weight`: by the Spec's own ids, never by counting.
    """

    spec: Spec

    def __init__(self, spec: Spec, *, stem: nn.Module, stages: nn.ModuleDict, head: nn.Module) -> None:
        super().__init__()
        self.spec = spec
        self.stem = stem
        self.stages = stages
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of `images`."""
        x: Tensor = self.stem(images)
        for block in self.blocks():
            x = block(x)
        logits: Tensor = self.head(x)
        return logits

    def blocks(self) -> Iterator[nn.Module]:
        """Yield the blocks in order."""
        for stage in self.stages.values():
            yield from stage.children()
