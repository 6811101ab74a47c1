"""Does depth pay? Plain and residual nets at several depths, several seeds, on one data set.

After He et al. 2015, arXiv:1512.03385, figures 1 and 6: the training error of plain nets rises with depth,
that of residual nets does not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from deepskip.data.dataset import Dataset
from deepskip.describe import zoo
from deepskip.describe.spec import Spec
from deepskip.errors import InputError
from deepskip.files import write_json, write_text
from deepskip.studies.grid import Cell, CellEnded, CellProgress, Row, curves, run_grid
from deepskip.studies.verdict import judge
from deepskip.training.precision import choose_device, choose_precision
from deepskip.training.recipe import Recipe, named

DEPTHS = (8, 20, 32, 56, 110)
SEEDS = 3
RECIPE = "depth"

Kind = Literal["plain", "residual"]


@dataclass(frozen=True)
class Result:
    """A finished study: its rows, its curves and what they say."""

    rows: list[Row]
    """One a cell, as in `results.jsonl`."""
    curves: list[Row]
    """One an epoch of a cell."""
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
    ) -> None:
        """Plan the study; nothing runs yet. Raises InputError for an impossible depth or folder."""
        if seeds < 1:
            raise InputError("seeds", seeds, "a whole number from 1", 1)
        if not depths:
            raise InputError("depths", "none", "one or more", ",".join(map(str, DEPTHS)))
        self.data, self.out, self.command = data, Path(out), command
        self.depths = tuple(sorted(set(depths)))
        self.seeds = seeds
        self.recipe = recipe or named(RECIPE)
        if self.out.exists() and not (self.out.is_dir() and self._is_study_folder()):
            raise InputError(self.out, "a folder with other files in it", "a new folder, or this study's own")
        chosen = choose_device(device)
        self.cells = [
            Cell(
                study="depth",
                kind=kind,
                depth=depth,
                seed=seed,
                spec=spec,
                recipe=self.recipe,
                fingerprint=data.fingerprint,
                device=chosen.type,
                precision=choose_precision(precision, chosen, data.preprocessing.size),
            )
            for depth in self.depths
            for kind, spec in self._specs(family, depth)
            for seed in range(seeds)
        ]

    def _specs(self, family: str, depth: int) -> Iterator[tuple[Kind, Spec]]:
        net = zoo.get(family, depth=depth, classes=len(self.data.classes), input=self.data.input)
        yield "plain", net.plain()
        yield "residual", net

    def _is_study_folder(self) -> bool:
        names = {path.name for path in self.out.iterdir()}
        return not names or bool(names & {"cells", "results.jsonl"})

    def run(self, *, workers: int = 1, executor: Executor | None = None) -> Iterator[CellProgress | CellEnded]:
        """Train what is missing, yielding what happens; `results.jsonl` is true after every cell."""
        rows: dict[str, Row] = {}
        for event in run_grid(self.cells, self.data, self.out, workers=workers, executor=executor):
            if isinstance(event, CellEnded):
                rows[event.cell.hash] = event.row
                self._write(rows)
            yield event

    def _write(self, rows: dict[str, Row]) -> None:
        ordered = [rows[cell.hash] for cell in self.cells if cell.hash in rows]
        write_text(self.out / "results.jsonl", "".join(json.dumps(row) + "\n" for row in ordered))

    def result(self, rows: Sequence[Row]) -> Result:
        """Return the study's result from its rows, and write `verdict.json`."""
        verdict = judge(
            rows, data=self.data.name, command=self.command, epochs=self.recipe.epochs, seeds=self.seeds
        )
        write_json(self.out / "verdict.json", verdict)
        return Result(list(rows), curves(self.cells, self.out), verdict)


def run(
    data: Dataset,
    *,
    out: Path | str,
    depths: Sequence[int] = DEPTHS,
    seeds: int = SEEDS,
    recipe: Recipe | None = None,
    workers: int = 1,
    executor: Executor | None = None,
) -> Result:
    """Run a depth study to its end and return its result; what earlier runs have done is not done again."""
    study = DepthStudy(data, out=out, depths=depths, seeds=seeds, recipe=recipe)
    rows = {
        event.cell.hash: event.row
        for event in study.run(workers=workers, executor=executor)
        if isinstance(event, CellEnded)
    }
    return study.result([rows[cell.hash] for cell in study.cells])
