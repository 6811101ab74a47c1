"""Training that keeps few activations computes the same: gradients, running statistics, random draws."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

import deepskip as ds
from deepskip.describe.spec import Spec
from deepskip.errors import InputError
from deepskip.training import memory, recompute
from deepskip.training.events import Started, Stepped
from deepskip.training.frozen import Frozen
from deepskip.training.recompute import PIECE, Recomputed, Reversed
from deepskip.training.segments import _costs, recompute_bytes, reversible_bytes, segments
from deepskip.training.way import Memory, Way
from tests.laws.strategies import scrambled, specs

SMALL = (3, 8, 8)


def tensors(net: nn.Module, call: Callable[[Tensor], Tensor], images: Tensor) -> dict[str, Tensor]:
    """Return the gradients and buffers of `net` after a backward pass through `call`."""
    torch.manual_seed(5)
    call(images).square().sum().backward()
    found = {f"gradient of {name}": p.grad for name, p in net.named_parameters() if p.grad is not None}
    return found | dict(net.named_buffers())


def same(some: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    return some.keys() == others.keys() and all(
        torch.equal(tensor.nan_to_num(7.0), others[name].nan_to_num(7.0)) for name, tensor in some.items()
    )


@settings(max_examples=30)
@given(specs(coupled=True))
def test_recomputed_gradients_and_statistics_are_the_stored_ones_bit_for_bit(spec: Spec) -> None:
    net = scrambled(ds.build(spec)).train()
    again = copy.deepcopy(net)
    images = torch.randn(3, *spec.input, generator=torch.Generator().manual_seed(1))
    assert same(tensors(net, net, images), tensors(again, Recomputed(again), images))


@pytest.mark.parametrize(
    ("name", "kind", "needed"),
    [("resnet20_cifar", Recomputed, recompute_bytes), ("revnet38_cifar", Reversed, reversible_bytes)],
)
def test_before_every_piece_what_is_free_is_given_back_both_ways(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    kind: type[Recomputed | Reversed],
    needed: Callable[[Spec, int], int],
) -> None:
    bounds: list[int] = []
    monkeypatch.setattr(recompute, "Relief", lambda bound: lambda: bounds.append(bound))
    spec = ds.zoo.get(name, input=SMALL)
    out = kind(ds.build(spec))(torch.randn(4, *SMALL))
    there = len(bounds)
    out.sum().backward()
    assert len(bounds) == 2 * there > 0
    assert set(bounds) == {needed(spec, 4)}


@pytest.mark.parametrize("name", ["resnet20_cifar", "resnet110_sd_cifar", "revnet38_cifar"])
def test_so_are_those_of_the_zoo(name: str) -> None:
    spec = ds.zoo.get(name, input=SMALL)
    net = ds.build(spec)
    again = copy.deepcopy(net)
    images = torch.randn(4, *SMALL)
    assert same(tensors(net, net, images), tensors(again, Recomputed(again), images))
    assert int(again.stages["s1"]["b1"].branch.norm1.num_batches_tracked) == 1


def test_frozen_parts_stay_frozen() -> None:
    spec = ds.zoo.get("resnet20_cifar", input=SMALL)
    net = ds.build(spec)
    again = copy.deepcopy(net)
    for one in (net, again):
        Frozen(one, ("stem", "stages.s1")).hold()
    images = torch.randn(4, *SMALL)
    before = again.stages["s1"]["b1"].branch.norm1.running_mean.clone()
    assert same(tensors(net, net, images), tensors(again, Recomputed(again), images))
    assert torch.equal(before, again.stages["s1"]["b1"].branch.norm1.running_mean)


def test_half_precision_is_recomputed_in_half_precision() -> None:
    spec = ds.zoo.get("resnet20_cifar", input=SMALL)
    net = ds.build(spec)
    again = copy.deepcopy(net)
    images = torch.randn(4, *SMALL)
    with torch.autocast("cpu", torch.bfloat16):
        stored, recomputed = net(images), Recomputed(again)(images)
    stored.float().square().sum().backward()
    recomputed.float().square().sum().backward()
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(net.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_reversed_gradients_are_the_stored_ones_but_for_rounding(shortcut: str) -> None:
    spec = ds.zoo.reversible(50, widths=(8, 16, 16), shortcut=shortcut, input=SMALL)
    assert len(spec.stages[0].blocks) == PIECE + 4  # so that runs are of several pieces, and of a part of one
    net = scrambled(ds.build(spec)).double()
    again = copy.deepcopy(net)
    call = Reversed(again)
    images = torch.randn(4, *SMALL, dtype=torch.float64)
    stored, found = tensors(net, net, images), tensors(again, call, images)
    assert stored.keys() == found.keys()
    for name, tensor in stored.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-8, atol=1e-8 * float(tensor.abs().max()))
    error = call.drain()
    assert error is not None
    assert 0 < error < 1e-10
    assert call.drain() is None


def test_gradients_do_not_wait_for_the_way_back_to_end() -> None:
    # They would lie among what the way back takes and frees, and keep it apart.
    spec = ds.zoo.reversible(50, widths=(8, 8, 8), input=SMALL)
    net = ds.build(spec)
    first, *_, last = net.stages["s1"].children()
    order: list[str] = []
    last.branch.conv1.weight.register_post_accumulate_grad_hook(lambda p: order.append("gradient of the last"))
    first.branch.register_forward_hook(lambda *_: order.append("the first, again"))
    loss = Reversed(net)(torch.randn(2, *SMALL)).sum()
    order.clear()
    loss.backward()
    assert order == ["gradient of the last", "the first, again"]


@pytest.mark.parametrize(("memory", "held"), [("store", False), ("recompute", True), ("reversible", True)])
def test_steps_that_keep_little_have_their_gradients_in_one_place(memory: Memory, held: bool) -> None:
    data = ds.data.open("digits")
    net = ds.build(ds.zoo.reversible(14, widths=(8, 8, 8), input=data.input))
    events = ds.fit(net, data, ds.Recipe(epochs=1, max_steps=3, batch=32), memory=memory, each_step=True)
    places = [
        [p.grad.data_ptr() for p in net.parameters() if p.grad is not None]
        for event in events
        if isinstance(event, Started | Stepped)
    ]
    assert (places[1] == places[2] == places[3]) or not held
    assert len(places[1]) == len(list(net.parameters()))


def test_reversible_blocks_are_undone_by_their_junctions() -> None:
    spec = ds.zoo.get("revnet38_cifar", input=SMALL)
    net = ds.build(spec).double()
    for site, block in zip(spec.sites(), net.blocks(), strict=True):
        x = torch.randn(2, *site.inputs, dtype=torch.float64)
        assert site.reversible == (site.block.stride == 1 and site.inputs == site.outputs)
        if site.reversible:
            y = block(x)
            torch.testing.assert_close(block.junction.inverse(y, block.branch(y)), x, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("depth", "params"), [(38, 464_858), (110, 1_729_162)])
def test_the_papers_reversible_nets_have_its_parameters(depth: int, params: int) -> None:
    # Gomez et al. 2017, table 1: 0.46M and 1.73M.
    assert ds.count(ds.zoo.get(f"revnet{depth}_cifar")).params == params


@settings(max_examples=40)
@given(specs(coupled=True))
def test_no_other_segments_hold_less(spec: Spec) -> None:
    kept, inputs = _costs(ds.count(spec))

    def peak(sizes: tuple[int, ...]) -> int:
        most = held = start = 0
        for size in sizes:
            held += inputs[start]
            most = max(most, held + sum(kept[start : start + size]))
            start += size
        return most

    n = len(kept)
    splits = itertools.product((False, True), repeat=n - 1)
    every = [_sizes((0, *(i for i, cut in enumerate(split, 1) if cut), n)) for split in splits]
    assert sum(segments(spec)) == n
    assert peak(segments(spec)) == min(map(peak, every))


def _sizes(borders: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(b - a for a, b in itertools.pairwise(borders))


def test_segments_grow_with_the_root_of_the_depth() -> None:
    few, many = (len(segments(ds.zoo.cifar(depth))) for depth in (110, 1202))
    assert 2.5 < many / few < 4.5  # √(1200 / 108) = 3.3


def test_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    data = ds.data.open("digits")
    nets = {}
    for kept in ("store", "recompute", "reversible"):
        net = ds.build(ds.zoo.reversible(14, widths=(8, 8, 8), input=data.input))
        recipe = ds.Recipe(epochs=1, max_steps=4, batch=32)
        *_, ended, _ = ds.fit(net, data, recipe, memory=kept, out=tmp_path / kept)
        assert (ended.reconstruction_error is None) == (kept != "reversible")
        assert json.loads((tmp_path / kept / "config.json").read_text())["way"]["memory"] == kept
        nets[kept] = net.state_dict()
    assert all(torch.equal(tensor, nets["recompute"][name]) for name, tensor in nets["store"].items())
    for name, tensor in nets["store"].items():
        torch.testing.assert_close(nets["reversible"][name], tensor, rtol=1e-3, atol=1e-3)


def test_a_reconstruction_that_is_far_off_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepskip.training.engine.ALARM", 1e-12)
    data = ds.data.open("digits")
    net = ds.build(ds.zoo.reversible(14, widths=(8, 8, 8), input=data.input))
    events = list(ds.fit(net, data, ds.Recipe(epochs=1, max_steps=2, batch=32), memory="reversible"))
    assert any("reconstructed with an error" in getattr(event, "text", "") for event in events)


@pytest.mark.parametrize(
    ("name", "wanted", "says"),
    [
        ("plain20_cifar", "reversible", "a plain net"),
        ("resnet20_cifar", "reversible", "no inverse"),
        ("resnet20_cifar", "recomput", "nearest: recompute"),
    ],
)
def test_what_a_net_cannot_do_is_refused(name: str, wanted: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        memory.choose(ds.zoo.get(name), 8, wanted, "float32", torch.device("cpu"))


def test_a_plain_net_reads_no_halves() -> None:
    with pytest.raises(InputError, match="reads a half and is added"):
        ds.zoo.get("revnet38_cifar").plain()


def test_auto_keeps_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    spec, cpu = ds.zoo.get("revnet_cifar", depth=110), torch.device("cpu")
    needs = {m: memory.needed_bytes(spec, 128, Way(memory=m)) for m in ("store", "recompute", "reversible")}
    assert needs["reversible"] < needs["recompute"] < needs["store"]
    for kept, need in needs.items():
        monkeypatch.setattr(memory, "free_bytes", lambda device, need=need: int(need * memory.ROOM))
        assert memory.choose(spec, 128, "auto", "float32", cpu) == kept


def test_a_batch_that_does_not_fit_names_the_memory_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ds.zoo.get("resnet110_cifar")
    monkeypatch.setattr(memory, "free_bytes", lambda device: memory.needed_bytes(spec, 30, Way()))
    with pytest.raises(InputError, match="--memory recompute"):
        memory.check(spec, 31, Way(), torch.device("cpu"))
