"""The examination: every check made on a data set, and what was found, in order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from deepskip.data.builtin import open_built_in
from deepskip.data.dataset import Pixels, Progress
from deepskip.data.decode import from_pixels, glimpse
from deepskip.data.doctor import classes, doubles, files
from deepskip.data.doctor.finding import FAULTS, Finding, Severity
from deepskip.data.doctor.survey import Picture, Survey, survey_built_in, survey_folder
from deepskip.data.sources import folder_of
from deepskip.errors import InputError

CHECKS: tuple[Callable[[Survey], Iterator[Finding]], ...] = (
    files.broken,
    files.wrong_ending,
    files.modes,
    files.sizes,
    files.rotated,
    files.single_colour,
    files.animated,
    files.links,
    classes.layout,
    classes.class_sets,
    classes.alike_names,
    classes.counts,
    classes.other_files,
    classes.nested,
    classes.brightness,
    classes.standing_out,
    classes.splits_differ,
    doubles.copies,
    doubles.likenesses,
    doubles.names,
)
"""Every check: a function of the survey alone."""


_NOT_SEEN = (
    "class not in train",
    "class not in val",
    "alike class names",
    "tiny class",
    "imbalance",
    "one class",
)


class Sample(NamedTuple):
    """A picture that a finding is about, small, for a contact sheet."""

    name: str
    """Its file, relative to the data's folder."""
    pixels: Pixels | None
    """uint8 [h, w, 3]; None when it cannot be read."""
    note: str = ""
    """Why it cannot be read."""


@dataclass(frozen=True)
class Examination:
    """A data set, examined."""

    survey: Survey
    findings: tuple[Finding, ...]
    """The gravest first."""

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """Return the findings of one severity."""
        return tuple(finding for finding in self.findings if finding.severity == severity)

    def samples(self, finding: Finding, most: int, side: int) -> list[Sample]:
        """Return up to `most` pictures that a finding is about, of about `side` pixels; of groups, pairs.

        Of a folder these are its pictures. Files that training would not read give none, nor do findings about
        how many pictures a class has.
        """
        return [self._sample(picture, side) for picture in self._chosen(finding, most)]

    def _chosen(self, finding: Finding, most: int) -> list[Picture]:
        if finding.kind in _NOT_SEEN:
            return []
        known = {picture.file: picture for picture in self.survey.pictures}
        if finding.groups:
            pairs = (doubles.pair([known[file] for file in group]) for group in finding.groups)
            return [known[file] for pair in itertools.islice(pairs, most // 2) for file in pair]
        folders = tuple(f"{file}/" for file in finding.files if file not in known)
        listed = (known[file] for file in finding.files if file in known)
        below = (p for p in self.survey.pictures if folders and p.file.startswith(folders))
        return list(itertools.islice(itertools.chain(listed, below), most))

    def _sample(self, picture: Picture, side: int) -> Sample:
        try:
            image = self._image(picture, side)
        except (InputError, OSError):
            return Sample(picture.file, None, picture.broken or "unreadable")
        image.thumbnail((side, side), Image.Resampling.BILINEAR)
        return Sample(picture.file, np.asarray(image.convert("RGB")))

    def _image(self, picture: Picture, side: int) -> Image.Image:
        if self.survey.root is not None:
            return glimpse((self.survey.root / picture.file).read_bytes(), side).image
        opened = open_built_in(self.survey.name)
        split = opened.train if picture.split == "train" else opened.val
        return from_pixels(split.images[int(picture.file.rpartition("/")[2])])


def examine(source: str | Path, progress: Progress | None = None) -> Examination:
    """Examine a data set: a built-in name or a folder. `progress(what, done, total)` hears of the reading.

    Every picture is read once, with all cores. Raises InputError when `source` is no data set at all, WorkError
    when a built-in one cannot be downloaded.
    """
    folder = folder_of(source)
    survey = survey_built_in(str(source), progress) if folder is None else survey_folder(folder, progress)
    order = list(FAULTS)
    found = [finding for check in CHECKS for finding in check(survey)]
    return Examination(
        survey, tuple(sorted(found, key=lambda finding: (order.index(finding.kind), finding.where)))
    )
