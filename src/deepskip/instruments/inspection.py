"""Every instrument on one trained network, one after the other, and what they find in a folder.

`blocks.jsonl` has a row for each block with the columns of all instruments that say something of blocks, what
others find has a file of its own, `summary.json` what all of it comes to, `inspection.json` what was inspected.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from deepskip.data.dataset import Dataset, Pixels, Progress
from deepskip.errors import InputError, choices, nearest
from deepskip.files import read_json, write_json, write_text
from deepskip.instruments import (
    calibration,
    gradient,
    identity,
    landscape,
    lens,
    lesion,
    paths,
    saliency,
    signal,
)
from deepskip.instruments.images import pixels
from deepskip.model import Model
from deepskip.nets.network import Network

_PARTS = ("of", "commands", "seconds")
"""Of the plan: what is inspected, and for each instrument that has measured the command and its time."""
_OTHER = {
    "weights": "other weights",
    "fingerprint": "other pictures",
    "twin_weights": "other weights of the twin",
    "classes": "other classes",
}
"""Of what is inspected, by its name in the plan: what cannot be read off its value."""
PLAN, SUMMARY, BLOCKS, TWIN, PICTURES = "inspection.json", "summary.json", "blocks", "twin", "pictures"

Row = dict[str, Any]


class Measured(NamedTuple):
    """An instrument has ended."""

    instrument: str
    rows: dict[str, list[Row]]
    """By the file they are in, without `.jsonl`."""
    summary: dict[str, Any]
    seconds: float


class _Subject(NamedTuple):
    net: Network
    data: Dataset
    twin: Network | None
    images: int | None
    seed: int
    at: str | None
    progress: Progress | None

    def how(self, usual: int) -> dict[str, Any]:
        """Return what every instrument is told; none looks at more images than it does by itself."""
        images = usual if self.images is None else min(usual, self.images)
        return {"images": images, "seed": self.seed, "progress": self.progress}


_Found = tuple[dict[str, list[Row]], dict[str, Any]]


def _signal(s: _Subject) -> _Found:
    rows = {name: signal.measure(net, s.data, **s.how(signal.IMAGES)) for name, net in _both(s)}
    summary = signal.summarise(rows[BLOCKS])
    if s.twin:
        summary["twin"] = signal.summarise(rows[TWIN])
    return rows, summary


def _gradient(s: _Subject) -> _Found:
    rows = gradient.measure(s.net, s.data, **s.how(gradient.IMAGES))
    return {BLOCKS: rows}, gradient.summarise(rows)


def _identity(s: _Subject) -> _Found:
    how = s.how(identity.IMAGES)
    rows = identity.measure(s.net, s.data, images=how["images"], seed=how["seed"])
    known = [row for row in rows if row["ratio"] is not None]
    least = min(known, key=lambda row: row["ratio"], default=None)
    most = max(known, key=lambda row: row["ratio"], default=None)
    summary = {
        "least": least and least["block"],
        "least_ratio": least and least["ratio"],
        "most": most and most["block"],
        "most_ratio": most and most["ratio"],
        "equal": sum(row["equal"] for row in rows),
        "n": rows[0]["n"],
    }
    return {BLOCKS: [{k: v for k, v in row.items() if k != "n"} for row in rows]}, summary


def _lesion(s: _Subject) -> _Found:
    how = s.how(lesion.IMAGES)
    rows = {name: lesion.measure(net, s.data, **how) for name, net in _both(s)}
    summary = lesion.summarise(rows[BLOCKS])
    if s.twin:
        summary["twin"] = lesion.summarise(rows[TWIN])
    rows["deletions"], rows["shuffles"] = (
        lesion.delete(s.net, s.data, **how),
        lesion.shuffle(s.net, s.data, **how),
    )
    return rows, summary


def _paths(s: _Subject) -> _Found:
    rows = paths.measure(s.net, s.data, **s.how(paths.IMAGES))
    return {"paths": rows}, paths.summarise(rows)


def _lens(s: _Subject) -> _Found:
    rows = lens.measure(s.net, s.data, **s.how(lens.IMAGES))
    return {BLOCKS: rows}, lens.summarise(rows)


def _saliency(s: _Subject) -> _Found:
    rows = saliency.measure(s.net, s.data, at=s.at, **s.how(saliency.IMAGES))
    wrong = [row for row in rows if not row["right"]]
    names = s.data.classes
    summary = {
        "at": rows[0]["at"] if rows else None,
        "mistakes": [
            {
                "image": row["image"],
                "file": row["file"],
                "label": names[row["label"]],
                "predicted": names[row["predicted"]],
                "confidence": row["confidence"],
            }
            for row in wrong
        ],
    }
    return {"saliency": rows}, summary


def _landscape(s: _Subject) -> _Found:
    rows = landscape.measure(s.net, s.data, s.twin, **s.how(landscape.IMAGES))
    summary = {"nets": landscape.summarise(rows)["landscape"]}
    return {"landscape": rows}, summary


def _calibration(s: _Subject) -> _Found:
    rows = calibration.measure(s.net, s.data, **s.how(calibration.IMAGES))
    return {"calibration": rows}, calibration.summarise(rows)


def _both(s: _Subject) -> list[tuple[str, Network]]:
    return [(BLOCKS, s.net), *([(TWIN, s.twin)] if s.twin else [])]


INSTRUMENTS: dict[str, Callable[[_Subject], _Found]] = {
    "signal": _signal,
    "gradient": _gradient,
    "identity": _identity,
    "lesion": _lesion,
    "paths": _paths,
    "lens": _lens,
    "saliency": _saliency,
    "landscape": _landscape,
    "calibration": _calibration,
}
"""In the order in which they measure, and in which a report has them."""


class Inspection:
    """An inspection in its folder."""

    def __init__(
        self,
        model: Model,
        data: Dataset,
        *,
        out: Path | str,
        only: Sequence[str] = tuple(INSTRUMENTS),
        twin: Model | None = None,
        images: int | None = None,
        at: str | None = None,
        seed: int = 0,
        command: str = "",
    ) -> None:
        """Plan it; nothing is measured yet. `data` is the model's own view of it: `model.open(…)`.

        `only` names instruments; `twin` is a trained net beside which to set this one; no instrument looks at
        more than `images` pictures; `at` is the block at which Grad-CAM looks. A folder that holds an
        inspection of the same model, data and settings keeps what other instruments found. Raises InputError.
        """
        for name in only:
            if name not in INSTRUMENTS:
                raise InputError("only", repr(name), choices(INSTRUMENTS), nearest(name, INSTRUMENTS))
        if images is not None and images < 1:
            raise InputError("images", images, "a whole number from 1", 1)
        nets = {"model": model} | ({"twin": twin} if twin else {})
        for name, one in nets.items():
            if one.classes != data.classes:
                raise InputError(name, f"{len(one.classes)} classes of its own", f"those of {data.name}")
        if twin and twin.net.spec.input != model.net.spec.input:
            raise InputError(
                "twin", f"input {twin.net.spec.input}", f"{model.net.spec.input}, as the model has"
            )
        self.only, self.out = [name for name in INSTRUMENTS if name in only], Path(out)
        self._subject = _Subject(model.net, data, twin.net if twin else None, images, seed, at, None)
        if at is not None:
            saliency.place(model.net, at)
        of = {
            "model": model.net.spec.name,
            "weights": _digest(model.net),
            "data": data.name,
            "fingerprint": data.val.fingerprint,
            "twin": twin and twin.net.spec.name,
            "twin_weights": twin and _digest(twin.net),
            "images": images,
            "at": at,
            "seed": seed,
            "classes": list(data.classes),
        }
        held = self._held()
        if held is not None and held.get("of") != of:
            allowed = "the same model, data and settings, or a new folder"
            raise InputError(self.out, f"an inspection with {_difference(held['of'], of)}", allowed)
        self.command = command
        self.plan: dict[str, Any] = {
            "of": of,
            "commands": held["commands"] if held else {},
            "seconds": held["seconds"] if held else {},
        }

    def _held(self) -> dict[str, Any] | None:
        """Return the plan that the folder holds; None for a new or an empty one."""
        if not self.out.exists():
            return None
        if (self.out / PLAN).is_file():
            return plan(self.out)
        if self.out.is_dir() and all(path.suffix == ".part" for path in self.out.iterdir()):
            return None
        raise InputError(self.out, "a folder with other files in it", "a new folder, or an inspection's own")

    def run(self, progress: Progress | None = None) -> Iterator[Measured]:
        """Measure, yielding each instrument as it ends; the folder is whole after each of them."""
        subject = self._subject._replace(progress=progress)
        self.out.mkdir(parents=True, exist_ok=True)
        write_json(self.out / PLAN, self.plan)
        for name in self.only:
            started = time.monotonic()
            rows, summary = INSTRUMENTS[name](subject)
            measured = Measured(name, rows, summary, round(time.monotonic() - started, 2))
            self._keep(measured)
            yield measured

    def _keep(self, measured: Measured) -> None:
        for name, rows in measured.rows.items():
            if name in (BLOCKS, TWIN):
                rows = _merged(read(self.out, name), rows)
            write_text(
                self.out / f"{name}.jsonl", "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
            )
        if measured.instrument == "saliency":
            self._save_pictures([row["image"] for row in measured.rows["saliency"]])
        found = read_json(self.out / SUMMARY) if (self.out / SUMMARY).is_file() else {}
        summary = {**(found if isinstance(found, dict) else {}), measured.instrument: measured.summary}
        own = {"net": self.plan["of"]["model"], "data": self.plan["of"]["data"]}
        ordered = {name: summary[name] for name in INSTRUMENTS if name in summary}
        write_json(self.out / SUMMARY, {**own, **ordered})
        for what, value in (("commands", self.command), ("seconds", measured.seconds)):
            self.plan[what] = {**self.plan[what], measured.instrument: value}
        write_json(self.out / PLAN, self.plan)

    def _save_pictures(self, images: Sequence[int]) -> None:
        folder = self.out / PICTURES
        folder.mkdir(exist_ok=True)
        for old in folder.glob("*.png"):
            old.unlink()
        for image, picture in zip(images, pixels(self._subject.data, images), strict=True):
            squeezed = picture[:, :, 0] if picture.shape[2] == 1 else picture
            Image.fromarray(np.ascontiguousarray(squeezed)).save(folder / f"{image}.png")


def plan(folder: Path) -> dict[str, Any]:
    """Return what the inspection in `folder` inspects, and how each instrument did. Raises InputError."""
    held = read_json(folder / PLAN)
    if isinstance(held, dict) and all(isinstance(held.get(part), dict) for part in _PARTS):
        return held
    raise InputError(folder / PLAN, "no inspection's plan", "one of this version: inspect into a new folder")


def read(folder: Path, name: str) -> list[Row]:
    """Return the rows of a file of the inspection in `folder`, none where an instrument did not measure."""
    path = folder / f"{name}.jsonl"
    if not path.is_file():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError:
        raise InputError(path, "a line that is not JSON", "an inspection's own file") from None


def picture(folder: Path, image: int) -> Pixels:
    """Return the picture number `image` of the split, uint8 [h, w, 1 or 3], that the inspection kept."""
    path = folder / PICTURES / f"{image}.png"
    try:
        with Image.open(path) as opened:
            found = np.asarray(opened.convert("RGB" if opened.mode != "L" else "L"))
    except OSError:
        raise InputError(path, "no picture", "the inspection's own; inspect with saliency again") from None
    return found[:, :, None] if found.ndim == 2 else found


def _merged(held: Sequence[Row], rows: Sequence[Row]) -> list[Row]:
    """Return the rows with what is known of their blocks already."""
    known: Mapping[str, Row] = {row["block"]: row for row in held}
    return [{**known.get(row["block"], {}), **row} for row in rows]


def _difference(held: Mapping[str, Any], of: Mapping[str, Any]) -> str:
    """Return in words the first thing that is not as it was when the folder's inspection began."""
    name = next(name for name in (*of, *held) if held.get(name) != of.get(name))
    return _OTHER.get(name) or f"{name} {held.get(name)!r}, not {of.get(name)!r}"


def _digest(net: Network) -> str:
    """Return 16 hexadecimal digits that depend on every value of the network."""
    digest = hashlib.sha256()
    for name, tensor in net.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
