"""Law 7: a run stopped anywhere and resumed ends with the weights, bit for bit, of one that never stopped."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import deepskip as ds
from deepskip.errors import DivergedError, InputError, WorkError
from deepskip.training import engine
from deepskip.training.diagnosis import NotFinite
from deepskip.training.distributed import World
from deepskip.training.engine import fit
from deepskip.training.events import EpochEnded, Finished, Noted, Started, Stepped
from deepskip.training.recipe import Recipe
from deepskip.training.rundir import read_rows
from deepskip.training.stepper import Stepper
from deepskip.training.way import Way, usual

RECIPE = Recipe(epochs=3, batch=240, lr=0.05, hold_lr=0.01, hold_error=95.0)  # 6 steps an epoch


@pytest.fixture(scope="module")
def digits():
    return ds.data.open("digits")


def _net(seed: int = 0, **kwargs):
    return ds.build(ds.zoo.get("resnet8_cifar", input=(1, 8, 8)), seed, **kwargs)


@pytest.fixture(scope="module")
def whole(digits):
    """The weights and metrics of a run that never stopped."""
    net = _net()
    rows = [event for event in fit(net, digits, RECIPE) if isinstance(event, EpochEnded)]
    return net.state_dict(), rows


def _timeless(rows):
    """Return rows without times, and without what was not measured, which files leave out."""
    times = ("seconds", "images_per_second")
    return [{k: v for k, v in row.items() if k not in times and v is not None} for row in rows]


@pytest.mark.parametrize("stop_at", [1, 5, 6, 7, 12, 17, 18])
def test_closed_at_a_step_and_resumed(digits, whole, stop_at: int) -> None:
    events = fit(_net(), digits, RECIPE, out="run", each_step=True)
    for event in events:
        if isinstance(event, Stepped) and event.step == stop_at:
            break
    events.close()
    assert Path("run/model.safetensors").exists()
    net = _net()
    *_, last = fit(net, digits, RECIPE, out="run", resume=True)
    assert isinstance(last, Finished)
    for name, tensor in whole[0].items():
        assert torch.equal(tensor, net.state_dict()[name]), name
    rows = read_rows(Path("run/metrics.jsonl"))
    assert _timeless(rows) == _timeless([vars(row) for row in whole[1]])


def test_what_a_net_draws_is_drawn_again(digits) -> None:
    """Stochastic depth and dropout draw numbers in training; the global generator is left alone."""
    spec = ds.zoo.get("resnet_cifar", depth=14, input=(1, 8, 8))
    spec = spec.replace(survival=0.5, junction=ds.Junction(kind="dropout"))
    whole, net = ds.build(spec), ds.build(spec)
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    for _ in fit(whole, digits, RECIPE):
        pass
    assert torch.equal(before, torch.random.get_rng_state())
    events = fit(ds.build(spec), digits, RECIPE, out="run", each_step=True)
    for event in events:
        if isinstance(event, Stepped) and event.step == 8:
            break
    events.close()
    torch.manual_seed(8)
    for _ in fit(net, digits, RECIPE, out="run", resume=True):
        pass
    assert all(torch.equal(t, net.state_dict()[name]) for name, t in whole.state_dict().items())


EVERYTHING = RECIPE.replace(
    ema=0.9,
    mixup=0.4,
    cutmix=1.0,
    erase=0.5,
    trivial=True,
    accumulate=2,
    clip=1.0,
    label_smoothing=0.1,
    class_weights="balanced",
    freeze=("stem",),
    patience=2,
)


@pytest.mark.parametrize("stop_at", [2, 6, 11, 18])
def test_with_everything_on(digits, stop_at: int) -> None:
    """The average, the mixing, what is erased and what is frozen go on as they would have."""
    whole, net = _net(), _net()
    rows = [event for event in fit(whole, digits, EVERYTHING, out="whole") if isinstance(event, EpochEnded)]
    events = fit(_net(), digits, EVERYTHING, out="run", each_step=True)
    for event in events:
        if isinstance(event, Stepped) and event.step == stop_at:
            break
    events.close()
    again = list(fit(net, digits, EVERYTHING, out="run", resume=True))
    assert isinstance(again[-1], Finished)
    assert all(torch.equal(t, net.state_dict()[name]) for name, t in whole.state_dict().items())
    assert _timeless(read_rows(Path("run/metrics.jsonl"))) == _timeless([vars(row) for row in rows])
    kept, best = load_file("run/model.safetensors"), load_file("run/best.safetensors")
    assert all(torch.equal(t, kept[name]) for name, t in whole.state_dict().items())  # the average is saved
    assert all(torch.equal(t, best[name]) for name, t in load_file("whole/best.safetensors").items())
    assert torch.equal(whole.stem.conv1.weight, _net().stem.conv1.weight)  # frozen


@pytest.mark.parametrize("stop_at", [1, 6, 11])
def test_muons_momentum_is_part_of_the_state(digits, stop_at: int) -> None:
    recipe = Recipe(epochs=2, batch=240, lr=0.02, optimiser="muon", weight_decay=0.01)
    never = _net()
    list(fit(never, digits, recipe))
    for event in fit(_net(), digits, recipe, out="run", each_step=True):
        if isinstance(event, Stepped) and event.step == stop_at:
            break
    resumed = _net(9)
    list(fit(resumed, digits, recipe, out="run", resume=True))
    for name, tensor in never.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_patience_ends_a_run_and_keeps_its_best_epoch(digits, monkeypatch) -> None:
    errors = iter([50.0, 30.0, 40.0, 35.0, 20.0])
    real = engine.score_together
    monkeypatch.setattr(engine, "score_together", lambda *a: replace(real(*a), error=next(errors)))
    recipe = RECIPE.replace(epochs=5, patience=2)
    rows = [e for e in fit(_net(), digits, recipe, out="run") if isinstance(e, EpochEnded)]
    assert [row.val_error for row in rows] == [50.0, 30.0, 40.0, 35.0]
    assert ds.load("run/best.safetensors").header.metrics["epoch"] == 2
    assert ds.load("run").header.metrics["epoch"] == 4
    assert not any(isinstance(e, EpochEnded) for e in fit(_net(), digits, recipe, out="run", resume=True))


def test_a_folder_that_is_removed_meanwhile_is_written_again(digits, monkeypatch) -> None:
    monkeypatch.setattr(engine, "SAVE_EVERY", 0.0)
    for event in fit(_net(), digits, RECIPE, out="run"):
        if isinstance(event, EpochEnded) and event.epoch == 1:
            shutil.rmtree("run")
    assert [row["epoch"] for row in read_rows(Path("run/metrics.jsonl"))] == [1, 2, 3]
    assert Path("run/config.json").exists()
    assert ds.load("run").header.metrics["epoch"] == 3


def test_the_last_two_states_are_kept_and_a_damaged_one_is_left_out(digits, whole, monkeypatch) -> None:
    monkeypatch.setattr(engine, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(engine, "SAVE_WITHIN", 0.0)
    monkeypatch.setattr(engine, "SAVE_SHARE", math.inf)
    events = fit(_net(), digits, RECIPE, out="run", each_step=True)
    for event in events:
        if isinstance(event, Stepped) and event.step == 9:
            break
    events.close()
    states = sorted(Path("run/state").glob("checkpoint-*.pt"))
    assert [path.name for path in states] == ["checkpoint-0000000008.pt", "checkpoint-0000000009.pt"]
    states[1].write_bytes(states[1].read_bytes()[:-200])
    net = _net()
    again = list(fit(net, digits, RECIPE, out="run", resume=True))
    assert isinstance(again[0], Started)
    assert again[0].step == 8
    assert isinstance(again[1], Noted)
    assert "checkpoint-0000000009.pt: a damaged state" in again[1].text
    assert all(torch.equal(t, net.state_dict()[name]) for name, t in whole[0].items())


def test_out_of_memory_is_one_line_that_names_a_batch(digits, monkeypatch) -> None:
    def fails(*args, **given):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    monkeypatch.setattr(engine.Stepper, "_gradient", fails)
    with pytest.raises(WorkError, match=r"step 1 of 18: got no memory left for 240 images.*--batch 120"):
        list(fit(_net(), digits, RECIPE, out="run"))


def test_the_way_of_a_run_is_kept_when_it_goes_on(digits) -> None:
    way = Way(memory_format="contiguous", threads=1)
    events = fit(_net(), digits, RECIPE, out="run", way=way, each_step=True)
    for event in events:
        if isinstance(event, Stepped) and event.step == 4:
            break
    events.close()
    whole, net = _net(), _net()
    for _ in fit(whole, digits, RECIPE, way=way):
        pass
    for _ in fit(net, digits, RECIPE, out="run", resume=True):
        pass
    assert all(torch.equal(t, net.state_dict()[name]) for name, t in whole.state_dict().items())
    assert json.loads(Path("run/config.json").read_text())["way"]["memory_format"] == "contiguous"


@pytest.mark.parametrize("max_steps", [3, 4])
def test_stopped_after_the_last_step_and_resumed(digits, max_steps: int) -> None:
    """The last epoch is scored although no step is left, and no step is taken beyond the last."""
    recipe = RECIPE.replace(max_steps=max_steps)
    whole = _net()
    *_, row, _ = fit(whole, digits, recipe)
    events = fit(_net(), digits, recipe, out="run", each_step=True)
    for event in events:
        if isinstance(event, Stepped) and event.step == max_steps:
            break
    events.close()
    net = _net()
    *_, again, last = fit(net, digits, recipe, out="run", resume=True)
    assert isinstance(last, Finished)
    assert _timeless([vars(again)]) == _timeless([vars(row)])
    assert all(torch.equal(t, net.state_dict()[name]) for name, t in whole.state_dict().items())


def test_ctrl_c_in_a_callers_loop_saves_between_steps(digits, whole) -> None:
    """KeyboardInterrupt at any moment inside the engine: the state is that of a whole number of steps."""
    timer = threading.Timer(0.05, signal.raise_signal, [signal.SIGINT])
    with pytest.raises(KeyboardInterrupt):
        for event in fit(_net(), digits, RECIPE.replace(epochs=500), out="long"):
            if isinstance(event, EpochEnded) and event.epoch == 1:  # some steps are taken, on any machine
                timer.start()
    assert list(Path("long/state").glob("checkpoint-*.pt"))
    assert ds.load("long").header.provenance["step"] > 0

    events = fit(_net(), digits, RECIPE, out="run")
    original, count = engine._Run._step, iter(range(99))

    def interrupted(run, batch):
        if next(count) == 8:
            signal.raise_signal(signal.SIGINT)  # in the middle of a step
        return original(run, batch)

    engine._Run._step = interrupted
    try:
        with pytest.raises(KeyboardInterrupt):
            list(events)
    finally:
        engine._Run._step = original
    assert ds.load("run").header.provenance["step"] == 9
    net = _net()
    for _ in fit(net, digits, RECIPE, out="run", resume=True):
        pass
    assert all(torch.equal(t, net.state_dict()[name]) for name, t in whole[0].items())


def test_a_step_that_somebody_elses_handler_interrupts_is_not_saved(digits, whole, monkeypatch) -> None:
    """Their handlers are left alone, and may raise in the middle of a step: the state is an earlier one."""
    monkeypatch.setattr(engine, "SAVE_EVERY", 0.0)
    original, count = torch.optim.SGD.step, iter(range(99))

    def interrupted(optimiser, *args):
        if next(count) == 8:
            signal.raise_signal(signal.SIGINT)  # gradients are there, statistics taken, and no weight moved
        return original(optimiser, *args)

    def theirs(number, frame):
        raise KeyboardInterrupt

    usual = signal.signal(signal.SIGINT, theirs)
    try:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(torch.optim.SGD, "step", interrupted)
            list(fit(_net(), digits, RECIPE, out="run"))
    finally:
        signal.signal(signal.SIGINT, usual)
    net = _net()
    for _ in fit(net, digits, RECIPE, out="run", resume=True):
        pass
    assert all(torch.equal(t, net.state_dict()[name]) for name, t in whole[0].items())


def test_a_run_left_before_its_first_step_gives_back_net_and_folder(digits, whole) -> None:
    left = _net()
    for event in fit(left, digits, RECIPE.replace(freeze=("stem",))):
        assert isinstance(event, Started)
        break
    assert all(parameter.requires_grad for parameter in left.parameters())
    events = fit(_net(), digits, RECIPE, out="run")
    next(events)
    events.close()
    net = _net()
    for _ in fit(net, digits, RECIPE, out="run", resume=True):
        pass
    assert all(torch.equal(t, net.state_dict()[name]) for name, t in whole[0].items())


def test_a_folder_that_cannot_be_gone_on_with_is_let_go(digits) -> None:
    """While somebody still holds the error, as an interactive Python does."""
    list(fit(_net(), digits, RECIPE.replace(epochs=1), out="run"))
    for path in Path("run/state").glob("checkpoint-*.pt"):
        path.write_bytes(b"half")
    with pytest.raises(InputError, match="only damaged states") as held:
        fit(_net(), digits, RECIPE.replace(epochs=1), out="run", resume=True)
    for path in Path("run/state").glob("checkpoint-*.pt"):
        path.unlink()
    assert isinstance(list(fit(_net(), digits, RECIPE.replace(epochs=1), out="run", resume=True))[-1], Finished)
    assert held.tb is not None


@pytest.mark.parametrize("ends", [True, False])
def test_losses_that_nobody_looked_at_before_the_end(digits, monkeypatch, ends: bool) -> None:
    """On a GPU losses are read every few steps: what is not finite is met at an epoch's end, or at a stop."""
    original = engine._Run._end_epoch if ends else engine._Run._save

    def elsewhere(run, *args):
        run.device = torch.device("meta")
        return original(run, *args)

    def read(stepper, batch=None):
        if batch is None:
            raise NotFinite("a loss of nan")

    monkeypatch.setattr(engine._Run, original.__name__, elsewhere)
    monkeypatch.setattr(Stepper, "read", read)
    events = fit(_net(), digits, RECIPE, out="run", each_step=True)
    if ends:
        with pytest.raises(DivergedError, match=r"^step 6 of 18 \(epoch 1\): got a loss of nan"):
            list(events)
    else:
        assert isinstance([next(events), next(events)][1], Stepped)
        events.close()
    assert not list(Path("run/state").glob("checkpoint-*.pt"))


