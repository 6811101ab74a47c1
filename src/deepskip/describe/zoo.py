"""The papers' networks as Spec values, each with its citation and table, and the families they come from.

A family takes any valid depth; the names are its members that a paper reports. `get("resnet56_cifar")`,
`get("resnet_cifar", depth=56)` and `cifar(depth=56)` are the same value.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from deepskip.describe.spec import Block, Conv, Order, Shortcut, Spec, Stage, Stem
from deepskip.errors import InputError, choices, nearest

HE2015 = "He et al. 2015, arXiv:1512.03385"

Kind = Literal["basic", "bottleneck"]


@dataclass(frozen=True)
class Entry:
    """One network that a paper reports."""

    name: str
    family: str
    depth: int
    citation: str
    """Paper and table."""
    error: str
    """The published error with its data set, or why there is none."""
    params: str
    """The published number of parameters, or "–"."""

    @property
    def spec(self) -> Spec:
        """The network itself."""
        return FAMILIES[self.family](self.depth)


def cifar(
    depth: int,
    *,
    layers_per_skip: int = 2,
    shortcut: Shortcut = "A",
    order: Order = "post",
    plain: bool = False,
) -> Spec:
    """Return the CIFAR network of `depth` layers (He et al. 2015, §4.2).

    A 3×3 convolution, then three stages of n blocks with 16, 32 and 64 channels on 32, 16 and 8 pixels:
    depth = 3 · layers_per_skip · n + 2, so 6n + 2 for the paper's two layers per skip. Raises InputError for
    a depth that no n gives.
    """
    if layers_per_skip < 1:
        raise InputError("layers_per_skip", layers_per_skip, "a whole number from 1", 1)
    step = 3 * layers_per_skip
    n = _exact(depth, step, f"{step}n + 2")
    base = f"{'pre' if order == 'pre' else ''}resnet{depth}{_skip_suffix(layers_per_skip)}_cifar"
    branch = functools.partial(_straight, layers=layers_per_skip)
    stages = tuple(_stage(i, n, branch, width) for i, width in enumerate((16, 32, 64), 1))
    spec = Spec(
        base=base,
        input=(3, 32, 32),
        classes=10,
        stem=Stem(convs=(Conv(channels=16),)),
        stages=stages,
        shortcut=shortcut,
        order=order,
    )
    return spec.plain() if plain else spec


def imagenet(
    depth: int,
    *,
    block: Kind | None = None,
    shortcut: Shortcut = "B",
    order: Order = "post",
    plain: bool = False,
) -> Spec:
    """Return the ImageNet network of `depth` layers (He et al. 2015, table 1).

    depth = 2n + 2 with n basic blocks (below 50 layers) or 3n + 2 with n bottlenecks, in four stages of 64 to
    512 channels. The paper's depths have the paper's stages; for others stages 1, 2 and 4 keep the sizes of
    the nearest of those and stage 3 takes the rest. Raises InputError for a depth that no n ≥ 4 gives.
    """
    kind: Kind = block or ("basic" if depth < 50 else "bottleneck")
    layers = 2 if kind == "basic" else 3
    n = _exact(
        depth, layers, f"{layers}n + 2 ({kind} blocks, n ≥ 4)", least=4, turn=50 if block is None else None
    )
    counts = _imagenet_counts(n, kind)
    branch = functools.partial(_straight, layers=2) if kind == "basic" else _bottleneck
    stages = tuple(_stage(i, count, branch, 64 * 2 ** (i - 1)) for i, count in enumerate(counts, 1))
    default: Kind = "basic" if depth < 50 else "bottleneck"
    suffix = "" if kind == default else f"_{kind}"
    spec = Spec(
        base=f"{'pre' if order == 'pre' else ''}resnet{depth}{suffix}",
        input=(3, 224, 224),
        classes=1000,
        stem=Stem(convs=(Conv(channels=64, kernel=7, stride=2),), pool=True),
        stages=stages,
        shortcut=shortcut,
        order=order,
    )
    return spec.plain() if plain else spec


def get(
    name: str,
    *,
    depth: int | None = None,
    classes: int | None = None,
    input: tuple[int, int, int] | None = None,  # noqa: A002 - the Spec's own word
) -> Spec:
    """Return the network called `name`, or the member of the family `name` that has `depth` layers.

    `classes` and `input` ([c, h, w]) replace the paper's own. Raises InputError for an unknown name, naming
    the nearest, and for a depth the family does not have.
    """
    family, wanted = _parse(name)
    if depth is not None and wanted is not None and depth != wanted:
        raise InputError(
            "--depth", f"{depth} with the net {name!r}", f"the family and a depth: {family}", family
        )
    wanted = depth if wanted is None else wanted
    if wanted is None:
        raise InputError(f"net {name!r}", "no depth", "a depth beside the family's name (--depth N)")
    spec = FAMILIES[family](wanted)
    given = {"classes": classes, "input": input}
    return spec.replace(**{name: value for name, value in given.items() if value is not None})


def entries(pattern: str = "*") -> list[Entry]:
    """Return the zoo's entries whose name matches `pattern` (a glob, or a part of the name)."""
    glob = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    return [entry for entry in ZOO if fnmatch.fnmatchcase(entry.name, glob)]


