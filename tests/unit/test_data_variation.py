"""Training pictures varied: the same bits as ever, the same bits however many processes share a batch."""

from __future__ import annotations

import hashlib
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from deepskip.data import batches
from deepskip.data.augment import erase, mean_colour
from deepskip.data.batches import Batch, train_batches
from deepskip.data.dataset import RaggedImages, Split, UniformImages
from deepskip.data.decode import from_pixels
from deepskip.data.mixing import LEVELS, Mix, draw_mix, mix
from deepskip.data.trivial import OPERATIONS, STRENGTHS, trivial
from deepskip.data.variation import Variation
from deepskip.describe.preprocessing import Preprocessing
from deepskip.errors import InputError
from tests.unit.pictures import noise

# Of the batches that version 0.1.0 made before pictures could be varied in more ways.
GOLDEN = {
    ("none", "uniform", "L"): "1737baa26d1cc0da573ac0b92a85f959",
    ("none", "uniform", "RGB"): "d2451f7152838d630a83781f5d0ee52d",
    ("none", "ragged", "L"): "468d0f71ea77b8f50bc6503c098b442b",
    ("none", "ragged", "RGB"): "2f244b414d8f6cfb96f21bcca50b2f10",
    ("crop_flip", "uniform", "L"): "08ba594c7ab2e59f68dd2a4abde71445",
    ("crop_flip", "uniform", "RGB"): "cb135daa7be3bc5d7f4642b54915d735",
    ("crop_flip", "ragged", "L"): "5ab31daef93d6a17a0bd2f23ce0af5de",
    ("crop_flip", "ragged", "RGB"): "507154728e7a81fae874cc7e1e67d9ca",
    ("photo", "uniform", "L"): "b21a7362fada827f5ece9570e9276778",
    ("photo", "uniform", "RGB"): "f9d5b526ccb5e98ab7e1697900af3994",
    ("photo", "ragged", "L"): "e228dd638238bf18e79d89663ea6c299",
    ("photo", "ragged", "RGB"): "9c08aa1abc7b3fbeb605fab5d2315938",
}


def prep(size: int, colour: str = "RGB") -> Preprocessing:
    n = len(colour)
    return Preprocessing(
        size=size, resize=size, colour=colour, mean=(0.4, 0.5, 0.6)[:n], std=(0.2, 0.3, 0.25)[:n]
    )


