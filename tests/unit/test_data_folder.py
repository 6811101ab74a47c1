"""A folder of pictures: its layouts, its split, its store, and what is wrong with it, named."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import deepskip.data as data
from deepskip.data import listing, store
from deepskip.data.dataset import RaggedImages
from deepskip.data.decode import preprocess_file
from deepskip.data.listing import class_folders, find_pictures, list_images, stratified
from deepskip.describe.preprocessing import Preprocessing
from deepskip.errors import InputError, WorkError
from tests.unit.pictures import cut_short, folder, leftovers, noise, save


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEEPSKIP_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files decoded from here on."""
    names: list[str] = []
    real = store._decode

    def counting(path: Path, *rest: object) -> object:
        names.append(path.name)
        return real(path, *rest)

    monkeypatch.setattr(store, "_decode", counting)
    return names


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    folder(tmp_path / "pets/train", {"cat": 6, "dog": 5})
    folder(tmp_path / "pets/val", {"cat": 3, "dog": 2}, suffix=".webp")
    return tmp_path / "pets"


def model(size: int, colour: str = "RGB") -> Preprocessing:
    n = len(colour)
    resize = round(size / 0.875) if size >= 64 else size
    return Preprocessing(size=size, resize=resize, colour=colour, mean=(0.5,) * n, std=(0.2,) * n)


# Layouts


def test_train_and_val(pets: Path) -> None:
    opened = data.open(pets, size=32)
    assert opened.name == "pets"
    assert opened.classes == ("cat", "dog")
    assert opened.input == (3, 32, 32)
    assert opened.train.labels.tolist() == [0] * 6 + [1] * 5
    assert opened.val.labels.tolist() == [0, 0, 0, 1, 1]
    assert opened.train.labels.dtype == torch.int64
    assert opened.val.files[0] == "cat/000.webp"
    assert opened.broken == ()


@pytest.mark.parametrize(
    ("there", "used"),
    [(["valid", "test"], "valid"), (["test"], "test"), (["validation", "test"], "validation"),
     (["val", "valid"], "val")],
)  # fmt: skip
def test_the_first_validation_folder_counts(tmp_path: Path, there: list[str], used: str) -> None:
    folder(tmp_path / "d/train", {"a": 2, "b": 2})
    for name in there:
        folder(tmp_path / "d" / name, {"a": 1, "b": 3 if name == used else 1})
    assert len(data.open(tmp_path / "d", size=16).val) == 4


def test_a_flat_folder_and_a_lone_train_are_split_alike(tmp_path: Path) -> None:
    folder(tmp_path / "flat", {"a": 10, "b": 15, "test": 5})
    folder(tmp_path / "d/train", {"a": 10, "b": 15, "test": 5})
    flat, lone = data.open(tmp_path / "flat", size=16), data.open(tmp_path / "d", size=16)
    assert flat.classes == ("a", "b", "test")
    assert torch.bincount(flat.val.labels).tolist() == [2, 3, 1]
    assert torch.bincount(flat.train.labels).tolist() == [8, 12, 4]
    assert not set(flat.train.files) & set(flat.val.files)
    assert flat.val.files == lone.val.files
    assert flat.fingerprint == lone.fingerprint


def test_nested_folders_count_and_hidden_or_other_files_do_not(pets: Path) -> None:
    save(noise(77), pets / "train/cat/deep/er/x.PNG")
    save(noise(78), pets / "train/cat/.hidden.png")
    save(noise(79), pets / "train/cat/.thumbs/y.png")
    (pets / "train/cat/notes.txt").write_text("hello")
    (pets / "train/.git").mkdir()
    os.mkfifo(pets / "train/cat/pipe.png")
    opened = data.open(pets, size=32)
    assert opened.classes == ("cat", "dog")
    assert len(opened.train) == 12
    assert "cat/deep/er/x.PNG" in opened.train.files