def test_all_processes_compute_in_the_way_of_the_first(digits, monkeypatch) -> None:
    """What memory is free is not the same for all, and a step that recomputes meets the others once more."""
    first = Way(memory="recompute", threads=1)

    class Second(World):
        def share(self, value):
            return first if isinstance(value, Way) else value

    monkeypatch.setattr(engine, "join", lambda device: Second())
    fit(_net(), digits, RECIPE, out="run").close()
    assert json.loads(Path("run/config.json").read_text())["way"] == first.model_dump(mode="json")


def test_a_folder_is_trained_in_by_one_process(digits) -> None:
    events = fit(_net(), digits, RECIPE, out="run")
    next(events)
    code = (
        "import deepskip as ds, sys; from deepskip.training.recipe import Recipe;"
        "data = ds.data.open('digits'); net = ds.build(ds.zoo.get('resnet8_cifar', input=(1, 8, 8)));"
        "ds.fit(net, data, Recipe.from_json(sys.argv[1]), out='run', resume=True)"
    )
    other = subprocess.run([sys.executable, "-c", code, RECIPE.to_json()], capture_output=True, text=True)
    assert "run: got a folder that another process trains in" in other.stderr
    events.close()
    again = subprocess.run([sys.executable, "-c", code, RECIPE.to_json()], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr


def test_a_run_killed_before_its_config_was_written_begins_anew(digits) -> None:
    os.makedirs("run/state")
    Path("run/.config.json.123.part").write_text("{")
    for _ in fit(_net(), digits, RECIPE.replace(epochs=1), out="run"):
        pass
    assert not Path("run/.config.json.123.part").exists()


KILLS = 20


def test_killed_at_random_moments_and_resumed() -> None:
    """More kills than the run has time for would end it early; so it is a longer run, with everything on."""
    recipe = EVERYTHING.replace(epochs=20, patience=None)
    kill(KILLS, recipe)
    assert_equal(Path("whole"), Path("run"))
    assert not list(Path("run").rglob("*.part"))  # what a kill left half-written was swept


def kill(kills: int, recipe: Recipe, ranks: int = 1) -> None:
    """Train in `whole/`, and in `run/` with kills."""
    script = [sys.executable, str(Path(__file__).with_name("killing.py"))]
    words = [str(kills), "0", recipe.to_json(), str(ranks)]
    done = subprocess.run([*script, *words], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == kills


def assert_equal(whole: Path, other: Path) -> None:
    """Compare what two runs' folders hold of what was computed, bit for bit."""
    one, two = (load_file(folder / "model.safetensors") for folder in (whole, other))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    one, two = (_timeless(read_rows(folder / "metrics.jsonl")) for folder in (whole, other))
    assert len(one) > 0
    assert one == two


def test_the_same_run_twice_is_the_same_bits(digits, whole) -> None:
    net = _net()
    for _ in fit(net, digits, RECIPE):
        pass
    for name, tensor in whole[0].items():
        assert torch.equal(tensor, net.state_dict()[name]), name
    other = _net(1)
    for _ in fit(other, digits, RECIPE, seed=1):
        pass
    assert not torch.equal(other.state_dict()["stem.conv1.weight"], whole[0]["stem.conv1.weight"])


def test_the_run_folder_is_the_contracts(digits) -> None:
    for _ in fit(_net(), digits, RECIPE, out="run"):
        pass
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    columns = "epoch train_loss train_error val_loss val_error learning_rate images_per_second seconds"
    assert all(set(row) == set(columns.split()) for row in rows)
    assert {p.name for p in Path("run").iterdir()} == {
        "config.json",
        "environment.json",
        "flow.jsonl",
        "metrics.jsonl",
        "model.safetensors",
        "state",
    }
    assert ds.publish("run") == Path("run/report.html")
    config = json.loads(Path("run/config.json").read_text())
    assert ds.Spec.from_dict(config["spec"]) == _net().spec
    assert Recipe.from_dict(config["recipe"]) == RECIPE
    assert config["data"] == {"name": "digits", "fingerprint": digits.fingerprint}
    model = ds.load("run")
    assert model.header.metrics["val_error"] == rows[-1]["val_error"]
    assert model.evaluate("digits").error == rows[-1]["val_error"]


def test_a_run_is_known_again_whatever_way_was_measured_for_it(digits) -> None:
    usual_way = usual(torch.device("cpu"), 8)
    other = "float32" if usual_way.precision == "bf16" else "bf16"
    for _ in fit(_net(), digits, RECIPE.replace(epochs=1), out="run", way=usual_way.replace(precision=other)):
        pass
    with pytest.raises(InputError, match="holds this run already"):
        fit(_net(), digits, RECIPE.replace(epochs=1), out="run")


def test_a_run_of_a_version_that_knew_fewer_settings_goes_on(digits) -> None:
    recipe = RECIPE.replace(epochs=1)
    for _ in fit(_net(), digits, recipe, out="run"):
        pass
    config = json.loads(Path("run/config.json").read_text())
    for part, newer in (("recipe", "cutmix"), ("spec", "first"), ("preprocessing", "interpolation")):
        del config[part][newer]  # each at its default in this run
    Path("run/config.json").write_text(json.dumps(config))
    assert isinstance(list(fit(_net(), digits, recipe, out="run", resume=True))[-1], Finished)
    with pytest.raises(InputError, match=r"recipe.cutmix is 0.0 there, 0.5 here"):
        fit(_net(), digits, recipe.replace(cutmix=0.5), out="run", resume=True)


def test_a_finished_run_makes_its_model_again(digits) -> None:
    recipe = RECIPE.replace(epochs=1, ema=0.9)
    for _ in fit(_net(), digits, recipe, out="run"):
        pass
    made = Path("run/model.safetensors")
    before = load_file(made)
    made.unlink()
    for _ in fit(_net(), digits, recipe, out="run", resume=True):
        pass
    again = load_file(made)
    assert all(torch.equal(again[name], tensor) for name, tensor in before.items())
    shutil.rmtree("run/state")
    said = next(e for e in fit(_net(), digits, recipe, out="run", resume=True) if isinstance(e, Noted))
    assert said.text == "run: no state is left, so the run begins anew"


def test_another_run_is_never_overwritten(digits) -> None:
    for _ in fit(_net(), digits, RECIPE.replace(epochs=1), out="run"):
        pass
    before = {p: p.read_bytes() for p in Path("run").rglob("*") if p.is_file()}
    with pytest.raises(InputError, match="holds this run already.*nearest: --resume"):
        fit(_net(), digits, RECIPE.replace(epochs=1), out="run")
    with pytest.raises(InputError, match=r"holds another run \(recipe.lr is 0.05 there.*--init run goes on"):
        fit(_net(), digits, RECIPE.replace(epochs=1, lr=0.01), out="run", resume=True)
    with pytest.raises(InputError, match="holds another run"):
        fit(_net(), digits, RECIPE.replace(epochs=1), out="run", seed=1, resume=True)
    refused = _net()
    with pytest.raises(InputError, match="holds another run"):
        fit(refused, digits, RECIPE.replace(epochs=1, freeze=("stem",)), out="run", resume=True)
    assert all(p.requires_grad for p in refused.parameters())  # what is not trained is not left frozen
    os.mkdir("other")
    Path("other/notes.txt").write_text("mine")
    with pytest.raises(InputError, match="a folder with other files in it"):
        fit(_net(), digits, RECIPE, out="other", resume=True)
    assert before == {p: p.read_bytes() for p in Path("run").rglob("*") if p.is_file()}


def test_a_finished_run_resumes_to_its_end_at_once(digits) -> None:
    recipe = RECIPE.replace(epochs=2, max_steps=8)
    first = list(fit(_net(), digits, recipe, out="run"))
    again = list(fit(_net(), digits, recipe, out="run", resume=True))
    assert isinstance(first[-1], Finished)
    assert again[-1].val_error == first[-1].val_error
    assert not any(isinstance(event, EpochEnded) for event in again)
    assert [row["epoch"] for row in read_rows(Path("run/metrics.jsonl"))] == [1, 2]


def test_divergence_is_noticed_at_once_and_keeps_the_last_good_state(digits, monkeypatch) -> None:
    monkeypatch.setattr(engine, "SAVE_EVERY", 0.0)
    net = _net()
    steps = 0
    with pytest.raises(DivergedError, match=r"step 9 of 18 \(epoch 2\): got a loss of nan"):
        for event in fit(net, digits, RECIPE, out="run", each_step=True):
            if isinstance(event, Stepped):
                steps += 1
                if steps == 8:
                    next(net.parameters()).data[0] = float("nan")
    assert [row["epoch"] for row in read_rows(Path("run/metrics.jsonl"))] == [1]
    kept = load_file("run/model.safetensors")
    assert all(torch.isfinite(t).all() for t in kept.values())


def test_weights_that_are_not_finite_are_never_the_last_good_state(digits, monkeypatch) -> None:
    monkeypatch.setattr(engine, "SAVE_EVERY", 0.0)
    net = _net()
    with pytest.raises(
        DivergedError, match=r"\(epoch 2\): got weights or a validation loss that are not finite"
    ):
        for event in fit(net, digits, RECIPE, out="run", each_step=True):
            if isinstance(event, Stepped) and event.step == 12:
                next(net.parameters()).data[0] = float("inf")  # after the epoch's last step: no loss sees it
    assert [row["epoch"] for row in read_rows(Path("run/metrics.jsonl"))] == [1]
    assert all(torch.isfinite(t).all() for t in load_file("run/model.safetensors").values())


def test_a_batch_of_one_that_cannot_be_normalised_is_refused(digits) -> None:
    net = ds.build(ds.zoo.get("resnet18", input=(1, 8, 8), classes=10))
    with pytest.raises(InputError, match="batch: got 1, and a last stage of 1×1 pixels; .* nearest: 2"):
        fit(net, digits, Recipe(batch=1))


def test_net_and_data_must_agree(digits) -> None:
    with pytest.raises(InputError, match="net's input: got"):
        fit(ds.build(ds.zoo.get("resnet8_cifar")), digits)
    with pytest.raises(InputError, match="net's classes: got 3"):
        fit(ds.build(ds.zoo.get("resnet8_cifar", input=(1, 8, 8), classes=3)), digits)
    assert not Path("run").exists()


def test_lost_metrics_come_back_from_the_state(digits) -> None:
    recipe = RECIPE.replace(epochs=2)
    first = list(fit(_net(), digits, recipe, out="run"))
    before = Path("run/metrics.jsonl").read_text()
    Path("run/metrics.jsonl").write_text(before[:50])
    again = list(fit(_net(), digits, recipe, out="run", resume=True))
    assert again[-1].val_error == first[-1].val_error
    assert Path("run/metrics.jsonl").read_text() == before


def test_a_damaged_state_is_refused_without_running_it(digits) -> None:
    for _ in fit(_net(), digits, RECIPE.replace(epochs=1), out="run"):
        pass
    for path in Path("run/state").glob("checkpoint-*.pt"):
        path.write_bytes(b"half")
    with pytest.raises(InputError, match=r"state: got only damaged states"):
        fit(_net(), digits, RECIPE.replace(epochs=1), out="run", resume=True)
