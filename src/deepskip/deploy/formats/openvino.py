"""OpenVINO: an `.xml` with the graph and a `.bin` with the weights, run on Intel's and ARM's processors."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
import torch

from deepskip.deploy import graph
from deepskip.deploy.metadata import KEYS, Metadata, from_texts, to_texts
from deepskip.deploy.runner import Closing, Logits, Pixels, Proof
from deepskip.describe.preprocessing import Preprocessing
from deepskip.errors import InputError
from deepskip.extras import need, openvino_core
from deepskip.files import explained
from deepskip.model import Model

if TYPE_CHECKING:
    import openvino

SUFFIX = ".xml"
WEIGHTS = ".bin"
PACKAGES = ("openvino", "onnx")
KEY = "deepskip"
"""The part of the graph's rt_info that is ours."""


def write(path: Path, model: Model, metadata: Metadata, proved: Proof) -> None:
    """Write the graph of `model` to `path` and its `.bin`, both and `proved` or none. Raises as others do."""
    write_graph(path, graph.openvino_model(model, metadata.export.scaling), metadata, proved)


def write_graph(path: Path, made: openvino.Model, metadata: Metadata, proved: Proof) -> None:
    """Write the graph `made`, of whatever precision, as `write` does."""
    openvino = need("openvino", str(path))
    for key, text in to_texts(metadata).items():
        made.set_rt_info(text, [KEY, key])
    with replacing_pair(path) as beside:
        openvino.save_model(made, beside, compress_to_fp16=False)
        proved(beside)


@contextlib.contextmanager
def replacing_pair(path: Path) -> Iterator[Path]:
    """Yield an `.xml` in a folder beside `path` to write, with its `.bin`; on success both take their places.

    A graph with another's weights would compute something else. So while the two change places there is no
    graph, and on a failure what was there before is put back. Raises WorkError when the system refuses.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    try:
        with explained(path):
            made = folder / path.name
            yield made
            _exchange(made, path, folder / "before")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _exchange(made: Path, path: Path, hold: Path) -> None:
    """Put `made` and its weights in the place of `path` and its own, which are held in the folder `hold`."""
    hold.mkdir()
    pairs = [(made, path), (made.with_suffix(WEIGHTS), path.with_suffix(WEIGHTS))]
    for new, _ in pairs:
        with new.open("r+b") as file:
            os.fsync(file.fileno())
    held, placed = [], []
    try:
        for _, old in pairs:
            if old.is_file() or old.is_symlink():
                old.replace(hold / old.name)
                held.append(old)
        for new, old in reversed(pairs):
            new.replace(old)
            placed.append(old)
    except BaseException:
        for old in placed:
            old.unlink()
        for old in reversed(held):
            (hold / old.name).replace(old)
        raise


def read(path: Path) -> Metadata:
    """Return what the `.xml` says of itself; OpenVINO is not needed. Raises InputError."""
    texts: dict[str, str] = {}
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError) as error:
        raise InputError(path, f"no readable .xml ({type(error).__name__})", "OpenVINO's .xml") from error
    for key in KEYS:
        found = root.find(f"rt_info/{KEY}/{key}")
        if found is not None and "value" in found.attrib:
            texts[key] = found.attrib["value"]
    return from_texts(path, texts)


class Graph(Closing):
    """A graph in memory, or in a file, on the processor; what is not quantised is computed in float32."""

    def __init__(
        self,
        made: openvino.Model | Path,
        preprocessing: Preprocessing,
        scaling: graph.Scaling,
        *,
        threads: int | None = None,
    ) -> None:
        self.name, self.threads = "openvino", threads or torch.get_num_threads()
        self.preprocessing, self.scaling = preprocessing, scaling
        # float32 has to be asked for: processors with bf16 would take that.
        wanted = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": self.threads}
        self._compiled: Any = openvino_core().compile_model(made, "CPU", wanted)

    def __call__(self, pixels: Pixels) -> Logits:
        """Return the logits [n, classes] of `pixels` [n, h, w, c]."""
        return np.array(self._compiled(graph.fed(pixels, self.preprocessing, self.scaling))[0], np.float32)


class Runner(Graph):
    """An exported `.xml`, run as it says."""

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        self.metadata = read(path)
        header, export = self.metadata.header, self.metadata.export
        super().__init__(path, header.preprocessing, export.scaling, threads=threads)
