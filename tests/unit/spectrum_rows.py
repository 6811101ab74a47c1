"""Rows as a spectrum study makes them, for what draws, prints and judges them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

DEPTHS = (5, 8, 14, 20, 32, 56, 110, 218, 434)
HE: dict[str, int] = {"nothing": 8, "initial": 14, "norm": 20, "skips": 56, "identity": 434}
"""How deep each ingredient reaches in rows that reproduce the order."""
SLOPES = {"nothing": -0.4, "initial": -0.05, "norm": 0.08, "skips": 0.004, "identity": 0.002}
"""Powers of ten that a gradient gains a layer on its way to the first block."""
Became = Callable[[str, int, int], str]


def spectrum_rows(
    reach: Mapping[str, int] = HE,
    depths: Sequence[int] = DEPTHS,
    *,
    seeds: int = 1,
    became: Became = lambda kind, depth, seed: "ok",
) -> list[dict[str, Any]]:
    """Return a study whose nets err on 2% as deep as their ingredient reaches, and on 80% past it.

    Each seed errs half a point more than the one before.
    """
    return [
        _row(kind, depth, seed, 2.0 if depth <= far else 80.0, became(kind, depth, seed))
        for (kind, far), depth, seed in itertools.product(reach.items(), depths, range(seeds))
    ]


def _row(kind: str, depth: int, seed: int, error: float, became: str) -> dict[str, Any]:
    ok, began = became == "ok", became in ("ok", "diverged")
    far = min(SLOPES[kind] * depth, 38.0)
    first = 10**far if far > -38 else 0.0  # as float32 has it
    return {
        "study": "spectrum",
        "kind": kind,
        "depth": depth,
        "seed": seed,
        "params": 78042,
        "train_loss": 0.1 if ok else None,
        "train_error": error + seed / 2 if ok else None,
        "val_error": error + 1 + seed / 2 if ok else None,
        "grad_first_start": first * 0.5 if began else None,
        "grad_last_start": 0.5 if began else None,
        "rms_first_start": 1.0 if began else None,
        "rms_last_start": 10 ** max(far / 4, -30) if began else None,
        "grad_first_end": 0.02 if ok else None,
        "grad_last_end": 0.01 if ok else None,
        "rms_first_end": 1.0 if ok else None,
        "rms_last_end": 3.0 if ok else None,
        "seconds": 61.0,
        "status": became,
        **({} if ok else {"reason": f"it was {became}"}),
        "hash": f"{kind}{depth}{seed}",
    }
