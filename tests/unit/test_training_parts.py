"""The parts of a training step, each against its definition."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import signal
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import deepskip as ds
from deepskip.data.batches import Batch
from deepskip.data.dataset import Dataset, Split, UniformImages
from deepskip.errors import InputError
from deepskip.scoring import predict_logits
from deepskip.training import finder, memory, stepper
from deepskip.training.average import Average
from deepskip.training.diagnosis import NotFinite, diagnose
from deepskip.training.distributed import World
from deepskip.training.events import Stepped
from deepskip.training.frozen import Frozen
from deepskip.training.objective import class_weights, summed_loss, wrong
from deepskip.training.optimiser import make_optimiser
from deepskip.training.precision import without_denormals
from deepskip.training.recipe import Recipe
from deepskip.training.stepper import READ_EVERY, Stepper
from deepskip.training.validation import score_together
from deepskip.training.way import Way

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0], [1.0, -2.0, 0.0]])
LABELS, OTHERS = torch.tensor([0, 1, 2]), torch.tensor([2, 0, 1])
PIXELS = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)


def batch_of(n: int = 6, seed: int = 0, **fields: object) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, (n,), generator=generator)
    return Batch(images, labels, **{"total": n, **fields})  # type: ignore[arg-type]


def net_of(**fields: object) -> ds.Network:
    return ds.build(ds.zoo.get("resnet8_cifar", input=(1, 8, 8)).replace(**fields))


def stepper_of(net: ds.Network, recipe: Recipe, weights: Tensor | None = None) -> Stepper:
    prepared = ds.Preprocessing(size=8, resize=8, colour="L", mean=(0.5,), std=(0.5,))
    return Stepper(net.train(), prepared, recipe, Way(), World(), seed=0, weights=weights)


def is_kept() -> bool:
    """Return whether a number nearer to 0 than the smallest normal one is computed with."""
    return float(torch.tensor(1e-38) / 2) > 0


@pytest.mark.parametrize("before", [False, True])
def test_one_thread_takes_what_vanishes_as_zero_and_only_meanwhile(before: bool) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_flush_denormal(before)
        torch.set_num_threads(1)
        with contextlib.suppress(ZeroDivisionError), without_denormals(torch.device("cpu")):
            assert not is_kept()
            raise ZeroDivisionError
        assert is_kept() is not before
        torch.set_num_threads(2)
        with without_denormals(torch.device("cpu")):
            assert is_kept() is not before
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)


def test_a_step_of_one_thread_is_without_denormals(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    step = stepper_of(ds.build(ds.zoo.get("plain8_cifar", input=(1, 8, 8))), Recipe())
    step.begin()
    monkeypatch.setattr(step.optimiser, "step", lambda *_: seen.append(is_kept()))
    step.net.register_forward_hook(lambda *_: seen.append(is_kept()))
    next(step.net.parameters()).register_hook(lambda _: seen.append(is_kept()))
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            step.step(batch_of(), 0, 0.1)
    finally:
        torch.set_num_threads(threads)
    assert seen == [False, False, False, True, True, True]


def test_the_loss_of_mixed_images_is_that_of_mixed_targets() -> None:
    batch = Batch(PIXELS, LABELS, OTHERS, 0.3, 3)
    soft = 0.3 * functional.one_hot(LABELS, 3) + 0.7 * functional.one_hot(OTHERS, 3)
    smooth = 0.9 * soft + 0.1 / 3
    want = -(smooth * LOGITS.log_softmax(1)).sum()
    got = summed_loss(LOGITS, batch, Recipe(label_smoothing=0.1), None)
    torch.testing.assert_close(got, want)
    # Counted against the label with the larger share: 2, 0, 1, of which the net says 0, 2, 0.
    assert int(wrong(LOGITS, batch)) == 3
    assert int(wrong(LOGITS, batch._replace(weight=0.6))) == 2


def test_balanced_classes_have_the_same_sum() -> None:
    labels = torch.tensor([0] * 6 + [1] * 3 + [3])
    weights = class_weights(labels, 4)
    torch.testing.assert_close(weights, torch.tensor([10 / 24, 10 / 12, 0.0, 10 / 4]))
    batch = Batch(PIXELS, LABELS, total=3)
    each = functional.cross_entropy(LOGITS, LABELS, reduction="none")
    want = (each * torch.tensor([1.0, 2.0, 4.0])).sum()
    torch.testing.assert_close(summed_loss(LOGITS, batch, Recipe(), torch.tensor([1.0, 2.0, 4.0])), want)


def test_the_average_is_its_formula_and_is_taken_off_again() -> None:
    net = nn.BatchNorm1d(2)
    average = Average(net, 0.5)
    values = [net.weight.detach().clone()]
    want = values[0].clone()
    for step in (1, 2, 20):
        net.weight.data += step
        net.num_batches_tracked += 1
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        want = decay * want + (1 - decay) * net.weight.detach()
    torch.testing.assert_close(average.values["weight"], want)
    assert int(average.values["num_batches_tracked"]) == 3
    before = copy.deepcopy(net.state_dict())
    with average.worn():
        assert torch.equal(net.weight, average.values["weight"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("moment", [0, 1])
def test_ctrl_c_while_the_average_is_put_on_or_taken_off(monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    """The net has its own values after it, all of them: they are what is saved."""
    net = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    average = Average(net, 0.5)
    for parameter in net.parameters():
        parameter.data += 1
    before = copy.deepcopy(net.state_dict())
    load, count = nn.BatchNorm1d._load_from_state_dict, itertools.count()

    def interrupted(module: nn.BatchNorm1d, *args: object) -> None:
        if next(count) == 2 * moment + 1:
            signal.raise_signal(signal.SIGINT)  # between the first layer and the second
        load(module, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(nn.BatchNorm1d, "_load_from_state_dict", interrupted)
    with pytest.raises(KeyboardInterrupt), average.worn():
        pass
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_fewer_images_to_score_than_processes() -> None:
    pixels = torch.randint(0, 256, (1, 8, 8, 1), dtype=torch.uint8)
    split = Split(UniformImages(pixels), torch.tensor([3]))
    prepared = ds.Preprocessing(size=8, resize=8, colour="L", mean=(0.5,), std=(0.5,))
    classes = tuple("0123456789")
    data = Dataset("one", "one", classes, prepared, "none", lambda: split, lambda: split)
    net = net_of()

    class Two(World):
        def gather(self, rows: Tensor, counts: list[int]) -> Tensor:
            assert (rows.shape, counts) == ((0, 10), [0, 1])
            return torch.cat([rows, predict_logits(net, split, prepared)])

    assert score_together(net, data, Two(0, 2)) == score_together(net, data, World())


def test_frozen_parts_stay_as_they_are_and_the_rest_does_not() -> None:
    net = net_of()
    frozen = Frozen(net, ("stem", "stages.s1"))
    frozen.hold()
    stepper = stepper_of(net, Recipe(lr=0.1))
    before = copy.deepcopy(net.state_dict())
    for number in range(2):
        net.train()
        frozen.hold()
        stepper.step(batch_of(), number, 0.1)
    for name, tensor in net.state_dict().items():
        held = name.startswith(("stem.", "stages.s1."))
        assert torch.equal(tensor, before[name]) == held, name
    frozen.release()
    assert all(p.requires_grad for p in net.parameters())


def test_the_rate_that_is_searched_is_that_of_what_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[set[str]] = []

    def seen(trial: ds.Network, recipe: Recipe) -> torch.optim.Optimizer:
        held.append({name for name, p in trial.named_parameters() if not p.requires_grad})
        return make_optimiser(trial, recipe)

    monkeypatch.setattr(stepper, "make_optimiser", seen)
    net = net_of()
    finder.find_rate(net, ds.data.open("digits"), Recipe(freeze=("stem",)), steps=3)
    assert held == [{name for name, _ in net.named_parameters() if name.startswith("stem.")}]
    assert all(p.requires_grad for p in net.parameters())


def test_a_training_that_never_begins_leaves_the_net_as_it_was() -> None:
    net = net_of()
    ds.fit(net, ds.data.open("digits"), Recipe(freeze=("stem",))).close()
    assert all(p.requires_grad for p in net.parameters())


def test_the_search_takes_the_steps_of_the_training() -> None:
    data, kinds = ds.data.open("digits"), {"class_weights": "balanced", "mixup": 0.4, "label_smoothing": 0.1}
    few = data.train.labels >= 5  # classes that are rare, so that weights matter
    few[::3] = True
    kept = torch.nonzero(few).flatten()
    assert isinstance(data.train.images, UniformImages)
    train = Split(UniformImages(data.train.images.pixels[kept.numpy()]), data.train.labels[kept])
    data = replace(data, load_train=lambda: train)
    recipe = Recipe(epochs=1, batch=100, accumulate=2, **kinds)  # type: ignore[arg-type]
    trained = next(e for e in ds.fit(net_of(), data, recipe, each_step=True) if isinstance(e, Stepped))
    _, tried = finder.find_rate(net_of(), data, recipe)
    assert tried[0].loss == pytest.approx(trained.loss, rel=1e-6)


def test_what_cannot_be_frozen() -> None:
    with pytest.raises(
        InputError, match=r"freeze: got 'stages.s4'; allowed: parts of the net: .*; nearest: stages"
    ):
        Frozen(net_of(), ("stages.s4",))
    with pytest.raises(InputError, match="this is all of it"):
        Frozen(net_of(), ("stem", "stages", "head"))


def test_a_batch_in_parts_has_the_gradient_of_the_whole() -> None:
    """Where no normaliser looks at the batch: then the parts only add up."""
    whole, parts = net_of(norm="group"), net_of(norm="group")
    for net, count in ((whole, 1), (parts, 3)):
        stepper_of(net, Recipe(accumulate=count, lr=0.1)).step(batch_of(7), 0, 0.1)
    for name, parameter in whole.named_parameters():
        torch.testing.assert_close(parts.get_parameter(name).grad, parameter.grad, rtol=1e-4, atol=1e-6)


def test_the_loss_of_a_batch_in_parts_is_the_wholes() -> None:
    losses = []
    for count in (1, 3):
        taken = stepper_of(net_of(norm="group"), Recipe(accumulate=count))
        taken.step(batch_of(7), 0, 0.1)
        losses.append(taken.loss)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_where_losses_are_read_every_few_steps_the_last_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, which here is a processor that says it is none."""
    usual, rare = (stepper_of(net_of(), Recipe(accumulate=2)) for _ in range(2))
    monkeypatch.setattr(stepper, "_on", lambda batch, device: batch)
    rare.device = torch.device("meta")
    for number in range(READ_EVERY):
        assert math.isnan(rare.loss)
        usual.step(batch_of(6, number), number, 0.1)
        rare.step(batch_of(6, number), number, 0.1)
    assert rare.loss == usual.loss
    assert rare.drain()[1] == usual.drain()[1]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_process_takes_its_share_in_as_many_parts(ranks: int) -> None:
    """Processes meet for each part: where one has a part more than another, PyTorch aborts them all."""
    for total in range(2 * ranks, 30):
        edges = [total * rank // ranks for rank in range(ranks + 1)]
        shares = [batch_of(high - low, total=total) for low, high in itertools.pairwise(edges)]
        for count in range(1, 9):
            cut = [stepper._parts(share, count, ranks) for share in shares]
            assert len({len(parts) for parts in cut}) == 1, (total, count)
            assert min(len(part.labels) for parts in cut for part in parts) >= 2
            assert len(cut[0]) <= count
    copies = [stepper._parts(batch_of(3, copies=2), 4, 2) for _ in range(2)]
    assert [len(parts) for parts in copies] == [1, 1]


def test_the_gradient_is_clipped_to_its_norm() -> None:
    norms = []
    for clip in (None, 0.01):
        net = net_of()
        stepper_of(net, Recipe(clip=clip)).step(batch_of(), 0, 0.1)
        norms.append(
            math.sqrt(sum(float(p.grad.square().sum()) for p in net.parameters() if p.grad is not None))
        )
    assert norms[0] > 0.1
    assert norms[1] == pytest.approx(0.01, rel=1e-3)


def test_a_loss_that_is_not_finite_changes_nothing_and_is_explained() -> None:
    net = net_of()
    net.get_parameter("stages.s2.b1.branch.norm2.weight").data.fill_(float("inf"))
    stepper = stepper_of(net, Recipe())
    before = copy.deepcopy(dict(net.named_parameters()))
    with pytest.raises(NotFinite, match=r"a loss of nan; stages\.s2\.b1\.branch\.norm2\.weight is not finite"):
        stepper.step(batch_of(), 0, 0.1)
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters())


