"""`deepskip train`: a network, trained on the user's images, in a run folder."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from deepskip.cli.prepare import build_net, fastest_way, initial_model, open_data, refuse_early
from deepskip.cli.show import Output, Seed, Whole, columns, command_line, count, duration
from deepskip.errors import InputError

if TYPE_CHECKING:
    from deepskip.data.dataset import Dataset
    from deepskip.nets.network import Network
    from deepskip.training.events import EpochEnded, Event, Started
    from deepskip.training.flow import Every
    from deepskip.training.recipe import Recipe
    from deepskip.training.way import Way

NET = "resnet18"

Settings = Annotated[
    tuple[str, ...], Parameter(name="--set", negative="", consume_multiple=False, show_default=False)
]


def train(
    data: str,
    /,
    *,
    net: str | None = None,
    depth: Whole | None = None,
    plain: bool = False,
    init: str | None = None,
    epochs: Whole | None = None,
    batch: Whole | None = None,
    lr: float | None = None,
    seed: Seed = 0,
    recipe: str = "quick",
    settings: Settings = (),
    out: Path | None = None,
    resume: bool = False,
    device: str = "auto",
    precision: str = "auto",
    memory: Literal["auto", "store", "recompute", "reversible"] = "auto",
    tune: Literal["auto", "off", "again"] = "auto",
    find_lr: bool = False,
    track: bool = False,
    flow: str = "auto",
    output: Output = Output(),
) -> None:
    """Train a network on images and keep the run in a folder: model, metrics, report, what resuming needs.

    Examples:

    - `deepskip train photos/ --net resnet34`
    - `deepskip train cifar10 --net resnet_cifar --depth 38`
    - `deepskip train photos/ --init r50.safetensors --set freeze=stem,stages.s1 --lr 0.01`
    - `torchrun --nproc-per-node=2 -m deepskip train photos/ --net resnet50`

    Parameters
    ----------
    data
        `digits`, `fashion-mnist`, `cifar10`, `cifar100`, or a folder: `train/<class>/*` with `val/<class>/*`,
        or one folder of classes.
    net
        A zoo name (see `deepskip nets`), or a family with `--depth`; `resnet18` by default.
    depth
        Number of layers, with a family's name.
    plain
        Train the plain twin: the same net without shortcuts.
    init
        Begin with this model's net and values: a run folder, a `model.safetensors`, or an address. Other
        classes get a new head.
    epochs
        Passes over the training images; the recipe says by default.
    batch
        Images a step; the recipe says by default.
    lr
        Peak learning rate; the recipe says by default.
    seed
        Seed of the initial values, the order of images and their augmentation.
    recipe
        A named recipe (`quick`, `imagenette`, `depth`, `spectrum`, `thousands`, `he2015_cifar`) or a .yaml file
        of a recipe's fields.
    settings
        Any field of the recipe, as KEY=VALUE; may be given several times.
    out
        The run folder; by default `runs/<data>-<net>-s<seed>`.
    resume
        Go on from the state in the run folder, or start when there is none.
    device
        `auto`, `cpu` or `cuda`.
    precision
        `auto`, `float32`, `bf16` or `fp16` (on a GPU).
    memory
        What a step keeps for its backward pass: `store` all activations, `recompute` about √depth of them
        (1.2 to 1.7 times the time), `reversible` none of a reversible net's; `auto` is the fastest that fits.
    tune
        Measure how to train fastest here, for runs of more than a minute: `auto` remembers what was found,
        `again` measures anew, `off` takes the usual way.
    find_lr
        Train nothing; search a peak learning rate over 100 batches and print it.
    track
        Write the numbers for TensorBoard too, into the run folder.
    flow
        Record every block's gradient, activation and branch at every N-th step: `auto` (at most 200 steps of
        the run), `off`, or N.
    """
    from deepskip.describe import zoo
    from deepskip.training.distributed import join, own_device
    from deepskip.training.precision import choose_device

    chosen = choose_recipe(recipe, settings, epochs=epochs, batch=batch, lr=lr)
    every = _every(flow)
    if init is not None and (net is not None or depth is not None or plain):
        raise InputError(
            "--init", f"{init} beside --net, --depth or --plain", "one of them: a model has its net"
        )
    if init is None:
        zoo.get(net or NET, depth=depth)  # a wrong name is said before the images are read
    place = own_device(choose_device(device))
    world = join(place)
    output = output if world.first else replace(output, quiet=True)
    model = initial_model(init)
    with output.counting() as progress, world.first_goes_first():
        opened = open_data(data, chosen.size, model, progress)
        output.broken(opened.broken, len(opened.train) + len(opened.val) + len(opened.broken))
    built, notes = build_net(opened, net or NET, depth, plain, model, seed)
    for note in notes:
        output.note(note)
    if track:
        from deepskip.training.track import writer

        writer()  # said before anything is measured or made
    if init is None and chosen.freeze:
        output.note(f"{', '.join(chosen.freeze)}: frozen at drawn values, since there is no --init")
    if find_lr:
        # One process searches for all.
        return _find_rate(built, opened, chosen, seed, device, precision, output) if world.first else None
    folder = out or Path("runs") / f"{opened.name}-{built.spec.name}-s{seed}"
    refuse_early(built, opened, chosen, folder)
    way = fastest_way(built.spec, opened, chosen, place, precision, memory, tune, folder, output)
    events = _fit(built, opened, chosen, folder, seed, str(place), precision, memory, way, resume, init, every)
    summary = _train(events, built, opened, chosen, folder, track and world.first, output, first=world.first)
    if output.json and world.first:
        output.result(summary)
    return None


def _every(flow: str) -> Every:
    if flow == "auto":
        return "auto"
    if flow == "off":
        return 0
    if not flow.isdecimal():
        raise InputError("--flow", repr(flow), "auto, off, or a whole number of steps", "auto")
    return int(flow)


def _find_rate(
    net: Network, data: Dataset, recipe: Recipe, seed: int, device: str, precision: str, output: Output
) -> None:
    from deepskip.training.finder import find_rate

    rate, tried = find_rate(net, data, recipe, seed=seed, device=device, precision=precision)
    if output.json:
        return output.result({"lr": rate, "tried": [asdict(one) for one in tried]})
    table = columns("rate", "loss", numbers=("rate", "loss"))
    for one in tried[:: max(1, len(tried) // 20)]:
        table.add_row(f"{one.rate:.2g}", f"{one.loss:.3f}")
    output.table(table)
    return output.say(f"\ntry --lr {rate:g}")


def choose_recipe(
    name: str, settings: Sequence[str], *, epochs: int | None, batch: int | None, lr: float | None
) -> Recipe:
    """Return the named recipe with the command line's changes. Raises InputError."""
    from deepskip.training.recipe import named

    pairs = {}
    for setting in settings:
        key, sign, value = setting.partition("=")
        if not sign:
            raise InputError("--set", repr(setting), "KEY=VALUE")
        pairs[key.strip()] = value.strip()
    shorthands = {"epochs": epochs, "batch": batch, "lr": lr}
    return named(name).set(pairs).replace(**{k: v for k, v in shorthands.items() if v is not None})