def waves(seed: int, height: int, width: int, channels: int) -> np.ndarray:
    """A picture like no other, from integers alone: the same on every machine."""
    y, x, channel = np.indices((height, width, channels))
    return ((y * (seed + 3) + x * (2 * seed + 5) + channel * 61 + y * x // (seed + 2)) % 256).astype(np.uint8)


def source(kind: str, channels: int = 3, n: int = 23) -> Split:
    """`n` pictures: all 12 x 12, or ("ragged") of many sizes. Labels count up."""
    if kind == "uniform":
        return Split(UniformImages(np.stack([waves(i, 12, 12, channels) for i in range(n)])), torch.arange(n))
    pictures = [waves(i, 14 + i % 5, 20 - i % 7, channels) for i in range(n)]
    offsets = np.cumsum([0, *(picture.size for picture in pictures)])
    shapes = np.array([picture.shape[:2] for picture in pictures], np.int32)
    pixels = np.concatenate([picture.ravel() for picture in pictures])
    return Split(RaggedImages(pixels, offsets, shapes, channels), torch.arange(n))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def grey(n: int, size: int = 12, channels: int = 3) -> torch.Tensor:
    return torch.full((n, size, size, channels), 77, dtype=torch.uint8)


def pictures(n: int, size: int = 24, channels: int = 3) -> torch.Tensor:
    made = [np.asarray(noise(i, size, size, channels)).reshape(size, size, channels) for i in range(n)]
    return torch.from_numpy(np.stack(made))


# Batches


@pytest.mark.parametrize(("augment", "kind", "colour"), sorted(GOLDEN))
def test_plain_variations_give_the_bits_they_always_gave(augment: str, kind: str, colour: str) -> None:
    digest = hashlib.sha256()
    for one in train_batches(
        source(kind, len(colour)), prep(12, colour), Variation(augment=augment), 5, seed=7, epoch=3
    ):
        digest.update(one.images.permute(0, 2, 3, 1).contiguous().numpy().tobytes())
        digest.update(one.labels.numpy().tobytes())
        assert one.others is None
        assert one.weight == 1.0
        assert one.total == len(one.labels)
    assert digest.hexdigest()[:32] == GOLDEN[augment, kind, colour]


variations = st.builds(
    Variation,
    augment=st.sampled_from(["none", "crop_flip", "photo"]),
    trivial=st.booleans(),
    erase=st.sampled_from([0.0, 0.5, 1.0]),
    mixup=st.sampled_from([0.0, 0.2]),
    cutmix=st.sampled_from([0.0, 1.0]),
)


def together(shares: tuple[Batch, ...]) -> Batch:
    assert len({(one.weight, one.total, one.others is None) for one in shares}) == 1
    others = [one.others for one in shares if one.others is not None]
    return Batch(
        torch.cat([one.images for one in shares]),
        torch.cat([one.labels for one in shares]),
        torch.cat(others) if others else None,
        shares[0].weight,
        shares[0].total,
    )


def assert_same(some: Batch, other: Batch) -> None:
    assert torch.equal(some.images, other.images)
    assert torch.equal(some.labels, other.labels)
    assert (some.weight, some.total) == (other.weight, other.total)
    assert (some.others is None) == (other.others is None)
    assert some.others is None or torch.equal(some.others, other.others)


@settings(max_examples=60, deadline=None)
@given(
    variations,
    st.sampled_from(["uniform", "ragged"]),
    st.sampled_from(["L", "RGB"]),
    st.integers(1, 23),
    st.integers(1, 9),
    st.integers(2, 11),
    st.integers(0, 10**6),
)
def test_the_shares_of_all_processes_make_up_the_batch_of_one(
    variation: Variation, kind: str, colour: str, n: int, batch: int, ranks: int, seed: int
) -> None:
    split, chosen = source(kind, len(colour), n), prep(12, colour)
    whole = list(train_batches(split, chosen, variation, batch, seed, 1))
    parts = [
        train_batches(split, chosen, variation, batch, seed, 1, rank=rank, ranks=ranks) for rank in range(ranks)
    ]
    for one, shares in zip(whole, zip(*parts, strict=True), strict=True):
        sizes = [len(share.labels) for share in shares]
        if len(one.labels) < 2 * ranks:  # too few to be shared: all of it for everybody
            for share in shares:
                assert share.copies == ranks
                assert_same(share, one)
            continue
        assert {share.copies for share in shares} == {1}
        assert min(sizes) >= 2
        assert max(sizes) - min(sizes) <= 1
        for share, size in zip(shares, sizes, strict=True):
            assert share.images.shape == (size, len(colour), 12, 12)
            assert not size or share.images.is_contiguous(memory_format=torch.channels_last)
            assert share.images.dtype == torch.uint8
        assert_same(together(shares), one)
        assert one.total == len(one.labels)


@settings(max_examples=20, deadline=None)
@given(variations, st.integers(0, 4), st.integers(0, 1))
def test_a_batch_is_the_same_wherever_an_epoch_is_begun(variation: Variation, start: int, rank: int) -> None:
    def epoch(start: int) -> list[Batch]:
        return list(train_batches(source("ragged"), prep(12), variation, 5, 7, 3, start, rank=rank, ranks=2))

    whole = epoch(0)
    torch.manual_seed(99)  # the global stream plays no part
    np.random.seed(99)  # noqa: NPY002
    for some, other in zip(whole[start:], epoch(start), strict=True):
        assert_same(some, other)


def test_switching_one_part_on_leaves_what_others_draw_as_it_was() -> None:
    def epoch(**fields: object) -> list[Batch]:
        return list(train_batches(source("ragged"), prep(12), Variation(augment="photo", **fields), 5, 7, 3))

    plain, erased, both = epoch(), epoch(erase=1.0), epoch(erase=1.0, mixup=1e-6)
    for one, painted in zip(plain, erased, strict=True):
        same = (one.images == painted.images).all(1)
        assert 0.4 < same.double().mean() < 1
    # Of so small an alpha the shares are 0 or 1: each picture is one of the erased ones, whole.
    assert {one.weight for one in both} == {0.0, 1.0}
    for one, mixed in zip(erased, both, strict=True):
        assert torch.equal(mixed.images, one.images if mixed.weight else one.images.roll(1, 0))


def test_no_two_parts_draw_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    purposes: list[tuple[int | str, ...]] = []

    def spy(*purpose: int | str) -> torch.Generator:
        purposes.append(purpose)
        return make(*purpose)

    make = batches._generator
    monkeypatch.setattr(batches, "_generator", spy)
    everything = Variation(augment="photo", trivial=True, erase=0.5, mixup=0.2, cutmix=1.0)
    assert len(list(train_batches(source("ragged"), prep(12), everything, 5, 7, 3))) == 5
    assert len(purposes) == len(set(purposes)) == 1 + 5 * 4


@pytest.mark.parametrize("size", [8, 12, 30])
def test_photographs_can_have_another_size(size: int) -> None:
    variation = Variation(augment="photo", size=size, trivial=True, erase=0.3, cutmix=1.0)
    for one in train_batches(source("ragged"), prep(12), variation, 5, 0, 0):
        assert one.images.shape[2:] == (size, size)
    plain = train_batches(source("ragged"), prep(size), variation.replace(size=None), 5, 0, 0)
    other = train_batches(source("ragged"), prep(12), variation, 5, 0, 0)
    for some, same in zip(plain, other, strict=True):
        assert_same(some, same)


def test_what_cannot_be_is_refused_in_one_line() -> None:
    split, plain = source("uniform"), Variation(augment="none")
    for fields, message in [
        (
            {"augment": "fotos"},
            "Variation.augment: got 'fotos'; allowed: none, crop_flip, photo; nearest: photo",
        ),
        ({"augment": "none", "erase": 1.5}, "Variation.erase: got 1.5; allowed: less than or equal to 1"),
        ({"augment": "none", "mixup": -1}, "Variation.mixup: got -1; allowed: greater than or equal to 0"),
        ({"augment": "none", "cutmix": math.nan}, "Variation.cutmix: got nan; allowed: "),
        ({"augment": "none", "size": 0}, "Variation.size: got 0; allowed: greater than or equal to 1"),
        ({"augment": "none", "erased": 1}, "Variation: got unknown field 'erased'.*nearest: erase"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            Variation(**fields)
        assert "\n" not in str(caught.value)
    for augment in ("none", "crop_flip"):
        assert next(train_batches(split, prep(12), Variation(augment=augment, size=12), 5, 0, 0))
        with pytest.raises(
            InputError, match=f"size: got 16 with augment '{augment}'; allowed: 12, .*nearest: 12"
        ):
            train_batches(split, prep(12), Variation(augment=augment, size=16), 5, 0, 0)
    for rank, ranks, allowed in [(2, 2, "0 to 1"), (-1, 2, "0 to 1"), (0, 0, "1 rank or more"), (0, -1, "1 ")]:
        with pytest.raises(InputError, match=f"rank: got {rank} of {ranks}; allowed: {allowed}"):
            train_batches(split, prep(12), plain, 5, 0, 0, rank=rank, ranks=ranks)


def test_a_variation_is_a_value() -> None:
    chosen = Variation(augment="photo", trivial=True, erase=0.25, mixup=0.2, cutmix=1.0, size=96)
    assert Variation.from_json(chosen.to_json()) == chosen
    assert hash(chosen) == hash(chosen.replace(size=96)) != hash(chosen.replace(size=None))


# Erasing


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_as_many_pictures_are_erased_as_is_promised(probability: float) -> None:
    pixels = grey(4000, 20)
    erase(pixels, probability, prep(20), generator(), 4000)
    blank = torch.from_numpy(mean_colour(prep(20)))
    painted = (pixels == blank).all(-1)
    assert ((pixels == 77).all(-1) | painted).all()
    assert abs(painted.flatten(1).any(1).double().mean() - probability) < 0.03
    if probability:
        parts = painted.flatten(1).double().mean(1)
        parts = parts[parts > 0]
        assert 0.01 < parts.min() < 0.05  # 0.02, in whole pixels
        assert 0.35 < parts.max() < 0.45  # 0.4
        assert abs(parts.mean() - 0.21) < 0.02  # halfway from 0.02 to 0.4, less what the edges cut
        assert painted.any(0).all()  # every place comes up


def test_an_erased_part_is_one_box() -> None:
    pixels = grey(200, 16)
    erase(pixels, 1.0, prep(16), generator(3), 200)
    for painted in (pixels != 77).any(-1):
        rows, columns = painted.any(1).nonzero()[:, 0], painted.any(0).nonzero()[:, 0]
        box = painted[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert box.all()
        assert box.sum() == painted.sum()


# TrivialAugment


def only(name: str, strength: float, image: Image.Image, fill: int | tuple[int, ...]) -> np.ndarray:
    pixels = np.asarray(image).reshape(1, image.height, image.width, -1)
    (changed,) = OPERATIONS[name](pixels, np.array([strength]), fill)
    return changed[..., 0].astype(int) if image.mode == "L" else changed.astype(int)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_every_operation_at_every_strength_keeps_the_pictures_form(name: str, channels: int) -> None:
    image = noise(5, 24, 24, channels)
    fill = 9 if channels == 1 else (9, 8, 7)
    strengths = np.arange(-STRENGTHS + 1, STRENGTHS) / (STRENGTHS - 1)
    many = np.asarray(image).reshape(1, 24, 24, channels).repeat(len(strengths), 0)
    changed = OPERATIONS[name](many, strengths, fill)
    assert (changed.shape, changed.dtype) == (many.shape, np.uint8)
    for picture, strength in zip(changed, strengths, strict=True):
        assert np.array_equal(only(name, strength, image, fill).reshape(24, 24, channels), picture)
    assert (many == np.asarray(image).reshape(24, 24, channels)).all()
    if name not in ("auto_contrast", "equalize"):  # these know no strength
        assert np.abs(only(name, 0.0, image, fill) - np.asarray(image)).max() == 0


def test_operations_do_what_they_are_called() -> None:
    image = noise(5, 32, 32)
    pixels, fill = np.asarray(image).astype(int), (9, 8, 7)
    luminance = np.asarray(image.convert("L")).astype(int)
    assert np.array_equal(only("solarize", 1.0, image, fill), 255 - pixels)
    assert np.array_equal(only("solarize", 0.5, image, fill), np.where(pixels < 128, pixels, 255 - pixels))
    assert np.array_equal(only("posterize", -1.0, image, fill), pixels // 64 * 64)
    assert np.abs(only("brightness", 0.5, image, fill) - (pixels * 1.495).clip(0, 255)).max() <= 1
    assert np.abs(only("brightness", -1.0, image, fill) - pixels * 0.01).max() <= 1
    assert np.abs(only("colour", -1.0, image, fill) - luminance[..., None]).max() <= 3
    assert only("contrast", -1.0, image, fill).std() < 2 < pixels.std()
    assert only("auto_contrast", 0.0, image, fill).reshape(-1, 3).min(0).tolist() == [0, 0, 0]
    spread = np.histogram(only("equalize", 0.0, image, fill)[..., 0], 4, (0, 256))[0]
    assert spread.min() > 0.8 * spread.max()
    rough, smooth = (np.abs(np.diff(only("sharpness", side, image, fill), axis=0)).sum() for side in (1, -1))
    assert rough > np.abs(np.diff(pixels, axis=0)).sum() > smooth
    for name, axis in (("translate_x", 1), ("translate_y", 0)):
        moved, whole = only(name, 0.25, image, fill), np.moveaxis(pixels, axis, 0)
        assert np.array_equal(np.moveaxis(moved, axis, 0)[:24], whole[8:])
        assert (np.moveaxis(moved, axis, 0)[24:] == fill).all()
        assert (only(name, -1.0, image, fill) == fill).all()
    for name, axis in (("shear_x", 0), ("shear_y", 1)):
        sheared, whole = np.moveaxis(only(name, 1.0, image, fill), axis, 0), np.moveaxis(pixels, axis, 0)
        assert np.array_equal(sheared[0, :31], whole[0, :31])  # the first line hardly moves
        assert (sheared[31, 2:] == fill).all()  # the last goes away by its own length
    turned = only("rotate", 2 / 3, image, fill)  # 90 degrees, against the clock
    assert np.array_equal(turned, np.rot90(pixels))


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([1, 3]),
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(-30, 30),
)
def test_own_tables_are_pillows(seed: int, channels: int, low: int, high: int, step: int) -> None:
    levels = np.random.default_rng(seed).beta(0.4, 0.7, (30, 40, channels)) * (high - low) + low
    image = from_pixels(levels.astype(np.uint8))
    strength = step / 30
    wanted = {
        "auto_contrast": ImageOps.autocontrast(image),
        "equalize": ImageOps.equalize(image),
        "solarize": ImageOps.solarize(image, round(256 * (1 - abs(strength)))),
        "posterize": ImageOps.posterize(image, 8 - round(6 * abs(strength))),
        "contrast": ImageEnhance.Contrast(image).enhance(1 + 0.99 * strength),
    }
    for name, picture in wanted.items():
        assert np.array_equal(only(name, strength, image, 0), np.asarray(picture)), name


def test_every_operation_and_both_sides_come_up_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, float]] = []
    for number, name in enumerate(OPERATIONS):

        def spy(pixels: np.ndarray, strengths: np.ndarray, fill: object, number: int = number) -> np.ndarray:
            seen.extend((number, strength) for strength in strengths)
            return pixels

        monkeypatch.setitem(OPERATIONS, name, spy)
    trivial(grey(14_000, 2), prep(2), generator(), 14_000)
    counts = np.bincount([number for number, _ in seen])
    assert len(counts) == 14
    assert counts.min() > 850
    assert counts.max() < 1150
    strengths = np.array([strength for _, strength in seen])
    levels = np.bincount(np.round(np.abs(strengths) * 30).astype(int))
    assert len(levels) == 31
    assert levels.min() > 350  # of 452 expected
    assert np.allclose(strengths * 30, np.round(strengths * 30))
    assert abs((strengths < 0).mean() - 30 / 62) < 0.02


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, 3]))
def test_trivial_is_a_function_of_its_generator(seed: int, channels: int) -> None:
    chosen = prep(24, "RGB" if channels == 3 else "L")
    first, again = pictures(12, channels=channels), pictures(12, channels=channels)
    trivial(first, chosen, generator(seed), 12)
    trivial(again, chosen, generator(seed), 12)
    assert torch.equal(first, again)
    some = pictures(12, channels=channels)[[3, 8]]
    trivial(some, chosen, generator(seed), 12, torch.tensor([3, 8]))
    assert torch.equal(some, first[[3, 8]])


