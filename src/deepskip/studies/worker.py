"""What a Dask worker does for a study: one call at a time, which hears when nobody waits for it any more.

A scheduler reads the names of functions that it passes on, and so imports this file: torch is imported by the
functions, which only workers call.
"""

from __future__ import annotations

import functools
import pickle
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepskip.errors import DeepskipError, InputError
from deepskip.files import write_text

if TYPE_CHECKING:
    from deepskip.training.precision import Precision

LOOK = 0.2  # seconds between looks at what may have changed
SHOWN = 5.0  # seconds in which a network file system has to show a new file
LEAVING = ("closing", "closing_gracefully", "closed", "failed")

_one = threading.Lock()  # two studies may share a worker process, and it may have several threads


def work(key: str, pickled: bytes) -> tuple[Any, bool]:
    """Return what the pickled call gives, alone in this process, and whether it was asked to stop.

    It computes with as many threads as the worker has: Dask sets OMP_NUM_THREADS to 1 in its workers, and
    `--nthreads` is what their owner gave them.
    """
    from distributed import get_worker

    from deepskip.studies.pool import asked_to_stop, listening
    from deepskip.training.precision import computing_with

    here = get_worker()
    asked = functools.partial(_is_over, here, key)
    while not _one.acquire(timeout=LOOK):
        if asked():
            return None, True
    try:
        with listening(asked), computing_with(here.state.nthreads):
            return pickle.loads(pickled)(), asked_to_stop()
    finally:
        _one.release()


def _is_over(here: Any, key: str) -> bool:
    """Return whether nobody waits for the task, or its worker leaves: Dask marks it and lets its thread run.

    A client that cancels, is killed or loses its connection all come to the same mark.
    """
    task = here.state.tasks.get(key)
    return task is None or task.state == "cancelled" or here.status.name in LEAVING


def choose(device: str, precision: str, size: int) -> tuple[str, Precision]:
    """Return the device and precision as they are chosen here. Raises InputError."""
    from deepskip.training.precision import choose_device, choose_precision

    chosen = choose_device(device)
    return str(chosen), choose_precision(precision, chosen, size)


def look(token: Path, source: str, size: int | None, fingerprint: str) -> DeepskipError | None:
    """Return what keeps this worker from a study's cells, None when nothing does.

    `token` is a file in the study's folder, fresh and named by chance.
    """
    from distributed import get_worker

    from deepskip.data import sources

    where = f"worker {get_worker().address} on {socket.gethostname()}"
    until = time.monotonic() + SHOWN
    while not token.exists() and time.monotonic() < until:
        time.sleep(LOOK)
    try:
        token.stat()
        own = token.with_name(f"{token.stem}.{uuid.uuid4().hex}.part")
        write_text(own, "")
        own.unlink()
    except (OSError, DeepskipError):
        allowed = "a folder that every worker can read and write under the same path (--out)"
        return InputError(where, f"no way to the study's folder {token.parent}", allowed)
    try:
        found = sources.open_dataset(source, size=size).fingerprint
    except DeepskipError as error:
        return InputError(f"{where}: {error.where}", error.got, error.allowed, error.nearest)
    if found != fingerprint:
        return InputError(f"{where}: {source}", "other data than here", "the same data on every machine")
    return None
