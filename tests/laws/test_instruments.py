"""Whatever an instrument does to a net to measure it, afterwards the net is what it was, bit for bit.

Add a line to INSTRUMENTS with every instrument.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from deepskip.data.dataset import Dataset, Split, UniformImages
from deepskip.describe.preprocessing import Preprocessing
from deepskip.describe.spec import Spec
from deepskip.instruments import (
    calibration,
    ends,
    gradient,
    identity,
    landscape,
    lens,
    lesion,
    paths,
    saliency,
    signal,
    summary,
    taps,
)
from deepskip.nets.builder import build
from deepskip.nets.network import Network
from tests.laws.strategies import scrambled, specs

IMAGES = 5
INSTRUMENTS: dict[str, Callable[[Network, Dataset], Any]] = {
    "calibration": lambda net, data: calibration.measure(net, data, batch=3),
    "ends": lambda net, data: ends.measure(net, data, 0),
    "gradient": lambda net, data: gradient.measure(net, data, batch=3),
    "gradient, batch": lambda net, data: gradient.measure(net, data.val, statistics="batch"),
    "identity": lambda net, data: identity.measure(net, data.val, batch=3),
    "identity, batch": lambda net, data: identity.measure(net, data, statistics="batch"),
    "lens": lambda net, data: lens.measure(net, data, batch=3),
    "lens, split": lambda net, data: lens.measure(net, data.val),
    "landscape": lambda net, data: landscape.measure(net, data, net, line=3, plane=3, batch=3),
    "landscape, batch": lambda net, data: landscape.measure(net, data, line=3, plane=0, statistics="batch"),
    "lesion": lambda net, data: lesion.measure(net, data, batch=3),
    "lesion, swap": lambda net, data: lesion.swap(net, data, batch=3),
    "lesion, delete": lambda net, data: lesion.delete(net, data, counts=(1, 3), draws=1),
    "lesion, shuffle": lambda net, data: lesion.shuffle(net, data, counts=(1, 3), draws=1),
    "paths": lambda net, data: paths.measure(net, data, batch=3),
    "paths, exact": lambda net, data: paths.measure(net, data, exact=True),
    "signal": lambda net, data: signal.measure(net, data, batch=3),
    "signal, batch": lambda net, data: signal.measure(net, data.val, statistics="batch"),
    "saliency": lambda net, data: saliency.measure(net, data, right=2, wrong=2, steps=2, batch=3),
    "saliency, at a block": lambda net, data: saliency.measure(
        net, data, at=taps.names(net)[0]["block"], right=2, wrong=2, steps=1, baseline="mean"
    ),
    "summary": lambda net, data: summary.measure(net, data, 0),
}


def pictures(spec: Spec, n: int = IMAGES) -> Dataset:
    """Return a data set of noise that a net of `spec` takes."""
    (channels, height, width), rng = spec.input, np.random.default_rng(0)
    colour = {"colour": "L" if channels == 1 else "RGB", "mean": (0.4,) * channels, "std": (0.2,) * channels}
    preprocessing = Preprocessing(size=max(height, width), resize=max(height, width), **colour)

    def load() -> Split:
        pixels = rng.integers(0, 256, (n, height, width, channels), np.uint8)
        return Split(UniformImages(pixels), torch.arange(n) % spec.classes)

    return Dataset("noise", "noise", tuple(map(str, range(spec.classes))), preprocessing, "none", load, load)


def disordered(net: Network, seed: int) -> Network:
    """Put the modules of `net` into any modes; freeze some parameters and give some a gradient."""
    draw = random.Random(seed)
    for module in net.modules():
        module.training = draw.random() < 0.5
    for parameter in net.parameters():
        parameter.requires_grad_(draw.random() < 0.7)
        if draw.random() < 0.5:
            parameter.grad = torch.full_like(parameter, draw.random())
    next(net.blocks()).register_forward_hook(_own_hook)
    return net


def _own_hook(module: nn.Module, inputs: Any, out: Tensor) -> None:
    """Do nothing: a hook of somebody else, which has to stay."""


def state(net: Network) -> list[Any]:
    """Return all that must not change, tensors as copies and by their identity."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    modules = [
        (
            *(id(m), m.training, "forward" in vars(m), getattr(m, "track_running_stats", None)),
            *(list(getattr(m, name).values()) for name in hooks),
        )
        for m in net.modules()
    ]
    parameters = [(id(p), p.requires_grad, id(p.grad), _bits(p.grad)) for p in net.parameters()]
    tensors = [(name, tensor.data_ptr(), _bits(tensor)) for name, tensor in net.state_dict().items()]
    cudnn = torch.backends.cudnn
    world = [torch.random.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()]  # noqa: NPY002
    flags = [torch.is_grad_enabled(), cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32]
    return [modules, parameters, tensors, world, flags]


def _bits(tensor: Tensor | None) -> bytes | None:
    return None if tensor is None else tensor.detach().contiguous().numpy().tobytes()


@torch.no_grad()
def outputs(net: Network, seed: int) -> bytes | None:
    """Return the bits of what `net` makes of noise in evaluation mode, in a copy of its modes."""
    modes = [module.training for module in net.modules()]
    x = torch.randn(2, *net.spec.input, generator=torch.Generator().manual_seed(seed))
    found = _bits(net.eval()(x))
    for module, training in zip(net.modules(), modes, strict=True):
        module.training = training
    return found


@pytest.mark.parametrize("instrument", INSTRUMENTS)
@settings(max_examples=12)
@given(specs(coupled=True), st.integers(0, 99))
def test_a_net_is_left_as_it_was(instrument: str, spec: Spec, seed: int) -> None:
    net = disordered(scrambled(build(spec)), seed)
    before, computed = state(net), outputs(net, seed)
    INSTRUMENTS[instrument](net, pictures(spec))
    for one, other in zip(state(net), before, strict=True):
        assert one == other
    assert outputs(net, seed) == computed


@pytest.mark.parametrize("instrument", INSTRUMENTS)
def test_a_net_that_fails_is_left_as_it_was(instrument: str) -> None:
    """Here in the head, after all blocks."""
    from deepskip.describe import zoo

    net = disordered(scrambled(build(zoo.cifar(8, input=(1, 8, 8)))), 0)
    net.head.pool = nn.AdaptiveAvgPool2d(2)
    before = state(net)
    with pytest.raises(RuntimeError):
        INSTRUMENTS[instrument](net, pictures(net.spec))
    assert state(net) == before
