"""Taps read what modules really compute; alterations do what their words say; nothing of either stays."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import Tensor, nn

import deepskip as ds
from deepskip.errors import InputError
from deepskip.instruments import taps
from tests.laws.strategies import scrambled

SMALL = (1, 8, 8)


@pytest.fixture
def net() -> ds.Network:
    return scrambled(ds.build(ds.zoo.cifar(14, input=SMALL, shortcut="B"), dtype=torch.float64)).eval()


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(3, *SMALL, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def _hooked(net: nn.Module) -> bool:
    return any(m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m) for m in net.modules())


# --- places ---------------------------------------------------------------------------------------------------


def test_patterns_fit_whole_components(net) -> None:
    blocks = ["s1.b1", "s1.b2", "s2.b1", "s2.b2", "s3.b1", "s3.b2"]
    assert list(taps.places(net, "stages.*.*")) == [f"stages.{b}" for b in blocks]
    assert list(taps.places(net, "stages.*.*.branch")) == [f"stages.{b}.branch" for b in blocks]
    assert list(taps.places(net, "stages.s[12].b?.junction")) == [f"stages.{b}.junction" for b in blocks[:4]]
    assert list(taps.places(net, "**.linear")) == ["head.linear"]
    assert list(taps.places(net, "stem.**")) == ["stem", "stem.conv1", "stem.norm1", "stem.relu1"]
    assert list(taps.places(net, ["head.pool", "stem"])) == ["stem", "head.pool"]
    assert taps.places(net, "stages.s2.b1") == {"stages.s2.b1": net.stages["s2"]["b1"]}
    everything = taps.places(net, "**")
    assert set(everything) == {n for n, _ in net.named_modules()} - {
        "",
        "stages",
        "stages.s1",
        "stages.s2",
        "stages.s3",
    }


@pytest.mark.parametrize(
    ("pattern", "near"),
    [
        ("stages.s1.b2.brunch", "stages.s1.b2.branch"),
        ("stages.*.*.brunch", r"stages\.\*\.\*\.branch"),
        ("stages.*.*.branch.norm3", r"stages\.\*\.\*\.branch\.norm"),
        ("heads", "head"),
        ("stages.s1", r"stages\.s\d\.b"),
        ("*.branch", None),
        ("", None),
    ],
)
def test_no_place_is_an_error_with_the_nearest(net, pattern: str, near: str | None) -> None:
    with pytest.raises(InputError, match=f"nearest: {near}" if near else "allowed") as caught:
        taps.places(net, pattern)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError), ds.tap(net, pattern):
        pass
    with pytest.raises(InputError), ds.alter(net, {pattern: 0.0}):
        pass


# --- tap ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_tap_reads_what_parts_compute(net, x) -> None:
    with ds.tap(net, ["stages.*.*", "stages.*.*.branch", "stages.*.*.shortcut", "stem"]) as seen:
        logits = net(x)
        net(x[:1])
    assert torch.equal(logits, net(x))
    assert not _hooked(net)
    y = net.stem(x)
    assert [len(one) for one in seen["stem"]] == [3, 1]
    assert torch.equal(seen["stem"][0], y)
    for name, block in taps.places(net, "stages.*.*").items():
        assert torch.equal(seen[f"{name}.branch"][0], block.branch(y))
        assert torch.equal(seen[f"{name}.shortcut"][0], block.shortcut(y))
        y = block(y)
        assert torch.equal(seen[name][0], y)
        assert len(seen[name]) == 2


def test_what_is_kept_can_be_a_number_or_a_functions_value(net, x) -> None:
    place = "stages.s2.b1"
    with (
        ds.tap(net, place) as whole,
        ds.tap(net, place, "rms") as rms,
        ds.tap(net, place, "mean") as mean,
        ds.tap(net, place, keep=lambda out: (out.shape, out.requires_grad)) as mine,
    ):
        net(x)
    (out,) = whole[place]
    assert rms[place] == [pytest.approx(out.square().mean().sqrt().item(), rel=1e-12)]
    assert mean[place] == [pytest.approx(out.mean().item(), rel=1e-12)]
    assert mine[place] == [((3, 32, 4, 4), False)]
    with pytest.raises(InputError, match="keep: got 'rmse'; .*nearest: rms"), ds.tap(net, place, "rmse"):
        pass


def test_gradients_are_those_by_each_output(net, x) -> None:
    """Against a formula, and against finite differences of what an output is replaced with."""
    places = ["stages.s1.b2", "stages.s1.b2.branch", "stages.s1.b2.shortcut", "stages.s3.b1", "head.linear"]
    with ds.tap(net, places, gradients=True) as seen:
        net(x).square().sum().backward()
    assert not _hooked(net)
    assert torch.equal(seen.gradients["head.linear"][0], 2 * seen["head.linear"][0])
    for name in places:
        out, gradient = seen[name][0], seen.gradients[name][0]
        direction = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(1))
        ends = []
        for step in (1e-6, -1e-6):
            with ds.alter(net, {name: out + step * direction}), torch.no_grad():
                ends.append(net(x).square().sum().item())
        assert (gradient * direction).sum().item() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5), name


def test_the_identitys_gradient_is_not_all_of_its_inputs(net, x) -> None:
    """The shortcut returns the block's input itself; of its gradient, which adds up both ways, it has one."""
    with ds.tap(
        net, ["stages.s1.b1", "stages.s1.b2.shortcut", "stages.s1.b2.junction"], gradients=True
    ) as seen:
        net(x).sum().backward()
    below, shortcut, junction = (one[0] for one in seen.gradients.values())
    assert torch.equal(shortcut, junction)
    assert not torch.equal(below, shortcut)


