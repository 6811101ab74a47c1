"""Files that are whole or not there: written beside, flushed to the disk, then renamed into place."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from deepskip.errors import InputError, WorkError, nearest

COMPARED = 10_000  # names, at most, that one that is not there is compared with


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write a file to; on success it takes `path`'s place in one step.

    On any failure what was at `path` before is untouched and the half-written file is gone. Raises WorkError
    when the operating system refuses (disk full, no permission).
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield beside
            beside.chmod(0o666 & ~_umask())  # as a file that was simply opened, whoever wrote it
            with beside.open("r+b") as file:
                os.fsync(file.fileno())
            beside.replace(path)
            _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; on success it becomes `path`, unless another process was first."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
        beside.chmod(0o777 & ~_umask())
    try:
        with explained(path):
            yield beside
            try:
                beside.replace(path)
            except OSError:
                if not path.exists():
                    raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what a killed process of ours left half-written in `folder`."""
    for path in folder.glob(".*.part"):
        with contextlib.suppress(OSError):
            path.unlink()


def _sync_folder(folder: Path) -> None:
    """Let the renaming itself reach the disk, where the system can do that."""
    if hasattr(os, "O_DIRECTORY"):
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write at `path` into a WorkError that names it."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error) or type(error).__name__).lower()
        raise WorkError(path, reason, "a place that can be written, with room left") from error


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write `value` to `path` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> object:
    """Read the JSON at `path`. Raises InputError when it is missing or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(path, f"no JSON ({type(error).__name__})", "a file this program wrote") from error


def nearest_path(path: Path, wanted: Callable[[Path], bool]) -> Path | None:
    """Return the `wanted` path most like `path`, which is not there; None when none is close.

    They differ in one name: the first, from the left, that is not there. Of a folder of very many some are
    compared, since an answer should come at once.
    """
    try:
        first = path
        while not first.parent.exists():
            first = first.parent
        rest = path.relative_to(first)
        entries = itertools.islice(first.parent.iterdir(), COMPARED)
        beside = {entry.name: entry / rest for entry in entries if wanted(entry / rest)}
    except (OSError, ValueError):  # no folder, or none that may be read
        return None
    found = nearest(first.name, beside)
    return None if found is None else beside[found]
