"""Recipes: all that a training run does, as a frozen value. Named ones state command, cost and score."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from deepskip.data.variation import Alpha, Augment
from deepskip.describe.value import Value
from deepskip.errors import InputError, choices, nearest
from deepskip.files import nearest_path

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]
SUFFIXES = {".yaml", ".yml", ".json"}


class Recipe(Value):
    """How a network is trained: SGD with momentum, a learning-rate schedule, and what is done to the images."""

    epochs: Count = 30
    """Passes over the training images."""
    max_steps: Count | None = None
    """Stop after this many steps, whatever `epochs` says; the schedule ends there too."""
    batch: Count = 128
    """Images a step."""
    lr: Rate = 0.1
    """Peak learning rate."""
    optimiser: Literal["sgd", "muon"] = "sgd"
    """How steps follow gradients: "sgd", stochastic gradient descent with momentum; "muon", the same with the
    update of every convolution made orthogonal, which needs fewer steps (Jordan et al. 2024)."""
    momentum: Fraction = 0.9
    """Momentum of the optimiser."""
    nesterov: bool = True
    """Whether the momentum is Nesterov's."""
    weight_decay: NonNegative = 5e-4
    """L2 penalty on the weights of convolutions and of the linear layer."""
    decay_all: bool = False
    """Whether normalisers and biases are decayed too, as the papers do."""
    schedule: Literal["one_cycle", "cosine", "step", "constant"] = "one_cycle"
    """Shape of the learning rate over the run: linear up then cosine down; cosine down; divided by 10 at each
    milestone; constant."""
    warmup: Fraction = 0.2
    """Share of the run over which the rate rises linearly, from lr / 25, in every schedule."""
    milestones: tuple[Fraction, ...] = (0.5, 0.75)
    """Where the "step" schedule divides the rate by 10, as shares of the run."""
    hold_lr: Rate | None = None
    """A rate to hold before the schedule starts, until the training error of an epoch is below `hold_error`
    (He et al. 2015, §4.2: 0.01 for ResNet-110). The schedule then has the steps that are left."""
    hold_error: Annotated[float, Field(gt=0, le=100)] = 80.0
    """Training error, in percent, that ends the hold."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target spread over all classes (Szegedy et al. 2016, arXiv:1512.00567, §7)."""
    class_weights: Literal["none", "balanced"] = "none"
    """Whether images count by their class: "balanced" gives every class the same sum, however few it has."""
    augment: Literal["auto"] | Augment = "auto"
    """What is done to training images: "crop_flip" pads by 4, crops and flips (32-pixel images), "photo" cuts
    a random part, resizes and flips; "auto" is what suits the data."""
    trivial: bool = False
    """Whether each image also gets one random operation of a random strength (TrivialAugment: Müller and Hutter
    2021, arXiv:2103.10158)."""
    erase: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that a random box of an image is erased (Zhong et al. 2017, arXiv:1708.04896)."""
    mixup: Alpha = 0.0
    """Strength α of mixing pairs of images, 0 for none (Zhang et al. 2018, arXiv:1710.09412; 0.2 is usual)."""
    cutmix: Alpha = 0.0
    """Strength α of pasting boxes between images, 0 for none (Yun et al. 2019, arXiv:1905.04899; 1 in the
    paper). With mixup too, each batch has one of them, evenly."""
    size: Annotated[int, Field(ge=4, le=4096)] | None = None
    """Height and width of the network's input, in pixels, for a folder; by default from its images."""
    sizes: tuple[Annotated[int, Field(ge=4, le=4096)], ...] = ()
    """Sizes to train at, one after the other over the epochs (96, 112, 128), for "photo" images; scores are at
    `size`. Small images first cost less (progressive resizing: Howard 2018)."""
    accumulate: Count = 1
    """Parts that a batch is taken in, one after the other, when it does not fit at once. Batch normalisation
    then sees a part at a time."""
    clip: Rate | None = None
    """Largest norm of the gradient, over all parameters; longer ones are scaled down to it (Pascanu et al.
    2013, arXiv:1211.5063)."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay a step of a moving average of the weights, 0 for none (0.999 is usual); the average is what is
    scored and saved."""
    patience: Count | None = None
    """Epochs without a lower validation error after which the run ends early; `best.safetensors` then holds the
    best epoch's net. That number is a choice made on the validation images: measure on others."""
    freeze: tuple[str, ...] = ()
    """Parts of the net to leave as they are, for fine-tuning: `stem`, `stages.s1`, …; their normalisers keep
    their statistics."""
    sync_norm: bool = False
    """Whether batch normalisation is over all processes' images, when several train together."""

    @model_validator(mode="after")
    def _agree(self) -> Recipe:
        if self.nesterov and self.momentum == 0:
            raise InputError("nesterov", "true with momentum 0", "a momentum above 0, or nesterov=false")
        if list(self.milestones) != sorted(self.milestones):
            raise InputError("milestones", list(self.milestones), "rising shares of the run")
        return self

    def set(self, settings: dict[str, str]) -> Recipe:
        """Return this recipe with fields changed from text, as `--set KEY=VALUE` does. Raises InputError."""
        changes: dict[str, Any] = {}
        for key, text in settings.items():
            if key not in Recipe.model_fields:
                names = list(Recipe.model_fields)
                raise InputError("--set", f"unknown key {key!r}", choices(names, most=40), nearest(key, names))
            default = Recipe.model_fields[key].default
            if default is None and text.lower() in ("none", "null"):  # elsewhere "none" is a word as others are
                changes[key] = None
            elif isinstance(default, tuple):
                changes[key] = tuple(part for part in text.strip("()[] ").split(",") if part.strip())
            else:
                changes[key] = text
        return self.replace(**changes)


