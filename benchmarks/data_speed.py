"""Speed of the data path, alone and on one thread: every variation, and decoding by each library.

    PYTHONPATH=src python benchmarks/data_speed.py [--seconds 1.0] [--out results]

Pictures are generated. Each number is the best of repeated runs, in seconds of this process's own work, so
that a busy machine changes it little. Writes `results/data-speed-<cpu>.md`.
"""

from __future__ import annotations

import argparse
import io
import platform
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image, features
from sklearn.datasets import load_sample_images

from deepskip.data import jpeg
from deepskip.data.augment import AUGMENTS, erase
from deepskip.data.dataset import RaggedImages, UniformImages
from deepskip.data.decode import fit, load_image, preprocess_file
from deepskip.data.mixing import draw_mix, mix
from deepskip.data.trivial import trivial
from deepskip.data.variation import Variation
from deepskip.describe.preprocessing import Preprocessing

BATCH = {32: 256, 128: 64, 224: 32}
VARIATIONS: dict[str, dict[str, object]] = {
    "alone": {},
    "trivial": {"trivial": True},
    "erase 0.25": {"erase": 0.25},
    "mixup 0.2": {"mixup": 0.2},
    "cutmix 1": {"cutmix": 1.0},
    "all of these": {"trivial": True, "erase": 0.25, "mixup": 0.2, "cutmix": 1.0},
}


def fastest(work: Callable[[], object], seconds: float) -> float:
    """Return the least processor time of one call, in seconds, over calls that take `seconds` in all."""
    work()
    best, end = float("inf"), time.process_time() + seconds
    while time.process_time() < end:
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return best


def prep(size: int, resize: int | None = None) -> Preprocessing:
    """Return the preprocessing for coloured inputs of `size`."""
    return Preprocessing(size=size, resize=resize or size, mean=(0.5,) * 3, std=(0.25,) * 3)


def pictures(size: int) -> UniformImages | RaggedImages:
    """Return pictures as the store keeps them: final 32-pixel ones, larger ones with a margin, 4:3."""
    random = np.random.default_rng(0)
    if size == 32:
        return UniformImages(random.integers(0, 256, (4096, 32, 32, 3), np.uint8))
    height, count = round(size * 1.25), 128
    width = height * 4 // 3
    pixels = random.integers(0, 256, count * height * width * 3, np.uint8)
    offsets = np.arange(count + 1) * height * width * 3
    return RaggedImages(pixels, offsets, np.array([[height, width]] * count, np.int32), 3)


def vary(images: UniformImages | RaggedImages, size: int, variation: Variation, indices: torch.Tensor) -> None:
    """Do in this thread what `train_batches` does to one batch in its own."""
    draws = torch.Generator().manual_seed(0)
    pixels = AUGMENTS[variation.augment](images, indices, prep(size), draws)
    if variation.trivial:
        trivial(pixels, prep(size), draws, len(pixels))
    if variation.erase:
        erase(pixels, variation.erase, prep(size), draws, len(pixels))
    drawn = draw_mix(variation, size, draws)
    if drawn is not None:
        mix(pixels, pixels.roll(1, 0), drawn)


def augmentation(seconds: float) -> Iterator[str]:
    """Yield a table of pictures a second for each variation, one row for each size and augmentation."""
    yield f"| pictures a second | {' | '.join(VARIATIONS)} |"
    yield "|---|" + "---:|" * len(VARIATIONS)
    for size, augment in ((32, "crop_flip"), (128, "photo"), (224, "photo")):
        images, cells = pictures(size), []
        indices = torch.randint(len(images), (BATCH[size],), generator=torch.Generator().manual_seed(0))
        for fields in VARIATIONS.values():
            variation = Variation(augment=augment, **fields)
            taken = fastest(partial(vary, images, size, variation, indices), seconds)
            cells.append(f"{BATCH[size] / taken:,.0f}")
        yield f"| `{augment}`, {size} px | {' | '.join(cells)} |"


