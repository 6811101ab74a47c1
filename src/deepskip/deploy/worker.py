"""A process that runs a net in one way, turn by turn: `python -m deepskip.deploy.worker FOLDER WAY THREADS`.

For `deploy.bench`, which starts one for each way: none shares its libraries, threads or memory with another.
Reads lines of JSON, a request each, and answers each with one. In FOLDER are `model.safetensors`, `pixels.npy`
(pictures to run) and `calibration.npy` (by which ways in eight bits choose their ranges).
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from deepskip.deploy.runner import Runner
from deepskip.deploy.ways import Source, named
from deepskip.model import load

ONCE = 1
"""Calls a turn, at least."""


class Worker:
    """Answers requests with one way."""

    def __init__(self, folder: Path, way: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.folder, self.way, self.threads = folder, named(way), threads
        self.pixels = np.load(folder / "pixels.npy")
        self.source = Source(load(folder), np.load(folder / "calibration.npy"))
        self.runner: Runner | None = None
        self.batch = 0

    def make(self, batch: int) -> dict[str, Any]:
        """Make a runner for `batch` pictures, and write the logits of all pictures to `<way>.npy`."""
        if self.runner is not None:
            self.runner.close()
            self.runner = None
            gc.collect()
        started = time.perf_counter()
        self.runner, self.batch = self.way.make(self.source, batch=batch, threads=self.threads), batch
        seconds = time.perf_counter() - started
        parts = [self.runner(self.pixels[i : i + batch]) for i in range(0, len(self.pixels), batch)]
        np.save(self.folder / f"{self.way.name}.npy", np.concatenate(parts))
        _forget_peak()
        return {"seconds": seconds}

    def turn(self, seconds: float) -> dict[str, Any]:
        """Run for so long; return the seconds of every call and the largest memory so far, in bytes."""
        assert self.runner is not None
        calls: list[float] = []
        starts = range(0, len(self.pixels) - self.batch + 1, self.batch)
        while len(calls) < ONCE or sum(calls) < seconds:
            start = starts[len(calls) % len(starts)]
            pixels = self.pixels[start : start + self.batch]
            before = time.perf_counter()
            self.runner(pixels)
            calls.append(time.perf_counter() - before)
        return {"calls": calls, "memory": _peak()}


def _forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # not Linux, or not allowed: the peak is then that of making the runner too
        return


def _peak() -> int:
    """Return the largest resident memory of this process, in bytes; the present one where nobody keeps it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    except (OSError, StopIteration):
        return int(psutil.Process().memory_info().rss)


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not an answer
    folder, way, threads = sys.argv[1:]
    worker = Worker(Path(folder), way, int(threads))
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(worker, request.pop("do"))(**request)
        except Exception as error:  # said by the process that asked
            answer = {"failed": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
