"""Name tables from and to the checkpoints of torchvision, timm, transformers and the published CIFAR nets.

Both directions are one table: `names(spec, source)` maps our keys to theirs, one to one. Importing this costs
nothing; each name below loads its file when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepskip.weights.adapters.translate import (
        SOURCES,
        Source,
        detect,
        from_foreign,
        names,
        shapes,
        to_foreign,
    )

__all__ = ["SOURCES", "Source", "detect", "from_foreign", "names", "shapes", "to_foreign"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("deepskip.weights.adapters.translate"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
