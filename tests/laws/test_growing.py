"""Law 4 for trained nets: blocks that are put in leave every output as it was, bit for bit, or are refused."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import deepskip as ds
from deepskip.describe import zoo
from deepskip.describe.ledger import count
from deepskip.describe.spec import Junction, Spec
from deepskip.errors import InputError
from deepskip.nets.builder import build
from deepskip.surgery import grow, grown
from deepskip.weights import store
from tests.laws.strategies import scrambled, specs
from tests.laws.test_store import _header

SMALL = (1, 8, 8)


def _drawn(spec: Spec, data: st.DataObject) -> int | dict[str, int]:
    if data.draw(st.booleans()):
        return data.draw(st.integers(1, 5))
    places = [stage.id for stage in spec.stages] + [f"{stage.id}.{block.id}" for stage, block in spec.blocks()]
    return data.draw(st.dictionaries(st.sampled_from(places), st.integers(1, 2), min_size=1, max_size=3))


def _can_be_silent(spec: Spec) -> bool:
    """Say, from the block's formula, whether after(1 · s + 0) is s for what comes before such a block."""
    junction = spec.junction
    keeps = junction.kind in ("sum", "learned", "dropout") or (
        junction.kind == "scaled" and junction.shortcut_scale == 1
    )
    alone = junction.kind == "learned" and junction.branch_scale == 0
    return (
        spec.shortcut in ("A", "B")
        and keeps
        and spec.survival == 1
        and not (spec.order == "norm_after" and spec.norm in ("batch", "group", "layer", "folded"))
        and (spec.order != "relu_before" or alone)
    )


@settings(max_examples=150)
@given(specs(coupled=True), st.data(), st.booleans())
def test_a_grown_net_has_the_same_outputs_bit_for_bit(spec: Spec, data: st.DataObject, last: bool) -> None:
    places = _drawn(spec, data)
    net = scrambled(build(spec)).eval()
    if last:
        net = net.to(memory_format=torch.channels_last)
    if not _can_be_silent(spec):
        with pytest.raises(InputError, match="start 'silent'") as caught:
            grow(net, places)
        assert "\n" not in str(caught.value)
        return
    made = grow(net, places, seed=3)
    x = torch.randn(2, *spec.input)
    assert torch.equal(made(x), net(x))
    assert made.spec == grown(spec, places) != spec
    assert sum(1 for _ in made.blocks()) > sum(1 for _ in net.blocks())


@pytest.mark.parametrize("kind", ["exclusive_gate", "shortcut_gate"])
def test_a_gate_changes_its_shortcut_so_no_block_behind_it_is_silent(kind: str) -> None:
    net = build(zoo.get("resnet8_cifar", input=SMALL).replace(junction=Junction(kind=kind)))
    with pytest.raises(InputError, match="start 'silent'"):
        grow(net, 1)


@settings(max_examples=60)
@given(specs(coupled=True), st.data(), st.sampled_from(("zero", "fresh")))
def test_the_other_blocks_keep_their_names_and_values(spec: Spec, data: st.DataObject, start: str) -> None:
    net = scrambled(build(spec))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    made = grow(net, _drawn(spec, data), start=start)
    after = made.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert len({tensor.data_ptr() for tensor in (*after.values(), *net.state_dict().values())}) == len(
        after
    ) + len(before)
    assert count(made.spec).params == sum(p.numel() for p in made.parameters())
    kept = [name for name in after if name in before]
    assert kept == list(before)  # and their order: optimisers go by it
    assert Spec.from_json(made.spec.to_json()) == made.spec
    again = grow(made, {made.spec.stages[0].id: 1}, start=start)  # ids that are taken stay whose they are
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in after.items())


@settings(max_examples=80)
@given(specs(shortcut="none"), st.data())
def test_a_delta_block_passes_on_what_a_plain_block_gets(spec: Spec, data: st.DataObject) -> None:
    net = scrambled(build(spec, dtype=torch.float64), 1).eval()
    try:
        made = grow(net, _drawn(spec, data), start="delta")
    except InputError as error:
        assume("channels in" not in str(error))
        assert spec.order in ("pre", "relu_only") or spec.norm in ("group", "layer") or spec.squeeze
        return
    x = torch.randn(2, *spec.input, dtype=torch.float64)
    torch.testing.assert_close(made(x), net(x), rtol=1e-9, atol=1e-9)


def test_delta_is_not_quite_the_identity_in_float32() -> None:
    net = scrambled(build(zoo.cifar(20, input=SMALL, plain=True))).eval()
    x = torch.randn(8, *SMALL)
    difference = (grow(net, 9, start="delta")(x) - net(x)).abs().max()
    assert difference < 1e-4 * net(x).abs().max()


