"""What is wrong with folders and classes: each check looks at the layout, the counts or the colours."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from deepskip.data.decode import SUFFIXES
from deepskip.data.doctor.finding import Finding, counted, example
from deepskip.data.doctor.survey import Side, Survey
from deepskip.data.folder import VAL_FOLDERS
from deepskip.errors import choices

FEW = 10
"""A training class with fewer pictures is tiny; and what is said of means needs this many pictures."""
IMBALANCE = 10
"""The largest class over the smallest, from which on it is worth a warning."""
DARK, BRIGHT, PALE = 0.03, 0.97, 0.02
"""Mean brightness below and above which, and mean contrast below which, a whole set is suspicious."""
FAR = 4.0
"""Standard deviations between the means of two classes from which on their colours hardly overlap."""
SHIFTED = 0.1
"""Difference of mean brightness (0 to 1) between train and val that no random split has."""

_UNREAD = frozenset(
    [
        ".arw",
        ".avif",
        ".cr2",
        ".cr3",
        ".dng",
        ".eps",
        ".heic",
        ".heif",
        ".ico",
        ".j2k",
        ".jp2",
        ".jxl",
        ".nef",
        ".orf",
        ".pdf",
        ".psd",
        ".raf",
        ".svg",
        ".tga",
    ]
)


def layout(survey: Survey) -> Iterator[Finding]:
    """Too few classes, classes without pictures, nothing to validate on."""
    classes = survey.classes["train"]
    if len(classes) < 2:
        said = f"only one class, {classes[0]!r}" if classes else "no class folder"
        yield Finding(
            "one class", _place(survey, "train"), said, tuple(_folder(survey, "train", c) for c in classes)
        )
    for split in _sides(survey):
        present = {p.label for p in survey.whole(split if _parted(survey) else None)}
        empty = [_folder(survey, split, c) for c in survey.classes[split] if c not in present]
        if empty:
            said = f"{counted(len(empty), 'class', 'classes')} without a readable picture: {choices(empty, 5)}"
            yield Finding("empty class", _place(survey, split), said, tuple(empty))
    if not any(p.split == "val" for p in survey.pictures):
        yield Finding("no validation", survey.name, "no picture to validate on")


def class_sets(survey: Survey) -> Iterator[Finding]:
    """Classes on one side only."""
    train, val = set(survey.classes["train"]), set(survey.classes["val"])
    for kind, names, side, other in (
        ("class not in train", val - train, "val", "train"),
        ("class not in val", train - val, "train", "val"),
    ):
        if names:
            said = f"{counted(len(names), 'class', 'classes')} that {other} lacks: {choices(sorted(names), 5)}"
            split: Side = "val" if side == "val" else "train"
            yield Finding(
                kind, _place(survey, split), said, tuple(_folder(survey, split, c) for c in sorted(names))
            )


def alike_names(survey: Survey) -> Iterator[Finding]:
    """Class folders that differ only in case, in spaces at the ends, or in how an accent is written."""
    alike: defaultdict[str, dict[str, Side]] = defaultdict(dict)
    for split in _sides(survey):
        for name in survey.classes[split]:
            alike[unicodedata.normalize("NFKC", name).casefold().strip()].setdefault(name, split)
    groups = [names for names in alike.values() if len(names) > 1]
    if groups:
        listed = choices((" and ".join(map(repr, names)) for names in groups), 5)
        files = tuple(_folder(survey, split, name) for names in groups for name, split in names.items())
        yield Finding(
            "alike class names", survey.name, f"class names that are nearly the same: {listed}", files
        )


def counts(survey: Survey) -> Iterator[Finding]:
    """Tiny classes, and classes much larger than others."""
    number = Counter(p.label for p in survey.pictures if p.split == "train" and not p.broken)
    present = sorted((number[name], name) for name in survey.classes["train"] if number[name])
    tiny = [(count, name) for count, name in present if count < FEW]
    if tiny:
        listed = choices((f"{name} ({count})" for count, name in tiny), 5)
        said = f"{counted(len(tiny), 'class', 'classes')} with fewer than {FEW} pictures: {listed}"
        files = tuple(_folder(survey, "train", name) for _, name in tiny)
        yield Finding("tiny class", _place(survey, "train"), said, files)
    if present and present[-1][0] >= IMBALANCE * present[0][0]:
        (least, small), (most, large) = present[0], present[-1]
        said = f"{most:,} pictures of {large}, {least:,} of {small}: {most / least:.0f} to 1"
        files = (_folder(survey, "train", small), _folder(survey, "train", large))
        yield Finding("imbalance", _place(survey, "train"), said, files)


def other_files(survey: Survey) -> Iterator[Finding]:
    """What lies among the pictures and is not read."""
    kinds: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for file in survey.others:
        if named := _kind(survey, file):
            kinds[named].append(file)
    for (kind, said), files in kinds.items():
        yield Finding(
            kind, survey.name, f"{counted(len(files), *said.split('|'))}{example(files)}", tuple(files)
        )
    if _parted(survey):
        unused = [f"{name}/" for name in survey.folders if name not in ("train", *VAL_FOLDERS)]
        if unused:
            said = f"{counted(len(unused), 'folder')} beside train/ that nothing reads: {choices(unused, 5)}"
            yield Finding("unused folder", survey.name, said, tuple(unused))


def nested(survey: Survey) -> Iterator[Finding]:
    """Pictures in folders within a class's folder."""
    found: dict[str, int] = Counter()
    for p in survey.pictures:
        place = survey.places[p.split]
        inner = p.file.removeprefix(f"{place}/" if place else "").split("/")[1:-1]
        if inner and survey.root is not None:
            found[os.path.dirname(p.file)] += 1
    if found:
        folders = tuple(sorted(found))
        said = f"{counted(sum(found.values()), 'picture')} in {counted(len(folders), 'folder')} within a class"
        yield Finding(
            "nested folder", survey.name, said + example([f"{folder}/" for folder in folders]), folders
        )


