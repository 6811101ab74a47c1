"""The scikit-learn classifier: scikit-learn's own checks, its tools around it, pictures of every form."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import deepskip as ds
from deepskip.sklearn import ResNetClassifier

X, Y = load_digits(return_X_y=True)
PICTURES = X.reshape(-1, 8, 8)
SMALL: dict[str, Any] = {"depth": 8, "epochs": 1, "batch": 100}
COLOUR = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), np.uint8)
COLOUR[::2, ..., 0] //= 4  # what tells the classes apart
SIDES = np.arange(24) % 2


# The checks have tables of few rows and features: no pictures, so they are laid into squares.
@parametrize_with_checks([ResNetClassifier(depth=8, epochs=4, batch=25, lr=0.05, image_shape="pad")])
def test_scikit_learns_own_checks(estimator: ResNetClassifier, check: Callable[[Any], None]) -> None:
    check(estimator)


def test_digits_are_learnt() -> None:
    found = ResNetClassifier(depth=8, epochs=3).fit(X[:1200], Y[:1200])
    assert found.score(X[1200:], Y[1200:]) > 0.85
    assert found.classes_.tolist() == list(range(10))
    assert found.image_shape_ == (8, 8, 1)
    assert found.value_range_ == (0, 16)
    assert [row["epoch"] for row in found.history_] == [1, 2, 3]


def test_one_net_whatever_form_the_pictures_have() -> None:
    levels = np.rint(X[:200] / 16 * 255)
    forms = (
        levels.astype(np.uint8),
        levels,
        levels.astype(np.float32).reshape(-1, 8, 8),
        levels.astype(np.uint8).reshape(-1, 8, 8, 1),
        torch.from_numpy(levels).reshape(-1, 8, 8),
        (levels / 255),
    )
    found = [ResNetClassifier(**SMALL).fit(form, Y[:200]) for form in forms]
    expected = found[0].predict_proba(forms[0])
    for other, form in zip(found[1:], forms[1:], strict=True):
        assert np.array_equal(other.predict_proba(form), expected)
    assert np.array_equal(found[2].predict_proba(forms[1]), expected)  # rows for who has seen pictures


def test_the_seed_decides_and_nothing_else() -> None:
    def probabilities(**changed: Any) -> Any:
        torch.manual_seed(len(changed))
        return ResNetClassifier(**{**SMALL, **changed}).fit(X[:100], Y[:100]).predict_proba(X[:5])

    assert np.array_equal(probabilities(), probabilities())
    assert not np.array_equal(probabilities(), probabilities(random_state=1))
    same = [probabilities(random_state=np.random.RandomState(3)) for _ in range(2)]
    assert np.array_equal(*same)
    before, numpys = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    ResNetClassifier(**SMALL).fit(X[:100], Y[:100])
    assert torch.equal(torch.random.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpys)  # noqa: NPY002


def test_training_leaves_no_file_and_says_nothing(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cache = Path(os.environ["DEEPSKIP_DATA"])
    before = sorted(cache.rglob("*"))
    found = ResNetClassifier(**SMALL).fit(PICTURES[:50], Y[:50])
    found.predict(PICTURES[:2])
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    assert sorted(cache.rglob("*")) == before
    ResNetClassifier(**{**SMALL, "epochs": 2}, verbose=True, validation_fraction=0.2).fit(PICTURES[:90], Y[:90])
    out, err = capfd.readouterr()
    assert out == ""
    assert [line.split("  ")[0] for line in err.splitlines()] == ["epoch 1", "epoch 2"]
    assert all("val error" in line for line in err.splitlines())


def test_in_a_pipeline_a_search_and_a_cross_validation() -> None:
    pipeline = make_pipeline(StandardScaler(), ResNetClassifier(**SMALL))
    assert len(cross_val_score(pipeline, X[:120], Y[:120], cv=2)) == 2
    grid = {"resnetclassifier__depth": np.array([8, 14]), "resnetclassifier__settings": [{"mixup": 0.2}]}
    found = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X[:120], Y[:120])
    best = found.best_estimator_[-1]
    assert best.model_.net.spec.layers == found.best_params_["resnetclassifier__depth"]
    assert best.model_.header.provenance["recipe"]["mixup"] == 0.2
    assert best.value_range_[0] < 0  # what the scaler made


def test_a_copy_predicts_the_same_and_a_clone_forgets() -> None:
    found = ResNetClassifier(**SMALL, net="resnet_cifar", plain=True).fit(PICTURES[:60], Y[:60].astype(str))
    copy = pickle.loads(pickle.dumps(found))
    assert np.array_equal(copy.predict_proba(PICTURES), found.predict_proba(PICTURES))
    assert set(copy.predict(PICTURES)) <= set("0123456789")
    assert copy.model_.net.spec.name == "plain8_cifar"
    fresh = clone(found)
    assert fresh.get_params() == found.get_params()
    with pytest.raises(NotFittedError):
        fresh.predict(PICTURES)


def test_the_model_is_one_as_any_other(tmp_path: Path) -> None:
    found = ResNetClassifier(**SMALL, validation_fraction=0.25).fit(COLOUR, np.where(SIDES, "odd", "even"))
    assert found.model_.classes == ("even", "odd")
    assert not found.model_.net.training
    found.model_.save_pretrained(tmp_path / "saved")
    loaded = ds.load(tmp_path / "saved")
    known = loaded.header.provenance
    assert known["images"] == {"train": 18, "val": 6}
    assert known["recipe"]["epochs"] == 1
    assert "val_error" in loaded.header.metrics
    from PIL import Image

    Image.fromarray(COLOUR[0]).save(tmp_path / "picture.png")
    said = loaded.predict([tmp_path / "picture.png"])[0]
    expected = found.predict_proba(COLOUR[:1])[0]
    assert said.probabilities["even"] == pytest.approx(expected[0], abs=1e-6)
    without = ResNetClassifier(**SMALL).fit(COLOUR, SIDES)
    assert "val_error" not in without.model_.header.metrics
    assert without.model_.header.provenance["images"] == {"train": 24}


def test_it_goes_on_from_a_model(tmp_path: Path) -> None:
    first = ResNetClassifier(**SMALL).fit(COLOUR, SIDES)
    first.model_.save_pretrained(tmp_path / "first")
    frozen = {"freeze": ("stem", "stages")}
    for init in (first.model_, str(tmp_path / "first"), tmp_path / "first"):
        second = ResNetClassifier(init=init, epochs=1, settings=frozen).fit(COLOUR[::-1] // 2, SIDES + 3)
        assert second.model_.preprocessing == first.model_.preprocessing
        assert second.classes_.tolist() == [3, 4]
        for name, tensor in first.model_.net.state_dict().items():
            same = torch.equal(tensor, second.model_.net.state_dict()[name])
            assert same == (not name.startswith("head")), name
    assert second.model_.header.provenance["init"] == str(tmp_path / "first")


def test_pictures_that_are_not_square_are_cut_where_a_size_is_given() -> None:
    with pytest.raises(ds.InputError, match=r"X: got pictures of 8 × 6 pixels; allowed: square ones"):
        ResNetClassifier(**SMALL).fit(COLOUR[:, :, 1:7], SIDES)
    found = ResNetClassifier(**SMALL, settings={"size": 5}).fit(COLOUR[:, :, 1:7], SIDES)
    assert found.model_.net.spec.input == (3, 5, 5)
    assert found.predict_proba(COLOUR[:, :, 1:7]).shape == (24, 2)


def test_the_net_suits_the_pictures() -> None:
    large = np.random.default_rng(0).integers(0, 256, (4, 64, 64), np.uint8)
    found = ResNetClassifier(settings={"max_steps": 1}).fit(large, [0, 1, 0, 1])
    assert found.model_.net.spec.name == "resnet18"
    found = ResNetClassifier(settings={"max_steps": 1}).fit(large[:, :63, :63], [0, 1, 0, 1])
    assert found.model_.net.spec.name == "resnet20_cifar"
    spec = ds.zoo.cifar(8, order="pre")
    found = ResNetClassifier(spec, settings={"max_steps": 1}).fit(large[:, :9, :9], [0, 1, 0, 1])
    assert found.model_.net.spec.order == "pre"


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"net": "resnet21_cifar"}, "depth: got 21; allowed: 6n + 2; nearest: 20 or 26"),
        ({"net": "resnet20_cifr"}, "nearest: resnet20_cifar"),
        ({"net": ds.zoo.cifar(8), "depth": 8}, "depth: got 8; allowed: none beside a Spec"),
        ({"init": "nowhere"}, "nowhere: got no such file or folder"),
        ({"recipe": "quik"}, "recipe: got 'quik'; allowed: quick"),
        ({"epochs": 0}, "Recipe.epochs: got 0"),
        ({"settings": {"mixip": 1}}, "unknown field 'mixip'"),
        ({"settings": {"patience": 2}}, "patience: got 2; allowed: none without a validation_fraction"),
        ({"image_shape": (9, 9)}, "X: got 64 features; allowed: 81"),
        ({"value_range": (1, 1)}, "value_range: got (1, 1)"),
        ({"validation_fraction": -0.5}, "val: got -0.5; allowed: a part between 0 and 1"),
        ({"device": "gpu"}, "--device: got 'gpu'"),
        ({"precision": "half"}, "--precision: got 'half'"),
    ],
)
def test_wrong_parameters_are_said_in_one_line(parameters: dict[str, Any], says: str) -> None:
    with pytest.raises(ds.InputError) as raised:
        ResNetClassifier(**parameters).fit(X[:20], Y[:20])
    assert says in str(raised.value)


def test_init_has_its_own_net() -> None:
    model = ResNetClassifier(**SMALL).fit(COLOUR, SIDES).model_
    with pytest.raises(ds.InputError, match="init: got a model beside net, depth or plain"):
        ResNetClassifier(init=model, depth=8).fit(COLOUR, SIDES)
    with pytest.raises(ds.InputError, match="images: got 1 channel; allowed: 3, as the model has"):
        ResNetClassifier(init=model).fit(COLOUR[..., 0], SIDES)


def test_pictures_of_another_shape_are_refused() -> None:
    found = ResNetClassifier(**SMALL).fit(COLOUR, SIDES)
    assert found.predict(COLOUR.reshape(24, -1)).shape == (24,)
    with pytest.raises(ValueError, match="expecting 192 features"):
        found.predict(COLOUR[:, :7])
    with pytest.raises(
        ds.InputError, match=r"X: got pictures of \(12, 16, 1\); allowed: \(8, 8, 3\), as fit had"
    ):
        found.predict(COLOUR.reshape(24, 12, 16))


def test_a_fit_that_fails_changes_nothing() -> None:
    found = ResNetClassifier(**SMALL)
    with pytest.raises(ds.InputError):
        found.set_params(epochs=0).fit(COLOUR, SIDES)
    with pytest.raises(ds.InputError):
        found.set_params(epochs=1, device="gpu").fit(COLOUR, SIDES)
    with pytest.raises(NotFittedError):
        found.predict(COLOUR)
    found.set_params(device="cpu").fit(COLOUR, np.where(SIDES, "odd", "even"))
    before = vars(found).copy()
    expected = found.predict_proba(COLOUR)
    with pytest.raises(ds.DivergedError):
        found.set_params(epochs=3, batch=10, lr=1e30).fit(X[:100], Y[:100])
    found.set_params(epochs=1, batch=100, lr=None)
    assert all(getattr(found, name) is value for name, value in before.items())
    assert found.classes_.tolist() == ["even", "odd"]
    assert np.array_equal(found.predict_proba(COLOUR), expected)


def test_eight_bits_and_other_numbers_are_not_mixed() -> None:
    levels, parts = COLOUR, COLOUR / 255
    with pytest.raises(ds.InputError, match=r"value_range: got \(0, 1\); allowed: none beside uint8"):
        ResNetClassifier(**SMALL, value_range=(0, 1)).fit(levels, SIDES)
    found = ResNetClassifier(**SMALL, value_range=(0, 1)).fit(parts, SIDES)
    with pytest.raises(ds.InputError, match="X: got uint8, 0 to 255; allowed: numbers from 0 to 1"):
        found.predict(levels)
    found = ResNetClassifier(**SMALL).fit(levels, SIDES)
    with pytest.raises(ds.InputError, match="X: got numbers of type float64; allowed: uint8, as fit had"):
        found.predict(parts)
    assert np.array_equal(found.predict_proba(levels.astype(int)), found.predict_proba(levels))
    found = ResNetClassifier(**SMALL, value_range=(0, 255)).fit(levels.astype(float), SIDES)
    assert np.array_equal(found.predict_proba(levels.astype(float)), found.predict_proba(levels))


def test_training_that_diverges_is_said() -> None:
    with pytest.raises(ds.DivergedError):
        ResNetClassifier(depth=8, epochs=3, batch=10, lr=1e30).fit(X[:100], Y[:100])
