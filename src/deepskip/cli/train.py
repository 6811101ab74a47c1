"""`deepskip train`: a network, trained on the user's images, in a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from deepskip.cli.show import Output, Whole, command_line, count, duration
from deepskip.errors import InputError

if TYPE_CHECKING:
    from deepskip.data.dataset import Dataset
    from deepskip.nets.network import Network
    from deepskip.training.engine import EpochEnded, Started
    from deepskip.training.recipe import Recipe

Settings = Annotated[
    tuple[str, ...], Parameter(name="--set", negative="", consume_multiple=False, show_default=False)
]


def train(
    data: str,
    /,
    *,
    net: str = "resnet18",
    depth: Whole | None = None,
    plain: bool = False,
    epochs: Whole | None = None,
    batch: Whole | None = None,
    lr: float | None = None,
    seed: Whole = 0,
    recipe: str = "quick",
    settings: Settings = (),
    out: Path | None = None,
    resume: bool = False,
    device: str = "auto",
    precision: str = "auto",
    output: Output = Output(),
) -> None:
    """Train a network on images and keep the run in a folder: model, metrics, report, what resuming needs.

    Examples:

    - `deepskip train photos/ --net resnet34`
    - `deepskip train cifar10 --net resnet_cifar --depth 38`
    - `deepskip train digits --net resnet20_cifar --epochs 5 --out runs/d20`

    Parameters
    ----------
    data
        `digits`, `fashion-mnist`, `cifar10`, `cifar100`, or a folder: `train/<class>/*` with `val/<class>/*`,
        or one folder of classes.
    net
        A zoo name (see `deepskip nets`), or a family with `--depth`.
    depth
        Number of layers, with a family's name.
    plain
        Train the plain twin: the same net without shortcuts.
    epochs
        Passes over the training images; the recipe says by default.
    batch
        Images a step; the recipe says by default.
    lr
        Peak learning rate; the recipe says by default.
    seed
        Seed of the initial values, the order of images and their augmentation.
    recipe
        A named recipe: `quick`, `imagenette`, `depth`, `he2015_cifar`.
    settings
        Any field of the recipe, as KEY=VALUE; may be given several times.
    out
        The run folder; by default `runs/<data>-<net>-s<seed>`.
    resume
        Go on from the state in the run folder, or start when there is none.
    device
        `auto`, `cpu` or `cuda`.
    precision
        `auto`, `float32` or `bf16`.
    """
    from deepskip.data import sources
    from deepskip.describe import zoo
    from deepskip.nets.builder import build

    chosen = choose_recipe(recipe, settings, epochs=epochs, batch=batch, lr=lr)
    zoo.get(net, depth=depth)  # a wrong name is said before the images are read
    with output.counting() as progress:
        opened = sources.open_dataset(data, size=chosen.size, progress=progress)
        output.broken(opened.broken, len(opened.train) + len(opened.val) + len(opened.broken))
    spec = zoo.get(net, depth=depth, classes=len(opened.classes), input=opened.input)
    spec = spec.plain() if plain else spec
    folder = out or Path("runs") / f"{opened.name}-{spec.name}-s{seed}"
    built = build(spec, seed)
    summary = _train(built, opened, chosen, folder, seed, device, precision, resume, output)
    if output.json:
        output.result(summary)


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


def _train(
    net: Network,
    data: Dataset,
    recipe: Recipe,
    folder: Path,
    seed: int,
    device: str,
    precision: str,
    resume: bool,
    output: Output,
) -> dict[str, Any]:
    from deepskip.training.engine import EpochEnded, Started, Stepped, fit

    events = fit(
        net,
        data,
        recipe,
        out=folder,
        seed=seed,
        device=device,
        precision=precision,
        resume=resume,
        each_step=True,
        provenance={"command": command_line()},
    )
    epochs = 0
    with output.bars() as bars:
        task = bars.add_task("training", total=None, note="")
        try:
            for event in events:
                if isinstance(event, Started):
                    epochs = event.epochs
                    output.note(_start_line(net, data, recipe, folder, event))
                    bars.update(task, total=event.steps, completed=event.step)
                elif isinstance(event, Stepped):
                    note = f"epoch {event.epoch}  loss {event.loss:.3f}"
                    bars.update(task, completed=event.step, note=note)
                elif isinstance(event, EpochEnded):
                    output.note(_epoch_line(event, epochs))
        except KeyboardInterrupt:
            output.note(f"stopped; {folder} holds the model so far and goes on with --resume")
            raise
    return _conclude(net, data, folder, output)


def _start_line(net: Network, data: Dataset, recipe: Recipe, folder: Path, event: Started) -> str:
    at = f" from step {event.step:,}" if event.step else ""
    return (
        f"{net.spec}\ntraining on {data.name}: {len(data.train):,} images, {event.epochs} epochs "
        f"of {recipe.batch}, {event.device}, {event.precision}{at}, in {folder}"
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
