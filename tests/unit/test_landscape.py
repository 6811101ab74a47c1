"""The loss landscape against closed forms; directions as long as filters; a net that is never written to."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import deepskip as ds
from deepskip.describe import zoo
from deepskip.errors import InputError
from deepskip.instruments import images, landscape
from deepskip.nets.builder import build
from deepskip.nets.network import Network
from deepskip.nets.parts import SqueezeExcitation
from tests.laws.strategies import scrambled

SMALL = (1, 8, 8)
SPEC = zoo.cifar(8, input=SMALL)


@pytest.fixture(scope="module")
def digits() -> ds.data.Dataset:
    return ds.data.open("digits")


def _of(*parts: tuple[str, nn.Module], stem: nn.Module | None = None) -> Network:
    head = nn.Sequential()
    for name, part in parts:
        head.add_module(name, part)
    return Network(SPEC, stem=stem or nn.Identity(), stages=nn.ModuleDict(), head=head).double()


def _drawn(net: Network, digits: ds.data.Dataset, n: int) -> tuple[Tensor, Tensor]:
    (batch,) = images.drawn(net, digits, images=n, batch=n, seed=0)
    return batch.x.flatten(1), batch.labels


def test_of_a_linear_net_the_landscape_is_the_closed_form(digits) -> None:
    """logits = (W + x D + y E) p + b, so the loss is a sum of logarithms of sums of exponentials of planes."""
    linear = nn.Linear(64, 10)
    net = _of(("flatten", nn.Flatten()), ("linear", linear))
    rows = landscape.measure(net, digits, images=20, batch=7, line=5, plane=3, span=2.0)
    d, e = (landscape.directions(net, 0, axis)["head.linear.weight"].numpy() for axis in ("x", "y"))
    p, labels = (one.numpy() for one in _drawn(net, digits, 20))
    w, b = (one.detach().numpy() for one in (linear.weight, linear.bias))
    assert [(row["x"], row["y"]) for row in rows[:5]] == [(x, None) for x in (-2, -1, 0, 1, 2)]
    assert {(row["x"], row["y"]) for row in rows[5:]} == {(x, y) for x in (-2, 0, 2) for y in (-2, 0, 2)}
    for row in rows:
        logits = p @ (w + row["x"] * d + (row["y"] or 0) * e).T + b
        own = logits[np.arange(20), labels]
        assert row["loss"] == pytest.approx((np.log(np.exp(logits).sum(1)) - own).mean(), rel=1e-5)
        assert row["error"] == pytest.approx(100 * (logits.argmax(1) != labels).mean())
        assert (row["which"], row["net"], row["kind"], row["n"]) == (1, "resnet8_cifar", "residual", 20)


def test_of_two_linear_layers_the_logits_are_quadratic(digits) -> None:
    """Of one image with two classes the loss is log(1 + exp(-m)); m of (W + x D)(V + x E) p has third
    differences of zero."""
    net = _of(("flatten", nn.Flatten()), ("one", nn.Linear(64, 5)), ("linear", nn.Linear(5, 2)))
    net.spec = SPEC.replace(classes=2)
    pair = ds.data.Split(
        ds.data.UniformImages(digits.val.images.pixels[:1]),
        torch.tensor([1]),
        preprocessing=digits.preprocessing,
    )
    rows = landscape.measure(net, pair, line=7, plane=0)
    margins = np.array([-math.log(math.expm1(row["loss"])) for row in rows])
    assert np.abs(np.diff(margins, 3)).max() < 1e-3 * np.abs(np.diff(margins, 2)).max()
    assert np.abs(np.diff(margins, 2)).max() > 1e-3


def test_each_filter_of_a_direction_is_as_long_as_the_nets() -> None:
    net = scrambled(build(SPEC.replace(squeeze=4)))
    assert any(isinstance(module, SqueezeExcitation) for module in net.modules())
    with torch.no_grad():
        net.stages["s2"]["b1"].branch.conv1.weight[3] = 0.0  # a dead filter stays where it is
    found = landscape.directions(net, 0, "x")
    for name, weight in net.named_parameters():
        if weight.dim() < 2:
            assert name not in found
            continue
        assert name.endswith("weight")
        assert found[name].shape == weight.shape
        for own, filt in zip(found[name], weight, strict=True):
            assert float(own.norm()) == pytest.approx(float(filt.detach().norm()), rel=1e-5)
    assert float(found["stages.s2.b1.branch.conv1.weight"][3].abs().max()) == 0


def test_directions_are_the_seeds_and_the_names() -> None:
    residual, plain = build(SPEC, 3), build(SPEC.plain(), 3)
    for axis in ("x", "y"):
        one, same = (landscape.directions(net, 5, axis) for net in (residual, build(SPEC, 3)))
        assert all(torch.equal(one[name], same[name]) for name in one)
        twin = landscape.directions(plain, 5, axis)  # whose weights begin as the residual net's
        assert twin.keys() == one.keys()
        assert all(torch.equal(one[name], twin[name]) for name in one)
    x, y, other = (landscape.directions(residual, *which) for which in ((5, "x"), (5, "y"), (6, "x")))
    for name in x:
        for another in (y, other):
            assert abs(float(torch.cosine_similarity(x[name].flatten(), another[name].flatten(), 0))) < 0.5


def test_a_net_that_computes_the_same_has_the_same_landscape(digits) -> None:
    """Filters ten times as long in one layer and a tenth in the next (§4): only steps by filter do not mind."""
    net = _of(
        ("flatten", nn.Flatten()),
        ("one", nn.Linear(64, 16, bias=False)),
        ("relu", nn.ReLU()),
        ("linear", nn.Linear(16, 10)),
    )
    before = landscape.measure(net, digits, images=30, line=5, plane=3)
    with torch.no_grad():
        scale = torch.linspace(0.1, 10, 16, dtype=torch.float64)
        net.head.one.weight *= scale[:, None]
        net.head.linear.weight /= 10
        net.head.one.weight *= 10 / scale[:, None]
    after = landscape.measure(net, digits, images=30, line=5, plane=3)
    assert [row["loss"] for row in after] == pytest.approx([row["loss"] for row in before], rel=1e-4)


def test_the_middle_is_the_net_itself(digits) -> None:
    net, twin = scrambled(build(SPEC)), scrambled(build(SPEC.plain()))
    rows = landscape.measure(net, digits.val, twin, images=10**6, batch=256, line=3, plane=3, span=1e-9)
    json.dumps(rows, allow_nan=False)
    for which, one in enumerate((net, twin), 1):
        score = ds.score(one, digits.val, digits.preprocessing)
        own = [row for row in rows if row["which"] == which and row["x"] == 0 and not row["y"]]
        assert [row["dimensions"] for row in own] == [1, 2]
        for row in own:
            assert row["loss"] == pytest.approx(score.loss, rel=1e-5)
            assert row["error"] == pytest.approx(score.error, rel=1e-5)
    assert [row["kind"] for row in rows] == ["residual"] * 12 + ["plain"] * 12
    assert landscape.measure(net, digits.val, twin, images=50, line=3, plane=3, seed=1) == landscape.measure(
        net, digits.val, twin, images=50, line=3, plane=3, seed=1
    )


def test_with_a_batchs_own_statistics_an_untrained_net_has_a_landscape(digits) -> None:
    net = build(SPEC)
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    running, batch = (
        landscape.measure(net, digits, images=64, line=3, plane=0, statistics=which)
        for which in ("running", "batch")
    )
    assert running != batch
    assert all(torch.equal(state[name], tensor) for name, tensor in net.state_dict().items())
    x, labels = next(images.drawn(net, digits, images=64, batch=64, seed=0))[:2]
    with torch.no_grad():
        wanted = nn.functional.cross_entropy(net.train()(x).double(), labels)
    assert batch[1]["loss"] == pytest.approx(float(wanted), rel=1e-5)


def test_the_weights_are_never_written_to(digits) -> None:
    """Not even while it measures: what somebody else's thread would see there is the trained net."""
    net = scrambled(build(SPEC))
    versions = [(parameter.data_ptr(), parameter._version) for parameter in net.parameters()]

    def stop(what: str, done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        landscape.measure(net, digits, images=8, line=5, plane=0, progress=stop)
    assert [(parameter.data_ptr(), parameter._version) for parameter in net.parameters()] == versions


def test_what_is_not_finite_is_null(digits) -> None:
    net = scrambled(build(SPEC.replace(norm="none")))
    rows = landscape.measure(net, digits, images=8, line=3, plane=3, span=1e30)
    assert [row["loss"] is None for row in rows[:3]] == [True, False, True]
    assert [row["error"] is None for row in rows[:3]] == [True, False, True]
    (own,) = landscape.summarise(rows)["landscape"]
    assert own["loss"] == rows[1]["loss"]
    assert 0 < own["width"] <= 1e30


def _rows(losses: dict[float, float | None], plane: dict[tuple[float, float], float] | None = None):
    name = {"which": 1, "net": "some_net", "kind": "plain", "error": 50.0, "n": 9}
    line = [{**name, "dimensions": 1, "x": x, "y": None, "loss": loss} for x, loss in losses.items()]
    return line + [
        {**name, "dimensions": 2, "x": x, "y": y, "loss": loss} for (x, y), loss in (plane or {}).items()
    ]


def test_the_width_is_where_the_loss_has_risen_by_one() -> None:
    rows = _rows({-1.0: 9.0, -0.5: 2.0, 0.0: 0.5, 0.5: 1.0, 1.0: 2.0}, {(0.0, 0.0): 0.5, (1.0, 1.0): 0.25})
    (own,) = landscape.summarise(rows)["landscape"]
    assert own["width"] == pytest.approx(0.5 * 1.0 / 1.5, rel=1e-5)
    assert own["lower"] == 0.25
    assert (own["which"], own["net"], own["kind"], own["error"]) == (1, "some_net", "plain", 50.0)
    assert landscape.summarise(_rows({-1.0: 1.4, 0.0: 0.5, 1.0: 1.0}))["landscape"][0]["width"] is None
    assert landscape.summarise(_rows({-1.0: 1.0, 0.0: 0.5, 1.0: 2.5}))["landscape"][0]["width"] == 0.5
    nothing = landscape.summarise(_rows({-1.0: 1.0, 0.0: None, 1.0: 2.5}))["landscape"][0]
    assert (nothing["loss"], nothing["width"], nothing["lower"]) == (None, None, None)
    assert landscape.summarise([]) == {"landscape": []}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"line": 4}, "line: got 4; allowed: an odd number from 3, or 0 for none; nearest: 5"),
        ({"plane": 1}, "plane: got 1"),
        ({"plane": -3}, "plane: got -3; allowed: an odd number from 3, or 0 for none; nearest: 3"),
        ({"span": 0.0}, "span: got 0.0"),
        ({"span": math.nan}, "span: got nan"),
        ({"images": 0}, "images: got 0"),
        ({"statistics": "mine"}, "statistics: got 'mine'"),
    ],
)
def test_what_cannot_be_is_said(wrong, message, digits) -> None:
    with pytest.raises(InputError) as raised:
        landscape.measure(build(SPEC), digits, **wrong)
    assert str(raised.value).startswith(message)