def test_frozen_nets_have_gradients_and_parameters_keep_theirs(net, x) -> None:
    with ds.tap(net, "stages.*.*", "rms", gradients=True) as trained:
        net(x).sum().backward()
    net.requires_grad_(False)
    net.zero_grad()
    with ds.tap(net, "stages.*.*", "rms", gradients=True) as frozen:
        net(x).sum().backward()
    assert frozen.gradients == trained.gradients
    assert all(value > 0 for (value,) in frozen.gradients.values())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert x.grad is None
    assert not x.requires_grad


def test_a_gradient_stands_beside_its_own_output(net, x) -> None:
    with ds.tap(net, "stages.s3.b2", gradients=True) as seen:
        first, second = net(x), net(2 * x)
        with torch.no_grad():
            net(x)
        second.sum().backward()
        first.square().sum().backward()
    one, two, three = seen.gradients["stages.s3.b2"]
    assert three is None
    weight = net.head.linear.weight.detach()
    assert torch.allclose(two.sum((2, 3)), weight.sum(0).expand(3, -1))
    assert torch.allclose(one.sum((2, 3)), 2 * first.detach() @ weight)


def test_backward_passes_after_it_are_not_seen(net, x) -> None:
    with ds.tap(net, "stages.s3.b2", gradients=True) as seen:
        out = net(x)
    out.sum().backward()
    assert seen.gradients["stages.s3.b2"] == [None]


@torch.no_grad()
@pytest.mark.parametrize(("keep", "held"), [(None, 12), ("rms", 0), (lambda out: out.abs().max().item(), 0)])
def test_no_more_is_held_than_what_is_kept(net, x, keep, held: int) -> None:
    before = _activations()
    with ds.tap(net, ["stages.*.*", "stages.*.*.branch"], keep) as seen:
        net(x)
        assert _activations() - before == held
    assert sum(map(len, seen.values())) == 12


def test_gradients_are_not_held_either(net, x) -> None:
    before = _activations()
    with ds.tap(net, "stages.*.*.branch", "rms", gradients=True) as seen:
        net(x).sum().backward()
        assert _activations() == before
    assert sum(map(len, seen.gradients.values())) == 6


