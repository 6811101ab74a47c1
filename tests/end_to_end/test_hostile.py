"""Wrong input: one line (where, what, what is allowed, what is near), the right exit code, nothing lost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.command import Command


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (
            ("train", "digits", "--net", "resnet_cifar", "--depth", 57),
            "--depth: got 57; allowed: 6n + 2; nearest: 56 or 62",
        ),
        (("train", "digits", "--net", "rsnet20_cifar"), "--net: got 'rsnet20_cifar'; allowed: "),
        (("train", "digits", "--net", "rsnet20_cifar"), "nearest: resnet20_cifar"),
        (("train", "digits", "--net", "resnet_cifar"), "net 'resnet_cifar': got no depth"),
        (("train", "digits", "--set", "lrr=1"), "--set: got unknown key 'lrr'; allowed: epochs, max_steps, "),
        (("train", "digits", "--set", "lrr=1"), "nearest: lr"),
        (("train", "digits", "--set", "lr"), "--set: got 'lr'; allowed: KEY=VALUE"),
        (("train", "digits", "--set", "lr=fast"), "--set lr: got 'fast'; allowed: a number"),
        (("train", "digits", "--set", "schedule=cosin"), "nearest: cosine"),
        (("train", "digits", "--set", "size=abc"), "--set size: got 'abc'; allowed: a whole number"),
        (("train", "digits", "--set=trivial=perhaps"), "--set trivial: got 'perhaps'; allowed: true or false"),
        (("train", "digits", "--epochs", 0), "--epochs: got 0; allowed: greater than or equal to 1"),
        (("train", "digits", "--lr=-1"), "--lr: got -1.0; allowed: greater than 0"),
        (("train", "digits", "--seed", "-1"), "--seed: got -1; allowed: a whole number from 0; nearest: 0"),
        (("inspect", "nowhere", "digits", "--seed=-7"), "--seed: got -7; allowed: a whole number from 0"),
        (("import", "a.pth", "--net", "resnet18", "--out", "b", "--seed", "-1"), "--seed: got -1"),
        (("train", "digits", "--epochs", "many"), "--epochs: got 'many'; allowed: a whole number"),
        (("train", "digits", "--seed", "1.5"), "--seed: got '1.5'; allowed: a whole number"),
        (("train", "digits", "--device", "cuda:99"), "--device: got 'cuda:99'"),
        (
            ("study", "depth", "digits", "--net", "plain_cifar"),
            "--net: got 'plain_cifar'; allowed: a residual family",
        ),
        (("train", "digits", "--recipe", "quik"), "--recipe: got 'quik'; allowed: quick"),
        (("train", "digits", "--device", "tpu"), "--device: got 'tpu'"),
        (("train", "digits", "--precision", "fp8"), "--precision: got 'fp8'; allowed: auto, float32, bf16"),
        (("train", "digits", "--ecpohs", 3), "nearest: --epochs"),
        (("train", "digit"), "nearest: digits"),
        (("train", "nowhere/at/all"), "neither a built-in name nor a folder"),
        (("train",), "deepskip train DATA: got nothing"),
        (
            ("trian", "digits"),
            "got unknown command 'trian'; allowed: nets, describe, doctor, train, evaluate, predict, inspect",
        ),
        (("study", "depht", "digits"), "nearest: depth"),
        (
            ("study", "depth", "digits", "--depths", "8,x"),
            "--depths: got '8,x'; allowed: whole numbers separated by commas",
        ),
        (("study", "depth", "digits", "--depths", "8,57"), "depth: got 57"),
        (("study", "depth", "digits", "--seeds", 0), "--seeds: got 0"),
        (("study", "depth", "digits", "--workers", 0), "--workers: got 0"),
        (
            ("evaluate", "nowhere", "digits"),
            "nowhere: got no such file or folder; allowed: a run folder or a model.safetensors",
        ),
        (("predict", "nowhere", "a.png"), "nowhere: got no such file"),
        (("describe", "nowhere/model.safetensors"), "no such file or folder"),
        (("describe", "resnet18", "--batch", 0), "--batch: got 0"),
        (("nets", "densenet"), "PATTERN: got 'densenet'"),
        (
            ("train", "digits", "--memory", "revers"),
            "--memory: got 'revers'; allowed: auto, store, recompute, reversible; nearest: reversible",
        ),
        (("train", "digits", "--tune", "agian"), "nearest: again"),
    ],
)
def test_wrong_words(deepskip: Command, args: tuple[object, ...], says: str) -> None:
    said = deepskip(*args)
    assert said.code == 2
    assert says in said.error
    assert not Path("runs").exists()


def test_a_model_that_is_not_there_has_a_near_one(deepskip: Command) -> None:
    for file in ("runs/r56/model.safetensors", "runs/other/model.safetensors", "net.safetensors"):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_bytes(b"")
    Path("runs/r57").mkdir()  # no model in it
    Path("r.txt").write_text("")
    for model, near in (
        ("runs/r65", "runs/r56"),
        ("run/r56", "runs/r56"),
        ("net.safetensor", "net.safetensors"),
        ("runs/r56/model.safetensor", "runs/r56/model.safetensors"),
        ("runs/r57", "runs/r56"),
        ("runs", "runs/other"),
    ):
        for command in (("evaluate", model, "digits"), ("predict", model, "a.png")):
            said = deepskip(*command)
            assert said.code == 2
            assert said.error.startswith(f"{model}: got ")
            assert said.error.endswith(f"; nearest: {near}")
    assert deepskip("describe", "runs/r65").error.endswith("; nearest: runs/r56")
    assert "nearest" not in deepskip("evaluate", "zzz", "digits").error


def test_no_gpu_is_said_where_there_is_none(deepskip: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for wanted in ("cuda", "cuda:1"):
        said = deepskip("train", "digits", "--device", wanted)
        assert said.code == 2
        assert (
            said.error
            == f"--device: got '{wanted}', and PyTorch finds no GPU here; allowed: auto, cpu; nearest: cpu"
        )
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    said = deepskip("train", "digits", "--device", "cuda:2")
    assert said.error.startswith(
        "--device: got 'cuda:2', and PyTorch finds 2 GPUs here; allowed: auto, cpu, cuda"
    )


def test_a_model_measured_on_other_classes(deepskip: Command, photos: Callable[..., Path]) -> None:
    base = ("--net", "resnet", "--depth", 10, "--epochs", 1, "--set", "size=32", "--out", "run")
    assert deepskip("train", photos(), *base).code == 0
    other = photos("others", ("cat", "dog"))
    said = deepskip("evaluate", "run", other)
    assert said.code == 2
    assert said.error.startswith(f"{other}/val: got unknown class 'cat'; allowed: blue, green, red")
    assert (
        "digits: got unknown class '0'; allowed: blue, green, red"
        in deepskip("evaluate", "run", "digits").error
    )
    for split in ("train", "val"):  # what it measures on is enough
        for label, name in (("cat", "blue"), ("dog", "red")):
            if split == "val":
                (other / split / label).rename(other / split / name)
    assert deepskip("evaluate", "run", other).code == 0


def test_an_empty_class(deepskip: Command, photos: Callable[..., Path]) -> None:
    folder = photos()
    for file in (folder / "train" / "red").iterdir():
        file.unlink()
    said = deepskip("train", folder)
    assert said.code == 2
    assert "train/red: got no image file" in said.error


def test_a_val_class_unknown_to_train(deepskip: Command, photos: Callable[..., Path]) -> None:
    folder = photos()
    (folder / "val" / "red").rename(folder / "val" / "rot")
    said = deepskip("train", folder)
    assert said.code == 2
    assert "got unknown class 'rot'; allowed: blue, green, red" in said.error


def test_broken_images_are_named_counted_and_left_out(deepskip: Command, photos: Callable[..., Path]) -> None:
    folder = photos()
    cut = folder / "train" / "red" / "00.jpg"
    cut.write_bytes(cut.read_bytes()[:300])
    (folder / "val" / "blue" / "notes.jpg").write_text("these are not pixels")
    said = deepskip(
        *("train", folder, "--net", "resnet", "--depth", 10, "--epochs", 1, "--out", "run"),
        *("--set", "size=32", "--set", "batch=12"),
    )
    assert said.code == 0, said.err
    warnings = [line for line in said.err.splitlines() if line.startswith("warning: ")]
    assert any(line.startswith("warning: train: red/00.jpg") for line in warnings)
    assert any(line.startswith("warning: val: blue/notes.jpg") for line in warnings)
    assert warnings[-1] == "warning: 2 of 49 files are broken and left out"
    some = deepskip("predict", "run", folder / "val" / "blue", "--json")
    assert len(some.json) == 4
    assert "notes.jpg" in some.err
    assert "none of them readable" in deepskip("predict", "run", folder / "val" / "blue" / "notes.jpg").error


def test_a_val_class_without_a_readable_image_is_measured_on_nothing(deepskip: Command, photos) -> None:
    folder = photos()
    for file in (folder / "val" / "red").iterdir():
        file.write_text("no pixels")
    base = ("train", folder, "--net", "resnet", "--depth", 10, "--epochs", 1, "--set", "size=32")
    assert deepskip(*base, "--out", "run").code == 0
    found = deepskip("evaluate", "run", folder, "--json")
    assert [row["error"] is None for row in found.json["classes"]] == [False, False, True]


def test_names_with_brackets_are_names(deepskip: Command, photos) -> None:
    folder = photos("pictures", ("[b]lue", "gr[/b]een"))
    base = ("train", folder, "--net", "resnet", "--depth", 10, "--epochs", 1, "--set", "size=32")
    assert deepskip(*base, "--out", "run").code == 0
    (folder / "val" / "[b]lue" / "00.jpg").rename(folder / "cat[a].jpg")
    long = folder / ("x" * 200 + ".jpg")
    (folder / "val" / "[b]lue" / "01.jpg").rename(long)
    said = deepskip("predict", "run", folder / "cat[a].jpg", long)
    assert said.code == 0
    assert "cat[a].jpg" in said.out
    assert str(long) in said.out
    assert "[b]lue" in deepskip("evaluate", "run", folder).out


def test_a_folder_that_holds_another_run(deepskip: Command) -> None:
    base = ("train", "digits", "--net", "resnet8_cifar", "--epochs", 1, "--set", "batch=500", "--out", "run")
    assert deepskip(*base).code == 0
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    for extra in ((), ("--lr", 0.5), ("--seed", 1, "--resume"), ("--plain", "--resume")):
        said = deepskip(*base, *extra)
        assert said.code == 2
        assert said.error.startswith("run: got a folder that holds ")
    assert "a folder with other files in it" in deepskip("study", "depth", "digits", "--out", "run").error
    Path("mine").mkdir()
    Path("mine/results.jsonl").write_text("precious")
    assert "a folder with other files in it" in deepskip("study", "depth", "digits", "--out", "mine").error
    assert Path("mine/results.jsonl").read_text() == "precious"
    assert before == {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}


def test_a_model_of_other_classes(deepskip: Command, photos: Callable[..., Path]) -> None:
    base = ("train", photos(), "--net", "resnet", "--depth", 10, "--epochs", 1, "--set", "size=32")
    assert deepskip(*base, "--out", "run").code == 0
    said = deepskip("evaluate", "run", photos("other", ("blue", "grene")))
    assert said.code == 2
    assert "unknown class 'grene'; allowed: blue, green, red; nearest: green" in said.error
    assert deepskip("evaluate", "run", "digits").code == 2


_FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from deepskip.cli.app import main
import deepskip.training.engine
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
sys.exit(main(sys.argv[1:]))
"""


