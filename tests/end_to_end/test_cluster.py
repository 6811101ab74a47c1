"""A real Dask cluster on this machine: its workers killed, its calls cancelled, its input wrong."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import deepskip as ds
from deepskip.errors import InputError
from deepskip.studies import cluster as clusters
from deepskip.studies.cluster import Cluster, LostError, connect
from deepskip.studies.depth import DepthStudy
from deepskip.studies.grid import CellProgress
from deepskip.studies.pool import asked_to_stop
from deepskip.studies.scheduler import compare
from tests.end_to_end.command import Command
from tests.end_to_end.test_executors import assert_equal, timeless

STUDY = ("study", "depth", "digits", "--depths", "8,14", "--seeds", 1, "--epochs", 2, "--threads", 1)


@dataclass
class Local:
    """Processes of Dask's, started and ended here."""

    folder: Path
    address: str = ""
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, program: str, *args: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.{program}", *args, "--no-dashboard"]
        with (self.folder / "log").open("ab") as log:
            env = os.environ | {"OMP_NUM_THREADS": "1"}
            process = subprocess.Popen(command, cwd=self.folder, env=env, stdout=log, stderr=log)
        self.running.append(process)
        return process

    def schedule(self) -> None:
        told = self.folder / "scheduler.json"
        self.start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(told))
        while not (told.exists() and told.read_text().strip().endswith("}")):
            assert self.running[0].poll() is None, (self.folder / "log").read_text()
            time.sleep(0.05)
        self.address = json.loads(told.read_text())["address"]

    def work(self, *args: str) -> subprocess.Popen[bytes]:
        # Without its keeper a killed worker stays away; with torch loaded before the first cell comes.
        options = ("--no-nanny", "--nthreads", "2", "--preload", "deepskip.studies.grid")
        return self.start("dask_worker", self.address, *options, *args)

    def end(self) -> None:
        for process in reversed(self.running):
            process.kill()
            process.wait()


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "LIMIT", 120.0)  # of a machine that has other work


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    local = Local(tmp_path_factory.mktemp("dask"))
    try:
        local.schedule()
        for _ in range(3):
            local.work()
        yield local
    finally:
        local.end()


@pytest.fixture
def cluster(local: Local) -> Iterator[Cluster]:
    """The cluster with two workers or three, whatever a test before has done to them."""
    alive = [process for process in local.running[1:] if process.poll() is None]
    if len(alive) < 2:
        local.work()
    with connect(local.address) as cluster:
        cluster.client.wait_for_workers(max(2, len(alive)), timeout=120)
        yield cluster
        cluster.shutdown(wait=False)


def in_a_cell(
    workers: list[subprocess.Popen[bytes]], study: Path
) -> tuple[subprocess.Popen[bytes], Path] | None:
    """Return a worker that has ended an epoch of a cell of 14 layers, and not the cell."""
    for worker in workers:
        try:
            held = [Path(file.path) for file in psutil.Process(worker.pid).open_files()]
        except psutil.NoSuchProcess:
            continue
        for path in held:
            cell = path.parents[1]
            if path.name == "lock" and cell.parent == study / "cells":
                metrics = cell / "metrics.jsonl"
                if metrics.exists() and len(metrics.read_text().splitlines()) == 1:
                    return worker, cell
    return None


def test_a_study_outlives_a_worker_that_is_killed(deepskip: Command, local: Local) -> None:
    """The issue's own words: every row, the bits of one process."""
    for _ in [process for process in local.running if process.poll() is not None]:
        local.work()  # three again
    killed: list[tuple[subprocess.Popen[bytes], Path]] = []
    over = threading.Event()

    def kill() -> None:
        while not killed and not over.wait(0.01):
            found = in_a_cell(local.running[1:], Path("there").absolute())
            if found:
                found[0].send_signal(signal.SIGKILL)
                killed.append(found)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        said = deepskip(*STUDY, "--out", "there", "--dask", local.address, "--json")
    finally:
        over.set()
        killer.join()
    assert said.code == 0, said.err
    assert "4/4" in said.err
    (worker, cell) = killed[0]
    assert worker.wait() == -signal.SIGKILL
    assert (cell / "row.json").exists()
    alone = deepskip(*STUDY, "--out", "alone", "--workers", 1, "--json")
    assert alone.code == 0, alone.err
    assert len(said.json["rows"]) == 4
    assert timeless(said.json["rows"]) == timeless(alone.json["rows"])
    assert_equal(Path("there"), Path("alone"))
    assert not list(Path("there").glob(".*")), "what tries the folder is gone"


