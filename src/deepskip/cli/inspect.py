"""`deepskip inspect`: every instrument on a trained model, and one report that tells what they found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from deepskip.cli.show import Output, Seed, Whole, columns, command_line, duration

if TYPE_CHECKING:
    from deepskip.instruments.inspection import Measured


def inspect(
    model: Path,
    data: str,
    /,
    *,
    only: str | None = None,
    twin: Path | None = None,
    images: Whole | None = None,
    at: str | None = None,
    seed: Seed = 0,
    out: Path | None = None,
    device: str = "auto",
    output: Output = Output(),
) -> None:
    """Look inside a trained model: what its blocks do, what it needs, where it decides, what it looks at.

    Signal, gradient, identity, lesion, paths, lens, saliency, landscape and calibration, each measured on
    validation images, with rows, figures and a report that says in words what they found. The same command with
    other instruments adds them to the folder.

    Examples:

    - `deepskip inspect runs/r56 cifar10`
    - `deepskip inspect runs/r56 cifar10 --only lesion,lens --twin runs/plain20`

    Parameters
    ----------
    model
        A run folder or a `model.safetensors`.
    data
        A built-in name or a folder; its validation images are looked at, with the model's own preprocessing.
    only
        Instruments, separated by commas; all by default.
    twin
        Another trained model, its plain twin say, whose signal, lesions and landscape are set beside.
    images
        No instrument looks at more images than this.
    at
        The block at which Grad-CAM looks, as `s2.b3`; the last feature map by default.
    seed
        Draws images, paths and directions.
    out
        The folder to write; `runs/inspect-` and the names of model and data by default.
    device
        `auto`, `cpu` or `cuda`.
    """
    from deepskip.instruments.inspection import INSTRUMENTS, Inspection
    from deepskip.model import load
    from deepskip.pages import publish
    from deepskip.training.precision import choose_device

    place = choose_device(device)
    loaded = load(model, device=place)
    other = None if twin is None else load(twin, device=place)
    with output.counting() as progress:
        opened = loaded.open(data, progress=progress)
        split = opened.val
    output.broken([f"val: {line}" for line in split.broken], len(split) + len(split.broken))
    name = loaded.net.spec.name
    study = Inspection(
        loaded,
        opened,
        out=out or Path("runs") / f"inspect-{name}-{opened.name}",
        only=tuple(INSTRUMENTS) if only is None else [word.strip() for word in only.split(",")],
        twin=other,
        images=images,
        at=at,
        seed=seed,
        command=command_line(),
    )
    output.note(f"{name} on {opened.name}: {', '.join(study.only)}")
    found: list[Measured] = []
    with output.counting() as progress:
        for measured in study.run(progress):
            found.append(measured)
            output.note(f"{measured.instrument}: {duration(measured.seconds)}")
    report = publish(study.out)
    if output.json:
        summaries = {measured.instrument: measured.summary for measured in found}
        return output.result({"out": str(study.out), "report": str(report), "summary": summaries})
    from deepskip.reports.inspection import story

    table = columns("instrument", "what it found")
    for measured in found:
        for i, sentence in enumerate(story(measured.instrument, measured.summary)):
            table.add_row("" if i else measured.instrument, sentence)
    output.table(table)
    return output.say(f"\nreport: {report}")
