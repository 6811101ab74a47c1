"""States in few pieces: all tensors of a nested dict in one buffer a type, and the rest as JSON.

A file of PyTorch's has a record for every tensor, which takes longer to find than to read: of a net of
thousands of blocks half a minute.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import torch
from torch import Tensor

from deepskip.errors import InputError

TREE = "tree"
AT_ONCE = 2**28  # bytes, about, that are joined on a GPU before they leave it


def pack(state: dict[str, Any]) -> dict[str, Any]:
    """Return `state` as its "tree", JSON, and a flat tensor for each type of its tensors, on the processor.

    `state` is of dicts, lists, tuples, tensors, strings, numbers and None. `unpack` gives it back equal, every
    tensor in its own order in memory.
    """
    flat: dict[str, list[Tensor]] = {}
    ends: dict[str, int] = {}
    tree = json.dumps(_written(state, flat, ends), separators=(",", ":"))
    return {TREE: tree, **{name: _joined(parts) for name, parts in flat.items()}}


def unpack(packed: dict[str, Any]) -> dict[str, Any]:
    """Return what was packed. Raises InputError for what `pack` did not make."""
    try:
        state = _read(json.loads(packed[TREE]), packed)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError("state", f"no packed one ({type(error).__name__})", "what pack() returns") from error
    if not isinstance(state, dict):
        raise InputError("state", f"no packed one ({type(state).__name__})", "what pack() returns")
    return state


def _written(value: Any, flat: dict[str, list[Tensor]], ends: dict[str, int]) -> Any:
    """Return `value` for JSON: lists that begin with their kind, and what JSON knows as it is."""
    if isinstance(value, Tensor):
        kind = str(value.dtype).removeprefix("torch.")
        value = value.detach()
        if not _dense(value):
            value = value.contiguous()
        start = ends.get(kind, 0)
        ends[kind] = start + value.numel()
        flat.setdefault(kind, []).append(value.as_strided((value.numel(),), (1,), value.storage_offset()))
        return ["tensor", kind, start, list(value.shape), list(value.stride())]
    if isinstance(value, dict):
        return ["dict", *([key, _written(part, flat, ends)] for key, part in value.items())]
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return [kind, *(_written(part, flat, ends) for part in value)]
    return value


def _read(value: Any, packed: dict[str, Any]) -> Any:
    if not isinstance(value, list):
        return value
    kind, *parts = value
    if kind == "tensor":
        name, start, shape, stride = parts
        return packed[name].as_strided(shape, stride, start).clone()
    if kind == "dict":
        return {key: _read(part, packed) for key, part in parts}
    found = [_read(part, packed) for part in parts]
    return tuple(found) if kind == "tuple" else found


def _joined(parts: list[Tensor]) -> Tensor:
    """Return flat tensors as one on the processor; a GPU needs room for few of them, not for all again."""
    whole = torch.empty(sum(part.numel() for part in parts), dtype=parts[0].dtype)
    ends = itertools.accumulate(part.nbytes for part in parts)
    start = 0
    for _, group in itertools.groupby(
        zip(parts, ends, strict=True), lambda part: (part[0].device, part[1] // AT_ONCE)
    ):
        few = torch.cat([part for part, _ in group])
        whole[start : start + len(few)] = few
        start += len(few)
    return whole


def _dense(tensor: Tensor) -> bool:
    """Return whether the values of `tensor` lie side by side in memory, in whatever order."""
    return tensor.is_contiguous() or (
        tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    )
