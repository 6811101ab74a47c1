"""What `train` puts together before it trains: data, net, and the way to compute."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepskip.cli.show import Output, duration

if TYPE_CHECKING:
    import torch

    from deepskip.data.dataset import Dataset
    from deepskip.describe.spec import Spec
    from deepskip.model import Model
    from deepskip.nets.network import Network
    from deepskip.training.recipe import Recipe
    from deepskip.training.way import Way


def initial_model(init: str | None) -> Model | None:
    """Return the model that training begins with, if any. Raises InputError."""
    if init is None:
        return None
    from deepskip.model import load

    return load(init)


def open_data(data: str, size: int | None, model: Model | None, progress: Any) -> Dataset:
    """Open the data, for a model's continuation with its mean and deviation and, unless given, its size."""
    from deepskip.data import sources
    from deepskip.data.published import PUBLISHED

    if model is None:
        return sources.open_dataset(data, size=size, progress=progress)
    prepared = model.preprocessing
    wanted = PUBLISHED[data].size if data in PUBLISHED else size or prepared.size
    if wanted != prepared.size:
        margin = prepared.resize / prepared.size if data not in PUBLISHED else 1
        prepared = prepared.replace(size=wanted, resize=round(wanted * margin))
    elif data in PUBLISHED:
        prepared = prepared.replace(resize=wanted)
    return sources.open_dataset(data, preprocessing=prepared, progress=progress)


def build_net(
    data: Dataset, net: str, depth: int | None, plain: bool, model: Model | None, seed: int
) -> tuple[Network, list[str]]:
    """Return the net to train, and what its user should know of it. Raises InputError."""
    from deepskip.describe import zoo
    from deepskip.nets.builder import build

    if model is not None:
        return model.adapted(data, seed)
    spec = zoo.get(net, depth=depth, classes=len(data.classes), input=data.input)
    return build(spec.plain() if plain else spec, seed), []


def refuse_early(net: Network, data: Dataset, recipe: Recipe, out: Path) -> None:
    """Refuse what training would, as far as it is known before a way is measured. Raises InputError."""
    from deepskip.training.frozen import Frozen
    from deepskip.training.plan import agree
    from deepskip.training.rundir import refuse

    agree(net, data, recipe)
    Frozen(net, recipe.freeze)
    refuse(out)


def fastest_way(
    spec: Spec,
    data: Dataset,
    recipe: Recipe,
    place: torch.device,
    precision: str,
    memory: str,
    tune: str,
    folder: Path,
    output: Output,
) -> Way | None:
    """Return the measured way to train; None where the run in `folder` has one, or by rule."""
    from deepskip.data.batches import steps_per_epoch
    from deepskip.training.distributed import launched
    from deepskip.training.memory import at_once
    from deepskip.training.memory import choose as choose_memory
    from deepskip.training.precision import choose_precision
    from deepskip.training.rundir import held_way
    from deepskip.training.tuning import choose

    # Several processes would have to agree on what each of them measured, on cores that they share.
    if tune == "off" or launched() or held_way(folder) is not None:
        return None
    steps = recipe.epochs * steps_per_epoch(len(data.train), recipe.batch)
    steps = min(steps, recipe.max_steps or steps)
    images = at_once(recipe.batch, len(data.train), recipe.accumulate, 1)
    numbers = choose_precision(precision, place, min(spec.input[1:]))
    kept = choose_memory(spec, images, memory, numbers, place)
    again = tune == "again"
    found = choose(spec, recipe, steps, place, precision=precision, memory=kept, images=images, again=again)
    for way, step, first in found.timed:
        compiling = f", the first {duration(first)}" if way.compile != "none" else ""
        chosen = "  (chosen)" if way == found.way else ""
        output.note(f"{images / step:9,.0f} images/s  {way}{compiling}{chosen}")
    if found.remembered:
        output.note(f"as measured before: {found.way} (--tune again measures anew)")
    return found.way
