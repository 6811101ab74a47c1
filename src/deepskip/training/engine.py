"""The training loop: an iterator of events that the caller's own loop consumes.

It trains any module that has a `spec`; nothing in it knows what a residual network is. Every random number is
a function of (seed, epoch, batch), so a run that is stopped at any step and resumed ends with the weights,
bit for bit, of one that never stopped (same machine, same number of threads).
"""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from deepskip.data.batches import normalise, steps_per_epoch, train_batches
from deepskip.data.dataset import Dataset
from deepskip.data.variation import Variation
from deepskip.describe.ledger import count
from deepskip.errors import DivergedError, InputError
from deepskip.nets.network import Network
from deepskip.scoring import Score, score
from deepskip.seeds import derive
from deepskip.training.precision import autocast, choose_device, choose_precision
from deepskip.training.recipe import Recipe
from deepskip.training.rundir import RunFolder
from deepskip.training.schedule import learning_rate
from deepskip.weights.store import Header

SAVE_EVERY = 20.0  # seconds between states, at ends of epochs; the last is always saved


@dataclass(frozen=True)
class Started:
    """Training is about to begin, at `step` of `steps` (above 0 when it resumes)."""

    step: int
    steps: int
    epochs: int
    device: str
    precision: str


@dataclass(frozen=True)
class Stepped:
    """One step was taken. Only yielded with `each_step=True`."""

    step: int
    steps: int
    epoch: int
    loss: float
    learning_rate: float


@dataclass(frozen=True)
class EpochEnded:
    """An epoch ended; the fields are the columns of `metrics.jsonl`. Errors in percent."""

    epoch: int
    """Counted from 1."""
    train_loss: float
    """Mean over the epoch's batches as they were trained on, in nats."""
    train_error: float
    """Likewise: images that were wrong when they were trained on."""
    val_loss: float
    val_error: float
    learning_rate: float
    """Of the epoch's last step."""
    images_per_second: float
    """Training alone, data included, scoring not."""
    seconds: float
    """Since the beginning of the run, pauses left out."""


@dataclass(frozen=True)
class Finished:
    """The run is complete. `score` fields are the last epoch's, as `deepskip evaluate` measures them."""

    seconds: float
    val_error: float
    train_error: float


Event = Started | Stepped | EpochEnded | Finished


@dataclass
class _Progress:
    """Where the run is; with weights and optimiser, all that resuming needs."""

    step: int = 0
    epochs: int = 0  # epochs that have ended
    epoch_step: int = 0  # steps taken in the epoch that is under way
    learning_rate: float = 0.0  # of the last step
    loss_sum: float = 0.0
    wrong: int = 0
    seen: int = 0
    held: bool = False  # at the recipe's hold_lr
    held_steps: int = 0  # steps taken there; the schedule has the rest
    seconds: float = 0.0
    train_seconds: float = 0.0  # in the epoch that is under way


def fit(
    net: Network,
    data: Dataset,
    recipe: Recipe | None = None,
    *,
    out: Path | str | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    resume: bool = False,
    each_step: bool = False,
    provenance: dict[str, Any] | None = None,
) -> Iterator[Event]:
    """Train `net` on `data` in place, yielding events; with `out`, keep a run folder there.

    Closing the iterator, or Ctrl-C, stops the run between two steps and, with `out`, leaves it resumable from
    there. Raises InputError at once when net, data and folder do not go together, and DivergedError from the
    iterator when the loss or a weight leaves the finite numbers; the folder then keeps the last good state that
    was saved (one is at ends of epochs, at most every 20 seconds).
    """
    recipe = recipe or Recipe()
    run = _Run(net, data, recipe, seed, choose_device(device), precision, each_step)
    if out is not None:
        run.claim(Path(out), resume=resume, provenance=provenance or {})
    return run.events()


