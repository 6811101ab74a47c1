"""Recording changes no bit of a training, and a run that is resumed has the rows of one that never stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import deepskip as ds
from deepskip.errors import DivergedError, InputError
from deepskip.training import engine
from deepskip.training.engine import fit
from deepskip.training.events import Started, Stepped
from deepskip.training.recipe import Recipe
from deepskip.training.rundir import read_rows

RECIPE = Recipe(epochs=2, batch=360, lr=0.05, ema=0.9, mixup=0.4, accumulate=2, clip=1.0)  # 8 steps
SPEC = ds.zoo.get("resnet8_cifar", input=(1, 8, 8)).replace(survival=0.7, junction=ds.Junction(kind="dropout"))
FLOW = Path("run/flow.jsonl")


@pytest.fixture(scope="module")
def digits():
    return ds.data.open("digits")


def _trained(digits, out: str, recipe: Recipe = RECIPE, **options):
    net = ds.build(SPEC)
    for _ in fit(net, digits, recipe, out=out, **options):
        pass
    return net.state_dict()


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory) -> str:
    """The file of a run that never stopped."""
    out = tmp_path_factory.mktemp("whole") / "run"
    _trained(digits, str(out))
    return (out / "flow.jsonl").read_text()


def _stopped(digits, at: int, **options) -> None:
    events = fit(ds.build(SPEC), digits, RECIPE, out="run", each_step=True, **options)
    for event in events:
        if isinstance(event, Stepped) and event.step == at:
            break
    events.close()


@pytest.mark.parametrize(("precision", "steps"), [("float32", 8), ("bf16", 2)])
def test_recording_changes_no_bit(digits, precision: str, steps: int) -> None:
    recipe = RECIPE.replace(max_steps=steps)
    off = _trained(digits, "off", recipe, flow=0, precision=precision)
    each = _trained(digits, "each", recipe, flow=1, precision=precision)
    assert all(torch.equal(tensor, each[name]) for name, tensor in off.items())
    assert not Path("off/flow.jsonl").exists()
    rows = read_rows(Path("each/flow.jsonl"))
    assert [row["step"] for row in rows] == list(range(1, steps + 1))
    assert rows[0]["blocks"] == ["s1.b1", "s2.b1", "s3.b1"]
    assert all(set(row) == {"step", "grad_norm", "rms", "ratio"} for row in rows[1:])


@pytest.mark.parametrize("stop_at", [1, 6, 8])
def test_a_resumed_run_has_the_rows_of_one_that_never_stopped(digits, whole: str, stop_at: int) -> None:
    _stopped(digits, stop_at)
    _trained(digits, "run", resume=True)
    assert FLOW.read_text() == whole
    assert [row["step"] for row in read_rows(FLOW)] == [1, 5, 8]


def test_rows_after_the_state_are_taken_again_and_half_a_row_is_dropped(digits, whole: str) -> None:
    """As after a kill: the state is of step 5, the file went on."""
    _stopped(digits, 5)
    lines = whole.splitlines(keepends=True)
    FLOW.write_text("".join(lines).replace('"step": 8', '"step": 7') + "[3]\n7\n" + lines[-1][:30])
    _trained(digits, "run", resume=True)
    assert FLOW.read_text() == whole


def test_a_run_may_go_on_with_another_interval_or_none(digits) -> None:
    _stopped(digits, 4, flow=2)
    _stopped(digits, 5, flow=0, resume=True)
    _trained(digits, "run", flow=6, resume=True)
    rows = read_rows(FLOW)
    assert [row["step"] for row in rows] == [1, 3, 7, 8]
    assert [("blocks" in row) for row in rows] == [True] + [False] * 3


def test_a_wrong_interval_is_refused_before_the_folder_is_made(digits) -> None:
    with pytest.raises(InputError, match="flow: got -3"):
        fit(ds.build(SPEC), digits, RECIPE, out="run", flow=-3)
    assert not Path("run").exists()


def test_what_is_not_yet_read_is_written_when_a_run_diverges(digits, monkeypatch) -> None:
    """As on a GPU, where the numbers are fetched every few steps."""
    monkeypatch.setattr(engine.Stepper, "is_read", lambda *_: False)
    net = ds.build(SPEC)
    with pytest.raises(DivergedError):
        for event in fit(net, digits, RECIPE, out="run", flow=1, each_step=True):
            if isinstance(event, Stepped):
                assert not FLOW.exists()
                if event.step == 3:
                    next(net.parameters()).data[0] = float("nan")
    assert [row["step"] for row in read_rows(FLOW)] == [1, 2, 3]


def test_a_removed_folder_is_made_anew_for_the_next_row(digits) -> None:
    import shutil

    for event in fit(ds.build(SPEC), digits, RECIPE, out="run", flow=1, each_step=True):
        if isinstance(event, Stepped) and event.step == 3:
            shutil.rmtree("run")
    rows = read_rows(FLOW)
    assert [row["step"] for row in rows] == list(range(4, 9))
    assert "blocks" in rows[0]
    assert [row["epoch"] for row in read_rows(Path("run/metrics.jsonl"))] == [1, 2]


def test_without_a_folder_nothing_is_recorded(digits, monkeypatch) -> None:
    monkeypatch.setattr(engine, "Flow", None)  # would be called
    first, *_ = fit(ds.build(SPEC), digits, RECIPE.replace(max_steps=2), flow=1)
    assert isinstance(first, Started)


def test_the_report_draws_it(digits) -> None:
    _trained(digits, "run")
    page = ds.publish("run").read_text()
    assert "How signals flow, block by block" in page
    assert page.count("data:image/png;base64") == 6  # three maps and their scales
    FLOW.unlink()
    assert "How signals flow" not in ds.publish("run").read_text()
    FLOW.write_text(json.dumps({"step": 1}) + "\n[1]\n3\n")  # whatever somebody left in it
    assert ds.publish("run").exists()
