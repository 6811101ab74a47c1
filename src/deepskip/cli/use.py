"""`deepskip evaluate` and `deepskip predict`: a trained model at work."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from deepskip.cli.show import Output, Whole, check_new, columns, command_line
from deepskip.errors import InputError, WorkError

if TYPE_CHECKING:
    from rich.table import Table

    from deepskip.deploy.choosing import Choice
    from deepskip.deploy.threshold import Threshold
    from deepskip.model import Model, Prediction
    from deepskip.scoring import Score


def evaluate(
    model: Path,
    data: str,
    /,
    *,
    way: str = "auto",
    flips: bool = False,
    threshold_for: float | None = None,
    picture: Path | None = None,
    force: bool = False,
    device: str = "auto",
    output: Output = Output(),
) -> None:
    """Measure a model on a data set's validation images: loss, error, per class, confusion, calibration.

    Examples:

    - `deepskip evaluate runs/r56 cifar10`
    - `deepskip evaluate model.safetensors photos/ --json`
    - `deepskip evaluate runs/r56 photos/ --picture confusion.svg --threshold-for 99`

    Parameters
    ----------
    model
        A run folder or a `model.safetensors`.
    data
        A built-in name or a folder; its `val/` is used, with the model's own preprocessing and classes.
    way
        How to run the net: `auto`, the fastest whose scores are float32's; `fastest`, in fewer bits too; or a
        way that `deepskip bench` lists.
    flips
        Score the mean of what the net says of a picture and of its mirror image.
    threshold_for
        Find the probability from which on so many percent of the answers are right.
    picture
        Draw the confusion matrix into this file, an .svg or a .png.
    force
        Overwrite the picture when it is there already.
    device
        `auto`, `cpu` or `cuda`.
    """
    from deepskip.deploy import choosing, stream
    from deepskip.deploy.threshold import threshold
    from deepskip.scoring import score_logits

    choosing.check(way)
    if threshold_for is not None and not 0 < threshold_for <= 100:
        raise InputError("--threshold-for", threshold_for, "a percentage above 0 and up to 100")
    if picture is not None:
        from deepskip.figures.style import suffix_of

        suffix_of(picture)
        check_new("--picture", picture, force=force)
    loaded = _loaded(model, device)
    with output.counting() as progress:
        opened = loaded.open(data, progress=progress)
        split = opened.val
    output.broken([f"val: {line}" for line in split.broken], len(split) + len(split.broken))
    if not len(split):
        raise InputError(data, "no readable validation image", "at least one")
    with output.counting() as progress:
        logits = stream.evaluate(loaded, split, way=way, flips=flips, told=_teller(output), progress=progress)
    found = score_logits(logits, split.labels)
    if not math.isfinite(found.loss):
        raise WorkError(model, "outputs that are not finite", "a whole model; this one is damaged or diverged")
    at = None if threshold_for is None else threshold(logits, split.labels, threshold_for)
    if picture is not None:
        from deepskip.figures.confusion import confusion
        from deepskip.figures.style import write

        write(confusion(found.confusion, loaded.classes), picture, command_line())
    if output.json:
        asked = {} if threshold_for is None else {"threshold": None if at is None else asdict(at)}
        drawn = {} if picture is None else {"picture": str(picture)}
        return output.result({**_score_dict(found, loaded.classes), **asked, **drawn})
    output.say(
        f"{loaded.net.spec.name} on {opened.name}: {found.n:,} images\n"
        f"error {found.error:.2f}%   top-5 error {found.top5_error:.2f}%   loss {found.loss:.4f}   "
        f"calibration error {found.calibration_error:.2f}%"
    )
    if threshold_for is not None:
        output.say(_threshold_words(at, threshold_for))
    output.say()
    return output.table(_class_table(found, loaded.classes))


def predict(
    model: Path,
    images: Annotated[tuple[Path, ...], Parameter(negative="")],
    /,
    *,
    to: str | None = None,
    link: bool = False,
    force: bool = False,
    way: str = "auto",
    flips: bool = False,
    batch: Whole = 32,
    top: Whole = 5,
    device: str = "auto",
    output: Output = Output(),
) -> None:
    """Name the class of pictures: files, and folders that are searched through.

    There may be any number of them. A broken picture is named on standard error and left out.

    Examples:

    - `deepskip predict runs/r56 cat.jpg`
    - `deepskip predict runs/r56 holiday/ --json`
    - `deepskip predict runs/r56 holiday/ --to holiday.csv`
    - `deepskip predict runs/r56 holiday/ --to sorted/ --link`

    Parameters
    ----------
    model
        A run folder or a `model.safetensors`.
    images
        Pictures, or folders of pictures.
    to
        Write to a FILE.csv, a FILE.jsonl, or a new FOLDER/ with copies of the pictures in a folder for each
        class.
    link
        Put symbolic links into that folder, not copies.
    force
        Overwrite the file when it is there already.
    way
        How to run the net: `auto`, the fastest whose answers are float32's; `fastest`, in fewer bits too; or
        a way that `deepskip bench` lists.
    flips
        Take the mean of what the net says of a picture and of its mirror image.
    batch
        Pictures computed at once.
    top
        How many of the most probable classes to list for each picture, in JSON.
    device
        `auto`, `cpu` or `cuda`.
    """
    from deepskip.deploy import choosing, results

    for name, value in (("--top", top), ("--batch", batch)):
        if value < 1:
            raise InputError(name, value, "a whole number from 1", 1)
    choosing.check(way)
    if to is None and (link or force):
        raise InputError("--link" if link else "--force", "no --to", "--to FOLDER/ or --to FILE", "--to")
    place = None if to is None else results.check(to, link=link, force=force)
    loaded = _loaded(model, device)
    shown: list[Prediction] = []
    counts: Counter[str] = Counter()
    with contextlib.ExitStack() as held:
        keep: results.Keep = shown.append
        if place is not None:
            keep = held.enter_context(
                results.keeping(place, classes=loaded.classes, roots=images, top=top, link=link)
            )
        found = _predictions(loaded, images, way, flips, batch, top, output)
        for prediction in held.enter_context(contextlib.closing(found)):
            keep(prediction)
            counts[prediction.label] += 1
    if place is not None:
        if output.json:
            return output.result({"to": str(place), "n": counts.total(), "classes": dict(counts)})
        table = columns("class", "pictures", numbers=("pictures",))
        for name in loaded.classes:
            if counts[name]:
                table.add_row(name, f"{counts[name]:,}")
        output.table(table)
        return output.say(f"\n{place}: {counts.total():,} pictures")
    if output.json:
        return output.result([prediction.to_dict(top) for prediction in shown])
    table = columns("file", "class", "probability", numbers=("probability",))
    for prediction in shown:
        table.add_row(prediction.file, prediction.label, f"{100 * prediction.probability:.1f}%")
    return output.table(table)


def _predictions(
    model: Model, images: Sequence[Path], way: str, flips: bool, batch: int, top: int, output: Output
) -> Generator[Prediction, None, None]:
    """Yield what the model says of every picture; warn of broken ones. Raises InputError when all are."""
    from deepskip.data.listing import find_pictures
    from deepskip.deploy import stream

    broken = 0

    def skipped(error: InputError) -> None:
        nonlocal broken
        broken += 1
        output.warn(str(error))

    total = sum(1 for _ in find_pictures(images, lambda error: None))
    with output.counting() as progress:
        found = stream.predict(
            model,
            find_pictures(images, skipped),
            total,
            way=way,
            batch=batch,
            top=top,
            flips=flips,
            skipped=skipped,
            told=_teller(output),
            progress=progress,
        )
        with contextlib.closing(found):
            some = False
            for prediction in found:
                some = True
                yield prediction
    if broken:
        output.warn(f"{broken:,} of {total:,} files are broken and left out")
    if not some:
        got = f"{broken} pictures, none of them readable"
        raise InputError("IMAGE", got, "at least one readable picture")


def _loaded(model: Path, device: str) -> Model:
    from deepskip.model import load
    from deepskip.training.precision import choose_device

    return load(model, device=choose_device(device))


def _teller(output: Output) -> Callable[[Choice], None]:
    """Return what says in which way the net is run: even when quiet, where it is not float32's."""

    def tell(choice: Choice) -> None:
        for one in choice.tried:
            output.note(f"{one.way.name}: {one.rate:,.1f} images/s, {one.agreement}")
        if not choice.agreement.exact:
            output.warn(f"{choice.way.name} is not float32: {choice.agreement}")
        elif choice.tried:
            output.note(f"way: {choice.way.name}")

    return tell


def _threshold_words(at: Threshold | None, wanted: float) -> str:
    if at is None:
        return f"at no probability are {wanted:g}% of the answers right"
    return (
        f"from a probability of {at.probability:.4f} on {at.precision:.2f}% of the answers are right "
        f"(95% interval {at.precision_low:.2f} to {at.precision_high:.2f}): "
        f"{at.n:,} images, {at.coverage:.1f}% of all"
    )


def _class_table(found: Score, classes: Sequence[str]) -> Table:
    table = columns("class", "n", "error", "most often taken for", numbers=("n", "error"))
    for i, row in enumerate(found.classes(classes)):
        wrong = [
            (n, name) for j, (n, name) in enumerate(zip(found.confusion[i], classes, strict=True)) if j != i
        ]
        n, name = max(wrong, default=(0, ""))
        error = "–" if row["error"] is None else f"{row['error']:.1f}%"
        table.add_row(str(row["class"]), f"{row['n']:,}", error, f"{name} ({n})" if n else "")
    return table


def _score_dict(found: Score, classes: Sequence[str]) -> dict[str, Any]:
    fields = {**asdict(found), "classes": found.classes(classes)}
    del fields["confusion"]
    # A loss that is not finite has no JSON number.
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in fields.items()}
