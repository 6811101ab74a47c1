"""Pictures that wait for the network, and the one thread in which it computes.

While a batch is computed the next one gathers: how large it is follows from how many wait, and nobody waits for
a clock. All that touches the network happens in that thread, so nothing of it has to be locked, and OpenMP has
one team of threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt

from deepskip.data.dataset import Pixels
from deepskip.describe.preprocessing import Preprocessing
from deepskip.errors import WorkError

T = TypeVar("T")
Probabilities: TypeAlias = npt.NDArray[np.float64]
Run: TypeAlias = Callable[[npt.NDArray[np.uint8]], npt.NDArray[Any]]
"""Pictures uint8 [n, h, w, c] → logits [n, classes]."""
Ran: TypeAlias = Callable[[int, float], None]
"""Told after each batch: how many pictures, and how many seconds."""


class _Asked:
    """Some pictures of one request: all of their rows make its answer."""

    def __init__(self, pixels: Sequence[Pixels], future: asyncio.Future[Probabilities]) -> None:
        self.pixels = pixels
        self.future = future
        self.rows: list[Probabilities] = [np.empty(0)] * len(pixels)
        self.missing = len(pixels)

    def arrived(self, i: int, row: Probabilities) -> None:
        self.rows[i] = row
        self.missing -= 1
        if not self.missing:
            _settle(self.future, np.stack(self.rows))


class _Call:
    """Something else that is done with the network, between two batches."""

    def __init__(self, function: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        self.function = function
        self.future = future


class Queue:
    """Takes pictures from the event loop and answers them in batches of at most `batch`.

    It does not count how many wait: the gate does. What goes wrong with a batch is its pictures' answer, and
    the thread goes on.
    """

    def __init__(self, runner: Run, *, batch: int, ran: Ran | None = None) -> None:
        self._runner = runner
        self._batch = batch
        self._ran = ran
        self._pictures: deque[tuple[_Asked, int]] = deque()
        self._calls: deque[_Call] = deque()
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="deepskip-network", daemon=True)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to answer, to futures of `loop`."""
        self._loop = loop
        self._thread.start()

    def close(self) -> None:
        """Answer what waits, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    async def ask(self, pixels: Sequence[Pixels]) -> Probabilities:
        """Return the probabilities [n, classes] of pictures uint8 [h, w, c]. Raises WorkError.

        When the caller gives up, what has not been computed yet never is.
        """
        asked = _Asked(pixels, self._loop.create_future())
        with self._changed:
            self._pictures.extend((asked, i) for i in range(len(pixels)))
            self._changed.notify()
        return await asked.future

    async def call(self, function: Callable[[], T]) -> T:
        """Return what `function` does, called in the network's thread; calls and batches take turns."""
        future: asyncio.Future[T] = self._loop.create_future()
        with self._changed:
            self._calls.append(_Call(function, future))
            self._changed.notify()
        return await future

    # --- in the network's thread ------------------------------------------------------------------------------

    def _work(self) -> None:
        after_call = False
        while (work := self._next(after_call)) is not None:
            after_call = isinstance(work, _Call)
            if isinstance(work, _Call):
                self._run_call(work)
            else:
                self._run_batch(work)

    def _next(self, after_call: bool) -> _Call | list[tuple[_Asked, int]] | None:
        """Wait for work: a batch after a call and a call after a batch, where there are both. None: the end."""
        with self._changed:
            while True:
                if self._calls and not (after_call and self._pictures):
                    call = self._calls.popleft()
                    if not call.future.done():
                        return call
                elif self._pictures:
                    if taken := self._taken():
                        return taken
                elif self._closing:
                    return None
                else:
                    self._changed.wait()

    def _taken(self) -> list[tuple[_Asked, int]]:
        """Take a batch of what waits; without what was given up, or of which another picture went wrong."""
        taken: list[tuple[_Asked, int]] = []
        while self._pictures and len(taken) < self._batch:
            asked, i = self._pictures.popleft()
            if not asked.future.done():
                taken.append((asked, i))
        return taken

    def _run_call(self, call: _Call) -> None:
        try:
            found = call.function()
        except BaseException as error:
            self._tell(_fail, [call.future], error)
        else:
            self._tell(_settle, call.future, found)

    def _run_batch(self, taken: list[tuple[_Asked, int]]) -> None:
        started = time.perf_counter()
        try:
            rows = probabilities(self._runner(np.stack([asked.pixels[i] for asked, i in taken])))
            if self._ran is not None:
                self._ran(len(taken), time.perf_counter() - started)
        except BaseException as error:  # whatever it is, the next batch has nothing to do with it
            self._tell(_fail, [asked.future for asked, _ in taken], error)
        else:
            self._tell(_deliver, taken, rows)

    def _tell(self, function: Callable[..., None], *given: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone: the server was ended by force
            self._loop.call_soon_threadsafe(function, *given)


def probabilities(logits: npt.NDArray[Any]) -> Probabilities:
    """Return the softmax of `logits` [n, classes], in float64."""
    wide = np.asarray(logits, np.float64)
    with np.errstate(invalid="ignore"):  # infinity less infinity: whoever asked is told
        powers = np.exp(wide - wide.max(axis=1, keepdims=True))
    return cast("Probabilities", powers / powers.sum(axis=1, keepdims=True))


def check(runner: Run, preprocessing: Preprocessing, batch: int) -> None:
    """Run `batch` empty pictures through `runner`, and one. Raises WorkError for outputs that are not finite.

    One, because most requests bring it, and libraries prepare for each number of pictures when they first
    meet it.
    """
    side, channels = preprocessing.size, preprocessing.channels
    for pictures in (batch, 1):
        if not np.isfinite(runner(np.zeros((pictures, side, side, channels), np.uint8))).all():
            raise WorkError(
                "model", "outputs that are not finite", "a whole model; this one is damaged or diverged"
            )


# --- in the loop's thread -------------------------------------------------------------------------------------


def _deliver(taken: Sequence[tuple[_Asked, int]], rows: Probabilities) -> None:
    for (asked, i), row in zip(taken, rows, strict=True):
        if np.isfinite(row).all():
            asked.arrived(i, row)
        else:
            _fail([asked.future], WorkError("network", "outputs that are not finite", "a whole model"))


def _settle(future: asyncio.Future[Any], found: Any) -> None:
    if not future.done():
        future.set_result(found)


def _fail(futures: Sequence[asyncio.Future[Any]], error: BaseException) -> None:
    for future in futures:
        if not future.done():
            # A KeyboardInterrupt of that thread is none of this one's, and a StopIteration cannot be passed on.
            known = isinstance(error, Exception) and not isinstance(error, StopIteration)
            future.set_exception(error if known else RuntimeError(repr(error)))
