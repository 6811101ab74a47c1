"""A survey: what there is in a data set, every file read once, before anything is judged."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from PIL import Image

from deepskip.data.ahead import ahead, reported
from deepskip.data.builtin import open_built_in
from deepskip.data.dataset import Pixels, Progress
from deepskip.data.decode import from_pixels, glimpse
from deepskip.data.doctor.likeness import SIDE, Hashes, Thumbnails, dhash, thumbnail
from deepskip.data.folder import Part, parts
from deepskip.data.listing import Listing, pictures_below, stratified
from deepskip.errors import InputError

Side = Literal["train", "val"]
LOOKING = "looking at pictures"
LOOK = 64
"""Pixels to a side of the small copy that brightness, contrast, hash and thumbnail are taken from."""
FLAT = 2
"""Levels between the darkest and the lightest pixel up to which a picture is a single colour."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What is known of one picture file. Of a broken one: only what stands before `digest`."""

    file: str
    """Path relative to the data's folder, with `/`; of a built-in set, `split/number`."""
    split: Side
    label: str
    """The name of its class."""
    broken: str = ""
    """Why it cannot be read, or nothing."""
    digest: bytes = b""
    """Equal for the same bytes: of the file, or of a built-in set's pixels."""
    height: int = 0
    """Upright, in pixels."""
    width: int = 0
    mode: str = ""
    """Pillow's name for how pixels are stored."""
    format: str = ""
    """The format of the content; nothing in a built-in set."""
    orientation: int = 1
    transparent: bool = False
    animated: bool = False
    flat: bool = False
    """Whether it is a single colour."""
    mean: tuple[float, ...] = ()
    """Of red, green and blue, from 0 to 1."""
    contrast: float = 0.0
    """Standard deviation of the grey small copy, from 0 to 1."""


@dataclass(frozen=True)
class Survey:
    """What there is in a data set."""

    name: str
    root: Path | None
    """The data's folder; None for a built-in set."""
    places: dict[Side, str]
    """Where each side's class folders are, relative to `root`: "train" and "val", or "" and ""."""
    classes: dict[Side, tuple[str, ...]]
    """Each side's class folders, empty ones too."""
    pictures: tuple[Picture, ...]
    """In the order train, val, by file."""
    hashes: Hashes
    """uint64 [n, 2]: each picture's difference hash; 0 for broken ones."""
    thumbnails: Thumbnails
    """uint8 [n, SIDE, SIDE, 3]: each picture small; black for broken ones."""
    others: tuple[str, ...] = ()
    """Files that are not among the pictures, and hidden folders (ending in `/`), relative to `root`."""
    links: tuple[str, ...] = ()
    """Files and folders that are symbolic links."""
    folders: tuple[str, ...] = ()
    """Names of the folders directly in `root`."""

    def whole(self, split: Side | None = None) -> list[Picture]:
        """Return the pictures (of one side) that can be read."""
        return [p for p in self.pictures if not p.broken and split in (None, p.split)]


Looked: TypeAlias = tuple[Picture, bytes, Pixels]


def survey_folder(path: Path, progress: Progress | None = None) -> Survey:
    """Read every file in the folder once. Raises InputError when it is no data set at all."""
    train, val = parts(path, known=False)
    assert train is not None  # parts has raised
    listed = list(_listed(path, train, val))
    if not listed:
        allowed = "<class>/* with pictures in it, or train/<class>/* and val/<class>/*"
        raise InputError(path, "no picture in any folder", allowed)

    def look(picture: Picture) -> Looked:
        return _look(path, picture)

    threads = os.cpu_count() or 1
    results = ahead(look, listed, threads=threads, window=8 * threads)
    with contextlib.closing(results):
        looked = list(reported(results, LOOKING, len(listed), progress))
    found, links, folders = _walk(path)
    known = {picture.file for picture in listed}
    return _survey(
        path.resolve().name,
        path,
        {"train": _below(path, train.root), "val": _below(path, val.root)},
        {"train": train.classes, "val": val.classes},
        looked,
        others=tuple(sorted(file for file in found if file not in known)),
        links=tuple(sorted(links)),
        folders=folders,
    )


def survey_built_in(name: str, progress: Progress | None = None) -> Survey:
    """Look at every picture of a built-in set. Raises as opening it does."""
    opened = open_built_in(name, progress=progress)

    def pictures() -> Iterator[Looked]:
        sides: tuple[Side, Side] = ("train", "val")
        for side, split in zip(sides, (opened.train, opened.val), strict=True):
            for index, label in enumerate(split.labels.tolist()):
                pixels = split.images[index]
                height, width, channels = pixels.shape
                known = Picture(f"{side}/{index}", side, opened.classes[label])
                about = {"digest": _digest(pixels.tobytes()), "height": height, "width": width}
                yield _seen(known, from_pixels(pixels), mode="L" if channels == 1 else "RGB", **about)

    looked = list(reported(pictures(), LOOKING, len(opened.train) + len(opened.val), progress))
    classes: dict[Side, tuple[str, ...]] = {"train": opened.classes, "val": opened.classes}
    return _survey(name, None, {"train": "train", "val": "val"}, classes, looked)


