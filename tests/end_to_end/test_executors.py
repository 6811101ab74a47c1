"""A study's cells run on any `concurrent.futures.Executor`, and end with the bits of one process."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import filelock
import pytest
import torch
from safetensors.torch import load_file

import deepskip as ds
from deepskip.errors import WorkError
from deepskip.studies.depth import DepthStudy, Result
from deepskip.studies.grid import CellEnded, run_cell
from deepskip.studies.pool import listening

RECIPE = ds.Recipe(epochs=2, max_steps=4)


def run(out: str, **where: Any) -> Result:
    return ds.studies.depth.run(
        ds.data.open("digits"), depths=(8, 14), seeds=1, recipe=RECIPE, out=out, **where
    )


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def assert_equal(one: Path, other: Path) -> None:
    """Compare the weights of every cell of two study folders, bit for bit."""
    cells = sorted(path.name for path in (one / "cells").iterdir())
    assert cells == sorted(path.name for path in (other / "cells").iterdir())
    for cell in cells:
        mine, theirs = (load_file(folder / "cells" / cell / "model.safetensors") for folder in (one, other))
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine), cell


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("alone") / "study"
    return folder, run(str(folder), threads=1)


def threads() -> Executor:
    return ThreadPoolExecutor(2)


def processes() -> Executor:
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


class Late(Executor):
    """Does nothing before it is asked, like a queue of a computing centre; its futures are plain ones."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        future.set_result(fn(*args, **kwargs))
        return future


@pytest.mark.parametrize("make", [threads, processes, Late])
def test_any_executor_gives_the_bits_of_one_process(
    make: Callable[[], Executor], alone: tuple[Path, Result]
) -> None:
    with make() as executor:
        found = run("there", executor=executor, threads=1)
    assert timeless(found.rows) == timeless(alone[1].rows)
    assert_equal(Path("there"), alone[0])
    assert [row["threads"] for row in found.rows] == [1, 1, 1, 1]


def test_a_cell_that_fails_is_named_and_the_others_are_kept() -> None:
    class Unlucky(ThreadPoolExecutor):
        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            if (args[0].depth, args[0].kind) == (14, "plain"):
                return super().submit(lambda: 1 / 0)
            return super().submit(fn, *args, **kwargs)

    with Unlucky(1) as executor, pytest.raises(WorkError) as caught:
        run("s", executor=executor)
    assert "(plain, 14 layers, seed 0): got ZeroDivisionError" in str(caught.value)
    assert len(Path("s/results.jsonl").read_text().splitlines()) == 3
    assert len(run("s").rows) == 4


def cells(out: str) -> Iterator[tuple[Any, ...]]:
    study = DepthStudy(ds.data.open("digits"), depths=(8,), seeds=1, recipe=RECIPE, out=out)
    for cell in study.cells:
        yield cell, study.data.source, None, Path(out).absolute()


def test_a_cell_waits_for_a_process_that_is_still_in_its_folder() -> None:
    given = next(cells("s"))
    path = given[3] / "cells" / given[0].hash
    (path / "state").mkdir(parents=True)
    looks: list[None] = []

    def train() -> Any:
        with listening(lambda: bool(looks.append(None))):  # type: ignore[func-returns-value]
            return run_cell(*given)

    with ThreadPoolExecutor(1) as pool:
        with filelock.FileLock(path / "state" / "lock"):
            future = pool.submit(train)
            while len(looks) < 3 and not future.done():
                time.sleep(0.05)
        assert future.result()["status"] == "ok"
    with filelock.FileLock(path / "state" / "lock"), pytest.raises(ds.InputError, match="another process"):
        (path / "row.json").unlink()
        run_cell(*given, patience=0)


def test_a_cell_that_goes_on_keeps_the_threads_it_began_with() -> None:
    given = next(cells("s"))
    asked = iter([False, False, True])
    with listening(lambda: next(asked)):
        assert run_cell(*given, threads=2) is None
    assert torch.get_num_threads() == 1
    row = run_cell(*given)
    assert row is not None
    assert row["threads"] == 2
    assert json.loads((given[3] / "cells" / row["hash"] / "environment.json").read_text())["threads"] == 2
    assert torch.get_num_threads() == 1


def test_closing_a_study_early_cancels_what_waits() -> None:
    study = DepthStudy(ds.data.open("digits"), depths=(8,), seeds=3, recipe=RECIPE, out="s")
    with ThreadPoolExecutor(1) as executor:
        events = study.run(executor=executor)
        assert any(isinstance(event, CellEnded) for event in events)
        events.close()
    assert 0 < len(list(Path("s/cells").glob("*/row.json"))) < 6