def test_links_that_lead_back_end(pets: Path) -> None:
    (pets / "train/cat/up").symlink_to(pets / "train", target_is_directory=True)
    (pets / "train/cat/self").symlink_to(pets / "train/cat/self")
    (pets / "train/dog/gone.png").symlink_to(pets / "nowhere.png")
    opened = data.open(pets, size=32)
    assert len(opened.train) == 6 + 5 + 5  # dog's are cat's too, by way of cat/up; nothing comes round again
    assert [entry for entry in opened.train.broken if "gone.png" in entry] != []


# The split


def test_the_split_is_a_function_of_paths_and_hardly_moves(tmp_path: Path) -> None:
    folder(tmp_path / "d", {"a": 40, "b": 1, "c": 2}, width=4, height=4)
    names = class_folders(tmp_path / "d")
    train, val = stratified(list_images(tmp_path / "d", names))
    assert [sum(file.startswith(f"{name}/") for file in val.files) for name in names] == [8, 0, 1]
    assert set(train.files) | set(val.files) == set(list_images(tmp_path / "d", names).files)
    shutil.copytree(tmp_path / "d", tmp_path / "e")
    assert stratified(list_images(tmp_path / "e", names))[1].files == val.files
    (tmp_path / "e/a/000.png").rename(tmp_path / "e/a/zzz.png")
    moved = set(stratified(list_images(tmp_path / "e", names))[1].files) ^ set(val.files)
    assert len(moved) <= 2
    other_seed = stratified(list_images(tmp_path / "d", names), seed=1)[1].files
    assert other_seed != val.files


# What pictures become


def test_validation_pictures_are_what_predicting_sees(tmp_path: Path) -> None:
    """Bit for bit, for sizes above and below, both shapes, and every store that holds them."""
    for index, (width, height) in enumerate([(90, 70), (200, 100), (30, 50), (64, 64), (600, 40)]):
        for split, name in (("train", "a"), ("train", "b"), ("val", "a"), ("val", "b")):
            image = noise(10 * index + len(split), width, height)
            save(image, tmp_path / f"d/{split}/{name}/{index}.{'jpg' if index % 2 else 'png'}")
    for size in (32, 64):
        opened = data.open(tmp_path / "d", size=size)
        for _ in range(2):
            for index, file in enumerate(opened.val.files):
                wanted = preprocess_file(tmp_path / "d/val" / file, opened.preprocessing)
                assert np.array_equal(opened.val.images[index], wanted)
            opened = data.open(tmp_path / "d", size=size)


def test_training_photographs_keep_a_margin_and_small_ones_are_final(tmp_path: Path) -> None:
    folder(tmp_path / "d/train", {"a": 2, "b": 2}, width=300, height=120)
    folder(tmp_path / "d/val", {"a": 1}, width=300, height=120)
    photos = data.open(tmp_path / "d", size=64)
    assert photos.augment == "photo"
    assert photos.preprocessing.resize == 73
    assert isinstance(photos.train.images, RaggedImages)
    assert photos.train.images[0].shape == (80, 200, 3)
    small = data.open(tmp_path / "d", size=32)
    assert small.augment == "crop_flip"
    first = preprocess_file(tmp_path / "d/train/a/000.png", small.preprocessing)
    assert np.array_equal(small.train.images[0], first)


def test_mean_and_std_are_those_of_the_training_pixels(tmp_path: Path) -> None:
    folder(tmp_path / "d/train", {"a": 5, "b": 4}, width=32, height=32)
    folder(tmp_path / "d/val", {"a": 1}, width=32, height=32)
    opened = data.open(tmp_path / "d", size=32)
    pixels = opened.train.images.pixels / 255.0
    assert np.allclose(opened.preprocessing.mean, pixels.mean((0, 1, 2)), atol=1e-6)
    assert np.allclose(opened.preprocessing.std, pixels.std((0, 1, 2)), atol=1e-6)