def _parse(name: str) -> tuple[str, int | None]:
    if name in FAMILIES:
        return name, None
    match = re.fullmatch(r"([a-z_]+?)(\d+)((?:_[a-z]+)?)", name)
    family = match and f"{match[1]}{match[3]}"
    if match is None or family not in FAMILIES:
        known = [*(entry.name for entry in ZOO), *FAMILIES]
        raise InputError("net", repr(name), f"{choices(known)} (see `deepskip nets`)", nearest(name, known))
    return str(family), int(match[2])


def _exact(depth: int, step: int, rule: str, *, least: int = 1, turn: int | None = None) -> int:
    n, rest = divmod(depth - 2, step)
    if rest or n < least:
        low, high = max(n, least), max(n + 1, least)
        near = sorted({step * low + 2, step * high + 2})
        if turn and near[-1] >= turn > depth:  # past the turn the family changes to bottlenecks
            near[-1] = turn
        raise InputError("depth", depth, f"{rule}", " or ".join(map(str, near)))
    return n


def _skip_suffix(layers_per_skip: int) -> str:
    return "" if layers_per_skip == 2 else f"_skip{layers_per_skip}"


def _stage(index: int, count: int, branch: Callable[[int, int], tuple[Conv, ...]], width: int) -> Stage:
    """Return stage `index` of `count` blocks; from the second stage on, the first block halves the image."""
    strides = (2 if j == 1 < index else 1 for j in range(1, count + 1))
    blocks = (Block(id=f"b{j}", convs=branch(width, stride)) for j, stride in enumerate(strides, 1))
    return Stage(id=f"s{index}", blocks=tuple(blocks))


def _straight(width: int, stride: int, layers: int) -> tuple[Conv, ...]:
    return tuple(Conv(channels=width, stride=stride if j == 0 else 1) for j in range(layers))


def _bottleneck(width: int, stride: int) -> tuple[Conv, ...]:
    # "v1.5": the stride is on the 3×3 convolution, as torchvision and the later papers have it; the paper's
    # own figure has it on the first 1×1, which is about half a point worse.
    return (
        Conv(channels=width, kernel=1),
        Conv(channels=width, stride=stride),
        Conv(channels=4 * width, kernel=1),
    )


def _imagenet_counts(n: int, kind: Kind) -> tuple[int, int, int, int]:
    if kind == "bottleneck" and n == 66:
        return 3, 24, 36, 3  # ResNet-200 (He et al. 2016, §5) widens stage 2, not 3
    outer = min(3, n // 4)
    second = min(8 if n >= 50 else 4, (n - 2 * outer) // 2)
    return outer, second, n - 2 * outer - second, outer


FAMILIES: dict[str, Callable[[int], Spec]] = {
    "resnet_cifar": lambda depth: cifar(depth),
    "plain_cifar": lambda depth: cifar(depth, plain=True),
    "resnet": lambda depth: imagenet(depth),
    "plain": lambda depth: imagenet(depth, plain=True),
}
"""Each family as a function of its depth."""

_CIFAR = {  # depth: (test error on CIFAR-10 in percent, parameters), table 6
    20: ("8.75", "0.27M"),
    32: ("7.51", "0.46M"),
    44: ("7.17", "0.66M"),
    56: ("6.97", "0.85M"),
    110: ("6.43 (6.61 ± 0.16, n = 5)", "1.7M"),
    1202: ("7.93", "19.4M"),
}
_IMAGENET = {  # depth: (top-1 error on ImageNet's validation set, 10-crop, in percent), tables 2 and 3
    18: "27.88 (option A)",
    34: "24.52 (option B)",
    50: "22.85",
    101: "21.75",
    152: "21.43",
}

ZOO: tuple[Entry, ...] = (
    *(
        Entry(
            f"resnet{depth}_cifar",
            "resnet_cifar",
            depth,
            f"{HE2015}, §4.2" + (", table 6" if depth in _CIFAR else ""),
            f"CIFAR-10 {_CIFAR[depth][0]}" if depth in _CIFAR else "not in the paper",
            _CIFAR[depth][1] if depth in _CIFAR else "–",
        )
        for depth in (8, 14, 20, 32, 44, 56, 110, 1202)
    ),
    *(
        Entry(
            f"plain{depth}_cifar",
            "plain_cifar",
            depth,
            f"{HE2015}, §4.2" + (", figure 6" if depth in (20, 32, 44, 56, 110) else ""),
            "CIFAR-10 above 60" if depth == 110 else "no number printed",
            "–",
        )
        for depth in (8, 14, 20, 32, 44, 56, 110)
    ),
    *(
        Entry(f"resnet{d}", "resnet", d, f"{HE2015}, tables 1 to 3", f"ImageNet {e}", "–")
        for d, e in _IMAGENET.items()
    ),
    Entry("plain18", "plain", 18, f"{HE2015}, tables 1 and 2", "ImageNet 27.94", "–"),
    Entry("plain34", "plain", 34, f"{HE2015}, tables 1 and 2", "ImageNet 28.54", "–"),
)
"""Every network that a paper reports, in the order of `deepskip nets`."""
