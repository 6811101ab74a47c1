"""Runs of blocks that a training step keeps only the beginnings of, so that the most it holds is least."""

from __future__ import annotations

from itertools import pairwise

from deepskip.describe.ledger import Ledger, count
from deepskip.describe.spec import Spec

WIDTH = 4  # bytes a value


def segments(spec: Spec) -> tuple[int, ...]:
    """Return how many blocks each segment has, in order, when a step recomputes segment after segment.

    While the backward pass is in a segment, memory holds what all its layers keep and the inputs of the
    segments up to it. The segments are those for which the largest of these sums is least: about √(2n) of n
    equal blocks (Chen et al. 2016, arXiv:1604.06174, §4.1, whose segments are all of one size).
    """
    kept, inputs = _costs(count(spec))
    low, high = max(kept), sum(inputs) + sum(kept)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _split(kept, inputs, middle) else (middle + 1, high)
    starts = _split(kept, inputs, low)
    return tuple(end - start for start, end in pairwise([*starts, len(kept)]))


def recompute_bytes(spec: Spec, images: int) -> int:
    """Return the most that a step which recomputes keeps of activations at once, in bytes (float32)."""
    ledger = count(spec)
    kept, inputs = _costs(ledger)
    peak = held = start = 0
    for size in segments(spec):
        held += inputs[start]
        peak = max(peak, held + sum(kept[start : start + size]))
        start += size
    ends = sum(WIDTH * line.floats + 8 * line.indices for line in (ledger.lines[0], ledger.lines[-1]))
    return images * (peak + ends)


def reversible_bytes(spec: Spec, images: int) -> int:
    """Return the most that a reversible step keeps of activations at once, in bytes (float32).

    That is the input and output of every run of reversible blocks, all of the other blocks, and one reversible
    block's own.
    """
    ledger = count(spec)
    lines = ledger.lines[1:-1]
    fixed = sum(WIDTH * line.floats + 8 * line.indices for line in (ledger.lines[0], ledger.lines[-1]))
    most, before = 0, False
    for site, line in zip(spec.sites(), lines, strict=True):
        if not site.reversible:
            fixed += WIDTH * line.floats
        else:
            most = max(most, WIDTH * line.floats)
            fixed += 0 if before else 2 * WIDTH * line.inputs.values
        before = site.reversible
    return images * (fixed + most)


def _costs(ledger: Ledger) -> tuple[list[int], list[int]]:
    """Return the bytes that each block keeps for one image, and those of its input."""
    lines = ledger.lines[1:-1]
    return [WIDTH * line.floats for line in lines], [WIDTH * line.inputs.values for line in lines]


def _split(kept: list[int], inputs: list[int], bound: int) -> list[int]:
    """Return the first block of every segment, the longest segments within `bound` bytes; none if none are."""
    starts: list[int] = []
    held = inside = 0
    for i, (own, beginning) in enumerate(zip(kept, inputs, strict=True)):
        if not starts or held + inside + own > bound:
            starts.append(i)
            held, inside = held + beginning, 0
            if held + own > bound:
                return []
        inside += own
    return starts
