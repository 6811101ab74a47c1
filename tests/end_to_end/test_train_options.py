"""`deepskip train` with what people expect of it: fine-tuning, files of recipes, a rate search, TensorBoard."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
import torch

import deepskip as ds
from deepskip.cli import train
from deepskip.cli.show import Output
from deepskip.training.events import EpochEnded, Event
from deepskip.training.recipe import Recipe
from deepskip.training.rundir import read_rows
from tests.end_to_end.command import Command

SMALL = ("--net", "resnet8_cifar", "--epochs", 1, "--batch", 240)


def test_fine_tuning_keeps_what_is_frozen_and_the_normalisation(
    deepskip: Command, photos: Callable[..., Path]
) -> None:
    first = photos("first", classes=("blue", "green", "red"))
    said = deepskip("train", first, "--net", "resnet8_cifar", "--epochs", 2, "--set", "size=32", "--out", "a")
    assert said.code == 0, said.err
    second = photos("second", classes=("green", "red"))
    frozen = ("--set", "freeze=stem,stages.s1", "--lr", 0.01, "--epochs", 2)
    said = deepskip("train", second, "--init", "a", *frozen, "--out", "b")
    assert said.code == 0, said.err
    assert "other classes than the model's: a new head for 2 of them (seed 0)" in said.err
    a, b = ds.load("a"), ds.load("b")
    assert b.preprocessing == a.preprocessing
    assert b.classes == ("green", "red")
    assert b.header.provenance["init"] == "a"
    for name, tensor in a.net.state_dict().items():
        if name.startswith(("stem.", "stages.s1.")):
            assert torch.equal(tensor, b.net.state_dict()[name]), name
    assert not torch.equal(
        a.net.stages["s3"]["b1"].branch.conv1.weight, b.net.stages["s3"]["b1"].branch.conv1.weight
    )


def test_going_on_from_a_model_with_the_same_classes_starts_where_it_was(deepskip: Command) -> None:
    deepskip("train", "digits", *SMALL, "--out", "a")
    model, data = ds.load("a"), ds.data.open("digits")
    net, notes = model.adapted(data)
    assert notes == []
    images = torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(net.eval()(images), model.net(images))


def test_what_init_does_not_go_with(deepskip: Command, photos: Callable[..., Path]) -> None:
    deepskip("train", "digits", *SMALL, "--out", "a")
    said = deepskip("train", "digits", "--init", "a", "--net", "resnet8_cifar")
    assert (said.code, "--init: got a beside --net" in said.error) == (2, True)
    said = deepskip("train", "digits", "--init", "nowhere")
    assert (said.code, "nowhere: got no such file" in said.error) == (2, True)
    said = deepskip("train", "digits", "--init", "a", "--set", "freeze=stages.s9")
    assert "freeze: got 'stages.s9'; allowed: parts of the net: " in said.error


def test_a_recipe_in_a_file_is_what_is_trained(deepskip: Command) -> None:
    Path("mine.yaml").write_text("recipe: quick\nepochs: 2\nbatch: 240\nmixup: 0.2\nema: 0.9\n")
    said = deepskip(
        "train", "digits", "--net", "resnet8_cifar", "--recipe", "mine.yaml", "--lr", 0.05, "--out", "a"
    )
    assert said.code == 0, said.err
    recipe = json.loads(Path("a/config.json").read_text())["recipe"]
    assert (recipe["epochs"], recipe["mixup"], recipe["ema"], recipe["lr"]) == (2, 0.2, 0.9, 0.05)
    assert set(recipe) == set(ds.Recipe.model_fields)  # every setting that was resolved
    Path("mine.yaml").write_text("epoch: 2\n")
    said = deepskip("train", "digits", "--recipe", "mine.yaml")
    assert (said.code, said.error.endswith("nearest: epochs")) == (2, True)


def test_a_rate_is_searched_and_nothing_is_trained(deepskip: Command) -> None:
    said = deepskip("train", "digits", "--net", "resnet8_cifar", "--batch", 64, "--find-lr", "--json")
    assert said.code == 0, said.err
    assert 1e-3 < said.json["lr"] < 3
    rates = [row["rate"] for row in said.json["tried"]]
    assert rates == sorted(rates)
    assert min(row["loss"] for row in said.json["tried"]) < said.json["tried"][0]["loss"]
    assert not Path("runs").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_what_is_tracked(deepskip: Command) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    said = deepskip("train", "digits", "--net", "resnet8_cifar", "--epochs", 3, "--track", "--out", "a")
    assert said.code == 0, said.err
    events = EventAccumulator("a/tensorboard")
    events.Reload()
    rows = read_rows(Path("a/metrics.jsonl"))
    found = [point.value for point in events.Scalars("epoch/val_error")]
    assert found == pytest.approx([row["val_error"] for row in rows])
    assert [point.step for point in events.Scalars("step/loss")] == list(range(10, 37, 10))


def test_sizes_grow_over_the_epochs(deepskip: Command, photos: Callable[..., Path]) -> None:
    folder = photos()
    sizes = ("--set", "size=48", "--set", "sizes=24,48", "--set", "augment=photo", "--epochs", 2, "--batch", 12)
    said = deepskip("train", folder, "--net", "resnet8_cifar", *sizes, "--out", "a")
    assert said.code == 0, said.err
    assert ds.load("a").preprocessing.size == 48
    said = deepskip("train", "digits", "--net", "resnet8_cifar", "--set", "sizes=4,8")
    assert said.code == 2
    assert "size" in said.error


def _limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))


def test_a_full_disk_ends_the_run_in_one_line_and_loses_nothing(deepskip: Command) -> None:
    """A limit on the size of files stands for a disk without room: the system's answer is of the same kind."""
    command = [sys.executable, "-m", "deepskip", "train", "digits", *map(str, SMALL), "--out"]
    code = (
        "import signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "from deepskip.cli.app import main; sys.exit(main(sys.argv[1:]))"
    )
    full = [sys.executable, "-c", code, *command[3:], "a"]
    done = subprocess.run(full, capture_output=True, text=True, preexec_fn=_limit_files)
    assert done.returncode == 1, done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: a/")
    assert "allowed: a place that can be written, with room left" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(Path("a").rglob("*.part"))
    said = deepskip("train", "digits", *SMALL, "--out", "a", "--resume")  # with room again
    assert said.code == 0, said.err


def test_what_is_said_of_a_stopped_run_is_true_when_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C may be heard while an epoch's line is printed: the run is saved before its user is told so."""
    order = []

    def events() -> Generator[Event, None, None]:
        try:
            yield EpochEnded(1, 1.0, 1.0, 1.0, 1.0, 0.1, 1.0, 1.0)
        finally:
            order.append("saved")

    def note(output: Output, line: str) -> None:
        order.append(line.split()[0])
        if line.startswith("epoch"):
            raise KeyboardInterrupt

    monkeypatch.setattr(Output, "note", note)
    net = ds.build(ds.zoo.get("resnet8_cifar", input=(1, 8, 8)))
    quiet = Output(quiet=True)
    with pytest.raises(KeyboardInterrupt):
        train._train(events(), net, ds.data.open("digits"), Recipe(), Path("run"), False, quiet, first=True)
    assert order == ["epoch", "saved", "stopped;"]
