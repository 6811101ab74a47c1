"""The doctor: each check alone, on a survey made by hand, at both sides of its limit; and how it looks."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import deepskip.data as data
from deepskip.data.decode import glimpse, read_image
from deepskip.data.doctor import classes, doubles, files, likeness
from deepskip.data.doctor.examination import CHECKS
from deepskip.data.doctor.finding import FAULTS, Finding
from deepskip.data.doctor.survey import Picture, Survey, survey_folder
from deepskip.errors import InputError
from deepskip.figures.contact import Offence, Shown, contact
from tests.unit.faults import bad, good
from tests.unit.pictures import cut_short, noise, save

DOCS = Path(__file__).parents[2] / "docs"


def picture(file: str, **about: Any) -> Picture:
    """Return a sound picture; its split and class are those of its path, its content is its own."""
    split, label = file.split("/")[:2]
    usual = {"digest": file.encode(), "height": 48, "width": 60, "mode": "RGB", "format": "JPEG"}
    usual |= {"mean": (0.5, 0.5, 0.5), "contrast": 0.2}
    return Picture(file, "train" if split == "train" else "val", label, **(usual | about))


def survey(*pictures: Picture, **about: Any) -> Survey:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, (len(pictures), 2), np.uint64)
    thumbnails = rng.integers(0, 256, (len(pictures), likeness.SIDE, likeness.SIDE, 3), np.uint8)
    found = {side: tuple(sorted({p.label for p in pictures if p.split == side})) for side in ("train", "val")}
    usual = {"name": "photos", "root": Path("photos"), "places": {"train": "train", "val": "val"}}
    usual |= {"classes": found, "pictures": pictures, "hashes": hashes, "thumbnails": thumbnails}
    return Survey(**(usual | about))


def sound(train: int = 12, val: int = 4) -> list[Picture]:
    return [
        picture(f"{side}/{name}/{index:04}.jpg")
        for side, count in (("train", train), ("val", val))
        for name in ("ant", "bee")
        for index in range(count)
    ]


def kinds(findings: Any) -> dict[str, tuple[str, ...]]:
    return {finding.kind: finding.files for finding in findings}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_sound_survey_has_no_finding(check: Any) -> None:
    assert list(check(survey(*sound()))) == []


@pytest.mark.parametrize(
    ("kind", "fault", "harmless"),
    [
        ("wrong ending", {"format": "PNG"}, {"format": ""}),
        ("CMYK", {"mode": "CMYK"}, {"mode": "RGB"}),
        ("16 bit", {"mode": "I;16"}, {"mode": "RGB"}),
        ("grey", {"mode": "L"}, {"mode": "RGB"}),
        ("palette", {"mode": "P"}, {"mode": "RGB"}),
        ("transparency", {"mode": "P", "transparent": True}, {"mode": "RGB"}),
        ("tiny picture", {"height": 11, "width": 11}, {"height": 12, "width": 12}),
        ("elongated picture", {"height": 193}, {"height": 192, "width": 48}),
        ("EXIF rotation", {"orientation": 6}, {"orientation": 1}),
        ("single colour", {"flat": True}, {"flat": False}),
        ("animation", {"animated": True}, {"animated": False}),
        ("broken picture", {"broken": "not a picture"}, {"broken": ""}),
    ],
)
def test_a_fault_of_one_file(kind: str, fault: dict[str, Any], harmless: dict[str, Any]) -> None:
    checks = (files.broken, files.wrong_ending, files.modes, files.sizes, files.rotated, files.single_colour)
    width = {"width": 48} if kind == "elongated picture" else {}
    for about, expected in ((fault, {kind: ("train/ant/x.jpg",)}), (harmless, {})):
        seen = survey(*sound(), picture("train/ant/x.jpg", **(width | about)))
        assert kinds(f for check in (*checks, files.animated) for f in check(seen)) == expected


def test_a_set_that_is_all_grey_is_as_it_should_be() -> None:
    grey = [replace(p, mode="L") for p in sound()]
    assert list(files.modes(survey(*grey))) == []
    assert "CMYK" in kinds(files.modes(survey(*[replace(p, mode="CMYK") for p in sound()])))


def test_classes_without_pictures_and_on_one_side() -> None:
    found = {"train": ("ant", "bee", "cat"), "val": ("ant", "bee", "dog")}
    seen = survey(*sound(), picture("train/cat/a.jpg", broken="cut"), classes=found)
    assert kinds(classes.layout(seen))["empty class"] == ("val/dog",)  # the last of its kind
    assert [f.files for f in classes.layout(seen)] == [("train/cat",), ("val/dog",)]
    assert kinds(classes.class_sets(seen)) == {
        "class not in train": ("val/dog",),
        "class not in val": ("train/cat",),
    }


def test_one_class_and_no_validation() -> None:
    seen = survey(picture("train/ant/a.jpg"), places={"train": "", "val": ""}, name="pets")
    seen = replace(seen, classes={"train": ("ant",), "val": ("ant",)})
    assert list(kinds(classes.layout(seen))) == ["one class", "no validation"]


@pytest.mark.parametrize("other", ["Ant", "ant ", " ant", "ANT"])
def test_class_names_that_are_nearly_the_same(other: str) -> None:
    seen = survey(*sound(), classes={"train": ("ant", "bee"), "val": (other, "bee")})
    assert kinds(classes.alike_names(seen)) == {"alike class names": ("train/ant", f"val/{other}")}


def test_an_accent_can_be_written_in_two_ways() -> None:
    seen = survey(*sound(), classes={"train": ("caf\u00e9", "cafe\u0301", "cafe"), "val": ("cafe",)})
    (finding,) = classes.alike_names(seen)
    assert finding.files == ("train/caf\u00e9", "train/cafe\u0301")


def test_tiny_classes_and_imbalance_begin_at_their_limits() -> None:
    def seen(ants: int, bees: int) -> Survey:
        named = (("ant", ants), ("bee", bees))
        return survey(*[picture(f"train/{name}/{i}.jpg") for name, count in named for i in range(count)])

    assert kinds(classes.counts(seen(99, 10))) == {}
    assert kinds(classes.counts(seen(100, 10))) == {"imbalance": ("train/bee", "train/ant")}
    assert kinds(classes.counts(seen(20, 9))) == {"tiny class": ("train/bee",)}


def test_what_lies_among_the_pictures() -> None:
    others = {
        "train/ant/notes.txt": "stray file",
        "train/ant/a.HEIC": "unread format",
        "val/b.avif": "unread format",
        "train/ant/.DS_Store": "hidden file",
        "train/.cache/": None,
        "train/labels.csv": None,
        "README.md": None,
        "train/loose.jpg": "loose picture",
        "poster.jpg": None,
    }
    for file, kind in others.items():
        assert kinds(classes.other_files(survey(*sound(), others=(file,)))) == ({kind: (file,)} if kind else {})
    seen = survey(*sound(), folders=("old", "test", "train", "val"))
    assert kinds(classes.other_files(seen)) == {"unused folder": ("old/",)}


def test_folders_within_a_class() -> None:
    assert kinds(classes.nested(survey(*sound(), picture("train/ant/in/a.jpg")))) == {
        "nested folder": ("train/ant/in",)
    }


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"mean": (0.02,) * 3}, "nearly black"),
        ({"mean": (0.98,) * 3}, "nearly white"),
        ({"contrast": 0.01}, "nearly without contrast"),
        ({"mean": (0.04,) * 3, "contrast": 0.03}, None),
    ],
)
def test_a_whole_set_that_is_odd(about: dict[str, Any], words: str | None) -> None:
    found = list(classes.brightness(survey(*[replace(p, **about) for p in sound()])))
    assert [f.where for f in found] == (["train", "val"] if words else [])
    assert all(str(words) in f.found for f in found)


def test_a_class_that_its_colour_gives_away() -> None:
    rng = np.random.default_rng(0)

    def seen(shift: float) -> Survey:
        centre = {"ant": 0.5, "bee": 0.5, "cat": 0.5 + shift}
        pictures = [
            picture(f"train/{name}/{i}.jpg", mean=(0.5, level + 0.02 * rng.standard_normal(), 0.5))
            for name, level in centre.items()
            for i in range(50)
        ]
        return survey(*pictures)

    assert kinds(classes.standing_out(seen(0.06))) == {}  # three standard deviations
    assert kinds(classes.standing_out(seen(0.1))) == {"class stands out": ("train/cat",)}


def test_sides_that_differ() -> None:
    darker = [replace(p, mean=(0.3,) * 3) if p.split == "val" else p for p in sound(40, 10)]
    assert list(kinds(classes.splits_differ(survey(*darker)))) == ["splits differ"]
    assert list(classes.splits_differ(survey(*[p for p in darker if p.file < "val/bee/0001"]))) != []
    few = [p for p in darker if p.split == "train" or p.label == "ant"][:-1]
    assert list(classes.splits_differ(survey(*few))) == []  # nine are too few to say


@pytest.mark.parametrize(
    ("two", "kind"),
    [
        (("train/ant/x.jpg", "val/ant/y.jpg"), ["leaked copy"]),
        (("train/ant/x.jpg", "train/bee/y.jpg"), ["contradicting labels"]),
        (("train/ant/x.jpg", "val/bee/y.jpg"), ["leaked copy", "contradicting labels"]),
        (("train/ant/x.jpg", "train/ant/y.jpg"), ["copy"]),
    ],
)
def test_the_same_bytes_twice(two: tuple[str, str], kind: list[str]) -> None:
    seen = survey(*sound(), *(picture(file, digest=b"same") for file in two))
    found = list(doubles.copies(seen))
    assert [f.kind for f in found] == kind
    assert all(f.files == two and f.groups == (two,) for f in found)


@pytest.mark.parametrize(
    ("about", "kind"),
    [({}, ["leaked likeness"]), ({"height": 31}, []), ({"flat": True}, []), ({"digest": b"same"}, [])],
)
def test_the_same_look_twice(about: dict[str, Any], kind: list[str]) -> None:
    two = [picture(file, **about) for file in ("train/ant/x.jpg", "val/ant/y.jpg")]
    seen = survey(*sound(), *two)
    seen.hashes[-2] = seen.hashes[-1]
    seen.thumbnails[-2] = seen.thumbnails[-1]
    assert [f.kind for f in doubles.likenesses(seen)] == kind


@pytest.mark.parametrize(
    ("one", "other", "leaks"),
    [
        ("IMG_2041", "IMG_2041", True),
        ("IMG_2041", "img_2041", True),
        ("rex", "rex", True),
        ("rex", "rex_flip", True),
        ("rex (1)", "rex - copy", True),
        ("rex_rot90_crop2", "rex-aug7", True),
        ("rex", "max", False),
        ("IMG_2041", "IMG_2042", False),
        ("0003", "0003", False),  # both folders count from 0
    ],
)
def test_names_on_both_sides(one: str, other: str, leaks: bool) -> None:
    seen = survey(*sound(), picture(f"train/ant/{one}.png"), picture(f"val/ant/{other}.jpg"))
    assert [f.kind for f in doubles.names(seen)] == (["leaked name"] if leaks else [])
    elsewhere = survey(*sound(), picture(f"train/ant/{one}.png"), picture(f"val/bee/{other}.jpg"))
    assert list(doubles.names(elsewhere)) == []


def again(image: Image.Image, scale: float = 1.0, quality: int = 90) -> Image.Image:
    size = (round(image.width * scale), round(image.height * scale))
    out = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(out, "JPEG", quality=quality)
    return Image.open(out)


def looked(images: list[Image.Image]) -> tuple[likeness.Hashes, likeness.Thumbnails]:
    hashes = np.frombuffer(b"".join(map(likeness.dhash, images)), np.uint64).reshape(-1, 2)
    return hashes, np.stack([likeness.thumbnail(image) for image in images])


def test_likeness_sees_through_size_and_compression_and_nothing_else() -> None:
    originals = [noise(seed, 160, 120) for seed in range(60)]
    variants = [again(originals[0], 0.5), again(originals[1], 2.0), again(originals[2], 1.0, 40)]
    strangers = [
        Image.fromarray(np.asarray(originals[3])[..., ::-1].copy())
    ]  # the same greys nearly, other colours
    groups = likeness.near_groups(*looked([*originals, *variants, *strangers]))
    assert [group.tolist() for group in groups] == [[0, 60], [1, 61], [2, 62]]


def test_the_search_finds_what_comparing_all_pairs_finds() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, (300, 2), np.uint64)
    hashes[100:200, 0] &= np.uint64(0xFF)  # as pictures with a large even sky: crowded bands
    thumbnails = rng.integers(0, 256, (300, likeness.SIDE, likeness.SIDE, 3), np.uint8)
    for copy, (bits, levels) in enumerate(
        [(likeness.NEAR_BITS, 0), (likeness.NEAR_BITS + 1, 0), (3, 10), (3, 11)]
    ):
        flips = rng.choice(128, bits, replace=False)
        mask = np.zeros(128, np.uint8)
        mask[flips] = 1
        hashes[200 + copy] = hashes[copy] ^ np.packbits(mask).view(np.uint64)
        small = thumbnails[copy].astype(np.int64)
        thumbnails[200 + copy] = np.where(small < 128, small + levels, small - levels)
    bits_apart = np.bitwise_count(hashes[:, None] ^ hashes[None]).sum(axis=2)
    flat = thumbnails.reshape(300, -1).astype(np.float64)
    near = [
        (i, j)
        for i, j in zip(*np.nonzero(np.triu(bits_apart <= likeness.NEAR_BITS, 1)), strict=True)
        if np.sqrt(((flat[i] - flat[j]) ** 2).mean()) <= likeness.NEAR_LEVELS
    ]
    assert (
        [tuple(group.tolist()) for group in likeness.near_groups(hashes, thumbnails)]
        == near
        == [(0, 200), (2, 202)]
    )


def test_a_thousand_frames_of_one_film_are_one_group() -> None:
    hashes, thumbnails = looked([noise(0, 160, 120)])
    (group,) = likeness.near_groups(hashes.repeat(1000, 0), thumbnails.repeat(1000, 0))
    assert group.tolist() == list(range(1000))
    assert likeness.near_groups(hashes[:0], thumbnails[:0]) == []


def test_a_glimpse_fails_where_reading_fails(tmp_path: Path) -> None:
    large = save(noise(0, 1600, 1200), tmp_path / "large.jpg")
    assert min(glimpse(large, 64).image.size) < 300  # not all of its pixels were made
    assert (glimpse(large, 64).height, glimpse(large, 64).width) == (1200, 1600)
    for path in (cut_short(large), save(noise(0), tmp_path / "whole.png"), save(noise(0), tmp_path / "x.tif")):
        outcomes = []
        for look in (lambda path: glimpse(path, 64), lambda path: read_image(path, "RGB")):
            try:
                look(path)
                outcomes.append("")
            except InputError as error:
                outcomes.append(str(error))
        assert outcomes[0] == outcomes[1]
        assert bool(outcomes[0]) == (path == large)


def test_a_telephones_jpeg_with_a_second_picture_behind_it_is_a_jpeg(tmp_path: Path) -> None:
    path = save(noise(0), tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[noise(1)])
    seen = glimpse(path, 64)
    assert (seen.format, seen.animated) == ("JPEG", False)


def test_a_flat_folder_is_split_as_training_splits_it(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        for index in range(20):
            save(
                noise(100 * len(name) + index + (50 if name == "bee" else 0)), tmp_path / name / f"{index}.png"
            )
    seen = survey_folder(tmp_path)
    opened = data.open(tmp_path)
    assert [p.file for p in seen.pictures if p.split == "val"] == list(opened.val.files)
    assert [p.file for p in seen.pictures if p.split == "train"] == list(opened.train.files)


def test_a_survey_sees_pictures_upright_and_what_else_is_there(tmp_path: Path) -> None:
    good(tmp_path, train=1, val=1)
    exif = Image.Exif()
    exif[0x0112] = 6
    save(noise(0, 80, 30), tmp_path / "train" / "ant" / "turned.jpg", exif=exif)
    (tmp_path / "train" / "ant" / "notes.txt").touch()
    seen = survey_folder(tmp_path)
    sides = {(p.height, p.width, p.orientation) for p in seen.pictures}
    assert sides == {(48, 60, 1), (80, 30, 6)}
    assert seen.others == ("train/ant/notes.txt",)


def test_examining_changes_nothing_and_says_how_far_it_is(tmp_path: Path) -> None:
    good(tmp_path / "photos")
    before = sorted(os.walk(tmp_path))
    told: list[tuple[str, int, int]] = []
    found = data.examine(tmp_path / "photos", lambda *words: told.append(words))
    assert found.findings == ()
    assert (told[0], told[-1]) == (("looking at pictures", 0, 48), ("looking at pictures", 48, 48))
    assert sorted(os.walk(tmp_path)) == before


def test_findings_come_the_gravest_first(tmp_path: Path) -> None:
    bad(tmp_path / "photos")
    findings = data.examine(tmp_path / "photos").findings
    order = list(FAULTS)
    assert [order.index(f.kind) for f in findings] == sorted(order.index(f.kind) for f in findings)
    severities = [FAULTS[kind].severity for kind in order]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    assert Finding("CMYK", "train", "one").advice == FAULTS["CMYK"].advice


def test_every_kind_is_documented() -> None:
    text = (DOCS / "commands.md").read_text(encoding="utf-8")
    for kind, fault in FAULTS.items():
        assert f"| {fault.severity} | {kind} |" in text, kind


def test_a_contact_sheet_breaks_long_names_and_lays_out_any_number() -> None:
    pixels = np.zeros((30, 300, 3), np.uint8)
    shown = [Shown(f"train/{'very ' * 20}long/{i}.jpg", pixels) for i in range(8)]
    one = Offence("broken picture", "error", "1 picture $x_1$ " * 60, [Shown("a.png", None, "cut " * 50)], 1)
    sheet = contact("pets", [one, one, Offence("copy", "note", "copies", shown, 1000, paired=True)])
    wide, high = sheet.get_size_inches()
    assert wide == pytest.approx(8.84)
    texts = [text.get_text() for text in sheet.axes[0].texts]
    assert "and 992 more" in texts
    for text in sheet.axes[0].texts:
        box = text.get_window_extent().transformed(sheet.dpi_scale_trans.inverted())
        assert -0.01 <= box.x0 < box.x1 <= wide + 0.01
        assert -0.01 <= box.y0 < box.y1 <= high + 0.01
    assert contact("pets", []).axes[0].texts[0].get_text() == "pets: no picture to show"
