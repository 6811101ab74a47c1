"""What is wrong with single files: each check looks at every picture and yields findings."""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from deepskip.data.decode import ELONGATION
from deepskip.data.doctor.finding import Finding, counted, example, parts_of
from deepskip.data.doctor.survey import Picture, Survey

ENLARGED = 4
"""A picture is tiny when its shorter side is this many times shorter than the usual one."""

_ENDINGS = {
    "BMP": "bmp",
    "GIF": "gif",
    "JPEG": "jpg jpeg jpe jfif",
    "PNG": "png",
    "PPM": "ppm pgm pbm pnm",
    "TIFF": "tif tiff",
    "WEBP": "webp",
}


def broken(survey: Survey) -> Iterator[Finding]:
    """Pictures that cannot be read, or end too soon."""
    for split in ("train", "val"):
        found = [p for p in survey.pictures if p.broken and p.split == split]
        if found:
            said = f"{counted(len(found), 'picture')} that cannot be read"
            said += example([f"{p.file} ({p.broken})" for p in found])
            yield Finding("broken picture", split, said, tuple(p.file for p in found))


def wrong_ending(survey: Survey) -> Iterator[Finding]:
    """Pictures whose content is of another format than their name says."""

    def named(picture: Picture) -> bool:
        ending = os.path.splitext(picture.file)[1].lower()[1:]
        return not picture.format or ending in _ENDINGS[picture.format].split()

    found = [p for p in survey.whole() if not named(p)]
    if found:
        known = Counter(p.format for p in found).most_common()
        formats = " and ".join(name for name, _ in known)
        yield _about("wrong ending", found, f"whose content is {formats}")


def modes(survey: Survey) -> Iterator[Finding]:
    """Pictures stored in another way than most: grey among colour, CMYK, 16 bits, palettes, transparency."""
    tests: dict[str, tuple[str, Callable[[Picture], bool]]] = {
        "CMYK": ("in CMYK, a printer's colours", lambda p: p.mode == "CMYK"),
        "16 bit": ("of 16 bits", lambda p: p.mode.startswith("I")),
        "grey": ("in grey among colours", lambda p: p.mode in ("1", "L", "LA")),
        "palette": ("with a palette of colours", lambda p: p.mode in ("P", "PA") and not p.transparent),
        "transparency": ("with transparency", lambda p: p.transparent),
    }
    pictures = survey.whole()
    for kind, (said, test) in tests.items():
        found = [p for p in pictures if test(p)]
        # A way in which all pictures are stored is no oddity, except where training has to guess.
        if found and (len(found) < len(pictures) or kind == "CMYK"):
            yield _about(kind, found, said)


def sizes(survey: Survey) -> Iterator[Finding]:
    """Pictures much smaller than the others, and much longer than wide."""
    pictures = survey.whole()
    if not pictures:
        return
    usual = statistics.median(min(p.height, p.width) for p in pictures)
    tiny = [p for p in pictures if ENLARGED * min(p.height, p.width) < usual]
    if tiny:
        least = min(tiny, key=lambda p: min(p.height, p.width))
        said = f"much smaller than most (shorter side {usual:.0f}), down to {least.width} × {least.height}"
        yield _about("tiny picture", tiny, said)
    long = [p for p in pictures if max(p.height, p.width) > ELONGATION * min(p.height, p.width)]
    if long:
        most = max(long, key=lambda p: max(p.height, p.width) / min(p.height, p.width))
        yield _about("elongated picture", long, f"longer than 4:1, up to {most.width} × {most.height}")


def rotated(survey: Survey) -> Iterator[Finding]:
    """Pictures that lie on their side or head until EXIF's orientation is heeded."""
    found = [p for p in survey.whole() if p.orientation != 1]
    if found:
        yield _about("EXIF rotation", found, "stored turned or mirrored, with EXIF saying how")


def single_colour(survey: Survey) -> Iterator[Finding]:
    """Pictures with nothing in them."""
    found = [p for p in survey.whole() if p.flat]
    if found:
        yield _about("single colour", found, "of a single colour")


def animated(survey: Survey) -> Iterator[Finding]:
    """Files that hold several pictures."""
    found = [p for p in survey.whole() if p.animated]
    if found:
        yield _about("animation", found, "with several frames or pages")


def links(survey: Survey) -> Iterator[Finding]:
    """Files and folders that are elsewhere."""
    if survey.links:
        said = counted(len(survey.links), "symbolic link") + example(survey.links)
        yield Finding("symbolic link", survey.name, said, survey.links)


def _about(kind: str, found: Sequence[Picture], said: str) -> Finding:
    files = tuple(p.file for p in found)
    return Finding(
        kind,
        parts_of(p.split for p in found),
        f"{counted(len(files), 'picture')} {said}{example(files)}",
        files,
    )
