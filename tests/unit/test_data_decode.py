"""Every usual picture file is read upright, in its own colours; everything else is refused by name."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deepskip.data.decode import fit, preprocess_file, read_header, read_image, resize_shorter, shrink
from deepskip.describe.preprocessing import Preprocessing
from deepskip.errors import InputError
from tests.unit.pictures import cut_short, noise, quadrants, save

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def prep(size: int, resize: int | None = None, colour: str = "RGB", **more: object) -> Preprocessing:
    n = len(colour)
    return Preprocessing(
        size=size, resize=resize or size, colour=colour, mean=(0.5,) * n, std=(0.25,) * n, **more
    )


def corners(pixels: np.ndarray) -> list[tuple[int, ...]]:
    h, w = pixels.shape[:2]
    middles = [(h // 4, w // 4), (h // 4, 3 * w // 4), (3 * h // 4, w // 4), (3 * h // 4, 3 * w // 4)]
    return [tuple(int(v) for v in pixels[spot]) for spot in middles]


def assert_quadrants(pixels: np.ndarray, tolerance: int = 3) -> None:
    for found, wanted in zip(corners(pixels), (RED, GREEN, BLUE, WHITE), strict=True):
        assert np.allclose(found, wanted, atol=tolerance), corners(pixels)


@pytest.mark.parametrize(
    ("suffix", "options", "tolerance"),
    [
        (".jpg", {"quality": 95, "subsampling": 0}, 6),
        (".png", {}, 0),
        (".webp", {"lossless": True}, 0),
        (".bmp", {}, 0),
        (".gif", {}, 0),
        (".tiff", {}, 0),
        (".ppm", {}, 0),
    ],
)
def test_every_format_keeps_its_colours(
    tmp_path: Path, suffix: str, options: dict[str, object], tolerance: int
) -> None:
    path = save(quadrants(), tmp_path / f"a{suffix}", **options)
    pixels = read_image(path, "RGB")
    assert pixels.shape == (32, 48, 3)
    assert pixels.dtype == np.uint8
    assert_quadrants(pixels, tolerance)
    content = path.read_bytes()
    assert np.array_equal(read_image(content, "RGB"), pixels)
    with path.open("rb") as file:
        assert np.array_equal(read_image(file, "RGB"), pixels)
    assert read_header(path)[:2] == (32, 48)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff"])
def test_rotated_by_exif_is_read_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    # What a camera would store, so that turning it as the tag says gives the scene.
    stored = {
        1: lambda image: image,
        2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda image: image.rotate(180),
        4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
        6: lambda image: image.rotate(90, expand=True),
        7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        8: lambda image: image.rotate(-90, expand=True),
    }[orientation](quadrants())
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95, "subsampling": 0} if suffix == ".jpg" else {}
    if suffix == ".webp":
        options = {"lossless": True}
    path = save(stored, tmp_path / f"a{suffix}", exif=exif, **options)
    pixels = read_image(path, "RGB")
    assert pixels.shape == (32, 48, 3)
    assert_quadrants(pixels, 6)


def test_damaged_exif_does_not_matter(tmp_path: Path) -> None:
    path = save(quadrants(), tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f broken", quality=95)
    assert read_image(path, "RGB").shape == (32, 48, 3)


def test_cmyk(tmp_path: Path) -> None:
    path = save(quadrants().convert("CMYK"), tmp_path / "a.jpg", quality=100, subsampling=0)
    with Image.open(path) as image:
        assert image.mode == "CMYK"
    assert_quadrants(read_image(path, "RGB"), 6)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("colour", ["L", "RGB"])
def test_every_mode_becomes_either_colour(tmp_path: Path, mode: str, colour: str) -> None:
    """A ramp from black to white stays one, whatever it is stored as."""
    ramp = np.linspace(0, 255, 64).round().astype(np.uint8)[None].repeat(8, 0)
    if mode == "I;16":
        image = Image.fromarray(ramp.astype(np.uint16) * 257)
    elif mode == "1":
        ramp = (ramp > 127).astype(np.uint8) * 255
        image = Image.fromarray(ramp).convert("1", dither=Image.Dither.NONE)
    else:
        image = Image.fromarray(ramp).convert(mode)
    path = save(image, tmp_path / "a.png")
    pixels = read_image(path, colour)
    assert pixels.shape == (8, 64, len(colour))
    assert np.array_equal(pixels, ramp[..., None].repeat(len(colour), -1))


def test_sixteen_bits_are_scaled_not_cut(tmp_path: Path) -> None:
    deep = np.array([[0, 128, 129, 1000, 32768, 65535]], np.uint16)
    for name in ("a.png", "a.tif"):
        path = save(Image.fromarray(deep), tmp_path / name)
        assert read_image(path, "L").ravel().tolist() == [0, 0, 1, 4, 128, 255]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "P-bytes", "RGB-key", "L-key", "gif"])
def test_what_is_transparent_becomes_white(tmp_path: Path, mode: str) -> None:
    """Left half opaque black, right half transparent: black and white."""
    pixels = np.zeros((8, 16, 4), np.uint8)
    pixels[:, :8, 3] = 255
    pixels[:, 8:, 1] = 200  # what hides under transparency must not show
    image = Image.fromarray(pixels)
    options: dict[str, object] = {}
    if mode == "LA":
        image = image.convert("LA")
    elif mode in ("P", "P-bytes", "gif"):
        index = Image.fromarray((pixels[..., 3] == 0).astype(np.uint8))
        image = index.convert("P")
        image.putpalette([0, 0, 0, 0, 200, 0])
        options["transparency"] = b"\xff\x00" if mode == "P-bytes" else 1
    elif mode == "RGB-key":
        image, options["transparency"] = Image.fromarray(pixels[..., :3]), (0, 200, 0)
    elif mode == "L-key":
        image, options["transparency"] = Image.fromarray(pixels[..., 1]), 200
    name = "a.gif" if mode == "gif" else "a.png"
    found = read_image(save(image, tmp_path / name, **options), "RGB")
    assert (found[:, :8] == 0).all()
    assert (found[:, 8:] == 255).all()


def test_half_transparent_is_mixed_with_white() -> None:
    data = io.BytesIO()
    Image.new("RGBA", (2, 2), (200, 0, 0, 128)).save(data, "PNG")
    assert np.allclose(read_image(data.getvalue(), "RGB")[0, 0], (227, 127, 127), atol=1)


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [quadrants(), Image.new("RGB", (48, 32), "black")]
    for name in ("a.gif", "a.webp", "a.png"):
        options = {"lossless": True} if name == "a.webp" else {}
        path = save(frames[0], tmp_path / name, save_all=True, append_images=frames[1:], **options)
        assert_quadrants(read_image(path, "RGB"))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".gif"])
def test_cut_short_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    path = cut_short(save(noise(1, 64, 64), tmp_path / f"half{suffix}"))
    with pytest.raises(InputError, match=f"half\\{suffix}: got .*; allowed: a whole JPEG"):
        read_image(path, "RGB")


def test_other_things_are_refused_by_name(tmp_path: Path) -> None:
    text = tmp_path / "text.jpg"
    text.write_text("not a picture at all")
    empty = tmp_path / "empty.png"
    empty.touch()
    for source, message in [
        (text, "text.jpg: got not a picture"),
        (empty, "empty.png: got not a picture"),
        (tmp_path / "gone.png", "gone.png: got no such file or directory"),
        (tmp_path, "got not a file"),
        (b"", "picture: got not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "picture: got not a picture"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            read_image(source, "RGB")
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="upload 3: got not a picture"):
        read_image(b"", "RGB", name="upload 3")
    with pytest.raises(InputError, match="floating point"):
        read_image(save(Image.new("F", (4, 4)), tmp_path / "f.tif"), "RGB")


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="not a file"):
        read_image(tmp_path / "pipe.png", "RGB")


@pytest.mark.parametrize("side", [12_000, 60_000])
def test_a_bomb_is_refused_before_it_is_decoded(side: int) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1000)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    with pytest.raises(InputError, match="pixels"):
        read_image(bomb, "RGB")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_files_raise_one_kind_of_error(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"]))
    whole = io.BytesIO()
    noise(3, 12, 12).save(whole, kind)
    content = bytearray(whole.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    with contextlib.suppress(InputError):
        assert read_image(bytes(content), "RGB").shape[-1] == 3


def test_warnings_neither_show_nor_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow warns of each picture; several threads decode; the caller's filters are as they were."""
    paths = [save(noise(i, 64, 64), tmp_path / f"{i}.png") for i in range(40)]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 63)
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.warns(Image.DecompressionBombWarning):
            Image.open(paths[0]).close()  # the test is about something
        with ThreadPoolExecutor(8) as pool:
            assert len(list(pool.map(lambda path: read_image(path, "RGB"), paths))) == 40
        inside = list(warnings.filters)
        warnings.warn("mine", UserWarning, stacklevel=1)
    assert [str(one.message) for one in seen] == ["mine"]
    assert inside[0][0] == "always"
    assert warnings.filters == before


