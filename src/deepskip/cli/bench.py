"""`deepskip bench`: every way to run a net here, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepskip.cli.show import Output, Whole, check_new, columns, command_line
from deepskip.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from deepskip.model import Model


def bench(
    net: str,
    /,
    *,
    depth: Whole | None = None,
    data: str | None = None,
    ways: str | None = None,
    batches: str = "1,8,32",
    rounds: Whole = 5,
    seconds: float = 1.0,
    threads: Whole | None = None,
    train: bool = False,
    picture: Path | None = None,
    force: bool = False,
    output: Output = Output(),
) -> None:
    """Measure every way to run a net on this machine: images a second, latency, memory, and whether answers
    agree.

    The ways take turns, each in a process of its own, so that the ratios hold on a noisy machine.

    Examples:

    - `deepskip bench resnet50`
    - `deepskip bench runs/r56 --data photos/ --picture ways.svg`
    - `deepskip bench resnet18 --ways eager,openvino,openvino-bf16 --batches 1,32 --json`

    Parameters
    ----------
    net
        A run folder, a `model.safetensors`, a zoo name or a family.
    depth
        Number of layers, with a family's name.
    data
        A built-in name or a folder: some of its validation pictures are run and answers compared on them, and
        others calibrate eight bits. For a model; without it noise is run and nothing is compared.
    ways
        Names separated by commas; all by default. Eager PyTorch is always one: it is what others are compared
        with.
    batches
        Pictures a call, numbers separated by commas.
    rounds
        How often the ways take turns.
    seconds
        How long a turn is.
    threads
        Threads that compute; PyTorch's number by default.
    train
        Measure the ways to train as well.
    picture
        Draw images a second and latency into this file, an .svg or a .png.
    force
        Overwrite the picture when it is there already.
    """
    from deepskip.deploy import bench as measuring

    wanted = _numbers(batches)
    if picture is not None:
        from deepskip.figures.style import suffix_of

        suffix_of(picture)
        check_new("--picture", picture, force=force)
    model, pixels, calibration = _opened(net, depth, data, output)
    with output.counting() as progress:
        rows = measuring.measure(
            model,
            ways=None if ways is None else [name.strip() for name in ways.split(",")],
            batches=wanted,
            rounds=rounds,
            seconds=seconds,
            threads=threads,
            pixels=pixels,
            calibration=calibration,
            progress=progress,
        )
        trained = measuring.training(model.net.spec, wanted) if train else []
    if picture is not None:
        from deepskip.figures.bench import speed_of_ways
        from deepskip.figures.style import write

        write(speed_of_ways(rows, net=model.net.spec.name), picture, command_line())
    if output.json:
        drawn = {} if picture is None else {"picture": str(picture)}
        training = {"training": trained} if train else {}
        return output.result({"name": model.net.spec.name, "ways": rows, **training, **drawn})
    output.table(_table(rows))
    if trained:
        output.say()
        output.table(_training_table(trained))
    return None


def _numbers(text: str) -> list[int]:
    try:
        found = [int(word) for word in text.split(",")]
    except ValueError as error:
        raise InputError("--batches", repr(text), "whole numbers separated by commas") from error
    if min(found) < 1:
        raise InputError("--batches", min(found), "whole numbers from 1", 1)
    return found


def _opened(net: str, depth: int | None, data: str | None, output: Output) -> tuple[Model, Any, Any]:
    """Return the model, and pictures to run and to calibrate with, or None where there are none."""
    from deepskip.deploy import bench as measuring
    from deepskip.deploy import samples
    from deepskip.deploy.ways import unnamed
    from deepskip.describe import zoo
    from deepskip.model import load

    path = Path(net)
    if depth is not None or not (path.exists() or path.suffix or "://" in net):
        if data is not None:
            raise InputError("--data", data, f"nothing with {net}, whose classes nobody has named: a model")
        return unnamed(zoo.get(net, depth=depth)), None, None
    model = load(net)
    if data is None:
        return model, None, None
    with output.counting() as progress:
        split = model.open(data, progress=progress).val
    pixels, calibration = samples.drawn(split, measuring.COMPARED, measuring.CALIBRATION)
    return model, pixels, calibration


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    numbers = ("batch", "images/s", "slowest", "fastest", "× eager", "p50 ms", "p95 ms", "memory", "same class")
    table = columns("batch", "way", *numbers[1:], numbers=numbers)
    batch = None
    for row in rows:
        first = "" if row["batch"] == batch else str(row["batch"])
        batch = row["batch"]
        if row["status"] != "ok":
            table.add_row(first, row["way"], *("" for _ in numbers[1:-1]), row["status"])
            continue
        speeds = (f"{row[name]:.1f}" for name in ("images_per_second", "slowest", "fastest"))
        same = "–" if row["agreement"] is None else f"{row['agreement']:.1f}%"
        times = (f"{row['p50_ms']:.1f}", f"{row['p95_ms']:.1f}")
        table.add_row(
            first, row["way"], *speeds, f"{row['ratio']:.2f}", *times, f"{row['memory_mib']:.0f} MiB", same
        )
    return table


def _training_table(rows: Sequence[dict[str, Any]]) -> Table:
    table = columns("batch", "way to train", "images/s", "× usual", numbers=("batch", "images/s", "× usual"))
    for row in rows:
        table.add_row(str(row["batch"]), row["way"], f"{row['images_per_second']:.1f}", f"{row['ratio']:.2f}")
    return table
