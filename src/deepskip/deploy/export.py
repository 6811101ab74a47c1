"""Write a model for other programs, prove what was written on real pictures, and read what a file says."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from deepskip.deploy.formats import onnx, openvino, program, torchvision
from deepskip.deploy.graph import Scaling, scaling_of
from deepskip.deploy.metadata import Metadata, describe
from deepskip.deploy.proof import BATCH, Agreement, prove, reference
from deepskip.deploy.runner import Logits, Pixels
from deepskip.errors import InputError, choices, nearest
from deepskip.extras import need
from deepskip.files import nearest_path
from deepskip.model import Model

FORMATS: dict[str, ModuleType] = {
    "onnx": onnx,
    "openvino": openvino,
    "torch": program,
    "torchvision": torchvision,
}
"""The kinds of file. Each module writes one, reads what it says and runs it."""


IMAGES = 500
"""Real pictures that an export is proved on, where there are as many."""


@dataclass(frozen=True)
class Exported:
    """What was written, and how it agrees with the model."""

    files: tuple[Path, ...]
    metadata: Metadata
    agreement: Agreement

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.stat().st_size for file in self.files)


def export(model: Model, to: str, path: Path | str, *, images: Pixels, scaling: Scaling = "inside") -> Exported:
    """Write `model` to `path` as a file of kind `to`, after proving it on `images`, uint8 [n, h, w, c].

    The file is written beside `path`, read again and run: it takes its place only when its logits differ from
    the net's own by no more than 1e-4 of the largest and every picture's most probable class is the same;
    OpenVINO's also computed by a single thread, which takes other kernels (on 64 of the images).
    Otherwise WorkError, and nothing is there that was not before. The net may be in any mode and precision, on
    any device. InputError for what `to`'s programs cannot hold, images of another shape, and packages that are
    not installed.
    """
    form = find(to, path)
    check(model, images)
    scaling = scaling_of(scaling)
    fields: dict[str, Any] = {}
    if to == "torchvision":
        scaling, fields = "outside", {"inputs": {}, "outputs": {}}
    metadata = describe(model, to, scaling, versions(form), **fields)
    wanted = reference(model, images)
    alone = to == "openvino" and torch.get_num_threads() > 1
    path, agreement = Path(path), Later(form, Path(path), images, wanted, alone=alone)
    form.write(path, model, metadata, agreement)
    return Exported(files(path, to), metadata, agreement.found)


class Later:
    """The proof of a file that will be written: called with it, it keeps how it agrees with `wanted`."""

    found: Agreement

    def __init__(
        self, form: ModuleType, path: Path, images: Pixels, wanted: Logits, *, alone: bool = False
    ) -> None:
        self._form, self._path, self._images, self._wanted, self._alone = form, path, images, wanted, alone

    def __call__(self, written: Path) -> None:
        """Run the file; raise WorkError, naming the place where it was to be, when it does not agree."""
        with self._form.Runner(written) as runner:
            self.found = prove(self._path, runner, self._images, self._wanted)
        if self._alone:
            with self._form.Runner(written, threads=1) as runner:
                prove(f"{self._path}, one thread", runner, self._images[:BATCH], self._wanted[:BATCH])


def find(to: str, path: Path | str) -> ModuleType:
    """Return the format `to`, its packages there and `path` of its kind. Raises InputError."""
    if to not in FORMATS:
        raise InputError("--to", repr(to), choices(FORMATS), nearest(str(to), FORMATS))
    form = FORMATS[to]
    if Path(path).suffix != form.SUFFIX:
        near = Path(path).with_suffix(form.SUFFIX)
        raise InputError("--out", path, f"a name that ends in {form.SUFFIX}, for {to}", near)
    for package in form.PACKAGES:
        need(package, f"--to {to}")
    return form


def files(path: Path, to: str) -> tuple[Path, ...]:
    """Return the files that an export to `path` is."""
    return (path, path.with_suffix(openvino.WEIGHTS)) if to == "openvino" else (path,)


def versions(form: ModuleType, *others: str) -> dict[str, str]:
    """Return the versions of the packages that a format is written and run with, and of `others`."""
    return {package: importlib.metadata.version(package) for package in (*form.PACKAGES, *others)}


def check(model: Model, images: Pixels) -> None:
    """Raise InputError unless `images` are pictures as `model` sees them."""
    size, channels = model.preprocessing.size, model.preprocessing.channels
    if images.ndim != 4 or images.shape[1:] != (size, size, channels) or not len(images):
        allowed = f"[n, {size}, {size}, {channels}], as the model's preprocessing makes them"
        raise InputError("images", list(images.shape), allowed)
    if images.dtype != "uint8":
        raise InputError("images", images.dtype, "uint8, from 0 to 255")


def read_metadata(path: Path | str) -> Metadata:
    """Return what the exported file at `path` says: the model's header, and how it was exported.

    Raises InputError when there is no such file, or it is none that was exported.
    """
    path = Path(path)
    forms = {form.SUFFIX: form for form in FORMATS.values()}
    if path.suffix not in forms:
        raise InputError(path, f"a file that ends in {path.suffix or 'nothing'!r}", choices(forms))
    if not path.is_file():
        near = nearest_path(path, lambda other: other.suffix in forms and other.is_file())
        raise InputError(path, "no such file", "an exported file", near)
    found: Metadata = forms[path.suffix].read(path)
    return found
