"""A net, part by part, as the nodes of an ONNX graph: what each part computes in evaluation, under its name.

PyTorch's own exporter takes seconds where this takes milliseconds, a minute for a thousand layers, and numbers
the nodes. A part that is not known here is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from deepskip.errors import InputError
from deepskip.extras import need
from deepskip.nets import parts
from deepskip.nets.block import ResidualBlock
from deepskip.nets.network import Network

OPSET = 18
"""Version of ONNX's operators: that of December 2022, which current runtimes all have."""
IR = 8
"""Version of the file's layout that goes with it."""
FAR = 2**31 - 1
"""An end beyond every image's."""


@dataclass(frozen=True)
class Value:
    """A tensor on its way through the graph."""

    name: str
    channels: int
    side: int
    """Height and width, in pixels; 0 of what is [n, c]."""


class Graph:
    """Nodes and initial values of an ONNX graph that is being made."""

    def __init__(self) -> None:
        self.onnx = need("onnx", "ONNX")
        self.nodes: list[Any] = []
        self.tensors: dict[str, Any] = {}
        self._taken: dict[str, int] = {}

    def node(self, kind: str, part: str, *inputs: str, outputs: int = 1, **attributes: Any) -> list[str]:
        """Add a node of a `part` of the net, and return the names of its outputs."""
        self._taken[part] = self._taken.get(part, 0) + 1
        name = part if self._taken[part] == 1 else f"{part}.{self._taken[part]}"
        made = [name] if outputs == 1 else [f"{name}:{i}" for i in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, made, name=name, **attributes))
        return made

    def tensor(self, name: str, values: npt.ArrayLike, dtype: Any = np.float32) -> str:
        """Add a constant, and return its name."""
        self.tensors[name] = self.onnx.numpy_helper.from_array(np.asarray(values, dtype), name)
        return name

    def then(self, kind: str, part: str, x: Value, *others: str, **attributes: Any) -> Value:
        """Add a node that leaves the number of channels as it is."""
        return Value(self.node(kind, part, x.name, *others, **attributes)[0], x.channels, x.side)


Unary = Callable[[Graph, str, Any, Value], Value]
Binary = Callable[[Graph, str, Any, Value, Value], Value]


def lower(graph: Graph, net: Network, x: Value) -> Value:
    """Add `net` to `graph`, which reads `x`; return its logits. Raises InputError for a part not known here."""
    x = one(graph, "stem", net.stem, x)
    for stage, blocks in net.stages.items():
        for name, block in blocks.named_children():
            x = one(graph, f"stages.{stage}.{name}", block, x)
    return one(graph, "head", net.head, x)


def one(graph: Graph, name: str, part: nn.Module, x: Value) -> Value:
    """Add the part called `name`, of one input."""
    if type(part) not in UNARY:
        raise InputError(name, f"a {type(part).__name__}", "parts that deepskip's own nets are made of")
    return UNARY[type(part)](graph, name, part, x)


def two(graph: Graph, name: str, part: nn.Module, shortcut: Value, branch: Value) -> Value:
    """Add the junction called `name`."""
    if type(part) not in BINARY:
        raise InputError(name, f"a {type(part).__name__}", "junctions that deepskip's own nets have")
    return BINARY[type(part)](graph, name, part, shortcut, branch)


# --- parts of one input -------------------------------------------------------------------------------------


def _sequence(graph: Graph, name: str, part: nn.Sequential, x: Value) -> Value:
    for own, inner in part.named_children():
        x = one(graph, f"{name}.{own}", inner, x)
    return x


def _block(graph: Graph, name: str, part: ResidualBlock, x: Value) -> Value:
    h = one(graph, f"{name}.before", part.before, x)
    shortcut = one(graph, f"{name}.shortcut", part.shortcut, h)
    branch = one(graph, f"{name}.branch", part.branch, h)
    return one(
        graph, f"{name}.after", part.after, two(graph, f"{name}.junction", part.junction, shortcut, branch)
    )


def _identity(graph: Graph, name: str, part: nn.Module, x: Value) -> Value:
    return x


