"""Data sets from arrays: what goes in comes out, splits are fair, wrong input is said; pictures in rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import deepskip.data as data
from deepskip.data import arrays
from deepskip.data.decode import fit, from_pixels
from deepskip.data.rows import flattened, range_of, shape_of, to_pixels
from deepskip.describe.preprocessing import Preprocessing
from deepskip.errors import InputError

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (40, 6, 6), np.uint8)
COLOUR = RANDOM.integers(0, 256, (40, 9, 7, 3), np.uint8)
LABELS = np.arange(40) % 4


def pictures(split: data.Split) -> np.ndarray[Any, Any]:
    return np.stack([split.images[i] for i in range(len(split))])


def test_every_picture_is_in_one_split_with_its_label() -> None:
    made = data.from_arrays(GREY, LABELS)
    assert made.classes == ("0", "1", "2", "3")
    assert made.input == (1, 6, 6)
    assert (len(made.train), len(made.val)) == (32, 8)
    found = np.concatenate([pictures(made.train), pictures(made.val)])[..., 0]
    labels = torch.cat([made.train.labels, made.val.labels]).tolist()
    before = {picture.tobytes(): label for picture, label in zip(GREY, LABELS, strict=True)}
    assert {p.tobytes(): label for p, label in zip(found, labels, strict=True)} == before


@given(
    st.lists(st.integers(0, 4), min_size=4, max_size=60),
    st.floats(0.01, 0.99),
    st.integers(0, 3),
)
def test_a_part_of_every_class_is_set_aside(labels: list[int], part: float, seed: int) -> None:
    counts = np.bincount(labels)
    made = len({*labels}) > 1 and counts.max() > 1
    images = np.zeros((len(labels), 2, 2), np.uint8)
    if not made:
        with pytest.raises(InputError):
            data.from_arrays(images, labels, val=part, seed=seed)
        return
    held = data.from_arrays(images, labels, val=part, seed=seed, classes=list("abcde")).val.labels
    for label, n in enumerate(counts):
        k = int((held == label).sum())
        assert k <= max(n - 1, 0)
        assert k >= min(1, max(n - 1, 0))
        assert abs(k - part * n) <= 1 or n == 0


def test_the_split_is_its_seed_s() -> None:
    first, again, other = (data.from_arrays(GREY, LABELS, seed=seed).fingerprint for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_mean_and_deviation_are_of_the_training_pictures() -> None:
    made = data.from_arrays(COLOUR[:, :7], LABELS, val=(COLOUR[:3, :7] * 0, LABELS[:3]))
    flat = COLOUR[:, :7].reshape(-1, 3) / 255
    assert made.preprocessing.mean == pytest.approx(flat.mean(0), abs=1e-6)
    assert made.preprocessing.std == pytest.approx(flat.std(0), abs=1e-6)
    blank = data.from_arrays(GREY * 0, LABELS).preprocessing
    assert blank.std == (round(1 / 255, 6),)  # can divide


def test_names_are_classes_and_numbers_are_indices_into_given_ones() -> None:
    names = np.array(["b", "a", "c", "a"] * 10)
    made = data.from_arrays(GREY, names, val=(GREY[:2], ["c", "a"]))
    assert made.classes == ("a", "b", "c")
    assert made.train.labels[:4].tolist() == [1, 0, 2, 0]
    assert made.val.labels.tolist() == [2, 0]
    # Class "0" has index 1: numbers are indices, whatever the names are.
    made = data.from_arrays(GREY[:3], [0, 1, 2], classes=("2", "0", "1"), val=(GREY[:1], [1]))
    assert made.train.labels.tolist() == [0, 1, 2]
    assert made.val.labels.tolist() == [1]
    assert data.from_arrays(GREY[:3], ["2", "0", "1"], classes=("2", "0", "1"), val=(GREY[:1], ["0"])).classes
    assert data.from_arrays(GREY, LABELS > 1).classes == ("False", "True")
    # Without names the numbers are what they are.
    assert data.from_arrays(GREY[:4], [7, -1, 7, -1], val=(GREY[:1], [7])).val.labels.tolist() == [1]


def test_a_size_cuts_the_middle_out_as_predicting_does() -> None:
    made = data.from_arrays(COLOUR, LABELS, size=5)
    assert made.preprocessing.size == made.preprocessing.resize == 5
    held = pictures(made.val)
    assert held.shape == (8, 5, 5, 3)
    whole = {fit(from_pixels(picture), made.preprocessing).tobytes() for picture in COLOUR}
    assert all(picture.tobytes() in whole for picture in held)
    batch = next(data.train_batches(made.train, made.preprocessing, data.Variation(augment="none"), 4, 0, 0))
    assert batch.images.shape == (4, 3, 5, 5)
    assert all(picture.permute(1, 2, 0).numpy().tobytes() in whole for picture in batch.images)


def test_a_model_s_preprocessing_is_used_as_it_is() -> None:
    prepared = Preprocessing(size=6, resize=6, colour="L", mean=(0.25,), std=(0.5,))
    assert data.from_arrays(GREY, LABELS, preprocessing=prepared).preprocessing == prepared
    with pytest.raises(InputError, match="images: got 3 channels; allowed: 1, as the model has"):
        data.from_arrays(COLOUR, LABELS, preprocessing=prepared)
    with pytest.raises(InputError, match="size: got 5; allowed: the model's, 6"):
        data.from_arrays(GREY, LABELS, preprocessing=prepared, size=5)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"images": GREY[0, 0]}, "images: got an array of 6; allowed: [n, h, w]"),
        ({"images": 3}, "images: got an array of a single number"),
        ({"images": GREY[:, None]}, "got an array of 40 × 1 × 6 × 6; allowed: [n, h, w], [n, h, w, 1]"),
        ({"images": COLOUR.transpose(0, 3, 1, 2)}, "nearest: images.transpose(0, 2, 3, 1), if channels stand"),
        (
            {"images": GREY / 255},
            "images: got numbers of type float64; allowed: uint8, 0 to 255; nearest: (255",
        ),
        ({"images": GREY.astype(int)}, "images: got numbers of type int64; allowed: uint8, 0 to 255"),
        ({"images": GREY[:0], "labels": []}, "images: got an array of 0 × 6 × 6; allowed: one picture or more"),
        ({"images": COLOUR}, "images: got pictures of 9 × 7 pixels; allowed: square ones, or a size"),
        ({"labels": LABELS[:5]}, "labels: got 5 labels; allowed: 40, one for each picture"),
        ({"labels": LABELS[:, None]}, "labels: got an array of 2 dimensions; allowed: [n]"),
        ({"labels": LABELS / 2}, "labels: got labels of type float64; allowed: whole numbers or names"),
        ({"labels": np.array([None] * 40)}, "labels: got labels of type object"),
        ({"labels": [3] * 40}, "classes: got only one class, '3'; allowed: two or more"),
        ({"classes": ("a", "b", "a", "c")}, "classes: got 'a' twice; allowed: names that differ"),
        ({"classes": ("a", "b")}, "labels: got 2; allowed: 0 to 1, an index into a, b"),
        ({"labels": ["cat", "dgo"] * 20, "classes": ("cat", "dog")}, "unknown class 'dgo'"),
        ({"val": 0.0}, "val: got 0.0; allowed: a part between 0 and 1"),
        ({"val": 1.5}, "val: got 1.5"),
        ({"val": (GREY[:1], LABELS[:2])}, "val: labels: got 2 labels; allowed: 1"),
        ({"val": (COLOUR[:1], LABELS[:1])}, "val: images: got 3 channels; allowed: 1, as the others have"),
        ({"val": (GREY[:1], [9])}, "val: labels: got unknown class '9'; allowed: 0, 1, 2, 3"),
        ({"val": (GREY[:1], LABELS[:1], 3)}, "val: got 3 things"),
        ({"val": [GREY[:1], LABELS[:2]]}, "val: labels: got 2 labels; allowed: 1"),
        ({"val": "0.2"}, "val: got '0.2'; allowed: a part between 0 and 1, or images and labels; nearest: 0.2"),
        ({"val": GREY[0, 0]}, "val: got a ndarray; allowed: a part between 0 and 1, or images and labels"),
        ({"images": GREY[:4], "labels": LABELS[:4]}, "labels: got one picture in each class; allowed: more"),
    ],
)
def test_wrong_arrays_are_said_in_one_line(change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as raised:
        data.from_arrays(**{"images": GREY, "labels": LABELS, **change})
    assert says in str(raised.value)


def test_a_validation_split_may_be_a_list_of_two() -> None:
    made = data.from_arrays(GREY, LABELS, val=[GREY[:3], LABELS[:3]])
    assert (len(made.train), len(made.val)) == (40, 3)


def test_mean_and_deviation_of_many_pictures_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = data.from_arrays(GREY, LABELS).preprocessing
    counted: list[int] = []
    bincount = np.bincount

    def counting(levels: Any, **given: Any) -> Any:
        counted.append(len(levels))
        return bincount(levels, **given)

    monkeypatch.setattr(arrays, "COUNTED", 100)
    monkeypatch.setattr(np, "bincount", counting)
    assert data.from_arrays(GREY, LABELS).preprocessing == whole
    assert max(counted) <= 100
    assert sum(counted) == 32 * 36


# Rows -------------------------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]))
def test_the_shape_of_a_square_picture_is_found(side: int, other: int, channels: int) -> None:
    assert shape_of(None, None, side * side * channels) == (side, side, channels)
    assert shape_of((side, other, channels), None, side * other * channels) == (side, other, channels)
    assert shape_of((side, other), None, side * other) == (side, other, 1)
    assert shape_of(None, (side, other, channels), side * other * channels) == (side, other, channels)


@given(st.integers(1, 5000))
def test_the_smallest_square_has_room(features: int) -> None:
    side, width, channels = shape_of("pad", None, features)
    assert (side, channels) == (width, 1)
    assert side**2 >= features
    assert side == 4 or (side - 1) ** 2 < features


@given(st.data())
def test_numbers_become_the_nearest_level(drawn: st.DataObject) -> None:
    low = drawn.draw(st.floats(-1e6, 1e6))
    high = low + drawn.draw(st.floats(1e-3, 1e6))
    values = drawn.draw(st.lists(st.floats(low - 10, high + 10), min_size=4, max_size=4))
    pixels = to_pixels(np.array([values]), (2, 2, 1), (low, high)).ravel()
    for value, pixel in zip(values, pixels.tolist(), strict=True):
        exact = min(max((value - low) / (high - low), 0), 1) * 255
        assert abs(pixel - exact) <= 0.5 + 1e-9


def test_uint8_stays_what_it_is_and_missing_features_are_black() -> None:
    rows = GREY.reshape(40, -1)
    assert range_of(None, rows) == (0, 255)
    assert to_pixels(rows, (6, 6, 1), (0.0, 255.0)).base is not None  # a view
    assert np.array_equal(to_pixels(rows.astype(float), (6, 6, 1), (0.0, 255.0))[..., 0], GREY)
    padded = to_pixels(rows[:, :34], (6, 6, 1), (0.0, 255.0)).reshape(40, -1)
    assert np.array_equal(padded[:, :34], rows[:, :34])
    assert not padded[:, 34:].any()
    many = RANDOM.random((3000, 4))  # more than are made at once
    assert np.array_equal(to_pixels(many, (2, 2, 1), (0.0, 1.0)).reshape(3000, 4), np.rint(many * 255))


def test_black_and_white_are_the_extremes_where_nothing_else_is_said() -> None:
    assert range_of(None, np.array([[-2.0, 3.5]])) == (-2, 3.5)
    assert range_of(None, np.array([[True]])) == (0, 1)
    assert range_of((0, 16), np.zeros((1, 1))) == (0, 16)
    low, high = range_of(None, np.full((2, 2), 7e20))
    assert low < high
    assert math.isfinite(high)
    with pytest.raises(InputError, match="numbers whose difference is one too"):
        range_of(None, np.array([[-1.7e308, 1.7e308]]))


@pytest.mark.parametrize("given", [(1, 0), (0, 0), (0, math.inf), (math.nan, 1), (0, 1, 2)])
def test_a_range_rises(given: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="value_range: got"):
        range_of(given, np.zeros((1, 1)))


def test_pictures_become_rows() -> None:
    rows, shape = flattened(COLOUR)
    assert shape == (9, 7, 3)
    assert np.array_equal(rows, COLOUR.reshape(40, -1))
    assert flattened(GREY)[1] == flattened(GREY.tolist())[1] == (6, 6, 1)
    assert flattened(torch.from_numpy(GREY))[1] == (6, 6, 1)
    assert flattened(rows) == (rows, None)
    assert flattened([[1, 2]]) == ([[1, 2]], None)
    empty, shape = flattened(GREY[:0])
    assert (empty.shape, shape) == ((0, 36), (6, 6, 1))
    with pytest.raises(InputError, match=r"nearest: X.transpose\(0, 2, 3, 1\)"):
        flattened(COLOUR.transpose(0, 3, 1, 2))
    with pytest.raises(InputError, match="an array of 1 × 40 × 9 × 7 × 3"):
        flattened(COLOUR[None])


@pytest.mark.parametrize(
    ("wanted", "found", "features", "says"),
    [
        (None, None, 10, "X: got 10 features, which are no square picture; allowed: h · h or 3 · h · h"),
        ("square", None, 9, "image_shape: got 'square'"),
        ((4, 4), None, 15, "X: got 15 features; allowed: 16: image_shape is 4 × 4 × 1"),
        ((4, 4), (5, 5, 1), 25, "X: got pictures of 5 × 5 × 1; allowed: 4 × 4 × 1"),
        ((4, 4, 2), None, 32, "image_shape: got (4, 4, 2)"),
        ((16,), None, 16, "image_shape: got (16,)"),
        ((0, 4), None, 16, "image_shape: got (0, 4)"),
    ],
)
def test_shapes_that_do_not_fit(wanted: Any, found: Any, features: int, says: str) -> None:
    with pytest.raises(InputError) as raised:
        shape_of(wanted, found, features)
    assert says in str(raised.value)


def test_eight_bits_have_a_black_and_a_white_of_their_own() -> None:
    rows = GREY.reshape(40, -1)
    assert range_of((0, 255), rows) == (0, 255)
    with pytest.raises(InputError, match=r"value_range: got \(0, 1\); allowed: none beside uint8"):
        range_of((0, 1), rows)


@pytest.mark.parametrize("wanted", [8, 8.0, (8, "x"), (None, 8), ((8, 8), 1)])
def test_a_shape_that_is_none_is_said_in_one_line(wanted: Any) -> None:
    with pytest.raises(InputError, match=r"image_shape: got .*; allowed: \(height, width\), or with a third"):
        shape_of(wanted, None, 64)
