"""torchvision's published ImageNet weights: where they are, what they hash to, how pictures were resized.

Source: torchvision/models/resnet.py, release 0.29, the `*_Weights` enums. Eight digits of each file's SHA-256
are in its name.
"""

from __future__ import annotations

from dataclasses import dataclass

from deepskip.errors import InputError, choices, nearest

FOLDER = "https://download.pytorch.org/models"


@dataclass(frozen=True)
class Weights:
    """One published file."""

    net: str
    version: str
    """"v1" or "v2": the two recipes."""
    sha256: str
    """The first eight hexadecimal digits."""
    resize: int
    """Length of the picture's shorter side before the crop of 224 pixels."""

    @property
    def file(self) -> str:
        """The file's name."""
        return f"{self.net}-{self.sha256}.pth"


PUBLISHED = (
    Weights("resnet18", "v1", "f37072fd", 256),
    Weights("resnet34", "v1", "b627a593", 256),
    Weights("resnet50", "v1", "0676ba61", 256),
    Weights("resnet50", "v2", "11ad3fa6", 232),
    Weights("resnet101", "v1", "63fe2227", 256),
    Weights("resnet101", "v2", "cd907fc2", 232),
    Weights("resnet152", "v1", "394f9c45", 256),
    Weights("resnet152", "v2", "f82ba261", 232),
    Weights("wide_resnet50_2", "v1", "95faca4d", 256),
    Weights("wide_resnet50_2", "v2", "9ba9bcbe", 232),
    Weights("wide_resnet101_2", "v1", "32ee1156", 256),
    Weights("wide_resnet101_2", "v2", "d733dc28", 232),
    Weights("resnext50_32x4d", "v1", "7cdf4587", 256),
    Weights("resnext50_32x4d", "v2", "1a0047aa", 232),
    Weights("resnext101_32x8d", "v1", "8ba56ff5", 256),
    Weights("resnext101_32x8d", "v2", "110c445d", 232),
    Weights("resnext101_64x4d", "v1", "173b62eb", 232),
)


def find(name: str) -> Weights:
    """Return the weights called `resnet50`, the newest, or `resnet50@v1`. Raises InputError."""
    net, _, version = name.partition("@")
    found = [weights for weights in PUBLISHED if weights.net == net]
    if not found:
        names = list(dict.fromkeys(weights.net for weights in PUBLISHED))
        raise InputError("torchvision://", repr(net), choices(names), nearest(net, names))
    versions = {weights.version: weights for weights in found}
    if version and version not in versions:
        raise InputError(f"torchvision://{net}", repr(version), choices(versions))
    return versions[version] if version else found[-1]


def recognise(sha256: str) -> Weights | None:
    """Return the weights whose file has this SHA-256, or None."""
    return next((weights for weights in PUBLISHED if sha256.startswith(weights.sha256)), None)
