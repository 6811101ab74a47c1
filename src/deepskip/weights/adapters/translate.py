"""State dicts through the name tables, in both directions, and which table a checkpoint needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor

from deepskip.describe.spec import Spec
from deepskip.errors import InputError, choices, nearest
from deepskip.weights.adapters import cifar, timm, torchvision, transformers
from deepskip.weights.adapters.layers import layers

Source = Literal["torchvision", "timm", "transformers", "cifar"]
SOURCES: dict[str, Callable[[Spec], dict[str, str]]] = {
    "torchvision": torchvision.names,
    "timm": timm.names,
    "transformers": transformers.names,
    "cifar": cifar.names,
}
"""Each library's table: our key → theirs, for a Spec."""
COUNTER = "num_batches_tracked"
"""The one kind of tensor a foreign file may lack: older ones do, and nothing is computed from it."""


def names(spec: Spec, source: str) -> dict[str, str]:
    """Return our key → theirs, total and one to one. Raises InputError when the library has no such net."""
    if source not in SOURCES:
        raise InputError("source", repr(source), choices(SOURCES), nearest(source, SOURCES))
    return SOURCES[source](spec)


def shapes(spec: Spec, source: str) -> dict[str, tuple[int, ...]]:
    """Return their key → shape, for every tensor of `spec`. Raises InputError as `names` does."""
    table = names(spec, source)
    return {
        (theirs := table[f"{layer}.{tensor}"]): (*shape, 1, 1) if theirs == timm.POINTWISE else shape
        for layer, tensors in layers(spec).items()
        for tensor, shape in tensors.items()
    }


def from_foreign(
    spec: Spec, tensors: Mapping[str, Tensor], source: str = "auto", *, where: object = "checkpoint"
) -> dict[str, Tensor]:
    """Return the state dict of `spec`'s Network that a foreign state dict means; nothing is copied.

    Raises InputError, naming `where` and the first tensor, when a tensor is missing, is too many or has another
    shape. Missing counters of batches become 0.
    """
    source = detect(tensors, where=where) if source == "auto" else source
    wanted = shapes(spec, source)
    for key, got, allowed in differences(wanted, tensors):
        raise InputError(f"{where}: {key}", got, f"{allowed} in {spec.name} from {source}")
    zero = torch.zeros((), dtype=torch.int64)
    state = {ours: tensors.get(theirs, zero) for ours, theirs in names(spec, source).items()}
    state["head.linear.weight"] = state["head.linear.weight"].flatten(1)
    return state


def to_foreign(spec: Spec, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return the library's state dict for our `state` of `spec`, in our order; nothing is copied.

    Raises InputError when the library has no such net, or `state` is not this Spec's.
    """
    table, wanted = names(spec, source), shapes(spec, source)
    for key in (*table, *state):
        if key not in state or key not in table:
            got, allowed = ("a tensor", "none") if key in state else ("no such tensor", "one")
            raise InputError(f"state: {key}", got, f"{allowed} in {spec.name}")
    return {theirs: state[ours].reshape(wanted[theirs]) for ours, theirs in table.items()}


def differences(
    wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, Tensor]
) -> list[tuple[str, str, str]]:
    """Return (key, what the file has, what is wanted) for each tensor that differs."""
    rows = []
    for key, shape in wanted.items():
        if key not in found:
            if not key.endswith(COUNTER):
                rows.append((key, "no such tensor", _text(shape)))
        elif tuple(found[key].shape) not in (shape, shape[:2] if key == timm.POINTWISE else shape):
            rows.append((key, _text(found[key].shape), _text(shape)))
    return [*rows, *((key, _text(found[key].shape), "no such tensor") for key in found if key not in wanted)]


def detect(tensors: Iterable[str], *, where: object = "checkpoint") -> str:
    """Return the source whose names these are.

    timm's plain `resnet50` has torchvision's names and is called "torchvision": the tables are the same. Raises
    InputError when the names are none of the libraries'.
    """
    keys = set(tensors)
    if any(key.startswith("resnet.e") for key in keys):
        return "transformers"
    if any(key.startswith("stages.") and ".branch." in key for key in keys):
        raise InputError(where, "deepskip's own tensors", "a foreign checkpoint; this one is read as it is")
    if any(key.startswith("stages.0.blocks.") for key in keys):
        return "timm"
    if "layer1.0.conv1.weight" in keys:
        if "linear.weight" in keys or "layer4.0.conv1.weight" not in keys:
            return "cifar"
        grouped = "bn1.weight" in keys and "bn1.running_mean" not in keys
        own = ("conv1.0.weight", "layer1.0.se.fc1.weight", "layer2.0.downsample.2.weight")
        return "timm" if grouped or not keys.isdisjoint(own) else "torchvision"
    got = f"tensors called {choices(sorted(keys), most=3)}" if keys else "no tensors"
    raise InputError(where, got, f"a checkpoint of {choices(SOURCES)}")


def _text(shape: Iterable[int]) -> str:
    return f"[{', '.join(map(str, shape))}]"
