"""The same picture twice, by its bytes, look or name; on both sides, in two classes, or just twice."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from deepskip.data.doctor.finding import Finding, counted, parts_of
from deepskip.data.doctor.likeness import near_groups
from deepskip.data.doctor.survey import Picture, Survey

SMALLEST = 32
"""Shorter side, in pixels, from which on looks are compared: below it different pictures are too much alike."""

Group = Sequence[Picture]

_WORDS = "aug augmented copy crop cropped flip flipped hflip kopie mirror resized rot rotated vflip"
_COPIED = re.compile(rf"([ _-]*(\(\d+\)|({'|'.join(_WORDS.split())})[ _-]?\d*))+$")
"""What programs hang on the name of a copy: "cat (1)", "cat - copy", "cat_flip_rot90"."""


def copies(survey: Survey) -> Iterator[Finding]:
    """Files with the same bytes (in a built-in set: the same pixels)."""
    groups = [group for group in _by_digest(survey) if len(group) > 1]
    yield from _sorted_out(groups, "leaked copy", "contradicting labels", "copy", "identical")


def likenesses(survey: Survey) -> Iterator[Finding]:
    """Pictures that are the same to the eye, though their bytes differ: resized, or compressed anew."""
    number = {p.file: index for index, p in enumerate(survey.pictures)}
    sets = [
        group
        for group in _by_digest(survey)
        if not group[0].flat and min(group[0].height, group[0].width) >= SMALLEST
    ]
    rows = np.array([number[group[0].file] for group in sets], np.int64)
    near = near_groups(survey.hashes[rows], survey.thumbnails[rows])
    groups = [[p for member in members.tolist() for p in sets[member]] for members in near]
    yield from _sorted_out(groups, "leaked likeness", "contradicting likeness", "likeness", "nearly identical")


def names(survey: Survey) -> Iterator[Finding]:
    """File names that occur in a class's train and val folder, as they do when one original was cut in two.

    Folders that each count their pictures from the start (0.jpg, img_001.jpg) share names for another reason,
    and do not count. An original and its augmented copy (`cat_7.jpg`, `cat_7_flip.jpg`) do.
    """
    if survey.root is None or survey.places["train"] == survey.places["val"]:
        return
    where: defaultdict[tuple[str, str], list[Picture]] = defaultdict(list)
    counting: defaultdict[tuple[str, str, str], set[int]] = defaultdict(set)
    for p in survey.pictures:
        stem = os.path.splitext(os.path.basename(p.file))[0].casefold()
        where[p.label, _COPIED.sub("", stem) or stem].append(p)
        prefix, number = _counter(stem)
        counting[p.label, prefix, p.split].add(number)
    groups = []
    for (label, stem), pictures in sorted(where.items()):
        prefix, _ = _counter(stem)
        starts = [counting[label, prefix, split] for split in ("train", "val")]
        if all(numbers & {0, 1} for numbers in starts) or len({p.split for p in pictures}) < 2:
            continue
        groups.append(pictures)
    if groups:
        said = f"{counted(len(groups), 'file name')} on both sides of one class{_as(groups[0])}"
        yield Finding("leaked name", "train, val", said, _files(groups), _grouped(groups))


def pair(group: Group) -> tuple[str, str]:
    """Return two files of a group: on two sides if it has them, or of two classes if it has them."""
    one = group[0]
    other = next((p for p in group if p.split != one.split), None)
    other = other or next((p for p in group if p.label != one.label), group[1])
    return one.file, other.file


def _as(group: Group) -> str:
    return ", as {} and {}".format(*pair(group))


def _counter(stem: str) -> tuple[str, int]:
    """Return what stands before the last number in a name, and that number; -1 when there is none."""
    found = re.fullmatch(r"(.*?)(\d{1,18})", stem)
    return (found[1], int(found[2])) if found else (stem, -1)


def _by_digest(survey: Survey) -> list[list[Picture]]:
    groups: defaultdict[bytes, list[Picture]] = defaultdict(list)
    for p in survey.whole():
        groups[p.digest].append(p)
    return list(groups.values())


def _sorted_out(
    groups: Sequence[Group], leak: str, contradiction: str, plain: str, how: str
) -> Iterator[Finding]:
    """Yield a finding for groups on both sides, one for groups in two classes, one for the harmless rest."""
    across = [group for group in groups if len({p.split for p in group}) > 1]
    contrary = [group for group in groups if len({p.label for p in group}) > 1]
    rest = [group for group in groups if group not in across and group not in contrary]
    for kind, some, where in (
        (leak, across, "in train and in val"),
        (contradiction, contrary, "in more than one class"),
        (plain, rest, "in one class"),
    ):
        if some:
            said = f"{counted(len(some), 'picture')} {how} {where}{_as(some[0])}"
            yield Finding(
                kind, parts_of(p.split for group in some for p in group), said, _files(some), _grouped(some)
            )


def _files(groups: Sequence[Group]) -> tuple[str, ...]:
    return tuple(sorted({p.file for group in groups for p in group}))


def _grouped(groups: Sequence[Group]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(p.file for p in group) for group in groups)
