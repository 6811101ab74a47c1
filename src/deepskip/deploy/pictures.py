"""Real pictures to try an exported net on, or to measure it with, as a model sees them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepskip.data.augment import none
from deepskip.data.dataset import Dataset, Split
from deepskip.data.decode import preprocess_file
from deepskip.data.listing import find_pictures
from deepskip.data.published import PUBLISHED
from deepskip.data.sources import folder_of
from deepskip.deploy.runner import Pixels
from deepskip.errors import InputError
from deepskip.model import Model
from deepskip.seeds import derive


def shown(
    model: Model,
    data: str | Path | None,
    most: int,
    *,
    broken: Callable[[InputError], None] = lambda error: None,
    progress: Any = None,
) -> Pixels:
    """Return up to `most` pictures [n, h, w, c] of `data`, spread evenly over it.

    `data` is a folder of pictures, of whatever layout, or a built-in name, whose validation images they are;
    None is the data that the model was trained on, where that is built in. `broken` hears of files that cannot
    be read. Raises InputError.
    """
    if most < 1:
        raise InputError("images", most, "a whole number from 1", 1)
    source = trained_on(model) if data is None else data
    folder = folder_of(source)
    if folder is None:
        return spread(model.open(source, progress=progress).val, most)
    files = list(find_pictures([folder]))
    found = []
    for file in (files[i] for i in even(len(files), most)):
        try:
            found.append(preprocess_file(file, model.preprocessing))
        except InputError as error:
            broken(error)
    if not found:
        raise InputError(folder, "no readable picture", "at least one")
    return np.stack(found)


def trained_on(model: Model) -> str:
    """Return the built-in data set that the model was trained on. Raises InputError when there is none."""
    said = model.header.provenance.get("data")
    name = said.get("name") if isinstance(said, dict) else None
    if name in PUBLISHED:
        return str(name)
    allowed = "a data set or a folder of pictures: what is exported is compared on real ones"
    raise InputError("--data", "nothing, and the model's own data is not built in", allowed)


def spread(split: Split, most: int) -> Pixels:
    """Return up to `most` pictures of a split, spread evenly over it, as final inputs."""
    return gathered(split, torch.tensor(even(len(split), most)))


def drawn(data: Dataset, most: int, seed: int) -> Pixels:
    """Return up to `most` training pictures of `data`, drawn by `seed`, as evaluation sees them."""
    generator = torch.Generator().manual_seed(derive("calibration", seed))
    order = torch.randperm(len(data.train), generator=generator)[:most]
    return gathered(data.train, order)


def gathered(split: Split, indices: torch.Tensor) -> Pixels:
    """Return the pictures at `indices`, int64 [n], as final inputs. Raises InputError when there are none."""
    if not len(indices):
        raise InputError("data", "no readable image", "at least one")
    assert split.preprocessing is not None  # a data set's own splits know it
    pixels: Pixels = none(split.images, indices, split.preprocessing, torch.Generator()).numpy()
    return pixels


def even(total: int, most: int) -> list[int]:
    """Return up to `most` of `total` indices, spread evenly."""
    count = min(total, most)
    return [i * total // count for i in range(count)]
