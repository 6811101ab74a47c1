"""Paths against matrices multiplied by hand, sums over all 2ⁿ of them, and finite differences."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian
from torch.nn import functional

import deepskip as ds
from deepskip.describe import zoo
from deepskip.describe.spec import Junction, Spec
from deepskip.errors import InputError
from deepskip.instruments import images, paths
from deepskip.nets.builder import build
from deepskip.nets.network import Network
from deepskip.surgery import grow
from tests.laws.strategies import scrambled

SMALL = (1, 8, 8)


@pytest.fixture(scope="module")
def digits() -> ds.data.Dataset:
    return ds.data.open("digits")


def _inputs(net: Network, data: ds.data.Dataset, n: int) -> tuple[Tensor, Tensor]:
    (one,) = images.drawn(net, data, images=n, batch=n, seed=0)
    return one.x, one.labels


def _linear(blocks: int) -> Network:
    """Return a net without a ReLU: all of it is affine."""
    spec = zoo.cifar(8, input=SMALL, shortcut="B", first="own", order="pre")
    spec = spec.replace(stages=spec.stages[:2])
    net = build(spec, dtype=torch.float64)
    if blocks > 2:
        net = grow(net, {"s2": blocks - 2}, start="fresh")
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(parent, name, nn.Identity())
    return scrambled(net).eval()


def _matrix(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the output of `module` for x [1, …], and its Jacobian as a matrix."""
    out = module(x)
    return out, jacobian(module, x).reshape(out.numel(), x.numel())


@pytest.mark.parametrize("n", [2, 3, 4])
def test_a_linear_nets_paths_are_products_of_matrices(digits, n: int) -> None:
    net = _linear(n)
    x, labels = _inputs(net, digits, 2)
    zero = torch.zeros(1, *SMALL, dtype=torch.float64)
    y, stem = _matrix(net.stem, zero)
    ways = []
    for block in net.blocks():
        h, before = _matrix(block.before, y)
        ways.append([_matrix(way, h)[1] @ before for way in (block.shortcut, block.branch)])
        y = block(y)
    _, head = _matrix(net.head, y)
    logits = net(x)
    down = (logits.softmax(1) - functional.one_hot(labels, 10)).detach()
    norms: dict[int, list[float]] = {}
    whole = torch.zeros(2, 64, dtype=torch.float64)
    for taken in itertools.product((0, 1), repeat=n):
        path = stem
        for way, branch in zip(ways, taken, strict=True):
            path = way[branch] @ path
        gradient = down @ head @ path
        norms.setdefault(sum(taken), []).extend(gradient.norm(dim=1).tolist())
        whole += gradient
    (own,) = torch.autograd.grad(functional.cross_entropy(net(x.requires_grad_()), labels, reduction="sum"), x)
    assert torch.allclose(whole, own.flatten(1))
    rows = paths.measure(net, digits, images=2, exact=True)
    assert [row["length"] for row in rows] == list(range(n + 1))
    assert [row["paths"] for row in rows] == [math.comb(n, k) for k in range(n + 1)]
    sums = {k: sum(some) for k, some in norms.items()}
    for k, row in enumerate(rows):
        assert row["seen"] == 2 * math.comb(n, k)
        assert row["gradient"] == pytest.approx(sums[k] / row["seen"], rel=1e-5)
        assert row["share"] == pytest.approx(100 * math.comb(n, k) / 2**n, rel=1e-5)
        assert row["contribution"] == pytest.approx(100 * sums[k] / sum(sums.values()), rel=1e-5)


@pytest.mark.parametrize(
    "spec",
    [
        zoo.cifar(8, input=SMALL),
        zoo.cifar(8, input=SMALL, plain=True),
        zoo.cifar(8, input=SMALL, shortcut="B", order="pre"),
        zoo.cifar(8, input=SMALL, junction=Junction(kind="exclusive_gate", gate_bias=-1.0)),
        zoo.cifar(8, input=SMALL, junction=Junction(kind="learned", branch_scale=0.5), survival=0.5),
        zoo.reversible(14, input=SMALL),
    ],
    ids=lambda spec: f"{spec.name}-{spec.order}-{spec.junction.kind}",
)
def test_all_paths_add_up_to_the_gradient(digits, spec: Spec) -> None:
    """Of any net; and that gradient is what finite differences say."""
    net = scrambled(build(spec, dtype=torch.float64)).eval()
    x, labels = _inputs(net, digits, 3)
    way = paths._WayBack(net, x, labels)
    forks = [paths._Fork(block, at) for block, at in zip(way.blocks, way.inputs, strict=True)]
    start, log = way._begin()
    whole = torch.zeros_like(x)
    image = x.clone().requires_grad_()
    out = net.stem(image)
    for taken in itertools.product((False, True), repeat=len(forks)):
        gradient = start * log.exp().view(-1, 1, 1, 1)
        for fork, branch in zip(reversed(forks), taken, strict=True):
            gradient = fork.back(gradient, torch.full((3,), branch))
        whole += torch.autograd.grad(out, image, gradient, retain_graph=True)[0]

    def loss(at: Tensor) -> Tensor:
        return functional.cross_entropy(net(at), labels, reduction="sum")

    (own,) = torch.autograd.grad(loss(image), image)
    assert torch.allclose(whole, own, rtol=1e-8, atol=1e-12)
    direction = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        slope = (loss(x + 1e-6 * direction) - loss(x - 1e-6 * direction)) / 2e-6
    assert (own * direction).sum().item() == pytest.approx(slope.item(), rel=1e-4)


