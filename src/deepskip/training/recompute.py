"""Training that keeps few activations: blocks computed again in the backward pass, or backwards from outputs.

The gradients under recomputation are those of an ordinary step bit for bit, and running statistics are updated
once, by the first computation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import get_device_states, set_device_states

from deepskip.nets.network import Network
from deepskip.nets.parts import CoupledSum
from deepskip.training.distributed import at_least_float32
from deepskip.training.relief import Relief
from deepskip.training.segments import recompute_bytes, reversible_bytes, segments

Blocks = Sequence[nn.Module]

PIECE = 4  # blocks whose gradients wait for one another; a longer piece holds more of them at once


class Recomputed(nn.Module):
    """`net`, of whose blocks a training step keeps the inputs of segments alone (Chen et al. 2016).

    The last segment is kept whole: the backward pass begins in it.
    """

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net = net
        blocks = iter(net.blocks())
        self.segments = [[next(blocks) for _ in range(size)] for size in segments(net.spec)]
        self._bytes = recompute_bytes(net.spec, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of `images` [n, c, h, w]."""
        x: Tensor = self.net.stem(images)
        relief = _relief(x, len(images) * self._bytes)
        for blocks in self.segments[:-1]:
            x = _again(_Recompute, _Context(x, relief), blocks, x)
        logits: Tensor = self.net.head(_run(self.segments[-1], x))
        return logits


class Reversed(nn.Module):
    """`net`, of whose reversible blocks a training step keeps nothing (Gomez et al. 2017, algorithm 1).

    The backward pass computes their inputs from their outputs, up to rounding. The input of each run of such
    blocks is kept to know how far that led astray: a few tensors, whatever the depth.
    """

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net = net
        pairs = zip(net.spec.sites(), net.blocks(), strict=True)
        self.runs = [
            (reversible, [block for _, block in run])
            for reversible, run in groupby(pairs, lambda pair: pair[0].reversible)
        ]
        self._bytes = reversible_bytes(net.spec, 1)
        self._error: Tensor | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of `images` [n, c, h, w]."""
        # In half precision the sums of many blocks would lose what the way back needs.
        x = at_least_float32(self.net.stem(images))
        relief = _relief(x, len(images) * self._bytes)
        for reversible, blocks in self.runs:
            x = self._there(blocks, x, relief) if reversible else _run(blocks, x)
        logits: Tensor = self.net.head(x)
        return logits

    def _there(self, blocks: Blocks, x: Tensor, relief: Relief | None) -> Tensor:
        """Compute a run of reversible blocks in pieces, so that the gradients of each are given on at once."""
        back, context = _Back(self), _Context(x, relief)
        starts = range(0, len(blocks), PIECE)
        for start in starts:
            ends = start == starts[0], start == starts[-1]
            x = _again(_Reverse, context, blocks[start : start + PIECE], x, back, ends)
        return x

    @torch.no_grad()
    def compare(self, reconstructed: Tensor, first: Tensor) -> None:
        """Note how far a reconstructed input of a run is from what it was."""
        error = (reconstructed - first).abs().max() / first.abs().max().clamp_min(1e-30)
        self._error = error if self._error is None else torch.maximum(self._error, error)

    def drain(self) -> float | None:
        """Return the largest error of a reconstruction since the last call, as a share of the input's largest
        value; None when there was no step.
        """
        found, self._error = self._error, None
        return None if found is None else float(found)


def _run(blocks: Blocks, x: Tensor) -> Tensor:
    for block in blocks:
        x = block(x)
    return x


def _again(
    function: type[torch.autograd.Function], context: _Context, blocks: Blocks, x: Tensor, *extra: object
) -> Tensor:
    """Compute the blocks, and let `function` do so again in the backward pass."""
    context.relieve()
    parameters = [p for block in blocks for p in block.parameters()]
    out: Tensor = function.apply(context, blocks, *extra, x, *parameters)  # type: ignore[no-untyped-call]
    return out


def _relief(x: Tensor, needed: int) -> Relief | None:
    """Return what keeps a step that needs so many bytes from taking many times that."""
    return Relief(needed) if x.device.type == "cpu" else None


class _Context:
    """What a second computation needs, to be the first one's: random state and autocast; and its memory."""

    def __init__(self, x: Tensor, relief: Relief | None) -> None:
        self._relief = relief
        self.kind = x.device.type
        self.random = torch.get_rng_state()
        self.devices, self.states = get_device_states(x)
        self.cast = torch.is_autocast_enabled(self.kind), torch.get_autocast_dtype(self.kind)

    def relieve(self) -> None:
        """Between two pieces of the net: give back what the one before has left."""
        if self._relief is not None:
            self._relief()

    @contextlib.contextmanager
    def restored(self, blocks: Blocks) -> Iterator[None]:
        """Be where the first computation was; normalisers of `blocks` take nothing into their statistics."""
        self.relieve()
        norms = [m for block in blocks for m in block.modules() if isinstance(m, _BatchNorm)]
        tracked = [norm for norm in norms if norm.track_running_stats]
        enabled, dtype = self.cast
        with (
            torch.enable_grad(),
            torch.random.fork_rng(self.devices),
            torch.autocast(self.kind, dtype=dtype, enabled=enabled),
        ):
            torch.set_rng_state(self.random)
            set_device_states(self.devices, self.states)
            try:
                for norm in tracked:
                    # In evaluation mode a normaliser reads its statistics: they have to stay in sight.
                    norm.track_running_stats = not norm.training
                yield
            finally:
                for norm in tracked:
                    norm.track_running_stats = True


