"""torchvision's ResNets: `torchvision.models.resnet18` … `resnext101_64x4d`, weights V1 and V2 alike.

Source of the names: torchvision/models/resnet.py, release 0.29.
"""

from __future__ import annotations

from deepskip.describe.spec import Spec
from deepskip.weights.adapters.classic import rename
from deepskip.weights.adapters.layers import expand
from deepskip.weights.adapters.rules import check_blocks, check_fields, check_stem, check_widths


def names(spec: Spec) -> dict[str, str]:
    """Return our key → torchvision's, one to one, for every tensor of `spec`.

    Raises InputError when torchvision's ResNet class cannot be this net (its strides are v1.5's).
    """
    check_fields("torchvision", spec)
    check_stem("torchvision", spec, [((7, 2),)], pool=True)
    check_blocks("torchvision", spec, stages=4)
    check_widths("torchvision", spec, 64, (64, 128, 256, 512))
    stem = {"conv1": "conv1", "norm1": "bn1"}
    shortcut = {"shortcut.conv": "downsample.0", "shortcut.norm": "downsample.1"}
    return expand(spec, rename(spec, stem, shortcut, "fc"))
