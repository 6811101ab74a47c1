"""Batches and augmentation: pure functions of (seed, epoch, index), against slow and obvious references."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import deepskip.data as data
from deepskip.data.ahead import ahead
from deepskip.data.augment import AREA, ASPECT, AUGMENTS, PAD, _boxes, crop_flip, none, photo
from deepskip.data.batches import eval_batches, normalise, steps_per_epoch, train_batches
from deepskip.data.dataset import RaggedImages, Split, UniformImages
from deepskip.data.decode import fit, from_pixels
from deepskip.data.variation import Variation
from deepskip.describe.preprocessing import Preprocessing
from deepskip.errors import InputError
from tests.unit.pictures import folder, noise


def prep(size: int, colour: str = "RGB") -> Preprocessing:
    n = len(colour)
    return Preprocessing(
        size=size, resize=size, colour=colour, mean=(0.4, 0.5, 0.6)[:n], std=(0.2, 0.3, 0.25)[:n]
    )


def uniform(n: int, size: int = 12, channels: int = 3, seed: int = 0) -> UniformImages:
    pixels = np.random.default_rng(seed).integers(0, 256, (n, size, size, channels), np.uint8)
    pixels.flags.writeable = False  # as a mapped file is
    return UniformImages(pixels)


def ragged(shapes: list[tuple[int, int]], channels: int = 3) -> RaggedImages:
    pictures = [np.asarray(noise(i, w, h, channels)).reshape(h, w, channels) for i, (h, w) in enumerate(shapes)]
    offsets = np.cumsum([0, *(picture.size for picture in pictures)])
    pixels = np.concatenate([picture.ravel() for picture in pictures])
    pixels.flags.writeable = False
    return RaggedImages(pixels, offsets, np.array(shapes, np.int32), channels)


def split(n: int, size: int = 12, channels: int = 3) -> Split:
    return Split(uniform(n, size, channels), torch.arange(n))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Batches


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 70), st.integers(1, 20))
def test_an_epoch_shows_every_picture_once(n: int, batch: int) -> None:
    batches = list(train_batches(split(n, 4), prep(4), Variation(augment="none"), batch, seed=1, epoch=2))
    assert len(batches) == steps_per_epoch(n, batch)
    labels = torch.cat([one.labels for one in batches])
    assert sorted(labels.tolist()) == list(range(n))
    sizes = [len(one.labels) for one in batches]
    assert all(size == batch for size in sizes[:-1])
    assert sizes[-1] <= batch + 1
    if n > 1 and batch > 1:
        assert min(sizes) > 1  # batch normalisation cannot train on one


@pytest.mark.parametrize("augment", sorted(AUGMENTS))
def test_a_batch_is_a_function_of_seed_epoch_and_index(augment: str) -> None:
    source = Split(ragged([(14 + i % 5, 20 - i % 7) for i in range(23)]), torch.arange(23))

    def epoch(seed: int, number: int, start: int = 0) -> list[data.Batch]:
        return list(train_batches(source, prep(12), Variation(augment=augment), 5, seed, number, start))

    def same(some: list[data.Batch], others: list[data.Batch]) -> bool:
        pairs = zip(some, others, strict=True)
        return all(torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in pairs)

    whole = epoch(7, 3)
    torch.manual_seed(99)  # the global stream plays no part
    assert same(whole, epoch(7, 3))
    for start in range(6):
        assert same(whole[start:], epoch(7, 3, start))
    assert not same(whole, epoch(8, 3))
    assert not same(whole, epoch(7, 4))
    if augment != "none":  # pictures of an epoch are not all varied alike
        again = {
            int(label): image
            for one in epoch(7, 4)
            for label, image in zip(one.labels, one.images, strict=True)
        }
        pairs = [
            (image, again[int(label)])
            for one in whole
            for label, image in zip(one.labels, one.images, strict=True)
        ]
        assert sum(torch.equal(a, b) for a, b in pairs) < len(pairs) / 2


@pytest.mark.parametrize("augment", ["crop_flip", "photo"])
def test_batches_of_an_epoch_are_varied_independently(augment: str) -> None:
    same = Split(UniformImages(uniform(1, 20).pixels.repeat(40, 0)), torch.arange(40))
    batches = [one.images for one in train_batches(same, prep(20), Variation(augment=augment), 10, 0, 0)]
    for index, images in enumerate(batches):
        for other in batches[:index]:
            assert not torch.equal(images, other)


def test_the_same_batches_in_another_process() -> None:
    script = """
        import hashlib, numpy as np, torch
        from deepskip.data.batches import train_batches
        from deepskip.data.dataset import Split, UniformImages
        from deepskip.data.variation import Variation
        from deepskip.describe.preprocessing import Preprocessing
        pixels = (np.arange(9 * 6 * 6 * 3) * 7 % 256).astype(np.uint8).reshape(9, 6, 6, 3)
        chosen = Preprocessing(size=6, resize=6, mean=(0.5,) * 3, std=(0.5,) * 3)
        digest = hashlib.sha256()
        source = Split(UniformImages(pixels), torch.arange(9))
        for augment in ("crop_flip", "photo"):
            variation = Variation(augment=augment, trivial=True, erase=0.5, mixup=0.2, cutmix=1)
            for one in train_batches(source, chosen, variation, 4, 0, 0):
                digest.update(one.images.contiguous().numpy().tobytes() + one.labels.numpy().tobytes())
        print(digest.hexdigest())
    """
    import textwrap

    runs = {
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for _ in range(2)
    }
    assert len(runs) == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_form_of_a_batch(channels: int) -> None:
    source = split(5, 12, channels)
    chosen = prep(12, "RGB"[:channels] if channels == 3 else "L")
    for batches in (
        train_batches(source, chosen, Variation(augment="crop_flip"), 3, 0, 0),
        eval_batches(source, 3),
    ):
        one = next(batches)
        assert one.images.shape == (3, channels, 12, 12)
        assert one.images.dtype == torch.uint8
        assert one.images.is_contiguous(memory_format=torch.channels_last)
        assert one.labels.dtype == torch.int64
        batches.close()


def test_evaluating_shows_all_in_order() -> None:
    source = split(11)
    batches = list(eval_batches(source, 4))
    assert [len(one.labels) for one in batches] == [4, 4, 3]
    assert torch.cat([one.labels for one in batches]).tolist() == list(range(11))
    images = torch.cat([one.images for one in batches]).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(images, source.images.pixels)


def test_evaluating_training_pictures_fits_them_first() -> None:
    source = Split(ragged([(20, 30), (16, 16)]), torch.arange(2))
    with pytest.raises(InputError, match="preprocessing: got None"):
        eval_batches(source, 2)
    (one,) = eval_batches(source, 2, prep(12))
    assert np.array_equal(one.images[0].permute(1, 2, 0), fit(from_pixels(source.images[0]), prep(12)))


def test_wrong_arguments_are_refused_at_once() -> None:
    none = Variation(augment="none")
    for wrong in (0, -3):
        with pytest.raises(InputError, match="batch: got"):
            train_batches(split(4), prep(12), none, wrong, 0, 0)
        with pytest.raises(InputError, match="batch: got"):
            eval_batches(split(4), wrong)


# Built ahead


def ours() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("deepskip-ahead")]


def test_threads_end_however_the_consumer_leaves() -> None:
    def batches() -> Generator[data.Batch, None, None]:
        return train_batches(split(64), prep(12), Variation(augment="crop_flip"), 2, 0, 0)

    assert ours() == []
    for _ in batches():
        assert ours() != []
        break  # the iterator is dropped
    assert ours() == []
    stopped = batches()
    next(stopped)
    stopped.close()
    assert ours() == []
    assert len(list(batches())) == 32
    assert ours() == []
    unused = batches()
    del unused
    assert ours() == []


def test_an_error_reaches_the_consumer_in_its_turn_and_ends_the_threads() -> None:
    def work(item: int) -> int:
        if item == 3:
            raise ZeroDivisionError("three")
        return item * item

    seen = []
    with pytest.raises(ZeroDivisionError, match="three"):
        seen.extend(ahead(work, range(100), threads=2, window=4))
    results = ahead(work, range(100), threads=2, window=4)
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert ours() == []


@pytest.mark.parametrize("window", [1, 3, 8])
def test_no_more_than_the_window_is_built_ahead(window: int) -> None:
    done: list[int] = []

    def work(item: int) -> int:
        time.sleep(0.001 * (item % 3))
        done.append(item)
        return item

    results = ahead(work, range(40), threads=3, window=window)
    for taken, item in enumerate(results, 1):
        assert item == taken - 1
        time.sleep(0.002)
        assert len(done) <= taken - 1 + window


# Augmentation


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.sampled_from([1, 3]))
def test_crop_flip_is_the_papers(seed: int, count: int, channels: int) -> None:
    """Against one picture at a time, from the same draws."""
    images, chosen = uniform(20, 10, channels), prep(10, "RGB" if channels == 3 else "L")
    indices = torch.randint(20, (count,), generator=generator(seed))
    found = crop_flip(images, indices, chosen, generator(seed))
    draws = generator(seed)
    shifts = torch.randint(2 * PAD + 1, (2, count), generator=draws)
    mirror = torch.rand(count, generator=draws) < 0.5
    for k, index in enumerate(indices.tolist()):
        canvas = np.zeros((10 + 2 * PAD, 10 + 2 * PAD, channels), np.uint8)
        for channel, mean in enumerate(chosen.mean):
            canvas[..., channel] = round(mean * 255)
        canvas[PAD : PAD + 10, PAD : PAD + 10] = images[index]
        top, left = shifts[:, k].tolist()
        wanted = canvas[top : top + 10, left : left + 10]
        assert np.array_equal(found[k], wanted[:, ::-1] if mirror[k] else wanted)


def test_padding_is_zero_after_normalising() -> None:
    found = crop_flip(uniform(64, 8), torch.arange(64), prep(8), generator())
    blank = torch.tensor([round(mean * 255) for mean in prep(8).mean], dtype=torch.uint8)
    padded = (found == blank).all(-1)
    assert padded.any()
    values = normalise(found.permute(0, 3, 1, 2), prep(8)).permute(0, 2, 3, 1)[padded]
    assert (values.abs() <= 0.5 / 255 / torch.tensor(prep(8).std) + 1e-6).all()


def test_every_shift_and_both_sides_come_up_evenly() -> None:
    pixels = np.zeros((1, 9, 9, 1), np.uint8)
    pixels[0, 4, 4] = 255
    pixels[0, 4, 3] = 200
    grey = Preprocessing(size=9, resize=9, colour="L", mean=(0.0,), std=(1.0,))
    found = crop_flip(UniformImages(pixels), torch.zeros(8100, dtype=torch.int64), grey, generator())
    spots = (found[..., 0] == 255).nonzero()[:, 1:]
    counts = torch.bincount(spots[:, 0] * 9 + spots[:, 1], minlength=81)
    assert counts.min() > 50  # 100 expected
    assert counts.max() < 160
    places, marks = (found[..., 0] == 255).flatten(1).int(), (found[..., 0] == 200).flatten(1).int()
    both = marks.any(1)
    turned = (marks.argmax(1) > places.argmax(1))[both].float().mean()
    assert 0.45 < turned < 0.55


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), min_size=1, max_size=8),
)
def test_boxes_lie_inside_their_pictures(seed: int, shapes: list[tuple[int, int]]) -> None:
    sides = torch.tensor(shapes, dtype=torch.float64)
    boxes = _boxes(
        sides, torch.rand(len(shapes), 4, generator=generator(seed), dtype=torch.float64), AREA, ASPECT
    )
    corner, box = boxes[:, :2], boxes[:, 2:]
    assert (corner >= 0).all()
    assert (box >= 1).all()
    assert (corner + box <= sides).all()


def test_boxes_have_the_areas_aspects_and_places_that_are_promised() -> None:
    sides = torch.tensor([[1000.0, 1000.0]], dtype=torch.float64).expand(20_000, 2)
    boxes = _boxes(
        sides, torch.rand(20_000, 4, generator=generator(), dtype=torch.float64), AREA, ASPECT
    ).double()
    top, left, height, width = boxes.T
    part, aspect = height * width / 1e6, width / height
    assert AREA[0] * 0.99 < part.min() < 0.36
    assert part.max() <= 1.0
    assert abs(part.mean() - 0.67) < 0.02
    whole = (height < 1000) & (width < 1000)
    assert aspect[whole].min() > 0.74
    assert aspect[whole].max() < 1.345
    assert abs(aspect.log().mean()) < 0.01  # as often tall as wide
    for corner, side in ((top, height), (left, width)):
        middle = (corner / (1000 - side).clamp(min=1))[side < 900]
        assert abs(middle.mean() - 0.5) < 0.02


def test_boxes_reach_every_edge() -> None:
    sides = torch.full((50, 2), 7.0, dtype=torch.float64)
    draws = torch.rand(50, 4, generator=generator(), dtype=torch.float64)
    draws[:, 2:] = 0.0
    assert (_boxes(sides, draws, AREA, ASPECT)[:, :2] == 0).all()
    draws[:, 2:] = 1 - 1e-9
    boxes = _boxes(sides, draws, AREA, ASPECT)
    assert (boxes[:, :2] + boxes[:, 2:] == 7).all()


def test_photo_against_an_exact_resize() -> None:
    """Each crop equals Pillow's resize of the same box, to a level or two, mirrored as drawn."""
    from PIL import Image

    images = ragged([(40 + 7 * i, 90 - 5 * i) for i in range(10)])
    found = photo(images, torch.arange(10), prep(24), generator(5))
    draws = torch.rand(10, 5, generator=generator(5), dtype=torch.float64)
    sides = torch.tensor(images.shapes, dtype=torch.float64)
    boxes, mirror = _boxes(sides, draws, AREA, ASPECT), draws[:, 4] < 0.5
    assert mirror.any()
    assert not mirror.all()
    for index, (top, left, height, width) in enumerate(boxes.tolist()):
        box = from_pixels(images[index][top : top + height, left : left + width])
        wanted = np.asarray(box.resize((24, 24), Image.Resampling.BILINEAR)).astype(int)
        wanted = wanted[:, ::-1] if mirror[index] else wanted
        assert np.abs(found[index].numpy() - wanted).max() <= 2


