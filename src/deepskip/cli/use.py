"""`deepskip evaluate` and `deepskip predict`: a trained model at work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from deepskip.cli.show import Output, Whole, columns
from deepskip.errors import InputError, WorkError

if TYPE_CHECKING:
    from deepskip.scoring import Score


def evaluate(model: Path, data: str, /, *, device: str = "auto", output: Output = Output()) -> None:
    """Measure a model on a data set's validation images: loss, error, per class, confusion, calibration.

    Examples:

    - `deepskip evaluate runs/r56 cifar10`
    - `deepskip evaluate model.safetensors photos/ --json`

    Parameters
    ----------
    model
        A run folder or a `model.safetensors`.
    data
        A built-in name or a folder; its `val/` is used, with the model's own preprocessing and classes.
    device
        `auto`, `cpu` or `cuda`.
    """
    from deepskip.model import load
    from deepskip.scoring import score
    from deepskip.training.precision import choose_device

    loaded = load(model, device=choose_device(device))
    with output.counting() as progress:
        opened = loaded.open(data, progress=progress)
        split = opened.val
    output.broken([f"val: {line}" for line in split.broken], len(split) + len(split.broken))
    if not len(split):
        raise InputError(data, "no readable validation image", "at least one")
    found = score(loaded.net, split, loaded.preprocessing)
    if not math.isfinite(found.loss):
        raise WorkError(model, "outputs that are not finite", "a whole model; this one is damaged or diverged")
    if output.json:
        return output.result(_score_dict(found, loaded.classes))
    output.say(
        f"{loaded.net.spec.name} on {opened.name}: {found.n:,} images\n"
        f"error {found.error:.2f}%   top-5 error {found.top5_error:.2f}%   loss {found.loss:.4f}   "
        f"calibration error {found.calibration_error:.2f}%\n"
    )
    table = columns("class", "n", "error", "most often taken for", numbers=("n", "error"))
    for i, row in enumerate(found.classes(loaded.classes)):
        wrong = [
            (n, name)
            for j, (n, name) in enumerate(zip(found.confusion[i], loaded.classes, strict=True))
            if j != i
        ]
        n, name = max(wrong, default=(0, ""))
        error = "–" if row["error"] is None else f"{row['error']:.1f}%"
        table.add_row(str(row["class"]), f"{row['n']:,}", error, f"{name} ({n})" if n else "")
    output.table(table)
    return None


def predict(
    model: Path,
    images: Annotated[tuple[Path, ...], Parameter(negative="")],
    /,
    *,
    top: Whole = 5,
    device: str = "auto",
    output: Output = Output(),
) -> None:
    """Name the class of pictures: files, and folders that are searched through.

    A broken picture is named on standard error and left out.

    Examples:

    - `deepskip predict runs/r56 cat.jpg`
    - `deepskip predict runs/r56 holiday/ --json`

    Parameters
    ----------
    model
        A run folder or a `model.safetensors`.
    images
        Pictures, or folders of pictures.
    top
        How many of the most probable classes to list for each picture, in JSON.
    device
        `auto`, `cpu` or `cuda`.
    """
    from deepskip.model import find_pictures, load
    from deepskip.training.precision import choose_device

    if top < 1:
        raise InputError("--top", top, "a whole number from 1", 1)
    loaded = load(model, device=choose_device(device))
    files = find_pictures(images)
    broken: list[InputError] = []
    predictions = loaded.predict(files, skipped=broken.append)
    output.broken(broken, len(files))
    if broken and not predictions:
        raise InputError(
            "IMAGE", f"{len(broken)} pictures, none of them readable", "at least one readable picture"
        )
    if output.json:
        return output.result([prediction.to_dict(top) for prediction in predictions])
    table = columns("file", "class", "probability", numbers=("probability",))
    for prediction in predictions:
        table.add_row(prediction.file, prediction.label, f"{100 * prediction.probability:.1f}%")
    return output.table(table)


def _score_dict(found: Score, classes: Sequence[str]) -> dict[str, Any]:
    fields = {**asdict(found), "classes": found.classes(classes)}
    del fields["confusion"]
    # A loss that is not finite has no JSON number.
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in fields.items()}
