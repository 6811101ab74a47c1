"""Randomness as an argument: a seed for every use, derived from what it is for and from nothing else."""

from __future__ import annotations

import hashlib


def derive(*purpose: int | str) -> int:
    """Return a 63-bit seed that depends on `purpose` alone: the run's seed and the names of what it is for.

    Equal on every machine and Python version, and unrelated for purposes that differ in any part, so that
    streams (`derive(seed, "shuffle", epoch)`, `derive(seed, "initial", name)`) never share numbers.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in purpose)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
