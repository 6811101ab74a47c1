"""Does depth pay? Plain and residual nets at several depths, several seeds, on one data set.

After He et al. 2015, arXiv:1512.03385, figures 1 and 6: the training error of plain nets rises with depth,
that of residual nets does not.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from deepskip.data.batches import steps_per_epoch
from deepskip.data.dataset import Dataset
from deepskip.describe import zoo
from deepskip.describe.spec import Spec
from deepskip.errors import InputError
from deepskip.files import read_json, write_json, write_text
from deepskip.studies.grid import RESULTS, Cell, CellEnded, Events, Row, run_grid
from deepskip.studies.verdict import judge
from deepskip.studies.worker import choose
from deepskip.training.precision import Precision
from deepskip.training.recipe import Recipe, named
from deepskip.training.rundir import environment

DEPTHS = (8, 20, 32, 56, 110)
SEEDS = 3
RECIPE = "depth"
STUDY, VERDICT = "study.json", "verdict.json"

Kind = Literal["plain", "residual"]


@dataclass(frozen=True)
class Result:
    """A finished study: its rows and what they say."""

    rows: list[Row]
    """One a cell, as in `results.jsonl`."""
    verdict: dict[str, Any]
    """As in `verdict.json`."""


class DepthStudy:
    """A depth study in its folder: cells to run, rows to read, a verdict to draw."""

    def __init__(
        self,
        data: Dataset,
        *,
        out: Path | str,
        depths: Sequence[int] = DEPTHS,
        seeds: int = SEEDS,
        recipe: Recipe | None = None,
        family: str = "resnet_cifar",
        device: str = "auto",
        precision: str = "auto",
        command: str = "deepskip.studies.depth",
        choose: Callable[[str, str, int], tuple[str, Precision]] = choose,
    ) -> None:
        """Plan the study; nothing runs yet. Raises InputError for an impossible depth or folder.

        `choose` makes a device and a precision of what is wanted and the images' size: what this machine has,
        or, with `Cluster.choose`, what a cluster's workers have.
        """
        if seeds < 1:
            raise InputError("seeds", seeds, "a whole number from 1", 1)
        if not depths:
            raise InputError("depths", "none", "one or more", ",".join(map(str, DEPTHS)))
        self.data, self.out, self.command = data, Path(out), command
        self.depths = tuple(sorted(set(depths)))
        self.seeds = seeds
        self.recipe = recipe or named(RECIPE)
        steps = steps_per_epoch(len(data.train), self.recipe.batch)
        self.epochs = min(self.recipe.epochs, -(-(self.recipe.max_steps or sys.maxsize) // steps))
        if self.out.exists() and not (self.out.is_dir() and self._is_own()):
            raise InputError(
                self.out, "a folder with other files in it", "a new folder, or a depth study's own"
            )
        chosen, numbers = choose(device, precision, data.preprocessing.size)
        self.cells = [
            Cell(
                study="depth",
                kind=kind,
                depth=depth,
                seed=seed,
                spec=spec,
                recipe=self.recipe,
                fingerprint=data.fingerprint,
                device=chosen,
                precision=numbers,
            )
            for depth in self.depths
            for kind, spec in self._specs(family, depth)
            for seed in range(seeds)
        ]

    def _specs(self, family: str, depth: int) -> Iterator[tuple[Kind, Spec]]:
        net = zoo.get(family, depth=depth, classes=len(self.data.classes), input=self.data.input)
        if net.is_plain:
            raise InputError("net", repr(family), "a residual family; its plain twin is trained beside it")
        yield "plain", net.plain()
        yield "residual", net

    def _is_own(self) -> bool:
        if not (self.out / STUDY).is_file():
            return all(path.suffix == ".part" for path in self.out.iterdir())  # left by a kill
        held = read_json(self.out / STUDY)
        return isinstance(held, dict) and held.get("study") == "depth"

    def run(self, *, workers: int = 1, executor: Executor | None = None, threads: int | None = None) -> Events:
        """Train what is missing, yielding what happens; `results.jsonl` is true after every cell.

        `workers`, `executor` and `threads` are `run_grid`'s. A verdict and a report of other cells that the
        folder held are removed; their cells are kept.
        """
        plan = self._plan(executor, threads)
        if (self.out / STUDY).is_file() and read_json(self.out / STUDY) != plan:
            for name in (VERDICT, "report.html"):
                (self.out / name).unlink(missing_ok=True)
        write_json(self.out / STUDY, plan)
        rows: dict[str, Row] = {}
        events = run_grid(self.cells, self.data, self.out, workers=workers, executor=executor, threads=threads)
        for event in events:
            if isinstance(event, CellEnded):
                rows[event.cell.hash] = event.row
                self._write(rows)
            yield event

    def _plan(self, executor: Executor | None, threads: int | None) -> dict[str, Any]:
        here = environment()
        if executor is not None:
            # Which machine trained a cell, and on what, is in the cell's own environment.json.
            here = {key: here[key] for key in ("deepskip", "python", "torch")}
            here["executor"] = type(executor).__name__
        if threads is not None:
            here["threads"] = threads
        return {
            "study": "depth",
            "data": self.data.name,
            "command": self.command,
            "environment": here,
            "cells": [cell.hash for cell in self.cells],
        }

    def _write(self, rows: dict[str, Row]) -> None:
        ordered = [rows[cell.hash] for cell in self.cells if cell.hash in rows]
        write_text(self.out / RESULTS, "".join(json.dumps(row) + "\n" for row in ordered))

    def result(self, rows: Sequence[Row]) -> Result:
        """Return the study's result from its rows, and write `verdict.json`."""
        verdict = judge(rows, data=self.data.name, command=self.command, epochs=self.epochs, seeds=self.seeds)
        write_json(self.out / VERDICT, verdict)
        return Result(list(rows), verdict)


def run(
    data: Dataset,
    *,
    out: Path | str,
    depths: Sequence[int] = DEPTHS,
    seeds: int = SEEDS,
    recipe: Recipe | None = None,
    workers: int = 1,
    executor: Executor | None = None,
    threads: int | None = None,
) -> Result:
    """Run a depth study to its end and return its result; what earlier runs have done is not done again.

    Its trainings run on `executor` where one is given, any `concurrent.futures.Executor`: see `grid.run_grid`.
    """
    study = DepthStudy(data, out=out, depths=depths, seeds=seeds, recipe=recipe)
    rows = {
        event.cell.hash: event.row
        for event in study.run(workers=workers, executor=executor, threads=threads)
        if isinstance(event, CellEnded)
    }
    return study.result([rows[cell.hash] for cell in study.cells])
