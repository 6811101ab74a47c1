"""PyTorch's exported program: one `.pt2` file, for PyTorch itself, ExecuTorch and compilers."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from deepskip.deploy import graph
from deepskip.deploy.metadata import KEYS, Metadata, from_texts, to_texts
from deepskip.deploy.runner import Closing, Logits, Pixels, Proof
from deepskip.errors import InputError
from deepskip.files import replacing
from deepskip.model import Model

SUFFIX = ".pt2"
PACKAGES = ()


def write(path: Path, model: Model, metadata: Metadata, proved: Proof) -> None:
    """Write the graph of `model` to `path`, whole and `proved` or not at all. Raises InputError, WorkError."""
    made = graph.program(model, metadata.export.scaling)
    with replacing(path) as beside:
        with graph.silence(), beside.open("wb") as file:  # opened: what is saved by name has to end in .pt2
            torch.export.save(made, file, extra_files=to_texts(metadata))
        proved(beside)


def read(path: Path) -> Metadata:
    """Return what the file says of itself; nothing in it is unpickled. Raises InputError."""
    texts: dict[str, str] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                folder, _, key = name.rpartition("/")
                if folder.endswith("extra") and key in KEYS:
                    texts[key] = archive.read(name).decode()
    except (zipfile.BadZipFile, OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"no readable .pt2 ({type(error).__name__})", "a .pt2 file") from error
    return from_texts(path, texts)


class Runner(Closing):
    """An exported program by PyTorch on the processor, with PyTorch's threads."""

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        self.metadata = read(path)
        self.name, self.threads = "torch", torch.get_num_threads()
        with graph.silence(), path.open("rb") as file:
            self._module: Any = torch.export.load(file).module()

    @torch.no_grad()
    def __call__(self, pixels: Pixels) -> Logits:
        """Return the logits [n, classes] of `pixels` [n, h, w, c]."""
        given = graph.fed(pixels, self.metadata.header.preprocessing, self.metadata.export.scaling)
        logits: Logits = self._module(torch.from_numpy(given)).numpy()
        return logits
