"""`deepskip train`: a network, trained on the user's images, in a run folder."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from deepskip.cli.show import Output, count, duration
from deepskip.errors import InputError

if TYPE_CHECKING:
    from deepskip.data.dataset import Dataset
    from deepskip.nets.network import Network
    from deepskip.scoring import Score
    from deepskip.training.recipe import Recipe

Settings = Annotated[
    tuple[str, ...], Parameter(name="--set", negative="", consume_multiple=False, show_default=False)
]


def train(
    data: str,
    /,
    *,
    net: str = "resnet18",
    depth: int | None = None,
    plain: bool = False,
    epochs: int | None = None,
    batch: int | None = None,
    lr: float | None = None,
    seed: int = 0,
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
        warn_broken(opened, output)
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


def warn_broken(data: Dataset, output: Output, most: int = 20) -> None:
    """Name the files that could not be read, and say how many there are and that the work goes on."""
    if not data.broken:
        return
    for line in data.broken[:most]:
        output.warn(line)
    more = f" ({len(data.broken) - most} more not shown)" if len(data.broken) > most else ""
    total = len(data.train) + len(data.val) + len(data.broken)
    output.warn(f"{len(data.broken)} of {total} files are broken and left out{more}")


def command_line() -> str:
    """Return the command as it was typed, for reports."""
    return shlex.join(["deepskip", *sys.argv[1:]])


@contextlib.contextmanager
def stopping() -> Iterator[list[bool]]:
    """Yield a list that becomes non-empty at the first Ctrl-C or TERM; the second one interrupts at once."""
    asked: list[bool] = []

    def ask(number: int, frame: object) -> None:
        asked.append(True)
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
    started: Started | None = None
    with stopping() as asked, output.bars() as bars:
        task = None
        for event in events:
            if isinstance(event, Started):
                started = event
                at = f" from step {event.step:,}" if event.step else ""
                output.note(
                    f"{net.spec}\ntraining on {data.name}: {len(data.train):,} images, {event.epochs} epochs "
                    f"of {recipe.batch}, {event.device}, {event.precision}{at}, in {folder}"
                )
                task = bars.add_task("training", total=event.steps, completed=event.step, note="")
            elif isinstance(event, Stepped) and task is not None:
                bars.update(task, completed=event.step, note=f"epoch {event.epoch}  loss {event.loss:.3f}")
                if asked:
                    break
            elif isinstance(event, EpochEnded):
                output.note(_epoch_line(event, started.epochs if started else event.epoch))
        if asked:
            events.close()  # type: ignore[attr-defined]
            output.note(f"stopped; {folder} holds the model so far and goes on with --resume")
            raise KeyboardInterrupt
    assert started is not None
    return _conclude(net, data, recipe, folder, seed, started, output)


def _epoch_line(event: Any, epochs: int) -> str:
    return (
        f"epoch {event.epoch:>{len(str(epochs))}}/{epochs}  train loss {event.train_loss:.4f}  "
        f"train error {event.train_error:5.2f}%  val error {event.val_error:5.2f}%  "
        f"{event.images_per_second:,.0f} images/s  {duration(event.seconds)}"
    )


def _conclude(
    net: Network, data: Dataset, recipe: Recipe, folder: Path, seed: int, started: Any, output: Output
) -> dict[str, Any]:
    from deepskip.describe import ledger
    from deepskip.figures.confusion import confusion
    from deepskip.figures.curves import run_curves
    from deepskip.files import write_text
    from deepskip.reports.run import run_report
    from deepskip.scoring import score
    from deepskip.training.rundir import METRICS, read_rows

    rows = read_rows(folder / METRICS)
    found = score(net, data.val, data.preprocessing)
    cost = ledger.count(net.spec)
    summary: dict[str, Any] = {
        "name": net.spec.name,
        "data": data.name,
        "layers": cost.layers,
        "params": cost.params,
        "macs": cost.macs,
        "input": list(net.spec.input),
        "recipe": recipe.model_dump(mode="json"),
        "seed": seed,
        "device": started.device,
        "precision": started.precision,
        "seconds": rows[-1]["seconds"],
        "command": command_line(),
        "status": "finished",
        "score": score_dict(found, data.classes) | {"confusion": found.confusion},
    }
    figures = {"curves": run_curves(rows), "confusion": confusion(found.confusion, data.classes)}
    write_text(folder / "report.html", run_report(summary, rows, figures))
    last = rows[-1]
    output.say(
        f"{net.spec.name} on {data.name}: validation error {last['val_error']:.2f}%, train error "
        f"{last['train_error']:.2f}%, {count(cost.params)} parameters, {duration(last['seconds'])}\n"
        f"{folder / 'report.html'}"
    )
    return {"out": str(folder), "name": net.spec.name, **last, "report": str(folder / "report.html")}


def score_dict(found: Score, classes: Sequence[str]) -> dict[str, Any]:
    """Return a score as `evaluate --json` prints it."""
    fields = asdict(found)
    fields.pop("confusion")
    return {**fields, "classes": found.classes(classes)}
