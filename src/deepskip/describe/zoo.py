"""The papers' networks as Spec values, each with its citation, table, published error and parameters.

`get("resnet56_cifar")`, `get("resnet_cifar", depth=56)` and `cifar(depth=56)` are the same value: the names are
members of families (`families.py`), which take any valid depth.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass

from deepskip.describe.families import cifar, imagenet, reversible, wide
from deepskip.describe.spec import Junction, Spec
from deepskip.errors import InputError, choices, nearest

__all__ = ["FAMILIES", "ZOO", "Entry", "cifar", "entries", "get", "imagenet", "reversible", "wide"]

HE2015 = "He et al. 2015, arXiv:1512.03385"
HE2016 = "He et al. 2016, arXiv:1603.05027"
WRN = "Zagoruyko and Komodakis 2016, arXiv:1605.07146"
RESNEXT = "Xie et al. 2017, arXiv:1611.05431"
SENET = "Hu et al. 2018, arXiv:1709.01507"
TRICKS = "He et al. 2018, arXiv:1812.01187"
DEPTH = "Huang et al. 2016, arXiv:1603.09382"
GROUP = "Wu and He 2018, arXiv:1803.08494"
FIXUP = "Zhang et al. 2019, arXiv:1901.09321"
REZERO = "Bachlechner et al. 2020, arXiv:2003.04887"
SKIPINIT = "De and Smith 2020, arXiv:2002.10444"
REVNET = "Gomez et al. 2017, arXiv:1707.04585"
TORCHVISION = "torchvision's weights"
TIMM = "timm's results"

FAMILIES: dict[str, Callable[[int], Spec]] = {
    "resnet_cifar": cifar,
    "plain_cifar": functools.partial(cifar, plain=True),
    "preresnet_cifar": functools.partial(cifar, order="pre"),
    "revnet_cifar": reversible,
    "resnet": imagenet,
    "plain": functools.partial(imagenet, plain=True),
    "preresnet": functools.partial(imagenet, order="pre"),
}
"""Each family as a function of its depth."""


@dataclass(frozen=True)
class Entry:
    """One network that a paper reports, or that a paper's method makes possible."""

    name: str
    make: Callable[[], Spec]
    """Builds the Spec."""
    depth: int
    """The depth in its published name."""
    citation: str
    """Paper and table."""
    error: str
    """The published error in percent with its data set, or why there is none."""
    params: str = ""
    """The published number of parameters, or nothing where none is published."""
    source: str = ""
    """Where that number is from, when it is not the paper."""
    counts: str = "layers"
    """What the published depth counts: "layers" (ours: convolutions but projections, and the linear one),
    "convolutions" (with projections, without the linear one) or "plain stem" (a deep stem's three as one)."""

    @property
    def spec(self) -> Spec:
        """The network itself."""
        return self.make()


def published_depth(spec: Spec, counts: str) -> int:
    """Return the depth of `spec` as a paper counts it: one of the rules of `Entry.counts`."""
    if counts == "convolutions":
        projections = sum(site.shortcut == "projection" for site in spec.sites())
        return spec.layers - 1 + projections
    return spec.layers - (len(spec.stem.convs) - 1 if counts == "plain stem" else 0)


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
    spec = _find(name, depth)
    given = {"classes": classes, "input": input}
    return spec.replace(**{key: value for key, value in given.items() if value is not None})


def entries(pattern: str = "*") -> list[Entry]:
    """Return the zoo's entries whose name matches `pattern` (a glob, or a part of the name)."""
    glob = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    return [entry for entry in ZOO if fnmatch.fnmatchcase(entry.name, glob)]


def _find(name: str, depth: int | None) -> Spec:
    if name in FAMILIES:
        if depth is None:
            raise InputError(f"net {name!r}", "no depth", "a depth beside the family's name (--depth N)")
        return FAMILIES[name](depth)
    entry = next((entry for entry in ZOO if entry.name == name), None)
    match = re.fullmatch(r"([a-z_]+?)(\d+)((?:_cifar)?)", name)
    family = f"{match[1]}{match[3]}" if match else ""
    if depth is not None and (entry or family in FAMILIES):
        allowed = f"the family and a depth: {family}" if family in FAMILIES else "no --depth with this name"
        raise InputError("--depth", f"{depth} with the net {name!r}", allowed)
    if entry:
        return entry.spec
    if match and family in FAMILIES:
        return FAMILIES[family](int(match[2]))
    known = [*(entry.name for entry in ZOO), *FAMILIES]
    raise InputError("net", repr(name), f"{choices(known)} (see `deepskip nets`)", nearest(name, known))


def _family(name: str, depth: int, citation: str, error: str, params: str = "", source: str = "") -> Entry:
    label = name.replace("resnet", f"resnet{depth}", 1).replace("plain", f"plain{depth}", 1)
    return Entry(label, functools.partial(FAMILIES[name], depth), depth, citation, error, params, source)


