"""A grid of trainings: each cell a run folder keyed by a hash of all that decides its result.

So a second run of a study does only what is missing, and an interrupted one goes on where it stopped.
"""

from __future__ import annotations

import concurrent.futures as futures
import contextlib
import functools
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from deepskip.data import sources
from deepskip.data.dataset import Dataset
from deepskip.describe.ledger import count
from deepskip.describe.spec import Spec
from deepskip.describe.value import Value
from deepskip.errors import DivergedError, InputError, WorkError
from deepskip.files import read_json, write_json
from deepskip.nets.builder import build
from deepskip.training.engine import fit
from deepskip.training.events import EpochEnded
from deepskip.training.recipe import Recipe
from deepskip.training.rundir import METRICS, read_rows

CELLS, ROW, RESULTS = "cells", "row.json", "results.jsonl"
POLL = 0.5  # seconds between looks at what other processes have written

Row = dict[str, Any]


class Cell(Value):
    """One training of a study: everything that decides its result."""

    study: str
    kind: str
    """"plain" or "residual" in a depth study; what tells the lines of a figure apart."""
    depth: int
    seed: int
    spec: Spec
    recipe: Recipe
    fingerprint: str
    """The data's."""
    device: str
    precision: str

    @functools.cached_property
    def hash(self) -> str:
        """The name of the cell's folder: 16 hexadecimal digits."""
        return self.digest()[:16]


@dataclass(frozen=True)
class CellProgress:
    """A cell has ended epochs; `rows` are its metrics so far."""

    cell: Cell
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class CellEnded:
    """A cell is done, now or in an earlier run of the study; `row` is its line of `results.jsonl`."""

    cell: Cell
    row: Row
    cached: bool


Events = Generator[CellProgress | CellEnded, None, None]


def run_grid(
    cells: Sequence[Cell],
    data: Dataset,
    folder: Path,
    *,
    workers: int = 1,
    executor: futures.Executor | None = None,
) -> Events:
    """Train every cell that has no row yet, yielding what happens, cells in any order.

    In this process with one worker; in `workers` processes that share the cores otherwise; or on `executor`,
    whose workers must see `folder`. Ctrl-C, or closing the iterator, lets cells that run here or in processes
    of ours save their state and stop. Raises WorkError when a worker is lost: the rows that ended are kept.
    """
    missing = []
    for cell in cells:
        path = folder / CELLS / cell.hash / ROW
        if path.exists():
            row = read_json(path)
            assert isinstance(row, dict)
            yield CellEnded(cell, row, cached=True)
        else:
            missing.append(cell)
    if executor is not None:
        yield from _run_on(executor, missing, data, folder)
    elif workers > 1 and len(missing) > 1:
        yield from _run_in_processes(missing, data, folder, min(workers, len(missing)))
    else:
        for cell in missing:
            yield from _run_here(cell, data, folder)


def _run_here(cell: Cell, data: Dataset, folder: Path) -> Events:
    rows: list[Row] = []
    status = "ok"
    try:
        for event in _fit(cell, data, folder):
            if isinstance(event, EpochEnded):
                rows.append(asdict(event))
                yield CellProgress(cell, tuple(rows))
    except DivergedError:
        status = "diverged"
    yield CellEnded(cell, _end(cell, folder, status), cached=False)


def _fit(cell: Cell, data: Dataset, folder: Path, *, each_step: bool = False) -> Iterator[object]:
    net = build(cell.spec, cell.seed)
    return fit(
        net,
        data,
        cell.recipe,
        out=folder / CELLS / cell.hash,
        seed=cell.seed,
        device=cell.device,
        precision=cell.precision,
        resume=True,
        each_step=each_step,
    )


def _end(cell: Cell, folder: Path, status: str) -> Row:
    """Write and return the cell's row, from the metrics in its run folder."""
    metrics = read_rows(folder / CELLS / cell.hash / METRICS)
    last = metrics[-1] if metrics else {}
    ok = status == "ok"
    row = {
        "study": cell.study,
        "kind": cell.kind,
        "depth": cell.depth,
        "seed": cell.seed,
        "params": count(cell.spec).params,
        "train_loss": last.get("train_loss") if ok else None,
        "train_error": last.get("train_error") if ok else None,
        "val_error": last.get("val_error") if ok else None,
        "seconds": round(last.get("seconds", 0.0), 3),
        "status": status,
        "hash": cell.hash,
    }
    write_json(folder / CELLS / cell.hash / ROW, row)
    return row


# --- other processes ------------------------------------------------------------------------------------------

_stop: Any = None  # in a worker process of ours: the event that asks it to stop


def _enter_worker(stop: Any, threads: int) -> None:
    global _stop
    _stop = stop
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the parent hears both signals and sets `stop`
    torch.set_num_threads(threads)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(
            1
        )  # it was killed: nobody waits for the rest, and the cell's state goes on from its last epoch


@contextlib.contextmanager
def _deaf_children() -> Iterator[None]:
    """Let processes that are started in the block ignore Ctrl-C from their first instruction on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@functools.lru_cache(maxsize=1)
def _open(source: str, size: int | None) -> Dataset:
    return sources.open_dataset(source, size=size)


def run_cell(cell: Cell, source: str, size: int | None, folder: Path) -> Row | None:
    """Train one cell wherever this process is; None when it was asked to stop before the end."""
    data = _open(source, size)
    if data.fingerprint != cell.fingerprint:
        raise InputError(source, "data that changed since the study began", "the data it began with")
    events = _fit(cell, data, folder, each_step=True)
    try:
        for _ in events:
            if _stop is not None and _stop.is_set():
                return None
    except DivergedError:
        return _end(cell, folder, "diverged")
    finally:
        events.close()  # type: ignore[attr-defined]
    return _end(cell, folder, "ok")


def _run_in_processes(cells: Sequence[Cell], data: Dataset, folder: Path, workers: int) -> Events:
    context = multiprocessing.get_context("spawn")  # a forked PyTorch deadlocks in its thread pool
    stop = context.Event()
    threads = max(1, torch.get_num_threads() // workers)
    pool = futures.ProcessPoolExecutor(workers, context, initializer=_enter_worker, initargs=(stop, threads))
    try:
        yield from _run_on(pool, cells, data, folder)
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _run_on(executor: futures.Executor, cells: Sequence[Cell], data: Dataset, folder: Path) -> Events:
    source, size = data.source, data.preprocessing.size
    # The deepest first: the last cell to start is then a short one, and no worker waits for long.
    order = sorted(cells, key=lambda cell: -cell.spec.layers)
    with _deaf_children():
        waiting = {executor.submit(run_cell, cell, source, size, folder): cell for cell in order}
    seen = dict.fromkeys(cells, 0)
    try:
        while waiting:
            done, _ = futures.wait(waiting, timeout=POLL, return_when=futures.FIRST_COMPLETED)
            for future in done:
                cell = waiting.pop(future)
                row = future.result()
                if row is not None:
                    yield CellEnded(cell, row, cached=False)
            for cell in waiting.values():
                rows = tuple(read_rows(folder / CELLS / cell.hash / METRICS))
                if len(rows) != seen[cell]:
                    seen[cell] = len(rows)
                    yield CellProgress(cell, rows)
    except futures.process.BrokenProcessPool as error:
        raise WorkError(
            folder,
            "a worker process that died (killed, or out of memory)",
            "the same command again, to go on",
        ) from error
    finally:
        for future in waiting:
            future.cancel()
