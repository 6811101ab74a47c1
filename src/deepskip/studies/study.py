"""What every study has: its own folder, a plan, rows that are true after every cell, a verdict."""

from __future__ import annotations

import abc
import json
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from deepskip.data.batches import steps_per_epoch
from deepskip.data.dataset import Dataset
from deepskip.describe.spec import Spec
from deepskip.errors import InputError
from deepskip.files import read_json, write_json, write_text
from deepskip.studies.cell import Cell, Row
from deepskip.studies.grid import RESULTS, CellEnded, Events, run_grid
from deepskip.studies.worker import choose
from deepskip.training.precision import Precision
from deepskip.training.recipe import Recipe, named
from deepskip.training.rundir import environment

STUDY, VERDICT = "study.json", "verdict.json"


@dataclass(frozen=True)
class Result:
    """A finished study: its rows and what they say."""

    rows: list[Row]
    """One a cell, as in `results.jsonl`."""
    verdict: dict[str, Any]
    """As in `verdict.json`."""


class Study(abc.ABC):
    """A study in its folder: cells to run, rows to read, a verdict to draw.

    A kind of study has a `name`, the name of its usual `recipe`, makes its `cells` (see `cell`) and its
    `grid` in words, and has its own `judge`.
    """

    name: ClassVar[str]
    """In `study.json`, in every row, and after `deepskip study`."""
    usual: ClassVar[str]
    """The named recipe that it trains by, unless another is asked for."""
    cells: list[Cell]
    """Its trainings, in the order of its rows."""
    grid: str
    """What is trained, in a few words: "plain and residual × 5 depths × 3 seeds"."""

    def __init__(
        self,
        data: Dataset,
        *,
        out: Path | str,
        recipe: Recipe | None = None,
        device: str = "auto",
        precision: str = "auto",
        command: str = "",
        choose: Callable[[str, str, int], tuple[str, Precision]] = choose,
    ) -> None:
        """Plan the study; nothing runs yet. Raises InputError for an impossible folder, device or precision.

        `choose` makes a device and a precision of what is wanted and the images' size: what this machine has,
        or, with `Cluster.choose`, what a cluster's workers have.
        """
        self.data, self.out = data, Path(out)
        self.command = command or f"deepskip.studies.{self.name}"
        self.recipe = recipe or named(self.usual)
        steps = steps_per_epoch(len(data.train), self.recipe.batch)
        self.epochs = min(self.recipe.epochs, -(-(self.recipe.max_steps or sys.maxsize) // steps))
        if self.out.exists() and not (self.out.is_dir() and self._is_own()):
            allowed = f"a new folder, or a {self.name} study's own"
            raise InputError(self.out, "a folder with other files in it", allowed)
        self.device, self.precision = choose(device, precision, data.preprocessing.size)

    @abc.abstractmethod
    def judge(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return what the rows say, in numbers and, as `sentences`, in words."""

    def cell(self, kind: str, spec: Spec, seed: int, *, depth: int | None = None, **more: Any) -> Cell:
        """Return a cell of this study: its data, recipe, device and precision, but what `more` says."""
        fields = {
            "recipe": self.recipe,
            "fingerprint": self.data.fingerprint,
            "device": self.device,
            "precision": self.precision,
        }
        depth = spec.layers if depth is None else depth
        return Cell(study=self.name, kind=kind, depth=depth, seed=seed, spec=spec, **{**fields, **more})

    def _is_own(self) -> bool:
        if not (self.out / STUDY).is_file():
            return all(path.suffix == ".part" for path in self.out.iterdir())  # left by a kill
        held = read_json(self.out / STUDY)
        return isinstance(held, dict) and held.get("study") == self.name

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
            "study": self.name,
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
        verdict = self.judge(rows)
        write_json(self.out / VERDICT, verdict)
        return Result(list(rows), verdict)

    def finish(
        self, *, workers: int = 1, executor: Executor | None = None, threads: int | None = None
    ) -> Result:
        """Run to the end and return the result; what earlier runs have done is not done again."""
        rows = {
            event.cell.hash: event.row
            for event in self.run(workers=workers, executor=executor, threads=threads)
            if isinstance(event, CellEnded)
        }
        return self.result([rows[cell.hash] for cell in self.cells])


def check_seeds_and_depths(seeds: int, depths: Sequence[int], usual: Sequence[int]) -> None:
    """Refuse a grid without a seed or without a depth. Raises InputError."""
    if seeds < 1:
        raise InputError("seeds", seeds, "a whole number from 1", 1)
    if not depths:
        raise InputError("depths", "none", "one or more", ",".join(map(str, usual)))
