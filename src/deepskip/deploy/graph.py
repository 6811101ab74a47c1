"""The net as the graph that is exported: for evaluation, in float32, batch normalisers folded, any batch.

Its input is `pixels`, uint8 [n, h, w, c], with the scaling inside, or `images`, float32 [n, c, h, w], scaled
already; height and width are the preprocessing's. Its output is `logits`, float32 [n, classes].
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy.typing as npt
import torch
from torch import Tensor, nn

from deepskip._version import __version__
from deepskip.data.batches import normalise, scale_and_shift
from deepskip.deploy import lowering
from deepskip.deploy.runner import Pixels
from deepskip.describe.preprocessing import Preprocessing
from deepskip.errors import InputError, choices, nearest
from deepskip.extras import need
from deepskip.model import Model
from deepskip.nets.builder import assemble
from deepskip.nets.network import Network
from deepskip.surgery.folding import fold

if TYPE_CHECKING:
    import onnx
    import openvino

Scaling = Literal["inside", "outside"]
SCALINGS: tuple[Scaling, ...] = get_args(Scaling)
INPUTS: dict[Scaling, str] = {"inside": "pixels", "outside": "images"}
"""What the graph's input is called."""
OUTPUT = "logits"
BATCH = "batch"
"""What the graph's one free dimension is called."""


def scaling_of(word: str) -> Scaling:
    """Return `word` when it is a Scaling. Raises InputError."""
    for scaling in SCALINGS:
        if word == scaling:
            return scaling
    raise InputError("scaling", repr(word), choices(SCALINGS), nearest(word, SCALINGS))