@pytest.mark.parametrize(
    ("name", "scale", "says"),
    [
        ("stages.s2.b1.branch.norm2", 3e38, "the output of stages.s2.b1 is not finite (of an input of at most"),
        ("head.linear", 1.0, "largest in "),
    ],
)
def test_a_diagnosis_names_the_block(name: str, scale: float, says: str) -> None:
    net = net_of().train()
    net.get_parameter(f"{name}.weight").data.mul_(scale)
    before = copy.deepcopy(net.state_dict())
    images = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 5
    found = diagnose(
        net, images, lambda x: functional.cross_entropy(x, torch.arange(6)), contextlib.nullcontext()
    )
    assert says in found
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())
    assert not net.stem._forward_hooks


def test_what_fits_into_memory_is_the_ledgers() -> None:
    spec = ds.zoo.get("resnet110_cifar")
    cost = ds.count(spec)
    free = memory.needed_bytes(spec, 40, Way()) + 5
    assert free == cost.activation_bytes(40) + 12 * cost.params + 5
    assert memory.largest_batch(spec, free, Way()) == 40
    assert memory.largest_batch(spec, 1, Way()) == 0


def test_a_step_that_cannot_fit_is_refused_before_it_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ds.zoo.get("resnet110_cifar")
    monkeypatch.setattr(memory, "free_bytes", lambda device: memory.needed_bytes(spec, 30, Way()))
    memory.check(spec, 30, Way(), torch.device("cpu"))
    with pytest.raises(
        InputError,
        match=r"batch: got 31 images at once.*at most 30 in the .*nearest: --memory recompute, or --batch 30",
    ):
        memory.check(spec, 31, Way(), torch.device("cpu"))
