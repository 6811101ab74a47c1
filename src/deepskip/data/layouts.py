"""The file layouts in which small image sets are published: CIFAR's binary and pickled batches, and IDX.

Every reader checks sizes and label ranges and raises InputError naming the file: a copy on a disk may have
been cut short. The pickled batches are read without running anything that is in them.
"""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from deepskip.data.dataset import Pixels
from deepskip.errors import InputError

Arrays: TypeAlias = tuple[Pixels, npt.NDArray[np.int64]]
"""Pixels, uint8 [n, h, w, c], and labels, int64 [n]."""

PLANES = 3 * 32 * 32


def read_cifar_binary(paths: Sequence[Path], *, total: int, classes: int, label_bytes: int) -> Arrays:
    """Read CIFAR's `.bin` files: for each picture `label_bytes` bytes (the last is the label), then 3 planes.

    `total` pictures must be spread evenly over `paths`. Raises InputError.
    """
    record = label_bytes + PLANES
    batches = []
    for path in paths:
        content = _content(path, total // len(paths) * record)
        rows = np.frombuffer(content, np.uint8).reshape(-1, record)
        _check_labels(path, rows[:, label_bytes - 1], classes)
        batches.append(rows)
    rows = np.concatenate(batches)
    return _from_planes(rows[:, label_bytes:]), rows[:, label_bytes - 1].astype(np.int64)


def read_cifar_pickle(paths: Sequence[Path], *, total: int, classes: int, label_key: str) -> Arrays:
    """Read CIFAR's Python batches: a dict with `data`, uint8 [n, 3072], and a list of labels at `label_key`.

    `total` pictures must be spread evenly over `paths`. Raises InputError, also for a pickle that asks for
    anything but a dict of numpy's uint8 arrays.
    """
    each = total // len(paths)
    planes, labels = [], []
    for path in paths:
        batch = _unpickle(path)
        data, found = batch.get("data"), batch.get(label_key)
        if not isinstance(data, np.ndarray) or data.shape != (each, PLANES):
            shape = list(data.shape) if isinstance(data, np.ndarray) else type(data).__name__
            raise InputError(path, f"data {shape}", f"uint8 [{each}, {PLANES}]")
        if not isinstance(found, list) or len(found) != each or not all(type(label) is int for label in found):
            raise InputError(path, f"no list of {each} whole numbers {label_key!r}", "one label a picture")
        _check_labels(path, np.array(found, dtype=object), classes)
        planes.append(data)
        labels.extend(found)
    return _from_planes(np.concatenate(planes)), np.array(labels, np.int64)


def read_idx(paths: Sequence[Path], *, total: int, classes: int, size: int) -> Arrays:
    """Read an IDX file of `total` grey pictures, `size` x `size`, and one of labels, gzipped or not.

    Raises InputError.
    """
    images, labels = paths
    pixels = _idx(images, (total, size, size))
    found = _idx(labels, (total,))
    _check_labels(labels, found, classes)
    return pixels[..., None], found.astype(np.int64)


def _from_planes(planes: Pixels) -> Pixels:
    return np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _check_labels(path: Path, labels: npt.NDArray[Any], classes: int) -> None:
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        wrong = labels.max() if labels.max() >= classes else labels.min()
        raise InputError(path, f"a label {wrong}", f"0 to {classes - 1}; the file is damaged")


def _content(path: Path, length: int) -> bytes:
    """Return the file's bytes, decompressed when it ends in `.gz`; raises InputError unless `length` long."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(length + 1)
    except (OSError, EOFError, zlib.error) as error:
        got = (getattr(error, "strerror", None) or "compressed data that break off").lower()
        raise InputError(path, got, f"{length} bytes; the file is damaged") from error
    if len(content) != length:
        got = "more" if len(content) > length else f"{len(content)} bytes"
        raise InputError(path, got, f"{length} bytes; the file is damaged")
    return content


def _idx(path: Path, shape: tuple[int, ...]) -> Pixels:
    header = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)  # 8: unsigned bytes
    content = _content(path, len(header) + int(np.prod(shape)))
    if not content.startswith(header):
        raise InputError(
            path, f"a header {content[: len(header)].hex()}", f"{header.hex()}, IDX of {list(shape)} bytes"
        )
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def _unpickle(path: Path) -> dict[str, Any]:
    """Return the dict that is pickled in `path`, with its keys as text. Raises InputError."""
    try:
        batch = _Unpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        return {key.decode() if isinstance(key, bytes) else key: _plain(value) for key, value in batch.items()}
    except InputError as error:
        raise InputError(path, error.got, error.allowed) from error
    except Exception as error:  # a damaged or hostile pickle raises nearly anything, and asks for any memory
        raise InputError(path, f"no pickled dict ({type(error).__name__})", "a CIFAR Python batch") from error


class _Dtype:
    """Stands in for `numpy.dtype`: remembers which one the pickle asks for."""

    def __init__(self, name: object, *_: object) -> None:
        self.name = name.decode() if isinstance(name, bytes) else name

    def __setstate__(self, state: object) -> None:
        """Byte order and the like: without meaning for single bytes."""


class _Array:
    """Stands in for `numpy.ndarray`: takes bytes and a shape, nothing else."""

    value: Pixels | None = None

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, by_column, content = state
        if not isinstance(dtype, _Dtype) or dtype.name not in ("u1", "|u1") or not isinstance(content, bytes):
            raise InputError("pickle", "an array of another type", "uint8 arrays")
        self.value = np.frombuffer(content, np.uint8).reshape(shape, order="F" if by_column else "C")


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise InputError("pickle", f"encoding {encoding!r}", "latin1")
    return text.encode(encoding)


class _Unpickler(pickle.Unpickler):
    """Builds dicts, lists, numbers, text and uint8 arrays; every other name a pickle asks for is refused."""

    _allowed: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
        ("_codecs", "encode"): _encode,  # how Python 3 writes bytes for Python 2
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for `module.name`. Raises InputError when there is none."""
        if (module, name) not in self._allowed:
            raise InputError("pickle", f"a pickle that asks for {module}.{name}", "dicts of uint8 arrays")
        return self._allowed[module, name]


def _plain(value: object) -> object:
    return value.value if isinstance(value, _Array) else value