def test_pictures_without_contrast_can_still_be_normalised(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(Image.new("RGB", (16, 16), "black"), tmp_path / f"d/{name}/0.png")
        save(Image.new("RGB", (16, 16), "black"), tmp_path / f"d/{name}/1.png")
    assert min(data.open(tmp_path / "d", size=16).preprocessing.std) > 0


@pytest.mark.parametrize(("side", "size"), [(20, 32), (40, 32), (41, 64), (97, 128), (201, 224)])
def test_the_usual_size_follows_the_pictures(tmp_path: Path, side: int, size: int) -> None:
    folder(tmp_path / "d", {"a": 2, "b": 2}, width=side + 30, height=side)
    assert data.open(tmp_path / "d").preprocessing.size == size


def test_all_grey_pictures_make_one_channel_and_one_coloured_makes_three(tmp_path: Path) -> None:
    folder(tmp_path / "d", {"a": 2, "b": 2}, channels=1)
    save(Image.fromarray(np.full((32, 32), 9999, np.uint16)), tmp_path / "d/a/deep.png")
    assert data.open(tmp_path / "d").input == (1, 32, 32)
    for index in range(9):
        save(noise(index), tmp_path / f"d/b/colour{index}.png")
    assert data.open(tmp_path / "d").input == (3, 32, 32)


# For an existing model


def test_a_models_classes_number_the_labels(pets: Path) -> None:
    classes = ("ant", "dog", "cat")
    opened = data.open(pets, preprocessing=model(16), classes=classes)
    assert opened.classes == classes
    assert opened.preprocessing == model(16)
    assert opened.val.labels.tolist() == [2, 2, 2, 1, 1]
    with pytest.raises(InputError, match=r"unknown class 'cat'.*nearest: cats"):
        data.open(pets, preprocessing=model(16), classes=("cats", "dog"))
    with pytest.raises(InputError, match="size: got 32; allowed: the model's, 16"):
        data.open(pets, size=32, preprocessing=model(16), classes=classes)


def test_evaluating_does_not_decode_the_training_pictures(pets: Path, decoded: list[str]) -> None:
    shutil.rmtree(pets / "train/cat")  # not even listed
    (pets / "train/cat").mkdir()
    opened = data.open(pets, preprocessing=model(16), classes=("cat", "dog"))
    assert decoded == []
    assert len(opened.val) == 5
    assert set(decoded) == {"000.webp", "001.webp", "002.webp"}


def test_val_alone_will_do_for_a_model_only(pets: Path) -> None:
    shutil.rmtree(pets / "train")
    opened = data.open(pets, preprocessing=model(16), classes=("cat", "dog", "fox"))
    assert len(opened.val) == 5
    with pytest.raises(InputError, match="no train/"):
        _ = opened.train
    with pytest.raises(InputError, match="val/ without train/"):
        data.open(pets)


# What is wrong, by name


def test_wrong_folders_are_refused_by_name(tmp_path: Path, pets: Path) -> None:
    (tmp_path / "one/a").mkdir(parents=True)
    with pytest.raises(InputError, match="only one class, 'a'; allowed: two or more"):
        data.open(tmp_path / "one")
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="none: got no folders of images"):
        data.open(tmp_path / "none")
    (pets / "train/eel").mkdir()
    with pytest.raises(InputError, match="train/eel: got no image file"):
        data.open(pets)
    (pets / "train/eel").rmdir()
    folder(pets / "val", {"dogs": 1})
    with pytest.raises(InputError, match="val: got unknown class 'dogs'; allowed: cat, dog; nearest: dog"):
        data.open(pets)