def test_a_worker_has_one_call_at_a_time_and_all_its_threads(cluster: Cluster) -> None:
    def span(number: int) -> tuple[int, float, float, int]:
        begun = time.time()
        time.sleep(0.3 if number else 4)
        return os.getpid(), begun, time.time(), torch.get_num_threads()

    found = [call.result(timeout=60) for call in [cluster.submit(span, i) for i in range(8)]]
    assert len({pid for pid, *_ in found}) == cluster.size
    assert max(ended for _, _, ended, _ in found) == found[0][2], "nothing waited behind the long one"
    for pid, begun, ended, threads in found:
        assert threads == 2
        others = [(b, e) for p, b, e, _ in found if p == pid and b != begun]
        assert all(e <= begun or ended <= b for b, e in others)


def test_two_studies_take_turns_on_a_worker(local: Local) -> None:
    def overlap() -> list[int]:
        import builtins

        inside = builtins.__dict__.setdefault("_inside", [])  # seen by every thread of the worker
        inside.append(1)
        time.sleep(0.3)
        most = [len(inside)]
        inside.pop()
        return most

    with connect(local.address) as one, connect(local.address) as other:
        calls = [executor.submit(overlap) for _ in range(4) for executor in (one, other)]
        assert [call.result(timeout=60) for call in calls] == [[1]] * 8


def test_a_cancelled_call_is_told_and_its_worker_is_free_again(cluster: Cluster, tmp_path: Path) -> None:
    def wait(folder: str) -> None:
        Path(folder, f"{os.getpid()}.begun").touch()
        while not asked_to_stop():
            time.sleep(0.05)
        Path(folder, f"{os.getpid()}.stopped").touch()

    def count(pattern: str) -> int:
        return len(list(tmp_path.glob(pattern)))

    size = cluster.size
    calls = [cluster.submit(wait, str(tmp_path)) for _ in range(size + 1)]
    until(lambda: count("*.begun") == size)
    for call in calls:
        assert call.cancel()
    until(lambda: count("*.stopped") == size)
    assert cluster.submit(int, 7).result(timeout=60) == 7
    assert count("*.begun") == size, "the one that waited never began"


def until(done: Callable[[], bool], seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < limit
        time.sleep(0.05)


@contextlib.contextmanager
def waiting_to_be_stopped(cluster: Cluster, study: Path) -> Iterator[None]:
    """Let what workers train in `study` wait for its stop after an epoch: none is too fast for it."""

    def wait(study: str) -> None:
        import deepskip.studies.grid
        from deepskip.studies.pool import asked_to_stop

        def asked() -> bool:
            while not asked_to_stop() and any(f.read_text() for f in Path(study).glob("cells/*/metrics.jsonl")):
                time.sleep(0.01)
            return asked_to_stop()

        deepskip.studies.grid.asked_to_stop = asked

    def as_usual() -> None:
        import deepskip.studies.grid
        from deepskip.studies.pool import asked_to_stop

        deepskip.studies.grid.asked_to_stop = asked_to_stop

    cluster.client.run(wait, str(study.absolute()))
    try:
        yield
    finally:
        cluster.client.run(as_usual)


def test_a_stopped_study_goes_on_from_what_its_workers_saved(cluster: Cluster) -> None:
    data = ds.data.open("digits")
    recipe = ds.Recipe(epochs=3)
    study = DepthStudy(data, depths=(8,), seeds=1, recipe=recipe, out="s", choose=cluster.choose)
    cluster.check(study.out, data)
    with waiting_to_be_stopped(cluster, Path("s")):
        events = study.run(executor=cluster, threads=1)
        assert isinstance(next(event for event in events), CellProgress)
        events.close()
        until(lambda: len(list(Path("s").glob("cells/*/state/checkpoint-*.pt"))) == 2)
    assert not list(Path("s").glob("cells/*/row.json"))
    ds.studies.depth.run(data, depths=(8,), seeds=1, recipe=recipe, out="s", executor=cluster, threads=1)
    ds.studies.depth.run(data, depths=(8,), seeds=1, recipe=recipe, out="alone", threads=1)
    assert_equal(Path("s"), Path("alone"))


def test_the_exception_of_a_call_comes_back(cluster: Cluster) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        cluster.submit(int, "x").result(timeout=60)


def test_dasks_own_executor_works_too(cluster: Cluster) -> None:
    data, recipe = ds.data.open("digits"), ds.Recipe(epochs=1, max_steps=2)
    given: dict[str, Any] = {"depths": (8,), "seeds": 1, "recipe": recipe, "threads": 1}
    there = ds.studies.depth.run(data, out="s", executor=cluster.client.get_executor(pure=False), **given)
    assert timeless(there.rows) == timeless(ds.studies.depth.run(data, out="alone", **given).rows)


# --- wrong input ----------------------------------------------------------------------------------------------


def test_a_worker_that_does_not_see_the_folder_is_named(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "write_text", lambda path, text: None)  # to the worker: another file system
    with pytest.raises(InputError, match=r"worker tcp://.* on .*: got no way to the study's folder .*--out"):
        cluster.check(tmp_path / "s", ds.data.open("digits"))


def test_a_worker_that_lacks_the_data_is_named(
    cluster: Cluster, photos: Callable[..., Path], tmp_path: Path
) -> None:
    folder = photos()
    data = ds.data.open(folder)
    assert data.fingerprint
    (folder / "train" / "red" / "00.jpg").unlink()
    with pytest.raises(InputError, match=r"worker tcp://.*photos: got other data than here"):
        cluster.check(tmp_path / "s", data)
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"worker tcp://.*photos'?: got neither a built-in name nor a folder"):
        cluster.check(tmp_path / "s", data)