class _Run:
    def __init__(
        self,
        net: Network,
        data: Dataset,
        recipe: Recipe,
        seed: int,
        device: torch.device,
        precision: str,
        each_step: bool,
    ) -> None:
        _agree(net, data, recipe)
        self.net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.data, self.recipe, self.seed, self.device, self.each_step = data, recipe, seed, device, each_step
        self.precision = choose_precision(precision, device, min(net.spec.input[1:]))
        self.optimiser = make_optimiser(net, recipe)
        self.epoch_steps = steps_per_epoch(len(data.train), recipe.batch)
        self.steps = min(recipe.epochs * self.epoch_steps, recipe.max_steps or sys.maxsize)
        self.progress = _Progress(held=recipe.hold_lr is not None)
        self.folder: RunFolder | None = None
        self.provenance: dict[str, Any] = {}
        self.saved_at = time.monotonic()
        self.rows: list[dict[str, Any]] = []  # one for each epoch that ended, as in metrics.jsonl
        self.last: EpochEnded | None = None
        self.score: Score | None = None

    def claim(self, path: Path, *, resume: bool, provenance: dict[str, Any]) -> None:
        config = {
            "spec": self.net.spec.model_dump(mode="json"),
            "recipe": self.recipe.model_dump(mode="json"),
            "data": {"name": self.data.name, "fingerprint": self.data.fingerprint},
            "preprocessing": self.data.preprocessing.model_dump(mode="json"),
            "classes": list(self.data.classes),
            "seed": self.seed,
            "device": self.device.type,
            "precision": self.precision,
        }
        self.folder = RunFolder.claim(path, config, resume=resume)
        self.provenance = {
            "data": config["data"],
            "recipe": config["recipe"],
            "seed": self.seed,
            "precision": self.precision,
            "torch": torch.__version__,
            **provenance,
        }
        state = self.folder.load_state()
        if state:
            self.net.load_state_dict(state["net"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.progress = _Progress(**state["progress"])
            self.rows = state["rows"]
        # What came after the state is measured again, and what was lost of the file is in the state.
        self.folder.write_metrics(self.rows)
        self.last = EpochEnded(**self.rows[-1]) if self.rows else None

    def events(self) -> Iterator[Event]:
        epochs = math.ceil(self.steps / self.epoch_steps)
        yield Started(self.progress.step, self.steps, epochs, self.device.type, self.precision)
        try:
            # An epoch whose last step is taken is not over before it is scored.
            while self.progress.step < self.steps or self.progress.epoch_step:
                yield from self._epoch()
        except (GeneratorExit, KeyboardInterrupt):
            # Both come between two steps: a closed iterator, and Ctrl-C, which a step defers to its end.
            # The run can go on from exactly here.
            self._save()
            raise
        finally:
            if self.folder:
                self.folder.release()
        assert self.last is not None
        yield Finished(self.progress.seconds, self.last.val_error, self.last.train_error)

    def _epoch(self) -> Iterator[Event]:
        p = self.progress
        self.net.train()
        batches = train_batches(
            self.data.train,
            self.data.preprocessing,
            Variation(augment=self.data.augment if self.recipe.augment == "auto" else self.recipe.augment),
            self.recipe.batch,
            self.seed,
            p.epochs,
            start=p.epoch_step,
        )
        while p.step < self.steps:
            started = time.monotonic()
            batch = next(batches, None)
            if batch is None:
                break
            with deferred_interrupt():
                loss = self._step(batch.images, batch.labels)
                elapsed = time.monotonic() - started
                p.seconds, p.train_seconds = p.seconds + elapsed, p.train_seconds + elapsed
            if self.each_step:
                yield Stepped(p.step, self.steps, p.epochs + 1, loss, p.learning_rate)
        started = time.monotonic()
        found = score(self.net, self.data.val, self.data.preprocessing)
        with deferred_interrupt():
            p.seconds += time.monotonic() - started
            ended = self._end_epoch(found)
        yield ended

    def _rate(self) -> float:
        if self.progress.held and self.recipe.hold_lr is not None:
            return self.recipe.hold_lr
        held = self.progress.held_steps
        return learning_rate(self.recipe, self.progress.step - held, self.steps - held)

    def _step(self, images: Tensor, labels: Tensor) -> float:
        p = self.progress
        p.learning_rate = self._rate()
        for group in self.optimiser.param_groups:
            group["lr"] = p.learning_rate
        images, labels = images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)
        with self._random(p.step), autocast(self.precision, self.device):
            logits = self.net(normalise(images, self.data.preprocessing))
        logits = logits.float()
        loss = functional.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
        value = loss.item()
        if not math.isfinite(value):
            raise self._diverged(f"a loss of {value}")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        p.step, p.epoch_step, p.held_steps = p.step + 1, p.epoch_step + 1, p.held_steps + p.held
        p.loss_sum += value * len(labels)
        p.wrong += int((logits.detach().argmax(1) != labels).sum())
        p.seen += len(labels)
        return value

    @contextlib.contextmanager
    def _random(self, step: int) -> Iterator[None]:
        """Let what a net draws in a step (dropout, stochastic depth) be a function of (seed, step)."""
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(derive(self.seed, "step", step))
            yield

    def _diverged(self, got: str) -> DivergedError:
        p = self.progress
        return DivergedError(
            f"step {p.step + 1} of {self.steps} (epoch {p.epochs + 1})",
            got,
            "finite numbers; try a lower --lr, a longer --set warmup, or a shallower or residual net",
            f"--lr {self.recipe.lr / 10:g}",
        )

    def _end_epoch(self, found: Score) -> EpochEnded:
        p = self.progress
        if not math.isfinite(found.loss) or not all(t.isfinite().all() for t in self.net.state_dict().values()):
            raise self._diverged("weights or a validation loss that are not finite")
        self.score = found
        self.last = EpochEnded(
            epoch=p.epochs + 1,
            train_loss=p.loss_sum / p.seen,
            train_error=100 * p.wrong / p.seen,
            val_loss=found.loss,
            val_error=found.error,
            learning_rate=p.learning_rate,
            images_per_second=p.seen / max(p.train_seconds, 1e-9),
            seconds=p.seconds,
        )
        if self.recipe.hold_error > self.last.train_error:
            p.held = False
        p.epochs += 1
        p.epoch_step, p.loss_sum, p.wrong, p.seen, p.train_seconds = 0, 0.0, 0, 0, 0.0
        self.rows.append(asdict(self.last))
        if self.folder:
            self.folder.add_metrics(self.rows[-1])
            if p.step >= self.steps or time.monotonic() - self.saved_at > SAVE_EVERY:
                self._save()
        return self.last

    def _save(self) -> None:
        if self.folder is None:
            return
        header = Header(
            spec=self.net.spec,
            classes=self.data.classes,
            preprocessing=self.data.preprocessing,
            provenance={**self.provenance, "step": self.progress.step, "steps": self.steps},
            metrics=asdict(self.last) if self.last else {},
        )
        self.folder.save_model(self.net, header)
        if self.score:
            self.folder.save_score(asdict(self.score))
        self.folder.save_state(
            {
                "net": self.net.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "progress": asdict(self.progress),
                "rows": self.rows,
            }
        )
        self.saved_at = time.monotonic()


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[None]:
    """Hear Ctrl-C at the end of the block, not in its middle: a step is taken whole or not at all.

    Does nothing outside the main thread, or where somebody else already handles the signal.
    """
    heard: list[int] = []
    usual = signal.default_int_handler
    ours = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is usual]
    if threading.current_thread() is not threading.main_thread():
        ours = []
    for number in ours:
        signal.signal(number, lambda number, frame: heard.append(number))
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, usual)
    if heard:
        raise KeyboardInterrupt


def make_optimiser(net: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """Return SGD over `net`'s parameters; normalisers and biases (vectors) undecayed unless `decay_all`."""
    decayed = [p for p in net.parameters() if p.ndim > 1 or recipe.decay_all]
    others = [p for p in net.parameters() if not (p.ndim > 1 or recipe.decay_all)]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        fused=True,
    )


def _agree(net: Network, data: Dataset, recipe: Recipe) -> None:
    if tuple(net.spec.input) != tuple(data.input):
        allowed = f"{tuple(data.input)}, as {data.name} has"
        raise InputError("net's input", net.spec.input, allowed, f"spec.replace(input={tuple(data.input)})")
    if net.spec.classes != len(data.classes):
        allowed = f"{len(data.classes)}, as {data.name} has"
        raise InputError(
            "net's classes", net.spec.classes, allowed, f"spec.replace(classes={len(data.classes)})"
        )
    smallest = min(line.outputs.height * line.outputs.width for line in count(net.spec).lines[:-1])
    if min(recipe.batch, len(data.train)) * smallest == 1:
        got = "1, and a last stage of 1×1 pixels"
        raise InputError("batch", got, "2 or more: batch normalisation needs two values a channel", 2)
