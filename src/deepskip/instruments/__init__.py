"""What a trained network does, measured: each instrument has one `measure` that returns rows."""

from __future__ import annotations

import importlib
from types import ModuleType

_NAMES = (
    "calibration",
    "ends",
    "gradient",
    "identity",
    "images",
    "insertion",
    "inspection",
    "landscape",
    "lens",
    "lesion",
    "paths",
    "saliency",
    "signal",
    "summary",
    "taps",
)


def __getattr__(name: str) -> ModuleType:
    if name in _NAMES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
