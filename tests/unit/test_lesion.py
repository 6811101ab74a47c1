"""Lesions against networks that really lack the block, or have their blocks in another order."""

from __future__ import annotations

import itertools
import weakref

import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional

import deepskip as ds
from deepskip.describe import zoo
from deepskip.describe.spec import Junction, Spec
from deepskip.errors import InputError
from deepskip.instruments import images, intervals, lesion
from deepskip.nets.builder import build
from deepskip.nets.network import Network
from tests.laws.strategies import scrambled

SMALL = (1, 8, 8)


@pytest.fixture(scope="module")
def digits() -> ds.data.Dataset:
    return ds.data.open("digits")


def _inputs(net: Network, data: ds.data.Dataset, n: int = 40, seed: int = 0) -> tuple[Tensor, Tensor]:
    (one,) = images.drawn(net, data, images=n, batch=n, seed=seed)
    return one.x, one.labels


def _without(spec: Spec, net: Network, gone: set[str]) -> Network:
    """Return a network built without these blocks, which keep the dimensions."""
    stages = [
        stage.replace(blocks=tuple(block for block in stage.blocks if f"{stage.id}.{block.id}" not in gone))
        for stage in spec.stages
    ]
    made = build(spec.replace(stages=tuple(stages)), dtype=torch.float64)
    made.load_state_dict({name: net.state_dict()[name] for name in made.state_dict()})
    return made.eval()