def brightness(survey: Survey) -> Iterator[Finding]:
    """Whole sides that are nearly black, nearly white or nearly without contrast."""
    for split in ("train", "val"):
        pictures = survey.whole("val" if split == "val" else "train")
        if not pictures:
            continue
        mean = float(np.mean([p.mean for p in pictures]))
        contrast = float(np.mean([p.contrast for p in pictures]))
        what = "nearly black" if mean < DARK else "nearly white" if mean > BRIGHT else ""
        what = what or ("nearly without contrast" if contrast < PALE else "")
        if what:
            said = f"pictures {what}: mean {mean:.3f}, contrast {contrast:.3f} on a scale of 0 to 1"
            yield Finding("odd brightness", split, said, tuple(p.file for p in pictures[:FEW]))


def standing_out(survey: Survey) -> Iterator[Finding]:
    """Classes whose mean colour is far from that of every other class, by the spread within them."""
    colours: defaultdict[str, list[tuple[float, ...]]] = defaultdict(list)
    for p in survey.whole("train"):
        colours[p.label].append(p.mean)
    names = sorted(name for name, means in colours.items() if len(means) >= FEW)
    if len(names) < 2:
        return
    means = np.array([np.mean(colours[name], axis=0) for name in names])
    spreads = np.array([np.std(colours[name], axis=0) for name in names])
    nearest = _nearest(means, spreads)
    far = [(name, apart) for name, apart in zip(names, nearest, strict=True) if apart >= FAR]
    if far:
        far.sort(key=lambda pair: -pair[1])
        listed = choices((f"{name} ({apart:.1f})" for name, apart in far), 5)
        said = f"mean colours far from every other class's, in standard deviations: {listed}"
        files = tuple(_folder(survey, "train", name) for name, _ in far)
        yield Finding("class stands out", _place(survey, "train"), said, files)


def splits_differ(survey: Survey) -> Iterator[Finding]:
    """Train and val that do not look as if they had been split at random."""
    sides = [np.array([p.mean for p in survey.whole(split)]) for split in _SIDES]
    if min(map(len, sides)) < FEW:
        return
    (train, val), spread = (side.mean(axis=0) for side in sides), np.concatenate(sides).std(axis=0)
    apart = np.abs(train - val)
    if (apart >= np.maximum(SHIFTED, spread)).any():
        said = f"mean colours that differ: train {_rgb(train)}, val {_rgb(val)} on a scale of 0 to 1"
        yield Finding("splits differ", "train, val", said)


def _nearest(means: npt.NDArray[np.float64], spreads: npt.NDArray[np.float64]) -> list[float]:
    """Return how far each class is from its nearest: standard deviations, in the channel that tells most."""
    found = []
    for index in range(len(means)):
        within = np.sqrt((spreads[index] ** 2 + spreads**2) / 2)
        apart = (np.abs(means - means[index]) / np.maximum(within, 2 / 255)).max(axis=1)
        apart[index] = np.inf
        found.append(float(apart.min()))
    return found


def _kind(survey: Survey, file: str) -> tuple[str, str] | None:
    """Return what an unread file's finding is called, and the words for one and many; None where it may be."""
    path = PurePosixPath(file)
    place = next((p for p in set(survey.places.values()) if not p or file.startswith(f"{p}/")), None)
    if place is None:
        return None
    inside = path.relative_to(place) if place else path
    suffix = path.suffix.lower()
    in_class = len(inside.parts) > 1
    if any(part.startswith(".") for part in inside.parts):
        return ("hidden file", "hidden file") if in_class else None
    if suffix in SUFFIXES:
        return (
            None
            if in_class
            else ("loose picture", "picture outside every class folder|pictures outside every class folder")
        )
    if suffix in _UNREAD:
        return "unread format", "picture in a format that is not read|pictures in formats that are not read"
    return (
        ("stray file", "file among the pictures that is none|files among the pictures that are none")
        if in_class
        else None
    )


_SIDES: tuple[Side, Side] = ("train", "val")


def _parted(survey: Survey) -> bool:
    return survey.places["train"] != survey.places["val"]


def _sides(survey: Survey) -> tuple[Side, ...]:
    return _SIDES if _parted(survey) else ("train",)


def _place(survey: Survey, split: Side) -> str:
    return split if _parted(survey) else survey.name


def _folder(survey: Survey, split: Side, name: str) -> str:
    place = survey.places[split]
    return f"{place}/{name}" if place else name


def _rgb(mean: npt.NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{x:.2f}" for x in mean) + ")"
