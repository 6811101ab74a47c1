"""Which device a run uses, which numbers, and how many threads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import torch

from deepskip.errors import InputError, choices, nearest

Precision = Literal["float32", "bf16", "fp16"]
PRECISIONS = ("auto", "float32", "bf16", "fp16")
SMALL = 16  # below 16 × 16 pixels casting costs more than the arithmetic it saves
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(wanted: str) -> torch.device:
    """Return the device called `wanted`; "auto" is CUDA where there is one. Raises InputError."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    available = ["cpu", *(["cuda"] if gpus else [])]
    try:
        device = torch.device(wanted)
    except RuntimeError:
        device = None
    count = {"cpu": 1, "cuda": gpus}.get(device.type, 0) if device else 0
    if device is None or (device.index or 0) >= count:
        asked = device is not None and device.type == "cuda"
        here = {0: "no GPU", 1: "one GPU"}.get(gpus, f"{gpus} GPUs")
        got = f"{wanted!r}, and PyTorch finds {here} here" if asked else repr(wanted)
        near = available[-1] if asked else nearest(wanted, available)
        raise InputError("--device", got, choices(["auto", *available]), near)
    return device


def choose_precision(wanted: str, device: torch.device, size: int) -> Precision:
    """Return the numbers to compute in; "auto" is half precision where it is fast and images are large enough.

    That is bf16, or on a GPU without it fp16, whose gradients are scaled lest they vanish. Weights, their
    updates and every score stay float32. Raises InputError.
    """
    if wanted not in PRECISIONS:
        raise InputError("--precision", repr(wanted), choices(PRECISIONS), nearest(wanted, PRECISIONS))
    if wanted == "auto":
        if size < SMALL:
            return "float32"
        return "bf16" if has_bf16(device) else "fp16" if device.type == "cuda" else "float32"
    if wanted == "fp16":
        if device.type != "cuda":
            raise InputError("--precision", "fp16 on a processor", "fp16 on a GPU, bf16, float32", "bf16")
        return "fp16"
    return "bf16" if wanted == "bf16" else "float32"


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return the context in which a forward pass runs in `precision`."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_TYPES[precision])


@contextlib.contextmanager
def without_denormals(device: torch.device) -> Iterator[None]:
    """Take numbers nearer to 0 than float32's smallest normal one, 1.2e-38, as 0 in the block.

    What vanishes in a very deep plain net passes through them, at many times the cost of other numbers. On a
    processor a flag does it, one for each thread, and the threads of a pool keep the flag they began with: with
    several of them the last bits would depend on what ran before, so only one thread alone is changed.
    """
    if device.type != "cpu" or torch.get_num_threads() > 1:
        yield
        return
    smallest = torch.tensor(torch.finfo(torch.float32).tiny)
    before = float(smallest / 2) == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@contextlib.contextmanager
def computing_with(threads: int | None) -> Iterator[None]:
    """Let PyTorch use `threads` threads in the block; as many as it has with None.

    What a processor computes depends on them in the last digits: sums are taken in another order.
    """
    if threads is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def make_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """Return what keeps fp16 gradients from vanishing (Micikevicius et al. 2018, arXiv:1710.03740, §3.2).

    It does nothing in other precisions.
    """
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


def cpu_capabilities() -> dict[str, Any]:
    """Return what PyTorch knows of the processor; nothing before the release that tells it."""
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return found


def has_bf16(device: torch.device) -> bool:
    """Return whether `device` computes in bf16 by itself; emulated it is far slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    flags = cpu_capabilities()
    return bool(flags.get("avx512_bf16") or flags.get("amx_bf16") or flags.get("bf16"))
