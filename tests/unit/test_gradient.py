"""Gradients, against finite differences in float64, and against PyTorch going back through the whole net."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import deepskip as ds
from deepskip.describe import zoo
from deepskip.describe.spec import Block, Conv, Spec, Stage, Stem
from deepskip.errors import InputError
from deepskip.instruments import gradient, images
from deepskip.nets.builder import build
from deepskip.nets.network import Network
from tests.laws.strategies import scrambled

STEP = 1e-6


@pytest.fixture(scope="module")
def digits() -> ds.data.Dataset:
    return ds.data.open("digits")


def tiny(**fields: object) -> Spec:
    """Return a net of two blocks with few enough values to move each."""
    blocks = [
        Block(id="b1", convs=(Conv(channels=2), Conv(channels=2))),
        Block(id="b2", convs=(Conv(channels=3, stride=2),)),
    ]
    return Spec(
        base="resnet_tiny",
        input=(1, 8, 8),
        classes=10,
        stem=Stem(convs=(Conv(channels=2, stride=2),)),
        stages=(Stage(id="s1", blocks=tuple(blocks)),),
        **fields,
    )


def taken(net: Network, data, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    x, labels, _ = next(images.drawn(net, data, images=n, batch=n, seed=seed))
    return x, labels


@torch.no_grad()
def slopes(value, tensor: Tensor) -> np.ndarray:
    """Return the slope of `value()` along each number of `tensor`."""
    flat, found = tensor.view(-1), []
    for i in range(len(flat)):
        own = float(flat[i])
        ends = []
        for step in (STEP, -STEP):
            flat[i] = own + step
            ends.append(value())
        flat[i] = own
        found.append((ends[0] - ends[1]) / (2 * STEP))
    return np.array(found)


@pytest.mark.parametrize(
    "fields", [{}, {"order": "pre"}, {"shortcut": "none"}, {"norm": "group", "norm_groups": 1}]
)
def test_norms_are_those_of_finite_differences(fields: dict, digits) -> None:
    net = scrambled(build(tiny(**fields), dtype=torch.float64)).eval()
    rows = gradient.measure(net, digits, images=5, batch=2, initial_seed=None)
    x, labels = taken(net, digits, 5)
    for row, block in zip(rows, net.blocks(), strict=True):
        found = [
            slopes(lambda: float(nn.functional.cross_entropy(net(x), labels)), p.data)
            for p in block.parameters()
        ]
        assert row["grad_norm"] == pytest.approx(np.linalg.norm(np.concatenate(found)), rel=1e-5)
        assert row["grad_norm_initial"] is row["grad_correlation_initial"] is None


@pytest.mark.parametrize("fields", [{}, {"order": "pre"}, {"shortcut": "none"}])
def test_correlations_are_those_of_finite_differences(fields: dict, digits) -> None:
    net = scrambled(build(tiny(**fields), dtype=torch.float64)).eval()
    net.head.linear.bias.data.zero_()  # whose digits would hide small differences
    rows = gradient.measure(net, digits, images=4, batch=3, initial_seed=None)
    x, _ = taken(net, digits, 4)
    blocks = list(net.blocks())
    for i, row in enumerate(rows):
        rest = nn.Sequential(*blocks[i:], net.head)
        with torch.no_grad():
            stream = nn.Sequential(net.stem, *blocks[:i])(x)
        found = [
            slopes(lambda one=one, rest=rest: float(rest(one).sum()), one)
            for one in stream.contiguous().split(1)
        ]
        cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in itertools.combinations(found, 2)]
        assert row["grad_correlation"] == pytest.approx(np.mean(cosines), rel=1e-4)


@pytest.mark.parametrize("plain", [False, True])
def test_with_batch_statistics_it_is_the_gradient_of_training(plain: bool, digits) -> None:
    spec = zoo.cifar(14, input=(1, 8, 8))
    net = scrambled(build(spec.plain() if plain else spec, dtype=torch.float64))
    rows = gradient.measure(net, digits, images=9, statistics="batch", initial_seed=None)
    x, labels = taken(net, digits, 9)
    nn.functional.cross_entropy(net.train()(x), labels).backward()
    for row, block in zip(rows, net.blocks(), strict=True):
        squares = sum(float(p.grad.square().sum()) for p in block.parameters())
        assert row["grad_norm"] == pytest.approx(math.sqrt(squares), rel=1e-5)


def test_the_initial_net_is_the_specs_with_the_statistics_of_the_images(digits) -> None:
    net = scrambled(build(zoo.cifar(8, input=(1, 8, 8)), dtype=torch.float64))
    rows = gradient.measure(net, digits, images=20, batch=7, initial_seed=3)
    start = build(net.spec, 3, dtype=torch.float64).train()
    for module in start.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        start(taken(net, digits, 20)[0])
    for row, own in zip(rows, gradient.measure(start, digits, images=20, initial_seed=None), strict=True):
        assert row["grad_norm_initial"] == pytest.approx(own["grad_norm"], rel=1e-5)
        assert row["grad_correlation_initial"] == pytest.approx(own["grad_correlation"], rel=1e-4)
    other = gradient.measure(net, digits, images=20, initial_seed=4)
    assert other[0]["grad_norm"] == pytest.approx(rows[0]["grad_norm"])
    assert other[0]["grad_norm_initial"] != pytest.approx(rows[0]["grad_norm_initial"])
    assert gradient.measure(start, digits, images=20, statistics="batch", initial_seed=3)[0][
        "grad_norm"
    ] == pytest.approx(
        gradient.measure(net, digits, images=20, statistics="batch", initial_seed=3)[0]["grad_norm_initial"]
    )


def test_small_batches_for_a_small_memory_change_nothing(digits, monkeypatch) -> None:
    net = scrambled(build(zoo.cifar(8, input=(1, 8, 8)), dtype=torch.float64))
    whole = gradient.measure(net, digits, images=12)
    told: list[tuple[str, int, int]] = []
    monkeypatch.setattr(gradient, "_MEMORY", 8 * (16 * 64 * 2 + 32 * 16) * 5)
    parts = gradient.measure(net, digits, images=12, progress=lambda *one: told.append(one))
    for row, other in zip(whole, parts, strict=True):
        for name, value in row.items():
            assert other[name] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-5))
    assert [done for _, done, _ in told] == [1, 2, 3, 4, 5, 6]
    assert {total for _, _, total in told} == {6}


def test_frozen_parameters_count_and_zero_gradients_are_null(digits) -> None:
    net = scrambled(build(tiny(), dtype=torch.float64))
    rows = gradient.measure(net, digits, images=6, initial_seed=None)
    net.requires_grad_(False)
    assert gradient.measure(net, digits, images=6, initial_seed=None) == rows
    net.head.linear.weight.zero_()
    silent = gradient.measure(net, digits, images=6, initial_seed=None)
    assert [(row["grad_norm"], row["grad_correlation"]) for row in silent] == [(0.0, None)] * 2
    assert gradient.summarise(silent)["grad_fall"] is None
    net.head.linear.weight.fill_(math.nan)
    broken = gradient.measure(net, digits, images=6, initial_seed=None)
    assert [(row["grad_norm"], row["grad_correlation"]) for row in broken] == [(None, None)] * 2


def test_gradients_shatter_in_a_plain_net_and_less_in_a_residual_one(digits) -> None:
    """Balduzzi et al. 2017, at initial values."""
    spec = zoo.get("resnet56_cifar", input=(1, 8, 8))
    residual, plain = (gradient.measure(build(one), digits, images=32) for one in (spec, spec.plain()))
    middle = slice(9, 18)
    alike, noise = (
        np.mean([abs(row["grad_correlation_initial"]) for row in rows[middle]]) for rows in (residual, plain)
    )
    assert alike > 0.05 > 10 * noise
    assert plain[0]["grad_norm_initial"] > 100 * residual[0]["grad_norm_initial"]


def test_one_image_has_no_statistics(digits) -> None:
    net = build(tiny())
    with pytest.raises(InputError, match="images: got 1, .*; allowed: two a batch"):
        gradient.measure(net, digits, images=1)
    with pytest.raises(InputError, match="images: got 9, 1 a batch"):
        gradient.measure(net, digits, images=9, batch=1, statistics="batch")
    alone = gradient.measure(build(tiny(norm="group")), digits, images=1)
    assert alone[0]["grad_norm"] > 0
    assert alone[0]["grad_correlation"] is None


def test_a_summary_compares_the_ends() -> None:
    rows = [
        {"grad_norm": a, "grad_norm_initial": b, "grad_correlation": c, "grad_correlation_initial": None}
        for a, b, c in ((2.0, 1.0, 0.3), (8.0, None, 0.5), (4.0, 2.0, 0.9))
    ]
    assert gradient.summarise(rows) == {
        "grad_fall": 2.0, "grad_range": 4.0, "grad_correlation_first": 0.3,
        "grad_fall_initial": None, "grad_range_initial": None, "grad_correlation_first_initial": None,
    }  # fmt: skip