def test_trivial_fills_with_the_mean_colour() -> None:
    pixels = grey(2000, 8)
    trivial(pixels, prep(8), generator(), 2000)
    blank = torch.from_numpy(mean_colour(prep(8)))
    filled = (pixels == blank).all(-1).flatten(1).any(1).double().mean()
    assert 0.2 < filled < 5 / 14  # five of the operations, where they are strong enough


# Mixing


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, LEVELS), st.sampled_from([1, 3]))
def test_mixup_is_the_weighted_mean_to_the_nearest_level(seed: int, level: int, channels: int) -> None:
    some, other = (
        torch.randint(256, (3, 5, 5, channels), generator=generator(seed + i)).to(torch.uint8) for i in (0, 1)
    )
    some[0, 0, 0], other[0, 0, 0] = 255, 255
    share = level / LEVELS
    found = mix(some, other, Mix(share, None)).double()
    wanted = share * some.double() + (1 - share) * other.double()
    assert (found - wanted).abs().max() <= 0.5
    assert found[0, 0, 0].min() == 255


def labels_seen(one: Batch) -> torch.Tensor:
    """Of a batch of flat pictures whose level is ten times their label: each pixel's label."""
    return one.images[:, 0].long() // 10


def flat(n: int, size: int = 16) -> Split:
    levels = np.arange(n, dtype=np.uint8)[:, None, None, None] * 10
    return Split(UniformImages(np.broadcast_to(levels, (n, size, size, 3)).copy()), torch.arange(n))