def _conv(graph: Graph, name: str, part: nn.Conv2d, x: Value) -> Value:
    pad, stride = int(part.padding[0]), part.stride[0]
    weights = [graph.tensor(f"{name}.{key}", _array(t)) for key, t in part.named_parameters()]
    made = graph.node(
        "Conv",
        name,
        x.name,
        *weights,
        kernel_shape=list(part.kernel_size),
        pads=[pad] * 4,
        strides=[stride] * 2,
        group=part.groups,
    )
    return Value(made[0], part.out_channels, (x.side + 2 * pad - part.kernel_size[0]) // stride + 1)


def _batch_norm(graph: Graph, name: str, part: nn.BatchNorm2d, x: Value) -> Value:
    tensors = ("weight", "bias", "running_mean", "running_var")
    numbers = [graph.tensor(f"{name}.{key}", _array(getattr(part, key))) for key in tensors]
    return graph.then("BatchNormalization", name, x, *numbers, epsilon=part.eps)


def _group_norm(graph: Graph, name: str, part: nn.GroupNorm, x: Value) -> Value:
    # As PyTorch's exporter has it: a group is one channel of an image of one row.
    rows = graph.tensor(f"{name}.rows", [0, part.num_groups, -1], np.int64)
    whole = graph.tensor(f"{name}.whole", [0, x.channels, x.side, x.side], np.int64)
    grouped = graph.then("Reshape", name, x, rows)
    ones = graph.tensor(f"{name}.ones", np.ones(part.num_groups))
    zeros = graph.tensor(f"{name}.zeros", np.zeros(part.num_groups))
    normal = graph.then("InstanceNormalization", name, grouped, ones, zeros, epsilon=part.eps)
    normal = graph.then("Reshape", name, normal, whole)
    for kind, key in (("Mul", "weight"), ("Add", "bias")):
        numbers = _array(getattr(part, key)).reshape(1, -1, 1, 1)
        normal = graph.then(kind, name, normal, graph.tensor(f"{name}.{key}", numbers))
    return normal


def _relu(graph: Graph, name: str, part: nn.ReLU, x: Value) -> Value:
    return graph.then("Relu", name, x)


def _max_pool(graph: Graph, name: str, part: nn.MaxPool2d, x: Value) -> Value:
    kernel, stride, pad = (int(number) for number in (part.kernel_size, part.stride, part.padding))  # type: ignore[arg-type]
    made = graph.then("MaxPool", name, x, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4)
    return replace(made, side=(x.side + 2 * pad - kernel) // stride + 1)


def _mean_pool(graph: Graph, name: str, part: nn.AvgPool2d, x: Value) -> Value:
    # Windows at the border are cut, and one larger than the image, which ONNX does not know, is the image.
    window, stride = min(int(part.kernel_size), x.side), int(part.stride)  # type: ignore[arg-type]
    sizes = {"kernel_shape": [window] * 2, "strides": [stride] * 2}
    made = graph.then("AveragePool", name, x, ceil_mode=1, count_include_pad=0, **sizes)
    return replace(made, side=-(-x.side // stride))


def _global_pool(graph: Graph, name: str, part: nn.AdaptiveAvgPool2d, x: Value) -> Value:
    return replace(graph.then("GlobalAveragePool", name, x), side=1)


def _flatten(graph: Graph, name: str, part: nn.Flatten, x: Value) -> Value:
    return Value(graph.node("Flatten", name, x.name)[0], x.channels, 0)


def _linear(graph: Graph, name: str, part: nn.Linear, x: Value) -> Value:
    weights = [graph.tensor(f"{name}.{key}", _array(t)) for key, t in part.named_parameters()]
    return Value(graph.node("Gemm", name, x.name, *weights, transB=1)[0], part.out_features, 0)


def _pad(graph: Graph, name: str, part: parts.PadShortcut, x: Value) -> Value:
    if part.stride > 1:
        where = ("starts", [0, 0]), ("ends", [FAR, FAR]), ("axes", [2, 3]), ("steps", [part.stride] * 2)
        x = graph.then("Slice", name, x, *(graph.tensor(f"{name}.{key}", to, np.int64) for key, to in where))
        x = replace(x, side=-(-x.side // part.stride))
    added = graph.tensor(f"{name}.pads", [0, part.before, 0, 0, 0, part.after, 0, 0], np.int64)
    made = graph.then("Pad", name, x, added)
    return replace(made, channels=x.channels + part.before + part.after)


def _half(graph: Graph, name: str, part: parts.Half, x: Value) -> Value:
    return _halves(graph, name, x)[part.second]


def _squeeze(graph: Graph, name: str, part: parts.SqueezeExcitation, x: Value) -> Value:
    inner = replace(graph.then("GlobalAveragePool", name, x), side=1)
    for own, module in part.named_children():
        inner = one(graph, f"{name}.{own}", module, inner)
    return graph.then("Mul", name, x, inner.name)


def _sigmoid(graph: Graph, name: str, part: nn.Sigmoid, x: Value) -> Value:
    return graph.then("Sigmoid", name, x)


def _bias(graph: Graph, name: str, part: parts.Bias, x: Value) -> Value:
    return graph.then("Add", name, x, _everywhere(graph, f"{name}.bias", part.bias, x))


def _scale(graph: Graph, name: str, part: parts.Scale, x: Value) -> Value:
    return graph.then("Mul", name, x, _everywhere(graph, f"{name}.scale", part.scale, x))


UNARY: dict[type[nn.Module], Unary] = {
    ResidualBlock: _block,
    nn.AdaptiveAvgPool2d: _global_pool,
    nn.AvgPool2d: _mean_pool,
    nn.BatchNorm2d: _batch_norm,
    nn.Conv2d: _conv,
    nn.Flatten: _flatten,
    nn.GroupNorm: _group_norm,
    nn.Identity: _identity,
    nn.Linear: _linear,
    nn.MaxPool2d: _max_pool,
    nn.ReLU: _relu,
    nn.Sequential: _sequence,
    nn.Sigmoid: _sigmoid,
    parts.Bias: _bias,
    parts.GateConv: _conv,
    parts.Half: _half,
    parts.PadShortcut: _pad,
    parts.Scale: _scale,
    parts.SqueezeExcitation: _squeeze,
}


# --- junctions ----------------------------------------------------------------------------------------------


def _sum(graph: Graph, name: str, part: nn.Module, shortcut: Value, branch: Value) -> Value:
    return graph.then("Add", name, shortcut, branch.name)


def _branch_only(graph: Graph, name: str, part: nn.Module, shortcut: Value, branch: Value) -> Value:
    return branch


def _coupled(graph: Graph, name: str, part: parts.CoupledSum, shortcut: Value, branch: Value) -> Value:
    both = list(_halves(graph, name, shortcut))
    both[not part.second] = graph.then("Add", name, both[not part.second], branch.name)
    return replace(graph.then("Concat", name, both[0], both[1].name, axis=1), channels=shortcut.channels)


def _scaled(graph: Graph, name: str, part: parts.ScaledSum, shortcut: Value, branch: Value) -> Value:
    shortcut = graph.then("Mul", name, shortcut, graph.tensor(f"{name}.shortcut_scale", part.shortcut_scale))
    branch = graph.then("Mul", name, branch, graph.tensor(f"{name}.branch_scale", part.branch_scale))
    return graph.then("Add", name, shortcut, branch.name)


def _learned(graph: Graph, name: str, part: parts.LearnedSum, shortcut: Value, branch: Value) -> Value:
    branch = graph.then("Mul", name, branch, graph.tensor(f"{name}.scale", _array(part.scale)))
    return graph.then("Add", name, shortcut, branch.name)


def _exclusive(graph: Graph, name: str, part: parts.ExclusiveGate, shortcut: Value, branch: Value) -> Value:
    kept, gate = _gated(graph, name, part, shortcut)
    return graph.then("Add", name, kept, graph.then("Mul", name, branch, gate.name).name)


def _shortcut_gate(graph: Graph, name: str, part: parts.ShortcutGate, shortcut: Value, branch: Value) -> Value:
    return graph.then("Add", name, _gated(graph, name, part, shortcut)[0], branch.name)


def _thinned(graph: Graph, name: str, part: parts.StochasticDepth, shortcut: Value, branch: Value) -> Value:
    branch = graph.then("Mul", name, branch, graph.tensor(f"{name}.survival", part.survival))
    return two(graph, f"{name}.inner", part.inner, shortcut, branch)


BINARY: dict[type[nn.Module], Binary] = {
    parts.BranchOnly: _branch_only,
    parts.CoupledSum: _coupled,
    parts.DropoutSum: _sum,
    parts.ExclusiveGate: _exclusive,
    parts.LearnedSum: _learned,
    parts.ScaledSum: _scaled,
    parts.ShortcutGate: _shortcut_gate,
    parts.StochasticDepth: _thinned,
    parts.Sum: _sum,
}


# --- what several share -------------------------------------------------------------------------------------


def _gated(graph: Graph, name: str, part: parts.ExclusiveGate, shortcut: Value) -> tuple[Value, Value]:
    """Return (1 - g) · shortcut, and g."""
    gate = graph.then("Sigmoid", name, one(graph, f"{name}.gate", part.gate, shortcut))
    rest = graph.node("Sub", name, graph.tensor(f"{name}.one", 1.0), gate.name)
    return graph.then("Mul", name, shortcut, rest[0]), gate


def _halves(graph: Graph, name: str, x: Value) -> tuple[Value, Value]:
    first, second = graph.node("Split", name, x.name, outputs=2, axis=1, num_outputs=2)
    return Value(first, x.channels // 2, x.side), Value(second, x.channels // 2, x.side)


def _everywhere(graph: Graph, name: str, number: Tensor, x: Value) -> str:
    """Add one number for every channel: right after a convolution it is its bias then, or a kernel's factor."""
    shape = (1, x.channels, 1, 1) if x.side else (1, x.channels)
    return graph.tensor(name, np.full(shape, number.item()))


def _array(tensor: Tensor) -> npt.NDArray[Any]:
    found: npt.NDArray[Any] = tensor.detach().numpy()
    return found
