"""Draw docs/gallery.md and its pictures from kept rows: `python docs/gallery.py`; as HTML: `--page FILE`.

Every figure function of `deepskip.figures` is there, on what a command has measured; a test holds that, and
that page and pictures are what the functions draw now. Nothing is trained or measured here.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from sklearn.datasets import load_digits

from deepskip import figures, pages
from deepskip.cli.doctor import sheet
from deepskip.data.doctor.examination import examine
from deepskip.describe import zoo
from deepskip.figures.style import Picture
from deepskip.files import write_text
from deepskip.reports.gallery import Exhibit, Section, gallery_report
from deepskip.training.rundir import read_rows

DOCS = Path(__file__).resolve().parent
PAGE, PICTURES, RESULTS = DOCS / "gallery.md", DOCS / "pictures", DOCS.parent / "results"
BENCH = "bench-resnet20-fashion-mnist-intel-xeon-amx"
RUN = "fashion-mnist-resnet20-3-epochs-intel-xeon-amx-1-core"
STUDIES = {
    "What depth does": "depth-digits-intel-xeon-amx-1-core",
    "What identity blocks do": "identity-digits-intel-xeon-amx-2-cores",
    "What each ingredient of deep nets does": "spectrum-digits-intel-xeon-amx-2-cores",
}
INSIDE = "inspect-resnet56-cifar10-intel-xeon-amx"
DRAWN = {
    "net": "resnet50",
    "twin": "resnet34",
    "skip": "resnet20_cifar",
    "identity": "resnet20_cifar",
    "convolution": "resnet50",
    "paths": "resnet8_cifar",
}
"""The net that each view is shown of."""
HEAD = """# Gallery

Every figure that deepskip draws, with the function that draws it, from rows, and the command that measured
them. Studies and inspections write theirs by themselves, into `figures/` and `report.html`; trainings into
`report.html`. Each file's metadata hold the command. The figures can be read in black and white and by the
colour-blind, and turn dark in a report whose page is dark. `python docs/gallery.py` made this page; with
`--page FILE` it makes it one HTML file.
"""


class Placed(NamedTuple):
    """An exhibit, and the file that it is kept in."""

    exhibit: Exhibit
    path: Path


def rooms() -> Iterator[tuple[str, list[Placed]]]:
    """Yield the gallery's sections, by name, with what hangs in them."""
    for name, folder in STUDIES.items():
        yield name, _kept(folder)
    yield "A training", list(_training(RESULTS / RUN))
    yield "Inside a trained net", _kept(INSIDE)
    yield "How fast it runs", [_bench(RESULTS / BENCH)]
    yield "A net, drawn from its description", [_drawing(view, net) for view, net in DRAWN.items()]
    yield "What is wrong with a data set", [_contact()]


def _kept(folder: str) -> list[Placed]:
    found = pages.pictures(RESULTS / folder)
    return [_placed(folder, name, drawn.picture, drawn.command) for name, drawn in found.items()]


def _training(folder: Path) -> Iterator[Placed]:
    command = "deepskip train fashion-mnist --net resnet20_cifar --epochs 3"
    config, score = (json.loads((folder / name).read_text()) for name in ("config.json", "score.json"))
    for name, picture in (
        ("run_curves", figures.run_curves(read_rows(folder / "metrics.jsonl"))),
        ("flow_maps", figures.flow_maps(read_rows(folder / "flow.jsonl"))),
        ("confusion", figures.confusion(score["confusion"], config["classes"])),
    ):
        yield _placed(folder.name, name, picture, command)


def _bench(folder: Path) -> Placed:
    found = json.loads((folder / "bench.json").read_text())
    picture = figures.speed_of_ways(found["ways"], net=found["name"], machine="one thread of an Intel Xeon")
    command = "deepskip bench runs/resnet20 --data fashion-mnist --batches 1,32 --picture ways.svg"
    return _placed(folder.name, "speed_of_ways", picture, command)


def _placed(folder: str, name: str, picture: Picture, command: str) -> Placed:
    exhibit = Exhibit(getattr(figures, name), picture, command)
    return Placed(exhibit, RESULTS / folder / "figures" / f"{name}.svg")


def _drawing(view: str, net: str) -> Placed:
    file = f"{view}_{net}.svg"
    command = f"deepskip describe {net} --draw {file} --view {view}"
    return Placed(Exhibit(figures.draw, figures.draw(zoo.get(net), view), command), PICTURES / file)


def _contact() -> Placed:
    """Return the contact sheet of a few digits, among them broken, doubled, leaked and wrongly named ones."""
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        photos = Path("photos")
        digits = load_digits()
        for i, (pixels, label) in enumerate(zip(digits.images[:240], digits.target, strict=False)):
            folder = photos / ("train" if i < 180 else "val") / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray((pixels * 15.9).astype("uint8")).resize((48, 48), Image.Resampling.BICUBIC)
            image.save(folder / f"{i:03}.png")
        ones, sevens = (sorted((photos / "train" / label).iterdir()) for label in "17")
        (photos / "val/7/900.png").write_bytes(sevens[0].read_bytes())
        (photos / "train/1/901.png").write_bytes(sevens[1].read_bytes())
        (photos / "train/1/902.png").write_bytes(ones[2].read_bytes())
        ones[3].write_bytes(ones[3].read_bytes()[:120])
        Image.new("L", (48, 48)).save(sevens[4])
        picture = sheet(examine("photos"))
    assert picture is not None
    command = "deepskip doctor photos --picture contact_digits.svg"
    return Placed(Exhibit(figures.contact, picture, command), PICTURES / "contact_digits.svg")


def markdown(sections: list[tuple[str, list[Placed]]]) -> str:
    """Return the page as GitHub shows it."""
    parts = [HEAD]
    for name, placed in sections:
        parts.append(f"\n## {name}\n")
        for exhibit, path in placed:
            alt = exhibit.picture.alt.replace("[", "(").replace("]", ")")
            parts.append(
                f"\n### {exhibit.picture.title}\n\n![{alt}]({os.path.relpath(path, DOCS)})\n\n"
                f"{exhibit.picture.caption}\n\n`{exhibit.call}`, after\n\n```\n{exhibit.command}\n```\n"
            )
    return "".join(parts)


def html(sections: list[tuple[str, list[Placed]]]) -> str:
    """Return the page as one file that loads nothing."""
    return gallery_report([Section(name, [one.exhibit for one in placed]) for name, placed in sections])


def main() -> None:
    """Write what is asked for."""
    sections = list(rooms())
    if "--page" in sys.argv:
        write_text(Path(sys.argv[sys.argv.index("--page") + 1]), html(sections))
        return
    for _, placed in sections:
        for exhibit, path in placed:
            figures.write(exhibit.picture, path, exhibit.command)
    write_text(PAGE, markdown(sections))


if __name__ == "__main__":
    main()