NOT_PRINTED = "no number printed"


def _thousands(depth: int) -> Entry:
    """Return a net of thousands of layers, so narrow that a processor trains it on small images."""
    label = f"preresnet{depth}_skipinit_w8_cifar"
    make = functools.partial(
        cifar,
        depth,
        widths=(8, 16, 32),
        base=label,
        order="pre",
        norm="none",
        junction=Junction(kind="learned", branch_scale=0.0),
    )
    return Entry(label, make, depth, f"{SKIPINIT}, §3 (the method; docs/depth.md)", NOT_PRINTED)


_CIFAR = (
    _family("resnet_cifar", 8, f"{HE2015}, §4.2", NOT_PRINTED),
    _family("resnet_cifar", 14, f"{HE2015}, §4.2", NOT_PRINTED),
    _family("resnet_cifar", 20, f"{HE2015}, table 6", "CIFAR-10 8.75", "0.27M"),
    _family("resnet_cifar", 32, f"{HE2015}, table 6", "CIFAR-10 7.51", "0.46M"),
    _family("resnet_cifar", 44, f"{HE2015}, table 6", "CIFAR-10 7.17", "0.66M"),
    _family("resnet_cifar", 56, f"{HE2015}, table 6", "CIFAR-10 6.97", "0.85M"),
    _family("resnet_cifar", 110, f"{HE2015}, table 6", "CIFAR-10 6.43 (6.61 ± 0.16, n = 5)", "1.7M"),
    _family("resnet_cifar", 1202, f"{HE2015}, table 6", "CIFAR-10 7.93", "19.4M"),
    *(
        _family(
            "plain_cifar",
            depth,
            f"{HE2015}, §4.2" + (", figure 6" if depth >= 20 else ""),
            "CIFAR-10 above 60" if depth == 110 else NOT_PRINTED,
        )
        for depth in (8, 14, 20, 32, 44, 56, 110)
    ),
    _family("preresnet_cifar", 110, f"{HE2016}, table 2", "CIFAR-10 6.37", "1.7M"),
    _family("preresnet_cifar", 164, f"{HE2016}, tables 2 and 4", "CIFAR-10 5.46", "1.7M"),
    # The paper prints 10.2M; its own code, and every implementation of it that we know of, has 10.33M.
    _family(
        "preresnet_cifar",
        1001,
        f"{HE2016}, table 4",
        "CIFAR-10 4.92 (4.62 at batch 64)",
        "10,327,706",
        "imgclsmob's; the paper prints 10.2M",
    ),
    Entry(
        "resnet110_sd_cifar",
        lambda: cifar(110, base="resnet110_sd_cifar", survival=0.5),
        110,
        f"{DEPTH}, table 1",
        "CIFAR-10 5.23 (6.41 at constant depth)",
        "1.7M",
    ),
    *(
        Entry(
            f"wrn{depth}_{widen}_cifar",
            functools.partial(wide, depth, widen=widen),
            depth,
            f"{WRN}, tables 4 and 5",
            f"CIFAR-10 {error}",
            params,
            counts="convolutions",
        )
        for depth, widen, error, params in (
            (16, 8, "4.27", "11.0M"),
            (28, 10, "4.00", "36.5M"),
            (40, 4, "4.53", "8.9M"),
        )
    ),
    Entry(
        "revnet38_cifar",
        lambda: reversible(38, widths=(32, 64, 112), base="revnet38_cifar"),
        38,
        f"{REVNET}, tables 1 and 2",
        "CIFAR-10 7.24",
        "0.46M",
    ),
    Entry(
        "revnet110_cifar",
        lambda: reversible(110),
        110,
        f"{REVNET}, tables 1 and 2",
        "CIFAR-10 5.76",
        "1.73M",
    ),
    Entry(
        "resnet110_fixup_cifar",
        lambda: cifar(110, base="resnet110_fixup_cifar", shortcut="B", norm="fixup", initial="fixup"),
        110,
        f"{FIXUP}, §4.1",
        "CIFAR-10 7.24",
    ),
    Entry(
        "resnet110_rezero_cifar",
        lambda: cifar(
            110, base="resnet110_rezero_cifar", norm="none", junction=Junction(kind="learned", branch_scale=0.0)
        ),
        110,
        f"{REZERO}, §3 (the method; the paper's own nets differ)",
        NOT_PRINTED,
    ),
    Entry(
        "preresnet110_skipinit_cifar",
        lambda: cifar(
            110,
            base="preresnet110_skipinit_cifar",
            order="pre",
            norm="none",
            junction=Junction(kind="learned", branch_scale=0.0),
        ),
        110,
        f"{SKIPINIT}, §3 (the method; the paper trains WRN-16-4 and deeper)",
        NOT_PRINTED,
    ),
    _thousands(1004),
    _thousands(10004),
)

