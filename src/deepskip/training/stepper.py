"""One training step after the other: forward, backward, update, over all processes that train together."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from deepskip.data.batches import Batch, normalise
from deepskip.describe.preprocessing import Preprocessing
from deepskip.nets.network import Network, not_finite
from deepskip.seeds import derive
from deepskip.training.average import Average
from deepskip.training.diagnosis import NotFinite, diagnose
from deepskip.training.distributed import World, at_least_float32, wrap
from deepskip.training.flow import Flow
from deepskip.training.objective import summed_loss, wrong
from deepskip.training.optimiser import make_optimiser
from deepskip.training.precision import autocast, make_scaler, without_denormals
from deepskip.training.recipe import Recipe
from deepskip.training.recompute import Reversed
from deepskip.training.replay import Replayed
from deepskip.training.way import Way

READ_EVERY = 16  # steps between looks at the loss on a GPU, which must finish its work for each


class Stepper:
    """Takes steps on `net` as `recipe` says, computed in `way`; knows nothing of epochs, files or scores."""

    def __init__(
        self,
        net: Network,
        preprocessing: Preprocessing,
        recipe: Recipe,
        way: Way,
        world: World,
        *,
        seed: int,
        weights: Tensor | None,
    ) -> None:
        """Prepare for steps; parameters that are frozen now are not trained. `weights` [classes] or none."""
        self.net, self.preprocessing, self.recipe, self.way, self.world = net, preprocessing, recipe, way, world
        self.seed = seed
        self.device = next(net.parameters()).device
        self.weights = weights if weights is None else weights.to(self.device)
        self.call: nn.Module = net
        self.kept: nn.Module = net
        self.gradient: Callable[[Batch], None] = self._compute
        self.optimiser = make_optimiser(net, recipe)
        self.trained = [p for p in net.parameters() if p.requires_grad]
        self.scaler = make_scaler(way.precision, self.device)
        self.average = Average(net, recipe.ema) if recipe.ema else None
        self.loss = math.nan
        """Mean loss of a step, the last that was looked at, in nats."""
        # Loss and wrong images, summed, and the last step's mean loss so far: this process's.
        self._unread = torch.zeros(3, dtype=torch.float64, device=self.device)
        self._read = (0.0, 0)

    def begin(self) -> None:
        """Make what is called in place of the net: compiled, and its gradients shared by the world.

        A step that keeps little has its gradients in one place from the beginning: made one by one on the way
        back they would lie scattered among the activations, and these could no longer use each other's room.
        """
        if self.way.memory != "store":
            for parameter in self.trained:
                parameter.grad = torch.zeros_like(parameter)
        self.kept = self.way.sparing(self.net)
        self.call = self.way.compiled(wrap(self.kept, self.world, self.device))
        if self.way.replay and self.device.type == "cuda" and self.world.ranks == 1:
            self.gradient = Replayed(self._compute, self.trained, self.device)

    def step(self, batch: Batch, number: int, rate: float, flow: Flow | None = None) -> None:
        """Take step `number` (from 0) at a rate; `flow` records it. Raises NotFinite, on every process, before
        any harm.
        """
        with without_denormals(self.device):
            self._step(batch, number, rate, flow)

    def _step(self, batch: Batch, number: int, rate: float, flow: Flow | None) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=self.way.memory == "store")
        self._unread[2].zero_()
        parts = _parts(batch, self.recipe.accumulate, self.world.ranks)
        with self._random(number):
            for i, part in enumerate(parts, 1):
                with contextlib.nullcontext() if i == len(parts) else self._alone():
                    self._gradient(part, flow if i == len(parts) else None, alone=len(parts) == 1)
        if flow:
            flow.take(number + 1, self.scaler.scale(torch.ones((), device=self.device)))
        if self.recipe.clip is not None:
            self.scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_(self.trained, self.recipe.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.average:
            self.average.update(number + 1)
        if self.device.type != "cpu" and self.is_read(number + 1):
            self.read()

    def is_read(self, steps: int) -> bool:
        """Return whether, after `steps` steps, every loss was looked at: always, on a GPU after every few."""
        return self.device.type == "cpu" or steps % READ_EVERY == 0

    def read(self, batch: Batch | None = None) -> None:
        """Look at the losses since the last look; all processes must. Raises NotFinite for one that is not."""
        loss, count, last = self.world.sum(self._unread).tolist()
        self._unread[:2].zero_()
        if not math.isfinite(loss):
            raise NotFinite(f"a loss of {loss}{self._reason(batch)}")
        self._read = self._read[0] + loss, self._read[1] + round(count)
        self.loss = last

    def drain(self) -> tuple[float, int]:
        """Return the losses, summed over images, and the number of wrong images since the last call."""
        found, self._read = self._read, (0.0, 0)
        return found

    def reconstruction_error(self) -> float | None:
        """Return the largest error of reversible steps since the last call, as a share of the largest value."""
        return self.kept.drain() if isinstance(self.kept, Reversed) else None

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """Return the context in which the net is the one to score and save."""
        return self.average.worn() if self.average else contextlib.nullcontext()

    def broken(self) -> str | None:
        """Return the net's first tensor with a value that is not finite."""
        return not_finite(self.net.state_dict())

    def state(self) -> dict[str, Any]:
        """Return all that the next step depends on."""
        return {
            "net": self.net.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.values if self.average else {},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.load(state["average"])

    def _gradient(self, batch: Batch, flow: Flow | None, *, alone: bool) -> None:
        """Add the gradient of the batch's share of the step's mean loss; `alone`, it is the step's only one."""
        if flow is None and alone:
            self.gradient(batch)
        else:
            self._compute(batch, flow)

    def _compute(self, batch: Batch, flow: Flow | None = None) -> None:
        batch = _on(batch, self.device)
        watching = flow.watching() if flow else contextlib.nullcontext()
        with autocast(self.way.precision, self.device), watching:
            logits = self.call(self._images(batch))
        loss = summed_loss(at_least_float32(logits), batch, self.recipe, self.weights)
        summed = loss.detach().double()
        told = torch.stack([summed, wrong(logits, batch).double(), summed / batch.total])
        self._unread += told / batch.copies
        if self.device.type == "cpu":
            self.read(batch)
        # DistributedDataParallel takes the mean over processes, so each counts its share that many times.
        loss = loss * (self.world.ranks / (batch.total * batch.copies))
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def _images(self, batch: Batch) -> Tensor:
        own = self.trained[0].dtype  # float64 where somebody wants to see what rounding does
        images = normalise(batch.images, self.preprocessing, own)
        return images.contiguous() if self.way.memory_format == "contiguous" else images

    def _reason(self, batch: Batch | None) -> str:
        """Return where the numbers stopped being finite; of several processes none can tell it alone."""
        if batch is None or self.world.ranks > 1:
            return ""
        context = autocast(self.way.precision, self.device)
        images, recipe, weights = self._images(batch), self.recipe, self.weights
        return f"; {diagnose(self.net, images, lambda x: summed_loss(x, batch, recipe, weights), context)}"

    def _alone(self) -> contextlib.AbstractContextManager[object]:
        """Return the context of a backward pass whose gradient is not yet summed over processes."""
        wrapped = isinstance(self.call, nn.parallel.DistributedDataParallel)
        return self.call.no_sync() if wrapped else contextlib.nullcontext()  # type: ignore[operator]

    @contextlib.contextmanager
    def _random(self, number: int) -> Iterator[None]:
        """Let what a net draws in a step (dropout, stochastic depth) be a function of (seed, step)."""
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(derive(self.seed, "step", number))
            yield


def _parts(batch: Batch, count: int, ranks: int) -> list[Batch]:
    """Return the batch in `count` parts, or in fewer: a part of a single image has no variance.

    In as many on every process, whose shares can differ by an image: for each part all meet.
    """
    least = batch.total if batch.copies > 1 else batch.total // ranks
    count = min(count, max(1, least // 2))
    if count == 1:
        return [batch]
    images, labels = batch.images.tensor_split(count), batch.labels.tensor_split(count)
    others = batch.others.tensor_split(count) if batch.others is not None else (None,) * count
    return [
        batch._replace(images=i, labels=j, others=k) for i, j, k in zip(images, labels, others, strict=True)
    ]


def _on(batch: Batch, device: torch.device) -> Batch:
    if device.type == "cpu":
        return batch
    others = None if batch.others is None else batch.others.to(device, non_blocking=True)
    images, labels = (t.to(device, non_blocking=True) for t in (batch.images, batch.labels))
    return batch._replace(images=images, labels=labels, others=others)
