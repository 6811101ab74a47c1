"""Residual networks as a scikit-learn classifier: arrays of pictures in, classes out.

It stands beside the rooms that it uses and is imported by its own name, `from deepskip.sklearn import
ResNetClassifier`; scikit-learn itself is `sklearn`, as everywhere.
"""

from __future__ import annotations

import contextlib
import numbers
import sys
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from deepskip.data.arrays import final, from_arrays
from deepskip.data.dataset import Dataset, Pixels, Split, UniformImages
from deepskip.data.rows import check_same_numbers, flattened, range_of, shape_of, to_pixels
from deepskip.describe import zoo
from deepskip.describe.spec import Spec
from deepskip.errors import InputError
from deepskip.model import Model, load
from deepskip.nets.builder import build
from deepskip.nets.network import Network
from deepskip.scoring import predict_logits
from deepskip.training.engine import fit
from deepskip.training.events import EpochEnded, Noted, Started
from deepskip.training.precision import choose_device
from deepskip.training.recipe import Recipe, named
from deepskip.weights.store import Header

LARGE = 64
"""From this side on pictures are photographs, for ImageNet's family of networks; below, for CIFAR's."""
USUAL = {"resnet_cifar": 20, "resnet": 18}
"""The depth of each family where none is given."""


class ResNetClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A residual network that scikit-learn can fit, clone, search and put into a pipeline.

    Pictures are [n, h, w] or [n, h, w, c] with c = 1 (grey) or 3 (red, green, blue), or rows [n, h · w · c] of
    these. Inside they are 256 levels a channel: uint8 as they are; other numbers by `value_range`, black and
    white, which are by default the smallest and the largest number that `fit` saw. What `fit` saw as uint8
    `predict` must see so too, and the other way round. Training writes no file and,
    unless `verbose`, says nothing; the same numbers and the same parameters give the same network, bit for bit,
    on a processor with the same number of threads.

    Parameters
    ----------
    net : str or Spec, default="auto"
        A zoo name, or a family with a `depth`; "auto" is the family `resnet_cifar`, from 64 pixels on `resnet`.
    depth : int, optional
        Layers, with a family; with "auto" by default 20, from 64 pixels on 18.
    plain : bool, default=False
        Whether to take the plain twin: the same network without shortcuts.
    init : str, Path or Model, optional
        A model to begin with in the place of `net`: its values, its mean and standard deviation.
    recipe : str or Recipe, default="quick"
        How to train: a named recipe, a .yaml file of one, or a value.
    epochs, batch, lr : optional
        Passes over the pictures, pictures a step, peak learning rate; the recipe says by default.
    settings : dict, optional
        Any other fields of the recipe, as {"mixup": 0.2}.
    image_shape : tuple or "pad", optional
        Height and width, or with channels, of what rows hold; by default a square, grey or of three channels.
        "pad" lays features that are no picture into the smallest square, black behind them.
    value_range : tuple of two numbers, optional
        The numbers that are black and white, for pictures that are not uint8.
    validation_fraction : float, default=0.0
        Part of every class that is set aside, to be scored after each epoch; `settings={"patience": 3}` needs
        one.
    device : str, default="auto"
        "cpu", "cuda", or CUDA where there is one.
    precision : str, default="auto"
        Numbers in training: "float32", "bf16", "fp16", or half precision where it is fast.
    verbose : bool, default=False
        Whether to say each epoch's errors on standard error.
    random_state : int, RandomState or None, default=0
        Seed of the initial values, the order of the pictures and their augmentation; None draws one.

    Attributes
    ----------
    classes_ : array [classes]
        The labels that `fit` saw, sorted.
    model_ : Model
        The network, ready to use: `model_.save_pretrained(folder)`, `model_.predict(files)`.
    history_ : list of dict
        A row an epoch: `epoch`, `train_loss`, `train_error` in percent, `learning_rate`, `seconds`, …
    n_features_in_ : int
        Numbers a picture: h · w · c.
    image_shape_ : tuple
        Height, width and channels.
    value_range_ : tuple
        What black and white were.

    Source of the networks: He et al. 2015, arXiv:1512.03385.
    """

    def __init__(
        self,
        net: str | Spec = "auto",
        depth: int | None = None,
        *,
        plain: bool = False,
        init: str | Path | Model | None = None,
        recipe: str | Recipe = "quick",
        epochs: int | None = None,
        batch: int | None = None,
        lr: float | None = None,
        settings: Mapping[str, Any] | None = None,
        image_shape: tuple[int, ...] | str | None = None,
        value_range: tuple[float, float] | None = None,
        validation_fraction: float = 0.0,
        device: str = "auto",
        precision: str = "auto",
        verbose: bool = False,
        random_state: Any = 0,
    ) -> None:
        self.net = net
        self.depth = depth
        self.plain = plain
        self.init = init
        self.recipe = recipe
        self.epochs = epochs
        self.batch = batch
        self.lr = lr
        self.settings = settings
        self.image_shape = image_shape
        self.value_range = value_range
        self.validation_fraction = validation_fraction
        self.device = device
        self.precision = precision
        self.verbose = verbose
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803 - scikit-learn's own name
        """Train on pictures `X` (see the class) with labels `y` [n], and return the classifier.

        Raises InputError, a ValueError, for pictures, labels and parameters that do not go together, and
        DivergedError where training left the finite numbers; what the classifier was before it then still is.
        """
        before = vars(self).copy()
        try:
            return self._fit(X, y)
        except BaseException:  # Ctrl-C, too: new classes beside the old net would be wrong in silence
            self.__dict__ = before
            raise

    def _fit(self, X: Any, y: Any) -> Self:  # noqa: N803
        recipe = self._recipe()
        rows, shape = flattened(X)
        rows, labels = validate_data(self, rows, y)
        check_classification_targets(labels)
        self.classes_, places = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError("y", f"only one class, {self.classes_.tolist()[0]!r}", "two classes or more")
        self.image_shape_ = shape_of(self.image_shape, shape, rows.shape[1])
        self.value_range_ = range_of(self.value_range, rows)
        self._eight_bits = rows.dtype == np.uint8
        seed = _seed(self.random_state)
        begun = load(self.init) if isinstance(self.init, str | Path) else self.init
        data = self._data(to_pixels(rows, self.image_shape_, self.value_range_), places, recipe, begun, seed)
        net = self._network(data, begun, seed)
        started = self._train(net, data, recipe, seed)
        self.model_ = Model(net.eval(), self._header(net, data, recipe, seed, started))
        return self

    def predict(self, X: Any) -> npt.NDArray[Any]:  # noqa: N803
        """Return the most probable class of each picture, [n]."""
        chosen: npt.NDArray[Any] = self.predict_proba(X).argmax(1)
        found: npt.NDArray[Any] = self.classes_[chosen]
        return found

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803
        """Return the probability of each class, float64 [n, classes], in the order of `classes_`."""
        check_is_fitted(self, "model_")
        rows, shape = flattened(X)
        rows = validate_data(self, rows, reset=False)
        if shape not in (None, self.image_shape_):
            raise InputError("X", f"pictures of {shape}", f"{self.image_shape_}, as fit had")
        check_same_numbers(rows, self.value_range_, eight_bits=self._eight_bits)
        pixels = final(to_pixels(rows, self.image_shape_, self.value_range_), self.model_.preprocessing)
        split = Split(UniformImages(pixels), torch.zeros(len(rows), dtype=torch.int64))
        net = self.model_.net.to(choose_device(self.device))
        logits = predict_logits(net, split, self.model_.preprocessing)
        probabilities: npt.NDArray[np.float64] = logits.double().softmax(1).numpy()
        return probabilities

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def __getstate__(self) -> Any:
        state = dict(super().__getstate__())
        if "model_" in state:  # or who has no GPU could not read it
            state["model_"].net.cpu()
        return state

    def _recipe(self) -> Recipe:
        """Return the recipe with this classifier's changes. Raises InputError."""
        base = self.recipe if isinstance(self.recipe, Recipe) else named(self.recipe)
        own = {"epochs": self.epochs, "batch": self.batch, "lr": self.lr}
        given = {**(self.settings or {}), **{key: value for key, value in own.items() if value is not None}}
        recipe = base.replace(**{key: _own(value) for key, value in given.items()})
        if recipe.patience and not self.validation_fraction:
            raise InputError("patience", recipe.patience, "none without a validation_fraction above 0", None)
        return recipe

    def _data(
        self, pixels: Pixels, labels: npt.NDArray[np.int64], recipe: Recipe, begun: Model | None, seed: int
    ) -> Dataset:
        height, width = pixels.shape[1:3]
        if recipe.size is None and height != width:
            got = f"pictures of {height} × {width} pixels"
            raise InputError("X", got, "square ones, or settings={'size': …}: the middle is cut out")
        size = recipe.size or height
        prepared = begun.preprocessing.replace(size=size, resize=size) if begun else None
        # The engine scores after every epoch. Where nothing is set aside that shall cost nothing: one picture,
        # and what it says is left out.
        val = _own(self.validation_fraction) or (pixels[:1], labels[:1])
        names = tuple(str(label) for label in self.classes_.tolist())
        return from_arrays(
            pixels, labels, val=val, classes=names, size=size, preprocessing=prepared, name="arrays", seed=seed
        )

    def _network(self, data: Dataset, begun: Model | None, seed: int) -> Network:
        """Return the network to train. Raises InputError."""
        classes, depth = len(data.classes), _own(self.depth)
        if begun is not None:
            if self.net != "auto" or depth is not None or self.plain:
                raise InputError(
                    "init", "a model beside net, depth or plain", "one of them: a model has its net"
                )
            return begun.adapted(data, seed)[0]
        if isinstance(self.net, Spec):
            if depth is not None:
                raise InputError("depth", depth, "none beside a Spec, which has its own")
            spec = self.net.replace(input=data.input, classes=classes)
        else:
            name = self.net
            if name == "auto":
                name = "resnet" if data.preprocessing.size >= LARGE else "resnet_cifar"
                depth = USUAL[name] if depth is None else depth
            spec = zoo.get(name, depth=depth, classes=classes, input=data.input)
        return build(spec.plain() if self.plain else spec, seed)

    def _train(self, net: Network, data: Dataset, recipe: Recipe, seed: int) -> Started:
        """Train, and keep what each epoch measured; return how it began."""
        self.history_: list[dict[str, Any]] = []
        started: Started | None = None
        with contextlib.closing(
            fit(net, data, recipe, seed=seed, device=self.device, precision=self.precision)
        ) as events:
            for event in events:
                match event:
                    case Started():
                        started = event
                    case EpochEnded():
                        self.history_.append(self._measured(asdict(event)))
                        self._say(self.history_[-1])
                    case Noted():
                        warnings.warn(event.text, RuntimeWarning, stacklevel=3)
        assert started is not None
        return started

    def _measured(self, row: dict[str, Any]) -> dict[str, Any]:
        left_out = () if self.validation_fraction else ("val_loss", "val_error")
        return {key: value for key, value in row.items() if value is not None and key not in left_out}

    def _say(self, row: dict[str, Any]) -> None:
        if self.verbose:
            val = f"  val error {row['val_error']:.2f}%" if "val_error" in row else ""
            sys.stderr.write(
                f"epoch {row['epoch']}  train loss {row['train_loss']:.4f}  "
                f"train error {row['train_error']:.2f}%{val}\n"
            )

    def _header(self, net: Network, data: Dataset, recipe: Recipe, seed: int, started: Started) -> Header:
        """Return what the model's file would say."""
        images = {"train": len(data.train)} | ({"val": len(data.val)} if self.validation_fraction else {})
        given = {"init": str(self.init)} if isinstance(self.init, str | Path) else {}
        return Header(
            spec=net.spec,
            classes=data.classes,
            preprocessing=data.preprocessing,
            provenance={
                "data": {"name": data.name, "fingerprint": data.fingerprint},
                "images": images,
                "value_range": list(self.value_range_),
                "recipe": recipe.model_dump(mode="json"),
                "seed": seed,
                "precision": started.precision,
                "torch": torch.__version__,
                "steps": started.steps,
                **given,
            },
            metrics=self.history_[-1],
        )


def _own(value: Any) -> Any:
    """Return Python's own number for one of numpy's, which searches hand out."""
    return value.item() if isinstance(value, np.generic) else value


def _seed(random_state: Any) -> int:
    """Return the seed that scikit-learn's `random_state` means."""
    if isinstance(random_state, numbers.Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))
