"""What is in a folder of pictures: its classes, their files, and a split of them that never moves."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from deepskip.data.decode import SUFFIXES
from deepskip.errors import InputError, choices
from deepskip.files import nearest_path
from deepskip.seeds import derive


@dataclass(frozen=True)
class Listing:
    """Picture files below `root`, sorted; each one's class is the first part of its path."""

    root: Path
    files: tuple[str, ...]
    """Paths relative to `root`, with `/`."""
    stamps: tuple[str, ...]
    """Each file's size in bytes and modification time in nanoseconds, so that a change is noticed."""

    def __len__(self) -> int:
        return len(self.files)

    def class_of(self, index: int) -> str:
        """Return the class of file `index`."""
        return self.files[index].partition("/")[0]

    def digest(self) -> str:
        """Return 64 hexadecimal digits that change when a file is added, removed, renamed or touched."""
        digest = hashlib.sha256()
        for file, stamp in zip(self.files, self.stamps, strict=True):
            digest.update(os.fsencode(f"{file}\0{stamp}\0"))
        return digest.hexdigest()


def class_folders(root: Path) -> tuple[str, ...]:
    """Return the names of the folders in `root`, sorted, without hidden ones. Raises InputError."""
    names = sorted(entry.name for entry in _entries(root) if _is_folder(entry))
    for name in names:
        if not name.isprintable():  # it will be written to model files and to terminals
            raise InputError(root, f"a folder named {name!a}", "class names in printable UTF-8")
    return tuple(names)


def list_images(root: Path, classes: tuple[str, ...]) -> Listing:
    """List the pictures of `classes`, in sub-folders too; hidden files and other suffixes are left out.

    Raises InputError when a class has no picture file or a folder cannot be read.
    """
    found = sorted(pair for name in classes for pair in pictures_below(root / name, name))
    counts = Counter(file.partition("/")[0] for file, _ in found)
    for name in classes:
        if not counts[name]:
            raise InputError(
                root / name, "no image file", f"one or more, ending in {' '.join(sorted(SUFFIXES))}"
            )
    return Listing(root, tuple(file for file, _ in found), tuple(stamp for _, stamp in found))


def stratified(listing: Listing, fraction: float = 0.2, seed: int = 0) -> tuple[Listing, Listing]:
    """Split a listing in two, the second with about `fraction` of every class and at least one of two.

    A class's files are ranked by a hash of `seed` and their path: the same files fall on the same side on
    every machine, and few move when others come or go. A class's only file stays in the first part. Raises
    InputError when the second part would be empty.
    """
    by_class: defaultdict[str, list[int]] = defaultdict(list)
    for index in range(len(listing)):
        by_class[listing.class_of(index)].append(index)
    second: set[int] = set()
    for members in by_class.values():
        members.sort(key=lambda index: derive(seed, "split", listing.files[index]))
        second.update(members[: max(round(fraction * len(members)), int(len(members) > 1))])
    if not second:
        raise InputError(
            listing.root, "one image in each class", "more, so that some can be kept for validation"
        )
    first = [index for index in range(len(listing)) if index not in second]
    return _part(listing, first), _part(listing, sorted(second))


def pictures_below(folder: Path, prefix: str) -> list[tuple[str, str]]:
    """Return path, with `prefix` in the place of `folder`, and stamp of every picture in it and its folders."""
    found: list[tuple[str, str]] = []
    seen: set[tuple[int, int]] = set()
    waiting = [(folder, prefix)]
    while waiting:
        folder, prefix = waiting.pop()
        identity = os.stat(folder)
        if (identity.st_dev, identity.st_ino) in seen:  # a link that leads back up
            continue
        seen.add((identity.st_dev, identity.st_ino))
        for entry in _entries(folder):
            name = f"{prefix}/{entry.name}"
            if _is_folder(entry):
                waiting.append((folder / entry.name, name))
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES and _is_file_or_link(entry):
                found.append((name, _stamp(entry)))
    return found


def find_pictures(
    paths: Iterable[Path | str], skipped: Callable[[InputError], None] | None = None
) -> Iterator[Path]:
    """Return the pictures that `paths` name: files as they are, folders searched through, names in order.

    One folder is read at a time, so there may be any number of pictures; hidden names and other endings are
    left out. Raises InputError at once for a path that does not exist and for a folder without pictures; a
    folder further down that cannot be read raises it in its turn, or is told to `skipped` and left out.
    """
    given = [Path(path) for path in paths]
    for path in given:
        if not os.path.lexists(path):
            near = nearest_path(path, lambda other: other.is_dir() or other.suffix.lower() in SUFFIXES)
            raise InputError(path, "no such file or folder", "pictures, or folders of pictures", near)
        if path.is_dir() and next(_walk(path, lambda error: None), None) is None:
            _entries(path)  # says why, where it cannot be read
            raise InputError(
                path, "a folder without pictures", f"files that end in {choices(sorted(SUFFIXES))}"
            )
    return (file for path in given for file in (_walk(path, skipped) if path.is_dir() else (path,)))


def _walk(root: Path, skipped: Callable[[InputError], None] | None) -> Iterator[Path]:
    seen: set[tuple[int, int]] = set()

    def entries(folder: Path) -> Iterator[os.DirEntry[str]]:
        try:
            found = _entries(folder)
        except InputError as error:
            if skipped is None:
                raise
            skipped(error)
            return iter(())
        identity = os.stat(folder)
        again = (identity.st_dev, identity.st_ino) in seen  # a link that leads back up
        seen.add((identity.st_dev, identity.st_ino))
        return iter(() if again else found)

    open_folders = [entries(root)]  # not by recursion: folders may lie deeper than Python's stack is
    while open_folders:
        entry = next(open_folders[-1], None)
        if entry is None:
            open_folders.pop()
        elif _is_folder(entry):
            open_folders.append(entries(Path(entry.path)))
        elif os.path.splitext(entry.name)[1].lower() in SUFFIXES and _is_file_or_link(entry):
            yield Path(entry.path)


def _part(listing: Listing, members: list[int]) -> Listing:
    return Listing(
        listing.root,
        tuple(listing.files[index] for index in members),
        tuple(listing.stamps[index] for index in members),
    )


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(
            folder, (error.strerror or "unreadable").lower(), "a folder that can be read"
        ) from error
    return sorted(visible, key=lambda entry: entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file_or_link(entry: os.DirEntry[str]) -> bool:
    # A dangling link is listed, to be reported as broken; a pipe or a socket is not a picture at all.
    return entry.is_symlink() or entry.is_file()


def _stamp(entry: os.DirEntry[str]) -> str:
    try:
        status = entry.stat()
    except OSError:
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"
