"""Decode once: a listing's pictures as one memory-mapped uint8 file in the cache, opened instantly later.

A store is a folder `stores/<place>-<key>/` of three files: `pixels.bin` (pictures end to end), `index.npy`
(one row a picture) and `index.json` (what is in it, and what could not be read). The place says which folder,
split and decoding it is for; the key changes with the folder's files, so a changed folder is decoded anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import PIL

from deepskip.data.ahead import ahead, reported
from deepskip.data.dataset import Images, Pixels, Progress, RaggedImages, UniformImages
from deepskip.data.decode import fit, load_image, shrink, with_margin
from deepskip.data.listing import Listing
from deepskip.describe.preprocessing import Preprocessing
from deepskip.errors import InputError, WorkError
from deepskip.files import read_json, replacing_folder, write_json

FORMAT = 2
"""Part of every key; raise it when decoding or the files' layout changes."""
ABANDONED = 3600.0
"""Seconds without a write after which a half-written store is taken to be left by a killed process."""
ROW = np.dtype([("position", "<i8"), ("offset", "<i8"), ("shape", "<i4", (2,)), ("sha256", "u1", (32,))])

Kind = Literal["input", "margin"]
"""How pictures are kept: as final inputs, or larger, with a margin for random crops."""


@dataclass(frozen=True)
class Store:
    """Decoded pictures, opened."""

    images: Images
    positions: npt.NDArray[np.int64]
    """Where each picture's file is in the listing; files that could not be read are missing here."""
    hashes: tuple[str, ...]
    """SHA-256 of each picture's file."""
    broken: tuple[str, ...]
    """Files that could not be read, each as `file: reason`."""
    mean: tuple[float, ...]
    """Mean of each channel over all pixels, on the scale 0 to 1."""
    std: tuple[float, ...]
    """Standard deviation of each channel over all pixels, on the scale 0 to 1, never 0."""


@dataclass(frozen=True)
class _Decoded:
    pixels: Pixels
    sha256: bytes
    moments: npt.NDArray[np.int64]  # [3, c]: count, sum, sum of squares


def data_folder() -> Path:
    """Return the folder for downloads and stores: `$DEEPSKIP_DATA`, or one in the user's cache folder."""
    named = os.environ.get("DEEPSKIP_DATA")
    if named:
        return Path(named).expanduser().absolute()
    import pooch

    return Path(pooch.os_cache("deepskip"))


def open_store(
    listing: Listing,
    preprocessing: Preprocessing,
    kind: Kind,
    *,
    purpose: str,
    progress: Progress | None = None,
) -> Store:
    """Return the listing's pictures, decoded now unless they already were.

    Of `preprocessing` only what shapes pixels counts, not mean and std. `purpose` ("train", "val") keeps
    two parts of one folder apart and is named to `progress`. Raises InputError when no file can be read,
    WorkError when the store cannot be written (disk full); then nothing is left behind.
    """
    root = Path(os.path.realpath(listing.root))
    decoding = {"kind": kind, **preprocessing.model_dump(mode="json", exclude={"mean", "std"})}
    place = _short_hash(os.fsencode(root), purpose, json.dumps(decoding, sort_keys=True))
    # Pillow's version, because pictures that are predicted later are decoded by the Pillow of that day.
    key = _short_hash(FORMAT, PIL.__version__, listing.digest())
    folder = data_folder() / "stores" / f"{place}-{key}"
    store = _read(folder)
    if store is None:
        shutil.rmtree(folder, ignore_errors=True)  # damaged
        _write(folder, listing, preprocessing, kind, purpose, progress)
        store = _read(folder)
        if store is None:
            raise WorkError(folder, "files that changed while they were read", "one process at a time in here")
        _sweep(folder, place)
    return store


def _read(folder: Path) -> Store | None:
    """Return the store in `folder`, or None when there is none or it is damaged."""
    try:
        about: Any = read_json(folder / "index.json")
        rows = np.load(folder / "index.npy", allow_pickle=False)
        pixels = np.memmap(folder / "pixels.bin", dtype=np.uint8, mode="r")
        channels, size = len(about["mean"]), about["size"]
        if rows.dtype != ROW or len(rows) != about["pictures"] or len(pixels) != about["bytes"]:
            return None
        images: Images
        if about["kind"] == "input":
            images = UniformImages(pixels.reshape(len(rows), size, size, channels))
        else:
            offsets = np.append(rows["offset"], len(pixels))
            images = RaggedImages(pixels, offsets, np.ascontiguousarray(rows["shape"]), channels)
        return Store(
            images=images,
            positions=np.ascontiguousarray(rows["position"]),
            hashes=tuple(row.tobytes().hex() for row in rows["sha256"]),
            broken=tuple(about["broken"]),
            mean=tuple(about["mean"]),
            std=tuple(about["std"]),
        )
    except (InputError, OSError, ValueError, KeyError, TypeError, EOFError):
        return None


