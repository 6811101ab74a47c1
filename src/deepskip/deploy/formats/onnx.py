"""ONNX: one `.onnx` file, run by ONNX Runtime and many others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from deepskip.deploy import graph
from deepskip.deploy.metadata import Metadata, from_texts, to_texts
from deepskip.deploy.runner import Closing, Logits, Pixels, Proof
from deepskip.errors import InputError
from deepskip.extras import need
from deepskip.files import replacing
from deepskip.model import Model

SUFFIX = ".onnx"
PACKAGES = ("onnx", "onnxruntime")


def write(path: Path, model: Model, metadata: Metadata, proved: Proof) -> None:
    """Write the graph of `model` to `path`, whole and `proved` or not at all. Raises InputError, WorkError."""
    proto = graph.onnx_model(model, metadata.export.scaling)
    for key, text in to_texts(metadata).items():
        proto.metadata_props.add(key=key, value=text)
    with replacing(path) as beside:
        beside.write_bytes(proto.SerializeToString(deterministic=True))
        proved(beside)


def read(path: Path) -> Metadata:
    """Return what the file says of itself. Raises InputError."""
    onnx = need("onnx", str(path))
    try:
        proto = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own, of whichever of its versions
        raise InputError(path, f"no readable ONNX file ({type(error).__name__})", "an .onnx file") from error
    return from_texts(path, {entry.key: entry.value for entry in proto.metadata_props})


class Runner(Closing):
    """An ONNX file by ONNX Runtime on the processor."""

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        onnxruntime = need("onnxruntime", str(path))
        self.metadata = read(path)
        self.name, self.threads = "onnx", threads or torch.get_num_threads()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3  # errors
        self._session: Any = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def __call__(self, pixels: Pixels) -> Logits:
        """Return the logits [n, classes] of `pixels` [n, h, w, c]."""
        scaling = self.metadata.export.scaling
        given = graph.fed(pixels, self.metadata.header.preprocessing, scaling)
        logits: Logits = self._session.run([graph.OUTPUT], {graph.INPUTS[scaling]: given})[0]
        return logits