@pytest.mark.parametrize("ranks", [1, 3])
def test_cutmix_labels_are_weighed_by_the_pixels_that_show(ranks: int) -> None:
    weights = []
    for rank, epoch in itertools.product(range(ranks), range(30)):
        variation = Variation(augment="none", cutmix=1.0)
        for one in train_batches(flat(20), prep(16), variation, 6, 0, epoch, rank=rank, ranks=ranks):
            seen, others = labels_seen(one), one.others
            assert others is not None
            own = seen == one.labels[:, None, None]
            assert (own | (seen == others[:, None, None])).all()
            assert (own.double().mean((1, 2)) == one.weight).all()
            assert (one.labels != others).all()
            weights.append(one.weight)
    assert len(set(weights)) > 20


def test_mixup_labels_are_weighed_as_the_pixels_are() -> None:
    weights = []
    for epoch in range(30):
        variation = Variation(augment="none", mixup=0.5)
        for one in train_batches(flat(20), prep(16), variation, 6, 0, epoch):
            assert one.others is not None
            wanted = 10 * (one.weight * one.labels + (1 - one.weight) * one.others)
            assert (one.images.double() - wanted[:, None, None, None]).abs().max() <= 0.5
            assert (one.labels != one.others).all()
            weights.append(one.weight)
    assert len(set(weights)) > 20