class Scaled(nn.Module):
    """A net with its scaling: pixels, uint8 [n, h, w, c] → logits [n, classes]."""

    scale: Tensor
    shift: Tensor

    def __init__(self, net: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.net = net
        numbers = scale_and_shift(preprocessing.mean, preprocessing.std, torch.float32, torch.device("cpu"))
        for name, tensor in zip(("scale", "shift"), numbers, strict=True):
            self.register_buffer(name, tensor.clone())

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits of `pixels`: the net's own of `(pixels / 255 - mean) / std`."""
        # Contiguous, or pooling's shortcut for channels that come last is traced: strides, that no other has.
        images = pixels.permute(0, 3, 1, 2).contiguous().to(torch.float32)
        logits: Tensor = self.net(images * self.scale + self.shift)
        return logits


def prepared(net: Network) -> Network:
    """Return a copy of `net` as it is exported: in evaluation mode, float32, on the CPU, folded.

    Whatever device, precision, memory order and mode `net` has; it is left as it is.
    """
    weight = next(net.parameters())
    wide = torch.promote_types(weight.dtype, torch.float32)  # folded in half precision it would be another net
    made = assemble(net.spec, dtype=wide)
    made.load_state_dict(net.state_dict())
    return fold(made).float().eval()


def graph(model: Model, scaling: Scaling = "inside") -> nn.Module:
    """Return what is exported as a module: `prepared`, with the scaling before it or not. Raises InputError."""
    net = prepared(model.net)
    return Scaled(net, model.preprocessing).eval() if scaling_of(scaling) == "inside" else net


def example(model: Model, scaling: Scaling = "inside", n: int = 2) -> Tensor:
    """Return an input of the right shape and kind: `n` black pictures."""
    size, channels = model.preprocessing.size, model.preprocessing.channels
    if scaling == "inside":
        return torch.zeros(n, size, size, channels, dtype=torch.uint8)
    return torch.zeros(n, channels, size, size)


def fed(pixels: Pixels, preprocessing: Preprocessing, scaling: Scaling) -> npt.NDArray[Any]:
    """Return what the graph is given for `pixels` [n, h, w, c]: themselves, or scaled [n, c, h, w]."""
    if scaling == "inside":
        return pixels
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    scaled: npt.NDArray[Any] = normalise(images, preprocessing).numpy()
    return scaled


def program(model: Model, scaling: Scaling = "inside") -> torch.export.ExportedProgram:
    """Return the graph as PyTorch's exported program; its batch is free. Raises InputError."""
    with torch.no_grad(), silence():
        made = torch.export.export(
            graph(model, scaling),
            (example(model, scaling),),
            dynamic_shapes=({0: torch.export.Dim(BATCH, min=1)},),
            strict=False,
        )
    for node in made.graph.nodes:
        node.meta.pop("stack_trace", None)  # the paths of this machine's files
    return made


def onnx_model(model: Model, scaling: Scaling = "inside") -> onnx.ModelProto:
    """Return the graph as ONNX; its nodes are called as the net's parts are. Raises InputError."""
    library, made = need("onnx", "export to ONNX"), lowering.Graph()
    name, size, channels = INPUTS[scaling_of(scaling)], model.preprocessing.size, model.preprocessing.channels
    x = lowering.Value(name, channels, size)
    if scaling == "inside":
        x = _scaled(made, model.preprocessing, x)
    lowering.lower(made, prepared(model.net), x)
    made.nodes[-1].output[0] = OUTPUT
    kinds, tensor = library.TensorProto, library.helper.make_tensor_value_info
    kind, shape = (
        (kinds.UINT8, [BATCH, size, size, channels])
        if scaling == "inside"
        else (kinds.FLOAT, [BATCH, channels, size, size])
    )
    body = library.helper.make_graph(
        made.nodes,
        model.net.spec.name,
        [tensor(name, kind, shape)],
        [tensor(OUTPUT, kinds.FLOAT, [BATCH, len(model.classes)])],
        list(made.tensors.values()),
    )
    proto: onnx.ModelProto = library.helper.make_model(
        body,
        opset_imports=[library.helper.make_opsetid("", lowering.OPSET)],
        ir_version=lowering.IR,
        producer_name="deepskip",
        producer_version=__version__,
    )
    return proto


def _scaled(made: lowering.Graph, preprocessing: Preprocessing, x: lowering.Value) -> lowering.Value:
    """Add what `Scaled` does to pixels before the net."""
    x = made.then("Transpose", "input", x, perm=[0, 3, 1, 2])
    x = made.then("Cast", "input", x, to=made.onnx.TensorProto.FLOAT)
    numbers = scale_and_shift(preprocessing.mean, preprocessing.std, torch.float32, torch.device("cpu"))
    for kind, own, tensor in zip(("Mul", "Add"), ("scale", "shift"), numbers, strict=True):
        x = made.then(kind, "input", x, made.tensor(f"input.{own}", tensor.numpy()))
    return x


def onnx_bytes(model: Model, scaling: Scaling = "inside") -> bytes:
    """Return the graph as the content of an ONNX file, without metadata. Raises InputError."""
    return bytes(onnx_model(model, scaling).SerializeToString(deterministic=True))


def openvino_model(model: Model, scaling: Scaling = "inside") -> openvino.Model:
    """Return the graph as OpenVINO's. Raises InputError."""
    # Through ONNX: so there is one graph, under the net's own names.
    return openvino_of(onnx_bytes(model, scaling))


def openvino_of(content: bytes) -> openvino.Model:
    """Return the graph in an ONNX file's `content` as OpenVINO's, simplified. Raises InputError."""
    return plainly_named(need("openvino", "OpenVINO").convert_model(io.BytesIO(content)))


def plainly_named(made: openvino.Model) -> openvino.Model:
    """Return OpenVINO's graph `made` with names that do not depend on what this process made before it."""
    for i, node in enumerate(made.get_ordered_ops()):
        name = node.get_friendly_name()
        if re.fullmatch(r"[A-Z]\w*_\d+", name):  # its kind, and how many nodes there had been
            node.set_friendly_name(f"{name.rpartition('_')[0]}.{i}")
    return made


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep what the exporter says about its own inside from users' eyes."""
    loggers = [logging.getLogger(name) for name in ("torch.export", "torch.fx")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
