"""The training loop: an iterator of events that the caller's own loop consumes.

It trains any module that has a `spec`; nothing in it knows what a residual network is. Every random number is
a function of (seed, epoch, batch), so a run that is stopped at any step and resumed ends with the weights,
bit for bit, of one that never stopped (same machine, same number of threads).
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from deepskip.data.batches import Batch, steps_per_epoch, train_batches
from deepskip.data.dataset import Dataset
from deepskip.errors import DivergedError
from deepskip.garbage import settled
from deepskip.nets.network import Network
from deepskip.scoring import Score
from deepskip.training.diagnosis import NotFinite
from deepskip.training.distributed import join, lost_rank, own_device, synchronised_norms
from deepskip.training.events import EpochEnded, Event, Finished, Noted, Started, Stepped
from deepskip.training.flow import Every, Flow, interval
from deepskip.training.frozen import Frozen
from deepskip.training.heap import kept_for
from deepskip.training.interrupt import deferred_interrupt
from deepskip.training.memory import at_once, check, is_out_of_memory, ran_out
from deepskip.training.memory import choose as choose_memory
from deepskip.training.objective import weights_of
from deepskip.training.plan import agree, variation_of
from deepskip.training.precision import choose_device
from deepskip.training.progress import Progress
from deepskip.training.recipe import Recipe
from deepskip.training.rundir import RunFolder, held_way
from deepskip.training.schedule import learning_rate
from deepskip.training.stepper import Stepper
from deepskip.training.validation import score_together
from deepskip.training.way import Way, usual
from deepskip.weights.store import Header

SAVE_EVERY = 20.0  # seconds between states, at ends of epochs; the last is always saved
SAVE_WITHIN = 60.0  # and inside a long epoch
ALARM = 1e-3  # of a reversible reconstruction; in float32 it is usually about 1e-5
SAVE_SHARE = 0.03  # of the time, at most, goes into saving inside an epoch


def fit(
    net: Network,
    data: Dataset,
    recipe: Recipe | None = None,
    *,
    out: Path | str | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    memory: str = "auto",
    way: Way | None = None,
    resume: bool = False,
    each_step: bool = False,
    flow: Every = "auto",
    provenance: dict[str, Any] | None = None,
) -> Generator[Event, None, None]:
    """Train `net` on `data` in place, yielding events; with `out`, keep a run folder there.

    `way` is how it is computed, by default the usual one for `device` and `precision` that keeps what `memory`
    says ("store", "recompute", "reversible"; "auto": the fastest that fits into the free memory); a run that is
    resumed goes on in the way it began. Started by `torchrun`, the processes share every batch and the first
    writes. With `out`, `flow.jsonl` records every `flow`-th step (see `Flow`), none with 0; no bit of the
    training depends on it.

    Closing the iterator, or Ctrl-C, stops the run between two steps and, with `out`, leaves it resumable from
    there. Raises InputError at once when net, data, memory and folder do not go together; from the iterator
    DivergedError when the loss or a weight leaves the finite numbers, and WorkError when memory, disk or
    another process is lost. The folder then keeps the last good state that was saved: one is at ends of epochs,
    at most every 20 seconds, and every minute inside of long ones.
    """
    recipe = recipe or Recipe()
    place = own_device(choose_device(device))
    if way is None and out is not None:
        way = held_way(Path(out))
    rule = usual(place, min(net.spec.input[1:]), precision)
    chosen = rule if way is None else way if precision == "auto" else way.replace(precision=rule.precision)
    if way is None or memory != "auto":
        images = at_once(recipe.batch, len(data.train), recipe.accumulate, join(place).ranks)
        kept = choose_memory(net.spec, images, memory, chosen.precision, place)
        chosen = chosen.keeping(kept)
    # What is free is not the same everywhere, and normalisers that recompute meet once more.
    chosen = join(place).share(chosen)
    run = _Run(net, data, recipe, seed, place, chosen, each_step, flow)
    if out is not None:
        try:
            run.claim(Path(out), resume=resume, provenance=provenance or {})
        except BaseException:
            run.release()  # a net that will not be trained is left as it was
            raise
    return run.events()


class _Run:
    def __init__(
        self,
        net: Network,
        data: Dataset,
        recipe: Recipe,
        seed: int,
        device: torch.device,
        way: Way,
        each_step: bool,
        flow: Every,
    ) -> None:
        agree(net, data, recipe)
        self.epoch_steps = steps_per_epoch(len(data.train), recipe.batch)
        self.steps = min(recipe.epochs * self.epoch_steps, recipe.max_steps or sys.maxsize)
        self.epochs = math.ceil(self.steps / self.epoch_steps)
        self.every = interval(flow, self.steps)
        self.flow: Flow | None = None
        self.world = join(device)
        self.data, self.recipe, self.seed, self.device, self.way = data, recipe, seed, device, way
        self.each_step = each_step
        self.images = at_once(recipe.batch, len(data.train), recipe.accumulate, self.world.ranks)
        check(net.spec, self.images, way, device)
        self.net = net
        way.prepare(net.to(device))
        self.frozen = Frozen(net, recipe.freeze)
        weights = weights_of(recipe, data.train.labels, net.spec.classes)
        with self.frozen.held():  # and again when the iterator begins
            self.stepper = Stepper(net, data.preprocessing, recipe, way, self.world, seed=seed, weights=weights)
        self.progress = Progress(held=recipe.hold_lr is not None)
        self.folder: RunFolder | None = None
        self.provenance: dict[str, Any] = {}
        self.notes: list[str] = []
        self.torn = False  # whether a step, or the end of an epoch, is half taken
        self.saved_at = time.monotonic()
        self.saving = 0.0  # seconds that the last state took
        self.rows: list[dict[str, Any]] = []  # one for each epoch that ended, as in metrics.jsonl
        self.last: EpochEnded | None = None
        self.score: Score | None = None

    def release(self) -> None:
        """Give back what the run holds: the net's frozen parts, and the folder."""
        self.frozen.release()
        if self.folder:
            self.folder.release()

    # --- the folder -------------------------------------------------------------------------------------------

    def claim(self, path: Path, *, resume: bool, provenance: dict[str, Any]) -> None:
        config = {
            "spec": self.net.spec.model_dump(mode="json"),
            "recipe": self.recipe.model_dump(mode="json"),
            "data": {"name": self.data.name, "fingerprint": self.data.fingerprint},
            "preprocessing": self.data.preprocessing.model_dump(mode="json"),
            "classes": list(self.data.classes),
            "seed": self.seed,
            "device": self.device.type,
            "precision": self.way.precision,
            "way": self.way.model_dump(mode="json"),
        }
        shared = ("data", "recipe", "seed", "precision")
        images = {"train": len(self.data.train), "val": len(self.data.val)}
        own = {"images": images, "torch": torch.__version__}
        self.provenance = {**{k: config[k] for k in shared}, **own, **provenance}
        state: dict[str, Any] | None = None
        if self.world.first:
            self.folder = RunFolder.claim(path, config, resume=resume)
            state, self.notes = self.folder.load_state()
        state = self.world.share(state)
        if state:
            self.stepper.load_state(state)
            self.progress, self.rows = Progress(**state["progress"]), state["rows"]
            self._compare_threads()
        if self.folder:
            # What came after the state is measured again, and what was lost of the file is in the state.
            self.folder.write_metrics(self.rows)
            self.folder.keep_flow(self.progress.step)
            if self.every:
                eager = self.way.compile == "none"
                self.flow = Flow(self.net, self.every, self.steps, activations=eager)
        self.last = EpochEnded(**self.rows[-1]) if self.rows else None

    def _compare_threads(self) -> None:
        threads = torch.get_num_threads()
        if self.device.type == "cpu" and self.way.threads not in (None, threads):
            self.notes.append(
                f"the run began with {self.way.threads} threads and goes on with {threads}: the last bits of "
                f"its weights can differ from those of a run that was not stopped"
            )

    def _save(self, *, model: bool = True) -> None:
        """Write the state, unless a loss or weight left the finite numbers: then the last good one is kept."""
        self._write_flow()
        if self.folder is None or self.stepper.broken():
            return
        started = time.monotonic()
        if self.world.ranks == 1 and self.device.type != "cpu":
            try:  # of several GPUs, what the others have not yet told is left out of the means
                self.stepper.read()
            except NotFinite:
                return
        self._count()
        if self.folder.restore():
            self.folder.write_metrics(self.rows)
        if model:
            with self.stepper.averaged():
                self.folder.save_model(self.net, self._header())
            if self.score:
                self.folder.save_score(asdict(self.score))
        state = {**self.stepper.state(), "progress": asdict(self.progress), "rows": self.rows}
        self.folder.save_state(state, self.progress.step)
        self.saved_at = time.monotonic()
        self.saving = self.saved_at - started

    def _save_within(self) -> None:
        since = time.monotonic() - self.saved_at
        if since > max(SAVE_WITHIN, self.saving / SAVE_SHARE) and self.stepper.is_read(self.progress.step):
            self._save(model=False)

    def _write_flow(self) -> None:
        rows = self.flow.drain() if self.flow else []
        if self.folder and self.flow and rows:
            if self.folder.restore():
                self.folder.write_metrics(self.rows)
            self.folder.add_flow(rows, self.flow.blocks)

    def _header(self) -> Header:
        return Header(
            spec=self.net.spec,
            classes=self.data.classes,
            preprocessing=self.data.preprocessing,
            provenance={**self.provenance, "step": self.progress.step, "steps": self.steps},
            metrics=dict(self.rows[-1]) if self.rows else {},
        )

    # --- the loop ---------------------------------------------------------------------------------------------

    def events(self) -> Generator[Event, None, None]:
        p, ranks = self.progress, self.world.ranks
        together = self.recipe.sync_norm
        try:
            yield Started(p.step, self.steps, self.epochs, self.device.type, self.way.precision, ranks)
            yield from map(Noted, self.notes)
            with (
                settled(sum(1 for _ in self.net.modules())),
                kept_for(self.net.spec, self.images, self.way, self.device),
                synchronised_norms(self.net, self.world) if together else contextlib.nullcontext(),
            ):
                self.frozen.hold()
                self.stepper.begin()
                # An epoch whose last step is taken is not over before it is scored.
                while (p.step < self.steps or p.epoch_step) and not p.stopped:
                    yield from self._epoch()
                if self.folder and self.folder.lacks_model():  # somebody removed it from a finished run
                    self._save()
        except (GeneratorExit, KeyboardInterrupt):
            # Both come between two steps: a closed iterator, and Ctrl-C, which a step defers to its end.
            # The run can go on from exactly here. Only a handler of somebody else's interrupts it.
            if not self.torn:
                self._save()
            raise
        finally:
            self.release()
        assert self.last is not None
        if self.stepper.average:
            self.net.load_state_dict(self.stepper.average.values)
        yield Finished(p.seconds, self.last.val_error, self.last.train_error)

    def _epoch(self) -> Iterator[Event]:
        p = self.progress
        self.net.train()
        self.frozen.hold()
        batches = train_batches(
            self.data.train,
            self.data.preprocessing,
            variation_of(self.recipe, self.data, p.epochs, self.epochs),
            self.recipe.batch,
            self.seed,
            p.epochs,
            start=p.epoch_step,
            rank=self.world.rank,
            ranks=self.world.ranks,
            gpu=self.device.type == "cuda",
        )
        with contextlib.closing(batches):
            while p.step < self.steps:
                started = time.monotonic()
                batch = next(batches, None)
                if batch is None:
                    break
                with deferred_interrupt():
                    self._step(batch)
                    elapsed = time.monotonic() - started
                    p.seconds, p.train_seconds = p.seconds + elapsed, p.train_seconds + elapsed
                    self._save_within()
                if self.each_step:
                    yield Stepped(p.step, self.steps, p.epochs + 1, self.stepper.loss, p.learning_rate)
        yield from self._reconstruction()
        started = time.monotonic()
        found = self._score()
        with deferred_interrupt():
            p.seconds += time.monotonic() - started
            ended = self._end_epoch(found)
        yield ended

    def _step(self, batch: Batch) -> None:
        """Take a step; say in one line when it diverged, or when memory or another process is lost in it."""
        p = self.progress
        p.learning_rate = self._rate()
        where = f"step {p.step + 1} of {self.steps}"
        flow = self.flow if self.flow and self.flow.wants(p.step + 1) else None
        self.torn = True
        try:
            with lost_rank(where):
                self.stepper.step(batch, p.step, p.learning_rate, flow)
        except NotFinite as error:
            self._write_flow()
            raise self._diverged(str(error), p.step + 1) from error
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise ran_out(self.net.spec, self.images, self.way, self.device, where) from error
        p.step, p.epoch_step, p.held_steps = p.step + 1, p.epoch_step + 1, p.held_steps + p.held
        p.seen += batch.total
        self._count()
        self.torn = False
        if self.stepper.is_read(p.step):
            self._write_flow()

    def _count(self) -> None:
        loss, wrong = self.stepper.drain()
        self.progress.loss_sum += loss
        self.progress.wrong += wrong

    def _reconstruction(self) -> Iterator[Noted]:
        """Take down how well reversible steps went back; warn where it grows."""
        found = self.stepper.reconstruction_error()
        if found is not None:
            before = self.progress.reconstruction_error or 0.0
            self.progress.reconstruction_error = max(before, found)
            if not found <= ALARM:
                yield Noted(
                    f"reversible blocks were reconstructed with an error of {found:.1e} of their largest value "
                    f"(epoch {self.progress.epochs + 1}): gradients may be wrong; try --memory recompute"
                )

    def _rate(self) -> float:
        if self.progress.held and self.recipe.hold_lr is not None:
            return self.recipe.hold_lr
        held = self.progress.held_steps
        return learning_rate(self.recipe, self.progress.step - held, self.steps - held)

    def _diverged(self, got: str, step: int) -> DivergedError:
        return DivergedError(
            f"step {step} of {self.steps} (epoch {self.progress.epochs + 1})",
            got,
            "finite numbers; try a lower --lr, longer --set warmup, --set clip=1, a shallower or residual net",
            f"--lr {self.recipe.lr / 10:g}",
        )

    # --- the end of an epoch ----------------------------------------------------------------------------------

    def _score(self) -> Score:
        """Return the score on the validation images, each counted once, whoever computed it."""
        with self.stepper.averaged():
            self.world.copy_first(self.net)
            return score_together(self.net, self.data, self.world)

    def _end_epoch(self, found: Score) -> EpochEnded:
        p = self.progress
        if self.device.type != "cpu":
            try:
                self.stepper.read()
            except NotFinite as error:
                self._write_flow()
                raise self._diverged(str(error), p.step) from error
            self._count()
        self._write_flow()
        broken = self.stepper.broken()
        if broken or not math.isfinite(found.loss):
            first = f"; {broken} first" if broken else ""
            raise self._diverged(f"weights or a validation loss that are not finite{first}", p.step)
        self.torn = True
        self.score = found
        self.last = p.end_epoch(found.loss, found.error)
        if self.recipe.hold_error > self.last.train_error:
            p.held = False
        p.stopped = p.patience_is_out(self.recipe.patience)
        self.rows.append({name: value for name, value in asdict(self.last).items() if value is not None})
        self.torn = False
        if self.folder:
            self._write_epoch(self.folder)
        return self.last

    def _write_epoch(self, folder: RunFolder) -> None:
        p = self.progress
        if folder.restore():
            folder.write_metrics(self.rows)
        else:
            folder.add_metrics(self.rows[-1])
        if self.recipe.patience and p.best_epoch == p.epochs:
            with self.stepper.averaged():
                folder.save_best(self.net, self._header())
        over = p.stopped or p.step >= self.steps
        if over or time.monotonic() - self.saved_at > SAVE_EVERY:
            self._save()
