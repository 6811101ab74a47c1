"""Which batches are replayed, and with what; a recording is played here by computing again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import deepskip as ds
from deepskip.data.batches import Batch, train_batches
from deepskip.data.variation import Variation
from deepskip.errors import InputError
from deepskip.training import tuning
from deepskip.training.memory import needed_bytes
from deepskip.training.recipe import Recipe
from deepskip.training.replay import WARM, Replayed
from deepskip.training.tuning import Timed, choose
from deepskip.training.way import Way

CPU = torch.device("cpu")


class Net:
    """One weight, whose gradient is the batch's mean picture times its mean label."""

    def __init__(self) -> None:
        self.weight = torch.nn.Parameter(torch.ones(2))
        self.calls: list[int] = []
        self.replayed = Replayed(self.compute, [self.weight], CPU)

    def compute(self, batch: Batch) -> None:
        self.calls.append(len(batch.images))
        self.weight.grad = batch.images.float().mean(0).flatten()[:2] * batch.labels.float().mean()

    def gradient(self, batch: Batch) -> Tensor:
        """Return what a step finds in the weight."""
        self.weight.grad = None
        self.replayed(batch)
        assert self.weight.grad is not None
        return self.weight.grad.clone()


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Net:
    """A net with a GPU that plays what it recorded into the tensors it recorded it in."""
    made = Net()
    on: list[torch.device] = []

    @contextlib.contextmanager
    def device(wanted: torch.device) -> Iterator[None]:
        on.append(wanted)
        yield
        on.remove(wanted)

    class Graph:
        def replay(self) -> None:
            replayed = made.replayed
            assert replayed._batch is not None
            made.weight.grad = None
            made.compute(replayed._batch)
            made.calls.pop()
            assert replayed._gradients[0] is not None
            assert made.weight.grad is not None
            replayed._gradients[0].copy_(made.weight.grad)
            made.weight.grad = None

    @contextlib.contextmanager
    def recording(graph: Graph, **given: Any) -> Iterator[None]:
        assert given == {"stream": "a stream of cpu", "capture_error_mode": "thread_local"}
        assert on == [CPU]
        yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "Stream", lambda place: f"a stream of {place}")
    return made


def batch(n: int, seed: int, **given: Any) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 1, 2, 2), dtype=torch.uint8, generator=generator)
    return Batch(images, torch.randint(1, 9, (n,), generator=generator), **{"total": n, **given})


def alone(given: Batch) -> Tensor:
    net = Net()
    net.compute(given)
    assert net.weight.grad is not None
    return net.weight.grad


def test_every_batch_has_its_own_gradient_and_the_fourth_of_a_shape_is_recorded(net: Net) -> None:
    sizes = [3, 8, 8, 8, 8, 8, 3, 8, 3, 3, 3, 3, 8]
    for seed, n in enumerate(sizes):
        assert torch.equal(net.gradient(batch(n, seed)), alone(batch(n, seed)))
    # Three as usual and one to record; those of the other size as usual whatever comes.
    assert net.calls == [3, 8, 8, 8, 8, 3, 3, 3, 3, 3]


def test_shares_that_differ_and_other_totals_are_not_replayed(net: Net) -> None:
    for seed in range(WARM + 1):
        net.gradient(batch(4, seed))
    before = len(net.calls)
    mixed = batch(4, 9, others=torch.zeros(4, dtype=torch.long), weight=0.3)
    for other in (mixed, batch(4, 9, total=8), batch(4, 9, copies=2)):
        net.gradient(other)
    assert len(net.calls) == before + 3
    net.gradient(batch(4, 10))
    assert len(net.calls) == before + 3


def test_what_cannot_be_recorded_is_computed(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def refusing(graph: Any, **given: Any) -> Iterator[None]:
        yield
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(torch.cuda, "graph", refusing)
    for seed in range(WARM + 4):
        assert torch.equal(net.gradient(batch(4, seed)), alone(batch(4, seed)))
    assert net.replayed.why == "operation not permitted when stream is capturing"
    assert len(net.calls) == WARM + 5  # tried once


def test_on_a_processor_nothing_is_replayed() -> None:
    data, recipe = ds.data.open("digits"), Recipe(epochs=1, batch=200, max_steps=6)
    nets = []
    for replay in (False, True):
        nets.append(ds.build(ds.zoo.get("resnet8_cifar", input=(1, 8, 8))))
        for _ in ds.fit(nets[-1], data, recipe, device="cpu", way=Way(threads=1, replay=replay)):
            pass
    for a, b in zip(nets[0].state_dict().values(), nets[1].state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_only_what_is_stored_is_replayed() -> None:
    with pytest.raises(InputError, match="replay: got True; allowed: false with memory recompute"):
        Way(memory="recompute", replay=True)
    way = Way(compile="whole", replay=True)
    assert way.keeping("store") == way
    assert way.keeping("reversible") == Way(memory="reversible")
    assert str(way) == "float32, channels last, compiled, replayed"
    spec = ds.zoo.get("resnet8_cifar")
    fixed = needed_bytes(spec, 0, Way())
    assert needed_bytes(spec, 8, way) - fixed == 2 * (needed_bytes(spec, 8, Way()) - fixed)


def test_a_gpus_ways_are_measured_compiled_and_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    def time_it(spec: ds.Spec, way: Way, images: int, device: torch.device) -> Timed:
        return Timed(way, 1.0 if way.replay else 2.0, 100.0 if way.compile == "whole" else 3.0)

    monkeypatch.setattr(tuning, "_time", time_it)
    monkeypatch.setattr(tuning, "has_bf16", lambda device: True)
    monkeypatch.setattr(tuning, "free_bytes", lambda device: 2**36)
    monkeypatch.setattr(tuning, "kept_for", lambda *given: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    spec, gpu = ds.zoo.get("resnet8_cifar"), torch.device("cuda")
    found = choose(spec, Recipe(), 2000, gpu)
    assert {(t.way.compile, t.way.replay) for t in found.timed} == {
        ("none", False),
        ("none", True),
        ("whole", False),
        ("whole", True),
    }
    assert (found.way.compile, found.way.replay) == ("none", True)
    assert {t.way.replay for t in choose(spec, Recipe(), 2000, gpu, memory="recompute").timed} == {False}


def test_batches_for_a_gpu_are_the_same_in_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[int] = []

    def pin(tensor: Tensor) -> Tensor:
        pinned.append(tensor.data_ptr())
        return tensor.clone()

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    data = ds.data.open("digits")
    variation = Variation(augment="crop_flip", mixup=0.4)
    given = (data.train, data.preprocessing, variation, 300, 0, 0)
    for a, b in zip(train_batches(*given), train_batches(*given, gpu=True), strict=True):
        assert torch.equal(a.images, b.images)
        assert a.images.stride() == b.images.stride()
        assert torch.equal(a.labels, b.labels)
        assert a.others is not None
        assert b.others is not None
        assert torch.equal(a.others, b.others)
        assert a.weight == b.weight
    assert len(pinned) == 3 * 5