@pytest.mark.parametrize("alpha", [0.1, 1.0, 8.0])
def test_shares_follow_the_beta_distribution(alpha: float) -> None:
    draws = [draw_mix(Variation(augment="none", mixup=alpha), 16, generator(seed)) for seed in range(4000)]
    shares = np.array([drawn.share for drawn in draws if drawn is not None])
    assert abs(shares.mean() - 0.5) < 0.02
    assert abs(shares.var() - 1 / (4 * (2 * alpha + 1))) < 0.01
    draws = [draw_mix(Variation(augment="none", cutmix=alpha), 64, generator(seed)) for seed in range(4000)]
    areas = np.array([1 - drawn.share for drawn in draws if drawn is not None])
    assert (areas <= 1).all()
    assert 0.2 < areas.mean() < 0.5  # below one half: boxes are cut at the edges
    assert draw_mix(Variation(augment="none", erase=1), 16, generator()) is None


def test_one_of_both_is_drawn_for_each_batch_evenly() -> None:
    chosen = Variation(augment="none", mixup=0.2, cutmix=1.0)
    draws = [draw_mix(chosen, 16, generator(seed)) for seed in range(2000)]
    assert abs(sum(drawn.box is None for drawn in draws if drawn) / 2000 - 0.5) < 0.05


@pytest.mark.parametrize("alpha", [1e-300, 1e-6, 100.0])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_extreme_alphas_still_give_shares(kind: str, alpha: float) -> None:
    for seed in range(100):
        drawn = draw_mix(Variation(augment="none", **{kind: alpha}), 16, generator(seed))
        assert drawn is not None
        assert 0 <= drawn.share <= 1


def test_a_lone_picture_is_mixed_with_itself() -> None:
    for kind in ("mixup", "cutmix"):
        (one,) = train_batches(
            source("uniform", n=1), prep(12), Variation(augment="none", **{kind: 1.0}), 4, 0, 0
        )
        assert torch.equal(one.images[0].permute(1, 2, 0), torch.from_numpy(waves(0, 12, 12, 3)))
        assert one.labels.tolist() == one.others.tolist() == [0]
