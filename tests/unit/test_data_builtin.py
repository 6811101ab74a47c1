"""The built-in data sets: their layouts on a disk, hostile and damaged copies, downloads, names."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import http.server
import io
import os
import pickle
import struct
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import deepskip.data as data
from deepskip.data.augment import crop_flip
from deepskip.data.decode import from_pixels, preprocess_file
from deepskip.data.layouts import read_cifar_binary, read_cifar_pickle, read_idx
from deepskip.data.published import CIFAR10_CLASSES, CIFAR100_CLASSES, PUBLISHED, Download
from deepskip.describe.preprocessing import Preprocessing
from deepskip.errors import InputError, WorkError
from tests.unit.pictures import leftovers, save

REAL = Path(os.environ.get("DEEPSKIP_DATA", "nowhere"))
"""A copy of the real files, checked when the tests are run with one."""
FASHION = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEEPSKIP_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pictures(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3), np.uint8)


def planes(pixels: np.ndarray) -> np.ndarray:
    return pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)


def write_binary(path: Path, pixels: np.ndarray, *labels: list[int]) -> Path:
    columns = [np.array(column, np.uint8)[:, None] for column in labels]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.hstack([*columns, planes(pixels)]).tobytes())
    return path


def write_idx(path: Path, array: np.ndarray) -> Path:
    content = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


# Readers


def test_cifar_binary(tmp_path: Path) -> None:
    one, two = pictures(4, 1), pictures(4, 2)
    paths = [write_binary(tmp_path / "1", one, [0, 1, 2, 9]), write_binary(tmp_path / "2", two, [9, 8, 7, 6])]
    pixels, labels = read_cifar_binary(paths, total=8, classes=10, label_bytes=1)
    assert np.array_equal(pixels, np.concatenate([one, two]))
    assert labels.tolist() == [0, 1, 2, 9, 9, 8, 7, 6]
    fine = write_binary(tmp_path / "fine", one, [19] * 4, [5, 99, 0, 1])
    assert read_cifar_binary([fine], total=4, classes=100, label_bytes=2)[1].tolist() == [5, 99, 0, 1]


@pytest.mark.parametrize("length", [0, 3073 * 3, 3073 * 4 - 1, 3073 * 4 + 1])
def test_cifar_binary_of_another_length_is_refused(tmp_path: Path, length: int) -> None:
    path = write_binary(tmp_path / "x.bin", pictures(5), [0] * 5)
    os.truncate(path, length)
    with pytest.raises(InputError, match=r"x\.bin: got .*; allowed: 12292 bytes"):
        read_cifar_binary([path], total=4, classes=10, label_bytes=1)


def test_labels_out_of_range_are_refused(tmp_path: Path) -> None:
    path = write_binary(tmp_path / "x.bin", pictures(2), [3, 10])
    with pytest.raises(InputError, match=r"x\.bin: got a label 10; allowed: 0 to 9"):
        read_cifar_binary([path], total=2, classes=10, label_bytes=1)


def as_python_2_would(batch: dict[bytes, object]) -> bytes:
    """Pickle with the module names and protocol of the published files."""
    return pickle.dumps(batch, protocol=2, fix_imports=True).replace(
        b"numpy._core.multiarray", b"numpy.core.multiarray"
    )


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("keys", [bytes, str])
@pytest.mark.parametrize("order", ["C", "F"])
def test_cifar_pickle(tmp_path: Path, protocol: int, keys: type, order: str) -> None:
    pixels = pictures(3)
    rows = np.asarray(planes(pixels), order=order)
    batch: dict[Any, object] = {b"data": rows, b"fine_labels": [0, 99, 7], b"filenames": [b"x"]}
    if keys is str:
        batch = {key.decode(): value for key, value in batch.items()}
    (tmp_path / "a").write_bytes(
        as_python_2_would(batch) if protocol == 2 else pickle.dumps(batch, protocol=protocol)
    )
    read, labels = read_cifar_pickle([tmp_path / "a"], total=3, classes=100, label_key="fine_labels")
    assert np.array_equal(read, pixels)
    assert labels.tolist() == [0, 99, 7]


class Hostile:
    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def test_a_malicious_pickle_runs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    hostile: list[object] = [
        Hostile(os.system, f"touch {marker}"),
        Hostile(eval, f"open({str(marker)!r}, 'w')"),
        Hostile(io.open, str(marker), "w"),
        Hostile(getattr, Path(), "touch"),
        Hostile(np.save, str(marker), [1]),
        Hostile(np.dtype, "O"),
        np.array([{}], dtype=object),
        np.zeros((2, 3072), np.float64),
    ]
    for attack in hostile:
        for batch in (attack, {"data": attack, "labels": [0, 1]}):
            path = tmp_path / "batch"
            path.write_bytes(pickle.dumps(batch, protocol=2))
            with pytest.raises(InputError, match="batch: got ") as caught:
                read_cifar_pickle([path], total=2, classes=10, label_key="labels")
            assert "\n" not in str(caught.value)
    assert not marker.exists()
    assert not list(tmp_path.glob("executed*"))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"data": np.zeros((1, 3072), np.uint8), "labels": [0, 1]}, r"data \[1, 3072\]"),
        ({"labels": [0, 1]}, "data NoneType"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}, "no list of 2 whole numbers"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0, "1"]}, "no list of 2 whole numbers"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0, -1]}, "a label -1"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 10**30]}, "a label 1000"),
        ([1, 2], "no pickled dict"),
    ],
)
def test_a_wrong_pickle_is_refused_by_name(tmp_path: Path, batch: object, message: str) -> None:
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(InputError, match=f"data_batch_1: got .*{message}"):
        read_cifar_pickle([path], total=2, classes=10, label_key="labels")
    for damaged in (b"", b"\x80\x02}q", os.urandom(50)):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="data_batch_1"):
            read_cifar_pickle([path], total=2, classes=10, label_key="labels")


def test_a_pickle_that_asks_for_all_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few damaged bytes can claim a place number in the billions, for which the unpickler wants room."""

    def load(self: object) -> object:
        raise MemoryError

    monkeypatch.setattr("deepskip.data.layouts._Unpickler.load", load)
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x02}r\xff\xff\xff\xff.")
    with pytest.raises(InputError, match="data_batch_1: got no pickled dict .MemoryError"):
        read_cifar_pickle([tmp_path / "data_batch_1"], total=2, classes=10, label_key="labels")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx(tmp_path: Path, suffix: str) -> None:
    pixels = pictures(3)[..., 0]
    labels = np.array([1, 0, 9], np.uint8)
    paths = [write_idx(tmp_path / f"i{suffix}", pixels), write_idx(tmp_path / f"l{suffix}", labels)]
    read, found = read_idx(paths, total=3, classes=10, size=32)
    assert np.array_equal(read[..., 0], pixels)
    assert found.tolist() == [1, 0, 9]
    with pytest.raises(InputError, match=f"l{suffix}: got a label 9"):
        read_idx(paths, total=3, classes=9, size=32)
    with pytest.raises(InputError, match=f"i{suffix}: got a header"):
        read_idx([write_idx(paths[0], pixels.reshape(3, 16, 64)), paths[1]], total=3, classes=10, size=32)
    content = paths[0].read_bytes()
    for damaged in (b"", content[:-9], content + b"\0"):
        paths[0].write_bytes(damaged)
        with pytest.raises(InputError, match=f"i{suffix}: got "):
            read_idx(paths, total=3, classes=10, size=32)


