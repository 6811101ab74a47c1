"""The parts blocks are made of, beside PyTorch's own: shortcuts, junctions, gates, scalars."""

from __future__ import annotations

import torch
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


class Half(nn.Module):
    """The first or second half of the channels: [n, c, h, w] → [n, c / 2, h, w]."""

    def __init__(self, *, second: bool) -> None:
        super().__init__()
        self.second = second

    def forward(self, x: Tensor) -> Tensor:
        """Return the half, in memory of its own: what is kept of it does not keep the other."""
        half = x.chunk(2, 1)[self.second]
        order = (
            torch.channels_last
            if x.is_contiguous(memory_format=torch.channels_last)
            else torch.contiguous_format
        )
        return half.contiguous(memory_format=order)

    def extra_repr(self) -> str:
        """Return what tells two of these apart."""
        return "second" if self.second else "first"


class CoupledSum(nn.Module):
    """The half that the branch read as it is, the other plus the branch (Gomez et al. 2017, equation 6)."""

    def __init__(self, *, second: bool) -> None:
        super().__init__()
        self.second = second

    def forward(self, shortcut: Tensor, branch: Tensor) -> Tensor:
        """Return [n, c, h, w] of a shortcut of that shape and a branch [n, c / 2, h, w]."""
        first, second = shortcut.chunk(2, 1)
        return torch.cat((first + branch, second) if self.second else (first, second + branch), 1)

    def added(self, x: Tensor) -> Tensor:
        """Return the half of `x` [n, c, h, w] that the branch is added to."""
        return x.chunk(2, 1)[not self.second]

    def inverse(self, out: Tensor, branch: Tensor) -> Tensor:
        """Return the shortcut that gave `out` with this branch, but for rounding."""
        first, second = out.chunk(2, 1)
        return torch.cat((first - branch, second) if self.second else (first, second - branch), 1)


class ScaledSum(nn.Module):
    """a · shortcut + b · branch with constants a and b (He et al. 2016, §3.1, "constant scaling")."""

    def __init__(self, shortcut_scale: float, branch_scale: float) -> None:
        super().__init__()
        self.shortcut_scale, self.branch_scale = shortcut_scale, branch_scale

    def forward(self, shortcut: Tensor, branch: Tensor) -> Tensor:
        """Return the scaled sum of two [n, c, h, w] tensors."""
        return self.shortcut_scale * shortcut + self.branch_scale * branch

    def extra_repr(self) -> str:
        """Return what tells two of these apart."""
        return f"{self.shortcut_scale:g} · shortcut + {self.branch_scale:g} · branch"


class LearnedSum(nn.Module):
    """shortcut + α · branch with one trained number α (ReZero, SkipInit)."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.start = start
        self.scale = nn.Parameter(torch.empty(()))

    def forward(self, shortcut: Tensor, branch: Tensor) -> Tensor:
        """Return the sum of two [n, c, h, w] tensors, the branch scaled."""
        out: Tensor = shortcut + self.scale * branch
        return out


class GateConv(nn.Conv2d):
    """The 1×1 convolution of a gate; it knows where its bias starts."""

    def __init__(self, channels: int, start: float) -> None:
        super().__init__(channels, channels, 1)
        self.start = start


class ExclusiveGate(nn.Module):
    """(1 - g) · shortcut + g · branch, g = σ(W shortcut + b) (He et al. 2016, §3.1, "exclusive gating").

    The paper computes g from the block's input; so does this in all blocks whose shortcut is the identity, and
    from the shortcut's output where dimensions change.
    """

    def __init__(self, channels: int, bias: float) -> None:
        super().__init__()
        self.gate = GateConv(channels, bias)

    def forward(self, shortcut: Tensor, branch: Tensor) -> Tensor:
        """Return the gated sum of two [n, c, h, w] tensors."""
        gate = self.gate(shortcut).sigmoid()
        out: Tensor = (1 - gate) * shortcut + gate * branch
        return out


class ShortcutGate(ExclusiveGate):
    """(1 - g) · shortcut + branch (He et al. 2016, §3.1, "shortcut-only gating")."""

    def forward(self, shortcut: Tensor, branch: Tensor) -> Tensor:
        """Return the sum of two [n, c, h, w] tensors, the shortcut gated."""
        out: Tensor = (1 - self.gate(shortcut).sigmoid()) * shortcut + branch
        return out


class DropoutSum(nn.Module):
    """dropout(shortcut) + branch (He et al. 2016, §3.1, "dropout shortcut").

    In training each value is put to zero with probability `rate` and the others are divided by 1 - rate, so
    that evaluation has nothing to scale; draws from PyTorch's global generator, as StochasticDepth does.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(rate)

    def forward(self, shortcut: Tensor, branch: Tensor) -> Tensor:
        """Return the sum of two [n, c, h, w] tensors, values of the shortcut dropped in training."""
        out: Tensor = self.dropout(shortcut) + branch
        return out


class StochasticDepth(nn.Module):
    """A junction whose branch survives a training step with a given probability (Huang et al. 2016).

    In training the whole batch keeps or loses the branch (equation 2); in evaluation the branch is scaled by
    the probability (equation 5). The branch is computed all the same: no time is saved, unlike in the paper,
    and a dropped branch's batch normalisers still take this batch into their running statistics.

    Draws one number a block and step from PyTorch's global generator, the only place here that a module can
    draw from: training seeds it from (seed, step), so a run and its resumption drop the same branches.
    """

    def __init__(self, inner: nn.Module, survival: float) -> None:
        super().__init__()
        self.inner = inner
        self.survival = survival

    def forward(self, shortcut: Tensor, branch: Tensor) -> Tensor:
        """Return the inner junction of `shortcut` and the thinned `branch`, both [n, c, h, w]."""
        kept = torch.rand((), device=branch.device) < self.survival if self.training else self.survival
        out: Tensor = self.inner(shortcut, branch * kept)
        return out

    def extra_repr(self) -> str:
        """Return what tells two of these apart."""
        return f"survival={self.survival:g}"


class SqueezeExcitation(nn.Module):
    """Channels weighed by what the whole image says (Hu et al. 2018, §3): [n, c, h, w] → the same shape."""

    def __init__(self, channels: int, inside: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, inside, 1)
        self.relu = nn.ReLU()
        self.expand = nn.Conv2d(inside, channels, 1)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with each channel scaled between 0 and 1."""
        weights: Tensor = self.sigmoid(self.expand(self.relu(self.reduce(x.mean((2, 3), keepdim=True)))))
        return x * weights


class Bias(nn.Module):
    """x + b with one trained number b (Fixup)."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(()))

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` shifted."""
        return x + self.bias


class Scale(nn.Module):
    """a · x with one trained number a (Fixup)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(()))

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` scaled."""
        return self.scale * x