def _write(
    folder: Path,
    listing: Listing,
    preprocessing: Preprocessing,
    kind: Kind,
    purpose: str,
    progress: Progress | None,
) -> None:
    def decode(file: str) -> _Decoded | str:
        return _decode(listing.root / file, preprocessing, kind)

    broken: list[str] = []
    rows = np.zeros(len(listing), ROW)
    moments = np.zeros((3, preprocessing.channels), np.int64)
    kept = offset = 0
    threads = os.cpu_count() or 1
    with replacing_folder(folder) as beside:
        results = ahead(decode, listing.files, threads=threads, window=4 * threads)
        with contextlib.closing(results), (beside / "pixels.bin").open("wb") as out:
            told = reported(results, f"decoding {purpose} images", len(listing), progress)
            for position, result in enumerate(told):
                if isinstance(result, str):
                    name = listing.files[position].encode(errors="replace").decode()  # fit to be printed
                    broken.append(f"{name}: {result}")
                    continue
                shape, sha256 = result.pixels.shape[:2], np.frombuffer(result.sha256, np.uint8)
                rows[kept] = (position, offset, shape, sha256)
                out.write(result.pixels.data)
                moments += result.moments
                kept, offset = kept + 1, offset + result.pixels.nbytes
            _flush(out)
        if not kept:
            raise InputError(listing.root, f"{len(listing)} image files, none readable", "pictures", broken[0])
        np.save(beside / "index.npy", rows[:kept])
        mean, std = _mean_and_std(moments)
        about = {"purpose": purpose, "kind": kind, "size": preprocessing.size, "pictures": kept}
        about |= {"bytes": offset, "mean": mean, "std": std, "broken": broken}
        write_json(beside / "index.json", about)


def _decode(path: Path, preprocessing: Preprocessing, kind: Kind) -> _Decoded | str:
    """Return the file's picture as it is kept, or why there is none."""
    try:
        content = path.read_bytes()
        shorter = preprocessing.resize if kind == "input" else with_margin(preprocessing)
        image = load_image(content, preprocessing.colour, shorter=shorter)
    except InputError as error:
        return str(error.got)
    except OSError as error:
        return (error.strerror or "unreadable").lower()
    pixels = fit(image, preprocessing) if kind == "input" else shrink(image, preprocessing)
    flat = pixels.reshape(-1, pixels.shape[-1]).astype(np.int32)
    sums = [flat.sum(0, dtype=np.int64), (flat * flat).sum(0, dtype=np.int64)]
    moments = np.stack([np.full_like(sums[0], len(flat)), *sums])
    return _Decoded(pixels, hashlib.sha256(content).digest(), moments)


def _mean_and_std(moments: npt.NDArray[np.int64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    count, total, squares = (row.astype(np.float64) for row in moments)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1.0))  # at least one grey level, so it can divide
    return tuple(round(float(x) / 255, 6) for x in mean), tuple(round(float(x) / 255, 6) for x in std)


def _flush(out: BinaryIO) -> None:
    # The rename into place must not reach the disk before the pixels do.
    out.flush()
    os.fsync(out.fileno())


def _sweep(folder: Path, place: str) -> None:
    """Remove what `folder` has replaced, and what killed processes left half-written, of the same place.

    Other processes that still have a removed store mapped keep its pages; where the system forbids removing
    open files, the stale store stays until the next sweep.
    """
    for other in folder.parent.glob(f"{place}-*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    for other in folder.parent.glob(f".{place}-*.part"):
        with contextlib.suppress(OSError):
            written = max(path.stat().st_mtime for path in (other, *other.iterdir()))
            if time.time() - written > ABANDONED:
                shutil.rmtree(other, ignore_errors=True)


def _short_hash(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(repr, parts)).encode()).hexdigest()[:16]
