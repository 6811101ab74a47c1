"""Make `adapters.json`: the logits that torchvision, timm and transformers compute from named tensors.

Run from the repository's root with a Python that has the peers:

    PYTHONPATH=src:. python tests/golden/adapters_make.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from timm.layers import BatchNormAct2d, GroupNormAct, create_conv2d
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from timm.models.resnetv2 import ResNetV2
from torch import nn
from torchvision.models import resnet as torchvision_resnet
from transformers import ResNetConfig, ResNetForImageClassification

from tests.golden.values import filled, images

deep: dict[str, Any] = {"stem_width": 32, "stem_type": "deep", "avg_down": True}
NETS: dict[str, nn.Module] = {
    "torchvision basic": torchvision_resnet.ResNet(torchvision_resnet.BasicBlock, [1, 1, 1, 1], num_classes=7),
    "timm basic": ResNet(BasicBlock, (1, 1, 1, 1), num_classes=7),
    "timm d, squeeze": ResNet(Bottleneck, (1, 1, 1, 1), num_classes=7, block_args={"attn_layer": "se"}, **deep),
    "timm squeeze of 64": ResNet(BasicBlock, (1, 1, 1, 1), num_classes=7, block_args={"attn_layer": "se"}),
    "timm grouped": ResNet(Bottleneck, (1, 1, 1, 1), num_classes=7, cardinality=32, base_width=4),
    "timm c": ResNet(Bottleneck, (1, 1, 1, 1), num_classes=7, stem_width=32, stem_type="deep"),
    "timm pre basic": ResNetV2(
        [1, 1, 1, 1],
        (64, 128, 256, 512),
        num_classes=7,
        basic=True,
        bottle_ratio=1.0,
        conv_layer=create_conv2d,
        norm_layer=BatchNormAct2d,
    ),
    "timm pre d, group": ResNetV2(
        [1, 1, 1, 1],
        num_classes=7,
        conv_layer=create_conv2d,
        norm_layer=GroupNormAct,
        stem_type="deep",
        avg_down=True,
    ),
    "timm pre": ResNetV2([1, 1, 1, 2], num_classes=7, conv_layer=create_conv2d, norm_layer=BatchNormAct2d),
    "transformers early stride": ResNetForImageClassification(
        ResNetConfig(
            embedding_size=8, hidden_sizes=[16, 32], depths=[1, 2], num_labels=7, downsample_in_bottleneck=True
        )
    ),
    "transformers first stride": ResNetForImageClassification(
        ResNetConfig(
            embedding_size=8, hidden_sizes=[16, 32], depths=[1, 1], num_labels=7, downsample_in_first_stage=True
        )
    ),
}


def main() -> None:
    """Write the file."""
    found = {}
    for name, net in NETS.items():
        net = net.double().eval()
        net.load_state_dict(filled({key: tuple(tensor.shape) for key, tensor in net.state_dict().items()}))
        with torch.no_grad():
            out: Any = net(images(2, 3, 64))
        found[name] = getattr(out, "logits", out).tolist()
    path = Path(__file__).with_name("adapters.json")
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
