"""Predictions kept: a table (.csv), a row of JSON a picture (.jsonl), or the pictures sorted into folders."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from deepskip.errors import InputError
from deepskip.files import explained, replacing, replacing_folder
from deepskip.model import Prediction

Keep = Callable[[Prediction], object]
FILES = (".csv", ".jsonl")
LONGEST = 100
"""Characters of a class's name that its folder is called by."""


def check(to: str, *, link: bool, force: bool) -> Path:
    """Return the path that `to` means, before any work is done. Raises InputError when it cannot be written.

    A file that is there is only replaced with `force`, a folder with something in it never.
    """
    path, named = Path(to), to.endswith(("/", os.sep))
    is_file = path.suffix.lower() in FILES and not named
    if not is_file and path.suffix and not named and not path.is_dir():
        raise InputError("--to", to, "FILE.csv, FILE.jsonl or FOLDER/", f"{to}/")
    if is_file and path.is_dir():
        raise InputError("--to", f"{to}, a folder", f"a file, or {to}/", f"{to}/")
    if is_file and link:
        raise InputError("--link", "a file to write", "a folder, as --to sorted/")
    if is_file and not force and os.path.lexists(path):
        raise InputError("--to", f"{to}, a file that is there already", "a new file, or --force", "--force")
    if not is_file and os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
        raise InputError("--to", f"{to}, which is there already", "a new folder")
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir():
        raise InputError("--to", f"{to}, inside {above}, which is a file", "a place in a folder")
    return path


@contextlib.contextmanager
def keeping(
    path: Path, *, classes: Sequence[str], roots: Sequence[Path], top: int = 5, link: bool = False
) -> Iterator[Keep]:
    """Yield what keeps a prediction at `path`; on success all of them are there, on failure none.

    A name that ends in .csv: columns `file`, `class`, `probability`; in .jsonl: `Prediction.to_dict`, with the
    `top` most probable classes; else a folder, with a folder of copies, or symbolic links, for each class.
    There a picture is called as below the one of `roots` in which it was found. Raises WorkError.
    """
    if path.suffix.lower() in FILES:
        with replacing(path) as beside, beside.open("w", encoding="utf-8", errors="backslashreplace") as file:
            yield _csv(csv.writer(file)) if path.suffix.lower() == ".csv" else _jsonl(file.write, top)
    else:
        with replacing_folder(path) as beside:
            yield _Tree(beside, classes, [root for root in roots if root.is_dir()], link=link)


def _csv(writer: Any) -> Keep:
    writer.writerow(("file", "class", "probability"))
    return lambda found: writer.writerow((found.file, found.label, f"{found.probability:.6g}"))


def _jsonl(write: Callable[[str], object], top: int) -> Keep:
    return lambda found: write(json.dumps(found.to_dict(top), allow_nan=False) + "\n")


class _Tree:
    """A folder for each class, with its pictures in it."""

    def __init__(self, folder: Path, classes: Sequence[str], roots: Sequence[Path], *, link: bool) -> None:
        self.folder, self.roots, self.link = folder, roots, link
        self.names = dict(zip(classes, folder_names(classes), strict=True))

    def __call__(self, found: Prediction) -> None:
        source = Path(found.file)
        root = next((root for root in self.roots if source.is_relative_to(root)), source.parent)
        place = self.folder / self.names[found.label] / source.relative_to(root)
        with explained(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            place = _free(place)
            if self.link:
                place.symlink_to(source.absolute())
            else:
                shutil.copy2(source, place)


def folder_names(classes: Sequence[str]) -> list[str]:
    """Return a name fit for a folder for each class: its own where that is one, and no two alike.

    Separators and what else some system forbids become "_"; two that differ only in capitals are one to some.
    """
    names: list[str] = []
    taken: set[str] = set()
    for label in classes:
        plain = re.sub(r'[\x00-\x1f/\\:*?"<>|]', "_", label)[:LONGEST].strip(" .") or "_"
        name, count = plain, 1
        while name.casefold() in taken:
            count += 1
            name = f"{plain} ({count})"
        taken.add(name.casefold())
        names.append(name)
    return names


def _free(place: Path) -> Path:
    """Return `place`, or one beside it where another picture of that name is."""
    free, count = place, 1
    while os.path.lexists(free):
        count += 1
        free = place.with_stem(f"{place.stem} ({count})")
    return free
