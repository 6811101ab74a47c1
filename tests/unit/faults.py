"""A folder of pictures without a fault, and one with every fault that the doctor knows of a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from tests.unit.pictures import cut_short, noise, save

CLASSES = ("ant", "bee", "cat")


def good(root: Path, classes: tuple[str, ...] = CLASSES, train: int = 12, val: int = 4) -> Path:
    """Write `train` and `val` different photographs a class, numbered from 0 on both sides, as is usual."""
    seed = 0
    for part, count in (("train", train), ("val", val)):
        for name in classes:
            for index in range(count):
                seed += 1
                save(noise(seed, 60, 48), root / part / name / f"{index:04}.jpg", quality=90)
    return root


def bad(root: Path) -> dict[str, set[str]]:
    """Write a folder with every fault; return each kind's files and folders, as the doctor should name them."""
    good(root, (*CLASSES, "dog", "elk", "fox"), train=40)
    train, val = root / "train", root / "val"
    planted: dict[str, set[str]] = {}

    def plant(kind: str, *paths: Path) -> None:
        planted.setdefault(kind, set()).update(path.relative_to(root).as_posix() for path in paths)

    text = val / "cat" / "0001.jpg"
    text.write_text("these are not pixels")
    (train / "bee" / "empty.png").touch()
    plant("broken picture", cut_short(train / "ant" / "0000.jpg"), train / "bee" / "empty.png", text)

    plant(
        "leaked copy",
        shutil.copy(train / "ant" / "0001.jpg", val / "ant" / "a.jpg"),
        train / "ant" / "0001.jpg",
    )
    plant("contradicting labels", shutil.copy(train / "ant" / "0002.jpg", train / "bee" / "b.jpg"))
    plant("contradicting labels", train / "ant" / "0002.jpg")
    plant("copy", shutil.copy(train / "ant" / "0003.jpg", train / "ant" / "c.jpg"), train / "ant" / "0003.jpg")

    def again(source: str, path: str) -> tuple[Path, Path]:
        with Image.open(train / source) as image:
            half = image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)
        return train / source, save(half.resize((40, 32)), root / path, quality=70)

    plant("leaked likeness", *again("cat/0001.jpg", "val/cat/d.jpg"))
    plant("contradicting likeness", *again("cat/0002.jpg", "train/ant/e.jpg"))
    plant("likeness", *again("cat/0003.jpg", "train/cat/f.jpg"))
    one, other = train / "dog" / "IMG_2041.jpg", val / "dog" / "IMG_2041_flip.jpg"
    plant("leaked name", save(noise(9001, 60, 48), one), save(noise(9002, 60, 48), other))

    (train / "gnu").mkdir()
    (train / "gnu" / "notes.txt").write_text("to do")
    plant("empty class", train / "gnu")
    plant("stray file", train / "gnu" / "notes.txt")
    save(noise(9003, 60, 48), val / "hen" / "g.jpg")
    plant("class not in train", val / "hen")
    for index in range(3):
        save(noise(9010 + index, 60, 48), train / "Fox " / f"h{index}.jpg")
    plant("alike class names", train / "fox", train / "Fox ")
    plant("class not in val", train / "gnu", train / "Fox ")
    plant("tiny class", train / "Fox ")
    plant("imbalance", train / "Fox ", train / "cat")

    white = np.random.default_rng(0)
    for index in range(40):
        pixels = white.integers(215, 256, (48, 60, 3), np.uint8)
        save(Image.fromarray(pixels), train / "elk" / f"{index:04}.jpg")
    plant("class stands out", train / "elk")

    plant("single colour", save(Image.new("RGB", (60, 48), "navy"), train / "cat" / "i.png"))
    plant("tiny picture", save(noise(9020, 9, 9), train / "cat" / "j.png"))
    plant("elongated picture", save(noise(9021, 300, 40), train / "cat" / "k.png"))
    plant("CMYK", save(noise(9022, 60, 48).convert("CMYK"), train / "cat" / "l.jpg"))
    deep = np.random.default_rng(1).integers(0, 65536, (48, 60)).astype(np.uint16)
    plant("16 bit", save(Image.fromarray(deep), train / "cat" / "m.png"))
    plant("grey", save(noise(9023, 60, 48, 1), train / "cat" / "n.png"))
    plant("palette", save(noise(9024, 60, 48).quantize(16), train / "cat" / "o.png"))
    clear = noise(9025, 60, 48)
    clear.putalpha(128)
    plant("transparency", save(clear, train / "cat" / "p.png"))
    exif = Image.Exif()
    exif[0x0112] = 6
    plant("EXIF rotation", save(noise(9026, 60, 48), train / "cat" / "q.jpg", exif=exif))
    frames = [noise(9027, 60, 48), noise(9028, 60, 48)]
    plant("animation", save(frames[0], train / "cat" / "r.webp", save_all=True, append_images=frames[1:]))
    plant("wrong ending", save(noise(9029, 60, 48), train / "cat" / "s.jpg", format="PNG"))

    (train / "dog" / "t.heic").write_bytes(b"\0" * 99)
    plant("unread format", train / "dog" / "t.heic")
    plant("loose picture", save(noise(9030, 60, 48), train / "u.jpg"))
    save(noise(9031, 60, 48), train / "dog" / "inner" / "v.jpg")
    plant("nested folder", train / "dog" / "inner")
    (train / "dog" / ".DS_Store").touch()
    plant("hidden file", train / "dog" / ".DS_Store")
    save(noise(9032, 60, 48), root / "elsewhere" / "w.jpg")
    (train / "dog" / "w.jpg").symlink_to(Path("..", "..", "elsewhere", "w.jpg"))
    plant("symbolic link", train / "dog" / "w.jpg")
    planted["unused folder"] = {"elsewhere/"}
    return planted
