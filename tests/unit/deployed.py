"""Small models of every family, and pictures for them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from deepskip.data.batches import normalise
from deepskip.describe import zoo
from deepskip.describe.preprocessing import Preprocessing
from deepskip.describe.spec import Junction, Spec
from deepskip.extras import has
from deepskip.model import Model
from deepskip.nets.builder import build
from deepskip.weights.store import Header

SIZE = 16
_INPUT = {"input": (3, SIZE, SIZE)}
FAMILIES: dict[str, Spec] = {
    "post, option A": zoo.cifar(8, **_INPUT),
    "plain": zoo.cifar(8, plain=True, **_INPUT),
    "pre": zoo.cifar(8, order="pre", **_INPUT),
    "pre, bottlenecks": zoo.cifar(11, order="pre", block="bottleneck", shortcut="B", **_INPUT),
    "wide": zoo.wide(10, widen=1, **_INPUT),
    "reversible": zoo.reversible(14, widths=(8, 16, 32), **_INPUT),
    "stochastic depth": zoo.cifar(8, survival=0.5, **_INPUT),
    "fixup": zoo.cifar(8, shortcut="B", norm="fixup", initial="fixup", **_INPUT),
    "rezero": zoo.cifar(8, norm="none", junction=Junction(kind="learned", branch_scale=0.0), **_INPUT),
    "gates": zoo.cifar(8, junction=Junction(kind="exclusive_gate", gate_bias=-1.0), shortcut="B", **_INPUT),
    "group norm": zoo.cifar(8, norm="group", **_INPUT),
    "norm after": zoo.cifar(14, order="norm_after", **_INPUT),
    "ImageNet, grouped, squeezed, D": zoo.imagenet(
        14, block="bottleneck", width=8, groups=2, deep_stem=True, projection="pool", squeeze=4
    ).replace(input=(3, 32, 32), classes=7),
}


def needed(*packages: str) -> None:
    """Skip a test, or a module of them, where a package is missing.

    None is imported: `extras.need` does that, without a word to the network. With one, every conversion by
    OpenVINO starts a process and a thread to send it.
    """
    for package in packages:
        if not has(package):
            pytest.skip(f"no package {package}", allow_module_level=True)


def made(spec: Spec, seed: int = 0) -> Model:
    """Return a model whose values are as after training, and whose answers differ from picture to picture."""
    net, said = build(spec, seed), header(spec)
    drawn = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in net.parameters():
            noise = torch.rand(tensor.shape, generator=drawn) - 0.5
            if tensor.dim() < 2:
                tensor.add_(noise)
            elif not tensor.any():  # a branch or a head that begins silent
                tensor.add_(noise * 4 / tensor[0].numel() ** 0.5)
        for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.momentum = None  # the statistics of what comes
        images = torch.from_numpy(pixels(spec, 64, seed=9)).permute(0, 3, 1, 2).contiguous()
        images = normalise(images, said.preprocessing)
        net.train()(images)
        net.head.linear.bias -= net.eval()(images).mean(0)
    return Model(net, said)


def header(spec: Spec) -> Header:
    """Return a header with a preprocessing that is nobody's default."""
    channels, size, _ = spec.input
    return Header(
        spec=spec,
        classes=tuple(f'class {i}, «é» "\n' for i in range(spec.classes)),
        preprocessing=Preprocessing(
            size=size,
            resize=size + 2,
            colour="L" if channels == 1 else "RGB",
            mean=(0.48, 0.45, 0.4)[:channels],
            std=(0.22, 0.23, 0.24)[:channels],
        ),
        provenance={"data": {"name": "drawn"}, "seed": 3},
    )


def pixels(spec: Spec, n: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Return `n` pictures with shapes in them, [n, h, w, c]."""
    channels, size, _ = spec.input
    drawn = np.random.default_rng(seed)
    coarse = drawn.integers(0, 256, (n, -(-size // 4), -(-size // 4), channels), dtype=np.uint8)
    large = coarse.repeat(4, 1).repeat(4, 2)[:, :size, :size].astype(np.int64)
    fine = large + drawn.integers(-20, 20, (n, size, size, channels))
    return fine.clip(0, 255).astype(np.uint8)
