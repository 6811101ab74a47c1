"""A foreign checkpoint on this machine becomes a network and the header of a model file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from deepskip.describe.preprocessing import Preprocessing
from deepskip.describe.spec import Spec
from deepskip.errors import InputError
from deepskip.hub.known import class_names, preprocessing, unique
from deepskip.hub.published import recognise
from deepskip.nets.network import Network
from deepskip.weights.adapters.translate import detect
from deepskip.weights.foreign import read_tensors, translate
from deepskip.weights.store import Header


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

    It is `spec` but for its classes. `classes` are the class names, by default the usual ones for the head's
    size; another number of them than the head has keeps the body and starts a new head from `seed`. `prepared`
    is the preprocessing; without it, the source's usual one, with the `size`, `resize` and `interpolation` that
    are given. `origin` is said in the provenance. Raises InputError.
    """
    net, notes = translate(
        tensors, spec, known, classes=len(classes) if classes else None, seed=seed, where=path
    )
    sha256 = file_sha256(Path(path))
    weights = recognise(sha256)
    if prepared is None:
        if weights and resize is None and size in (None, 224):
            resize = weights.resize
        prepared = preprocessing(known, spec.input[0], size=size, resize=resize, interpolation=interpolation)
        if known == "timm" and (size, resize, interpolation) == (None, None, None):
            notes.append(
                f"preprocessing taken for granted: {prepared.size} pixels of {prepared.resize}, "
                f"{prepared.interpolation}; timm's weights differ in it"
            )
    elif prepared.channels != spec.input[0]:
        raise InputError(
            "preprocessing", f"{prepared.channels} channels", f"{spec.input[0]}, as {spec.name} has"
        )
    net.spec = net.spec.replace(input=(spec.input[0], prepared.size, prepared.size))
    header = Header(
        spec=net.spec,
        classes=unique(classes or class_names(net.spec.classes, known)),
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
        raise InputError(path, reason.lower(), "a text file with a class name a line") from error
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
