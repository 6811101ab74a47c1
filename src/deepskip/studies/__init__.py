"""Grids of trainings and what they show. A study owns no measurement and no drawing."""

from __future__ import annotations

import importlib
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    if name in ("argument", "cluster", "depth", "grid", "identity", "reach", "spectrum", "verdict"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