@pytest.mark.parametrize("augment", sorted(AUGMENTS))
@pytest.mark.parametrize(
    "images", [uniform(6, 12), ragged([(20, 12), (12, 33), (12, 12), (5, 9), (1, 1), (2, 50)])]
)
def test_every_augmentation_takes_every_kind_of_images(augment: str, images: data.Images) -> None:
    found = AUGMENTS[augment](images, torch.tensor([5, 0, 3, 4, 1]), prep(12), generator())
    assert found.shape == (5, 12, 12, 3)
    assert found.dtype == torch.uint8


def test_none_shows_what_evaluating_shows() -> None:
    images = ragged([(20, 12), (12, 33)])
    found = none(images, torch.tensor([1, 0]), prep(12), generator())
    assert np.array_equal(found[0], fit(from_pixels(images[1]), prep(12)))


# Normalising


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_normalise(dtype: torch.dtype) -> None:
    images = torch.arange(256, dtype=torch.uint8).repeat(3, 1).reshape(1, 3, 16, 16)
    images = images.contiguous(memory_format=torch.channels_last)
    chosen = prep(16)
    found = normalise(images, chosen, dtype)
    mean, std = (
        torch.tensor(values, dtype=torch.float64).reshape(1, 3, 1, 1) for values in (chosen.mean, chosen.std)
    )
    wanted = (images.double() / 255 - mean) / std
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert images[0, 0, 0, 1] == 1  # the argument is as it was
    assert (found.double() - wanted).abs().max() <= 4 * torch.finfo(dtype).eps * 3
    with torch.inference_mode():
        normalise(images, chosen.replace(mean=(0.1, 0.2, 0.3)), dtype)
    weight = torch.ones(1, requires_grad=True)  # what was kept in inference mode still trains
    (normalise(images, chosen.replace(mean=(0.1, 0.2, 0.3))) * weight).sum().backward()


# From files to batches


def test_a_folder_to_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSKIP_DATA", str(tmp_path / "cache"))
    folder(tmp_path / "d/train", {"a": 5, "b": 5}, width=120, height=100)
    folder(tmp_path / "d/val", {"a": 2, "b": 2}, width=120, height=100)
    opened = data.open(tmp_path / "d", size=64)
    seen = 0
    variation = Variation(augment=opened.augment)
    for one in train_batches(opened.train, opened.preprocessing, variation, 3, 0, 0):
        assert normalise(one.images, opened.preprocessing).shape[1:] == opened.input
        seen += len(one.labels)
    assert seen == 10
    values = torch.cat(
        [
            normalise(one.images, opened.preprocessing)
            for one in eval_batches(opened.train, 4, opened.preprocessing)
        ]
    )
    assert values.mean().abs() < 0.1
    assert (values.std() - 1).abs() < 0.1


def test_importing_the_room_is_cheap() -> None:
    script = "import sys, deepskip.data; print(*(m for m in ('torch', 'PIL', 'numpy') if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == ""
    assert set(data.__all__) <= set(dir(data))
    for name in data.__all__:
        assert getattr(data, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = data.nothing
