"""Grad-CAM and integrated gradients against closed forms and finite differences."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import deepskip as ds
from deepskip.describe import zoo
from deepskip.describe.spec import Spec
from deepskip.errors import InputError
from deepskip.instruments import images, saliency
from deepskip.nets.builder import build
from deepskip.nets.network import Network
from tests.laws.strategies import scrambled

SMALL = (1, 8, 8)
NETS = [
    zoo.cifar(8, input=SMALL),
    zoo.cifar(8, input=SMALL, plain=True),
    zoo.cifar(8, input=SMALL, order="pre", shortcut="B"),
    zoo.cifar(8, input=SMALL).replace(norm="group", squeeze=4),
]


@pytest.fixture(scope="module")
def digits() -> ds.data.Dataset:
    return ds.data.open("digits")


def _double(spec: Spec) -> Network:
    return scrambled(build(spec, dtype=torch.float64)).eval()


def _noise(n: int, spec: Spec = NETS[0], seed: int = 0) -> Tensor:
    return torch.randn(n, *spec.input, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _rest(net: Network, block: str, a: Tensor) -> Tensor:
    """Return the logits when block `block` gives `a`."""
    blocks = {f"{s}.{b}": one for s, stage in net.stages.items() for b, one in stage.items()}
    after = list(blocks)[list(blocks).index(block) + 1 :]
    for name in after:
        a = blocks[name](a)
    return net.head(a)


@pytest.mark.parametrize("spec", NETS, ids=lambda spec: f"{spec.name}-{spec.order}-{spec.norm}")
@torch.no_grad()
def test_at_the_last_map_grad_cam_is_the_heads_weights(spec: Spec) -> None:
    """The head averages and is linear, so the gradient is the class's weights over the number of pixels."""
    net, x, classes = _double(spec), _noise(3, spec), [2, 7, 0]
    at = saliency.place(net)
    assert at == ("head.relu" if spec.order == "pre" else "stages.s3.b1")
    found = saliency.grad_cam(net, x, classes, at)
    a = net.stem(x)
    for block in net.blocks():
        a = block(a)
    a = net.head.relu(net.head.norm(a)) if spec.order == "pre" else a
    weights = net.head.linear.weight[classes][:, :, None, None]
    assert found == pytest.approx((weights * a).sum(1).clamp(min=0) / a[0, 0].numel(), rel=1e-9)
    assert float(found.max()) > 0


@pytest.mark.parametrize("spec", NETS[:3], ids=lambda spec: f"{spec.name}-{spec.order}-{spec.norm}")
@pytest.mark.parametrize("block", ["s1.b1", "s2.b1"])
@torch.no_grad()
def test_anywhere_else_it_is_what_finite_differences_give(spec: Spec, block: str) -> None:
    net, x, explained = _double(spec), _noise(1, spec), 4
    found = saliency.grad_cam(net, x, [explained], saliency.place(net, block))[0]
    a = net.stem(x)
    for s, stage in net.stages.items():
        for b, one in stage.items():
            if f"{s}.{b}" <= block:
                a = one(a)
    alphas, step = torch.zeros(a.shape[1], dtype=a.dtype), 1e-6
    for k in range(a.shape[1]):
        nudges = step * torch.eye(a[0, 0].numel(), dtype=a.dtype).reshape(-1, *a.shape[2:])
        moved = a.repeat(len(nudges), 1, 1, 1)
        moved[:, k] += nudges
        back = a.repeat(len(nudges), 1, 1, 1)
        back[:, k] -= nudges
        rise = _rest(net, block, moved)[:, explained] - _rest(net, block, back)[:, explained]
        alphas[k] = (rise / (2 * step)).mean()
    wanted = (alphas[:, None, None] * a[0]).sum(0).clamp(min=0)
    assert found.numpy() == pytest.approx(wanted.numpy(), rel=1e-4, abs=1e-6 * float(wanted.max()))


def test_of_a_linear_net_integrated_gradients_are_weights_times_input() -> None:
    spec = NETS[0]
    linear = nn.Linear(64, 10).double()
    net = Network(spec, stem=nn.Identity(), stages=nn.ModuleDict(), head=nn.Sequential(nn.Flatten(), linear))
    x, black = _noise(2), torch.full(SMALL, -1.5, dtype=torch.float64)
    found = saliency.integrated_gradients(net, x, [3, 8], black, steps=1)
    weights = linear.weight.detach()[[3, 8]].reshape(2, *SMALL)
    assert found.numpy() == pytest.approx((weights * (x + 1.5)).numpy())