def test_a_zero_start_makes_a_plain_net_a_constant() -> None:
    net = scrambled(build(zoo.cifar(8, input=SMALL, plain=True))).eval()
    out = grow(net, 1, start="zero")(torch.randn(5, *SMALL))
    assert torch.equal(out, out[:1].expand_as(out))


@pytest.mark.parametrize("order", ["post", "pre", "relu_only"])
def test_a_silent_block_learns(order: str) -> None:
    net = grow(scrambled(build(zoo.cifar(8, order=order, input=SMALL), dtype=torch.float64)), {"s2": 1}).train()
    block = net.stages["s2"]["g1"]
    before = {name: p.detach().clone() for name, p in block.named_parameters()}
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(3):  # the end of the branch moves first, then what is before it
        optimiser.zero_grad()
        net(torch.randn(4, *SMALL, dtype=torch.float64)).square().sum().backward()
        optimiser.step()
    assert all(not torch.equal(p, before[name]) for name, p in block.named_parameters())


def test_rezero_is_silent_by_its_scale_alone() -> None:
    spec = zoo.cifar(8, norm="none", junction=Junction(kind="learned", branch_scale=0.0), input=SMALL)
    net = scrambled(build(spec)).eval()
    block = grow(net, {"s1": 1}).stages["s1"]["g1"]
    assert block.junction.scale == 0
    assert block.branch.conv2.weight.abs().min() > 0


def test_blocks_are_spread_evenly_or_stand_where_they_are_wanted() -> None:
    spec = zoo.cifar(20)

    def ids(places: object) -> list[str]:
        return [f"{stage.id}.{block.id}" for stage, block in grown(spec, places).blocks()]  # type: ignore[arg-type]

    assert [i for i in ids(3) if ".g" in i] == ["s1.g1", "s2.g1", "s3.g1"]
    assert ids(1)[4:6] == ["s2.b2", "s2.g1"]
    assert ids(9) == [f"s{i}.{kind}{j}" for i in (1, 2, 3) for j in (1, 2, 3) for kind in "bg"]
    assert ids({"s2": 2, "s2.b1": 1})[3:9] == ["s2.b1", "s2.g1", "s2.b2", "s2.b3", "s2.g2", "s2.g3"]
    assert grown(spec, 9).layers == 38
    assert grown(spec, 9).name == "resnet20_cifar_grown"
    assert grown(grown(spec, 9), 1).plain().name == "plain20_cifar_grown"


def test_coupled_blocks_go_on_taking_turns() -> None:
    made = grown(zoo.reversible(38), {"s2.b1": 2})
    reads = [block.reads for block in made.stages[1].blocks]
    assert all(one != other for one, other in itertools.pairwise(reads))
    assert len(reads) == len(zoo.reversible(38).stages[1].blocks) + 2


@pytest.mark.parametrize(
    ("places", "wanted"),
    [
        (0, "places: got 0"),
        (True, "places: got True"),
        ({}, "places: got no block"),
        ({"s1": 0}, "places: got no block"),
        ({"s1": -1}, "places 's1': got -1"),
        ({"s9": 1}, "places: got 's9'; allowed: .*; nearest: s[123]"),
    ],
)
def test_impossible_places_are_refused(places: object, wanted: str) -> None:
    with pytest.raises(InputError, match=wanted):
        grow(build(zoo.cifar(8)), places)  # type: ignore[arg-type]


def test_an_unknown_start_is_refused() -> None:
    with pytest.raises(InputError, match="start: got 'silents'; allowed: .*; nearest: silent"):
        grow(build(zoo.cifar(8)), 1, start="silents")  # type: ignore[arg-type]


def test_a_narrow_branch_cannot_pass_all_channels_on() -> None:
    net = build(zoo.get("resnet50", input=(3, 32, 32)).plain())
    with pytest.raises(InputError, match="64, 256 channels in stages.s1.g1; allowed: 256 in every"):
        grow(net, {"s1": 1}, start="delta")


def test_mode_precision_and_frozen_parameters_stay() -> None:
    net = build(zoo.cifar(8, input=SMALL), dtype=torch.float64).eval()
    net.stem.requires_grad_(False)
    made = ds.surgery.grow(net, 1)
    assert not made.training
    assert {p.dtype for p in made.parameters()} == {torch.float64}
    frozen = [name for name, p in made.named_parameters() if not p.requires_grad]
    assert frozen == [name for name, _ in made.named_parameters() if name.startswith("stem.")]


def test_a_grown_net_is_saved_and_loaded_like_any_other(tmp_path) -> None:
    net = scrambled(build(zoo.cifar(8, input=SMALL))).eval()
    made = grow(net, {"s1": 2, "s3": 1})
    store.save(tmp_path / store.FILE, made, _header(made.spec))
    model = ds.load(tmp_path)
    x = torch.randn(4, *SMALL)
    assert model.net.spec == made.spec
    assert torch.equal(model.net.to(memory_format=torch.contiguous_format)(x), net(x))
