"""A network in, a new network with a new Spec out. Importing this costs nothing."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepskip.surgery.folding import fold, folded
    from deepskip.surgery.growing import STARTS, grow, grown

__all__ = ["STARTS", "fold", "folded", "grow", "grown"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        file = "folding" if name.startswith("fold") else "growing"
        return getattr(importlib.import_module(f"deepskip.surgery.{file}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
