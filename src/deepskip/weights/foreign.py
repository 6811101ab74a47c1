"""Foreign checkpoints: read without running what is in them, and made into a Network."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from deepskip.describe import zoo
from deepskip.describe.spec import Spec
from deepskip.errors import InputError, printable
from deepskip.files import nearest_path
from deepskip.nets.builder import build
from deepskip.nets.network import Network
from deepskip.weights.adapters.translate import detect, differences, from_foreign, names, shapes
from deepskip.weights.store import unreadable

SUFFIXES = (".pth", ".th", ".pt", ".bin", ".safetensors")
FORMATS = "a .pth, .th, .pt, .bin or .safetensors file of tensors"
_CONTAINERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "weights")
_WRAPPERS = ("module.", "_orig_mod.", "model.")
"""What DataParallel, torch.compile and Lightning put before every name."""


def read_tensors(path: Path | str) -> dict[str, Tensor]:
    """Return the tensors in a checkpoint, by name, on the CPU; no code in it is run.

    PyTorch's file formats (with `weights_only=True`) and safetensors, told apart by content. Containers
    (`state_dict`, `model`, …) and what wraps all names (`module.`) are taken off; what is no tensor is dropped.
    Raises InputError for a missing, damaged or foreign file, and for a pickle with anything but tensors in it.
    """
    path = Path(path)
    if not path.is_file():
        if path.exists():
            raise InputError(path, "a folder" if path.is_dir() else "not a regular file", FORMATS)
        near = nearest_path(path, lambda other: other.suffix in SUFFIXES and other.is_file())
        raise InputError(path, "no such file", FORMATS, near)
    with path.open("rb") as file:
        start = file.read(9)
    found = _read_safetensors(path) if _is_safetensors(path, start) else _read_torch(path, start)
    tensors = {name: value for name, value in _unwrap(found).items() if isinstance(value, Tensor)}
    for name, value in tensors.items():
        _check_kind(path, name, value)
    if not tensors or not all(isinstance(name, str) for name in tensors):
        raise InputError(path, "a file without named tensors", FORMATS)
    return _strip(path, tensors)


def load_foreign(
    path: Path | str, spec: Spec, source: str = "auto", *, classes: int | None = None, seed: int = 0
) -> tuple[Network, list[str]]:
    """Return the network in a foreign checkpoint, float32 and in evaluation mode, and notes for its reader.

    The net is `spec` with as many input channels as the file's first convolution reads and as many classes as
    its head has; or with `classes`, when given. A head of another size is left out, and a new one starts from
    `seed`; a note says so. Raises InputError when the file is not this net's, naming the first tensor that
    differs and the zoo's nearest net, and for half a head.
    """
    return translate(read_tensors(path), spec, source, classes=classes, seed=seed, where=path)


def translate(
    tensors: Mapping[str, Tensor],
    spec: Spec,
    source: str = "auto",
    *,
    classes: int | None = None,
    seed: int = 0,
    where: object = "checkpoint",
) -> tuple[Network, list[str]]:
    """Return the network that foreign `tensors` are, and notes: `load_foreign` after reading."""
    found = _detected(tensors)
    source = detect(tensors, where=where) if source == "auto" else source
    try:
        table = names(spec, source)
    except InputError as error:
        near = error.nearest or nearest_net(tensors, source)
        near = f"--from {found}" if found not in (None, source) else near
        raise InputError(error.where, error.got, error.allowed, near) from error
    stored, tensors = tensors, {name: _widened(where, name, tensor) for name, tensor in tensors.items()}
    spec = spec.replace(input=(_channels(tensors, table, spec), *spec.input[1:]))
    head = {ours: table[ours] for ours in ("head.linear.weight", "head.linear.bias")}
    rows = head_classes(tensors, table)
    if rows is None:
        spec = spec.replace(classes=classes or spec.classes)
        _check(where, spec, source, {**tensors, **_blank(spec, source, head)}, found)
    else:  # a head that is there has to be whole, even where it is left out
        spec = spec.replace(classes=rows or spec.classes)
        _check(where, spec, source, tensors, found)
        spec = spec.replace(classes=classes or spec.classes)

    net = build(spec, seed)
    notes = []
    if rows != spec.classes:
        initial = {theirs: net.get_parameter(ours).detach() for ours, theirs in head.items()}
        tensors = {**tensors, **initial}
        had = f"the file's head has {rows} classes" if rows else "the file has no head"
        notes.append(f"{had}: the new head for {spec.classes} classes is untrained (seed {seed})")
    notes += _remarks(stored, tensors)
    state = from_foreign(spec, tensors, source, where=where)
    _check_values(where, net, state, table)
    net.load_state_dict(state)
    return net.eval(), notes


def head_classes(tensors: Mapping[str, Tensor], table: Mapping[str, str]) -> int | None:
    """Return how many classes the file's head has; None without any of its tensors, 0 for a damaged one."""
    weight, bias = (tensors.get(table[f"head.linear.{part}"]) for part in ("weight", "bias"))
    if weight is None and bias is None:
        return None
    return len(weight) if weight is not None and weight.ndim else 0


