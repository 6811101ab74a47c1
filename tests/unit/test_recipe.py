"""Recipes are validated values; schedules have the shapes their papers give."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import deepskip as ds
from deepskip.errors import InputError
from deepskip.training.optimiser import make_optimiser
from deepskip.training.precision import choose_device, choose_precision
from deepskip.training.recipe import RECIPES, Recipe, named
from deepskip.training.schedule import learning_rate

steps = st.integers(1, 5000)


@given(steps, st.sampled_from(["one_cycle", "cosine", "step", "constant"]), st.floats(0, 1))
def test_every_rate_is_positive_and_at_most_the_peak(total: int, schedule: str, warmup: float) -> None:
    recipe = Recipe(schedule=schedule, warmup=warmup, lr=0.3)
    for step in {0, 1, total // 3, total // 2, total - 1} & set(range(total)):
        assert 0 < learning_rate(recipe, step, total) <= 0.3 * (1 + 1e-12)


def test_one_cycle_rises_then_falls() -> None:
    rates = [learning_rate(Recipe(lr=1.0, warmup=0.25), step, 400) for step in range(400)]
    assert all(a < b for a, b in itertools.pairwise(rates[:100]))
    assert all(a > b for a, b in itertools.pairwise(rates[100:]))
    assert max(rates) == 1.0
    assert rates[0] == pytest.approx(1 / 25, rel=0.3)
    assert rates[250] == pytest.approx(0.5)  # half-way down
    assert rates[-1] < 1e-4


def test_the_papers_steps() -> None:
    recipe = named("he2015_cifar")
    total = 64_000
    assert [learning_rate(recipe, step, total) for step in (0, 31_999, 32_000, 47_999, 48_000, 63_999)] == [
        pytest.approx(rate) for rate in (0.1, 0.1, 0.01, 0.01, 0.001, 0.001)
    ]
    # 50,000 images in batches of 128 are 391 steps an epoch: the epochs reach 64,000 steps, none is idle.
    assert recipe.max_steps == total
    assert 391 * (recipe.epochs - 1) < total <= 391 * recipe.epochs


@given(st.sampled_from(sorted(RECIPES)))
def test_json_round_trip(name: str) -> None:
    recipe = named(name)
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_set_reaches_every_field() -> None:
    texts = {
        "epochs": "3",
        "max_steps": "10",
        "batch": "8",
        "lr": "0.5",
        "optimiser": "muon",
        "momentum": "0.8",
        "nesterov": "false",
        "weight_decay": "0",
        "decay_all": "true",
        "schedule": "step",
        "warmup": "0.1",
        "milestones": "0.3,0.6",
        "hold_lr": "0.01",
        "hold_error": "50",
        "label_smoothing": "0.1",
        "augment": "photo",
        "size": "64",
        "class_weights": "balanced",
        "trivial": "true",
        "erase": "0.2",
        "mixup": "0.2",
        "cutmix": "1",
        "sizes": "32,64",
        "accumulate": "2",
        "clip": "1",
        "ema": "0.9",
        "patience": "3",
        "freeze": "stem,stages.s1",
        "sync_norm": "true",
    }
    assert set(texts) == set(Recipe.model_fields)
    recipe = Recipe().set(texts)
    assert recipe.milestones == (0.3, 0.6)
    assert (recipe.sizes, recipe.freeze) == ((32, 64), ("stem", "stages.s1"))
    assert recipe.nesterov is False
    assert recipe.set({"max_steps": "none"}).max_steps is None
    assert recipe.set({"class_weights": "none"}).class_weights == "none"  # a word, where it is one
    assert recipe.set({"augment": "none"}).augment == "none"


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("lr", "0"),
        ("lr", "nan"),
        ("lr", "inf"),
        ("batch", "1.5"),
        ("milestones", "0.9,0.1"),
        ("milestones", "2"),
        ("momentum", "-1"),
        ("label_smoothing", "1"),
        ("epochs", "none"),
    ],
)
def test_impossible_settings_are_refused(key: str, text: str) -> None:
    with pytest.raises(InputError, match=key):
        Recipe().set({key: text})


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(InputError, match="nesterov: got true with momentum 0"):
        Recipe(momentum=0)


@pytest.mark.parametrize("decay_all", [True, False])
def test_what_is_decayed(decay_all: bool) -> None:
    net = ds.build(ds.zoo.get("resnet20_cifar", input=(1, 8, 8)))
    groups = make_optimiser(net, Recipe(weight_decay=1e-3, decay_all=decay_all)).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    for name, parameter in net.named_parameters():
        is_weight = name.endswith("weight") and ("conv" in name or "linear" in name)
        assert (id(parameter) in decayed) == (decay_all or is_weight), name
    assert sum(len(group["params"]) for group in groups) == len(list(net.parameters()))


def test_devices_and_precisions() -> None:
    cpu = torch.device("cpu")
    assert choose_device("cpu") == cpu
    assert choose_precision("auto", cpu, 8) == "float32"
    assert choose_precision("bf16", cpu, 8) == "bf16"
    with pytest.raises(InputError, match="--device: got 'gpu'"):
        choose_device("gpu")
    with pytest.raises(InputError, match="allowed: auto, float32, bf16"):
        choose_precision("bf32", cpu, 32)


def test_a_recipe_that_is_not_there_is_near_one_that_is(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("epochs: 3")
    (tmp_path / "mime.txt").touch()
    with pytest.raises(InputError, match=f"nearest: {tmp_path / 'mine.yaml'}"):
        named(str(tmp_path / "mime.yaml"))
