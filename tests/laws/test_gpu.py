"""What holds on a GPU: the laws of training there, and that a recorded step is the step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import deepskip as ds
from deepskip.data.batches import Batch, eval_batches, train_batches
from deepskip.data.dataset import Dataset
from deepskip.data.variation import Variation
from deepskip.nets.network import Network
from deepskip.training.distributed import World
from deepskip.training.events import EpochEnded, Stepped
from deepskip.training.recipe import Recipe
from deepskip.training.replay import WARM, Replayed
from deepskip.training.rundir import read_rows
from deepskip.training.stepper import Stepper
from deepskip.training.tuning import choose
from deepskip.training.way import Way

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

GPU = torch.device("cuda")
RECIPE = Recipe(epochs=3, batch=200, lr=0.05)  # 8 steps an epoch, the last one smaller
FULL = RECIPE.replace(ema=0.9, clip=1.0, label_smoothing=0.1, class_weights="balanced", freeze=("stem",))
WAYS = {
    "float32": Way(),
    "bf16": Way(precision="bf16"),
    "fp16": Way(precision="fp16"),
    "contiguous": Way(memory_format="contiguous"),
}


@pytest.fixture(autouse=True)
def _same_bits() -> Iterator[None]:
    """Let cuDNN choose sums whose order is fixed, without which no two runs on a GPU are the same."""
    with torch.backends.cudnn.flags(deterministic=True, benchmark=False, allow_tf32=False):
        yield


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return ds.data.open("digits")


def resnet() -> Network:
    return ds.build(ds.zoo.get("resnet8_cifar", input=(1, 8, 8)))


def drawing() -> Network:
    """A net that draws random numbers in its steps."""
    spec = ds.zoo.get("resnet_cifar", depth=14, input=(1, 8, 8))
    return ds.build(spec.replace(survival=0.5, junction=ds.Junction(kind="dropout")))


def trained(net: Network, data: Dataset, recipe: Recipe, way: Way, **given: Any) -> dict[str, Any]:
    for _ in ds.fit(net, data, recipe, device="cuda", way=way, **given):
        pass
    return {name: tensor.cpu() for name, tensor in net.state_dict().items()}


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("recipe", [RECIPE, FULL], ids=["plain", "full"])
def test_a_replayed_run_ends_with_the_bits_of_one_that_is_not(
    digits: Dataset, name: str, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    replays = []
    original = Replayed._replay
    monkeypatch.setattr(Replayed, "_replay", lambda self, batch: (replays.append(1), original(self, batch))[1])
    way = WAYS[name]
    usual = trained(resnet(), digits, recipe, way)
    assert not replays
    assert same(usual, trained(resnet(), digits, recipe, way.replace(replay=True)))
    assert len(replays) == 3 * 8 - WARM - 3  # all but the first ones, and the last of each epoch


def test_what_a_net_draws_is_drawn_anew_in_every_replayed_step(digits: Dataset) -> None:
    usual = trained(drawing(), digits, RECIPE, Way())
    assert same(usual, trained(drawing(), digits, RECIPE, Way(replay=True)))


@pytest.mark.parametrize("change", [{"mixup": 0.4}, {"cutmix": 1.0}, {"accumulate": 2}, {"optimiser": "muon"}])
def test_what_cannot_be_replayed_is_computed(digits: Dataset, change: dict[str, Any]) -> None:
    recipe = RECIPE.replace(**change)
    assert same(trained(resnet(), digits, recipe, Way()), trained(resnet(), digits, recipe, Way(replay=True)))


def test_recorded_steps_are_in_a_replayed_run_too(digits: Dataset) -> None:
    usual = trained(resnet(), digits, RECIPE, Way(), out="usual", flow=3)
    assert same(usual, trained(resnet(), digits, RECIPE, Way(replay=True), out="replayed", flow=3))
    rows = [read_rows(Path(name) / "flow.jsonl") for name in ("usual", "replayed")]
    assert rows[0] == rows[1]
    assert all(None not in row["rms"] for row in rows[0][1:])


@pytest.mark.parametrize("way", [Way(), Way(precision="bf16", replay=True)], ids=str)
@pytest.mark.parametrize("stop_at", [2, 7, 8, 13])
def test_a_run_that_was_stopped_ends_with_the_same_bits(digits: Dataset, way: Way, stop_at: int) -> None:
    whole = trained(resnet(), digits, FULL, way)
    events = ds.fit(resnet(), digits, FULL, device="cuda", way=way, out="run", each_step=True)
    for event in events:
        if isinstance(event, Stepped) and event.step == stop_at:
            break
    events.close()
    assert same(whole, trained(resnet(), digits, FULL, way, out="run", resume=True))
    assert json.loads(Path("run/config.json").read_text())["way"]["replay"] == way.replay


def test_a_step_that_waits_for_the_gpu_is_not_recorded() -> None:
    weight = torch.nn.Parameter(torch.ones(3, device=GPU))

    def compute(batch: Batch) -> None:
        total = (batch.images.float().mean() * weight).sum()
        if total.item() > 0:
            total.backward()  # type: ignore[no-untyped-call]

    replayed = Replayed(compute, [weight], GPU)
    batch = Batch(torch.ones(2, 1, 2, 2, dtype=torch.uint8, device=GPU), torch.zeros(2, device=GPU), total=2)
    for _ in range(WARM + 2):
        weight.grad = None
        replayed(batch)
        assert weight.grad is not None
        assert torch.equal(weight.grad, torch.ones(3, device=GPU))
    assert replayed.why


def test_pictures_come_in_pinned_memory(digits: Dataset) -> None:
    usual = train_batches(
        digits.train, digits.preprocessing, Variation(augment="crop_flip", mixup=1), 100, 0, 0
    )
    there = train_batches(
        digits.train, digits.preprocessing, Variation(augment="crop_flip", mixup=1), 100, 0, 0, gpu=True
    )
    for a, b in zip(usual, there, strict=True):
        assert b.images.is_pinned()
        assert b.images.stride() == a.images.stride()
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)


def test_the_way_is_measured_here(digits: Dataset) -> None:
    spec = ds.zoo.get("resnet8_cifar", input=(3, 32, 32))
    found = choose(spec, Recipe(), 20_000, GPU)
    assert {timed.way.replay for timed in found.timed} == {False, True}
    assert found.way.precision != "float32" or found.way.memory == "store"


def test_a_score_does_not_depend_on_the_device(digits: Dataset) -> None:
    net = resnet()
    *_, ended, _ = ds.fit(net, digits, RECIPE, device="cuda")
    assert isinstance(ended, EpochEnded)
    there = ds.score(net, digits.val, digits.preprocessing)
    here = ds.score(net.cpu(), digits.val, digits.preprocessing)
    assert there.error == ended.val_error
    assert abs(there.loss - here.loss) < 1e-4


@pytest.mark.parametrize("memory", ["store", "recompute"])
def test_gradients_are_those_of_the_processor(memory: Any) -> None:
    spec = ds.zoo.get("resnet8_cifar", input=(1, 8, 8))
    data = ds.data.open("digits")
    batch = next(eval_batches(data.val, 64))
    found = []
    for place in ("cpu", "cuda"):
        net = ds.build(spec).double().to(place).train()
        stepper = Stepper(
            net, data.preprocessing, Recipe(batch=64), Way(memory=memory), World(), seed=0, weights=None
        )
        stepper.begin()
        stepper.step(batch, 0, 0.0)
        found.append([p.grad.cpu() for p in net.parameters() if p.grad is not None])
    for a, b in zip(*found, strict=True):
        assert (a - b).abs().max() <= 1e-10 * a.abs().max().clamp(min=1)