def nearest_net(tensors: Mapping[str, Tensor], source: str) -> str | None:
    """Return the zoo's net from which the fewest tensors differ, whatever its head's size; None without any."""
    best: tuple[int, str] | None = None
    for entry in zoo.ZOO:
        try:
            wanted = shapes(entry.spec, source)
        except InputError:  # a net this library does not have
            continue
        table = names(entry.spec, source)
        heads = (table["head.linear.weight"], table["head.linear.bias"])
        count = sum(key not in heads for key, *_ in differences(wanted, tensors))
        if best is None or count < best[0]:
            best = count, entry.name
    return best[1] if best else None


def _detected(tensors: Mapping[str, Tensor]) -> str | None:
    try:
        return detect(tensors)
    except InputError:
        return None


def _check(where: object, spec: Spec, source: str, tensors: Mapping[str, Tensor], found: str | None) -> None:
    rows = differences(shapes(spec, source), tensors)
    if not rows:
        return
    (key, got, wanted), others = rows[0], [row[0] for row in rows[1:4]]
    more = f" ({len(rows)} tensors differ, also {', '.join(others)})" if others else ""
    # timm's and torchvision's names are alike, so what was found only hints between other pairs.
    other = found not in (None, source) and {found, source} != {"timm", "torchvision"}
    near = f"--from {found}" if other else nearest_net(tensors, source)
    raise InputError(
        f"{where}: {key}", got, f"{wanted} in {spec.name}{more}", None if near == spec.name else near
    )


def _check_values(where: object, net: Network, state: Mapping[str, Tensor], table: Mapping[str, str]) -> None:
    """Refuse weights in whole numbers, which are what a cast left of them, and variances below zero."""
    for name, own in net.state_dict().items():
        value = state[name]
        if own.is_floating_point() and not value.is_floating_point():
            kind = str(value.dtype).removeprefix("torch.")
            raise InputError(f"{where}: {table[name]}", f"a tensor of {kind}", "floating-point numbers")
        if name.endswith("running_var") and bool((value < 0).any()):
            raise InputError(f"{where}: {table[name]}", "a variance below 0", "variances of 0 and more")


def _blank(spec: Spec, source: str, head: Mapping[str, str]) -> dict[str, Tensor]:
    wanted = shapes(spec, source)
    return {theirs: torch.empty(wanted[theirs], device="meta") for theirs in head.values()}


def _channels(tensors: Mapping[str, Tensor], table: Mapping[str, str], spec: Spec) -> int:
    weight = tensors.get(table["stem.conv1.weight"])
    return (
        int(weight.shape[1]) if weight is not None and weight.ndim == 4 and weight.shape[1] else spec.input[0]
    )


