"""How signals flow while a net trains: every block's gradient, activation and branch, at some of the steps.

Two hooks a block are there for the forward pass of a recorded step and gone before its backward pass, which may
compute blocks again. What they measure stays on the device until somebody asks, and never enters the training.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from deepskip.errors import InputError
from deepskip.nets.network import Network
from deepskip.nets.parts import BranchOnly

Every = Literal["auto"] | int
"""Steps from one recorded step to the next; 0 records none."""

ROWS = 200  # that an "auto" run has, at most
LEAST = 4  # steps between them: a recorded one may cost a tenth more (benchmarks/flow_cost.py)
DIGITS = 5  # of a number in a row


def interval(every: Every, steps: int) -> int:
    """Return the steps from one recorded step to the next in a run of `steps`; 0 for none.

    "auto" is a rule and not a measurement, so that the same run has the same rows. Raises InputError.
    """
    if every == "auto":
        return max(LEAST, math.ceil(steps / ROWS))
    if isinstance(every, bool) or not isinstance(every, int) or every < 0:
        raise InputError("flow", repr(every), "'auto', a whole number of steps, or 0 for none", "auto")
    return every


class Flow:
    """Measures the blocks of `net` at the first step of `steps`, every `every`-th after it, and the last.

    A row is `step` (counted from 1) and three lists in the order of the blocks, null where there is no finite
    number:

    - `grad_norm`: Euclidean norm of the step's gradient by the block's parameters, before clipping; null where
      all are frozen;
    - `rms`: root mean square of the block's output, over the images of the step's last part (this process's);
    - `ratio`: rms of the branch over rms of the shortcut, as both come to the junction; null in a plain block.

    Activations are squared in float32: an rms below 1e-19 or above 1e19 reads as 0 or null. Without
    `activations` (a compiled net has no place for hooks) `rms` and `ratio` are null.
    """

    def __init__(self, net: Network, every: int, steps: int, *, activations: bool = True) -> None:
        self.blocks = [f"{s}.{b}" for s, stage in net.stages.items() for b, _ in stage.named_children()]
        self._modules: list[Any] = list(net.blocks())
        self._every, self._steps, self._activations = every, steps, activations
        self._seen: dict[tuple[int, str], _Norm] = {}
        self._unread: list[_Reading] = []

    def wants(self, step: int) -> bool:
        """Return whether step `step` is one to record."""
        return (step - 1) % self._every == 0 or step == self._steps

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Measure the activations of the forward pass inside; whatever happens there, no hook stays."""
        self._seen, handles = {}, []
        try:
            for i, block in enumerate(self._modules if self._activations else ()):
                handles.append(block.register_forward_hook(self._output(i)))
                if not isinstance(block.junction, BranchOnly):  # which has no shortcut to compare with
                    handles.append(block.junction.register_forward_pre_hook(self._junction(i)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def take(self, step: int, scale: Tensor) -> None:
        """Measure the parameters' gradients, which are `scale` [] times too large; nothing waits for a GPU."""
        owned = [
            (i, p.grad)
            for i, block in enumerate(self._modules)
            for p in block.parameters()
            if p.grad is not None
        ]
        found = [norm.value.double() for norm in self._seen.values()]
        if owned:
            found += torch._foreach_norm([grad for _, grad in owned], 2, dtype=torch.float64)
        values = torch.stack([scale.double(), *found])
        places = {place: norm.size for place, norm in self._seen.items()}
        self._unread.append(_Reading(step, values, places, [i for i, _ in owned]))
        self._seen = {}

    def drain(self) -> list[dict[str, Any]]:
        """Return the rows of the steps taken since the last call."""
        rows = [self._row(reading) for reading in self._unread]
        self._unread = []
        return rows

    def _output(self, i: int) -> Any:
        def seen(module: nn.Module, inputs: Any, output: Tensor) -> None:
            self._seen[i, "output"] = _norm(output)

        return seen

    def _junction(self, i: int) -> Any:
        def seen(module: nn.Module, inputs: tuple[Tensor, Tensor]) -> None:
            shortcut, branch = inputs
            self._seen[i, "shortcut"], self._seen[i, "branch"] = _norm(shortcut), _norm(branch)

        return seen

    def _row(self, reading: _Reading) -> dict[str, Any]:
        scale, *values = reading.values.tolist()
        rms = {
            place: value / math.sqrt(count)
            for (place, count), value in zip(reading.places.items(), values, strict=False)
        }
        squares: dict[int, float] = {}
        for i, value in zip(reading.owners, values[len(rms) :], strict=True):
            squares[i] = squares.get(i, 0.0) + (value / scale) ** 2
        return {
            "step": reading.step,
            "grad_norm": [_rounded(_root(squares.get(i))) for i in range(len(self.blocks))],
            "rms": [_rounded(rms.get((i, "output"))) for i in range(len(self.blocks))],
            "ratio": [
                _rounded(_divided(rms.get((i, "branch")), rms.get((i, "shortcut"))))
                for i in range(len(self.blocks))
            ],
        }


class _Norm(NamedTuple):
    value: Tensor
    size: int


class _Reading(NamedTuple):
    """A step's numbers, still on the device: the scale, the norms at `places`, those of `owners`' gradients."""

    step: int
    values: Tensor
    places: dict[tuple[int, str], int]
    owners: list[int]


@torch.no_grad()
def _norm(x: Tensor) -> _Norm:
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    return _Norm(torch.linalg.vector_norm(x.detach(), dtype=wide), x.numel())


def _root(square: float | None) -> float | None:
    return None if square is None else math.sqrt(square)


def _divided(branch: float | None, shortcut: float | None) -> float | None:
    return None if branch is None or not shortcut else branch / shortcut


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.{DIGITS}g}")
