"""What a network costs, from its Spec alone: layers, parameters, multiplications, memory, reach, paths.

Nothing is built; a law in the tests holds every figure equal to the built network's own.
"""

from __future__ import annotations

from dataclasses import dataclass

from deepskip.describe.spec import ARRANGEMENTS, Conv, Shape, Site, Spec, norm_groups, squeezed


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
        found = [1]
        for k in range(self.blocks):  # each from the one before: of thousands of blocks, all anew take seconds
            found.append(found[-1] * (self.blocks - k) // (k + 1))
        return found


def count(spec: Spec) -> Ledger:
    """Return what `spec` costs. Nothing is built."""
    walk = _Walk(spec)
    sites = list(spec.sites())
    lines = [walk.stem()]
    lines += [walk.block(site) for site in sites]
    lines.append(walk.head())
    return Ledger(tuple(lines), _receptive_field(spec), len(sites), not spec.is_plain)


class _Tensor:
    """A value on the way through the network; `kept` once something needs it for the backward pass."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.kept = False


class _Walk:
    """Goes through the network layer by layer, without numbers, and adds up what each costs.

    What PyTorch keeps for the backward pass: a convolution, a normaliser, a pooling and the linear layer keep
    their input; a ReLU and a sigmoid their output; a product both factors. A sum, a shift and a slice keep
    nothing. A tensor that several keep is there once.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.x = _Tensor(Shape(*spec.input))
        self._begin()

    def _begin(self) -> None:
        self.layers = self.params = self.macs = self.floats = self.indices = 0

    def _line(self, name: str, inputs: Shape, outputs: Shape) -> Line:
        line = Line(name, inputs, outputs, self.layers, self.params, self.macs, self.floats, self.indices)
        self._begin()
        return line

    def _keep(self, x: _Tensor) -> None:
        if not x.kept:
            x.kept = True
            self.floats += x.shape.values

    # --- layers ---

    def conv(self, x: _Tensor, conv: Conv, *, bias: bool = False) -> _Tensor:
        self._keep(x)
        out = _Tensor(x.shape.shrink(conv.channels, conv.stride))
        weights = x.shape.channels // conv.groups * conv.kernel**2 * conv.channels
        self.params += weights + (conv.channels if bias else 0)
        self.macs += weights * out.shape.height * out.shape.width
        return out

    def norm(self, x: _Tensor) -> _Tensor:
        if self.spec.norm in ("none", "fixup"):
            return x
        self._keep(x)
        self.params += 2 * x.shape.channels
        if self.spec.norm in ("group", "layer"):  # a mean and a deviation for each image and group
            self.floats += 2 * norm_groups(self.spec, x.shape.channels)
        return _Tensor(x.shape)

    def relu(self, x: _Tensor) -> _Tensor:
        out = _Tensor(x.shape)
        self._keep(out)
        return out

    def scalar(self, x: _Tensor, *, scales: bool = False) -> _Tensor:
        self.params += 1
        if scales:
            self._keep(x)
        return _Tensor(x.shape)

    def run(self, x: _Tensor, conv: Conv, order: str, *, before: bool = False, last: bool = False) -> _Tensor:
        """Follow `order`, as `Spec.orders` spells it, with Fixup's scalars."""
        fixup = self.spec.norm == "fixup"
        for sign in order:
            if sign in "cb":
                self.layers += 1
                x = self.scalar(x) if fixup and before else x
                x = self.conv(x, conv, bias=sign == "b")
                x = self.scalar(x, scales=True) if fixup and last else x
                x = self.scalar(x) if fixup else x
            else:
                x = self.norm(x) if sign == "n" else self.relu(x)
        return x

    def tail(self, x: _Tensor, order: str) -> _Tensor:
        for sign in order:
            x = self.norm(x) if sign == "n" else self.relu(x)
        return x

    # --- parts ---

    def stem(self) -> Line:
        spec, inputs = self.spec, self.x.shape
        for conv, order in zip(spec.stem.convs, spec.orders(), strict=True):
            self.x = self.run(self.x, conv, order)
        if spec.stem.pool:
            self._keep(self.x)
            self.x = _Tensor(self.x.shape.shrink(self.x.shape.channels, 2))
            self.indices += self.x.shape.values
        return self._line("stem", inputs, self.x.shape)

    def block(self, site: Site) -> Line:
        inputs, count = self.x.shape, len(site.block.convs)
        x = self.tail(self.x, self.spec.before(site))
        branch = x if site.block.reads == "all" else _Tensor(site.read)
        for i, (conv, order) in enumerate(zip(site.block.convs, self.spec.orders(site), strict=True), 1):
            branch = self.run(branch, conv, order, before=True, last=i == count)
        if self.spec.squeeze:
            branch = self._squeeze(branch)
        joined = self._junction(site, self._shortcut(site, x), branch)
        self.x = self.tail(joined, ARRANGEMENTS[self.spec.order].after)
        return self._line(site.name, inputs, site.outputs)

    def _shortcut(self, site: Site, x: _Tensor) -> _Tensor:
        if site.shortcut == "pad":
            return _Tensor(site.outputs)
        if site.shortcut != "projection":
            return x
        stride = site.block.stride
        if self.spec.projection == "pool" and stride > 1:
            self._keep(x)
            x, stride = _Tensor(x.shape.shrink(x.shape.channels, stride)), 1
        conv = Conv(channels=site.outputs.channels, kernel=1, stride=stride)
        x = self.scalar(x) if self.spec.norm == "fixup" else x
        x = self.conv(x, conv, bias=self.spec.projects_with_bias)
        return x if self.spec.order == "pre" or self.spec.norm == "folded" else self.norm(x)

    def _junction(self, site: Site, shortcut: _Tensor, branch: _Tensor) -> _Tensor:
        kind, out = self.spec.junction.kind, _Tensor(site.outputs)
        if site.shortcut == "none":
            return branch
        if self.spec.survival < 1:
            branch = _Tensor(branch.shape)  # times a number that is not trained: nothing is kept
        if kind == "learned":
            self.params += 1
            self._keep(branch)
        elif kind in ("exclusive_gate", "shortcut_gate"):
            gate = self.conv(shortcut, Conv(channels=out.shape.channels, kernel=1), bias=True)
            self._keep(gate)  # its sigmoid, of the same size
            complement = _Tensor(gate.shape)
            for factor in (complement, shortcut, *((branch,) if kind == "exclusive_gate" else ())):
                self._keep(factor)
        elif kind == "dropout":
            self._keep(_Tensor(shortcut.shape))  # the mask
        return out

    def _squeeze(self, x: _Tensor) -> _Tensor:
        channels = x.shape.channels
        mean = _Tensor(Shape(channels, 1, 1))
        narrow = self.conv(mean, Conv(channels=squeezed(self.spec, channels), kernel=1), bias=True)
        gate = self.conv(self.relu(narrow), Conv(channels=channels, kernel=1), bias=True)
        self._keep(gate)  # its sigmoid, of the same size
        self._keep(x)
        return _Tensor(x.shape)

    def head(self) -> Line:
        inputs = self.x.shape
        x = self.tail(self.x, ARRANGEMENTS[self.spec.order].head)
        pooled = _Tensor(Shape(x.shape.channels, 1, 1))
        pooled = self.scalar(pooled) if self.spec.norm == "fixup" else pooled
        self._keep(pooled)
        weights = x.shape.channels * self.spec.classes
        self.layers, self.params, self.macs = 1, self.params + weights + self.spec.classes, weights
        return self._line("head", inputs, Shape(self.spec.classes, 1, 1))


def _receptive_field(spec: Spec) -> int:
    low = high = 0  # offsets, in input pixels, of the outermost pixels that one value depends on
    jump = 1  # input pixels between neighbouring values
    for conv in spec.stem.convs:
        low, high = low - conv.kernel // 2 * jump, high + conv.kernel // 2 * jump
        jump *= conv.stride
    if spec.stem.pool:
        low, high, jump = low - jump, high + jump, 2 * jump
    halves = [(low, high)] * 2  # of the channels; they differ where branches read one of them
    for site in spec.sites():
        start = jump
        read = halves if site.block.reads == "all" else [halves[site.block.reads == "second"]]
        low, high = min(low for low, _ in read), max(high for _, high in read)
        for conv in site.block.convs:
            low, high = low - conv.kernel // 2 * jump, high + conv.kernel // 2 * jump
            jump *= conv.stride
        halves = _joined(spec, site, halves, (low, high), start)
    return max(high for _, high in halves) - min(low for low, _ in halves) + 1


def _joined(
    spec: Spec, site: Site, halves: list[tuple[int, int]], branch: tuple[int, int], jump: int
) -> list[tuple[int, int]]:
    """Return the outermost pixels that each half depends on after the junction."""
    if site.shortcut == "none":
        return [branch] * 2
    if site.shortcut == "projection":
        pooled = (site.block.stride - 1) * jump if spec.projection == "pool" else 0
        halves = [(min(low for low, _ in halves), max(high for _, high in halves) + pooled)] * 2
    added = {"all": (0, 1), "first": (1,), "second": (0,)}[site.block.reads]
    return [
        (min(low, branch[0]), max(high, branch[1])) if i in added else (low, high)
        for i, (low, high) in enumerate(halves)
    ]
