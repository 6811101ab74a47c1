"""The parts blocks are made of: shortcuts and junctions. Convolutions and normalisers are PyTorch's own."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class PadShortcut(nn.Module):
    """Option A: every stride-th pixel, and zeros for the channels that are new (He et al. 2015, §3.3).

    [n, c, h, w] → [n, c + extra, ⌈h / stride⌉, ⌈w / stride⌉]; no parameters. The zeros are put half before
    and half after the channels, as in the published CIFAR checkpoints; the paper does not say where.
    """

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        extra = out_channels - channels
        self.stride = stride
        self.before, self.after = extra // 2, extra - extra // 2

    def forward(self, x: Tensor) -> Tensor:
        """Return the subsampled and padded `x`."""
        strided = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(strided, (0, 0, 0, 0, self.before, self.after))

    def extra_repr(self) -> str:
        """Return what tells two of these apart."""
        return f"stride={self.stride}, channels=+{self.before}+{self.after}"


class Sum(nn.Module):
    """The junction of a residual block: shortcut + branch (He et al. 2015, equation 1)."""

    def forward(self, shortcut: Tensor, branch: Tensor) -> Tensor:
        """Return the sum of two [n, c, h, w] tensors, in a new one."""
        return shortcut + branch


class BranchOnly(nn.Module):
    """The junction of a plain block: the branch, and nothing of the shortcut."""

    def forward(self, shortcut: Tensor, branch: Tensor) -> Tensor:
        """Return `branch`."""
        return branch
