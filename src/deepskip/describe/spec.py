"""A residual network as a frozen value: stem, stages, every block, shortcut, activation order, initial values.

Everything else in deepskip is a function of a `Spec`. Blocks are listed, not counted: each has an id that
stays its own when others are grown or pruned, so weights and hooks keep their names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from deepskip.describe.value import Value
from deepskip.errors import InputError

Positive = Annotated[int, Field(ge=1)]
Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
Shortcut = Literal["A", "B", "C", "none"]
Order = Literal["post", "norm_after", "relu_before", "relu_only", "pre"]
Norm = Literal["batch", "group", "layer", "none", "fixup", "folded"]
Initial = Literal["he_fan_out", "he_fan_in", "fixup", "delta_orthogonal", "pytorch"]
First = Literal["shared", "own"]
Reads = Literal["all", "first", "second"]


class Arrangement(NamedTuple):
    """Where normalisers ("n"), ReLUs ("r") and convolutions ("c") stand, in order."""

    each: str
    """Round every convolution of a branch but the last."""
    last: str
    """Round a branch's last convolution."""
    after: str
    """After the junction."""
    stem: str
    """After the stem's last convolution (the others have "nr")."""
    head: str
    """Before the final pooling."""


ARRANGEMENTS: dict[Order, Arrangement] = {
    "post": Arrangement("cnr", "cn", "r", "nr", ""),
    "norm_after": Arrangement("cnr", "c", "nr", "nr", ""),
    "relu_before": Arrangement("cnr", "cnr", "", "nr", ""),
    "relu_only": Arrangement("rcn", "rcn", "", "n", "r"),
    "pre": Arrangement("nrc", "nrc", "", "", "nr"),
}
"""The five orders of He et al. 2016, arXiv:1603.05027, figure 4 (a) to (e), table 2."""