def _fit(
    net: Network,
    data: Dataset,
    recipe: Recipe,
    folder: Path,
    seed: int,
    device: str,
    precision: str,
    memory: str,
    way: Way | None,
    resume: bool,
    init: str | None,
    flow: Every,
) -> Generator[Event, None, None]:
    from deepskip.training.engine import fit

    return fit(
        net,
        data,
        recipe,
        out=folder,
        seed=seed,
        device=device,
        precision=precision,
        memory=memory,
        way=way,
        resume=resume,
        each_step=True,
        flow=flow,
        provenance={"command": command_line(), **({"init": init} if init else {})},
    )


def _train(
    events: Generator[Event, None, None],
    net: Network,
    data: Dataset,
    recipe: Recipe,
    folder: Path,
    track: bool,
    output: Output,
    *,
    first: bool,
) -> dict[str, Any]:
    """Show the run's events; return what is said of it at its end."""
    from deepskip.training.events import EpochEnded, Noted, Started, Stepped
    from deepskip.training.track import Tracker

    tracker = Tracker(folder) if track else None
    epochs = 0
    with output.bars() as bars, contextlib.closing(tracker) if tracker else contextlib.nullcontext():
        task = bars.add_task("training", total=None, note="")
        try:
            with contextlib.closing(events):  # which saves, wherever Ctrl-C was heard
                for event in events:
                    if tracker:
                        tracker(event)
                    if isinstance(event, Started):
                        epochs = event.epochs
                        output.note(_start_line(net, data, recipe, folder, event))
                        bars.update(task, total=event.steps, completed=event.step)
                    elif isinstance(event, Noted):
                        output.warn(event.text)
                    elif isinstance(event, Stepped):
                        note = f"epoch {event.epoch}  loss {event.loss:.3f}"
                        bars.update(task, completed=event.step, note=note)
                    elif isinstance(event, EpochEnded):
                        output.note(_epoch_line(event, epochs))
        except KeyboardInterrupt:
            output.note(f"stopped; {folder} holds the model so far and goes on with --resume")
            raise
    return _conclude(net, data, folder, output) if first else {}


def _start_line(net: Network, data: Dataset, recipe: Recipe, folder: Path, event: Started) -> str:
    ranks = f" × {event.ranks}" if event.ranks > 1 else ""
    at = f" from step {event.step:,}" if event.step else ""
    return (
        f"{net.spec}\ntraining on {data.name}: {len(data.train):,} images, {event.epochs} epochs "
        f"of {recipe.batch}, {event.device}{ranks}, {event.precision}{at}, in {folder}"
    )


def _epoch_line(event: EpochEnded, epochs: int) -> str:
    return (
        f"epoch {event.epoch:>{len(str(epochs))}}/{epochs}  train loss {event.train_loss:.4f}  "
        f"train error {event.train_error:5.2f}%  val error {event.val_error:5.2f}%  "
        f"{event.images_per_second:,.0f} images/s  {duration(event.seconds)}"
    )


def _conclude(net: Network, data: Dataset, folder: Path, output: Output) -> dict[str, Any]:
    from deepskip.pages import publish
    from deepskip.training.rundir import METRICS, read_rows

    report = publish(folder)
    last = read_rows(folder / METRICS)[-1]
    params = sum(p.numel() for p in net.parameters())
    output.say(
        f"{net.spec.name} on {data.name}: validation error {last['val_error']:.2f}%, train error "
        f"{last['train_error']:.2f}%, {count(params)} parameters, {duration(last['seconds'])}\n{report}"
    )
    return {"out": str(folder), "name": net.spec.name, **last, "report": str(report)}