def _activations() -> int:
    gc.collect()
    alive = (one for one in gc.get_objects() if issubclass(type(one), Tensor))
    return sum(one.dim() == 4 and len(one) == 3 and not isinstance(one, nn.Parameter) for one in alive)


def test_no_hook_stays_after_an_exception(net, x) -> None:
    class EnoughError(Exception):
        pass

    def fail(out: Tensor) -> Tensor:
        raise EnoughError

    with (
        pytest.raises(EnoughError),
        ds.tap(net, "**", gradients=True),
        ds.alter(net, {"stages.s1.b2": "stages.s1.b1"}),
    ):
        raise EnoughError
    assert not _hooked(net)
    with pytest.raises(EnoughError), ds.tap(net, "stages.*.*", keep=fail):
        net(x)
    assert not _hooked(net)
    with pytest.raises(EnoughError), ds.alter(net, {"stages.*.*": 0.5, "stages.s2.b2.branch": fail}):
        net(x)
    assert not _hooked(net)
    with pytest.raises(InputError), ds.alter(net, {"stages.s1.b2": "stages.s1.b1", "stem": float("nan")}):
        pass
    assert not _hooked(net)


def test_a_backward_hook_that_fails_is_gone_too(net, x) -> None:
    inner = net.stages["s1"]["b1"]
    outs: list[Tensor] = []
    inner.register_forward_hook(lambda module, inputs, out: outs.append(out))

    def fail(out: Tensor) -> int:
        return 1 // len(calls)

    calls: list[int] = [1]
    with pytest.raises(ZeroDivisionError), ds.tap(net, "stages.s1.b1", fail, gradients=True):
        loss = net(x).sum()
        calls.clear()
        loss.backward(retain_graph=True)
    calls.clear()
    loss.backward()  # the tensor's own hook is gone


# --- alter ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_numbers_scale_and_zero_cuts(net, x) -> None:
    y = net.stages["s1"]["b1"](net.stem(x))
    block = net.stages["s1"]["b2"]
    for factor in (0, 0.0, 0.5, -2):
        with ds.alter(net, {"stages.s1.b2.branch": factor}), ds.tap(net, "stages.s1.b2") as seen:
            net(x)
        assert torch.equal(seen["stages.s1.b2"][0], block.after(block.shortcut(y) + factor * block.branch(y)))
    with ds.alter(net, {"stages.s1.b2.branch": 0.0}), ds.tap(net, "stages.s1.b2") as seen:
        net(x)
    assert torch.equal(seen["stages.s1.b2"][0], y)  # y ≥ 0
    net.stages["s1"]["b2"].branch.norm2.weight.fill_(float("inf"))
    with ds.alter(net, {"stages.s1.b2.branch": 0.0}):
        assert net(x).isfinite().all()


@torch.no_grad()
def test_tensors_and_functions_stand_in_its_place(net, x) -> None:
    place = "stages.s2.b1.branch"
    with ds.tap(net, place) as seen:
        before = net(x)
    (own,) = seen[place]
    means = own.mean((0, 2, 3))[:, None, None].float()
    with ds.alter(net, {place: own}):
        assert torch.equal(net(x), before)
    with ds.alter(net, {place: means}), ds.tap(net, place) as seen:
        net(x)
    assert torch.equal(seen[place][0], means.double().expand_as(own))
    with ds.alter(net, {place: lambda out: out.flip(0)}), ds.tap(net, place) as seen:
        net(x)
    assert torch.equal(seen[place][0], own.flip(0))
    assert torch.equal(net(x), before)


