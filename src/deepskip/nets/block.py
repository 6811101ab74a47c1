"""The residual block: five named parts, one line, no `if`."""

from __future__ import annotations

from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """`after(junction(shortcut(h), branch(h)))` with `h = before(x)`; [n, c, h, w] → [n, c', h', w'].

    The parts are always all there, so that a forward hook on one of them reaches everything worth measuring:
    in a plain net the junction drops the shortcut, in a post-activation net `before` is the identity. Nothing
    works in place at the edge of a part.
    """

    def __init__(
        self,
        *,
        before: nn.Module,
        branch: nn.Module,
        shortcut: nn.Module,
        junction: nn.Module,
        after: nn.Module,
    ) -> None:
        super().__init__()
        self.before = before
        self.branch = branch
        self.shortcut = shortcut
        self.junction = junction
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        h = self.before(x)
        out: Tensor = self.after(self.junction(self.shortcut(h), self.branch(h)))
        return out
