"""Every way to run a net here beside the others: images a second, latency, memory, and whether they agree.

Each way has a process of its own, and they take turns, there and back again, so that a noisy machine is equally
noisy to all: what holds is the ratios within one round.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import deepskip
from deepskip.data.dataset import Progress
from deepskip.deploy.choosing import compare
from deepskip.deploy.runner import Pixels
from deepskip.deploy.ways import WAYS, Way, named
from deepskip.describe.spec import Spec
from deepskip.errors import InputError, WorkError
from deepskip.model import Model
from deepskip.seeds import derive
from deepskip.training.recipe import Recipe
from deepskip.training.tuning import choose
from deepskip.weights import store

BATCHES = (1, 8, 32)
COMPARED, CALIBRATION = 256, 128
"""Pictures of a data set that are run and compared, and others by which eight bits choose their ranges."""
REFERENCE = "eager"
"""Whose rate the others are compared with, and whose answers: what one gets by calling the net."""
LONG = 10**6
"""Steps of a training that is worth measuring for."""
Row = dict[str, Any]


def measure(
    model: Model,
    *,
    ways: Sequence[str] | None = None,
    batches: Sequence[int] = BATCHES,
    rounds: int = 5,
    seconds: float = 1.0,
    threads: int | None = None,
    pixels: Pixels | None = None,
    calibration: Pixels | None = None,
    progress: Progress | None = None,
) -> list[Row]:
    """Return a row for each way and batch:

    - `way`, `numbers`, `batch`, `threads`; `status`: "ok", or why there is nothing else;
    - `images_per_second`: the median over `rounds` turns of `seconds` each, `slowest` and `fastest` of them,
      and `ratio`: its rate over eager's in the same round, the median;
    - `calls`: how many were timed; `p50_ms`, `p95_ms`: the time of one;
    - `memory_mib`: the most that the way's process held while it ran, libraries and weights included;
    - `ready_seconds`: what it took to make it;
    - `images`, `agreement`, `difference`: on how many real pictures it was compared with eager, how many have
      the same most probable class, in percent, and the largest difference of two logits over the largest
      logit; null without `pixels`.

    `ways` are names, all by default; eager is always one. `pixels`, uint8 [n, h, w, c], are real pictures to
    run (noise without them), and `calibration` others, by which eight bits choose their ranges. On the
    processor. Raises InputError.
    """
    chosen = [named(name) for name in ways] if ways is not None else list(WAYS)
    chosen = [named(REFERENCE), *(way for way in chosen if way.name != REFERENCE)]
    for name, value in (("batches", min(batches, default=0)), ("rounds", rounds)):
        if value < 1:
            raise InputError(name, value, "1 or more", 1)
    if seconds <= 0:
        raise InputError("seconds", seconds, "more than 0")
    used = _enough(model, pixels, max(batches))
    with tempfile.TemporaryDirectory(prefix="deepskip-bench-") as name, contextlib.ExitStack() as processes:
        folder = Path(name)
        store.save(folder / store.FILE, model.net, model.header)
        np.save(folder / "pixels.npy", used)
        np.save(folder / "calibration.npy", used if calibration is None else calibration)
        count = threads or torch.get_num_threads()
        runs = [processes.enter_context(_Run.started(folder, way, count)) for way in chosen]
        rows: list[Row] = []
        steps = _Steps(progress, len(batches) * (rounds + 2) * len(runs))
        for batch in batches:
            for run in runs:
                run.make(batch)
                steps.next(f"batch {batch}: making {run.way.name}")
            for turn in range(rounds + 1):
                for run in runs if turn % 2 else reversed(runs):
                    run.turn(seconds, timed=turn > 0)  # the first warms up
                    steps.next(f"batch {batch}: round {turn} of {rounds}")
            shown = 0 if pixels is None else min(len(pixels), len(used))
            rows += [run.row(runs[0], shown) for run in runs]
    return rows


def training(spec: Spec, batches: Sequence[int]) -> list[Row]:
    """Return a row for each way to train `spec` and batch: `way`, `batch`, `images_per_second`, `ratio`.

    What `deepskip train` chooses from (`training.tuning`), the way that it takes by rule first; `ratio` is over
    that one's rate. Ways that do not fit into memory are left out.
    """
    rows: list[Row] = []
    for batch in batches:
        found = choose(spec, Recipe(batch=batch), LONG, torch.device("cpu"), again=True).timed
        rows += [
            {
                "way": str(one.way),
                "batch": batch,
                "images_per_second": batch / one.step,
                "ratio": found[0].step / one.step,
            }
            for one in found
        ]
    return rows


class _Run:
    """A way in its process, and what was measured of it with the present batch."""

    def __init__(self, folder: Path, way: Way, threads: int, process: subprocess.Popen[str] | None) -> None:
        self.folder, self.way, self.threads, self.process = folder, way, threads, process
        self.lack = None if process is not None else way.lacking(torch.device("cpu"))
        self._begin(0)

    @classmethod
    @contextlib.contextmanager
    def started(cls, folder: Path, way: Way, threads: int) -> Iterator[_Run]:
        """Yield the way's process, which ends with the block; none where the way lacks something here."""
        if way.lacking(torch.device("cpu")) is not None:
            yield cls(folder, way, threads, None)
            return
        path = os.pathsep.join(
            [str(Path(deepskip.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, "-m", "deepskip.deploy.worker", str(folder), way.name, str(threads)]
        with (
            (folder / f"{way.name}.log").open("wb") as log,
            subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            ) as process,
        ):
            try:
                yield cls(folder, way, threads, process)
            finally:
                process.kill()
                with contextlib.suppress(BrokenPipeError):
                    process.communicate()

    def _begin(self, batch: int) -> None:
        self.batch = batch
        self.rates: list[float] = []
        self.calls: list[float] = []
        self.memory = self.ready = 0.0

    def make(self, batch: int) -> None:
        """Have a runner made for `batch` pictures."""
        self._begin(batch)
        answer = self._ask(do="make", batch=batch)
        self.ready = answer.get("seconds", 0.0)

    def turn(self, seconds: float, *, timed: bool) -> None:
        """Have it run for so long."""
        answer = self._ask(do="turn", seconds=seconds)
        calls = answer.get("calls", [])
        if calls and timed:
            self.rates.append(self.batch * len(calls) / sum(calls))
            self.calls += calls
            self.memory = max(self.memory, answer["memory"])

    def _ask(self, **request: object) -> dict[str, Any]:
        if self.lack is not None or self.process is None:
            return {}
        assert self.process.stdin
        assert self.process.stdout
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        except (OSError, ValueError):
            answer = {"failed": _last_line(self.folder / f"{self.way.name}.log")}
        if "failed" in answer:
            self.lack = " ".join(str(answer["failed"]).split())[:300]
        return answer

    def row(self, reference: _Run, images: int) -> Row:
        """Return what was measured, beside what was of `reference`, on so many real pictures."""
        if reference.lack is not None:
            raise WorkError(f"way {reference.way.name}", reference.lack, "a net that runs")
        about: Row = {
            "way": self.way.name,
            "numbers": self.way.numbers,
            "batch": self.batch,
            "threads": self.threads,
            "status": self.lack or "ok",
        }
        if self.lack is not None:
            return about | dict.fromkeys(_MEASURED)
        ratios = [one / other for one, other in zip(self.rates, reference.rates, strict=True)]
        p50, p95 = np.percentile(self.calls, (50, 95))
        agreement = None
        if images:
            logits = [np.load(self.folder / f"{run.way.name}.npy")[:images] for run in (reference, self)]
            agreement = compare(*logits)
        values = (
            statistics.median(self.rates),
            min(self.rates),
            max(self.rates),
            statistics.median(ratios),
            len(self.calls),
            1000 * float(p50),
            1000 * float(p95),
            self.memory / 2**20,
            self.ready,
            images or None,
            None if agreement is None else 100 * agreement.same / agreement.n,
            None if agreement is None else agreement.difference,
        )
        return about | dict(zip(_MEASURED, values, strict=True))


_MEASURED = (
    "images_per_second",
    "slowest",
    "fastest",
    "ratio",
    "calls",
    "p50_ms",
    "p95_ms",
    "memory_mib",
    "ready_seconds",
    "images",
    "agreement",
    "difference",
)


class _Steps:
    """Tells how far it is."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def next(self, what: str) -> None:
        """Tell that `what` is done."""
        self.done += 1
        if self.progress is not None:
            self.progress("measuring", self.done, self.total)


def _enough(model: Model, pixels: Pixels | None, count: int) -> Pixels:
    """Return at least `count` pictures: the given ones, over again where they are too few, or noise."""
    size, channels = model.preprocessing.size, model.preprocessing.channels
    if pixels is None:
        drawn = np.random.default_rng(derive("bench"))
        return drawn.integers(0, 256, (count, size, size, channels), dtype=np.uint8)
    if not len(pixels):
        raise InputError("pixels", "no pictures", "one or more")
    return pixels if len(pixels) >= count else np.resize(pixels, (count, *pixels.shape[1:]))


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "a process that ended without a word"
