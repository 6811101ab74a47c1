"""The names that torchvision made customary: `layer1.0.conv1`, `layer1.0.bn1`; others vary the rest."""

from __future__ import annotations

from collections.abc import Mapping

from deepskip.describe.spec import Spec
from deepskip.weights.adapters.layers import layers, positions


def rename(spec: Spec, stem: Mapping[str, str], block: Mapping[str, str], head: str) -> dict[str, str]:
    """Return the table of layers, ours to theirs.

    `stem` names the stem's parts, `block` what a block holds beside its `conv1`, `bn1`, … (the shortcut, the
    squeeze), and `head` the linear layer.
    """
    at, table = positions(spec), {}
    for name in layers(spec):
        match name.split("."):
            case ["stem", part]:
                table[name] = stem[part]
            case ["stages", stage, own, "branch", part]:
                i, j = at[stage, own]
                table[name] = f"layer{i + 1}.{j}.{part.replace('norm', 'bn')}"
            case ["stages", stage, own, *parts]:
                i, j = at[stage, own]
                table[name] = f"layer{i + 1}.{j}.{block['.'.join(parts)]}"
            case _:
                table[name] = head
    return table
