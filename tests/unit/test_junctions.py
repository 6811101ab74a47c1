"""The numbers of junctions and of initial rules, each against its formula as the papers write it."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from deepskip.describe import zoo
from deepskip.describe.spec import ARRANGEMENTS, Junction, Order, Spec
from deepskip.nets.builder import build
from deepskip.nets.parts import GateConv, LearnedSum, StochasticDepth
from tests.laws.strategies import scrambled

Formula = Callable[[Tensor, Tensor, nn.Module], Tensor]


def _gate(shortcut: Tensor, junction: nn.Module) -> Tensor:
    """Return σ(W s + b), W a 1×1 convolution, written without one."""
    weight, bias = junction.gate.weight[:, :, 0, 0], junction.gate.bias
    return torch.sigmoid(torch.einsum("oc,nchw->nohw", weight, shortcut) + bias[:, None, None])


FORMULAS: dict[str, tuple[Junction, Formula]] = {
    "sum": (Junction(), lambda s, f, j: s + f),
    "scaled": (
        Junction(kind="scaled", shortcut_scale=0.25, branch_scale=-1.5),
        lambda s, f, j: 0.25 * s - 1.5 * f,
    ),
    "learned": (Junction(kind="learned", branch_scale=0.5), lambda s, f, j: s + j.scale * f),
    "exclusive_gate": (
        Junction(kind="exclusive_gate", gate_bias=-6.0),
        lambda s, f, j: (1 - _gate(s, j)) * s + _gate(s, j) * f,
    ),
    "shortcut_gate": (
        Junction(kind="shortcut_gate", gate_bias=-6.0),
        lambda s, f, j: (1 - _gate(s, j)) * s + f,
    ),
    "dropout": (Junction(kind="dropout", rate=0.25), lambda s, f, j: s + f),  # in evaluation
}


def _made(junction: Junction, **fields: object) -> nn.Module:
    """Return the second block's junction in a net of scrambled values, in float64 and evaluation mode."""
    spec = zoo.cifar(8, junction=junction, **fields)
    return build(spec, dtype=torch.float64).eval().stages["s2"]["b1"].junction