def photograph(width: int, height: int, **options: object) -> bytes:
    """Return a JPEG file of large shapes and fine grain, about as large as a camera's."""
    random = np.random.default_rng(0)
    shapes = Image.fromarray(random.integers(0, 256, (height // 40, width // 40, 3), np.uint8))
    smooth = np.asarray(shapes.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    grainy = smooth + random.normal(0, 6, (height, width, 1)).astype(np.int16)
    file = io.BytesIO()
    Image.fromarray(grainy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90, **options)
    return file.getvalue()


def decoding(seconds: float) -> Iterator[str]:
    """Yield a table of pictures a second for each library: whole, and as inputs are decoded."""
    simplejpeg = jpeg._simplejpeg
    libraries = {"Pillow": None} | ({"simplejpeg": simplejpeg} if simplejpeg else {})
    files = {
        "4000 × 3000": photograph(4000, 3000),
        "4000 × 3000, 4:4:4": photograph(4000, 3000, subsampling=0),
        "4000 × 3000, progressive": photograph(4000, 3000, progressive=True),
        "500 × 375": photograph(500, 375),
    }
    yield f"| pictures a second | MB | {' | '.join(f'{one}, whole | {one}, to 224 px' for one in libraries)} |"
    yield "|---|---:|" + "---:|" * (2 * len(libraries))
    for name, content in files.items():
        cells = []
        for library in libraries.values():
            jpeg._simplejpeg = library
            for work in (
                partial(load_image, content, "RGB"),
                partial(preprocess_file, content, prep(224, 256)),
            ):
                taken = fastest(work, seconds)
                cells.append(f"{1 / taken:,.1f} ({len(content) / 1e6 / taken:,.0f} MB/s)")
        yield f"| {name} | {len(content) / 1e6:.2f} | {' | '.join(cells)} |"
    jpeg._simplejpeg = simplejpeg


def difference() -> Iterator[str]:
    """Yield a table of how far inputs from reduced decoding are from inputs from whole decoding, in levels."""
    yield "| picture | input | reduced by | mean | 99th percentile | bicubic instead of bilinear, mean |"
    yield "|---|---:|---:|---:|---:|---:|"
    for name, pixels in zip(("china", "flower"), load_sample_images().images, strict=True):
        file = io.BytesIO()
        Image.fromarray(pixels[: pixels.shape[0] // 8 * 8]).save(file, "JPEG", quality=92)
        for size, resize in ((64, 73), (32, 37), (24, 24)):
            chosen = prep(size, resize)
            by = jpeg.reduction(pixels.shape[1], pixels.shape[0] // 8 * 8, resize)
            read = preprocess_file(file, chosen).astype(int)
            whole, sharper = (
                whole_input(file, one).astype(int) for one in (chosen, chosen.replace(interpolation="bicubic"))
            )
            apart, other = np.abs(read - whole), np.abs(sharper - whole)
            high = np.percentile(apart, 99)
            yield f"| {name} | {size} px | {by} | {apart.mean():.2f} | {high:.0f} | {other.mean():.2f} |"


def whole_input(file: io.BytesIO, preprocessing: Preprocessing) -> np.ndarray:
    """Return the file's input from a whole decode."""
    return fit(load_image(file, "RGB"), preprocessing)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="processor time for each number")
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    libraries = f"Pillow {PIL.__version__} (libjpeg-turbo {features.version('libjpeg_turbo')})"
    cpu = processor()
    lines = [
        "# Speed of the data path",
        "",
        f"{cpu}, one thread; {libraries}, torch {torch.__version__}. Pictures a second, by processor time.",
        "Made by `benchmarks/data_speed.py`.",
        "",
        "## Augmentation",
        "",
        *augmentation(options.seconds),
        "",
        "## Decoding JPEGs",
        "",
        "To 224 px: as `deepskip predict` does, reduced where the file is large enough, resized and cropped.",
        "",
        *decoding(options.seconds),
        "",
        "## What reduced decoding changes",
        "",
        "Levels of 255 between an input from a reduced and from a whole decode of scikit-learn's photographs.",
        "",
        *difference(),
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    target = options.out / f"data-speed-{cpu}.md"
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(target.read_text(encoding="utf-8"))


def processor() -> str:
    """Return the processor's name, fit for a file's name."""
    path = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", path.read_text()) if path.exists() else None
    name = found[1] if found else platform.processor() or platform.machine()
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    main()
