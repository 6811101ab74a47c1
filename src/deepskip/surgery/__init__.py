"""A network in, a new network with a new Spec out. Importing this costs nothing."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepskip.surgery.growing import STARTS, grow, grown

__all__ = ["STARTS", "grow", "grown"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("deepskip.surgery.growing"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
