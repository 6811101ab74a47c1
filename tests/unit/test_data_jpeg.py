"""JPEGs give the same pixels, and the same errors, whether or not simplejpeg is installed."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import deepskip.data as data
from deepskip.data import jpeg
from deepskip.data.decode import fit, load_image, preprocess_file, read_image
from deepskip.data.jpeg import OVERSIZE, reduction
from deepskip.describe.preprocessing import Preprocessing
from deepskip.errors import InputError
from tests.unit.pictures import noise, save


@contextlib.contextmanager
def pillow_only() -> Iterator[None]:
    kept = jpeg._simplejpeg
    jpeg._simplejpeg = None
    try:
        yield
    finally:
        jpeg._simplejpeg = kept


@pytest.fixture
def by_simplejpeg(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of what simplejpeg has decoded since."""
    if jpeg._simplejpeg is None:
        pytest.skip("simplejpeg is not installed")
    seen: list[tuple[int, ...]] = []

    class Spy:
        @staticmethod
        def decode_jpeg(*arguments: object, **options: object) -> np.ndarray:
            pixels = kept.decode_jpeg(*arguments, **options)
            seen.append(pixels.shape)
            return pixels

    kept = jpeg._simplejpeg
    monkeypatch.setattr(jpeg, "_simplejpeg", Spy)
    return seen


def outcome(content: bytes, colour: str, shorter: int | None) -> bytes | str:
    """What reading gives: size and pixels, or the error's line."""
    try:
        image = load_image(content, colour, shorter=shorter)
    except InputError as error:
        return str(error)
    return repr((image.mode, image.size)).encode() + image.tobytes()


def assert_alike(content: bytes, colour: str = "RGB", shorter: int | None = None) -> bytes | str:
    with pillow_only():
        wanted = outcome(content, colour, shorter)
    found = outcome(content, colour, shorter)
    assert found == wanted
    assert isinstance(found, bytes) or "\n" not in found
    return found


def encoded(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def rough(seed: int, width: int, height: int, channels: int = 3) -> Image.Image:
    """A picture with sharp colours, in which every rounding of every frequency shows."""
    smooth = np.asarray(noise(seed, width, height, channels)).astype(int)
    grain = np.random.default_rng(seed).integers(-60, 60, smooth.shape)
    return Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))


side = st.integers(1, 140) | st.integers(2, 20).map(lambda eighths: 8 * eighths)
shapes = st.tuples(side, side)
options = st.fixed_dictionaries(
    {"quality": st.integers(1, 100), "progressive": st.booleans(), "optimize": st.booleans()},
    optional={"restart_marker_blocks": st.integers(1, 9), "keep_rgb": st.just(True)},
)


@settings(max_examples=250, deadline=None)
@given(
    st.integers(0, 10**6),
    shapes,
    options,
    st.sampled_from([None, 0, 1, 2]),
    st.sampled_from([1, 3]),
    st.sampled_from(["L", "RGB"]),
    st.sampled_from([None, 1, 4, 9, 16, 30]),
)
def test_whole_files_give_the_same_bits(
    seed: int,
    shape: tuple[int, int],
    chosen: dict[str, object],
    subsampling: int | None,
    channels: int,
    colour: str,
    shorter: int | None,
) -> None:
    if subsampling is not None and channels == 3 and "keep_rgb" not in chosen:
        chosen["subsampling"] = subsampling
    if channels == 1:
        chosen.pop("keep_rgb", None)
    assert isinstance(assert_alike(encoded(rough(seed, *shape, channels), **chosen), colour, shorter), bytes)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("colour", ["L", "RGB"])
def test_simplejpeg_is_what_decodes(
    by_simplejpeg: list[tuple[int, ...]], subsampling: str, colour: str
) -> None:
    content = encoded(rough(1, 208, 160), subsampling=subsampling, quality=90)
    for shorter, height, width in ((None, 160, 208), (41, 160, 208), (40, 80, 104), (20, 40, 52), (10, 20, 26)):
        image = load_image(content, colour, shorter=shorter)
        assert image.size == (width, height)
        assert by_simplejpeg.pop() == (height, width, 3)
    load_image(encoded(rough(1, 20, 20, 1)), colour)
    assert by_simplejpeg.pop() == (20, 20, 1)


@pytest.mark.parametrize("shorter", [None, 20])
def test_four_colours_are_left_to_pillow(by_simplejpeg: list[tuple[int, ...]], shorter: int | None) -> None:
    content = encoded(rough(1, 200, 90).convert("CMYK"), quality=90)
    assert load_image(content, "RGB", shorter=shorter).size == ((200, 90) if shorter is None else (100, 45))
    assert by_simplejpeg == []
    assert_alike(content, shorter=shorter)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("shorter", [None, 10])