def _values(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pair = torch.randn(2, 3, 32, 4, 4, generator=generator, dtype=torch.float64)
    return pair[0], pair[1]


@pytest.mark.parametrize("kind", FORMULAS)
def test_a_junction_computes_its_formula(kind: str) -> None:
    junction, formula = FORMULAS[kind]
    made = scrambled(_made(junction))
    shortcut, branch = _values(0)
    torch.testing.assert_close(made(shortcut, branch), formula(shortcut, branch, made), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", FORMULAS)
def test_a_plain_block_has_no_junction(kind: str) -> None:
    made = _made(FORMULAS[kind][0], plain=True, survival=0.5)
    shortcut, branch = _values(1)
    assert torch.equal(made(shortcut, branch), branch)
    assert not list(made.parameters())


def test_a_dropout_shortcut_drops_and_rescales_in_training() -> None:
    made = _made(FORMULAS["dropout"][0]).train()
    ones, branch = torch.ones(8, 32, 16, 16, dtype=torch.float64), torch.zeros(8, 32, 16, 16).double()
    torch.manual_seed(0)
    out = made(ones, branch)
    assert set(out.unique().tolist()) == {0.0, 1 / 0.75}
    assert (out == 0).double().mean().item() == pytest.approx(0.25, abs=0.01)
    assert torch.equal(made(ones * 0, branch + 2), branch + 2)  # the branch is never dropped


def test_survival_falls_linearly_from_the_input() -> None:
    for depth in (8, 20):
        spec = zoo.cifar(depth, survival=0.4)
        found = [site.survival for site in spec.sites()]
        blocks = len(found)
        assert found == pytest.approx([1 - (i / blocks) * 0.6 for i in range(1, blocks + 1)])  # equation 4
        assert found[-1] == pytest.approx(0.4)
        built = [block.junction.survival for block in build(spec).blocks()]
        assert built == found
    assert not any(isinstance(m, StochasticDepth) for m in build(zoo.cifar(8)).modules())


@pytest.mark.parametrize("survival", [0.1, 0.8])
def test_a_branch_survives_as_often_as_it_should(survival: float) -> None:
    made = _made(Junction(), survival=survival).train()
    wanted = next(site.survival for site in zoo.cifar(8, survival=survival).sites() if "s2.b1" in site.name)
    assert wanted != 0.5
    shortcut, branch = _values(2)
    kept = 0
    for seed in range(2000):
        torch.manual_seed(seed)
        out = made(shortcut, branch)
        whole = torch.equal(out, shortcut + branch)
        assert whole or torch.equal(
            out, shortcut
        )  # the batch keeps or loses all of it, and nothing is rescaled
        kept += whole
    assert kept / 2000 == pytest.approx(wanted, abs=0.04)


@pytest.mark.parametrize("kind", FORMULAS)
def test_evaluation_scales_the_branch_by_its_survival(kind: str) -> None:
    junction, formula = FORMULAS[kind]
    made = scrambled(_made(junction, survival=0.4))
    shortcut, branch = _values(3)
    p = 1 - 2 / 3 * 0.6
    wanted = formula(shortcut, p * branch, made.inner)
    torch.testing.assert_close(made(shortcut, branch), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("order", "norm", "zeroed"),
    [
        # The branch's last tensor before the junction: its normaliser where the order puts one after the last
        # convolution, else that convolution.
        ("post", "batch", "norm2"),
        ("post", "group", "norm2"),
        ("post", "layer", "norm2"),
        ("post", "none", "conv2"),
        ("norm_after", "batch", "conv2"),
        ("norm_after", "group", "conv2"),
        ("norm_after", "none", "conv2"),
        ("relu_only", "batch", "norm2"),
        ("relu_only", "layer", "norm2"),
        ("relu_only", "none", "conv2"),
        ("pre", "batch", "conv2"),
        ("pre", "group", "conv2"),
        ("pre", "none", "conv2"),
    ],
)
def test_zero_last_zeroes_one_tensor_a_block(order: Order, norm: str, zeroed: str) -> None:
    spec = zoo.cifar(8, order=order, norm=norm, zero_last=True)
    net, usual = build(spec).state_dict(), build(spec.replace(zero_last=False)).state_dict()
    changed = [name for name in net if not torch.equal(net[name], usual[name])]
    assert changed == [f"stages.s{i}.b1.branch.{zeroed}.weight" for i in (1, 2, 3)]
    assert not any(net[name].any() for name in changed)
    blocks = build(spec).eval().blocks()
    for site, block in zip(spec.sites(), blocks, strict=True):
        assert not block.branch(torch.randn(2, *site.inputs)).any()
    # The table above is the arrangements', not a list of its own.
    last = ARRANGEMENTS[order].last.partition("c")[2]
    assert zeroed.startswith("norm") == ("n" in last and norm != "none")


@pytest.mark.parametrize(
    ("spec", "convs"),
    [
        (zoo.cifar(20, norm="fixup", initial="fixup"), 2),
        (zoo.cifar(29, block="bottleneck", norm="fixup", initial="fixup"), 3),
        (zoo.cifar(14, layers_per_skip=4, norm="fixup", initial="fixup"), 4),
    ],
)
def test_fixup_scales_a_branch_by_its_rule(spec: Spec, convs: int) -> None:
    net, blocks = build(spec), len(list(spec.sites()))
    ratios = []
    for site in spec.sites():
        branch = net.get_submodule(site.name).branch
        for i in range(1, convs):
            conv = branch.get_submodule(f"conv{i}")
            he = math.sqrt(2 / (conv.out_channels * conv.kernel_size[0] ** 2))
            ratios.append((conv.weight.square().mean().sqrt().item() / he, conv.weight.numel()))
        assert not branch.get_submodule(f"conv{convs}").weight.any()
        assert {p.item() for name, p in branch.named_parameters() if "bias" in name} == {0.0}
        assert {p.item() for name, p in branch.named_parameters() if "scale" in name} == {1.0}
    total = sum(count for _, count in ratios)
    found = math.sqrt(sum(ratio**2 * count for ratio, count in ratios) / total)
    assert found == pytest.approx(blocks ** (-1 / (2 * convs - 2)), rel=5 / math.sqrt(2 * total))
    assert not net.head.linear.weight.any()
    assert not net.head.linear.bias.any()
    stem = net.stem.conv1.weight
    assert stem.std().item() == pytest.approx(math.sqrt(2 / (16 * 9)), rel=0.1)  # outside branches: He's


def test_fixup_has_a_scalar_before_every_convolution_of_a_block() -> None:
    net = build(zoo.cifar(8, shortcut="B", norm="fixup", initial="fixup"))
    for block in net.blocks():
        for part in (block.branch, block.shortcut):
            names = [name.rstrip("0123456789") for name, _ in part.named_children()]
            assert all(names[at - 1] == "bias" for at, name in enumerate(names) if name == "conv")
    assert [name for name, _ in net.stages["s2"]["b1"].shortcut.named_children()] == ["bias", "conv"]


@pytest.mark.parametrize("bias", [0.0, -6.0, 2.5])
@pytest.mark.parametrize("kind", ["exclusive_gate", "shortcut_gate"])
def test_a_gate_begins_with_its_bias(kind: str, bias: float) -> None:
    net = build(zoo.cifar(8, junction=Junction(kind=kind, gate_bias=bias)))
    gates = [m for m in net.modules() if isinstance(m, GateConv)]
    assert len(gates) == 3
    for gate in gates:
        assert gate.bias.unique().tolist() == [bias]
        he = math.sqrt(2 / gate.out_channels)
        assert gate.weight.std().item() == pytest.approx(he, rel=5 / math.sqrt(2 * gate.weight.numel()))


@pytest.mark.parametrize("start", [0.0, 0.5, 1.0])
def test_a_learned_scale_begins_where_the_spec_says(start: float) -> None:
    net = build(zoo.cifar(8, junction=Junction(kind="learned", branch_scale=start)))
    assert [m.scale.item() for m in net.modules() if isinstance(m, LearnedSum)] == [start] * 3
