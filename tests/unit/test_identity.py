"""The instrument of identity against its definitions, image by image; and a network is left as it was."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

import deepskip as ds
from deepskip.describe import zoo
from deepskip.describe.spec import Junction, Spec
from deepskip.errors import InputError
from deepskip.instruments import identity, images, summary
from deepskip.nets.builder import build
from deepskip.surgery import grow
from tests.laws.strategies import scrambled

SMALL = (1, 8, 8)


@pytest.fixture(scope="module")
def digits() -> ds.data.Dataset:
    return ds.data.open("digits")


def _hsic(k: Tensor, l: Tensor) -> float:  # noqa: E741
    """By its definition: over all i, j, q, r that differ."""
    n = len(k)
    terms = [
        float(k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q])) for i, j, q, r in itertools.permutations(range(n), 4)
    ]
    return sum(terms) / len(terms)


def _cosine(x: Tensor, y: Tensor) -> float:
    return float(x.flatten() @ y.flatten() / (x.norm() * y.norm()))


@pytest.mark.parametrize(
    "spec",
    [
        zoo.cifar(8, input=SMALL),
        zoo.cifar(8, input=SMALL, plain=True),
        zoo.cifar(8, input=SMALL, order="pre", shortcut="B"),
        zoo.cifar(8, input=SMALL, shortcut="B", junction=Junction(kind="shortcut_gate", gate_bias=-1.0)),
    ],
    ids=lambda spec: f"{spec.name}-{spec.order}-{spec.junction.kind}",
)
@torch.no_grad()
def test_rows_are_what_their_words_say(spec: Spec, digits, monkeypatch) -> None:
    net = scrambled(build(spec, dtype=torch.float64))
    batches = [torch.randn(n, *SMALL, dtype=torch.float64) for n in (6, 5)]
    drawn = [images.Drawn(x, torch.zeros(len(x)), torch.arange(len(x))) for x in batches]
    monkeypatch.setattr(images, "drawn", lambda *_, **__: iter(drawn))
    rows = identity.measure(net, digits)
    net.eval()
    assert [row["block"] for row in rows] == ["s1.b1", "s2.b1", "s3.b1"]
    assert [row["index"] for row in rows] == [1, 2, 3]
    values = [net.stem(batch) for batch in batches]
    for row, block in zip(rows, net.blocks(), strict=True):
        outs = [block(x) for x in values]
        ratios, cosines = [], []
        for x, y in ((x, y) for xs, ys in zip(values, outs, strict=True) for x, y in zip(xs, ys, strict=True)):
            h = block.before(x[None])
            s, f = block.shortcut(h), block.branch(h)
            if spec.is_plain:
                ratios.append(float(f.norm() / s.norm()))
            else:
                ratios.append(float((block.junction(s, f) - s).norm() / s.norm()))
            if spec.junction.kind == "sum" and not spec.is_plain:
                assert math.isclose(ratios[-1], float(f.norm() / s.norm()), rel_tol=1e-9)
            cosines += [_cosine(x, y)] if x.shape == y.shape else []
        grams = [[x.flatten(1) @ x.flatten(1).T for x in side] for side in (values, outs)]
        kl, kk, ll = (
            sum(_hsic(one, two) for one, two in zip(grams[a], grams[b], strict=True))
            for a, b in ((0, 1), (0, 0), (1, 1))
        )
        changes = row["block"] != "s1.b1"
        assert row["cosine"] == (None if changes else pytest.approx(sum(cosines) / 11, rel=1e-9))
        wanted = None if spec.is_plain and changes else pytest.approx(sum(ratios) / 11, rel=1e-9)
        assert row["ratio"] == wanted
        assert row["cka"] == pytest.approx(kl / math.sqrt(kk * ll), rel=1e-6)
        assert row["n"] == 11
        assert not row["equal"]
        values = outs


def test_unrelated_features_have_no_similarity_however_many_there_are() -> None:
    """The biased estimate would give about 0.9 here."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(20, 500, generator=generator, dtype=torch.float64) for _ in range(2))
    k, l = x @ x.T, y @ y.T  # noqa: E741
    assert abs(identity.hsic(k, l)) < 0.1 * math.sqrt(identity.hsic(k, k) * identity.hsic(l, l))