def test_a_disk_that_fills_up(deepskip: Command) -> None:
    """A file may grow to 200 kB: the model does not fit. The command says so and leaves no half file."""
    args = [
        "train",
        "digits",
        "--net",
        "resnet20_cifar",
        "--epochs",
        "1",
        "--out",
        "run",
        "--set",
        "max_steps=1",
    ]
    done = subprocess.run([sys.executable, "-c", _FULL, *args], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: run/model.safetensors: got ")
    assert "too large" in last
    assert sorted(path.name for path in Path("run").rglob("*")) == [
        *("config.json", "environment.json", "flow.jsonl", "lock", "metrics.jsonl", "state"),
    ]
    assert deepskip(*args, "--resume").code == 0  # and it goes on once there is room


def test_divergence_is_said_in_a_line(deepskip: Command) -> None:
    said = deepskip(
        *("train", "digits", "--net", "plain20_cifar", "--epochs", 3, "--out", "run"),
        *("--set", "lr=1e30", "--set", "warmup=0"),
    )
    assert said.code == 1
    assert "a loss of" in said.error
    assert "nearest: --lr" in said.error
    one_step = (
        *("train", "digits", "--net", "resnet8_cifar", "--out", "one", "--set", "lr=1e38"),
        "--set",
        "max_steps=1",
    )
    assert "not finite" in deepskip(*one_step).error


def test_a_study_goes_on_past_a_diverged_cell(deepskip: Command) -> None:
    said = deepskip(
        *(
            "study",
            "depth",
            "digits",
            "--depths",
            "8",
            "--seeds",
            1,
            "--epochs",
            1,
            "--workers",
            1,
            "--out",
            "s",
        ),
        *("--set", "lr=1e30", "--set", "warmup=0", "--set", "hold_lr=1e30", "--json"),
    )
    assert said.code == 0
    assert [row["status"] for row in said.json["rows"]] == ["diverged", "diverged"]
    assert all(row["train_error"] is None for row in said.json["rows"])
    assert said.json["verdict"]["pays"] is None
    assert Path("s/report.html").exists()


def test_a_drawing_overwrites_nothing_unasked(deepskip: Command) -> None:
    Path("kept.svg").write_text("mine")
    said = deepskip("describe", "resnet8_cifar", "--draw", "kept.svg")
    assert (said.code, "a file that is there already" in said.error) == (2, True)
    assert Path("kept.svg").read_text() == "mine"
    assert deepskip("describe", "resnet8_cifar", "--draw", "kept.svg", "--force").code == 0
    assert Path("kept.svg").read_text().startswith("<?xml")
    for place, says in ((".", "no file name"), ("kept.svg/in.svg", "which is a file"), ("", "no file name")):
        said = deepskip("describe", "resnet8_cifar", "--draw", place)
        assert (said.code, says in said.error) == (2, True), said.err


def test_a_depth_between_two_rules_gets_the_nearest_of_both(deepskip: Command) -> None:
    said = deepskip("describe", "preresnet_cifar", "--depth", 1000)
    assert said.error.endswith("allowed: 6n + 2, or 9n + 2 from 164 on (bottlenecks); nearest: 998 or 1001")
