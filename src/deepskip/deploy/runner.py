"""What every way to run a net looks like from outside: uint8 pixels in, logits out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeAlias

import numpy as np
import numpy.typing as npt

Pixels: TypeAlias = npt.NDArray[np.uint8]
"""[n, h, w, c], as `data.decode.preprocess_file` returns one picture."""
Logits: TypeAlias = npt.NDArray[np.float32]
"""[n, classes]."""


Proof: TypeAlias = Callable[[Path], None]
"""Called with a file that is written and not yet in its place; raises WorkError when it shall not get there."""


class Runner(Protocol):
    """A net that is ready to run, its scaling `(x / 255 - mean) / std` inside. For one thread at a time."""

    name: str
    """The way, or the format of the file."""
    threads: int
    """How many threads it computes with."""

    def __call__(self, pixels: Pixels) -> Logits:
        """Return the logits [n, classes] of `pixels` [n, h, w, c], n ≥ 1, in an array of their own."""
        ...

    def close(self) -> None:
        """Give back memory and threads; what comes after is undefined."""
        ...


class Closing:
    """For runners: `with` closes them, and closing is dropping what they hold."""

    def close(self) -> None:
        """Drop everything."""
        self.__dict__.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def in_batches(runner: Runner, pixels: Pixels, batch: int) -> Logits:
    """Return the logits of any number of `pixels`, computed `batch` at a time."""
    return np.concatenate([runner(pixels[start : start + batch]) for start in range(0, len(pixels), batch)])
