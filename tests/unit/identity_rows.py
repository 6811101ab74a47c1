"""Rows as an identity study makes them, for what draws and prints them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

STARTS = (
    ("residual", "kept"),
    ("residual", "silent"),
    ("plain", "kept"),
    ("plain", "fresh"),
    ("plain", "delta"),
    ("plain", "zero"),
)
Became = Callable[[str, str, int], str]


def identity_rows(
    depths: Sequence[int] = (8, 20, 56),
    *,
    seeds: int = 3,
    blocks: int = 18,
    became: Became = lambda twin, start, seed: "ok",
) -> list[dict[str, Any]]:
    """Return a study whose first depth is grown; ratios fall with depth and with the place of the block."""
    twins = [("residual", depth) for depth in depths] + [("plain", depths[0])]
    first = [_first(twin, depth, seed) for (twin, depth), seed in itertools.product(twins, range(seeds))]
    then = [
        _then(twin, start, seed, depths[0], blocks, became(twin, start, seed))
        for (twin, start), seed in itertools.product(STARTS, range(seeds))
    ]
    return first + then


def _row(kind: str, depth: int, seed: int, begin: float | None, end: float | None) -> dict[str, Any]:
    """Return a row whose validation error goes from `begin` to `end`, its training error two points below."""
    return {
        "study": "identity",
        "kind": kind,
        "depth": depth,
        "seed": seed,
        "params": 78042,
        "val_scored_start": begin,
        "train_scored_start": begin and begin - 2,
        "val_scored_end": end,
        "train_scored_end": end and end - 2,
        "seconds": 61.0,
    }


def _first(twin: str, depth: int, seed: int) -> dict[str, Any]:
    untrained, trained = (
        [(1 + seed / 9) * (8 / depth) ** power / (1 + i) ** 0.3 for i in range(depth // 2)]
        for power in (0.2, 0.7)
    )
    ratios = {"ratio_start": untrained, "ratio_end": trained if twin == "residual" else [None] * (depth // 2)}
    own = {"twin": twin, "start": None, "blocks": 0, "status": "ok", "hash": f"{twin}{depth}{seed}"}
    return _row(twin, depth, seed, 90.0, 3.0 + seed) | ratios | own


def _then(twin: str, start: str, seed: int, depth: int, blocks: int, became: str) -> dict[str, Any]:
    good, new = start in ("kept", "silent", "delta"), 0 if start == "kept" else blocks
    begin = None if became == "impossible" else 3.0 + seed if good else 90.0
    end = None if became != "ok" else 2.5 + seed if good else 55.0 + 9 * seed
    put = new > 0 and begin is not None
    own = {
        "twin": twin,
        "start": start,
        "blocks": new,
        "layers_before": depth,
        "begins": f"{twin}{depth}{seed}",
        "status": became,
        "hash": f"{twin}{start}{seed}",
        "images": 360 if put else None,
        "same_outputs": (360 if good else 0) if put else None,
        "output_change": (0.0 if good else 2.5) if put else None,
        "new_equal": (blocks if good else 0) if put else None,
    }
    reason = {} if became == "ok" else {"reason": f"it was {became}"}
    return _row(f"{twin} {start}", depth + 2 * new, seed, begin, end) | own | reason
