"""The families of residual networks, as functions of their depth: CIFAR's, ImageNet's, and the wide ones."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from deepskip.describe.spec import Block, Conv, Junction, Reads, Spec, Stage, Stem
from deepskip.errors import InputError

Kind = Literal["basic", "bottleneck"]
Branch = Callable[[int, int], tuple[Conv, ...]]
"""From (width, stride) to a branch."""

TURN = 50  # from this depth on ImageNet nets have bottlenecks
CIFAR_TURN = 164  # and pre-activation CIFAR nets
CIFAR_WIDTHS = (16, 32, 64)  # channels of the three stages

_UNNAMED = ("base", "input", "classes", "stem", "stages")
"""Fields that a name says nothing about: those that data decide, and those that the family's arguments make."""


def cifar(
    depth: int,
    *,
    block: Kind | None = None,
    layers_per_skip: int | None = None,
    widths: tuple[int, int, int] = CIFAR_WIDTHS,
    plain: bool = False,
    **fields: Any,
) -> Spec:
    """Return the CIFAR network of `depth` layers (He et al. 2015, §4.2; pre-activation: He et al. 2016, §3).

    A 3×3 convolution, then three stages of n blocks with 16, 32 and 64 channels, or other `widths`, on 32, 16
    and 8 pixels (four times as many with bottlenecks): depth = 3 · layers · n + 2, so 6n + 2 for basic blocks
    of two layers and 9n + 2 for bottlenecks, which pre-activation nets have from 164 layers on. With
    `layers_per_skip` blocks are basic, of that many 3×3 convolutions. `fields` are the Spec's own (`shortcut`,
    `order`, `norm`, …); what is not usual is part of the name, but for `input` and `classes`. Raises InputError
    for a depth that no n gives, for bottlenecks of any but three layers, and for other than three widths.
    """
    if len(widths) != 3 or min(widths) < 1:
        raise InputError("widths", widths, "three numbers of channels, from 1", CIFAR_WIDTHS)
    if layers_per_skip is not None and layers_per_skip < 1:
        raise InputError("layers_per_skip", layers_per_skip, "a whole number from 1", 1)
    if block == "bottleneck" and layers_per_skip not in (None, 3):
        raise InputError("layers_per_skip", layers_per_skip, "3, which a bottleneck has", 3)
    pre = fields.get("order") == "pre"
    deep = pre and depth >= CIFAR_TURN and (depth - 2) % 9 == 0
    kind: Kind = block or ("bottleneck" if deep and layers_per_skip is None else "basic")
    layers = 3 if kind == "bottleneck" else layers_per_skip or 2
    rule = f"{3 * layers}n + 2"
    if pre and kind == "basic" and block is None and layers_per_skip is None:
        rule += f", or 9n + 2 from {CIFAR_TURN} on (bottlenecks)"
        if depth > CIFAR_TURN and (depth - 2) % 6:
            near = sorted({(depth - 2) // step * step + 2 + up * step for step in (6, 9) for up in (0, 1)})
            closest = sorted(near, key=lambda other: abs(other - depth))[:2]
            raise InputError("depth", depth, rule, " or ".join(map(str, sorted(closest))))
    n = exact(depth, 3 * layers, rule)
    branch = bottleneck if kind == "bottleneck" else functools.partial(straight, layers=layers)
    other = kind != ("bottleneck" if deep else "basic")
    suffix = f"_skip{layers}" if kind == "basic" and layers != 2 else f"_{kind}" if other else ""
    suffix += f"_w{'_'.join(map(str, widths))}" if widths != CIFAR_WIDTHS else ""
    stages = tuple(stage(i, n, branch, width) for i, width in enumerate(widths, 1))
    # He et al. 2015 pad (option A), and their 2016 ablations begin from that ResNet-110. The authors' code for
    # ResNet-164 and -1001, bottlenecks all, projects (option B).
    usual = {"order": "pre" if pre else "post", "shortcut": "B" if pre and kind == "bottleneck" else "A"}
    return _member(
        {
            "input": (3, 32, 32),
            "classes": 10,
            "stem": Stem(convs=(Conv(channels=widths[0]),)),
            "stages": stages,
        },
        (f"{'pre' if pre else ''}resnet{depth}{suffix}", "_cifar"),
        usual,
        fields,
        plain=plain,
    )


def wide(depth: int, *, widen: int, **fields: Any) -> Spec:
    """Return the wide residual network WRN-depth-widen for CIFAR (Zagoruyko and Komodakis 2016, §3).

    Pre-activation basic blocks of 16k, 32k and 64k channels, k = `widen`; depth = 6n + 4, which counts the
    three projections and not the linear layer. Raises InputError for a depth that no n gives.
    """
    n = exact(depth, 6, "6n + 4", offset=4)
    if widen < 1:
        raise InputError("widen", widen, "a whole number from 1", 1)
    branch = functools.partial(straight, layers=2)
    stages = tuple(stage(i, n, branch, width * widen) for i, width in enumerate((16, 32, 64), 1))
    parts = {"input": (3, 32, 32), "classes": 10, "stem": Stem(convs=(Conv(channels=16),)), "stages": stages}
    # In the authors' code a block shares its first activation only where channels change: not in WRN-d-1's
    # first.
    order = fields.get("order", "pre")
    usual = {"order": "pre", "first": "own" if widen == 1 and order in ("pre", "relu_only") else "shared"}
    return _member(parts, (f"wrn{depth}_{widen}", "_cifar"), usual, fields)


def reversible(depth: int, *, widths: tuple[int, int, int] = (32, 64, 128), **fields: Any) -> Spec:
    """Return the reversible network of `depth` layers for CIFAR (Gomez et al. 2017, §3.2 and table 1).

    A 3×3 convolution, then three stages of m reversible blocks, each of two basic branches that read one half
    of the `widths` channels in turn and are added to the other: depth = 12m + 2. Where a stage begins with
    another size the first branch's block cannot be reversed, in the paper as here. Raises InputError for a
    depth that no m gives, and for odd widths.
    """
    m = exact(depth, 12, "12m + 2")
    branch = functools.partial(straight, layers=2)
    stages = []
    for i, width in enumerate(widths, 1):
        if width < 2 or width % 2:
            raise InputError("widths", width, "even numbers of channels", width + 1)
        blocks = stage(i, 2 * m, branch, width // 2).blocks
        halves: tuple[Reads, Reads] = ("second", "first")
        reading = (block.replace(reads=halves[j % 2]) for j, block in enumerate(blocks))
        stages.append(Stage(id=f"s{i}", blocks=tuple(reading)))
    parts = {
        "input": (3, 32, 32),
        "classes": 10,
        "stem": Stem(convs=(Conv(channels=widths[0]),)),
        "stages": tuple(stages),
    }
    words = "" if widths == (32, 64, 128) else f"_w{'_'.join(map(str, widths))}"
    return _member(parts, (f"revnet{depth}{words}", "_cifar"), {"order": "pre", "shortcut": "A"}, fields)


def imagenet(
    depth: int,
    *,
    block: Kind | None = None,
    width: int = 64,
    groups: int = 1,
    v1: bool = False,
    deep_stem: bool = False,
    plain: bool = False,
    **fields: Any,
) -> Spec:
    """Return the ImageNet network of `depth` layers (He et al. 2015, table 1).

    depth = 2n + 2 with n basic blocks (below 50 layers) or 3n + 2 with n bottlenecks, in four stages of 64 to
    512 channels. The paper's depths have the paper's stages; for others stages 1, 2 and 4 keep the sizes of the
    nearest of those and stage 3 takes the rest. `width` is that of the first stage's bottleneck: 128 for wide
    nets, groups × width a group for ResNeXt. `v1` puts a bottleneck's stride where the paper's figure has it.
    `deep_stem` is three 3×3 convolutions (ResNet-C; counted as two layers more by nobody, so `depth` stays the
    paper's). `fields` are the Spec's own; what is not usual is part of the name, but for `input` and `classes`.
    Raises InputError for a depth that no n ≥ 4 gives, and for `width`, `groups` and `v1` with basic blocks,
    which have no such thing.
    """
    usual_kind: Kind = "basic" if depth < TURN else "bottleneck"
    kind: Kind = block or usual_kind
    if kind == "basic":
        for name, got, none in (("width", width, 64), ("groups", groups, 1), ("v1", v1, False)):
            if got != none:
                raise InputError(
                    name, got, f"{none} in basic blocks, which have one form", 'block="bottleneck"'
                )
    elif width < 1 or groups < 1:
        raise InputError("width and groups", f"{width} and {groups}", "whole numbers from 1")
    layers = 2 if kind == "basic" else 3
    rule = f"{layers}n + 2 ({kind} blocks, n ≥ 4)"
    n = exact(depth, layers, rule, least=4, turn=TURN if block is None else None)
    branch: Branch = functools.partial(straight, layers=2)
    if kind == "bottleneck":
        branch = functools.partial(bottleneck, ratio=width / 64, groups=groups, v1=v1)
    counts = imagenet_counts(n, kind)
    stages = tuple(stage(i, count, branch, 64 * 2 ** (i - 1)) for i, count in enumerate(counts, 1))
    plain_stem = (Conv(channels=64, kernel=7, stride=2),)
    stem = (Conv(channels=32, stride=2), Conv(channels=32), Conv(channels=64)) if deep_stem else plain_stem
    pre = fields.get("order") == "pre"
    words = {
        f"_{kind}": kind != usual_kind,
        f"_w{width}": width != 64,
        f"_g{groups}": groups != 1,
        "_v1": v1,
        "_deep": deep_stem,
    }
    base = f"{'pre' if pre else ''}resnet{depth}{''.join(word for word, said in words.items() if said)}"
    parts = {"input": (3, 224, 224), "classes": 1000, "stem": Stem(convs=stem, pool=True), "stages": stages}
    return _member(parts, (base, ""), {"order": "pre" if pre else "post", "shortcut": "B"}, fields, plain=plain)


def _member(
    parts: Mapping[str, Any],
    name: tuple[str, str],
    usual: Mapping[str, Any],
    fields: Mapping[str, Any],
    *,
    plain: bool = False,
) -> Spec:
    """Return a family's net of these `parts` and `fields`, the `usual` ones where none are given.

    Its name is `name`, and between its two halves a word for each field that is not usual, so that no two
    different nets are called alike; or `base`, when given.
    """
    spec = Spec(**{"base": "resnet", **parts, **usual, **fields})
    if "base" not in fields:
        words = "".join(
            f"_{_word(key, getattr(spec, key))}"
            for key, field in Spec.model_fields.items()
            if key not in _UNNAMED
            and getattr(spec, key) != usual.get(key, field.default)
            # A plain net's own word is Spec.name's; Fixup's rule is one method with its norm.
            and (key, getattr(spec, key)) not in (("shortcut", "none"), ("initial", "fixup"))
        )
        base = f"{name[0]}{words}{name[1]}"
        if len(base) > 64:  # the longest that a Spec takes: the same in digits
            base = f"{name[0]}_{hashlib.sha256(words.encode()).hexdigest()[:12]}{name[1]}"
        spec = spec.replace(base=base)
    return spec.plain() if plain else spec


def _word(key: str, value: object) -> str:
    """Return a field's value as a part of a name: "b", "relu_only", "sd0p5", "se16"."""
    if isinstance(value, Junction):
        numbers = {part: getattr(value, part) for part in Junction.model_fields if part != "kind"}
        usual = Junction()
        given = (f"{part}{_number(got)}" for part, got in numbers.items() if got != getattr(usual, part))
        return "_".join((value.kind, *given))
    short = {"squeeze": "se", "survival": "sd"}.get(key, key)
    if isinstance(value, bool):
        return short
    if isinstance(value, str):
        plainly = key in ("shortcut", "order", "projection") or (key == "norm" and value != "none")
        return value.lower() if plainly else f"{short}_{value.lower()}"
    return f"{short}{_number(value)}"


def _number(value: object) -> str:
    return re.sub(r"[^a-z0-9]", "", repr(value).removesuffix(".0").replace(".", "p").replace("-", "m"))


def stage(index: int, count: int, branch: Branch, width: int) -> Stage:
    """Return stage `index` of `count` blocks; from the second stage on, the first block halves the image."""
    strides = (2 if j == 1 < index else 1 for j in range(1, count + 1))
    blocks = (Block(id=f"b{j}", convs=branch(width, stride)) for j, stride in enumerate(strides, 1))
    return Stage(id=f"s{index}", blocks=tuple(blocks))


def straight(width: int, stride: int, layers: int) -> tuple[Conv, ...]:
    """Return `layers` 3×3 convolutions of `width` channels, the stride in the first."""
    return tuple(Conv(channels=width, stride=stride if j == 0 else 1) for j in range(layers))


def bottleneck(
    width: int, stride: int, ratio: float = 1.0, groups: int = 1, v1: bool = False
) -> tuple[Conv, ...]:
    """Return 1×1, 3×3, 1×1 convolutions of r · width, r · width and 4 · width channels, r = `ratio`."""
    # "v1.5": the stride is on the 3×3 convolution, as torchvision and the later papers have it; the paper's own
    # figure, and the authors' code for ResNet-164, have it on the first 1×1, which is about half a point worse.
    inner = round(width * ratio)
    return (
        Conv(channels=inner, kernel=1, stride=stride if v1 else 1),
        Conv(channels=inner, stride=1 if v1 else stride, groups=groups),
        Conv(channels=4 * width, kernel=1),
    )


def exact(depth: int, step: int, rule: str, *, offset: int = 2, least: int = 1, turn: int | None = None) -> int:
    """Return n with depth = step · n + offset. Raises InputError, naming the nearest, when there is none.

    `turn` is the depth at which the family changes its blocks, and so its rule.
    """
    n, rest = divmod(depth - offset, step)
    if rest or n < least:
        low, high = max(n, least), max(n + 1, least)
        near = sorted({step * low + offset, step * high + offset})
        if turn and near[-1] >= turn > depth:
            near[-1] = turn
        raise InputError("depth", depth, rule, " or ".join(map(str, near)))
    return n


def imagenet_counts(n: int, kind: Kind) -> tuple[int, int, int, int]:
    """Return how many of n blocks each of the four stages has."""
    if kind == "bottleneck" and n == 66:
        return 3, 24, 36, 3  # ResNet-200 (He et al. 2016, §5) widens stage 2, not 3
    outer = min(3, n // 4)
    second = min(8 if n >= 50 else 4, (n - 2 * outer) // 2)
    return outer, second, n - 2 * outer - second, outer