def test_of_a_cubic_net_two_points_are_enough_and_the_gradient_alone_is_not() -> None:
    """F(x) = Σ w x³ gives each pixel w (x³ - x'³), and Gauss's rule with n points is exact to degree 2n - 1."""

    class Cube(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x**3

    linear = nn.Linear(64, 10).double()
    net = Network(NETS[0], stem=Cube(), stages=nn.ModuleDict(), head=nn.Sequential(nn.Flatten(), linear))
    x, black = _noise(1), torch.full(SMALL, 0.5, dtype=torch.float64)
    wanted = linear.weight.detach()[6].reshape(1, *SMALL) * (x**3 - 0.5**3)
    assert saliency.integrated_gradients(net, x, [6], black, steps=2).numpy() == pytest.approx(wanted.numpy())
    assert saliency.integrated_gradients(net, x, [6], black, steps=1).numpy() != pytest.approx(wanted.numpy())


@torch.no_grad()
def test_completeness_the_sum_is_the_difference_of_logits() -> None:
    net, x = _double(NETS[0]), _noise(2)
    black = torch.full(SMALL, -1.0, dtype=torch.float64)
    wanted = (net(x) - net(black[None]))[[0, 1], [5, 1]]
    few, many = (
        (saliency.integrated_gradients(net, x, [5, 1], black, steps).flatten(1).sum(1) - wanted).abs()
        for steps in (3, 300)
    )
    assert bool((many < 0.02 * wanted.abs()).all())
    assert float(many.sum()) < float(few.sum()) / 5


def test_an_image_is_explained_by_itself() -> None:
    net, x = _double(NETS[0]), _noise(3)
    black = torch.zeros(SMALL, dtype=torch.float64)
    together = saliency.integrated_gradients(net, x, [1, 2, 3], black, 4)
    alone = saliency.integrated_gradients(net, x[1:2], [2], black, 4)
    assert together[1:2].numpy() == pytest.approx(alone.numpy(), rel=1e-9)
    cams = saliency.grad_cam(net, x, [1, 2, 3], "stages.s2.b1")
    assert cams[1:2].numpy() == pytest.approx(saliency.grad_cam(net, x[1:2], [2], "stages.s2.b1").numpy())


def test_a_row_is_what_its_words_say(digits) -> None:
    net = scrambled(build(NETS[0]))
    rows = saliency.measure(net, digits.val, right=3, wrong=4, steps=8)
    json.dumps(rows, allow_nan=False)
    net.eval()
    with torch.no_grad():
        x = ds.data.normalise(
            torch.from_numpy(digits.val.images.pixels).permute(0, 3, 1, 2), digits.preprocessing
        )
        probabilities = net(x).double().softmax(1)
        black = ds.data.normalise(torch.zeros(1, *SMALL, dtype=torch.uint8), digits.preprocessing)
    confidence, predicted = probabilities.max(1)
    sure = [
        i
        for i in confidence.argsort(descending=True, stable=True).tolist()
        if predicted[i] != digits.val.labels[i]
    ]
    assert [row["right"] for row in rows] == [True] * 3 + [False] * 4
    assert [row["image"] for row in rows[3:]] == sure[:4]
    for row in rows:
        i = row["image"]
        assert (row["label"], row["predicted"]) == (int(digits.val.labels[i]), int(predicted[i]))
        assert row["confidence"] == pytest.approx(float(confidence[i]), rel=1e-4)
        assert (row["target"], row["at"], row["file"]) == (row["predicted"], "stages.s3.b1", None)
        cam = saliency.grad_cam(net, x[i : i + 1], [row["target"]], row["at"])[0]
        assert np.array(row["grad_cam"]) == pytest.approx(cam.numpy(), rel=1e-3, abs=1e-6)
        with torch.no_grad():
            logits = [float(net(one)[0, row["target"]]) for one in (x[i : i + 1], black)]
        assert [row["logit"], row["baseline_logit"]] == pytest.approx(logits, rel=1e-4, abs=1e-5)
        assert np.array(row["integrated"]).shape == (8, 8)
        assert np.sum(row["integrated"]) == pytest.approx(row["attributed"], rel=1e-2, abs=1e-2)
        assert row["attributed"] - row["completeness_error"] == pytest.approx(logits[0] - logits[1], abs=1e-4)


def test_pictures_are_chosen_by_the_seed_and_of_many_classes(digits) -> None:
    net = _trained_enough(digits)
    rows = saliency.measure(net, digits, right=12, wrong=0, steps=1)
    assert len({row["label"] for row in rows[:10]}) == 10
    assert all(row["right"] for row in rows)
    again = saliency.measure(net, digits, right=12, wrong=0, steps=1)
    assert again == rows
    other = saliency.measure(net, digits, right=12, wrong=0, steps=1, seed=1)
    assert [row["image"] for row in other] != [row["image"] for row in rows]
    few = saliency.measure(net, digits, right=500, wrong=500, steps=1, images=20)
    assert len(few) == 20


def _trained_enough(digits: ds.data.Dataset) -> Network:
    """Return a net that is right about most digits: a linear classifier on the pixels, solved for."""
    head = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    head.insert(0, nn.Identity())
    pixels = torch.from_numpy(digits.train.images.pixels).permute(0, 3, 1, 2)
    x = ds.data.normalise(pixels, digits.preprocessing).flatten(1)
    with_one = torch.cat([x, torch.ones(len(x), 1)], 1)
    wanted = 10 * nn.functional.one_hot(digits.train.labels, 10).float()
    # By singular values: pixels that are always black leave the usual driver's answer to chance.
    solved = torch.linalg.lstsq(with_one.double(), wanted.double(), driver="gelsd").solution.float().T
    with torch.no_grad():
        head[2].weight.copy_(solved[:, :-1])
        head[2].bias.copy_(solved[:, -1])
    named = nn.Sequential()
    for name, part in (("relu", head[0]), ("pool", head[1]), ("linear", head[2])):
        named.add_module(name, part)
    return Network(NETS[0], stem=nn.Identity(), stages=nn.ModuleDict(), head=named)


def test_the_label_can_be_explained_and_the_mean_colour_be_nothing(digits) -> None:
    net = scrambled(build(NETS[0]))
    usual, other, mean = (
        saliency.measure(net, digits, right=0, wrong=1, steps=2, **more)[0]
        for more in ({}, {"target": "label"}, {"baseline": "mean"})
    )
    assert other["target"] == other["label"] != usual["target"]
    assert other["grad_cam"] != usual["grad_cam"]
    with torch.no_grad():
        nothing = float(net.eval()(torch.zeros(1, *SMALL))[0, mean["target"]])
    assert mean["baseline_logit"] == pytest.approx(nothing, rel=1e-4)
    assert mean["logit"] == usual["logit"]


def test_large_maps_are_made_coarse_and_keep_their_sum() -> None:
    values = torch.arange(112 * 111, dtype=torch.float64).reshape(112, 111)
    mean, whole = saliency.lines(values), saliency.lines(values, summed=True)
    assert np.array(mean).shape == np.array(whole).shape == (56, 56)
    assert np.sum(whole) == pytest.approx(float(values.sum()), rel=1e-3)
    assert mean[0][0] == pytest.approx((0 + 1 + 111 + 112) / 4)
    assert mean[0][55] == pytest.approx((110 + 221) / 2, rel=1e-3)
    assert saliency.lines(torch.tensor([[1.0, float("nan")]])) == [[1.0, None]]


def test_pictures_to_draw_are_those_that_the_net_saw(digits) -> None:
    (picture,) = images.pixels(digits, [7])
    assert np.array_equal(picture, digits.val.images[7])
    x = images.shown(build(NETS[0]), digits, torch.tensor([7])).x
    again = ds.data.normalise(torch.from_numpy(picture).permute(2, 0, 1)[None], digits.preprocessing)
    assert torch.equal(x, again)
    with pytest.raises(InputError, match="without preprocessing"):
        images.shown(build(NETS[0]), dataclasses.replace(digits.val, preprocessing=None), torch.tensor([7]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"at": "stages.s3.b9"},
            "at: got 'stages.s3.b9'; allowed: a block, as s1.b1, or a part of the net; nearest: stages.s3.b",
        ),
        ({"at": "stages.*.*"}, "at: got 'stages.*.*', 3 places; allowed: one place"),
        ({"at": "head.linear"}, "at: got 'head.linear', whose output has 2 dimensions"),
        ({"target": "truth"}, "target: got 'truth'; allowed: predicted or label"),
        ({"baseline": "white"}, "baseline: got 'white'; allowed: black or mean"),
        ({"steps": 0}, "steps: got 0"),
        ({"right": -1}, "right: got -1"),
        ({"images": 0}, "images: got 0"),
    ],
)
def test_what_cannot_be_is_said(wrong, message, digits) -> None:
    with pytest.raises(InputError) as raised:
        saliency.measure(scrambled(build(NETS[0])), digits, **wrong)
    assert str(raised.value).startswith(message)
