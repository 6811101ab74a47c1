"""A finding: one thing that is wrong with a data set; and every kind there is, with what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""The gravest first."""


class Fault(NamedTuple):
    """A kind of finding."""

    severity: Severity
    """An error makes training fail or its scores wrong; a warning may; a note is handled, and good to know."""
    advice: str


FAULTS: dict[str, Fault] = {
    "broken picture": Fault("error", "replace or delete them: training leaves them out"),
    "leaked copy": Fault("error", "keep each picture on one side: val is measured on what was learnt by heart"),
    "contradicting labels": Fault("error", "keep each picture in the one class it belongs to"),
    "one class": Fault("error", "make a folder for each of two classes or more"),
    "empty class": Fault("error", "put pictures in it or delete the folder: training refuses it"),
    "class not in train": Fault(
        "error", "add it to train/ or delete it: training refuses a class it never saw"
    ),
    "no validation": Fault("error", "add pictures, or make train/ and val/: nothing is left to measure on"),
    "alike class names": Fault("error", "rename or merge them: a typing slip makes two classes of one"),
    "leaked likeness": Fault("warning", "look at them: a copy that was resized or saved anew leaks as well"),
    "contradicting likeness": Fault("warning", "look at them: one picture, saved twice, may be in two classes"),
    "leaked name": Fault("warning", "look at them: one original may be on both sides, cropped or augmented"),
    "class not in val": Fault("warning", "add some pictures of it to val/: its error is never measured"),
    "tiny class": Fault("warning", "add pictures or merge the class: so few are learnt by heart"),
    "imbalance": Fault("warning", "read the error per class: the mean hides what happens to the small ones"),
    "class stands out": Fault("warning", "look at them: its colour or brightness alone may give it away"),
    "splits differ": Fault("warning", "split at random: val should look like train"),
    "odd brightness": Fault("warning", "look at a few: bits, scale or channels were lost on the way here"),
    "single colour": Fault("warning", "delete them: there is nothing in them to learn"),
    "tiny picture": Fault("warning", "find the originals: these are enlarged until nothing can be seen"),
    "elongated picture": Fault("warning", "crop them: the ends past 4:1 are cut off"),
    "CMYK": Fault("warning", "convert them with their profile: colours shift without it"),
    "16 bit": Fault("warning", "convert all alike: 12 bits in 16, or another range, turn out nearly black"),
    "unread format": Fault("warning", "convert them to JPEG or PNG: training does not see them"),
    "loose picture": Fault("warning", "move them into a class: training does not see them"),
    "nested folder": Fault(
        "warning", "check the level: all pictures below count as the class of the top folder"
    ),
    "wrong ending": Fault("note", "rename them: the content is read here, but other programs go by the name"),
    "grey": Fault("note", "nothing, unless they are all of one class: they are read as colour"),
    "palette": Fault("note", "nothing, unless they are all of one class: they are read as colour"),
    "transparency": Fault("note", "nothing, if white behind them is right: that is where they are laid"),
    "EXIF rotation": Fault("note", "nothing: they are turned upright here, as other programs may not do"),
    "animation": Fault("note", "nothing, if the first frame is enough: only that is read"),
    "copy": Fault("note", "delete all but one: the same picture counts several times"),
    "likeness": Fault("note", "nothing, or delete all but one: nearly the same picture counts several times"),
    "symbolic link": Fault("note", "nothing, as long as what they lead to stays where it is"),
    "stray file": Fault("note", "nothing: only pictures are read"),
    "hidden file": Fault("note", "nothing: files whose names begin with a dot are never read"),
    "unused folder": Fault("note", "nothing, or rename it: only train/ and its validation folder are read"),
}
"""Every kind, the gravest first; of equals, what matters most first. Findings come in this order."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    kind: str
    """A key of `FAULTS`."""
    where: str
    """The part of the data: "train", "val", "train, val", a folder."""
    found: str
    """What was found there, in words, with numbers and an example."""
    files: tuple[str, ...] = ()
    """Every file or folder concerned, relative to the data's folder; `split/number` in a built-in set."""
    groups: tuple[tuple[str, ...], ...] = ()
    """Which of the files are the same picture, where that is what was found."""

    @property
    def severity(self) -> Severity:
        """How grave it is."""
        return FAULTS[self.kind].severity

    @property
    def advice(self) -> str:
        """What to do about it."""
        return FAULTS[self.kind].advice


def counted(count: int, one: str, many: str | None = None) -> str:
    """Return a number of things: "1 picture", "1,200 pictures"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def example(files: Sequence[str]) -> str:
    """Return the first of these files as an example, or as the only one."""
    return f": {files[0]}" if len(files) == 1 else f", as {files[0]}"


def parts_of(splits: Iterable[str]) -> str:
    """Return which parts of the data these are, in the order train, val."""
    return ", ".join(sorted(set(splits)))
