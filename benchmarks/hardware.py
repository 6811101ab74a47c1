"""What a benchmark ran on, for the names of its results."""

from __future__ import annotations

import platform
import re

import torch


def graphics() -> str:
    """Return the GPU's name, fit for a file's name."""
    return _word(torch.cuda.get_device_name())


def processor() -> str:
    """Return the processor's name and the best of its units, fit for a file's name."""
    flags = getattr(torch.cpu, "get_capabilities", dict)()
    name = str(flags.get("cpu_name", platform.machine()))
    kind = "amx" if flags.get("amx_bf16") else "avx512" if flags.get("avx512_f") else "avx2"
    return f"{_word(name)}-{kind}"


def _word(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