# Opened by name


def test_digits() -> None:
    opened = data.open("digits")
    assert (len(opened.train), len(opened.val)) == (1437, 360)
    assert opened.input == (1, 8, 8)
    assert opened.classes == tuple("0123456789")
    assert opened.augment == "none"
    for split in (opened.train, opened.val):
        share = torch.bincount(split.labels) / len(split)
        assert (share - 0.1).abs().max() < 0.01
    pixels = opened.train.images.pixels / 255
    assert pixels.max() == 1
    assert opened.preprocessing.mean == (round(pixels.mean(), 4),)
    assert opened.preprocessing.std == (round(pixels.std(), 4),)
    assert opened.fingerprint == data.open("digits").fingerprint
    assert opened.fingerprint.startswith("cac94075be84")  # the split is part of every published number


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10"])
def test_published_means_are_those_of_the_real_files(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "cifar10":
        monkeypatch.setenv("DEEPSKIP_DATA", str(REAL))
    if not (FASHION if name == "fashion-mnist" else REAL / "cifar-10-batches-bin").is_dir():
        pytest.skip("no copy on this machine")
    opened = data.open(name)
    pixels = opened.train.images.pixels
    for channel, (mean, std) in enumerate(
        zip(opened.preprocessing.mean, opened.preprocessing.std, strict=True)
    ):
        counts = np.bincount(pixels[..., channel].ravel(), minlength=256) / pixels[..., channel].size
        levels = np.arange(256) / 255
        exact = (counts * levels).sum()
        assert mean == round(exact, 4)
        assert std == round(np.sqrt((counts * (levels - exact) ** 2).sum()), 4)
    assert (torch.bincount(opened.train.labels) == len(opened.train) / 10).all()
    assert (torch.bincount(opened.val.labels) == 1000).all()


def test_names_of_classes() -> None:
    assert len(set(CIFAR100_CLASSES)) == 100
    assert list(CIFAR100_CLASSES) == sorted(CIFAR100_CLASSES)
    assert list(CIFAR10_CLASSES) == sorted(CIFAR10_CLASSES)
    assert all(len(known.classes) in (10, 100) for known in PUBLISHED.values())


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """CIFAR-10 and -100 of ten and four pictures."""
    for name in ("cifar10", "cifar100"):
        known = dataclasses.replace(PUBLISHED[name], pictures={"train": 10, "val": 4})
        monkeypatch.setitem(PUBLISHED, name, known)


def write_small_cifar10(folder: Path) -> None:
    for index in range(1, 6):
        write_binary(folder / f"data_batch_{index}.bin", pictures(2, index), [index, index - 1])
    write_binary(folder / "test_batch.bin", pictures(4, 9), [9, 8, 7, 0])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("inside", ["cifar-10-batches-bin", ""])
def test_a_copy_on_the_machine_is_used(cache: Path, inside: str) -> None:
    write_small_cifar10(cache / inside)
    opened = data.open("cifar10")
    assert opened.train.labels.tolist() == [1, 0, 2, 1, 3, 2, 4, 3, 5, 4]
    assert np.array_equal(opened.val.images[2], pictures(4, 9)[2])


@pytest.mark.usefixtures("small")
def test_a_pickled_copy_on_the_machine_is_used(cache: Path) -> None:
    (cache / "cifar-100-python").mkdir(parents=True)
    for name, n in (("train", 10), ("test", 4)):
        batch = {b"data": planes(pictures(n)), b"fine_labels": list(range(n)), b"coarse_labels": [0] * n}
        (cache / "cifar-100-python" / name).write_bytes(as_python_2_would(batch))
    opened = data.open("cifar100")
    assert opened.train.labels.tolist() == list(range(10))
    assert np.array_equal(opened.val.images[2], pictures(4)[2])


@pytest.mark.usefixtures("small")
def test_splits_are_read_one_by_one(cache: Path) -> None:
    write_small_cifar10(cache / "cifar-10-batches-bin")
    (cache / "cifar-10-batches-bin/data_batch_4.bin").write_bytes(b"cut short")
    opened = data.open("cifar10")
    assert len(opened.val) == 4
    with pytest.raises(InputError, match=r"data_batch_4\.bin: got 9 bytes; allowed: 6146 bytes"):
        _ = opened.train


@pytest.mark.usefixtures("small")
def test_an_incomplete_copy_is_named_not_replaced(cache: Path) -> None:
    write_small_cifar10(cache / "cifar-10-batches-bin")
    (cache / "cifar-10-batches-bin/data_batch_4.bin").unlink()
    with pytest.raises(InputError, match=r"cifar-10-batches-bin/data_batch_4\.bin: got no such file"):
        data.open("cifar10")


@pytest.mark.usefixtures("small")
def test_a_models_classes_and_colour(cache: Path, tmp_path: Path) -> None:
    write_small_cifar10(cache / "cifar-10-batches-bin")
    grey = Preprocessing(size=32, resize=32, colour="L", mean=(0.5,), std=(0.5,))
    classes = ("zebra", *reversed(CIFAR10_CLASSES))
    opened = data.open("cifar10", preprocessing=grey, classes=classes)
    assert opened.preprocessing == grey
    assert [opened.classes[label] for label in opened.val.labels] == ["truck", "ship", "horse", "airplane"]
    for index in range(4):  # as predicting on a file of the same picture would see it
        path = save(from_pixels(pictures(4, 9)[index]), tmp_path / "x.png")
        assert np.array_equal(opened.val.images[index], preprocess_file(path, grey))
    with pytest.raises(InputError, match="cifar10: got size 32 of pictures resized to 40"):
        data.open("cifar10", preprocessing=grey.replace(resize=40))
    with pytest.raises(InputError, match="unknown class 'truck'"):
        data.open("cifar10", classes=CIFAR10_CLASSES[:9])


def test_grey_pictures_for_a_model_of_colours() -> None:
    colour = Preprocessing(size=8, resize=8, mean=(0.5,) * 3, std=(0.5,) * 3)
    opened, plain = data.open("digits", preprocessing=colour), data.open("digits")
    assert opened.input == (3, 8, 8)
    assert np.array_equal(opened.val.images.pixels, plain.val.images.pixels.repeat(3, -1))
    assert crop_flip(opened.val.images, torch.arange(2), colour, torch.Generator()).shape == (2, 8, 8, 3)


def test_names_that_are_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flowers").mkdir()
    (tmp_path / "file.txt").touch()
    monkeypatch.chdir(tmp_path)
    allowed = "digits, fashion-mnist, cifar10, cifar100, or a folder of images"
    for source, message in [
        ("CIFAR-10", f"'CIFAR-10': got neither a built-in name nor a folder; allowed: {allowed}"),
        ("CIFAR-10", "nearest: cifar10"),
        ("flower", "nearest: flowers"),
        (str(tmp_path / "flower"), f"nearest: {tmp_path}/flowers"),
        ("file.txt", "'file.txt': got a file"),
        ("qqqqqqq\0", "neither a built-in name"),
        (tmp_path / "no/such/place", "neither a built-in name nor a folder"),
    ]:  # fmt: skip
        with pytest.raises(InputError) as caught:
            data.open(source)
        assert message in str(caught.value)
    with pytest.raises(InputError, match="digits: size: got 9; allowed: 8"):
        data.open("digits", size=9)


# Downloads


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A web server of `tmp_path / "www"`."""
    (tmp_path / "www").mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(tmp_path / "www"))

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture
def archive(tmp_path: Path, server: str, small: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small CIFAR-10 archive on the server, in which one member wants to be elsewhere."""
    write_small_cifar10(tmp_path / "made/cifar-10-batches-bin")
    path = tmp_path / "www/cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(tmp_path / "made/cifar-10-batches-bin", "cifar-10-batches-bin")
        escape = tarfile.TarInfo("../../escaped")
        escape.size = 3
        tar.addfile(escape, io.BytesIO(b"bad"))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    download = Download(f"{server}/cifar-10-binary.tar.gz", sha256)
    known = dataclasses.replace(PUBLISHED["cifar10"], downloads=(download,))
    monkeypatch.setitem(PUBLISHED, "cifar10", known)
    return path


def test_a_download_is_unpacked_checked_and_kept(archive: Path, cache: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    opened = data.open("cifar10", progress=lambda *what: told.append(what))
    assert len(opened.train) == 10
    size = archive.stat().st_size
    assert told[-1] == ("downloading cifar-10-binary.tar.gz", size, size)
    assert len(leftovers(cache)) == 7
    assert not list(tmp_path.rglob("escaped"))
    archive.unlink()
    assert data.open("cifar10").fingerprint == opened.fingerprint


def test_a_download_with_another_hash_is_refused(archive: Path, cache: Path) -> None:
    archive.write_bytes(archive.read_bytes() + b"\0")
    with pytest.raises(WorkError, match=r"cifar-10-binary\.tar\.gz: got a file with SHA-256"):
        data.open("cifar10")
    assert leftovers(cache) == []


@pytest.mark.parametrize("trouble", ["not there", "no server"])
def test_no_network_is_one_line_that_says_what_to_do(
    archive: Path, cache: Path, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if trouble == "not there":
        archive.unlink()
    else:
        download = Download("http://127.0.0.1:9/cifar-10-binary.tar.gz", "0" * 64)
        known = dataclasses.replace(PUBLISHED["cifar10"], downloads=(download,))
        monkeypatch.setitem(PUBLISHED, "cifar10", known)
    with pytest.raises(WorkError) as caught:
        data.open("cifar10")
    message = str(caught.value)
    assert "\n" not in message
    assert "/cifar-10-binary.tar.gz: got no download" in message
    assert f"a copy of the files in {cache / 'cifar-10-batches-bin'}" in message
    assert leftovers(cache) == []


def test_the_table_is_whole() -> None:
    assert data.BUILT_IN == ("digits", "fashion-mnist", "cifar10", "cifar100")
    for known in PUBLISHED.values():
        assert all(len(download.sha256) == 64 for download in known.downloads)
        assert known.preprocessing.size == known.size