def test_pictures_are_turned_alike(orientation: int, shorter: int | None) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(rough(2, 90, 42), quality=90, exif=exif)
    found = assert_alike(content, shorter=shorter)
    width, height = (90, 42) if shorter is None else (45, 21)
    size = (height, width) if orientation > 4 else (width, height)
    assert found[: len(repr(("RGB", size)))] == repr(("RGB", size)).encode()
    upright = encoded(rough(2, 90, 42), quality=90)
    assert (found == assert_alike(upright, shorter=shorter)) == (orientation == 1)


@settings(max_examples=250, deadline=None)
@given(st.data(), st.sampled_from([None, 10]), st.booleans())
def test_damaged_files_end_alike(data: st.DataObject, shorter: int | None, progressive: bool) -> None:
    content = bytearray(encoded(rough(3, 64, 48), quality=80, progressive=progressive))
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(len(content) // 2, len(content)))]
    content += data.draw(st.sampled_from([b"", b"\xff\xd9", b"what a camera adds", bytes(content[:200])]))
    assert_alike(bytes(content), shorter=shorter)


def test_each_cut_is_refused_in_the_same_words() -> None:
    content = encoded(rough(4, 40, 30), quality=85)
    refused = [assert_alike(content[:end]) for end in range(0, len(content) - 2, 7)]
    assert all(isinstance(error, str) and "picture: got " in error for error in refused)
    assert any("truncated" in str(error) for error in refused)


def test_two_pictures_in_one_file_give_the_first(tmp_path: Path) -> None:
    """As phones write them: MPO, which Pillow reads by a class of its own."""
    path = save(
        rough(5, 64, 48), tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[rough(6, 64, 48)]
    )
    with Image.open(path) as image:
        assert image.format == "MPO"
    for shorter in (None, 10):
        found = assert_alike(path.read_bytes(), shorter=shorter)
        assert isinstance(found, bytes)
    first = encoded(rough(5, 64, 48))
    assert outcome(path.read_bytes(), "RGB", 10) == outcome(first, "RGB", 10)


def test_an_open_file_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = save(rough(7, 64, 48), tmp_path / "a.jpg")
    with path.open("rb") as file:
        file.seek(100)
        assert np.array_equal(read_image(file, "RGB"), read_image(path, "RGB"))


# How much is decoded


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.integers(1, 300), st.sampled_from([1, 2, 4, 8]))
def test_a_reduced_picture_is_still_large_enough(width: int, height: int, shorter: int, times: int) -> None:
    width, height = width * times, height * times
    by = reduction(width, height, shorter)
    fine = [one for one in (2, 4, 8) if width % one == height % one == 0]
    allowed = [1, *(one for one in fine if min(width, height) / one >= OVERSIZE * shorter)]
    assert by == max(allowed)
    assert reduction(width, height, None) == 1


def prep(size: int, resize: int) -> Preprocessing:
    return Preprocessing(size=size, resize=resize, mean=(0.5,) * 3, std=(0.25,) * 3)


def test_reading_is_never_reduced() -> None:
    assert read_image(encoded(rough(8, 300, 200)), "RGB").shape == (200, 300, 3)


@pytest.mark.parametrize("size", [(304, 208), (640, 424), (1000, 1400), (301, 207)])
def test_a_reduced_picture_looks_as_the_whole_one_does(size: tuple[int, int]) -> None:
    """The longer side is then as long, and nothing is shifted: half a pixel would be ten levels here."""
    content = encoded(noise(9, *size), quality=95)
    chosen = prep(24, 24)
    whole = fit(load_image(content, "RGB"), chosen).astype(int)
    assert (load_image(content, "RGB", shorter=24).size == size) == (size == (301, 207))
    assert np.abs(preprocess_file(content, chosen) - whole).mean() < 1.5


def test_validating_and_predicting_reduce_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSKIP_DATA", str(tmp_path / "cache"))
    for index in range(8):
        split, name = ("train", "val")[index % 2], "ab"[index // 4]
        save(
            rough(index, 704 + 8 * index, 400 - 8 * index),
            tmp_path / f"d/{split}/{name}/{index}.jpg",
            quality=90,
        )
    opened = data.open(tmp_path / "d", size=64)
    for index, file in enumerate(opened.val.files):
        wanted = preprocess_file(tmp_path / "d/val" / file, opened.preprocessing)
        assert np.array_equal(opened.val.images[index], wanted)
    with pillow_only():
        monkeypatch.setenv("DEEPSKIP_DATA", str(tmp_path / "other"))
        assert opened.preprocessing == data.open(tmp_path / "d", size=64).preprocessing
    assert opened.train.images[0].shape == (80, 704 * 80 // 400, 3)