def test_a_square_picture_of_the_right_size_is_untouched(tmp_path: Path) -> None:
    image = noise(5, 32, 32)
    path = save(image, tmp_path / "a.png")
    assert np.array_equal(preprocess_file(path, prep(32)), np.asarray(image))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.integers(0, 12), st.booleans())
def test_the_input_has_its_size_whatever_the_picture(
    width: int, height: int, size: int, more: int, grey: bool
) -> None:
    image = noise(7, width, height, 1 if grey else 3)
    chosen = prep(size, size + more, "L" if grey else "RGB")
    assert fit(image, chosen).shape == (size, size, chosen.channels)
    kept = shrink(image, chosen)
    assert max(kept.shape[:2]) <= 4 * min(kept.shape[:2])
    assert min(kept.shape[:2]) == min(width, height, round(size * 1.25))  # never enlarged


def test_resizing_keeps_the_aspect_and_is_antialiased() -> None:
    image = Image.fromarray(np.indices((400, 300)).sum(0).astype(np.uint8) % 2 * 255)  # a fine chessboard
    resized = resize_shorter(image, 30, "bilinear")
    assert resized.size == (30, 40)
    assert np.abs(np.asarray(resized).astype(int) - 128).max() <= 2
    assert resize_shorter(noise(1, 500, 375), 256, "bilinear").size == (341, 256)  # torchvision: rounded down


def test_the_crop_is_from_the_middle() -> None:
    pixels = fit(quadrants(48, 32), prep(32))
    assert_quadrants(pixels)
    assert (pixels[0, :16] == RED).all()


def test_a_line_of_pixels_does_not_become_a_bomb() -> None:
    assert fit(Image.new("RGB", (60_000, 1)), prep(224, 256)).shape == (224, 224, 3)
    assert shrink(Image.new("RGB", (2, 30_000)), prep(224, 256)).shape == (8, 2, 3)
