"""A grid of trainings: each cell a run folder keyed by a hash of all that decides its result.

So a second run of a study does only what is missing, and an interrupted one goes on where it stopped.
"""

from __future__ import annotations

import concurrent.futures as futures
import contextlib
import functools
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import filelock
import torch

from deepskip.data import sources
from deepskip.data.dataset import Dataset
from deepskip.describe.ledger import count
from deepskip.errors import DeepskipError, ImpossibleError, InputError, WorkError
from deepskip.files import read_json, write_json
from deepskip.instruments import ends, summary
from deepskip.nets.builder import build
from deepskip.nets.network import Network
from deepskip.studies.cell import Cell, Row, in_order
from deepskip.studies.pool import asked_to_stop, deaf_children, processes
from deepskip.training.engine import fit
from deepskip.training.events import EpochEnded, Event
from deepskip.training.precision import computing_with
from deepskip.training.rundir import ENVIRONMENT, METRICS, STATE, read_rows
from deepskip.weights import store

CELLS, ROW, RESULTS = "cells", "row.json", "results.jsonl"
INSTRUMENTS = {"ends": ends, "summary": summary}
"""By the names that a Cell's `measure` has."""
POLL = 0.5  # seconds between looks at what other processes have written
PATIENCE = 120.0  # seconds that a cell waits for a process that still holds its folder


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
    threads: int | None = None,
) -> Events:
    """Train every cell that has no row yet, yielding what happens, cells in any order.

    In this process with one worker; in `workers` processes that share the cores otherwise; or on `executor`,
    any `concurrent.futures.Executor` whose workers see `folder` and the data under the same paths. Each cell
    computes with `threads` threads: by default all in this process, an equal share in processes of ours, and on
    an executor what its workers have, or what the cell began with where it goes on.

    A cell that begins from another comes after it, and is "impossible" where that did not end well; one that
    ran out of memory in an earlier run is tried again. What keeps one training from its end (it diverges, does
    not fit, cannot begin) is said in its row, and the others go on.

    Ctrl-C, or closing the iterator, lets cells that run here, in processes of ours or on a `cluster.Cluster`
    save their state and stop; another executor's running cells go on to their end. Raises WorkError when the
    workers are lost, and, after all other cells, when one failed in another process: rows that ended are kept;
    InputError when a cell begins from one that is not there, and for data in memory alone, which no other
    process can open.
    """
    if not data.source and (executor is not None or workers > 1):
        where, got = ("executor", type(executor).__name__) if executor else ("workers", workers)
        here = f"{data.name} is arrays in memory, which other processes do not have"
        raise InputError(where, got, f"{'none' if executor else 1}: {here}")
    missing = []
    for cell in in_order(cells):
        row = _row(folder / CELLS / cell.hash)
        if row is not None:
            yield CellEnded(cell, row, cached=True)
        else:
            missing.append(cell)
    if executor is not None:
        # Of other machines' processes none stands in the same folder as this one.
        yield from _run_on(executor, missing, data, folder.absolute(), threads, PATIENCE)
    elif workers > 1 and len(missing) > 1:
        workers = min(workers, len(missing))
        share = threads or max(1, torch.get_num_threads() // workers)
        with processes(workers) as pool:
            yield from _run_on(pool, missing, data, folder, share, 0.0)
    else:
        with computing_with(threads):
            for cell in missing:
                yield from _run_here(cell, data, folder)


def _row(path: Path) -> Row | None:
    """Return the row of the cell in `path`, None where it is still to be trained."""
    if not (path / ROW).exists():
        return None
    row = read_json(path / ROW)
    assert isinstance(row, dict)
    return None if row["status"] == "out_of_memory" else row


def _run_here(cell: Cell, data: Dataset, folder: Path) -> Events:
    rows: list[Row] = []
    with contextlib.closing(_train(cell, data, folder)) as events:
        for event in events:
            if isinstance(event, EpochEnded):
                rows.append(asdict(event))
                yield CellProgress(cell, tuple(rows))
            elif isinstance(event, CellEnded):
                yield event


def _train(
    cell: Cell, data: Dataset, folder: Path, *, each_step: bool = False
) -> Generator[Event | CellEnded, None, None]:
    """Train the cell, yielding `fit`'s events, then that it ended: also where it ended early."""
    measured: Row = dict.fromkeys(_columns(cell))
    (folder / CELLS / cell.hash / ROW).unlink(missing_ok=True)  # of a try that found no memory
    ended = None
    try:
        net = _begun(cell, folder)
        events = fit(
            net,
            data,
            cell.recipe,
            out=folder / CELLS / cell.hash,
            seed=cell.seed,
            device=cell.device,
            precision=cell.precision,
            memory=cell.memory,
            resume=True,
            each_step=each_step,
        )
        if cell.measure != "nothing":
            # Of a net of its own: `net` already holds the state that an interrupted cell goes on from.
            fresh = _begun(cell, folder).to(next(net.parameters()).device)
            measured |= _measured(cell, fresh, data, "start") | _compared(cell, fresh, data, folder)
        yield from events
    except DeepskipError as error:
        if error.status is None:
            raise
        ended = error
    if cell.measure != "nothing" and (ended is None or ended.status == "diverged"):
        measured |= _measured(cell, net, data, "end")
    yield CellEnded(cell, _end(cell, folder, ended, measured), cached=False)


def _columns(cell: Cell) -> list[str]:
    """Return the names of what is measured; null until it is."""
    names = INSTRUMENTS[cell.measure].COLUMNS if cell.measure != "nothing" else ()
    beside = cell.begin.columns if cell.begin is not None and names else ()
    return [f"{name}_{when}" for when in ("start", "end") for name in names] + list(beside)


def _measured(cell: Cell, net: Network, data: Dataset, when: str) -> Row:
    found = INSTRUMENTS[cell.measure].measure(net, data, cell.seed)
    return {f"{name}_{when}": value for name, value in found.items()}


def _compared(cell: Cell, net: Network, data: Dataset, folder: Path) -> Row:
    if cell.begin is None:
        return {}
    trained = store.load(folder / CELLS / cell.begin.cell, device=next(net.parameters()).device)[0]
    return cell.begin.measure(net, trained, data, cell.seed)


def _begun(cell: Cell, folder: Path) -> Network:
    """Return the cell's net as its training begins. Raises ImpossibleError where it cannot begin."""
    if cell.begin is None:
        return build(cell.spec, cell.seed)
    source = folder / CELLS / cell.begin.cell
    held = read_json(source / ROW)
    status = held.get("status") if isinstance(held, dict) else None
    if status != "ok":
        raise ImpossibleError(cell.title, f"{source}, whose status is {status}", "a training that ended well")
    return cell.begin.net(store.load(source)[0], cell.spec, cell.seed)


def _end(cell: Cell, folder: Path, error: DeepskipError | None, measured: Row) -> Row:
    """Write and return the cell's row: its metrics, what was measured, and the error that ended it."""
    metrics = read_rows(folder / CELLS / cell.hash / METRICS)
    last = metrics[-1] if metrics else {}
    ok = error is None
    row = {
        **dict(cell.columns),
        "study": cell.study,
        "kind": cell.kind,
        "depth": cell.depth,
        "seed": cell.seed,
        "params": count(cell.spec).params,
        "train_loss": last.get("train_loss") if ok else None,
        "train_error": last.get("train_error") if ok else None,
        "val_error": last.get("val_error") if ok else None,
        **measured,
        "seconds": round(last.get("seconds", 0.0), 3),
        "status": "ok" if error is None else error.status,
        **({} if error is None else {"reason": str(error)}),
        "threads": torch.get_num_threads(),
        "hash": cell.hash,
    }
    write_json(folder / CELLS / cell.hash / ROW, row)
    return row


# --- elsewhere ------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _open(source: str, size: int | None, fingerprint: str) -> Dataset:
    """Return the data, kept for the next cell; of a worker's earlier study only where it is the same."""
    data = sources.open_dataset(source, size=size)
    if data.fingerprint != fingerprint:
        raise InputError(source, "data that changed since the study began", "the data it began with")
    return data


def run_cell(
    cell: Cell,
    source: str,
    size: int | None,
    folder: Path,
    threads: int | None = None,
    patience: float = PATIENCE,
) -> Row | None:
    """Train one cell wherever this process is; None when it was asked to stop before the end.

    A worker that was taken for lost may still train the cell: for `patience` seconds it is waited for.
    """
    path = folder / CELLS / cell.hash
    _await(path, patience)
    if asked_to_stop():
        return None
    row = _row(path)
    if row is not None:
        return row
    data = _open(source, size, cell.fingerprint)
    with (
        computing_with(threads or _begun_with(path)),
        contextlib.closing(_train(cell, data, folder, each_step=True)) as events,
    ):
        for event in events:
            if isinstance(event, CellEnded):
                return event.row
            if asked_to_stop():
                return None
    return None


def _await(path: Path, patience: float) -> None:
    """Wait until no other process trains in `path`; after `patience` seconds let training say that one does."""
    until = time.monotonic() + patience
    while (path / STATE).is_dir() and time.monotonic() < until and not asked_to_stop():
        lock = filelock.FileLock(path / STATE / "lock")  # the run folder's own
        try:
            lock.acquire(timeout=POLL)
        except filelock.Timeout:
            continue
        lock.release()
        return


def _begun_with(path: Path) -> int | None:
    """Return how many threads the run in `path` began with: with as many it ends as if never interrupted."""
    if not (path / ENVIRONMENT).exists():
        return None
    held = read_json(path / ENVIRONMENT)
    return held.get("threads") if isinstance(held, dict) else None


def _run_on(
    executor: futures.Executor,
    cells: Sequence[Cell],
    data: Dataset,
    folder: Path,
    threads: int | None,
    patience: float,
) -> Events:
    given = (data.source, data.preprocessing.size, folder, threads, patience)
    # The deepest first: the last cell to start is then a short one, and no worker waits for long.
    order = sorted(cells, key=lambda cell: -cell.spec.layers)
    failed: dict[Cell, Exception] = {}
    hashes = {cell.hash for cell in cells}
    held = [cell for cell in order if cell.begin is not None and cell.begin.cell in hashes]
    with deaf_children():
        waiting = {executor.submit(run_cell, cell, *given): cell for cell in order if cell not in held}
    seen = dict.fromkeys(cells, 0)
    try:
        while waiting:
            done, _ = futures.wait(waiting, timeout=POLL, return_when=futures.FIRST_COMPLETED)
            for future in done:
                cell = waiting.pop(future)
                try:
                    row = future.result()
                except (DeepskipError, futures.BrokenExecutor):
                    raise  # what is wrong for one is wrong for all
                except Exception as error:
                    failed[cell] = error
                    continue
                if row is None:
                    continue
                yield CellEnded(cell, row, cached=False)
                with deaf_children():
                    for next_one in [one for one in held if one.begin and one.begin.cell == cell.hash]:
                        held.remove(next_one)
                        waiting[executor.submit(run_cell, next_one, *given)] = next_one
            for cell in waiting.values():
                rows = tuple(read_rows(folder / CELLS / cell.hash / METRICS))
                if len(rows) != seen[cell]:
                    seen[cell] = len(rows)
                    yield CellProgress(cell, rows)
    except futures.BrokenExecutor as error:
        raise WorkError(
            folder,
            "a worker process that died (killed, or out of memory)",
            "the same command again, to go on",
        ) from error
    finally:
        for future in waiting:
            future.cancel()
    if failed:
        cell, first = next(iter(failed.items()))
        more = f", and {len(failed) - 1} more failed" if len(failed) > 1 else ""
        raise WorkError(
            f"{folder / CELLS / cell.hash} ({cell.title})",
            f"{type(first).__name__}: {first}"[:300] + more,
            "the same command again, to go on; the other trainings are kept",
        ) from first
