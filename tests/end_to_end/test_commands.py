"""Whole commands on real data, from input to files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.end_to_end.command import Command


def _hear_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell may have let us ignore it, and so our children


QUICK = ("--set", "batch=240", "--set", "lr=0.05")


def test_train_evaluate_predict_on_digits(deepskip: Command) -> None:
    said = deepskip(
        "train", "digits", "--net", "resnet8_cifar", "--epochs", 6, *QUICK, "--out", "run", "--json"
    )
    assert said.code == 0, said.err
    assert said.json["val_error"] < 15
    assert said.json["epoch"] == 6
    assert "epoch 6/6" in said.err
    report = Path("run/report.html").read_text()
    assert "resnet8_cifar" in report
    assert report.count("<svg") == 3

    found = deepskip("evaluate", "run", "digits", "--json").json
    assert found["error"] == said.json["val_error"]
    assert set(found) == {"error", "top5_error", "loss", "n", "classes", "calibration_error"}
    assert sum(row["n"] for row in found["classes"]) == found["n"] == 360
    table = deepskip("evaluate", "run/model.safetensors", "digits").out
    assert "most often taken for" in table

    _write_digits(Path("pictures"))
    predictions = deepskip("predict", "run", "pictures", "--json", "--top", 3).json
    right = sum(Path(p["file"]).stem.split("-")[0] == p["class"] for p in predictions)
    assert right >= 0.8 * len(predictions)
    assert all(len(p["top"]) == 3 and p["top"][0]["class"] == p["class"] for p in predictions)
    assert all(p["probability"] == p["top"][0]["probability"] for p in predictions)


def _write_digits(folder: Path) -> None:
    from PIL import Image

    import deepskip as ds

    folder.mkdir()
    val = ds.data.open("digits").val
    for i in range(40):
        Image.fromarray(val.images[i][..., 0]).save(folder / f"{int(val.labels[i])}-{i}.png")


def test_train_on_a_folder_of_photos(deepskip: Command, photos: Callable[..., Path]) -> None:
    folder = photos()
    said = deepskip(
        *(
            "train",
            folder,
            "--net",
            "resnet",
            "--depth",
            10,
            "--plain",
            "--epochs",
            3,
            "--out",
            "run",
            "--json",
        ),
        *("--set", "size=32", "--set", "batch=12", "--set", "lr=0.02"),
    )
    assert said.code == 0, said.err
    assert said.json["name"] == "plain10"
    assert said.json["val_error"] <= 40
    found = deepskip("evaluate", "run", folder, "--json")
    assert found.json["error"] == said.json["val_error"]
    assert [row["class"] for row in found.json["classes"]] == ["blue", "green", "red"]
    # predicting a file gives what evaluating the folder counts
    predictions = deepskip("predict", "run", folder / "val", "--json").json
    wrong = sum(Path(p["file"]).parent.name != p["class"] for p in predictions)
    assert 100 * wrong / len(predictions) == pytest.approx(found.json["error"])


def test_study_depth(deepskip: Command) -> None:
    args = ("study", "depth", "digits", "--depths", "8,14", "--seeds", 2, "--epochs", 2, "--out", "s")
    said = deepskip(*args, "--workers", 1, "--json")
    assert said.code == 0, said.err
    rows = [json.loads(line) for line in Path("s/results.jsonl").read_text().splitlines()]
    columns = "study kind depth seed params train_loss train_error val_error seconds status threads hash"
    assert all(set(row) == set(columns.split()) for row in rows)
    assert {(row["kind"], row["depth"], row["seed"]) for row in rows} == {
        (kind, depth, seed) for kind in ("plain", "residual") for depth in (8, 14) for seed in (0, 1)
    }
    assert {path.name for path in Path("s/cells").iterdir()} == {row["hash"] for row in rows}
    assert json.loads(Path("s/verdict.json").read_text()) == said.json["verdict"]
    assert {p.name for p in Path("s/figures").iterdir()} == {"training_curves.svg", "error_against_depth.svg"}
    assert _external(Path("s/report.html").read_text()) == []

    assert all((cell / "report.html").exists() for cell in Path("s/cells").iterdir())

    before = {path: path.stat().st_mtime_ns for path in Path("s/cells").rglob("*")}
    again = deepskip(*args)  # in two processes, had there been anything to do
    assert again.code == 0
    assert again.err.count("done before") == 8
    assert before == {path: path.stat().st_mtime_ns for path in Path("s/cells").rglob("*")}

    more = deepskip(*args[:6], 1, *args[7:], "--workers", 2)  # a subset of the cells: nothing to train either
    assert more.err.count("done before") == 4


def test_study_cells_are_the_same_in_other_processes(deepskip: Command) -> None:
    args = ("study", "depth", "digits", "--depths", "8", "--seeds", 1, "--epochs", 1)
    assert deepskip(*args, "--out", "here", "--workers", 1).code == 0
    assert deepskip(*args, "--out", "there", "--workers", 2).code == 0
    for line, other in zip(
        Path("here/results.jsonl").read_text().splitlines(),
        Path("there/results.jsonl").read_text().splitlines(),
        strict=True,
    ):
        one, two = json.loads(line), json.loads(other)
        assert {**one, "seconds": 0} == {**two, "seconds": 0}
        weights = [Path(f, "cells", one["hash"], "model.safetensors") for f in ("here", "there")]
        tensors = [_tensors(path) for path in weights]
        assert tensors[0] == tensors[1]


def _tensors(path: Path) -> dict[str, bytes]:
    from safetensors.torch import load_file

    return {name: tensor.numpy().tobytes() for name, tensor in load_file(path).items()}


def test_an_interrupted_study_goes_on(deepskip: Command) -> None:
    args = [sys.executable, "-m", "deepskip", "study", "depth", "digits", "--depths", "8,20"]
    args += ["--seeds", "1", "--epochs", "2", "--out", "s", "--workers", "2"]
    child = subprocess.Popen(args, stderr=subprocess.PIPE, text=True, preexec_fn=_hear_ctrl_c)
    assert child.stderr is not None
    for line in child.stderr:
        if line.lstrip().startswith("1/4"):
            break
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "Traceback" not in err
    done = len(Path("s/results.jsonl").read_text().splitlines())
    assert done >= 1
    assert f"stopped after {done} of 4; the same command goes on" in err
    again = deepskip(*args[3:-1], 1)
    assert again.code == 0
    assert again.err.count("done before") >= done
    assert len(Path("s/results.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_study_that_is_ended_leaves_no_worker_behind(how: signal.Signals) -> None:
    args = [sys.executable, "-m", "deepskip", "study", "depth", "digits", "--depths", "8,14", "--epochs", "500"]
    args += ["--out", "s", "--workers", "2"]
    child = subprocess.Popen(args, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(Path().glob("s/cells/*/metrics.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.1)
    child.send_signal(how)
    child.wait(timeout=60)
    while time.monotonic() < deadline:
        try:
            os.killpg(child.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.killpg(child.pid, signal.SIGKILL)
    pytest.fail("workers went on after their study had ended")


@pytest.mark.parametrize("after", [0.1, 1.5, 3.0])
def test_ctrl_c_in_a_terminal_is_quiet_at_any_moment(after: float) -> None:
    """A terminal sends it to the whole group, workers included, whatever they have got to."""
    args = [sys.executable, "-m", "deepskip", "study", "depth", "digits", "--depths", "20,56", "--out", "s"]
    child = subprocess.Popen(
        [*args, "--workers", "2"], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert child.stderr is not None
    if after > 1:
        child.stderr.readline()
    time.sleep(after)
    os.killpg(child.pid, signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert after < 1 or (child.returncode == 130 and "Traceback" not in err), err


def test_ctrl_c_leaves_a_usable_run_folder(deepskip: Command) -> None:
    args = ["train", "digits", "--net", "resnet20_cifar", "--epochs", "40", "--out", "run"]
    child = subprocess.Popen(
        [sys.executable, "-m", "deepskip", *args], stderr=subprocess.PIPE, text=True, preexec_fn=_hear_ctrl_c
    )
    assert child.stderr is not None
    for line in child.stderr:
        if "training on" in line:
            break
    time.sleep(0.3)  # in the middle of the first epoch, or a little later
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "goes on with --resume" in err
    assert "Traceback" not in err
    assert deepskip("evaluate", "run", "digits", "--json").json["n"] == 360
    assert "holds this run already" in deepskip(*args).error
    resumed = deepskip(*args[:3], "resnet20_cifar", *args[4:], "--resume", "--set", "max_steps=99")
    assert "holds another run (recipe.max_steps" in resumed.error


def test_what_can_be_refused_is_refused_before_anything_is_measured(deepskip: Command) -> None:
    long = ["train", "digits", "--net", "resnet20_cifar", "--epochs", "400", "--tune", "again"]
    Path("taken").mkdir()
    Path("taken/mine.txt").touch()
    for wrong in (["--out", "taken"], ["--set", "freeze=stom"], ["--precision", "fp16"], ["--set", "sizes=7"]):
        said = deepskip(*long, *wrong)
        assert said.code == 2
        assert "images/s" not in said.err, said.err


def test_resume_starts_when_there_is_nothing(deepskip: Command) -> None:
    args = ("train", "digits", "--net", "resnet8_cifar", "--epochs", 1, *QUICK, "--out", "run", "--resume")
    assert deepskip(*args).code == 0
    metrics = Path("run/metrics.jsonl").read_text()
    assert deepskip(*args).code == 0  # and a finished one is finished at once
    assert Path("run/metrics.jsonl").read_text() == metrics


def test_describe_and_nets(deepskip: Command) -> None:
    found = deepskip("describe", "resnet56_cifar", "--json").json
    assert {key: found[key] for key in ("name", "layers", "params", "macs", "input")} == {
        "name": "resnet56_cifar",
        "layers": 56,
        "params": 853018,
        "macs": 125485696,
        "input": [3, 32, 32],
    }
    text = deepskip("describe", "resnet_cifar", "--depth", 38, "--plain").out
    assert text.startswith("plain38_cifar: 38 layers")
    assert "one path" in text
    names = [row["name"] for row in deepskip("nets", "plain1*", "--json").json]
    assert names == ["plain14_cifar", "plain110_cifar", "plain18"]
    assert "resnet20_cifar" in deepskip("nets", "cifar").out


def test_module_and_version() -> None:
    run = subprocess.run([sys.executable, "-m", "deepskip", "--version"], capture_output=True, text=True)
    assert run.returncode == 0
    assert run.stdout.strip().count(".") == 2


def test_output_that_cannot_show_a_sign() -> None:
    env = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    args = [sys.executable, "-m", "deepskip", "describe", "resnet18"]
    assert subprocess.run(args, capture_output=True, env=env).returncode == 0
    assert (
        subprocess.run(f"{sys.executable} -m deepskip nets >&-", shell=True, capture_output=True).stderr == b""
    )


def test_a_closed_pipe_is_no_error() -> None:
    code = "import sys; from deepskip.cli.app import main; sys.exit(main(['nets']))"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    child.stdout.close()
    _, err = child.communicate()
    assert err == ""
    assert child.returncode == 128 + signal.SIGPIPE


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            loads = name in ("src", "srcset", "data", "poster") or (name == "href" and tag in ("link", "use"))
            if loads and value and not value.startswith(("#", "data:")):
                self.found.append(value)


def _external(page: str) -> list[str]:
    """Return what a page would load from elsewhere."""
    links = _Links()
    links.feed(page)
    return links.found
