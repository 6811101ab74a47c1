"""Several processes on one machine, started by PyTorch's own `torchrun`: as one, but for rounding."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

import deepskip as ds
from deepskip.training.recipe import Recipe
from deepskip.training.rundir import read_rows
from tests.end_to_end.command import Command
from tests.laws.test_resume import assert_equal, kill

TRAIN = ["train", "digits", "--net", "resnet8_cifar", "--precision", "float32"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]  # a free port


def environment() -> dict[str, str]:
    path = str(Path(ds.__file__).parents[1])
    return {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": path}


def largest_difference(one: str, other: str) -> float:
    a, b = (load_file(f"{name}/model.safetensors") for name in (one, other))
    assert set(a) == set(b)
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


def in_double(out: str) -> None:
    recipe = Recipe(epochs=2, max_steps=20, batch=120, lr=0.05, sync_norm=True, weight_decay=1e-3)
    net = ds.build(ds.zoo.get("resnet8_cifar", input=(1, 8, 8)), dtype=torch.float64)
    for _ in ds.fit(net, ds.data.open("digits"), recipe, out=out):
        pass


def with_everything(out: str) -> None:
    """Train with a last batch too small to be shared, parts, mixing and an average."""
    recipe = Recipe(
        epochs=2, max_steps=14, batch=119, accumulate=2, ema=0.9, mixup=0.2, erase=0.3, sync_norm=False
    )
    net = ds.build(ds.zoo.get("resnet8_cifar", input=(1, 8, 8)))
    for _ in ds.fit(net, ds.data.open("digits"), recipe, out=out, precision="float32"):
        pass


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where two processes have trained, in double and with everything."""
    folder = tmp_path_factory.mktemp("two")
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
    code += "from tests.end_to_end.test_torchrun import in_double, with_everything\n"
    (folder / "both.py").write_text(code + "in_double('double')\nwith_everything('everything')\n")
    done = subprocess.run(
        [*TORCHRUN, "both.py"], cwd=folder, capture_output=True, text=True, env=environment(), timeout=240
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_two_processes_end_as_one_does(two: Path) -> None:
    """20 steps at the same batch, with synchronised normalisers, in float64: the same weights.

    Float32 differs by rounding from the first step on (2e-7), and a ReLU that flips makes that 1e-5 to 1e-3
    after 20 steps; float64 leaves no room for a mistake to hide in.
    """
    in_double("lone")
    assert largest_difference("lone", str(two / "double")) < 1e-10
    one, both = (read_rows(path / "metrics.jsonl") for path in (Path("lone"), two / "double"))
    for row, other in zip(one, both, strict=True):
        for key in ("train_loss", "train_error", "val_loss", "val_error"):
            assert other[key] == pytest.approx(row[key], rel=1e-9), key


def test_one_process_speaks_for_all_and_float32_differs_by_rounding(deepskip: Command) -> None:
    options = [
        "--batch",
        "120",
        "--set",
        "max_steps=2",
        "--set",
        "sync_norm=true",
        "--epochs",
        "1",
        "--lr",
        "0.005",
    ]
    lone = deepskip(*TRAIN, *options, "--out", "lone")
    assert lone.code == 0, lone.err
    words = ["-m", "deepskip", *TRAIN, *options, "--out", "two", "--json"]
    two = subprocess.run([*TORCHRUN, *words], capture_output=True, text=True, env=environment(), timeout=120)
    assert two.returncode == 0, two.stderr
    assert largest_difference("lone", "two") < 1e-5
    assert json.loads(two.stdout)["out"] == "two"
    assert two.stderr.count("training on digits") == 1
    assert "cpu × 2" in two.stderr


def test_without_synchronised_normalisers_and_with_everything_else(two: Path) -> None:
    """Every image is scored once."""
    found = ds.load(two / "everything").evaluate("digits")
    assert found.n == 360
    rows = read_rows(two / "everything" / "metrics.jsonl")
    assert found.error == pytest.approx(rows[-1]["val_error"], abs=1e-9)


def _ranks(parent: subprocess.Popen[str]) -> list[psutil.Process]:
    children = psutil.Process(parent.pid).children(recursive=True)
    return [child for child in children if "train" in child.cmdline()]


def _start(*args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*TORCHRUN, "-m", "deepskip", *TRAIN, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )


def _wait_for(path: str, seconds: float = 120) -> None:
    limit = time.monotonic() + seconds
    while not list(Path().glob(path)):
        assert time.monotonic() < limit, f"{path} never came"
        time.sleep(0.05)


def test_a_dead_process_ends_the_run_in_words_and_one_goes_on(deepskip: Command) -> None:
    options = ["--batch", "120", "--epochs", "200", "--out", "run"]
    started = _start(*options)
    _wait_for("run/metrics.jsonl")
    limit = time.monotonic() + 60
    while len(read_rows(Path("run/metrics.jsonl"))) < 2:
        assert time.monotonic() < limit
        time.sleep(0.05)
    victim = next(p for p in _ranks(started) if p.environ().get("RANK") == "1")
    victim.send_signal(signal.SIGKILL)
    _, said = started.communicate(timeout=120)
    assert started.returncode != 0
    assert "error: torchrun, step" in said or "SIGKILL" in said or "Signal 9" in said
    assert "got no answer from another process" in said or "interrupted" in said
    # Two processes' run, gone on with by one.
    on = deepskip(*TRAIN, *options, "--resume", "--set", "max_steps=100000")
    assert "holds another run" in on.error  # another recipe is another run
    before = len(read_rows(Path("run/metrics.jsonl")))
    ended = subprocess.Popen(
        [sys.executable, "-m", "deepskip", *TRAIN, *options, "--resume"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    limit = time.monotonic() + 60
    while len(read_rows(Path("run/metrics.jsonl"))) < before + 1:
        assert time.monotonic() < limit, ended.poll()
        time.sleep(0.05)
    ended.send_signal(signal.SIGINT)
    ended.communicate(timeout=60)
    assert ended.returncode == 130


def test_two_processes_killed_at_random_moments_end_bit_for_bit() -> None:
    kill(8, Recipe(epochs=2, max_steps=20, batch=120, ema=0.9, mixup=0.2), ranks=2)
    assert_equal(Path("whole"), Path("run"))


def test_more_processes_than_gpus_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from deepskip.errors import InputError
    from deepskip.training import distributed

    for name, value in zip(distributed.LAUNCHED, ("1", "2", "127.0.0.1", "1"), strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match="torchrun --nproc-per-node: got .* for 1 GPUs"):
        distributed.own_device(torch.device("cuda"))
    assert distributed.own_device(torch.device("cpu")) == torch.device("cpu")
