"""Open a data set by what the user calls it: a built-in name or a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from deepskip.data.builtin import open_built_in
from deepskip.data.dataset import Dataset, Progress
from deepskip.data.folder import open_folder
from deepskip.data.published import PUBLISHED
from deepskip.describe.preprocessing import Preprocessing
from deepskip.errors import InputError, nearest

BUILT_IN = tuple(PUBLISHED)
"""Names that need no folder."""


def open_dataset(
    source: str | Path,
    *,
    size: int | None = None,
    preprocessing: Preprocessing | None = None,
    classes: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Return the data set that `source` names: one of `BUILT_IN`, else a folder of pictures.

    `size` is the input's height and width in pixels; a folder's is chosen from its pictures when not given.
    `preprocessing` and `classes` are an existing model's, to be used exactly: the data's classes must be
    among them and labels are indices into them. `progress(what, done, total)` hears of
    decoding and downloading. Splits are read when first asked for.

    Raises InputError when `source` is neither, or unusable; WorkError when a download or a write fails.
    """
    chosen = None if classes is None else tuple(classes)
    if isinstance(source, str) and source in PUBLISHED:
        own = PUBLISHED[source].size
        if size not in (None, own):
            raise InputError(f"{source}: size", size, f"{own}, its pictures' own", own)
        return open_built_in(source, preprocessing=preprocessing, classes=chosen, progress=progress)
    path = folder_of(source)
    assert path is not None  # the built-in names have been dealt with
    return open_folder(path, size=size, preprocessing=preprocessing, classes=chosen, progress=progress)


def folder_of(source: str | Path) -> Path | None:
    """Return the folder that `source` names, None for a built-in name. Raises InputError when it is neither."""
    if isinstance(source, str) and source in PUBLISHED:
        return None
    path = Path(source).expanduser()
    if not os.path.isdir(path):  # unlike Path.is_dir, never raises
        got = "a file" if os.path.isfile(path) else "neither a built-in name nor a folder"
        raise InputError(repr(str(source)), got, f"{', '.join(BUILT_IN)}, or a folder of images", _near(path))
    return path


def _near(path: Path) -> str | None:
    """Return the built-in name or the folder beside `path` that is spelled most like it."""
    try:
        siblings = [entry.name for entry in path.parent.iterdir() if os.path.isdir(entry)]
    except (OSError, ValueError):
        siblings = []
    here = str(path) == path.name
    found = nearest(path.name, [*siblings, *(BUILT_IN if here else ())])
    return found if found is None or found in BUILT_IN else str(path.with_name(found))
