"""The families of residual networks, as functions of their depth: CIFAR's, ImageNet's, and the wide ones."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

from deepskip.describe.spec import Block, Conv, Spec, Stage, Stem
from deepskip.errors import InputError

Kind = Literal["basic", "bottleneck"]
Branch = Callable[[int, int], tuple[Conv, ...]]
"""From (width, stride) to a branch."""

TURN = 50  # from this depth on ImageNet nets have bottlenecks
CIFAR_TURN = 164  # and pre-activation CIFAR nets


def cifar(
    depth: int, *, block: Kind | None = None, layers_per_skip: int = 2, plain: bool = False, **fields: Any
) -> Spec:
    """Return the CIFAR network of `depth` layers (He et al. 2015, §4.2; pre-activation: He et al. 2016, §3).

    A 3×3 convolution, then three stages of n blocks with 16, 32 and 64 channels on 32, 16 and 8 pixels (four
    times as many with bottlenecks): depth = 3 · layers · n + 2, so 6n + 2 for basic blocks of two layers and
    9n + 2 for bottlenecks, which pre-activation nets have from 164 layers on. `fields` are the Spec's own
    (`shortcut`, `order`, `norm`, …). Raises InputError for a depth that no n gives.
    """
    if layers_per_skip < 1:
        raise InputError("layers_per_skip", layers_per_skip, "a whole number from 1", 1)
    pre = fields.get("order") == "pre"
    deep = pre and depth >= CIFAR_TURN and (depth - 2) % 9 == 0
    kind: Kind = block or ("bottleneck" if deep else "basic")
    layers = 3 if kind == "bottleneck" else layers_per_skip
    rule = f"{3 * layers}n + 2"
    if pre and kind == "basic" and block is None and layers_per_skip == 2:
        rule += f", or 9n + 2 from {CIFAR_TURN} on (bottlenecks)"
        if depth > CIFAR_TURN and (depth - 2) % 6:
            near = sorted({(depth - 2) // step * step + 2 + up * step for step in (6, 9) for up in (0, 1)})
            closest = sorted(near, key=lambda other: abs(other - depth))[:2]
            raise InputError("depth", depth, rule, " or ".join(map(str, sorted(closest))))
    n = exact(depth, 3 * layers, rule)
    branch = bottleneck if kind == "bottleneck" else functools.partial(straight, layers=layers)
    suffix = "" if layers_per_skip == 2 else f"_skip{layers_per_skip}"
    suffix += "_bottleneck" if kind == "bottleneck" and not deep else ""
    stages = tuple(stage(i, n, branch, width) for i, width in enumerate((16, 32, 64), 1))
    base = f"{'pre' if pre else ''}resnet{depth}{suffix}_cifar"
    # The paper pads (option A); the authors' code for pre-activation nets projects (option B).
    given = {"base": base, "shortcut": "B" if pre else "A", **fields}
    spec = Spec(input=(3, 32, 32), classes=10, stem=Stem(convs=(Conv(channels=16),)), stages=stages, **given)
    return spec.plain() if plain else spec


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
    return Spec(
        **{
            "base": f"wrn{depth}_{widen}_cifar",
            "input": (3, 32, 32),
            "classes": 10,
            "stem": Stem(convs=(Conv(channels=16),)),
            "stages": stages,
            "order": "pre",
            **fields,
        }
    )


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
    512 channels. The paper's depths have the paper's stages; for others stages 1, 2 and 4 keep the sizes of
    the nearest of those and stage 3 takes the rest. `width` is that of the first stage's bottleneck: 128 for
    wide nets, groups × width a group for ResNeXt. `v1` puts a bottleneck's stride where the paper's figure has
    it. `deep_stem` is three 3×3 convolutions (ResNet-C; counted as two layers more by nobody, so `depth` stays
    the paper's). Raises InputError for a depth that no n ≥ 4 gives.
    """
    kind: Kind = block or ("basic" if depth < TURN else "bottleneck")
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
    usual: Kind = "basic" if depth < TURN else "bottleneck"
    pre = "pre" if fields.get("order") == "pre" else ""
    base = f"{pre}resnet{depth}{'' if kind == usual else f'_{kind}'}"
    given = {"base": base, "shortcut": "B", **fields}
    spec = Spec(input=(3, 224, 224), classes=1000, stem=Stem(convs=stem, pool=True), stages=stages, **given)
    return spec.plain() if plain else spec


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
    # "v1.5": the stride is on the 3×3 convolution, as torchvision and the later papers have it; the paper's
    # own figure has it on the first 1×1, which is about half a point worse.
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
