"""Muon against PyTorch's own on matrices, SGD's on everything else, and what makes an update orthogonal."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import deepskip as ds
from deepskip.training.muon import Muon, orthogonalise
from deepskip.training.optimiser import make_optimiser


def _drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("rows", "columns"), [(8, 72), (64, 16), (16, 16), (3, 27)])
def test_an_update_is_nearly_orthogonal(rows: int, columns: int) -> None:
    found = torch.linalg.svdvals(orthogonalise(_drawn(5, rows, columns)))
    assert found.shape == (5, min(rows, columns))
    # The iteration trades exactness for speed: it gathers the values around 1 and not at 1. Square matrices
    # drawn at random have values near 0, which it does not lift all the way.
    least = 0.5 if rows != columns else 0.0
    assert least < found.min()
    assert found.max() < 1.35


def test_an_update_keeps_the_directions() -> None:
    matrix = _drawn(1, 12, 40).double()
    u, _, v = torch.linalg.svd(matrix[0], full_matrices=False)
    inside = u.T @ orthogonalise(matrix)[0] @ v.T
    assert torch.allclose(inside, torch.diag(inside.diagonal()), atol=1e-9)


def test_it_takes_the_steps_of_pytorchs() -> None:
    """Kernels of 1 × 1 are matrices: there both are the same rule, but for bf16's rounding of products."""
    start = [_drawn(16, 8, 1, 1), _drawn(16, 8, 1, 1, seed=1), _drawn(4, 32, 1, 1, seed=2)]
    ours = [nn.Parameter(w.clone()) for w in start]
    theirs = [nn.Parameter(w[:, :, 0, 0].clone()) for w in start]
    settings = {"lr": 0.1, "momentum": 0.9, "nesterov": True}
    own = Muon([{"params": ours, "orthogonal": True, "weight_decay": 0.1}], **settings)
    other = torch.optim.Muon(theirs, weight_decay=0.1, ns_steps=5, **settings)
    for step in range(5):
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            gradient = _drawn(*b.shape, seed=100 * step + i)
            a.grad, b.grad = gradient[:, :, None, None].clone(), gradient.clone()
        own.step()
        other.step()
    for a, b, w in zip(ours, theirs, start, strict=True):
        assert (a.flatten(1) - b).norm() < 0.05 * (b - w[:, :, 0, 0]).norm()


@pytest.mark.parametrize("nesterov", [True, False])
def test_other_parameters_take_sgds_steps(nesterov: bool) -> None:
    start = [_drawn(10, 5).double(), _drawn(7, seed=1).double()]
    ours, theirs = ([nn.Parameter(w.clone()) for w in start] for _ in range(2))
    settings = {"lr": 0.1, "momentum": 0.9, "nesterov": nesterov}
    own = Muon([{"params": ours, "weight_decay": 0.01}], **settings)
    other = torch.optim.SGD(theirs, weight_decay=0.01, **settings)
    for step in range(4):
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            a.grad = _drawn(*a.shape, seed=10 * step + i).double()
            b.grad = a.grad.clone()
        own.step()
        other.step()
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=0)


def test_a_recipe_gives_it_every_convolution_and_nothing_else() -> None:
    net = ds.build(ds.zoo.get("resnet8_cifar"))
    made = make_optimiser(net, ds.Recipe(optimiser="muon", weight_decay=0.1))
    assert isinstance(made, Muon)
    held = {id(p): group for group in made.param_groups for p in group["params"]}
    for name, p in net.named_parameters():
        assert held[id(p)]["orthogonal"] == (p.ndim == 4), name
        assert held[id(p)]["weight_decay"] == (0.1 if p.ndim > 1 else 0.0), name
    assert len(held) == len(list(net.parameters()))


def test_a_batch_of_equal_kernels_is_as_each_alone() -> None:
    together = [nn.Parameter(_drawn(8, 4, 3, 3, seed=i).double()) for i in range(3)]
    alone = [nn.Parameter(p.detach().clone()) for p in together]
    settings = {"lr": 0.1, "momentum": 0.9, "nesterov": True}
    for p, q in zip(together, alone, strict=True):
        p.grad = torch.sin(p.detach())
        q.grad = p.grad.clone()
    Muon([{"params": together, "orthogonal": True}], **settings).step()
    for q in alone:
        Muon([{"params": [q], "orthogonal": True}], **settings).step()
    for p, q in zip(together, alone, strict=True):
        assert torch.allclose(p, q, rtol=0, atol=1e-12)


def test_a_grouped_convolution_is_a_matrix_a_group() -> None:
    spec = ds.zoo.get("resnext50_32x4d", classes=3)
    net = ds.build(spec).double()
    grouped = net.get_submodule("stages.s1.b1.branch.conv2")
    assert isinstance(grouped, nn.Conv2d)
    assert grouped.groups == 32
    made = make_optimiser(net, ds.Recipe(optimiser="muon", lr=0.1, weight_decay=0.0))
    before, (out, each) = grouped.weight.detach().clone(), (grouped.out_channels, grouped.in_channels // 32)
    gradient = torch.sin(torch.arange(before.numel(), dtype=torch.float64)).view_as(before)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.grad = gradient.clone() if module is grouped else torch.zeros_like(module.weight)
    made.step()
    moved = (before - grouped.weight.detach()) / 0.1
    for part, whole in zip(moved.chunk(32), gradient.chunk(32), strict=True):
        alone = nn.Parameter(torch.zeros(out // 32, each, 3, 3, dtype=torch.float64))
        alone.grad = whole.clone()
        settings = {"lr": 1.0, "momentum": 0.9, "nesterov": True}
        Muon([{"params": [alone], "orthogonal": True}], **settings).step()
        assert torch.allclose(part, -alone, rtol=0, atol=1e-9)