class _Recompute(torch.autograd.Function):
    """Blocks of which only the input is kept."""

    @staticmethod
    def forward(ctx: Any, context: _Context, blocks: Blocks, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.context, ctx.blocks = context, blocks
        ctx.save_for_backward(x)
        return _run(blocks, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        context: _Context = ctx.context
        blocks: Blocks = ctx.blocks
        (x,) = ctx.saved_tensors
        needed = ctx.needs_input_grad[2:]
        x = x.detach().requires_grad_(needed[0])
        with context.restored(blocks):
            out = _run(blocks, x)
        parameters = (p for block in blocks for p in block.parameters())
        return None, None, *_gradients(out, gradient, [x, *parameters], needed)


class _Back:
    """The way back through a run of reversible blocks: where it is now."""

    def __init__(self, net: Reversed) -> None:
        self.net = net
        self.out: Tensor | None = None
        """Output of the piece whose turn it is."""


class _Reverse(torch.autograd.Function):
    """A piece of a run of reversible blocks, of which nothing is kept.

    But of the run its last output, and its first input to compare with.
    """

    @staticmethod
    def forward(
        ctx: Any,
        context: _Context,
        blocks: Blocks,
        back: _Back,
        ends: tuple[bool, bool],
        x: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        ctx.context, ctx.blocks, ctx.back, ctx.ends = context, blocks, back, ends
        out = _run(blocks, x)
        ctx.save_for_backward(*(kept for kept, end in zip((x, out), ends, strict=True) if end))
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        context: _Context = ctx.context
        blocks: Blocks = ctx.blocks
        back: _Back = ctx.back
        is_first, is_last = ctx.ends
        out = ctx.saved_tensors[-1] if is_last else back.out
        assert out is not None
        back.out = None
        needed = list(ctx.needs_input_grad[5:])
        found: list[tuple[Tensor | None, ...]] = []
        with context.restored(blocks):
            for block in reversed(blocks):
                branching, junction = _coupled(block)
                parameters = list(block.parameters())
                flags = [needed.pop() for _ in parameters][::-1]
                # What the branch read went through as it was, so the block's output gives it the same.
                out = out.detach().requires_grad_()
                branch = branching(out)
                with torch.no_grad():
                    earlier = junction.inverse(out, branch)
                added = junction.added(gradient)
                through, *rest = _gradients(branch, added, [out, *parameters], [True, *flags])
                gradient, out = gradient + through, earlier
                found.append(tuple(rest))
        if is_first:
            back.net.compare(out, ctx.saved_tensors[0])
        else:
            back.out = out
        return None, None, None, None, gradient, *(own for rest in reversed(found) for own in rest)


def _coupled(block: nn.Module) -> tuple[nn.Module, CoupledSum]:
    branch, junction = block.get_submodule("branch"), block.get_submodule("junction")
    assert isinstance(junction, CoupledSum)
    return branch, junction


def _gradients(out: Tensor, gradient: Tensor, inputs: Sequence[Tensor], needed: Sequence[bool]) -> list[Any]:
    """Return the gradients of the `inputs` that are needed, and None for the others."""
    wanted = [tensor for tensor, flag in zip(inputs, needed, strict=True) if flag]
    found = iter(torch.autograd.grad(out, wanted, gradient, allow_unused=True))
    return [next(found) if flag else None for flag in needed]