def _columns(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    wrong = (logits.argmax(1) != labels).double().mean().item()
    return 100 * wrong, functional.cross_entropy(logits, labels).item()


@torch.no_grad()
@pytest.mark.parametrize("plain", [False, True])
def test_a_deleted_identity_block_is_not_there(digits, plain: bool) -> None:
    """The block's input is never negative, so that the shortcut's ReLU changes nothing."""
    spec = zoo.cifar(20, input=SMALL, plain=plain)
    net = scrambled(build(spec, dtype=torch.float64)).eval()
    x, labels = _inputs(net, digits)
    rows = {row["block"]: row for row in lesion.measure(net, digits, images=40, batch=16)}
    whole = _columns(net(x), labels)
    assert list(rows) == [f"s{s}.b{b}" for s, b in itertools.product((1, 2, 3), (1, 2, 3))]
    for name, row in rows.items():
        assert (row["lesion_n"], row["lesion_intact"]) == (40, pytest.approx(whole[0]))
        if name in ("s2.b1", "s3.b1"):
            continue
        error, loss = _columns(_without(spec, net, {name})(x), labels)
        assert (row["lesion_error"], row["lesion_loss"]) == (
            pytest.approx(error),
            pytest.approx(loss, abs=1e-6),
        )
        assert row["lesion_change"] == pytest.approx(error - whole[0])
    assert len({row["lesion_loss"] for row in rows.values()}) >= 8
    for name in ("s2.b1", "s3.b1"):
        assert (rows[name]["lesion_error"] is None) == plain


@torch.no_grad()
@pytest.mark.parametrize(
    "spec",
    [
        zoo.cifar(8, input=SMALL),
        zoo.cifar(8, input=SMALL, shortcut="B", order="pre"),
        zoo.cifar(8, input=SMALL, order="norm_after"),
        zoo.cifar(8, input=SMALL, junction=Junction(kind="exclusive_gate", gate_bias=-1.0)),
        zoo.cifar(8, input=SMALL, junction=Junction(kind="scaled", shortcut_scale=0.5, branch_scale=2.0)),
        zoo.get("revnet38_cifar", input=SMALL),
    ],
    ids=lambda spec: f"{spec.base}-{spec.order}-{spec.junction.kind}",
)
def test_a_lesion_is_a_branch_of_zeros(digits, spec: Spec) -> None:
    """The same by another way, which computes everything: `alter` puts the branch's output to zero."""
    net = scrambled(build(spec, dtype=torch.float64)).eval()
    x, labels = _inputs(net, digits, 12)
    for row in lesion.measure(net, digits, images=12, batch=5):
        with ds.alter(net, {f"stages.{row['block']}.branch": 0.0}):
            error, loss = _columns(net(x), labels)
        assert row["lesion_error"] == pytest.approx(error)
        assert row["lesion_loss"] == pytest.approx(loss, rel=1e-6, abs=1e-6)


@torch.no_grad()
def test_neighbours_change_places(digits) -> None:
    net = scrambled(build(zoo.cifar(20, input=SMALL), dtype=torch.float64)).eval()
    x, labels = _inputs(net, digits)
    rows = lesion.swap(net, digits, images=40, batch=16)
    assert [row["swap_error"] is not None for row in rows] == [1, 1, 0, 0, 1, 0, 0, 1, 0]
    for row, other in itertools.pairwise(rows):
        if row["swap_error"] is not None:
            one, two = f"stages.{row['block']}", f"stages.{other['block']}"
            with ds.alter(net, {one: two, two: one}):
                error, loss = _columns(net(x), labels)
            assert (row["swap_error"], row["swap_loss"]) == (
                pytest.approx(error),
                pytest.approx(loss, abs=1e-6),
            )


@torch.no_grad()
def test_several_deleted_and_shuffled(digits) -> None:
    spec = zoo.cifar(20, input=SMALL)
    net = scrambled(build(spec, dtype=torch.float64)).eval()
    x, labels = _inputs(net, digits, seed=1)
    rows = lesion.delete(net, digits, counts=(2, 1, 9, 30), draws=2, images=40, batch=16, seed=1)
    assert [(row["deleted"], row["draw"]) for row in rows] == [(1, 1), (2, 1), (9, 1), (1, 2), (2, 2), (9, 2)]
    for few, more in itertools.pairwise(rows):
        assert few["draw"] != more["draw"] or set(few["blocks"]) < set(more["blocks"])
    for row in rows:
        with ds.alter(net, {f"stages.{name}.branch": 0.0 for name in row["blocks"]}):
            error, loss = _columns(net(x), labels)
        assert (row["error"], row["loss"]) == (pytest.approx(error), pytest.approx(loss, abs=1e-6))
    assert rows != lesion.delete(net, digits, counts=(1, 2, 9), draws=2, images=40, batch=16, seed=2)
    assert rows[0]["blocks"] != rows[3]["blocks"]
    names = [row["block"] for row in lesion.taps.names(net)]
    rows = lesion.shuffle(net, digits, counts=(1, 4), draws=2, images=40, batch=16, seed=1)
    assert [(row["swapped"], row["draw"]) for row in rows] == [(1, 1), (4, 1), (1, 2), (4, 2)]
    for row in rows:
        assert sorted(row["order"]) == names
        assert all(own[:2] == other[:2] for own, other in zip(names, row["order"], strict=True))
        moved = {f"stages.{a}": f"stages.{b}" for a, b in zip(names, row["order"], strict=True) if a != b}
        assert row["tau"] == pytest.approx(
            stats.kendalltau(range(9), [names.index(b) for b in row["order"]])[0]
        )
        with ds.alter(net, moved):
            error, loss = _columns(net(x), labels)
        assert (row["error"], row["loss"]) == (pytest.approx(error), pytest.approx(loss, abs=1e-6))
    assert lesion.shuffle(build(zoo.cifar(8, input=SMALL)), digits, images=8) == []


@torch.no_grad()
def test_every_block_before_the_lesion_is_computed_once_for_all(digits) -> None:
    net = scrambled(build(zoo.cifar(20, input=SMALL))).eval()
    calls: list[int] = [0] * 9
    for i, block in enumerate(net.blocks()):
        block.branch.register_forward_hook(lambda *_, i=i: calls.__setitem__(i, calls[i] + 1))
    lesion.measure(net, digits, images=8, batch=8)
    assert calls == [2 + i for i in range(9)]  # the whole net, the stream, and a lesion of each block before


@torch.no_grad()
def test_a_net_of_ten_blocks_holds_no_more_than_one_of_three(digits) -> None:
    def most(layers: int) -> int:
        net = build(zoo.cifar(layers, input=SMALL)).eval()
        alive, seen = [0], []

        def count(module: nn.Module, inputs: object, out: Tensor) -> None:
            alive[0] += 1
            weakref.finalize(out, lambda: alive.__setitem__(0, alive[0] - 1))
            seen.append(alive[0])

        for block in net.blocks():
            block.register_forward_hook(count)
        lesion.measure(net, digits, images=7, batch=7)
        return max(seen)

    assert most(32) <= most(14)


def test_logits_that_are_not_finite_are_wrong(digits) -> None:
    net = scrambled(build(zoo.cifar(14, input=SMALL)))
    net.stages["s3"]["b2"].branch.norm2.bias.data.fill_(float("inf"))
    rows = lesion.measure(net, digits, images=30)
    assert [row["lesion_error"] for row in rows[:5]] == [100.0] * 5
    assert [row["lesion_loss"] for row in rows[:5]] == [None] * 5
    assert rows[5]["lesion_error"] < 100
    assert rows[5]["lesion_loss"] > 0
    assert rows[5]["lesion_change"] == pytest.approx(rows[5]["lesion_error"] - 100)


def test_intervals_are_scipys_and_hold_what_they_say() -> None:
    for wrong, n in ((0, 10), (3, 17), (17, 17), (60, 2000)):
        interval = stats.binomtest(wrong, n).proportion_ci(method="wilson")
        assert intervals.wilson(wrong, n) == pytest.approx((100 * interval.low, 100 * interval.high))
    generator = torch.Generator().manual_seed(0)
    for broken, mended in ((0.02, 0.01), (0.3, 0.1), (0.0, 0.0)):
        n, held = 400, 0
        for _ in range(500):
            draws = torch.rand(n, generator=generator)
            low, high = intervals.paired(int((draws < broken).sum()), int((draws > 1 - mended).sum()), n)
            held += low <= 100 * (broken - mended) <= high
        assert held >= 460
    assert intervals.paired(6, 0, 2000)[0] > 0 > intervals.paired(2, 0, 2000)[0]


def test_a_summary_says_which_blocks_matter(digits) -> None:
    net = scrambled(build(zoo.cifar(20, input=SMALL)))
    rows = lesion.measure(net, digits, images=60)
    for row, change in zip(rows, (3.0, 1.0, -1.0, 9.0, 2.0, 0.0, 5.0, 0.5, 0.25), strict=True):
        row |= {"lesion_change": change, "lesion_change_low": change - 1}
    found = lesion.summarise(rows)
    assert (found["worst"], found["worst_change"]) == ("s2.b1", 9.0)
    assert (found["least"], found["least_change"]) == ("s1.b3", -1.0)
    assert (found["identity_median"], found["dimensions_median"]) == (0.5, 7.0)
    assert (found["deleted"], found["harmless"]) == (9, 5)
    none = lesion.measure(build(zoo.cifar(8, input=SMALL, plain=True)), digits, images=9)
    assert lesion.summarise([row for row in none if row["block"] != "s1.b1"])["worst"] is None


def test_hostile_arguments(digits) -> None:
    net = build(zoo.cifar(8, input=SMALL))
    for counts in ((), (0,), (1, 2.5), (True,)):
        for call in (lesion.delete, lesion.shuffle):
            with pytest.raises(InputError, match="counts: got"):
                call(net, digits, counts=counts, images=8)
    with pytest.raises(InputError, match="labels 0 to 9; allowed: 0 to 2"):
        lesion.measure(build(zoo.cifar(8, input=SMALL, classes=3)), digits)
    told: list[tuple[str, int, int]] = []
    lesion.measure(net, digits, images=20, batch=8, progress=lambda *what: told.append(what))
    assert told == [("deleting blocks", i, 9) for i in range(1, 10)]


def test_it_is_deterministic(digits) -> None:
    net = scrambled(build(zoo.cifar(14, input=SMALL)))
    assert lesion.measure(net, digits, images=50) == lesion.measure(net, digits.val, images=50)
    assert lesion.measure(net, digits, images=50) != lesion.measure(net, digits, images=50, seed=1)
    assert isinstance(net, nn.Module)
