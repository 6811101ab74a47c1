"""What every test finds in torch and has to leave so: other tests compute in the same process afterwards."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.backends import mkldnn

HELD: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "threads": (torch.get_num_threads, torch.set_num_threads),
    # Asked of the processor itself: torch tells it, and never what it has told.
    "numbers below normal ones taken as zero": (lambda: sys.float_info.min / 2 == 0, torch.set_flush_denormal),
    "deterministic algorithms": (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    "default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "gradients": (torch.is_grad_enabled, torch.set_grad_enabled),
    "precision of matrix products": (
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
    "mkldnn": (lambda: mkldnn.enabled, partial(setattr, mkldnn, "enabled")),
    "mkldnn, deterministic": (lambda: mkldnn.deterministic, partial(setattr, mkldnn, "deterministic")),
}
"""How each is read and set."""

torch.set_num_threads(1)  # many small networks
# And in processes that tests start: two threads that have one free core between them wait by spinning.
os.environ["OMP_NUM_THREADS"] = "1"
FOUND = {name: read() for name, (read, _) in HELD.items()}


def left() -> str:
    """Return what is not as it was found, in words; nothing where all is. Afterwards all is again."""
    words = []
    for name, (read, give_back) in HELD.items():
        if (now := read()) != FOUND[name]:
            words.append(f"{name}: {now}, found {FOUND[name]}")
            give_back(FOUND[name])
    return "; ".join(words)