def test_a_silent_block_is_seen_to_be_the_identity(digits) -> None:
    net = grow(scrambled(build(zoo.cifar(8, input=SMALL))), {"s1": 1, "s3": 1})
    rows = {row["block"]: row for row in identity.measure(net, digits, images=40)}
    for block in ("s1.g1", "s3.g1"):
        assert rows[block]["ratio"] == 0
        assert rows[block]["equal"]
        assert rows[block]["cosine"] == pytest.approx(1)
        assert rows[block]["cka"] == pytest.approx(1)
    assert rows["s1.b1"]["ratio"] > 0.1
    assert rows["s2.b1"]["shortcut"] == "pad"
    assert rows["s1.g1"]["shortcut"] == "identity"


def test_a_dead_net_has_no_numbers_but_rows(digits) -> None:
    net = grow(build(zoo.cifar(8, input=SMALL, plain=True)), {"s1": 2}, start="zero")
    rows = {row["block"]: row for row in identity.measure(net, digits, images=40)}
    assert rows["s1.g1"]["ratio"] == 0
    assert (rows["s1.g2"]["ratio"], rows["s1.g2"]["cosine"], rows["s1.g2"]["cka"]) == (None, None, None)


def test_the_net_is_left_as_it_was(digits) -> None:
    net = scrambled(build(zoo.cifar(8, input=SMALL))).train()
    net.stages["s2"].eval()
    modes = [module.training for module in net.modules()]
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    random = torch.random.get_rng_state()
    identity.measure(net, digits, images=32)
    net.head.pool = torch.nn.AdaptiveAvgPool2d(2)
    with pytest.raises(RuntimeError):  # after all the blocks
        identity.measure(net, digits, images=32)
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(state[name], tensor) for name, tensor in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())
    assert torch.equal(torch.random.get_rng_state(), random)
    assert torch.is_grad_enabled()


def test_a_split_is_enough(digits) -> None:
    net = build(zoo.cifar(8, input=SMALL))
    by_split = ds.instruments.identity.measure(net, digits.val, images=50)
    assert by_split == identity.measure(net, digits, images=50)
    assert by_split != identity.measure(net, digits, images=50, seed=1)
    assert by_split != identity.measure(net, digits.train, images=50)
    assert identity.measure(net, digits, images=10**6, batch=1000)[0]["n"] == len(digits.val)


def test_an_untrained_net_is_measured_with_each_batchs_statistics(digits) -> None:
    """As it is in training, whose every step normalises by its own batch; and nothing is remembered of it."""
    net = build(zoo.cifar(8, input=SMALL)).train()
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    rows = identity.measure(net, digits, images=60, statistics="batch")
    assert all(torch.equal(state[name], tensor) for name, tensor in net.state_dict().items())
    assert all(norm.track_running_stats for norm in net.modules() if isinstance(norm, torch.nn.BatchNorm2d))
    ratios: list[Tensor] = []
    net.stages["s1"]["b1"].junction.register_forward_pre_hook(
        lambda _, pair: ratios.append(pair[1].flatten(1).norm(dim=1) / pair[0].flatten(1).norm(dim=1))
    )
    net(next(images.drawn(net, digits, images=60, batch=60, seed=0)).x)
    assert rows[0]["ratio"] == pytest.approx(ratios[0].mean().item(), rel=1e-5)
    assert rows != identity.measure(net, digits, images=60)
    with pytest.raises(InputError, match="statistics: got 'mine'"):
        identity.measure(net, digits, statistics="mine")  # type: ignore[arg-type]


def test_a_summary_is_scores_and_ratios(digits) -> None:
    net = grow(scrambled(build(zoo.cifar(8, input=SMALL))), 3)
    found = summary.measure(net, digits, 5)
    assert set(found) == set(summary.COLUMNS)
    assert found["val_scored"] == ds.score(net, digits.val, digits.preprocessing).error
    assert found["train_scored"] == ds.score(net, digits.train, digits.preprocessing).error
    assert found["equal"] == 3
    assert [ratio == 0 for ratio in found["ratio"]] == [False, True] * 3


def test_too_few_images_for_cka(digits) -> None:
    rows = identity.measure(build(zoo.cifar(8, input=SMALL)), digits, images=3)
    assert [row["cka"] for row in rows] == [None] * 3
    assert all(row["ratio"] > 0 for row in rows)