def test_a_folder_that_cannot_be_read(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> object:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(listing.os, "scandir", refuse)
    with pytest.raises(InputError, match="pets: got permission denied"):
        data.open(pets)


def test_single_pictures_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one image in each class"):
        data.open(folder(tmp_path / "d", {"a": 1, "b": 1}))


def test_broken_files_are_left_out_and_named(pets: Path) -> None:
    cut_short(save(noise(1, 64, 64), pets / "train/cat/half.jpg"))
    (pets / "train/dog/text.jpg").write_text("I am no picture")
    (pets / "val/dog/empty.png").touch()
    (pets / os.fsdecode(b"val/dog/bytes-\xff.png")).touch()
    opened = data.open(pets, size=32)
    assert len(opened.train) == 11
    assert [entry.partition(":")[0] for entry in opened.train.broken] == ["cat/half.jpg", "dog/text.jpg"]
    assert opened.train.broken[1] == "dog/text.jpg: not a picture"
    assert opened.val.broken == ("dog/bytes-?.png: not a picture", "dog/empty.png: not a picture")
    assert data.open(pets, size=32).broken == opened.broken  # known without decoding again
    assert "cat/half.jpg" not in opened.train.files
    assert len(opened.train.hashes) == len(opened.train.files) == len(opened.train.labels)


def test_a_class_of_broken_files_is_refused(pets: Path) -> None:
    for path in (pets / "train/dog").iterdir():
        path.write_text("no")
    with pytest.raises(
        InputError, match=r"train/dog: got no readable image \(dog/000\.png: .*\); allowed: one or more$"
    ):
        data.open(pets, size=32)
    for path in (pets / "train/cat").iterdir():
        path.write_text("no")
    with pytest.raises(InputError, match="11 image files, none readable"):
        data.open(pets, size=32)


# The store


def test_an_unchanged_folder_is_not_decoded_again(pets: Path, decoded: list[str]) -> None:
    first = data.open(pets, size=32)
    fingerprint = first.fingerprint
    assert len(decoded) == 16
    again = data.open(pets, size=32)
    assert again.fingerprint == fingerprint
    assert again.preprocessing == first.preprocessing
    assert len(decoded) == 16


@pytest.mark.parametrize("change", ["touch", "modify", "add", "remove", "rename"])
def test_a_changed_folder_is_decoded_anew(pets: Path, cache: Path, decoded: list[str], change: str) -> None:
    before = data.open(pets, size=32)
    fingerprint, count = before.fingerprint, len(before.train)
    stores = set(leftovers(cache))
    decoded.clear()
    path = pets / "train/cat/003.png"
    if change == "touch":
        os.utime(path, (1, 1))
    elif change == "modify":
        save(noise(555), path)
    elif change == "add":
        save(noise(555), path.with_name("new.png"))
    elif change == "remove":
        path.unlink()
    else:
        path.rename(path.with_name("zzz.png"))
    after = data.open(pets, size=32)
    assert len(after.train) == count + {"add": 1, "remove": -1}.get(change, 0)
    assert decoded != []
    assert (after.fingerprint == fingerprint) == (change == "touch")
    assert len(leftovers(cache)) == len(stores)  # the stale store has gone
    assert before.train.images[0].sum() > 0  # and whoever still had it open keeps it


def test_the_fingerprint_is_of_the_content(pets: Path, tmp_path: Path) -> None:
    fingerprint = data.open(pets, size=32).fingerprint
    shutil.copytree(pets, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    assert data.open(tmp_path / "elsewhere", size=32).fingerprint == fingerprint
    assert data.open(pets, size=64).fingerprint == fingerprint
    (pets / "train/cat").rename(pets / "train/cow")
    (pets / "val/cat").rename(pets / "val/cow")
    assert data.open(pets, size=32).fingerprint != fingerprint


def test_other_decodings_of_a_folder_live_side_by_side(pets: Path, decoded: list[str]) -> None:
    for size in (32, 64, 32, 64):
        data.open(pets, size=size)
    assert len(decoded) == 22


@pytest.mark.parametrize("file", ["pixels.bin", "index.npy", "index.json"])
@pytest.mark.parametrize("damage", ["short", "gone", "noise"])
@pytest.mark.parametrize("size", [32, 64])
def test_a_damaged_store_is_rebuilt(pets: Path, cache: Path, file: str, damage: str, size: int) -> None:
    wanted = data.open(pets, size=size).train.images[9].copy()
    for path in cache.rglob(file):
        if damage == "short":
            cut_short(path)
        elif damage == "gone":
            path.unlink()
        elif file != "pixels.bin":
            path.write_bytes(b"\x93NUMPY nonsense")
    assert np.array_equal(data.open(pets, size=size).train.images[9], wanted)


def test_a_store_is_read_only(pets: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        data.open(pets, size=32).val.images[0][0] = 0


def test_a_full_disk_is_one_line_and_leaves_nothing(pets: Path, cache: Path) -> None:
    """A real one: the operating system refuses to let any file grow beyond 20 kB."""
    script = f"""
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        import deepskip.data
        from deepskip.errors import WorkError
        try:
            deepskip.data.open({str(pets)!r}, size=64)
        except WorkError as error:
            print("WorkError", error)
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.stdout.startswith("WorkError")
    assert "file too large" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""
    assert leftovers(cache) == []


@pytest.mark.parametrize("failing", ["_flush", "write_json", "np.save"])
def test_a_failure_at_any_write_leaves_nothing(
    pets: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    target = store.np if failing == "np.save" else store
    monkeypatch.setattr(target, failing.removeprefix("np."), full)
    with pytest.raises(WorkError, match="no space left on device"):
        data.open(pets, size=32)
    assert leftovers(cache) == []


def test_progress_and_an_interrupt(pets: Path, cache: Path) -> None:
    told: list[tuple[str, int, int]] = []
    data.open(pets, size=32, progress=lambda *what: told.append(what))
    assert told[0] == ("decoding train images", 0, 11)
    assert told[-1] == ("decoding train images", 11, 11)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = leftovers(cache)
    with pytest.raises(KeyboardInterrupt):
        data.open(pets, size=16, progress=interrupt)
    assert leftovers(cache) == before


def test_what_a_killed_process_left_is_swept_when_old(pets: Path, cache: Path) -> None:
    data.open(pets, size=32)
    (kept,) = (cache / "stores").iterdir()
    place = kept.name.partition("-")[0]
    for name, age in (("old", 2 * store.ABANDONED), ("new", 0.0)):
        part = cache / "stores" / f".{place}-{name}.part"
        part.mkdir()
        (part / "pixels.bin").touch()
        for path in (part / "pixels.bin", part):
            os.utime(path, (path.stat().st_mtime - age,) * 2)
    os.utime(pets / "train/cat/000.png", (1, 1))
    data.open(pets, size=32)
    assert [path.name for path in (cache / "stores").glob(".*")] == [f".{place}-new.part"]


def test_pictures_are_found_in_the_order_of_their_names_and_one_folder_at_a_time(tmp_path: Path) -> None:
    for name in ("b.png", "a/z.jpg", "a/b/c.webp", "a.png", "c/x.PNG", "a-/y.png", "c/notes.txt", ".h/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "c" / "up").symlink_to(tmp_path)
    (tmp_path / "c" / "gone.png").symlink_to(tmp_path / "nowhere")
    found = list(find_pictures([tmp_path, tmp_path / "c" / "notes.txt"]))
    names = [path.relative_to(tmp_path).as_posix() for path in found]
    wanted = ["a/b/c.webp", "a/z.jpg", "a-/y.png", "a.png", "b.png", "c/gone.png", "c/x.PNG"]
    assert names == [*sorted(wanted, key=lambda name: name.split("/")), "c/notes.txt"]
    first = find_pictures([tmp_path])
    next(first)
    (tmp_path / "c" / "w.png").touch()  # not looked into yet
    assert tmp_path / "c" / "w.png" in list(first)


def test_what_is_nowhere_or_empty_is_said_before_anything_else(tmp_path: Path) -> None:
    save(noise(0), tmp_path / "a" / "x.png")
    (tmp_path / "empty").mkdir()
    for path, says in (
        (tmp_path / "no.png", "no such file or folder"),
        (tmp_path / "ab" / "x.png", f"nearest: {tmp_path / 'a' / 'x.png'}"),
        (tmp_path / "a" / "x.pnf", f"nearest: {tmp_path / 'a' / 'x.png'}"),
        (tmp_path / "empti", f"nearest: {tmp_path / 'empty'}"),
        (tmp_path / "empty", "without pictures"),
    ):
        with pytest.raises(InputError, match=says):
            find_pictures([tmp_path / "a", path])


def test_a_very_deep_folder_is_searched(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(1200):
        deep = deep / "d"
        deep.mkdir()
    (deep / "x.png").touch()
    try:
        assert list(find_pictures([tmp_path])) == [deep / "x.png"]
    finally:  # by hand: what clears temporary folders goes down by recursion
        (deep / "x.png").unlink()
        while deep != tmp_path:
            deep.rmdir()
            deep = deep.parent