def test_each_image_goes_its_own_way() -> None:
    net = scrambled(build(zoo.cifar(8, input=SMALL), dtype=torch.float64)).eval()
    x = net.stem(
        torch.randn(4, *SMALL, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ).detach()
    fork = paths._Fork(net.stages["s1"]["b1"], x)
    gradient = torch.randn(fork.out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    branch = torch.tensor([True, False, False, True])
    mixed = fork.back(gradient, branch)
    by = [fork.back(gradient, torch.full((4,), way)) for way in (False, True)]
    for i in range(4):
        assert torch.equal(mixed[i], by[int(branch[i])][i])
    assert not torch.equal(by[0], by[1])


def test_sampling_agrees_with_all_paths(digits) -> None:
    net = scrambled(build(zoo.cifar(14, input=SMALL), dtype=torch.float64))
    every = paths.measure(net, digits, images=64, exact=True)
    some = paths.measure(net, digits, images=64, batch=64)
    again = paths.measure(net, digits, images=64, batch=20)
    for row, sampled, other in zip(every, some, again, strict=True):
        assert (row["paths"], row["share"]) == (sampled["paths"], sampled["share"])
        assert (row["seen"], sampled["seen"]) == (64 * row["paths"], 64)
        wide = 1.5 * (sampled["gradient_high"] - sampled["gradient_low"])
        assert abs(row["gradient"] - sampled["gradient"]) <= wide
        assert sampled["gradient"] == pytest.approx(other["gradient"], rel=1e-4)
        assert sampled["gradient_low"] < sampled["gradient"] < sampled["gradient_high"]
    for end in (0, -1):  # where there is one path
        assert some[end]["gradient"] == pytest.approx(every[end]["gradient"], rel=1e-4)
    assert sum(row["contribution"] for row in some) == pytest.approx(100, rel=1e-4)
    inside = [row["length"] for row in some if row["effective"]]
    parts = [row["contribution"] for row in some]
    assert sum(parts[k] for k in inside) >= 95
    assert all(sum(parts[k : k + len(inside) - 1]) < 95 for k in range(8 - len(inside)))
    assert some != paths.measure(net, digits, images=64, seed=1)


def test_gradients_smaller_than_any_number_of_float32(digits) -> None:
    small, usual = (
        scrambled(build(zoo.cifar(20, input=SMALL), dtype=d)) for d in (torch.float32, torch.float64)
    )
    for net in (small, usual):
        for block in net.blocks():
            block.branch.norm2.weight.data.mul_(1e-9)
    rows, wanted = (paths.measure(net, digits, images=16, seed=3) for net in (small, usual))
    assert 0 < rows[-1]["gradient"] < 1e-50
    for row, other in zip(rows, wanted, strict=True):
        assert row["gradient"] == pytest.approx(other["gradient"], rel=1e-2)


def test_a_plain_net_is_one_path(digits) -> None:
    net = scrambled(build(zoo.cifar(8, input=SMALL, plain=True), dtype=torch.float64)).eval()
    x, labels = _inputs(net, digits, 9)
    (own,) = torch.autograd.grad(functional.cross_entropy(net(x.requires_grad_()), labels, reduction="sum"), x)
    for exact in (False, True):
        rows = paths.measure(net, digits, images=9, exact=exact)
        assert [row["paths"] for row in rows] == [0, 0, 0, 1]
        assert [row["gradient"] for row in rows[:3]] == [None] * 3
        assert rows[3]["gradient"] == pytest.approx(own.flatten(1).norm(dim=1).mean().item(), rel=1e-5)
        assert [row["contribution"] for row in rows] == [0, 0, 0, 100]
    assert paths.summarise(rows)["effective_low"] == 3


def test_lengths_between_those_measured_lie_on_a_line(digits, monkeypatch) -> None:
    net = scrambled(build(zoo.cifar(38, input=SMALL)))
    monkeypatch.setattr(paths, "LENGTHS", 5)
    rows = paths.measure(net, digits, images=8)
    seen = [row["length"] for row in rows if row["seen"]]
    assert seen == [0, 1, 4, 10, 18]
    logs = [math.log(row["gradient"]) for row in rows]
    assert logs[13] == pytest.approx(logs[10] + (logs[18] - logs[10]) * 3 / 8, rel=1e-4)
    assert all(row["gradient_low"] is None for row in rows if not row["seen"])


def test_a_summary_has_the_narrowest_range() -> None:
    share = [1, 4, 6, 4, 1]
    rows = [
        {"length": k, "paths": n, "share": 100 * n / 16, "contribution": part, "effective": k < 2}
        for k, (n, part) in enumerate(zip(share, (60.0, 36.0, 3.0, 1.0, 0.0), strict=True))
    ]
    found = paths.summarise(rows)
    assert (found["blocks"], found["paths"], found["length_mean"]) == (4, 16, 2)
    assert (found["length_low"], found["length_high"]) == (0, 4)
    assert (found["effective_low"], found["effective_high"], found["effective_share"]) == (0, 1, 31.25)
    assert found["effective_mean"] == pytest.approx(0.45)
    broken = [{**row, "contribution": None, "effective": None} for row in rows]
    assert paths.summarise(broken)["effective_mean"] is None


def test_what_is_not_finite_is_null(digits) -> None:
    net = scrambled(build(zoo.cifar(8, input=SMALL)))
    net.head.linear.bias.data.fill_(float("nan"))
    rows = paths.measure(net, digits, images=8)
    assert [row["gradient"] for row in rows] == [None] * 4
    assert [row["contribution"] for row in rows] == [None] * 4


def test_hostile_arguments(digits) -> None:
    with pytest.raises(InputError, match="exact: got a net of 18 blocks; allowed: 12 or fewer"):
        paths.measure(build(zoo.cifar(38, input=SMALL)), digits, exact=True)
    with pytest.raises(InputError, match="labels 0 to 9"):
        paths.measure(build(zoo.cifar(8, input=SMALL, classes=3)), digits)
