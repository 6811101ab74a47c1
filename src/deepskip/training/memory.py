"""What a training step needs of a device's memory, and what is there, before hours are spent on it."""

from __future__ import annotations

import psutil
import torch

from deepskip.describe.ledger import count
from deepskip.describe.spec import Spec
from deepskip.errors import InputError, WorkError

WEIGHT_BYTES = 12  # a parameter, its gradient and its momentum, in float32


def free_bytes(device: torch.device) -> int:
    """Return how much memory of `device` this process could still take, in bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    return int(psutil.virtual_memory().available)


def needed_bytes(spec: Spec, images: int, precision: str) -> int:
    """Return the least that a training step on `images` images keeps at once, in bytes.

    From the ledger: the activations that the backward pass reads, and weights, gradients and momentum. What the
    kernels use meanwhile comes on top. In half precision activations take half, which is exact for convolutions
    and low for what stays float32.
    """
    cost = count(spec)
    share = 1 if precision == "float32" else 2
    return cost.activation_bytes(images) // share + WEIGHT_BYTES * cost.params


def largest_batch(spec: Spec, free: int, precision: str) -> int:
    """Return the most images whose step keeps no more than `free` bytes; 0 when not even one fits."""
    fixed = needed_bytes(spec, 0, precision)
    each = needed_bytes(spec, 1, precision) - fixed
    return max(0, (free - fixed) // each)


def check(spec: Spec, images: int, precision: str, device: torch.device) -> None:
    """Refuse a step that cannot fit. Raises InputError, naming the batch that would."""
    free = free_bytes(device)
    needed = needed_bytes(spec, images, precision)
    if needed > free:
        most = largest_batch(spec, free, precision)
        raise InputError(
            "batch",
            f"{images} images at once, which need {_size(needed)}",
            f"at most {most} in the {_size(free)} that are free",
            f"--batch {most}, or --set accumulate={-(-images // max(1, most))}",
        )


def ran_out(spec: Spec, images: int, precision: str, device: torch.device, where: str) -> WorkError:
    """Return the error of a step that ran out of memory, naming a batch that should fit."""
    most = min(largest_batch(spec, free_bytes(device), precision), images // 2)
    return WorkError(
        where,
        f"no memory left for {images} images at once",
        "fewer of them, or a smaller net; what was saved is kept, and --resume goes on from it",
        f"--batch {max(1, most)}, or --set accumulate={-(-images // max(1, most))}",
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` is PyTorch's way, or Python's, of saying that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "not enough memory" in text)


def _size(value: float) -> str:
    return f"{value / 2**30:.1f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"
