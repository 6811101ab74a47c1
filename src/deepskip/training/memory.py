"""What a training step needs of a device's memory, and what is there, before hours are spent on it."""

from __future__ import annotations

import psutil
import torch

from deepskip.describe.ledger import count
from deepskip.describe.spec import Spec
from deepskip.errors import ImpossibleError, InputError, MemoryLostError, TooLargeError, choices, nearest
from deepskip.training.precision import Precision
from deepskip.training.segments import recompute_bytes, reversible_bytes
from deepskip.training.way import Memory, Way

MODES = ("auto", "store", "recompute", "reversible")
ROOM = 1.25  # "auto" leaves a quarter of what it counts to the kernels, and as much of the free memory
WEIGHT_BYTES = 12  # a parameter, its gradient and its momentum, in float32


def free_bytes(device: torch.device) -> int:
    """Return how much memory of `device` this process could still take, in bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    return int(psutil.virtual_memory().available)


def at_once(batch: int, images: int, accumulate: int, ranks: int) -> int:
    """Return how many of `images` a process computes at once."""
    return -(-min(batch, images) // (accumulate * ranks))


def choose(spec: Spec, images: int, wanted: str, precision: Precision, device: torch.device) -> Memory:
    """Return what a step of `images` images is to keep: `wanted`, or with "auto" the fastest that fits.

    Storing is faster than recomputing, and that than reversing. Raises InputError for an unknown word, and
    ImpossibleError for what the net cannot do.
    """
    if wanted not in MODES:
        raise InputError("--memory", repr(wanted), choices(MODES), nearest(wanted, MODES))
    if wanted == "auto":
        free = free_bytes(device)
        for memory in _possible(spec):
            if needed_bytes(spec, images, Way(precision=precision, memory=memory)) * ROOM <= free:
                return memory
        return "store"
    if wanted == "reversible" and wanted not in _possible(spec):
        got = f"reversible for {spec.name}, " + (
            "a plain net, which has nothing to reverse" if spec.is_plain else "whose blocks have no inverse"
        )
        raise ImpossibleError("--memory", got, "a reversible net (revnet_cifar), or recompute", "recompute")
    found = next((memory for memory in _possible(spec) if memory == wanted), None)
    if found is None:
        raise ImpossibleError("--memory", f"{wanted} for a net of one block", "store", "store")
    return found


def _possible(spec: Spec) -> list[Memory]:
    """Return what a net can do, the fastest first."""
    sites = list(spec.sites())
    modes: list[Memory] = ["store"]
    modes += ["recompute"] if len(sites) > 1 else []
    modes += ["reversible"] if any(site.reversible for site in sites) else []
    return modes


def needed_bytes(spec: Spec, images: int, way: Way) -> int:
    """Return the least that a training step on `images` images keeps at once, in bytes.

    From the ledger: the activations that the backward pass reads, and weights, gradients and momentum. What the
    kernels use meanwhile comes on top. In half precision activations take half, which is exact for convolutions
    and low for what stays float32.
    """
    cost = count(spec)
    share = 1 if way.precision == "float32" else 2
    if way.memory == "recompute":
        kept = recompute_bytes(spec, images) // share
    elif way.memory == "reversible":
        kept = reversible_bytes(spec, images)  # float32 in any precision
    else:
        kept = cost.activation_bytes(images) // share
        # A recording has memory of its own, and some steps are not replayed.
        kept *= 2 if way.replay else 1
    return kept + WEIGHT_BYTES * cost.params


def largest_batch(spec: Spec, free: int, way: Way) -> int:
    """Return the most images whose step keeps no more than `free` bytes; 0 when not even one fits."""
    fixed = needed_bytes(spec, 0, way)
    each = needed_bytes(spec, 1, way) - fixed
    return max(0, (free - fixed) // each)


def check(spec: Spec, images: int, way: Way, device: torch.device) -> None:
    """Refuse a step that cannot fit. Raises TooLargeError, naming the batch that would."""
    free = free_bytes(device)
    needed = needed_bytes(spec, images, way)
    if needed > free:
        most = largest_batch(spec, free, way)
        sparing = [memory for memory in _possible(spec) if memory != way.memory]
        fits = [m for m in sparing if needed_bytes(spec, images, way.keeping(m)) < free]
        raise TooLargeError(
            "batch",
            f"{images} images at once, which need {_size(needed)}",
            f"at most {most} in the {_size(free)} that are free",
            "".join(f"--memory {memory}, or " for memory in fits[:1])
            + f"--batch {most}, or --set accumulate={-(-images // max(1, most))}",
        )


def ran_out(spec: Spec, images: int, way: Way, device: torch.device, where: str) -> MemoryLostError:
    """Return the error of a step that ran out of memory, naming a batch that should fit."""
    most = min(largest_batch(spec, free_bytes(device), way), images // 2)
    return MemoryLostError(
        where,
        f"no memory left for {images} images at once",
        "fewer of them, --memory recompute, a smaller net; what was saved is kept, --resume goes on from it",
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