def test_a_worker_that_comes_later_and_lacks_the_folder_gets_nothing(
    cluster: Cluster, local: Local, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.check(tmp_path / "s", ds.data.open("digits"))
    for token in (tmp_path / "s").glob(".*"):
        token.unlink()
    late = local.work()
    until(lambda: "left out: worker" in caplog.text)

    def who() -> int:
        time.sleep(1)
        return os.getpid()

    found = {call.result(timeout=60) for call in [cluster.submit(who) for _ in range(6)]}
    assert len(found) == cluster.size - 1
    assert late.pid not in found
    late.kill()
    late.wait()


@pytest.mark.parametrize(
    ("address", "got"),
    [
        ("127.0.0.1:1", "'127.0.0.1:1', where no Dask scheduler answers"),
        ("nonsense://x:1", "'nonsense://x:1', where no Dask scheduler answers"),
        ("no such place", "'no such place', where no Dask scheduler answers"),
        ("", "'', where no Dask scheduler answers"),
    ],
)
def test_an_address_where_nothing_is(
    deepskip: Command, monkeypatch: pytest.MonkeyPatch, address: str, got: str
) -> None:
    monkeypatch.setattr(clusters, "LIMIT", 1.0)
    said = deepskip(*STUDY, "--dask", address)
    assert said.code == 2
    assert f"--dask: got {got}" in said.error
    assert not Path("runs").exists()


def test_a_scheduler_without_workers(
    deepskip: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(clusters, "LIMIT", 3.0)
    lonely = Local(tmp_path)
    try:
        lonely.schedule()
        said = deepskip(*STUDY, "--dask", lonely.address)
    finally:
        lonely.end()
    assert said.code == 2
    assert (
        f"a scheduler without workers; allowed: one worker or more: `dask worker {lonely.address}`"
        in said.error
    )


def test_no_dask_here(deepskip: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert 'pip install "deepskip[cluster]"' in deepskip(*STUDY, "--dask", "127.0.0.1:1").error


def test_a_gpu_that_nobody_offers(deepskip: Command, local: Local) -> None:
    said = deepskip(*STUDY, "--dask", local.address, "--device", "cuda")
    assert said.code == 2
    assert 'and no worker that offers a GPU; allowed: workers started with --resources "GPU=1"' in said.error


def test_options_that_exclude_each_other(deepskip: Command) -> None:
    assert "--workers: got 2 beside --dask" in deepskip(*STUDY, "--dask", "x", "--workers", 2).error
    assert "--threads: got 0" in deepskip(*STUDY[:-1], 0).error


def test_other_versions_are_named() -> None:
    def at(**packages: str | None) -> dict[str, Any]:
        return {"packages": {"deepskip": "1.0", "torch": "2.9"} | packages}

    versions = {"client": at(), "scheduler": at(), "workers": {"tcp://a": at(), "tcp://b": at(torch="2.8")}}
    with pytest.raises(InputError, match=r"worker tcp://b: got torch 2\.8; allowed: 2\.9, as here"):
        compare(versions)
    with pytest.raises(InputError, match=r"scheduler: got no deepskip; allowed: 1\.0"):
        compare(versions | {"scheduler": at(deepskip=None)})
    compare(versions | {"scheduler": at(torch=None), "workers": {}})


def test_a_scheduler_needs_no_torch() -> None:
    code = "import sys, deepskip.studies.worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- the end of the workers ----------------------------------------------------------------------


def test_what_ends_worker_after_worker_is_given_up(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "LOSSES", 1)
    good, bad = cluster.submit(int, 7), cluster.submit(os._exit, 1)
    with pytest.raises(LostError, match="1 workers lost"):
        bad.result(timeout=60)
    assert good.result(timeout=60) == 7
    assert cluster.submit(int, 8).result(timeout=60) == 8, "the last worker works"
