"""Several processes on one machine, started by PyTorch's own `torchrun`: as one, but for rounding."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from deepskip.training.rundir import read_rows

LONE = [sys.executable, "-m", "deepskip", "train", "digits", "--net", "resnet8_cifar", "--precision", "float32"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
FEW = ["--batch", "120", "--set", "max_steps=20", "--epochs", "2"]


def run(*args: str, ranks: int = 1) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*args, ranks=ranks), capture_output=True, text=True, env=environment(), timeout=120
    )


def command(*args: str, ranks: int = 1) -> list[str]:
    start = [*TORCHRUN, *LONE[1:]] if ranks > 1 else LONE  # "standalone": on a port that is free
    return [*start, *args]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def largest_difference(one: str, other: str) -> float:
    a, b = (load_file(f"{name}/model.safetensors") for name in (one, other))
    assert set(a) == set(b)
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


IN_DOUBLE = """
import sys, torch, deepskip as ds
from deepskip.training.recipe import Recipe
recipe = Recipe(epochs=2, max_steps=20, batch=120, lr=0.05, sync_norm=True, weight_decay=1e-3)
net = ds.build(ds.zoo.get("resnet8_cifar", input=(1, 8, 8)), dtype=torch.float64)
for event in ds.fit(net, ds.data.open("digits"), recipe, out=sys.argv[1]):
    pass
"""


def test_two_processes_end_as_one_does() -> None:
    """20 steps at the same batch, with synchronised normalisers, in float64: the same weights.

    Float32 differs by rounding from the first step on (2e-7), and a ReLU that flips makes that 1e-5 to 1e-3
    after 20 steps; float64 leaves no room for a mistake to hide in.
    """
    Path("double.py").write_text(IN_DOUBLE)
    lone = subprocess.run(
        [sys.executable, "double.py", "lone"], capture_output=True, text=True, env=environment()
    )
    assert lone.returncode == 0, lone.stderr
    two = subprocess.run(
        [*TORCHRUN, "double.py", "two"], capture_output=True, text=True, env=environment(), timeout=120
    )
    assert two.returncode == 0, two.stderr
    assert largest_difference("lone", "two") < 1e-10
    one, both = (read_rows(Path(name, "metrics.jsonl")) for name in ("lone", "two"))
    for row, other in zip(one, both, strict=True):
        for key in ("train_loss", "train_error", "val_loss", "val_error"):
            assert other[key] == pytest.approx(row[key], rel=1e-9), key


def test_one_process_speaks_for_all_and_float32_differs_by_rounding() -> None:
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
    lone, two = run(*options, "--out", "lone"), run(*options, "--out", "two", "--json", ranks=2)
    assert lone.returncode == 0, lone.stderr
    assert two.returncode == 0, two.stderr
    assert largest_difference("lone", "two") < 1e-5
    assert json.loads(two.stdout)["out"] == "two"
    assert two.stderr.count("training on digits") == 1
    assert "cpu × 2" in two.stderr


def test_without_synchronised_normalisers_and_with_everything_else() -> None:
    """A last batch too small to be shared, parts, mixing, an average; every image is scored once."""
    options = ["batch=119", "accumulate=2", "ema=0.9", "mixup=0.2", "erase=0.3", "max_steps=14"]
    settings = [word for option in options for word in ("--set", option)]
    done = run(*settings, "--epochs", "2", "--out", "two", ranks=2)
    assert done.returncode == 0, done.stderr
    evaluated = subprocess.run(
        [*LONE[:3], "evaluate", "two", "digits", "--json"], capture_output=True, text=True, env=environment()
    )
    found = json.loads(evaluated.stdout)
    assert found["n"] == 360
    assert found["error"] == pytest.approx(read_rows(Path("two/metrics.jsonl"))[-1]["val_error"], abs=1e-9)


def _ranks(parent: subprocess.Popen[str]) -> list[psutil.Process]:
    children = psutil.Process(parent.pid).children(recursive=True)
    return [child for child in children if "train" in child.cmdline()]


def _start(*args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*args, ranks=2),
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


def test_a_dead_process_ends_the_run_in_words_and_one_goes_on() -> None:
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
    on = run("--batch", "120", "--epochs", "200", "--out", "run", "--resume", "--set", "max_steps=100000")
    assert "holds another run" in on.stderr  # another recipe is another run
    alone = subprocess.Popen(
        command(*options, "--resume"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    before = len(read_rows(Path("run/metrics.jsonl")))
    limit = time.monotonic() + 60
    while len(read_rows(Path("run/metrics.jsonl"))) < before + 1:
        assert time.monotonic() < limit, alone.poll()
        time.sleep(0.05)
    alone.send_signal(signal.SIGINT)
    alone.communicate(timeout=60)
    assert alone.returncode == 130


def test_two_processes_killed_at_random_moments_end_bit_for_bit() -> None:
    options = [*FEW, "--set", "ema=0.9", "--set", "mixup=0.2"]
    whole = run(*options, "--out", "whole", ranks=2)
    assert whole.returncode == 0, whole.stderr
    moments = random.Random(0)
    for attempt in range(12):
        started = _start(*options, "--out", "run", "--resume")
        if attempt < 4:
            limit = time.monotonic() + 60
            while not Path("run/config.json").exists() and time.monotonic() < limit:
                time.sleep(0.02)
            time.sleep(moments.uniform(0, 1.0))
            for process in _ranks(started):
                process.send_signal(signal.SIGKILL)
        _, said = started.communicate(timeout=120)
        if started.returncode == 0:
            break
    assert started.returncode == 0, said
    a, b = (load_file(f"{name}/model.safetensors") for name in ("whole", "run"))
    assert all(torch.equal(a[name], b[name]) for name in a)


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
