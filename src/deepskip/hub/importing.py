"""A foreign checkpoint on this machine becomes a network and the header of a model file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from deepskip.describe.preprocessing import Preprocessing
from deepskip.describe.spec import Spec
from deepskip.errors import InputError
from deepskip.files import nearest_path
from deepskip.hub.known import class_names, preprocessing, unique
from deepskip.hub.published import recognise
from deepskip.nets.network import Network
from deepskip.weights.adapters.translate import detect, names
from deepskip.weights.foreign import head_classes, read_tensors, translate
from deepskip.weights.store import Header

_ANTIALIASED = re.compile(r"(?<![0-9a-f])aa(?:50|101)|blur")  # not four digits of a hash


class Imported(NamedTuple):
    """A network from elsewhere, ready to be saved."""

    net: Network
    """In evaluation mode."""
    header: Header
    notes: list[str]
    """What its user should know: a head that was left out, preprocessing that was taken for granted."""


def import_file(path: Path | str, spec: Spec, source: str = "auto", **given: Any) -> Imported:
    """Return the network in the checkpoint at `path`; what is `given` is `import_tensors`'s own."""
    tensors = read_tensors(path)
    known = detect(tensors, where=path) if source == "auto" else source
    return import_tensors(tensors, spec, known, path=path, **given)


def import_tensors(
    tensors: Mapping[str, Tensor],
    spec: Spec,
    known: str,
    *,
    path: Path | str,
    classes: tuple[str, ...] | None = None,
    prepared: Preprocessing | None = None,
    size: int | None = None,
    resize: int | None = None,
    interpolation: str | None = None,
    origin: str | None = None,
    seed: int = 0,
) -> Imported:
    """Return the network that `tensors`, read from `path`, are in the library `known`.

    It is `spec` but for its classes and input channels. `classes` are the class names, by default the usual
    ones for the head's size, and numbers for a new head; another number of them than the head has keeps the
    body and starts a new head from `seed`. `prepared` is the preprocessing; without it, the source's usual one,
    with the `size`, `resize` and `interpolation` that are given. `origin`, where the file is known to be what
    it is, is said in the provenance. Raises InputError.
    """
    sha256 = file_sha256(Path(path))
    weights = recognise(sha256)
    if weights is None and origin is None and _ANTIALIASED.search(Path(path).name.lower()):
        got = "a name of timm's anti-aliased nets"
        raise InputError(
            path, got, "a net without anti-aliasing: these have the same tensors and compute another function"
        )
    net, notes = translate(
        tensors, spec, known, classes=len(classes) if classes else None, seed=seed, where=path
    )
    channels = net.spec.input[0]
    if channels not in (1, 3):
        raise InputError(path, f"a net of {channels} input channels", "1 (grey) or 3 (red, green, blue)")
    if weights is None and origin is None and known in ("timm", "torchvision") and spec.order == "post":
        notes.append(
            "timm's anti-aliased nets (resnetaa50, resnetblur50, …) have the same tensors as this one and "
            "compute another function: if the file is of one of them, its predictions here are wrong"
        )
    if prepared is None:
        if weights and resize is None and size in (None, 224):
            resize = weights.resize
        prepared = preprocessing(known, channels, size=size, resize=resize, interpolation=interpolation)
        if known == "timm" and (size, resize, interpolation) == (None, None, None):
            notes.append(
                f"preprocessing taken for granted: {prepared.size} pixels of {prepared.resize}, "
                f"{prepared.interpolation}; timm's weights differ in it"
            )
    elif prepared.channels != channels:
        raise InputError("preprocessing", f"{prepared.channels} channels", f"{channels}, as the file's net has")
    net.spec = net.spec.replace(input=(channels, prepared.size, prepared.size))
    trained = head_classes(tensors, names(net.spec, known)) == net.spec.classes
    header = Header(
        spec=net.spec,
        classes=unique(classes or class_names(net.spec.classes, known, trained=trained)),
        preprocessing=prepared,
        provenance={"source": known, "file": origin or Path(path).name, "sha256": sha256, "notes": notes},
    )
    return Imported(net, header, notes)


def read_class_names(path: Path) -> tuple[str, ...]:
    """Return the class names in a text file, one a line, in the order of the logits. Raises InputError."""
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text in UTF-8"
        near = nearest_path(path, Path.is_file) if isinstance(error, FileNotFoundError) else None
        raise InputError(path, reason.lower(), "a text file with a class name a line", near) from error
    while names and not names[-1]:
        names.pop()
    if not names or not all(names):
        raise InputError(path, "an empty line" if names else "no names", "a class name a line")
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise InputError(path, f"{twice!r} twice", "names that differ")
    return tuple(names)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
