"""`deepskip study …`: grids of trainings, with a live display, figures, a verdict and a report."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepskip.cli.show import Output, Whole, command_line, duration
from deepskip.cli.train import Settings, choose_recipe
from deepskip.errors import InputError

if TYPE_CHECKING:
    from deepskip.studies.cluster import Cluster
    from deepskip.studies.depth import DepthStudy, Result
    from deepskip.studies.grid import CellEnded

DEPTHS = "8,20,32,56,110"


def depth(
    data: str,
    /,
    *,
    depths: str = DEPTHS,
    seeds: Whole = 3,
    net: str = "resnet_cifar",
    epochs: Whole | None = None,
    batch: Whole | None = None,
    lr: float | None = None,
    recipe: str = "depth",
    settings: Settings = (),
    out: Path | None = None,
    workers: Whole | None = None,
    dask: str | None = None,
    threads: Whole | None = None,
    device: str = "auto",
    precision: str = "auto",
    output: Output = Output(),
) -> None:
    """Train plain and residual nets at several depths and seeds, and say what depth does on this data.

    Every training is kept; the same command again does only what is missing.

    Examples:

    - `deepskip study depth digits`
    - `deepskip study depth photos/ --net resnet --depths 18,34,50 --seeds 1`
    - `deepskip study depth cifar10 --out /shared/depth --dask tcp://10.0.0.1:8786`

    Parameters
    ----------
    data
        `digits`, `fashion-mnist`, `cifar10`, `cifar100`, or a folder of images.
    depths
        Numbers of layers, separated by commas.
    seeds
        How many seeds each net is trained with, from 0 on.
    net
        The family that the nets come from: `resnet_cifar` or `resnet`.
    epochs
        Passes over the training images; the recipe says by default.
    batch
        Images a step; the recipe says by default.
    lr
        Peak learning rate; the recipe says by default.
    recipe
        A named recipe: `depth`, `quick`, `imagenette`, `he2015_cifar`.
    settings
        Any field of the recipe, as KEY=VALUE; may be given several times.
    out
        The study's folder; by default `runs/study-depth-<data>`.
    workers
        Trainings at once, each in its own process with its share of the cores. By default one for each core
        (at most 8) where the images are small and there is no GPU, and one otherwise.
    dask
        Address of a Dask scheduler: its workers train, one training each at a time. They need the data, and the
        study's folder under the same path.
    threads
        Threads that each training computes with, everywhere: with as many, a CPU gives the same bits.
    device
        `auto`, `cpu` or `cuda`. With `--dask`, what the workers have: those that offer a GPU, if any does.
    precision
        `auto`, `float32` or `bf16`.
    """
    from deepskip.data import sources
    from deepskip.pages import publish
    from deepskip.studies.depth import DepthStudy

    wanted = _parse_depths(depths)
    chosen = choose_recipe(recipe, settings, epochs=epochs, batch=batch, lr=lr)
    for option, value in (("--workers", workers), ("--threads", threads)):
        if value is not None and value < 1:
            raise InputError(option, value, "a whole number from 1", 1)
    if dask is not None and workers is not None:
        raise InputError(
            "--workers", f"{workers} beside --dask", "one of the two: a cluster has its own workers"
        )
    with output.counting() as progress:
        opened = sources.open_dataset(data, size=chosen.size, progress=progress)
        output.broken(opened.broken, len(opened.train) + len(opened.val) + len(opened.broken))
    plan = functools.partial(
        DepthStudy,
        opened,
        out=out or Path("runs") / f"study-depth-{opened.name}",
        depths=wanted,
        seeds=seeds,
        recipe=chosen,
        family=net,
        device=device,
        precision=precision,
        command=command_line(),
    )
    if dask is None:
        study = plan()
        result = _run(study, output, workers=workers or _default_workers(study), threads=threads)
    else:
        with _connect(dask, device) as cluster:
            study = plan(choose=cluster.choose)
            cluster.check(study.out, opened)
            result = _run(study, output, cluster=cluster, threads=threads)
    report = publish(study.out)
    for sentence in result.verdict["sentences"]:
        output.say(sentence)
    output.say(f"\nreport: {report}")
    if output.json:
        output.result({"out": str(study.out), "verdict": result.verdict, "rows": result.rows})


def _parse_depths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError("--depths", repr(text), "whole numbers separated by commas", DEPTHS) from error


def _default_workers(study: DepthStudy) -> int:
    small = study.data.preprocessing.size <= 32
    return min(8, os.cpu_count() or 1) if small and study.cells[0].device == "cpu" else 1


def _connect(address: str, device: str) -> Cluster:
    from deepskip.studies.cluster import connect

    cluster = connect(address, device=device)
    for name in ("distributed", "distributed.client"):  # what goes wrong there is said by our errors
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return cluster


def _run(
    study: DepthStudy,
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
        f"{len(cells)} trainings: plain and residual × {len(study.depths)} depths × {study.seeds} seeds, "
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
                        output.note(_ended_line(event, len(rows), len(cells)))
    except KeyboardInterrupt:
        output.note(f"stopped after {len(rows)} of {len(cells)}; the same command goes on, in {study.out}")
        raise
    return study.result([rows[cell.hash] for cell in cells])


def _ended_line(event: CellEnded, done: int, total: int) -> str:
    row = event.row
    found = (
        f"train error {row['train_error']:5.1f}%  val error {row['val_error']:5.1f}%"
        if row["status"] == "ok"
        else "diverged"
    )
    when = "done before" if event.cached else duration(row["seconds"])
    return f"{done:>3}/{total}  {row['kind']:<8} {row['depth']:>5} layers  seed {row['seed']}  {found}  {when}"
