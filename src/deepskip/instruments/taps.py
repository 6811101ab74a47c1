"""Look at the blocks of a network while it computes, and leave it as it was, whatever happens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Literal, Protocol, cast, get_args

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from deepskip.data.batches import eval_batches, normalise
from deepskip.data.dataset import Dataset, Split, UniformImages
from deepskip.describe.preprocessing import Preprocessing
from deepskip.errors import InputError
from deepskip.nets.block import ResidualBlock
from deepskip.nets.network import Network

Statistics = Literal["running", "batch"]
"""What a batch normaliser divides by: what it remembers of the training, or what each batch has."""


class Watcher(Protocol):
    """What is told of every block that computes, by its place among the blocks."""

    def joined(self, i: int, shortcut: Tensor, out: Tensor) -> None:
        """Take what came to the junction of block `i` by its shortcut, and what left the junction."""

    def passed(self, i: int, x: Tensor, y: Tensor) -> None:
        """Take the input and the output of block `i`."""


@contextlib.contextmanager
def watched(net: Network, watcher: Watcher, statistics: Statistics = "running") -> Iterator[None]:
    """Tell `watcher` of every block of `net`, which is in evaluation mode in the block and has no gradients.

    With "batch" `statistics` its batch normalisers take those of each batch and remember none. Afterwards no
    hook is left, and every module has the mode that it had. Raises InputError.
    """
    if statistics not in get_args(Statistics):
        raise InputError("statistics", repr(statistics), "running or batch", "running")
    modes = [(module, module.training) for module in net.modules()]
    norms = [(norm, norm.track_running_stats) for norm in net.modules() if isinstance(norm, nn.BatchNorm2d)]
    handles: list[RemovableHandle] = []
    try:
        net.eval()
        for norm, _ in norms if statistics == "batch" else ():
            norm.training, norm.track_running_stats = True, False
        for i, block in enumerate(net.blocks()):
            _tap(i, cast("ResidualBlock", block), watcher, handles)
        with torch.no_grad():
            yield
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
        for norm, tracks in norms:
            norm.track_running_stats = tracks


def _tap(i: int, block: ResidualBlock, watcher: Watcher, handles: list[RemovableHandle]) -> None:
    def joined(module: nn.Module, inputs: tuple[Tensor, Tensor], out: Tensor) -> None:
        watcher.joined(i, inputs[0], out)

    def passed(module: nn.Module, inputs: tuple[Tensor], out: Tensor) -> None:
        watcher.passed(i, inputs[0], out)

    handles.append(block.junction.register_forward_hook(joined))
    handles.append(block.register_forward_hook(passed))


def inputs(
    net: Network,
    data: Dataset | Split,
    preprocessing: Preprocessing | None,
    *,
    images: int,
    batch: int,
    seed: int,
) -> Iterator[Tensor]:
    """Yield batches [n, c, h, w] on the network's device: `images` pictures of `data`, drawn by `seed`.

    Of a data set its validation pictures; a split is read by `preprocessing`. They are drawn without order,
    because folders are sorted by class, and the batches are as even as can be. Raises InputError.
    """
    for where, value in (("images", images), ("batch", batch)):
        if value < 1:
            raise InputError(where, value, "a whole number from 1", 1)
    split = data
    if isinstance(data, Dataset):
        split, preprocessing = data.val, data.preprocessing
    assert isinstance(split, Split)
    if preprocessing is None or not isinstance(split.images, UniformImages):
        got = "no preprocessing" if preprocessing is None else "pictures of many sizes"
        raise InputError("data", got, "a data set, or its validation split with its preprocessing")
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))[:images]
    drawn = Split(UniformImages(split.images.gather(order).numpy()), split.labels[order])
    batches = -(-len(order) // batch)
    weight = next(net.parameters())
    for one in eval_batches(drawn, -(-len(order) // batches)):
        yield normalise(one.images.to(weight.device), preprocessing, weight.dtype)


def names(net: Network) -> list[dict[str, Any]]:
    """Return, for each block, what names it in a row: `block`, `stage`, `index` (from 1), `shortcut`."""
    return [
        {
            "block": site.name.removeprefix("stages."),
            "stage": site.name.split(".")[1],
            "index": i,
            "shortcut": site.shortcut,
        }
        for i, site in enumerate(net.spec.sites(), 1)
    ]
