"""Architectures as Specs: by the names they have in torchvision and timm, by transformers' configuration."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from deepskip.describe import zoo
from deepskip.describe.families import imagenet
from deepskip.describe.spec import Block, Conv, Spec, Stage, Stem
from deepskip.errors import InputError

_NAME = re.compile(
    r"(?P<squeeze>se)?(?P<kind>resnet|resnetv2_|resnext|wide_resnet)(?P<depth>18|26|34|50|101|152|200)"
    r"(?P<stem>[cd])?(?:_(?P<groups>\d{1,2})x(?P<each>\d{1,2})d|(?P<wide>_2))?(?P<norm>_gn)?"
)


def find(name: str, depth: int | None = None, source: str = "auto") -> Spec:
    """Return the net that `name` means: a zoo name or family with a depth, or the name it has in its library.

    The zoo goes first, but where `source` says that the name is torchvision's or timm's. Raises InputError.
    """
    theirs = architecture(name) if depth is None else None
    if theirs is not None and source in ("torchvision", "timm"):
        return theirs
    try:
        return zoo.get(name, depth=depth)
    except InputError:
        if theirs is None:
            raise
        return theirs


def architecture(name: str) -> Spec | None:
    """Return the net that torchvision or timm calls `name` (`resnet50d`, `resnetv2_101`), or None."""
    match = _NAME.fullmatch(name)
    if match is None or (match["kind"] == "resnext") != bool(match["groups"]):
        return None
    if (match["kind"] == "wide_resnet") != bool(match["wide"]):
        return None
    depth, pre = int(match["depth"]), match["kind"] == "resnetv2_"
    basic = depth in (18, 34)
    if (basic and (match["wide"] or match["groups"])) or (pre and match["squeeze"]):
        return None  # names that no library has: basic blocks have one width, and resnetv2 no squeeze
    fields: dict[str, Any] = {
        "block": "basic" if basic else "bottleneck",
        "order": "pre" if pre else "post",
        "norm": "group" if match["norm"] else "batch",
        "squeeze": 16 if match["squeeze"] else None,
        "squeeze_multiple": 8 if match["squeeze"] and basic else 1,  # no change in wider blocks
        "deep_stem": bool(match["stem"]),
        "projection": "pool" if match["stem"] == "d" else "conv",
        "width": 128 if match["wide"] else 64,
    }
    if match["groups"]:
        groups = int(match["groups"])
        fields |= {"groups": groups, "width": groups * int(match["each"])}
    base = name.replace("resnetv2_", "preresnet")
    if pre and basic:  # timm's first block reads its own input where the paper's, and the zoo's, shares
        fields["first"] = "own"
    if match["stem"]:  # the zoo says resnet50_d, lest depth and letter run together
        base = re.sub(r"(\d+)([cd])(?=_|$)", r"\1_\2", base, count=1)
    if base == "resnet26":  # the zoo's has basic blocks
        base = "resnet26_bottleneck"
    return imagenet(depth, base=f"{base}_first_own" if pre and basic else base, **fields)


class ResNetConfig(BaseModel):
    """What transformers' `config.json` says of a ResNet; the other fields change nothing."""

    depths: Annotated[list[Annotated[int, Field(ge=1, le=1000)]], Field(min_length=1, max_length=16)]
    hidden_sizes: Annotated[list[Annotated[int, Field(ge=4)]], Field(min_length=1, max_length=16)]
    embedding_size: Annotated[int, Field(ge=1)] = 64
    num_channels: Annotated[int, Field(ge=1)] = 3
    layer_type: Literal["basic", "bottleneck"] = "bottleneck"
    hidden_act: Literal["relu"] = "relu"
    downsample_in_first_stage: bool = False
    downsample_in_bottleneck: bool = False
    id2label: dict[int, str] = Field(default_factory=dict)

    def spec(self, base: str) -> Spec:
        """Return the net of this configuration, called `base`. Raises InputError."""
        if len(self.depths) != len(self.hidden_sizes):
            raise InputError(
                "hidden_sizes", len(self.hidden_sizes), f"{len(self.depths)}, one for each of depths"
            )
        stages = []
        for i, (count, width) in enumerate(zip(self.depths, self.hidden_sizes, strict=True), 1):
            first = 2 if i > 1 or self.downsample_in_first_stage else 1
            steps = (first if j == 1 else 1 for j in range(1, count + 1))
            blocks = (Block(id=f"b{j}", convs=self._convs(width, step)) for j, step in enumerate(steps, 1))
            stages.append(Stage(id=f"s{i}", blocks=tuple(blocks)))
        return Spec(
            base=base,
            input=(self.num_channels, 224, 224),
            classes=len(self.id2label) or 1000,
            stem=Stem(convs=(Conv(channels=self.embedding_size, kernel=7, stride=2),), pool=True),
            stages=tuple(stages),
        )

    def _convs(self, width: int, stride: int) -> tuple[Conv, ...]:
        if self.layer_type == "basic":
            return Conv(channels=width, stride=stride), Conv(channels=width)
        early = self.downsample_in_bottleneck
        return (
            Conv(channels=width // 4, kernel=1, stride=stride if early else 1),
            Conv(channels=width // 4, stride=1 if early else stride),
            Conv(channels=width, kernel=1),
        )