@torch.no_grad()
def test_replacements_of_other_shapes_are_refused(net, x) -> None:
    place, shape = "stages.s2.b1.branch", r"\[3, 32, 4, 4\]"
    for change, got in (
        (torch.zeros(3, 32, 4, 5), r"\[3, 32, 4, 5\]"),
        (torch.zeros(1, 3, 32, 4, 4), r"\[1, 3, 32, 4, 4\]"),
        (torch.zeros(32), r"\[32\]"),
        (lambda out: out[:, :, :1], r"\[3, 32, 1, 4\]"),
        (lambda out: None, "NoneType"),
    ):
        with (
            pytest.raises(InputError, match=f"place '{place}': got {got}; allowed: {shape}"),
            ds.alter(net, {place: change}),
        ):
            net(x)
    for wrong in (True, float("inf"), None, [1]):
        with (
            pytest.raises(InputError, match=f"place '{place}': got .*; allowed: a finite number"),
            ds.alter(net, {place: wrong}),
        ):
            pass
    with pytest.raises(InputError, match="two changes"), ds.alter(net, {"stages.*.*.branch": 1.0, place: 0.0}):
        pass
    assert not _hooked(net)


@torch.no_grad()
def test_two_blocks_change_places(net, x) -> None:
    net = scrambled(ds.build(ds.zoo.cifar(20, input=SMALL), dtype=torch.float64)).eval()
    (s1, s2, s3), y = net.stages.values(), net.stem(x)
    for block in (s1["b1"], s1["b3"], s1["b2"], *s2.children(), *s3.children()):
        y = block(y)
    before = net(x)
    with ds.alter(net, {"stages.s1.b2": "stages.s1.b3", "stages.s1.b3": "stages.s1.b2"}):
        with ds.tap(net, "stages.s1.b3.branch") as seen:
            swapped = net(x)
        assert [len(one) for one in seen.values()] == [1]
        with ds.alter(net, {"stages.s1.b2": "stages.s1.b3", "stages.s1.b3": "stages.s1.b2"}):
            assert torch.equal(net(x), before)
        assert torch.equal(net(x), swapped)
    assert torch.equal(swapped, net.head(y))
    assert not torch.equal(swapped, before)
    assert torch.equal(net(x), before)
    assert not _hooked(net)


def test_what_cannot_compute_at_a_place_is_refused(net) -> None:
    for changes, message in (
        (
            {"stages.s2.b2": "stages.s1.b2"},
            "of other sizes; allowed: a place of the same; nearest: stages.s2.b",
        ),
        ({"stages.s1.b1.branch": "stages.s1.b2.brunch"}, "nearest: stages.s1.b2.branch"),
        ({"stages.s1.b1.branch": "stages.s1.b1"}, "holds the altered 'stages.s1.b1.branch'"),
        ({"stages.s1.b1.branch": "stages.s1.b2", "stages.s1.b2.branch": "stages.s1.b1"}, "holds the altered"),
    ):
        with pytest.raises(InputError, match=message), ds.alter(net, changes):
            pass
        assert not _hooked(net)
    with (
        ds.alter(net, {"stages.s1.b1": "stages.s1.b1.branch"}),
        torch.no_grad(),
    ):  # a block without its shortcut
        net(torch.zeros(1, *SMALL, dtype=torch.float64))


# --- at rest --------------------------------------------------------------------------------------------------


def test_at_rest_everything_comes_back(net, x) -> None:
    net.train()
    net.stages["s2"].eval()
    net.stem.requires_grad_(False)
    net(x).sum().backward()
    gradients = [None if p.grad is None else p.grad.clone() for p in net.parameters()]
    flags = [(m.training, getattr(m, "track_running_stats", None)) for m in net.modules()]
    with pytest.raises(ZeroDivisionError), taps.at_rest(net, "batch"):
        assert not net.head.training
        assert net.stem.norm1.training
        net.requires_grad_(True)
        net(x).square().sum().backward()
        1 / 0  # noqa: B018
    assert [(m.training, getattr(m, "track_running_stats", None)) for m in net.modules()] == flags
    assert [p.requires_grad for p in net.parameters()] == [
        not n.startswith("stem") for n, _ in net.named_parameters()
    ]
    for parameter, before in zip(net.parameters(), gradients, strict=True):
        assert (parameter.grad is None) == (before is None)
        assert before is None or torch.equal(parameter.grad, before)