RECIPES: dict[str, Recipe] = {
    # deepskip train cifar10 --net resnet20_cifar --epochs 10
    # The default: one cycle, from scratch, on anything. That command: about 7 minutes on two cores with bf16,
    # 13.5% error on CIFAR-10 (one seed); 3 epochs on Fashion-MNIST: 9.4%.
    "quick": Recipe(),
    # deepskip train cifar10 --net resnet56_cifar --recipe he2015_cifar
    # ResNet-20: 8.26% test error (one seed, last epoch) in 101 minutes on two cores with AMX bf16; the paper
    # has 8.75% (table 6). ResNet-56 was not run to its end here; the paper has 6.97%.
    # He et al. 2015, §4.2: 64,000 steps of 128, rate 0.1 divided by 10 at 32,000 and 48,000. The paper decays
    # every parameter and does not mention Nesterov; ResNet-110 is held at 0.01 until its training error is
    # below 80% (add --set hold_lr=0.01). Where we differ: the paper subtracts a mean per pixel; we subtract
    # one per channel and divide by the channel's standard deviation.
    "he2015_cifar": Recipe(
        epochs=164,
        max_steps=64_000,
        batch=128,
        lr=0.1,
        nesterov=False,
        weight_decay=1e-4,
        decay_all=True,
        schedule="step",
        warmup=0.0,
        milestones=(0.5, 0.75),
        augment="crop_flip",
    ),
    # deepskip study depth digits
    # Short, and the same for every depth and kind: 30 trainings in about 3 minutes on two cores; residual nets
    # of 8 to 110 layers end at 0% training error, plain ones do not. The first epochs are held at a low rate,
    # which the paper does for ResNet-110 alone; here every net gets the same treatment.
    "depth": Recipe(epochs=12, batch=120, lr=0.03, hold_lr=0.01),
    # deepskip study spectrum digits
    # Short, at a high rate and without a hold: what an ingredient is good for has to show.
    "spectrum": Recipe(epochs=12, batch=120, lr=0.07),
    # deepskip train digits --net preresnet10004_skipinit_w8_cifar --recipe thousands
    # Nets of thousands of layers without normalisers, on small images. The clipped gradient bounds how far all
    # their branches move together in a step, whatever the depth. On digits 3.3% validation error and 0%
    # training error in 26 minutes on one core (one seed); with preresnet1004_skipinit_w8_cifar 3.6% in 5.
    "thousands": Recipe(epochs=12, batch=120, lr=0.1, clip=1.0),
    # deepskip train imagenette2-160/ --net resnet18_d --recipe imagenette
    # Photographs at 128 pixels, from scratch, in few epochs. Imagenette: 13.28 ± 0.31% error (n = 3, last
    # epoch), about 6 minutes each on two cores with AMX bf16. With SGD (lr 0.1, weight decay 5e-4, ResNet-18)
    # it was 23.7% (one seed).
    "imagenette": Recipe(
        epochs=5,
        batch=64,
        lr=0.05,
        optimiser="muon",
        weight_decay=0.01,
        schedule="one_cycle",
        warmup=0.15,
        label_smoothing=0.1,
        augment="photo",
        size=128,
    ),
}


def named(name: str) -> Recipe:
    """Return the recipe called `name`, or the one in the file `name`. Raises InputError, naming the nearest."""
    if Path(name).suffix.lower() in SUFFIXES:
        return read_recipe(Path(name))
    if name not in RECIPES:
        raise InputError("recipe", repr(name), f"{choices(RECIPES)}, or a .yaml file", nearest(name, RECIPES))
    return RECIPES[name]


def read_recipe(path: Path) -> Recipe:
    """Return the recipe in a YAML (or JSON) file: fields and their values; `recipe: NAME` says where the others
    are from, `quick` by default.

    Raises InputError, naming the file, for an unknown field (with the nearest) and a wrong value.
    """
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "problem", None) or "no text"
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
        missing = isinstance(error, FileNotFoundError)
        near = nearest_path(path, lambda other: other.suffix.lower() in SUFFIXES) if missing else None
        raise InputError(path, f"{reason}{line}".lower(), "a YAML file of a recipe's fields", near) from error
    if found is None:
        found = {}
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise InputError(path, "no mapping", "a YAML file of a recipe's fields, as `epochs: 30`")
    base = named(str(found.pop("recipe", "quick")))
    unknown = next((key for key in found if key not in Recipe.model_fields), None)
    if unknown is not None:
        names = list(Recipe.model_fields)
        raise InputError(path, f"unknown field {unknown!r}", choices(names, most=40), nearest(unknown, names))
    try:
        return base.replace(**found)
    except InputError as error:
        field = str(error.where).removeprefix("Recipe.")  # as the file has it
        raise InputError(f"{path}: {field}", error.got, error.allowed, error.nearest) from error
