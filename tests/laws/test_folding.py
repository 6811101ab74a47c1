"""Folding: in evaluation the outputs stay but for rounding, and the Spec goes on telling what the net is."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, example, given, settings
from torch import nn

import deepskip as ds
from deepskip.describe import zoo
from deepskip.describe.ledger import count
from deepskip.describe.spec import Spec
from deepskip.nets.builder import build
from deepskip.surgery import fold, folded
from deepskip.weights import store
from tests.laws.strategies import scrambled, specs
from tests.laws.test_store import _header

SMALL = (1, 8, 8)
FAMILIES = [
    ("resnet20_cifar", {}),
    ("preresnet_cifar", {"depth": 20}),
    ("revnet_cifar", {"depth": 14}),
    ("plain8_cifar", {}),
    ("seresnet50", {}),
    ("resnet26_d", {}),
    ("preresnet18", {}),
]


def _close(made: torch.Tensor, wanted: torch.Tensor, within: float) -> bool:
    return bool((made - wanted).abs().max() <= within * wanted.abs().max().clamp(min=1))


@settings(max_examples=200)
@given(specs(coupled=True))
def test_a_folded_net_has_the_same_outputs(spec: Spec) -> None:
    net = scrambled(build(spec, dtype=torch.float64)).eval()
    made = fold(net)
    x = torch.randn(3, *spec.input, dtype=torch.float64)
    assert _close(made(x), net(x), 1e-12)
    assert _close(fold(net.float())(x.float()), net(x.float()), 1e-4)


@settings(max_examples=100)
@given(specs(coupled=True))
@example(zoo.cifar(8, order="pre"))  # where the Spec says what is left: which nets are drawn is chance
def test_its_spec_is_true(spec: Spec) -> None:
    net = scrambled(build(spec)).eval()
    made = fold(net)
    if spec.norm != "batch":
        assert made.spec == spec
        assert all(torch.equal(t, net.state_dict()[name]) for name, t in made.state_dict().items())
        return
    again = build(made.spec)
    assert {n: t.shape for n, t in again.state_dict().items()} == {
        n: t.shape for n, t in made.state_dict().items()
    }
    assert count(made.spec).params == sum(p.numel() for p in made.parameters())
    assert Spec.from_json(made.spec.to_json()) == made.spec == folded(spec)
    assert fold(made).spec == made.spec
    assert made.spec.layers == spec.layers


@settings(max_examples=100)
@given(specs(norm="batch", initial="he_fan_out"))
def test_no_normaliser_is_left_behind_a_convolution(spec: Spec) -> None:
    assume(
        not (spec.is_plain and spec.order in ("pre", "norm_after"))
    )  # a plain junction passes convolutions on
    made = fold(build(spec)).eval()
    outputs: list[torch.Tensor] = []
    for module in made.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _m, _x, out: outputs.append(out))
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(lambda _m, x: seen.append(any(x[0] is out for out in outputs)))
    seen: list[bool] = []
    made(torch.randn(2, *spec.input))
    # Where the block keeps its own first activation, the stem's convolution feeds the shortcut as well.
    alone = spec.order == "pre" and not spec.stem.pool and not next(spec.sites()).shared
    assert sum(seen) == alone


@pytest.mark.parametrize(("name", "options"), FAMILIES, ids=[name for name, _ in FAMILIES])
def test_the_zoos_nets_fold(name: str, options: dict[str, int]) -> None:
    spec = zoo.get(name, input=(3, 32, 32), **options)
    net = scrambled(build(spec, dtype=torch.float64)).eval()
    made = fold(net)
    left = [n for n, m in made.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert bool(left) == (spec.order == "pre")
    x = torch.randn(2, *spec.input, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert _close(made(x), net(x), 1e-12)


def test_mode_precision_memory_order_and_frozen_parameters_stay() -> None:
    net = build(zoo.cifar(8, input=SMALL), dtype=torch.float64).to(memory_format=torch.channels_last)
    net.stem.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    made = ds.surgery.fold(net)
    assert made.training
    assert not fold(net.eval()).training
    assert {p.dtype for p in made.parameters()} == {torch.float64}
    assert made.stages["s2"]["b1"].branch.conv2.weight.is_contiguous(memory_format=torch.channels_last)
    frozen = [n for n, p in made.named_parameters() if not p.requires_grad]
    assert frozen == ["stem.conv1.weight", "stem.conv1.bias"]  # the bias is what the normaliser was
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_a_folded_net_is_saved_and_loaded_like_any_other(tmp_path) -> None:
    net = scrambled(build(zoo.cifar(8, input=SMALL))).eval()
    made = fold(net)
    store.save(tmp_path / store.FILE, made, _header(made.spec))
    x = torch.randn(4, *SMALL)
    model = ds.load(tmp_path)
    assert model.net.spec == made.spec
    assert torch.equal(model.net.to(memory_format=torch.contiguous_format)(x), made(x))
