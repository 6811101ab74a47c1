"""A built-in data set's files: a copy on this machine, or one downloaded now and checked by SHA-256."""

from __future__ import annotations

import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepskip.data.dataset import Progress
from deepskip.data.layouts import Arrays
from deepskip.data.published import Download, Layout, Part, Published
from deepskip.data.store import data_folder
from deepskip.errors import InputError, WorkError
from deepskip.files import explained, replacing_folder


@dataclass(frozen=True)
class Copy:
    """A data set's files, found; their content has not been looked at."""

    known: Published
    layout: Layout
    files: dict[Part, tuple[Path, ...]]

    def read(self, part: Part) -> Arrays:
        """Return one split's pixels, uint8 [n, h, w, c], and labels, int64 [n]. Raises InputError."""
        classes, total = len(self.known.classes), self.known.pictures[part]
        arrays: Arrays = self.layout.read(self.files[part], total=total, classes=classes)
        return arrays


def find_copy(known: Published, progress: Progress | None = None) -> Copy:
    """Return the copy of a data set under the data folder, downloading it first when there is none.

    Raises InputError when a folder of that name is there but not all of its files, WorkError when the
    download fails; then nothing is left behind.
    """
    root = data_folder()
    copy = _local(known, root)
    if copy is None:
        _download(known, root, progress)
        copy = _local(known, root)
        if copy is None:
            raise WorkError(
                _home(known, root), "other files than expected after a download", "the original files"
            )
    return copy


def _home(known: Published, root: Path) -> Path:
    return root / known.layouts[0].folders[0]


def _local(known: Published, root: Path) -> Copy | None:
    """Return the first complete copy. Raises InputError when there are only incomplete ones."""
    missing: Path | None = None
    for layout in known.layouts:
        for name in layout.folders:
            folder = root / name
            files = {
                part: tuple(_present(folder / file) for file in layout.files[part]) for part in layout.files
            }
            absent = next((path for paths in files.values() for path in paths if not path.is_file()), None)
            if absent is None:
                return Copy(known, layout, files)
            if name and missing is None and folder.is_dir():
                missing = absent
    if missing is not None:
        raise InputError(missing, "no such file", f"all files of {missing.parent.name}, or no such folder")
    return None


def _present(path: Path) -> Path:
    zipped = path.with_name(path.name + ".gz")
    return zipped if zipped.is_file() and not path.is_file() else path


def _download(known: Published, root: Path, progress: Progress | None) -> None:
    home = _home(known, root)
    wanted = {file for files in known.layouts[0].files.values() for file in files}
    with replacing_folder(home) as beside:
        for download in known.downloads:
            path = beside / download.name
            _fetch(download, path, home, progress)
            if path.name.endswith(".tar.gz"):
                _unpack(path, wanted, beside)
                path.unlink()


def _fetch(download: Download, path: Path, home: Path, progress: Progress | None) -> None:
    """Download to `path`. Raises WorkError, saying where a local copy would be looked for."""
    import pooch
    import requests

    bar = _Bar(f"downloading {download.name}", progress)
    fetch = pooch.HTTPDownloader(progressbar=bar, chunk_size=_Bar.CHUNK)
    allowed = f"a network connection, or a copy of the files in {home}"
    try:
        fetch(download.url, str(path), None)
    except requests.RequestException as error:
        reason = f"no download ({type(error).__name__})"
        if error.response is not None:
            error.response.close()
            reason = f"no download (status {error.response.status_code})"
        raise WorkError(download.url, reason, allowed) from error
    found = pooch.file_hash(str(path))
    if found != download.sha256:
        raise WorkError(
            download.url, f"a file with SHA-256 {found}", f"SHA-256 {download.sha256}; or {allowed}"
        )


def _unpack(archive: Path, wanted: set[str], folder: Path) -> None:
    # Only plain files of known names are taken out, so nothing in the archive can say where it goes.
    with explained(folder), tarfile.open(archive) as tar:
        for member in tar:
            name = member.name.rpartition("/")[2]
            content = tar.extractfile(member) if member.isfile() and name in wanted else None
            if content is not None:
                with (folder / name).open("wb") as out:
                    shutil.copyfileobj(content, out)


class _Bar:
    """The progress bar that pooch asks for, passing on to a progress callback."""

    CHUNK = 1 << 18

    def __init__(self, what: str, progress: Progress | None) -> None:
        self.what, self.progress = what, progress
        self.total = self.done = 0

    def update(self, amount: int) -> None:
        # Pooch adds whole chunks, then starts again and adds the true total.
        self.done = min(self.done + amount, self.total) if self.total else self.done + amount
        if self.progress is not None:
            self.progress(self.what, self.done, max(self.total, self.done))

    def reset(self) -> None:
        self.done = 0

    def close(self) -> Any:
        """Nothing is held open."""