_IMAGENET = (
    *(
        _family("resnet", depth, f"{HE2015}, tables 1 to 3", f"ImageNet {error}", params, TORCHVISION)
        for depth, error, params in (
            (18, "27.88 (option A)", "11,689,512"),
            (34, "24.52", "21,797,672"),
            (50, "22.85", "25,557,032"),
            (101, "21.75", "44,549,160"),
            (152, "21.43", "60,192,808"),
        )
    ),
    _family("resnet", 200, f"{HE2016}, table 5", "ImageNet 21.8", "64.67M", TIMM),
    Entry(
        "resnet50_v1",
        lambda: imagenet(50, v1=True, base="resnet50_v1"),
        50,
        f"{HE2015}, tables 1 and 3",
        "ImageNet 22.85",
        "25,557,032",
        TORCHVISION,
    ),
    _family("plain", 18, f"{HE2015}, tables 1 and 2", "ImageNet 27.94"),
    _family("plain", 34, f"{HE2015}, tables 1 and 2", "ImageNet 28.54"),
    *(
        _family("preresnet", depth, f"{HE2016}, {where}", error, params, source)
        for depth, where, error, params, source in (
            (18, "§3 (the method)", NOT_PRINTED, "", ""),
            (34, "§3 (the method)", NOT_PRINTED, "", ""),
            (50, "§3 (the method)", NOT_PRINTED, "25.55M", TIMM),
            (101, "§3 (the method)", NOT_PRINTED, "44.54M", TIMM),
            (152, "table 5", "ImageNet 21.1", "60.19M", TIMM),
            (200, "table 5", "ImageNet 20.7", "", ""),
        )
    ),
    Entry(
        "wide_resnet50_2",
        lambda: imagenet(50, width=128, base="wide_resnet50_2"),
        50,
        f"{WRN}, table 8",
        "ImageNet 21.9",
        "68,883,240",
        TORCHVISION,
    ),
    Entry(
        "wide_resnet101_2",
        lambda: imagenet(101, width=128, base="wide_resnet101_2"),
        101,
        f"{WRN} (the method)",
        NOT_PRINTED,
        "126,886,696",
        TORCHVISION,
    ),
    *(
        Entry(
            f"resnext{depth}_{groups}x{width}d",
            functools.partial(
                imagenet,
                depth,
                width=groups * width,
                groups=groups,
                base=f"resnext{depth}_{groups}x{width}d",
                shortcut="B",
            ),
            depth,
            f"{RESNEXT}, {where}",
            error,
            params,
            TORCHVISION,
        )
        for depth, groups, width, where, error, params in (
            (50, 32, 4, "table 3", "ImageNet 22.2", "25,028,904"),
            (101, 32, 8, "(the method)", NOT_PRINTED, "88,791,336"),
            (101, 64, 4, "table 4", "ImageNet 20.4", "83,455,272"),
        )
    ),
    *(
        Entry(
            f"seresnet{depth}",
            functools.partial(imagenet, depth, squeeze=16, base=f"seresnet{depth}"),
            depth,
            f"{SENET}, table 2",
            f"ImageNet {error}",
            params,
            TIMM,
        )
        for depth, error, params in (
            (50, "23.29 (single crop)", "28.09M"),
            (101, "22.38 (single crop)", "49.33M"),
            (152, "21.57 (single crop)", "66.82M"),
        )
    ),
    Entry(
        "resnet50_c",
        lambda: imagenet(50, deep_stem=True, base="resnet50_c"),
        50,
        f"{TRICKS}, table 5",
        "ImageNet 23.13 (single crop)",
        "25.58M",
        TIMM,
        "plain stem",
    ),
    *(
        Entry(
            f"resnet{depth}_d",
            functools.partial(
                imagenet,
                depth,
                block="bottleneck" if depth >= 26 and depth != 34 else "basic",
                deep_stem=True,
                projection="pool",
                base=f"resnet{depth}_d",
            ),
            depth,
            f"{TRICKS}, {where}",
            error,
            params,
            TIMM,
            "plain stem",
        )
        for depth, where, error, params in (
            (18, "§4 (the method)", NOT_PRINTED, "11.71M"),
            (26, "§4 (the method)", NOT_PRINTED, "16.01M"),
            (34, "§4 (the method)", NOT_PRINTED, "21.82M"),
            (50, "table 5", "ImageNet 22.84 (single crop)", "25.58M"),
            (101, "§4 (the method)", NOT_PRINTED, "44.57M"),
            (152, "§4 (the method)", NOT_PRINTED, "60.21M"),
        )
    ),
    Entry(
        "resnet50_gn",
        lambda: imagenet(50, norm="group", base="resnet50_gn"),
        50,
        f"{GROUP}, table 1",
        "ImageNet 24.1 (single crop)",
        "25.56M",
        TIMM,
    ),
)

ZOO: tuple[Entry, ...] = (*_CIFAR, *_IMAGENET)
"""Every network that a paper reports, and two deeper ones, in the order of `deepskip nets`."""