def _widened(where: object, name: str, tensor: Tensor) -> Tensor:
    """Return the tensor, as float32 if it is in eight bits, which PyTorch only stores. Raises InputError."""
    if not tensor.is_floating_point() or tensor.itemsize > 1:
        return tensor
    try:
        return tensor.float()
    except (
        RuntimeError,
        NotImplementedError,
    ) as error:  # two numbers of four bits in a byte, and what is to come
        kind = str(tensor.dtype).removeprefix("torch.")
        raise InputError(f"{where}: {name}", f"a tensor of {kind}", "numbers that PyTorch converts") from error


def _remarks(stored: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    notes = []
    kinds = {tensor.dtype for tensor in stored.values() if tensor.is_floating_point()} - {torch.float32}
    if kinds:
        listed = ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
        notes.append(f"stored as {listed}, held as float32")
    bad = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if bad:
        notes.append(printable(f"{len(bad)} tensors hold values that are not finite, {bad[0]} first"))
    return notes


def _is_safetensors(path: Path, start: bytes) -> bool:
    return path.suffix == ".safetensors" or start[8:] == b"{"


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise InputError(path, unreadable(error), FORMATS) from error


def _read_torch(path: Path, start: bytes) -> object:
    if not start.startswith((b"PK", b"\x80")):
        raise InputError(path, "neither PyTorch's format nor safetensors", FORMATS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old formats, which are read all the same
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" ({named[1]})" if named else ""
        got = f"a pickle of more than tensors{what}; nothing in it was run"
        raise InputError(
            path, got, "a file of tensors, as `torch.save(net.state_dict(), FILE)` writes"
        ) from error
    except Exception as error:  # a damaged file makes the reader raise nearly anything
        if "TorchScript" in str(error):
            got = "a TorchScript archive, which holds a program; nothing in it was run"
            raise InputError(
                path, got, "its tensors, as `torch.save(net.state_dict(), FILE)` writes"
            ) from error
        raise InputError(path, "a damaged or truncated file", FORMATS) from error


def _check_kind(path: Path, name: object, tensor: Tensor) -> None:
    """Refuse what no weight of a net is: nested, sparse, quantised, complex, without values or with too few."""
    kinds = {
        "nested": tensor.is_nested,
        "sparse": tensor.layout != torch.strided,
        "quantised": tensor.is_quantized,
    }
    kinds |= {"complex": tensor.is_complex(), "meta (without values)": tensor.is_meta}
    for kind, found in kinds.items():
        if found:
            raise InputError(f"{path}: {name}", f"a {kind} tensor", "dense real numbers")
    # A few numbers may say that they are many, and ask for the memory when they are copied.
    held, needed = tensor.untyped_storage().nbytes(), tensor.numel() * tensor.itemsize
    if held < needed:
        got = f"a tensor of {needed:,} bytes on {held:,} (expanded)"
        raise InputError(f"{path}: {name}", got, "dense real numbers")


def _unwrap(found: object) -> dict[Any, Any]:
    """Return the innermost dictionary that holds the tensors."""
    outer: list[object] = []  # a file may hold a dictionary that holds itself
    while isinstance(found, dict) and not any(isinstance(value, Tensor) for value in found.values()):
        outer.append(found)
        if sum(one is found for one in outer) > 1:
            return {}
        found = next((found[key] for key in _CONTAINERS if isinstance(found.get(key), dict)), None)
    return dict(found) if isinstance(found, dict) else {}


def _strip(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    while wrapper := next((w for w in _WRAPPERS if all(name.startswith(w) for name in tensors)), None):
        tensors = {name.removeprefix(wrapper): tensor for name, tensor in tensors.items()}
    stripped = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}  # some names only
    if len(stripped) != len(tensors):
        raise InputError(path, "two sets of tensors, with and without `module.`", "one set of tensors")
    return stripped