class Shape(NamedTuple):
    """One image's tensor, without the batch dimension: [c, h, w]."""

    channels: int
    height: int
    width: int

    @property
    def values(self) -> int:
        """How many numbers the tensor holds."""
        return self.channels * self.height * self.width

    def shrink(self, channels: int, stride: int) -> Shape:
        """Return the shape after an odd, padded convolution: ⌈h / stride⌉ × ⌈w / stride⌉."""
        return Shape(channels, -(-self.height // stride), -(-self.width // stride))

    def __str__(self) -> str:
        return f"{self.channels}×{self.height}×{self.width}"


class Conv(Value):
    """One convolution, padded by kernel // 2 and without a bias: the normaliser after it has one."""

    channels: Positive
    """Output channels."""
    kernel: Positive = 3
    """Height and width of the kernel; odd, so that padding keeps the image centred."""
    stride: Positive = 1
    """Step between outputs, in input pixels."""
    groups: Positive = 1
    """Number of groups the channels are split into."""

    @model_validator(mode="after")
    def _agree(self) -> Conv:
        if self.kernel % 2 == 0:
            raise InputError("kernel", self.kernel, "an odd number", self.kernel + 1)
        if self.channels % self.groups:
            raise InputError("groups", self.groups, f"a divisor of channels = {self.channels}")
        return self


class Block(Value):
    """One residual block: a branch of convolutions and the shortcut that jumps over them.

    Two 3×3 convolutions are the basic block, 1×1 – 3×3 – 1×1 the bottleneck (He et al. 2015, figure 5); any
    number of layers per skip is allowed.
    """

    id: Identifier
    """The block's own name within its stage."""
    convs: Annotated[tuple[Conv, ...], Field(min_length=1)]
    """The branch's convolutions, in order."""
    reads: Reads = "all"
    """What the branch reads: all channels, or the "first" or "second" half of them. A half's branch is added to
    the other half and the half that was read goes on as it is, so that the block's input can be computed from
    its output (additive coupling: Gomez et al. 2017, arXiv:1707.04585, equation 6, whose block is two of
    these). Its convolutions then have half of the block's channels."""

    @property
    def channels(self) -> int:
        """Output channels of the block."""
        return self.convs[-1].channels * (1 if self.reads == "all" else 2)

    @property
    def stride(self) -> int:
        """Input pixels per output pixel of the block."""
        return math.prod(conv.stride for conv in self.convs)


class Junction(Value):
    """How a residual block joins its shortcut s and its branch f."""

    kind: Literal["sum", "scaled", "learned", "exclusive_gate", "shortcut_gate", "dropout"] = "sum"
    """"sum", s + f (He et al. 2015, equation 1). From He et al. 2016, §3.1, table 1: "scaled",
    shortcut_scale · s + branch_scale · f; "exclusive_gate", (1 - g) s + g f; "shortcut_gate", (1 - g) s + f,
    with g = σ(W s + gate_bias), W a 1×1 convolution; "dropout", dropout(s) + f. "learned", s + α f with a
    trained number α that begins at branch_scale (ReZero: Bachlechner et al. 2020, arXiv:2003.04887; SkipInit:
    De and Smith 2020, arXiv:2002.10444)."""
    shortcut_scale: float = 1.0
    branch_scale: float = 1.0
    gate_bias: float = 0.0
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the shortcut's values that "dropout" puts to zero in training."""

    @model_validator(mode="after")
    def _agree(self) -> Junction:
        uses = {
            "sum": (),
            "scaled": ("shortcut_scale", "branch_scale"),
            "learned": ("branch_scale",),
            "exclusive_gate": ("gate_bias",),
            "shortcut_gate": ("gate_bias",),
            "dropout": ("rate",),
        }[self.kind]
        for name, field in Junction.model_fields.items():
            if name != "kind" and name not in uses and getattr(self, name) != field.default:
                raise InputError(
                    name, getattr(self, name), f"{field.default}; a {self.kind!r} junction has none"
                )
        return self


class Stage(Value):
    """A run of blocks; by convention all of one width, the first of which changes the dimensions."""

    id: Identifier
    """The stage's own name within the network."""
    blocks: Annotated[tuple[Block, ...], Field(min_length=1)]
    """The stage's blocks, in order."""


class Stem(Value):
    """The layers before the first block."""

    convs: Annotated[tuple[Conv, ...], Field(min_length=1)]
    """Convolutions, each followed by a normaliser and a ReLU (the last one as the Spec's order says)."""
    pool: bool = False
    """Whether a 3×3 max-pool of stride 2 follows (the ImageNet stem)."""


@dataclass(frozen=True)
class Site:
    """A block in its place: what it is, what comes in and what goes out."""

    name: str
    """The block's qualified name, `stages.<stage>.<block>`."""
    block: Block
    inputs: Shape
    outputs: Shape
    shortcut: Literal["identity", "pad", "projection", "none"]
    """What the shortcut does here; "none" in a plain net."""
    survival: float
    """Probability that the branch is kept in a training step; 1 without stochastic depth."""
    shared: Literal["", "nr", "r"] = ""
    """What stands before the fork and so feeds the shortcut too: "nr", the branch's first normaliser and ReLU,
    "r", its first ReLU, or nothing. The one place for the rule; the branch then begins without these. In "pre"
    nets it is so wherever dimensions change (He et al. 2016, §4.1 and the authors' code), and in the first
    block of "pre" and "relu_only" nets (their appendix: "we adopt the first activation right after conv1 and
    before splitting into two paths"), but for `Spec.first` "own"; in plain nets too, so that the twin's tensors
    keep their names. A block whose branch reads a half shares nothing."""

    @property
    def changes(self) -> bool:
        """Whether the block changes the dimensions (a convolution block) or keeps them (an identity block)."""
        return changes(self.inputs.channels, self.block)

    @property
    def read(self) -> Shape:
        """What the branch reads: the input, or half of its channels."""
        return (
            self.inputs
            if self.block.reads == "all"
            else self.inputs._replace(channels=self.inputs.channels // 2)
        )

    @property
    def reversible(self) -> bool:
        """Whether the block's input can be computed from its output."""
        return self.block.reads != "all" and self.shortcut == "identity"


def changes(in_channels: int, block: Block) -> bool:
    """Return whether `block` changes the dimensions of an input of `in_channels` channels."""
    return in_channels != block.channels or block.stride != 1


def squeezed(spec: Spec, channels: int) -> int:
    """Return how many channels the squeeze-and-excitation of a block of `channels` has inside."""
    assert spec.squeeze is not None
    if spec.squeeze_multiple == 1:
        return channels // spec.squeeze
    step = spec.squeeze_multiple
    return max(step, int(channels / spec.squeeze + step / 2) // step * step)


def norm_groups(spec: Spec, channels: int) -> int:
    """Return how many groups a "group" or "layer" normaliser splits `channels` into."""
    return 1 if spec.norm == "layer" else math.gcd(spec.norm_groups, channels)


class Spec(Value):
    """A whole network, as a value: prints, compares, hashes, round-trips JSON.

    Sources: He et al. 2015, arXiv:1512.03385 (blocks, options A, B and C, stems); He et al. 2016,
    arXiv:1603.05027 (orders, junctions); the fields below name the others.
    """

    base: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
    """Name of the residual net; the twin's is made from it, so that the twin differs in one field only."""
    input: tuple[Positive, Positive, Positive]
    """Channels, height and width of one input image."""
    classes: Positive
    """Number of outputs."""
    stem: Stem
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    shortcut: Shortcut = "B"
    """Where dimensions change: "A" pads with zeros (no parameters), "B" projects by a 1×1 convolution; "C"
    projects in every block. "none" is a plain net: no block has a shortcut, or reads a half."""
    order: Order = "post"
    """Where normalisers and ReLUs stand: "post", ReLU after the addition (2015); "pre", both before each
    convolution (2016); and the three others of He et al. 2016, table 2."""
    first: First = "shared"
    """In "pre" and "relu_only" nets, whether the first block's shortcut reads what comes after the block's
    first activation, "shared" (He et al. 2016, appendix), or the block's input, "own": as timm has it in basic
    pre-activation nets, and wide residual networks where the first block keeps its dimensions."""
    norm: Norm = "batch"
    """Normaliser: "batch"; "group" of `norm_groups`, or of as many as divide the channels (Wu and He 2018,
    arXiv:1803.08494); "layer", one group; "none", biases instead; "fixup", a scalar bias before each
    convolution of a block and before what follows it, and a scalar multiplier a branch (Zhang et al. 2019,
    arXiv:1901.09321, §3); "folded", a trained net's batch normalisers as evaluation has them: those right after
    a convolution have become its weights and bias, those that come after a sum are there (`surgery.fold`)."""
    norm_groups: Positive = 32
    """Groups of the "group" normaliser, at most."""
    junction: Junction = Junction()
    """How shortcut and branch are joined; a plain net has no junction to speak of."""
    projection: Literal["conv", "pool"] = "conv"
    """How a projection subsamples: by the stride of its 1×1 convolution, or by average pooling before it
    (ResNet-D: He et al. 2018, arXiv:1812.01187, figure 2c)."""
    squeeze: Positive | None = None
    """Reduction of the squeeze-and-excitation at the end of each branch, or none (Hu et al. 2018,
    arXiv:1709.01507; 16 in the paper)."""
    squeeze_multiple: Positive = 1
    """The squeezed channels are rounded down to whole ones, or with more than 1 to the nearest multiple of this
    (8 in timm, whose 64-channel blocks squeeze to 8 and not to 4)."""
    survival: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Probability p_L that the branch of the last of L blocks is kept in a training step; the l-th's is
    1 - l / L · (1 - p_L), falling linearly from 1 at the input, so that the first block's is a step below 1
    (stochastic depth: Huang et al. 2016, arXiv:1603.09382, equation 4)."""
    zero_last: bool = False
    """Whether each branch's last normaliser, or last convolution where none follows, begins at zero (Goyal et
    al. 2017, arXiv:1706.02677, §5.1). Not so in a plain net, which would be a constant and never learn."""
    initial: Initial = "he_fan_out"
    """Rule of the convolutions' initial values: normal, variance 2 / fan (He et al. 2015, arXiv:1502.01852;
    equation 10 for the inputs a value reads, "he_fan_in", equation 14 for the outputs it reaches). "fixup"
    scales these down inside branches and zeroes what ends them (arXiv:1901.09321, §3), but not in a plain net,
    whose branches carry the signal alone. "delta_orthogonal": zero but for the kernel's centre, which is √2
    times a random matrix with orthonormal rows or columns (Xiao et al. 2018, arXiv:1806.05393, algorithm 1, for
    tanh and so without √2). "pytorch": what PyTorch's layers begin with, uniform within ±1/√fan_in, biases
    too."""

    @property
    def name(self) -> str:
        """The network's name: `base`, or for a plain net the same with "plain" in place of "resnet"."""
        if not self.is_plain:
            return self.base
        return self.base.replace("resnet", "plain", 1) if "resnet" in self.base else f"plain_{self.base}"

    @property
    def is_plain(self) -> bool:
        """Whether no block has a shortcut."""
        return self.shortcut == "none"

    @property
    def is_coupled(self) -> bool:
        """Whether some branch reads one half of the channels and is added to the other."""
        return any(block.reads != "all" for _, block in self.blocks())

    @property
    def layers(self) -> int:
        """Layers as papers count them: convolutions of stem and branches and the final linear one."""
        return len(self.stem.convs) + sum(len(block.convs) for _, block in self.blocks()) + 1

    def blocks(self) -> Iterator[tuple[Stage, Block]]:
        """Yield every block with its stage, in order."""
        for stage in self.stages:
            for block in stage.blocks:
                yield stage, block

    def plain(self) -> Spec:
        """Return the plain twin: the same network without shortcuts. One field differs."""
        return self.replace(shortcut="none")

    def sites(self) -> Iterator[Site]:
        """Yield every block in its place, with shapes."""
        shape = self.stem_shapes()[-1]
        total = sum(len(stage.blocks) for stage in self.stages)
        for i, (stage, block) in enumerate(self.blocks(), 1):
            out = shape
            for conv in block.convs:
                out = out.shrink(conv.channels, conv.stride)
            out = out._replace(channels=block.channels)
            changed = changes(shape.channels, block)
            survival = 1 - i / total * (1 - self.survival)
            yield Site(
                name=f"stages.{stage.id}.{block.id}",
                block=block,
                inputs=shape,
                outputs=out,
                shortcut=self._shortcut(changed),
                survival=survival,
                shared=self._shared(changed, first=i == 1) if block.reads == "all" else "",
            )
            shape = out

    def orders(self, site: Site | None = None) -> list[str]:
        """Return what stands round each convolution of the branch at `site`, or else of the stem.

        "c" a convolution, "b" one with a bias, "n" a normaliser, "r" a ReLU; without what is before the fork.
        """
        arrangement = ARRANGEMENTS[self.order]
        if site is None:
            found = ["cnr"] * (len(self.stem.convs) - 1) + [f"c{arrangement.stem}"]
            after = "" if self.stem.pool else next(self.sites()).shared
        else:
            found = [arrangement.each] * (len(site.block.convs) - 1) + [arrangement.last]
            found[0], after = found[0].removeprefix(site.shared), ""
        if self.norm == "none":
            return [order.replace("c", "b") for order in found]
        if self.norm == "folded":
            return re.sub(r"c( ?)n", r"b\1", " ".join([*found, after])).split(" ")[:-1]
        return found

    def before(self, site: Site) -> str:
        """Return what stands before the fork at `site`: what is shared, unless it was folded into the stem."""
        folded = self.norm == "folded" and not self.stem.pool and site.name == next(self.sites()).name
        return site.shared.removeprefix("n") if folded else site.shared

    @property
    def projects_with_bias(self) -> bool:
        """Whether the 1×1 convolutions of shortcuts have biases."""
        return self.norm == "none" or (self.norm == "folded" and self.order != "pre")

    def stem_shapes(self) -> list[Shape]:
        """Return the shape of the input and after each convolution of the stem, then after its pool."""
        shapes = [Shape(*self.input)]
        for conv in self.stem.convs:
            shapes.append(shapes[-1].shrink(conv.channels, conv.stride))
        if self.stem.pool:
            shapes.append(shapes[-1].shrink(shapes[-1].channels, 2))
        return shapes

    def _shortcut(self, changed: bool) -> Literal["identity", "pad", "projection", "none"]:
        if self.shortcut == "none":
            return "none"
        if self.shortcut == "C":
            return "projection"
        if not changed:
            return "identity"
        return "pad" if self.shortcut == "A" else "projection"

    def _shared(self, changed: bool, *, first: bool) -> Literal["", "nr", "r"]:
        special = first and self.first == "shared"
        if self.order == "pre":
            return "nr" if changed or special else ""
        return "r" if self.order == "relu_only" and special else ""

    @model_validator(mode="after")
    def _agree(self) -> Spec:
        self._check_ids()
        channels = self._check_groups("stem", self.input[0], self.stem.convs)
        for stage, block in self.blocks():
            where = f"stages.{stage.id}.{block.id}"
            if self.shortcut == "A" and block.channels < channels:
                raise InputError(
                    f"{where}: shortcut A pads channels",
                    f"{channels} channels in and {block.channels} out",
                    f"at least {channels} out, or shortcut B, C or none",
                    "B",
                )
            if block.reads != "all":
                self._check_coupled(where, channels)
                channels //= 2
            channels = self._check_groups(where, channels, block.convs)
            if self.squeeze and channels < self.squeeze:
                raise InputError(
                    f"{where}: squeeze", self.squeeze, f"at most {channels}, the branch's channels"
                )
            channels = block.channels
        if self.squeeze is None and self.squeeze_multiple != 1:
            raise InputError("squeeze_multiple", self.squeeze_multiple, "1 where squeeze is none", 1)
        if (self.norm == "fixup") != (self.initial == "fixup"):
            raise InputError(
                "initial",
                self.initial,
                "fixup with norm fixup, and only there: the biases and the rule are one method",
            )
        if self.first != "shared" and self.order not in ("pre", "relu_only"):
            raise InputError(
                "first", self.first, f"shared; in {self.order!r} nets nothing stands first", "shared"
            )
        self._check_alive()
        return self

    def _check_coupled(self, where: str, channels: int) -> None:
        """Refuse what a block whose branch reads a half cannot go with. Raises InputError."""
        if channels % 2:
            raise InputError(f"{where}: reads", f"a half of {channels} channels", "an even number of them")
        if self.is_plain:
            raise InputError(
                "shortcut", "none", f"A, B or C: {where} reads a half and is added to the other", "A"
            )
        if self.order != "pre":
            raise InputError(
                "order", self.order, f"pre: {where} reads a half, and a ReLU after it has no inverse", "pre"
            )
        if self.junction != Junction() or self.survival != 1:
            got = self.junction.kind if self.junction != Junction() else f"survival {self.survival:g}"
            raise InputError("junction", got, f"the sum alone: {where} reads a half", "sum")

    def _check_alive(self) -> None:
        """Refuse branches whose gradient is exactly zero from the beginning and for ever. Raises InputError."""
        junction = self.junction
        if junction.kind == "scaled" and junction.branch_scale == 0:
            raise InputError("junction.branch_scale", 0.0, "another number: no branch would ever train", 1.0)
        if not (self.zero_last or self.initial == "fixup"):
            return
        method = "zero_last" if self.zero_last else "initial fixup"
        if self.order == "relu_before":
            allowed = f"another order with {method}: a ReLU after what begins at zero has no gradient"
            raise InputError("order", self.order, allowed, "post")
        if junction.kind == "learned" and junction.branch_scale == 0:
            allowed = f"another number with {method}: of two factors at zero neither has a gradient"
            raise InputError("junction.branch_scale", 0.0, allowed, 1.0)
        if junction.kind == "scaled" and junction.shortcut_scale == 0:
            allowed = f"another number with {method}: every block would begin as the constant zero"
            raise InputError("junction.shortcut_scale", 0.0, allowed, 1.0)

    def _check_ids(self) -> None:
        for where, ids in (
            ("stages", [stage.id for stage in self.stages]),
            *((f"stages.{stage.id}", [block.id for block in stage.blocks]) for stage in self.stages),
        ):
            seen: set[str] = set()
            for name in ids:
                if name in seen:
                    raise InputError(where, f"the id {name!r} twice", "ids that differ from one another")
                seen.add(name)

    @staticmethod
    def _check_groups(where: str, channels: int, convs: tuple[Conv, ...]) -> int:
        for i, conv in enumerate(convs, 1):
            if channels % conv.groups:
                raise InputError(
                    f"{where}.conv{i}: groups", conv.groups, f"a divisor of {channels} channels in"
                )
            channels = conv.channels
        return channels

    def __str__(self) -> str:
        kind = "plain" if self.is_plain else f"shortcut {self.shortcut}"
        counts = "+".join(str(len(stage.blocks)) for stage in self.stages)
        return (
            f"{self.name}: {self.layers} layers, {Shape(*self.input)} → {self.classes} classes, "
            f"{counts} blocks, {kind}, {self.order}-activation{self._unusual()}"
        )

    def _unusual(self) -> str:
        """Return the normaliser, junction, squeeze and coupling, where they are not the usual ones."""
        words = [] if self.norm == "batch" else [f"norm {self.norm}"]
        if self.junction != Junction() and not self.is_plain:
            words.append(f"junction {self.junction.kind}")
        words += [f"squeeze /{self.squeeze}"] if self.squeeze else []
        words += ["coupled halves"] if self.is_coupled else []
        return "".join(f", {word}" for word in words)

    def __repr__(self) -> str:
        return f"<Spec {self}>"
