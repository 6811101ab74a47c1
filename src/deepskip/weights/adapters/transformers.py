"""Hugging Face transformers' `ResNetForImageClassification` (`microsoft/resnet-50` and its like).

Source of the names: transformers/models/resnet/modeling_resnet.py, release 5.23.
"""

from __future__ import annotations

from deepskip.describe.spec import Spec
from deepskip.weights.adapters.layers import expand, layers, positions
from deepskip.weights.adapters.rules import check_blocks, check_fields, check_stem

_KINDS = {"conv": "convolution", "norm": "normalization"}


def names(spec: Spec) -> dict[str, str]:
    """Return our key → transformers', one to one, for every tensor of `spec`.

    Raises InputError when no ResNetConfig describes this net; the stride of its bottlenecks may be on the 3×3
    convolution or on the first (`downsample_in_bottleneck`).
    """
    check_fields("transformers", spec)
    check_stem("transformers", spec, [((7, 2),)], pool=True)
    check_blocks(
        "transformers", spec, stages=len(spec.stages), strides=(2, 1), first_stride=(1, 2), groups=False
    )
    at, table = positions(spec), {"head.linear": "classifier.1"}
    for name in layers(spec):
        kind = _KINDS.get(name.rpartition(".")[2][:4])
        match name.split("."):
            case ["stem", _]:
                table[name] = f"resnet.embedder.embedder.{kind}"
            case ["stages", stage, own, "branch", part]:
                i, j = at[stage, own]
                table[name] = f"resnet.encoder.stages.{i}.layers.{j}.layer.{int(part[4:]) - 1}.{kind}"
            case ["stages", stage, own, *_]:
                i, j = at[stage, own]
                table[name] = f"resnet.encoder.stages.{i}.layers.{j}.shortcut.{kind}"
    return expand(spec, table)
