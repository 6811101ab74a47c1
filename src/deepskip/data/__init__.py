"""Data: pictures from a folder, a published set or arrays, decoded once, split, augmented and batched.

Importing this costs nothing; each name below loads its file when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepskip.data.arrays import from_arrays
    from deepskip.data.augment import AUGMENTS
    from deepskip.data.batches import Batch, eval_batches, normalise, steps_per_epoch, train_batches
    from deepskip.data.dataset import Dataset, Images, RaggedImages, Split, UniformImages
    from deepskip.data.decode import preprocess_file, read_image
    from deepskip.data.doctor.examination import Examination, examine
    from deepskip.data.doctor.finding import Finding
    from deepskip.data.sources import BUILT_IN
    from deepskip.data.sources import open_dataset as open  # noqa: A004
    from deepskip.data.variation import Variation

__all__ = [
    "AUGMENTS",
    "BUILT_IN",
    "Batch",
    "Dataset",
    "Examination",
    "Finding",
    "Images",
    "RaggedImages",
    "Split",
    "UniformImages",
    "Variation",
    "eval_batches",
    "examine",
    "from_arrays",
    "normalise",
    "open",
    "preprocess_file",
    "read_image",
    "steps_per_epoch",
    "train_batches",
]

_FILES = {
    "arrays": ("from_arrays",),
    "augment": ("AUGMENTS",),
    "batches": ("Batch", "eval_batches", "normalise", "steps_per_epoch", "train_batches"),
    "dataset": ("Dataset", "Images", "RaggedImages", "Split", "UniformImages"),
    "decode": ("preprocess_file", "read_image"),
    "doctor.examination": ("Examination", "examine"),
    "doctor.finding": ("Finding",),
    "sources": ("BUILT_IN", "open_dataset"),
    "variation": ("Variation",),
}


def __getattr__(name: str) -> Any:
    wanted = "open_dataset" if name == "open" else name
    for file, names in _FILES.items():
        if wanted in names:
            value = getattr(importlib.import_module(f"deepskip.data.{file}"), wanted)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
