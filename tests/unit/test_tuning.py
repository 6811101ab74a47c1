"""The way to compute: chosen by what was measured, remembered, and left alone where it cannot pay."""

from __future__ import annotations

import pytest
import torch

import deepskip as ds
from deepskip.errors import InputError
from deepskip.training import tuning
from deepskip.training.precision import choose_precision
from deepskip.training.recipe import Recipe
from deepskip.training.tuning import Timed, choose
from deepskip.training.way import Way, usual

CPU = torch.device("cpu")
SPEC = ds.zoo.get("resnet8_cifar", input=(1, 8, 8))
RECIPE = Recipe(batch=8)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Seconds a step of each way, by its words; what is asked for is counted under "asked"."""
    steps = {"asked": 0.0, "contiguous": 2.0, "channels last": 3.0, "compiled": 1.0, "first": 50.0}

    def time_it(spec: ds.Spec, way: Way, images: int, device: torch.device) -> Timed:
        steps["asked"] += 1
        word = "compiled" if way.compile == "whole" else way.memory_format.replace("_", " ")
        return Timed(way, steps[word], steps["first"] if way.compile == "whole" else steps[word])

    monkeypatch.setattr(tuning, "_time", time_it)
    monkeypatch.setattr(tuning, "has_bf16", lambda device: False)
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/" + name)
    return steps


def test_the_fastest_way_is_chosen_and_remembered(measured: dict[str, float]) -> None:
    rule = usual(CPU, 8)
    first = choose(SPEC, RECIPE, 100, CPU)
    assert first.way == rule.replace(memory_format="contiguous")
    assert [t.step for t in first.timed] == [3.0, 2.0]  # 300 s are too few to compile for
    asked = measured["asked"]
    again = choose(SPEC, RECIPE, 100, CPU)
    assert (again.way, again.remembered, measured["asked"]) == (first.way, True, asked)
    measured["contiguous"] = 9.0
    assert choose(SPEC, RECIPE, 100, CPU, again=True).way == rule
    assert choose(SPEC, RECIPE, 100, CPU).way == rule  # remembered anew
    other = choose(SPEC.replace(classes=3), RECIPE, 100, CPU)
    assert not other.remembered  # another net


def test_compiling_must_pay_for_its_own_time(measured: dict[str, float]) -> None:
    assert choose(SPEC, RECIPE, 2000, CPU, again=True).way.compile == "whole"
    measured["first"] = 5000.0
    assert choose(SPEC, RECIPE, 2000, CPU, again=True).way.compile == "none"


def test_a_short_run_is_not_measured_twice_and_noise_is_no_reason(measured: dict[str, float]) -> None:
    assert len(choose(SPEC, RECIPE, 10, CPU, again=True).timed) == 1
    measured["contiguous"] = 2.95  # less than 3% faster
    assert choose(SPEC, RECIPE, 100, CPU, again=True).way == usual(CPU, 8)


def test_a_real_measurement_has_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "WORTH", 0.0)
    monkeypatch.setattr(tuning, "COMPILING", float("inf"))
    before = torch.random.get_rng_state()
    found = choose(SPEC, RECIPE, 1000, CPU, precision="float32")
    assert len(found.timed) == 2
    assert all(0 < timed.step <= timed.first * 50 for timed in found.timed)
    assert torch.equal(before, torch.random.get_rng_state())


def test_what_is_measured_fits_and_is_what_will_be_computed(
    measured: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory can be promised that is not there, and the process that uses it is killed without a word."""
    huge = Recipe(batch=10**9)
    assert choose(SPEC, huge, 100, CPU).timed == ()
    assert choose(SPEC, huge, 100, CPU, memory="recompute").timed == ()
    assert measured["asked"] == 0
    assert len(choose(SPEC, huge, 100, CPU, images=8, again=True).timed) == 2  # of data with no more
    least = tuning.needed_bytes(SPEC, 8, Way(precision="bf16"))
    monkeypatch.setattr(tuning, "has_bf16", lambda device: True)
    monkeypatch.setattr(tuning, "free_bytes", lambda device: least)
    monkeypatch.setattr(tuning, "usual", lambda device, size, precision: Way(precision="bf16"))
    found = choose(SPEC, RECIPE, 100, CPU, again=True)
    assert {timed.way.precision for timed in found.timed} == {"bf16"}


def test_precision_by_rule() -> None:
    with pytest.raises(InputError, match="fp16 on a processor; .* nearest: bf16"):
        choose_precision("fp16", CPU, 32)
    assert choose_precision("bf16", CPU, 32) == "bf16"
    assert choose_precision("auto", CPU, 8) == "float32"


def test_words() -> None:
    assert str(Way(precision="bf16", threads=2)) == "bf16, channels last, 2 threads"
    assert str(Way(compile="whole", threads=1)) == "float32, channels last, compiled, 1 thread"
