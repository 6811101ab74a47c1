"""What a network costs, from its Spec alone: layers, parameters, multiplications, memory, reach, paths.

Nothing is built; a law in the tests holds every figure equal to the built network's own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from deepskip.describe.spec import Conv, Shape, Site, Spec


@dataclass(frozen=True)
class Line:
    """The cost of one part of the network: the stem, a block or the head."""

    name: str
    """Qualified name: `stem`, `stages.<stage>.<block>` or `head`."""
    inputs: Shape
    outputs: Shape
    layers: int
    """Layers as papers count them: shortcuts' projections are not counted."""
    params: int
    """Trainable numbers."""
    macs: int
    """Multiply–accumulate operations for one image, in convolutions and the linear layer."""
    floats: int
    """Floating-point values for one image that training keeps for the backward pass."""
    indices: int = 0
    """64-bit indices for one image that training keeps (max-pooling's)."""


@dataclass(frozen=True)
class Ledger:
    """The cost of a whole network, with a line for each part."""

    lines: tuple[Line, ...]
    receptive_field: int
    """Side, in input pixels, of the square that one value before the final pooling depends on."""
    blocks: int
    """Number of blocks."""
    shortcuts: bool
    """Whether blocks have shortcuts."""

    @property
    def layers(self) -> int:
        """Layers as papers count them."""
        return sum(line.layers for line in self.lines)

    @property
    def params(self) -> int:
        """Trainable numbers."""
        return sum(line.params for line in self.lines)

    @property
    def macs(self) -> int:
        """Multiply–accumulate operations for one image."""
        return sum(line.macs for line in self.lines)

    def activation_bytes(self, batch: int = 1, width: int = 4) -> int:
        """Return the bytes training keeps for the backward pass of `batch` images, `width` bytes a value."""
        return batch * sum(width * line.floats + 8 * line.indices for line in self.lines)

    def paths(self) -> list[int]:
        """Return how many paths from input to output go through exactly k branches, for k = 0 … blocks.

        A residual net of n blocks is 2ⁿ paths whose lengths are binomial (Veit et al. 2016,
        arXiv:1605.06431, §3); a plain net is one path.
        """
        if not self.shortcuts:
            return [0] * self.blocks + [1]
        return [math.comb(self.blocks, k) for k in range(self.blocks + 1)]


def count(spec: Spec) -> Ledger:
    """Return what `spec` costs. Nothing is built."""
    sites = list(spec.sites())
    lines = (_stem(spec), *(_block(spec, site) for site in sites), _head(spec, sites[-1].outputs))
    return Ledger(lines, _receptive_field(spec), len(sites), not spec.is_plain)


def _conv_params(channels: int, conv: Conv) -> int:
    return channels // conv.groups * conv.kernel**2 * conv.channels


def _norm_params(channels: int) -> int:
    return 2 * channels


def _chain(shape: Shape, convs: Sequence[Conv]) -> list[Shape]:
    shapes = [shape]
    for conv in convs:
        shapes.append(shapes[-1].shrink(conv.channels, conv.stride))
    return shapes


def _convs_cost(shapes: Sequence[Shape], convs: Sequence[Conv]) -> tuple[int, int]:
    params = macs = 0
    for (before, after), conv in zip(itertools.pairwise(shapes), convs, strict=True):
        weights = _conv_params(before.channels, conv)
        params += weights
        macs += weights * after.height * after.width
    return params, macs


def _stem(spec: Spec) -> Line:
    convs, shapes = spec.stem.convs, spec.stem_shapes()
    after = shapes[1 : len(convs) + 1]
    params, macs = _convs_cost(shapes[: len(convs) + 1], convs)
    normed = after if spec.order == "post" else after[:-1]  # a "pre" net's last norm-ReLU is its first block's
    params += sum(_norm_params(shape.channels) for shape in normed)
    # Kept: the image; each convolution's output (its normaliser's input) and each ReLU's output. A pool keeps
    # its indices, and its output is the first block's input.
    floats = shapes[0].values + sum(shape.values for shape in after) + sum(shape.values for shape in normed)
    pooled = shapes[-1] if spec.stem.pool else None
    floats += pooled.values if pooled else 0
    indices = pooled.values if pooled else 0
    return Line("stem", shapes[0], shapes[-1], len(convs), params, macs, floats, indices)


def _block(spec: Spec, site: Site) -> Line:
    convs = site.block.convs
    shapes = _chain(site.inputs, convs)
    params, macs = _convs_cost(shapes, convs)
    # A normaliser follows each convolution ("post") or precedes it ("pre"; the first may be shared, `before`).
    normed = shapes[1:] if spec.order == "post" else shapes[:-1]
    params += sum(_norm_params(shape.channels) for shape in normed)
    # Kept, beside the block's input: "post", every convolution's output and every ReLU's, the last of which
    # is the block's output; "pre", every ReLU's output, the convolutions' between, and the sum.
    inner, out = sum(shape.values for shape in shapes[1:-1]), shapes[-1].values
    floats = 2 * inner + 2 * out if spec.order == "post" else shapes[0].values + 2 * inner + out
    if site.shortcut == "projection":
        weights = site.inputs.channels * site.outputs.channels
        params += weights
        macs += weights * site.outputs.height * site.outputs.width
        if spec.order == "post":
            params += _norm_params(site.outputs.channels)
            floats += site.outputs.values
    return Line(site.name, site.inputs, site.outputs, len(convs), params, macs, floats)


def _head(spec: Spec, shape: Shape) -> Line:
    weights = shape.channels * spec.classes
    params, floats = weights + spec.classes, shape.channels
    if spec.order == "pre":
        params += _norm_params(shape.channels)
        floats += shape.values
    return Line("head", shape, Shape(spec.classes, 1, 1), 1, params, weights, floats)


def _receptive_field(spec: Spec) -> int:
    steps = [(conv.kernel, conv.stride) for conv in spec.stem.convs]
    steps += [(3, 2)] if spec.stem.pool else []
    steps += [(conv.kernel, conv.stride) for _, block in spec.blocks() for conv in block.convs]
    reach = jump = 1
    for kernel, stride in steps:
        reach += (kernel - 1) * jump
        jump *= stride
    return reach
