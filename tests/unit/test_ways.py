"""Every way to run a net gives the net's answers, whatever the batch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import deepskip as ds
from deepskip.data.batches import normalise
from deepskip.deploy.choosing import EXACT, compare
from deepskip.deploy.engines import TorchRunner
from deepskip.deploy.ways import WAYS, Source, named, unnamed
from deepskip.describe.spec import Spec
from deepskip.errors import InputError, WorkError
from deepskip.model import Model
from tests.laws.strategies import scrambled

CPU = torch.device("cpu")
TOLERANCE = {"float32": EXACT, "bf16": 0.05, "int8": 0.2}


def small() -> Spec:
    """A net of two blocks, one of which changes dimensions: compiled in a few seconds."""
    spec = ds.zoo.get("resnet8_cifar", input=(3, 16, 16))
    return spec.replace(stages=spec.stages[:2])


@pytest.fixture(scope="module")
def model() -> Model:
    made = unnamed(small())
    scrambled(made.net)
    return made


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def source(model: Model, pixels: np.ndarray) -> Source:
    return Source(model, pixels)


def logits(model: Model, pixels: np.ndarray) -> np.ndarray:
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    with torch.no_grad():
        return model.net(normalise(images, model.preprocessing)).numpy()


@pytest.mark.parametrize("way", [way.name for way in WAYS])
def test_a_way_gives_the_nets_logits(source: Source, pixels: np.ndarray, way: str) -> None:
    if (lack := named(way).lacking(CPU)) is not None:
        pytest.skip(lack)
    wanted = logits(source.model, pixels)
    runner = named(way).make(source, batch=4, threads=2)
    for n in (4, 1, 3):
        found = runner(pixels[:n])
        assert found.dtype == np.float32
        assert found.shape == (n, 10)
        agreement = compare(wanted[:n], found)
        assert agreement.difference < TOLERANCE[named(way).numbers], way
        if named(way).numbers == "float32":
            assert agreement.same == n
    strange = np.flip(pixels, 2)[1:4]
    strange.flags.writeable = False
    assert (
        compare(logits(source.model, np.flip(pixels, 2)[1:4].copy()), runner(strange)).difference
        < TOLERANCE[named(way).numbers]
    )
    kept = runner(pixels[:2])
    before = kept.copy()
    runner(pixels[2:4])
    assert np.array_equal(kept, before)  # an array of its own
    runner.close()


INTERRUPTED = """
import gc, signal
import deepskip as ds
from deepskip.deploy.engines import TorchRunner
from deepskip.deploy.ways import Source, named, unnamed
source = Source(unnamed(ds.zoo.get("resnet8_cifar", input=(3, 16, 16))))
runners = [named("openvino").make(source, batch=2, threads=1) for _ in range(2)]
while runners:
    runners.pop(0).close()
    gc.collect()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_is_heard_when_runners_ended_in_the_order_they_began_in() -> None:
    """Each core of OpenVINO puts back the stack for signals that it found, be it gone meanwhile."""
    env = {**os.environ, "PYTHONPATH": str(Path(ds.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], env=env, capture_output=True, text=True)
    assert done.stdout == "interrupted\n", (done.returncode, done.stderr)


def test_the_net_is_left_as_it_was(model: Model, pixels: np.ndarray) -> None:
    before = {name: (tensor.clone(), tensor.stride()) for name, tensor in model.net.state_dict().items()}
    model.net.train()
    for way in ("eager", "channels-last", "bf16"):
        named(way).make(model, batch=2)(pixels[:2])
    assert model.net.training
    model.net.eval()
    for name, tensor in model.net.state_dict().items():
        assert torch.equal(tensor, before[name][0])
        assert tensor.stride() == before[name][1]


def test_threads_are_those_of_a_call_and_of_nobody_else(pixels: np.ndarray) -> None:
    seen: list[int] = []

    def count(images: torch.Tensor) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        if len(seen) == 2:
            raise ZeroDivisionError
        return torch.zeros(len(images), 10)

    runner = TorchRunner(count, device=CPU, threads=3)
    runner(pixels)
    with pytest.raises(ZeroDivisionError):
        runner(pixels)
    assert seen == [3, 3]
    assert torch.get_num_threads() == 1


def test_what_cannot_be_run_says_why(model: Model, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="--way: got 'openvin'; allowed: eager, .* nearest: openvino"):
        named("openvin")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(WorkError, match=r"way inductor: got no C\+\+ compiler"):
        named("inductor").make(model, batch=1)
    monkeypatch.setattr("deepskip.deploy.ways.has", lambda package: package != "openvino")
    with pytest.raises(WorkError, match=r'way openvino: got no openvino \(pip install "deepskip\[export\]"\)'):
        named("openvino").make(model, batch=1)
    monkeypatch.setattr("deepskip.deploy.ways.has_bf16", lambda device: False)
    assert named("bf16").lacking(CPU) == "no bf16 in hardware"
    assert named("openvino").lacking(torch.device("cuda")) == "a net on cuda"
