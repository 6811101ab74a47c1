"""The published checkpoints of the paper's CIFAR-10 nets (`resnet20-12fca82f.th` and its like).

Source of the names: akamaster/pytorch_resnet_cifar10, resnet.py, whose nets are those of He et al. 2015, §4.2,
with option A (no tensors in shortcuts) or B.
"""

from __future__ import annotations

from deepskip.describe.spec import Spec
from deepskip.weights.adapters.classic import rename
from deepskip.weights.adapters.layers import expand
from deepskip.weights.adapters.rules import check_blocks, check_fields, check_stem, check_widths


def names(spec: Spec) -> dict[str, str]:
    """Return our key → theirs, one to one, for every tensor of `spec`.

    Raises InputError when it is not one of the paper's CIFAR nets; a plain net is not, though its tensors are
    the same as option A's.
    """
    check_fields("the CIFAR checkpoints", spec, {"shortcut": ("A", "B")})
    check_stem("the CIFAR checkpoints", spec, [((3, 1),)], pool=False)
    check_blocks("the CIFAR checkpoints", spec, stages=3, kinds=("basic",))
    check_widths("the CIFAR checkpoints", spec, 16, (16, 32, 64))
    stem = {"conv1": "conv1", "norm1": "bn1"}
    shortcut = {"shortcut.conv": "shortcut.0", "shortcut.norm": "shortcut.1"}
    return expand(spec, rename(spec, stem, shortcut, "linear"))