def _survey(
    name: str,
    root: Path | None,
    places: dict[Side, str],
    classes: dict[Side, tuple[str, ...]],
    looked: list[Looked],
    **rest: tuple[str, ...],
) -> Survey:
    hashes = np.frombuffer(b"".join(hashed for _, hashed, _ in looked), np.uint64).reshape(-1, 2)
    thumbnails = np.stack([small for _, _, small in looked])
    pictures = tuple(picture for picture, _, _ in looked)
    return Survey(name, root, places, classes, pictures, hashes, thumbnails, **rest)


def _below(path: Path, folder: Path) -> str:
    below = folder.relative_to(path).as_posix()
    return "" if below == "." else below


def _listed(path: Path, train: Part, val: Part) -> Iterator[Picture]:
    """Yield the pictures that training would read, by the same rules; unlike there, a class may be empty."""
    if train.side == "all":
        yield from (_unseen(path, train.root, file, "train") for file, _ in _files(train))
        yield from (_unseen(path, val.root, file, "val") for file, _ in _files(val))
        return
    files = _files(train)
    listing = Listing(train.root, tuple(file for file, _ in files), tuple(stamp for _, stamp in files))
    held: frozenset[str] = frozenset()
    with contextlib.suppress(InputError):  # nothing to hold back: one picture in each class
        held = frozenset(stratified(listing)[1].files)
    yield from (_unseen(path, train.root, file, "train") for file in listing.files if file not in held)
    yield from (_unseen(path, train.root, file, "val") for file in listing.files if file in held)


def _files(part: Part) -> list[tuple[str, str]]:
    return sorted(pair for name in part.classes for pair in pictures_below(part.root / name, name))


def _unseen(path: Path, root: Path, file: str, split: Side) -> Picture:
    below = _below(path, root)
    return Picture(f"{below}/{file}" if below else file, split, file.partition("/")[0])


def _look(path: Path, known: Picture) -> Looked:
    file, content = path / known.file, b""
    try:
        if file.exists() and not file.is_file():  # opening a pipe would wait for ever
            return _broken(known, "not a file")
        content = file.read_bytes()
        seen = glimpse(content, LOOK)
    except InputError as error:
        return _broken(known, str(error.got) if content else "an empty file")
    except OSError as error:
        return _broken(known, (error.strerror or "unreadable").lower())
    turned = seen.orientation >= 5
    return _seen(
        known,
        seen.image,
        digest=_digest(content),
        height=seen.width if turned else seen.height,
        width=seen.height if turned else seen.width,
        mode=seen.mode,
        format=seen.format,
        orientation=seen.orientation,
        transparent=seen.transparent,
        animated=seen.animated,
    )


def _broken(known: Picture, reason: str) -> Looked:
    return replace(known, broken=reason), bytes(16), np.zeros((SIDE, SIDE, 3), np.uint8)


def _seen(known: Picture, image: Image.Image, **about: Any) -> Looked:
    image = image.convert("RGB")
    extremes = cast("tuple[tuple[int, int], ...]", image.getextrema())
    small = image.resize((LOOK, LOOK), Image.Resampling.BILINEAR, reducing_gap=2.0)
    tiny = thumbnail(small)
    picture = replace(
        known,
        flat=all(high - low <= FLAT for low, high in extremes),
        mean=tuple((tiny.reshape(-1, 3).mean(axis=0) / 255).tolist()),
        contrast=float(np.asarray(small.convert("L")).std()) / 255,
        **about,
    )
    return picture, dhash(small), tiny


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:16]  # half of it is enough, for as long as nobody forges


def _walk(path: Path) -> tuple[list[str], list[str], tuple[str, ...]]:
    """Return every file (a hidden folder counts as one, with `/`), every link, and the top folders' names."""
    files, links = [], []
    top: tuple[str, ...] = ()
    for folder, names, here in os.walk(path):
        below = _below(path, Path(folder))
        prefix = f"{below}/" if below else ""
        top = top or tuple(sorted(name for name in names if not name.startswith(".")))
        files += [prefix + name for name in here]
        files += [f"{prefix}{name}/" for name in names if name.startswith(".")]
        links += [prefix + name for name in (*names, *here) if os.path.islink(os.path.join(folder, name))]
        names[:] = [name for name in names if not name.startswith(".")]
    return files, links, top
