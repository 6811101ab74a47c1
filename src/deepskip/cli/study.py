"""What every `deepskip study …` shares: its options, a live display, figures, a verdict and a report."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import Parameter

from deepskip.cli.show import Output, Whole, command_line, duration
from deepskip.cli.train import Settings, choose_recipe
from deepskip.errors import InputError

if TYPE_CHECKING:
    from deepskip.studies.cell import Cell
    from deepskip.studies.cluster import Cluster
    from deepskip.studies.grid import CellEnded
    from deepskip.studies.study import Result, Study
    from deepskip.training.recipe import Recipe


@Parameter(name="*")
@dataclass(frozen=True)
class Training:
    """How every cell of a study is trained."""

    epochs: Whole | None = None
    """Passes over the training images; the recipe says by default."""
    batch: Whole | None = None
    """Images a step; the recipe says by default."""
    lr: float | None = None
    """Peak learning rate; the recipe says by default."""
    recipe: str | None = None
    """A named recipe, or a .yaml file of a recipe's fields; by default `spectrum` in that study and
    `depth` in others."""
    settings: Settings = ()
    """Any field of the recipe, as KEY=VALUE; may be given several times."""

    def choose(self, usual: str) -> Recipe:
        """Return the recipe, by default the one called `usual`. Raises InputError."""
        given = {"epochs": self.epochs, "batch": self.batch, "lr": self.lr}
        return choose_recipe(self.recipe or usual, self.settings, **given)  # type: ignore[arg-type]


@Parameter(name="*")
@dataclass(frozen=True)
class Place:
    """Where a study is kept and computed."""

    out: Path | None = None
    """The study's folder; by default `runs/study-<study>-<data>`."""
    workers: Whole | None = None
    """Trainings at once, each in its own process with its share of the cores. By default one for each core (at
    most 8) where the images are small and there is no GPU, and one otherwise."""
    dask: str | None = None
    """Address of a Dask scheduler: its workers train, one training each at a time. They need the data, and the
    study's folder under the same path."""
    threads: Whole | None = None
    """Threads that each training computes with, everywhere: with as many, a CPU gives the same bits."""
    device: str = "auto"
    """`auto`, `cpu` or `cuda`. With `--dask`, what the workers have: those that offer a GPU, if any does."""
    precision: str = "auto"
    """`auto`, `float32`, `bf16` or `fp16` (on a GPU)."""

    def check(self) -> None:
        """Refuse what cannot be. Raises InputError."""
        for option, value in (("--workers", self.workers), ("--threads", self.threads)):
            if value is not None and value < 1:
                raise InputError(option, value, "a whole number from 1", 1)
        if self.dask is not None and self.workers is not None:
            got = f"{self.workers} beside --dask"
            raise InputError("--workers", got, "one of the two: a cluster has its own workers")


def run_study(
    kind: type[Study], data: str, options: Mapping[str, Any], training: Training, place: Place, output: Output
) -> None:
    """Run a study of this kind, made with its own `options`; say its verdict and where its report is."""
    from deepskip.data import sources
    from deepskip.pages import publish

    chosen = training.choose(kind.usual)
    place.check()
    with output.counting() as progress:
        opened = sources.open_dataset(data, size=chosen.size, progress=progress)
        output.broken(opened.broken, len(opened.train) + len(opened.val) + len(opened.broken))
    plan = functools.partial(
        kind,
        opened,
        out=place.out or Path("runs") / f"study-{kind.name}-{opened.name}",
        recipe=chosen,
        device=place.device,
        precision=place.precision,
        command=command_line(),
        **options,
    )
    if place.dask is None:
        study = plan()
        workers = place.workers or _default_workers(study)
        result = _run(study, output, workers=workers, threads=place.threads)
    else:
        with _connect(place.dask, place.device) as cluster:
            study = plan(choose=cluster.choose)
            cluster.check(study.out, opened)
            result = _run(study, output, cluster=cluster, threads=place.threads)
    report = publish(study.out)
    for sentence in result.verdict["sentences"]:
        output.say(sentence)
    output.say(f"\nreport: {report}")
    if output.json:
        output.result({"out": str(study.out), "verdict": result.verdict, "rows": result.rows})


def whole_numbers(option: str, text: str, example: str) -> tuple[int, ...]:
    """Return the numbers in a list such as "8,20,32". Raises InputError."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(option, repr(text), "whole numbers separated by commas", example) from error


def _default_workers(study: Study) -> int:
    small = study.data.preprocessing.size <= 32
    return min(8, os.cpu_count() or 1) if small and study.device == "cpu" else 1


def _connect(address: str, device: str) -> Cluster:
    from deepskip.studies.cluster import connect

    cluster = connect(address, device=device)
    for name in ("distributed", "distributed.client"):  # what goes wrong there is said by our errors
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return cluster


def _run(
    study: Study,
    output: Output,
    *,
    workers: int = 1,
    cluster: Cluster | None = None,
    threads: int | None = None,
) -> Result:
    from deepskip.cli.board import Board
    from deepskip.studies.grid import CellEnded

    rows: dict[str, dict[str, Any]] = {}
    cells = study.cells
    output.note(
        f"{len(cells)} trainings: {study.grid}, "
        f"{study.recipe.epochs} epochs on {study.data.name} ({len(study.data.train):,} images), "
        f"{cluster.size if cluster else workers} at a time, in {study.out}"
    )
    try:
        # Closed at once when the loop is left: workers then stop before the message says so.
        with (
            Board(cells, study.epochs, live=output.live) as board,
            contextlib.closing(study.run(workers=workers, executor=cluster, threads=threads)) as events,
        ):
            for event in events:
                board.update(event)
                if isinstance(event, CellEnded):
                    rows[event.cell.hash] = event.row
                    if not output.live:
                        output.note(_ended_line(event, len(rows), cells))
    except KeyboardInterrupt:
        output.note(f"stopped after {len(rows)} of {len(cells)}; the same command goes on, in {study.out}")
        raise
    return study.result([rows[cell.hash] for cell in cells])


def _ended_line(event: CellEnded, done: int, cells: Sequence[Cell]) -> str:
    row, kind = event.row, max(len(cell.kind) for cell in cells)
    found = (
        f"train error {row['train_error']:5.1f}%  val error {row['val_error']:5.1f}%"
        if row["status"] == "ok"
        else row["status"].replace("_", " ")
    )
    when = "done before" if event.cached else duration(row["seconds"])
    net = f"{row['kind']:<{kind}} {row['depth']:>5} layers  seed {row['seed']}"
    return f"{done:>3}/{len(cells)}  {net}  {found}  {when}"
