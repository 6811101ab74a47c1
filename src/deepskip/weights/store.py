"""The model file: one `model.safetensors` whose header holds all that train, evaluate and predict need."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from deepskip.describe.ledger import count
from deepskip.describe.preprocessing import Preprocessing
from deepskip.describe.spec import Spec
from deepskip.describe.value import Value
from deepskip.errors import InputError
from deepskip.files import nearest_path, replacing
from deepskip.garbage import paused
from deepskip.nets.builder import assemble
from deepskip.nets.network import Network, not_finite

FILE = "model.safetensors"
FORMAT = 1
KEY = "deepskip"
SMALL = 10_000_000
"""Values that a network may have before its file is seen to hold them; then the tensor that lacks is named."""


class Header(Value):
    """What a model file says beside its tensors. Stored as JSON under the metadata key "deepskip"."""

    format: int = FORMAT
    """Version of this layout."""
    spec: Spec
    classes: tuple[str, ...]
    """Class names, in the order of the logits."""
    preprocessing: Preprocessing
    provenance: dict[str, Any] = Field(default_factory=dict)
    """Where it comes from: data set and fingerprint, recipe, seed, command, versions."""
    metrics: dict[str, Any] = Field(default_factory=dict)
    """What was measured when it was saved, errors in percent."""

    @model_validator(mode="after")
    def _agree(self) -> Header:
        if len(self.classes) != self.spec.classes:
            raise InputError("classes", f"{len(self.classes)} names", f"{self.spec.classes}, as the Spec says")
        if self.preprocessing.channels != self.spec.input[0]:
            got = f"{self.preprocessing.channels} channels"
            raise InputError("preprocessing", got, f"{self.spec.input[0]}, as the Spec says")
        return self


def locate(path: Path | str) -> Path:
    """Return the model file that `path` means: itself, or the one in the run folder. Raises InputError."""
    path = Path(path)
    if path.is_dir():
        if not (path / FILE).is_file():
            raise InputError(path, f"a folder without {FILE}", f"a run folder or a {FILE}", near(path))
        return path / FILE
    if not path.is_file():
        raise InputError(path, "no such file or folder", f"a run folder or a {FILE}", near(path))
    return path


def near(path: Path) -> Path | None:
    """Return a model in the folder `path`, or the one whose name is most like it, or None."""
    try:
        inside = [entry for entry in sorted(path.iterdir()) if _is_model(entry)] if path.is_dir() else []
    except (OSError, ValueError):  # none that may be read
        inside = []
    return inside[0] if inside else nearest_path(path, _is_model)


def _is_model(path: Path) -> bool:
    return (path / FILE).is_file() or (path.suffix == ".safetensors" and path.is_file())


def unreadable(error: Exception) -> str:
    """Return why safetensors cannot read a file: the operating system's words, but not those of a parser."""
    reason = getattr(error, "strerror", None) or "cut short, damaged or of another kind"
    return f"no readable safetensors file ({reason.lower()})"


def save(path: Path, net: Network, header: Header) -> None:
    """Write `net` and `header` to `path`, whole or not at all. Raises WorkError when the disk refuses."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    with replacing(path) as beside, paused():
        _save(tensors, beside, header)


def _save(tensors: dict[str, Tensor], path: Path, header: Header) -> None:
    try:
        save_file(tensors, path, metadata={KEY: header.to_json()})
    except SafetensorError as error:  # it wraps the operating system's own words
        reason = re.sub(r"^.*I/O error: | \(os error \d+\)$", "", str(error))
        raise OSError(None, reason, str(path)) from error


def read_header(path: Path | str) -> Header:
    """Return the header of the model file at `path`; no tensor is read. Raises InputError."""
    file = locate(path)
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InputError(file, unreadable(error), f"a {FILE}") from error
    if KEY not in metadata:
        raise InputError(file, "a safetensors file without a deepskip header", "a file that deepskip wrote")
    text = metadata[KEY]
    try:
        version = json.loads(text).get("format")
    except (ValueError, AttributeError) as error:
        raise InputError(file, "a header that is not JSON", "a file that deepskip wrote") from error
    if version != FORMAT:
        raise InputError(f"{file}: format", version, FORMAT)
    try:
        return Header.from_json(text)
    except InputError as error:
        raise InputError(f"{file}: {error.where}", error.got, error.allowed, error.nearest) from error


def load(path: Path | str, *, device: torch.device | str = "cpu") -> tuple[Network, Header]:
    """Return the network in the model file at `path`, in evaluation mode, and its header.

    Raises InputError when the file is not a model or its tensors are not the Spec's.
    """
    file = locate(path)
    with paused():
        header = read_header(file)
        try:
            tensors = load_file(file)
        except (SafetensorError, OSError) as error:
            raise InputError(file, unreadable(error), f"a {FILE}") from error
        _check_size(file, header.spec, tensors)
        net = assemble(header.spec, device=device)
        _check(file, net, tensors)
        net.load_state_dict(tensors)
    return net.eval(), header


def _check_size(file: Path, spec: Spec, tensors: dict[str, Tensor]) -> None:
    """Refuse a Spec that asks for more memory than its file has values for: files come from anywhere."""
    wanted, found = count(spec).params, sum(tensor.numel() for tensor in tensors.values())
    if wanted > max(found, SMALL):
        raise InputError(file, f"{found:,} values", f"{wanted:,} or more, as its own Spec says")


def _check(file: Path, net: Network, tensors: dict[str, Tensor]) -> None:
    wanted = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    broken = not_finite(tensors)
    if broken:
        raise InputError(
            f"{file}: {broken}", "values that are not finite", "a whole model; this one is damaged"
        )
    for name in (*wanted, *found):
        if wanted.get(name) != found.get(name):
            got, allowed = found.get(name, "no such tensor"), wanted.get(name, "no such tensor")
            raise InputError(f"{file}: {name}", got, f"{allowed}, as its own Spec says")
