"""Networks on disk: our model file, with its Spec in the header, and foreign checkpoints.

Importing this costs nothing; each name below loads its file when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepskip.weights import adapters as adapters
    from deepskip.weights.foreign import load_foreign, read_tensors
    from deepskip.weights.store import Header, load, read_header, save

__all__ = ["Header", "adapters", "load", "load_foreign", "read_header", "read_tensors", "save"]

_FILES = {
    "foreign": ("load_foreign", "read_tensors"),
    "store": ("Header", "load", "read_header", "save"),
}


def __getattr__(name: str) -> Any:
    if name == "adapters":
        return importlib.import_module("deepskip.weights.adapters")
    for file, names in _FILES.items():
        if name in names:
            return getattr(importlib.import_module(f"deepskip.weights.{file}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
