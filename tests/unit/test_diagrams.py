"""The drawings of nets: every view of every Spec, nothing on top of anything else, nothing invented."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from deepskip import figures
from deepskip.describe import ledger, zoo
from deepskip.describe.spec import Block, Conv, Junction, Spec, Stage, Stem
from deepskip.errors import InputError, WorkError
from deepskip.figures import anatomy, diagram, drawings, style
from tests.laws.strategies import specs

ZOO = [entry.name for entry in zoo.ZOO]
ODD = {
    "gates": zoo.get("resnet20_cifar").replace(junction=Junction(kind="exclusive_gate", gate_bias=-6.0)),
    "scaled": zoo.get("resnet20_cifar").replace(
        junction=Junction(kind="scaled", shortcut_scale=0.5, branch_scale=0.5), survival=0.5
    ),
    "dropout": zoo.get("resnet20_cifar").replace(junction=Junction(kind="dropout")),
    "rezero": zoo.get("resnet20_cifar").replace(junction=Junction(kind="learned", branch_scale=0.0)),
    "option C": zoo.cifar(20, shortcut="C"),
    "pre, squeezed": zoo.imagenet(50, order="pre").replace(squeeze=16, norm="group", projection="pool"),
    "fixup": zoo.get("resnet18").replace(norm="fixup", initial="fixup"),
    "no norm": zoo.get("resnet18").replace(norm="none", order="relu_only"),
    "one block": zoo.get("resnet20_cifar").replace(
        stages=(Stage(id="s1", blocks=(Block(id="b1", convs=(Conv(channels=16),)),)),)
    ),
    "long names": zoo.get("resnet20_cifar").replace(
        base="x" * 64, stages=(Stage(id="s" * 64, blocks=(Block(id="b" * 64, convs=(Conv(channels=16),)),)),)
    ),
    "more layers in the shortcut": zoo.cifar(11, layers_per_skip=1, shortcut="B").replace(
        junction=Junction(kind="shortcut_gate"), projection="pool", norm="none"
    ),
    "forty layers a skip": zoo.cifar(122, layers_per_skip=40),
    "twenty stages": Spec(
        base="resnet_many",
        input=(3, 224, 224),
        classes=10,
        stem=Stem(convs=tuple(Conv(channels=8) for _ in range(12))),
        stages=tuple(
            Stage(
                id=f"s{i}",
                blocks=tuple(Block(id=f"b{j}", convs=(Conv(channels=8 * i + j),)) for j in range(1, 9)),
            )
            for i in range(1, 21)
        ),
    ),
}  # fmt: skip


def words_of(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


def written(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in words_of(figure))


def named(figure: Figure, label: str) -> list[Patch]:
    return [patch for patch in figure.findobj(Patch) if patch.get_label() == label]


class Laid(NamedTuple):
    """Where everything is, in pixels, when the figure is laid out: once for all that is asked of it."""

    size: tuple[float, float]
    words: list[tuple[str, Bbox]]
    boxes: list[Bbox]
    joins: list[Bbox]


def laid(figure: Figure) -> Laid:
    with style.language():
        figure.draw_without_rendering()
        found = figure.findobj()
        words = [(text, text.get_text()) for text in found if isinstance(text, Text) and text.get_visible()]
        boxes = [artist for artist in found if isinstance(artist, diagram.FancyBboxPatch)]
        joins = [artist for artist in found if isinstance(artist, Patch) and artist.get_label() == "join"]
        wide, high = figure.get_size_inches() * figure.dpi
        return Laid(
            (wide, high),
            [(word, text.get_window_extent()) for text, word in words if word.strip()],
            [box.get_window_extent() for box in boxes],
            [join.get_window_extent() for join in joins],
        )


def check_words(figure: Laid) -> None:
    wide, high = figure.size
    for word, box in figure.words:
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= wide and box.y1 <= high
        assert inside, f"{word!r} leaves the figure: {box}"
    words = sorted(figure.words, key=lambda item: item[1].y0)
    for i, (one, a) in enumerate(words):
        for other, b in words[i + 1 :]:
            if b.y0 >= a.y1:
                break
            over_x, over_y = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert min(over_x, over_y) <= 0.5, f"{one!r} and {other!r} overlap by {over_x:.1f} x {over_y:.1f}"


def check_boxes(figure: Laid) -> None:
    """No word reaches over the border of its box."""
    for text, word in figure.words:
        x, y = (word.x0 + word.x1) / 2, (word.y0 + word.y1) / 2
        for box in figure.boxes:
            if box.x0 < x < box.x1 and box.y0 < y < box.y1:
                assert box.x0 <= word.x0, text
                assert word.x1 <= box.x1, text


def check_apart(figure: Laid) -> None:
    """No box lies on another, and none on a ⊕."""
    boxes = sorted([*figure.boxes, *figure.joins], key=lambda box: box.y0)
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            if b.y0 >= a.y1:
                break
            assert min(a.x1, b.x1) <= max(a.x0, b.x0), f"{a} and {b}"


def check(spec: Spec, view: str) -> None:
    picture = figures.draw(spec, view)
    found = laid(picture)
    check_words(found)
    check_boxes(found)
    if view in ("identity", "convolution"):
        for patch in [*named(picture, "skip"), *named(picture, "skip end")]:
            heights = list(patch.get_path().vertices[:, 1])
            assert heights == sorted(heights), "a shortcut goes down, and never back"
            assert heights[-1] - heights[0] > 0.2, "with room for its curve"
    if view != "net":  # there the cards of a stack lie on each other
        check_apart(found)
    drawn = figures.to_svg(picture, "deepskip describe")
    ET.fromstring(drawn.encode())
    assert len(drawn) < 200_000, f"{len(drawn):,} bytes"
    assert picture.title
    assert picture.caption.endswith(".")
    assert len(picture.alt) > 20


@pytest.mark.parametrize("name", ZOO)
def test_every_view_of_every_net_in_the_zoo(name: str) -> None:
    spec = zoo.get(name)
    for view in drawings.views(spec):
        check(spec, view)


@pytest.mark.parametrize("name", ODD)
def test_every_view_of_odd_nets(name: str) -> None:
    for view in drawings.views(ODD[name]):
        check(ODD[name], view)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(specs(), st.sampled_from(list(figures.VIEWS)))
def test_any_net_is_drawn_or_refused(spec: Spec, view: str) -> None:
    if view in drawings.views(spec):
        check(spec, view)
    else:
        with pytest.raises(InputError, match=f"view {view} of {spec.name}: got .*; allowed: net, twin"):
            figures.draw(spec, view)


def test_the_same_net_is_the_same_bytes() -> None:
    for view in figures.VIEWS:
        one, other = (figures.to_svg(figures.draw(zoo.get("resnet8_cifar"), view)) for _ in range(2))
        assert one == other, view


@pytest.mark.parametrize("view", ["net", "twin", "paths", "skip"])
def test_ten_thousand_layers_are_folded(view: str) -> None:
    spec = zoo.cifar(10_004)
    picture = figures.draw(spec, view)
    check_words(laid(picture))
    assert len(figures.to_svg(picture)) < 100_000
    if view in ("net", "twin"):
        assert "× 1,667" in written(picture)
        assert "× 1,666" in written(picture)
    if view == "paths":
        assert f"2{anatomy.raised(5001)} paths" in written(picture)


def test_a_skip_for_each_block_that_is_shown() -> None:
    full = figures.draw(zoo.get("resnet34"), "twin")
    assert len(named(full, "skip")) == 16
    dashed = [patch for patch in named(full, "skip") if patch.get_linestyle() != "solid"]
    assert len(dashed) == 3, "dimensions change thrice"
    folded = figures.draw(zoo.get("resnet101"), "twin")
    assert len(named(folded, "skip")) == len(anatomy.runs(zoo.get("resnet101"))) == 8
    whole = figures.draw(zoo.get("resnet50"), "net")
    assert len(named(whole, "skip")) == len(named(whole, "join")) == 8
    assert not named(figures.draw(zoo.get("plain20_cifar"), "net"), "skip")
    beside = figures.draw(zoo.get("plain20_cifar"), "twin")
    assert len(named(beside, "skip")) == 9, "the residual net is drawn beside a plain one"
    many = figures.draw(ODD["twenty stages"], "twin")
    assert len(named(many, "skip")) == 25
    assert f"⋮ {160 - 25} more blocks" in written(many)


def test_the_twin_has_a_box_for_each_layer_and_both_columns_the_same() -> None:
    for name in ("resnet34", "resnet50", "resnet20_cifar"):
        spec = zoo.get(name)
        boxes = figures.draw(spec, "twin").findobj(diagram.FancyBboxPatch)
        pools = 1 + spec.stem.pool
        assert len(boxes) == 2 * (spec.layers + pools), name


def test_what_is_folded_adds_up() -> None:
    for spec in (*map(zoo.get, ZOO), *ODD.values()):
        runs = anatomy.runs(spec)
        assert sum(len(run.sites) for run in runs) == len(list(spec.blocks()))
        cost = ledger.count(spec)
        assert sum(run.params for run in runs) == cost.params - cost.lines[0].params - cost.lines[-1].params
    text = written(figures.draw(zoo.get("resnet50"), "net"))
    for part in ("25,557,032 parameters", "1,219,584", "512×28×28", "× 5", "6 blocks", "2¹⁶ paths"):
        assert part in text


def test_the_paths_of_small_nets_are_all_there() -> None:
    for depth, n in ((8, 3), (14, 6)):
        spec = zoo.cifar(depth)
        picture = figures.draw(spec, "paths")
        assert f"2{anatomy.raised(n)} = {2**n} paths" in written(picture)
        starts = [text for text in words_of(picture) if text.get_text() == "x"]
        assert len(starts) == 1 + (8 if n == 3 else 0), "eight paths below the net; of six blocks a chart"
    bars = figures.draw(zoo.get("resnet110_cifar"), "paths")
    assert "96.0% of them go through 20 to 34 of the 54 branches" in written(bars)
    assert "one path" in written(figures.draw(zoo.get("plain56_cifar"), "paths"))


def test_a_block_is_drawn_in_the_order_of_its_net() -> None:
    def kinds(spec: Spec, changes: bool, first: bool = False) -> list[str]:
        site = next(site for site in list(spec.sites())[not first :] if site.changes == changes)
        return ["".join(layer.kind[0] for layer in group.layers) for group in anatomy.branch(spec, site)]

    assert kinds(zoo.cifar(20), False) == ["cnr", "cn"]
    assert kinds(zoo.cifar(20, order="pre"), False) == ["nrc", "nrc"]
    assert kinds(zoo.cifar(20, order="pre"), True) == ["c", "nrc"], "the first norm and ReLU are shared"
    assert kinds(zoo.cifar(20, order="pre"), False, first=True) == ["c", "nrc"], "and in the first block"
    assert kinds(zoo.cifar(20, order="pre", first="own"), False, first=True) == ["nrc", "nrc"]
    assert kinds(zoo.cifar(20, order="relu_only"), True) == ["rcn", "rcn"]
    assert kinds(zoo.cifar(20, order="relu_only"), False, first=True) == ["cn", "rcn"]
    assert kinds(zoo.cifar(20).replace(norm="none"), False) == ["cr", "c"]
    text = written(figures.draw(ODD["pre, squeezed"], "convolution"))
    for part in ("group norm, 32 groups", "squeeze-and-excite, /16", "average pool, /2", "1×1 conv, 512"):
        assert part in text
    assert "512×28×28" in text
    assert "× (1 − g)" in written(figures.draw(ODD["gates"], "identity"))
    assert "g·F(x) + (1 − g)·x" in written(figures.draw(ODD["gates"], "skip"))


def test_as_many_layers_as_the_branch_has() -> None:
    for layers in (1, 2, 3, 5):
        spec = zoo.cifar(3 * layers * 2 + 2, layers_per_skip=layers)
        text = written(figures.draw(spec, "skip"))
        assert text.count("weight layer") == layers
        assert text.count("ReLU") == layers
        assert f"[l+{layers}]" in text


def test_grouped_convolutions_say_so() -> None:
    convs = (Conv(channels=128, kernel=1), Conv(channels=128, groups=32), Conv(channels=64, kernel=1))
    spec = zoo.get("resnet18").replace(stages=(Stage(id="s1", blocks=(Block(id="b1", convs=convs),)),))
    for view in ("net", "twin", "identity"):
        assert "3×3 conv, 128, g32" in written(figures.draw(spec, view))


@pytest.mark.parametrize(
    ("spec", "view", "message"),
    [
        (
            "plain20_cifar",
            "skip",
            "a plain net, in which nothing is skipped; allowed: net, twin, paths; nearest",
        ),
        ("revnet38_cifar", "twin", "no plain twin; allowed: net, .*; nearest: net"),
        ("resnet20_cifar", "twins", "view: got 'twins'; allowed: net, twin, .*; nearest: twin"),
        ("option C", "identity", r"a projection in every block \(option C\).*nearest: convolution"),
        ("one block", "convolution", "no convolution block in this net; .*; nearest: identity"),
    ],
)
def test_a_view_that_there_is_not(spec: str, view: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        figures.draw(ODD.get(spec) or zoo.get(spec), view)


def test_a_drawing_is_one_file(tmp_path: Path) -> None:
    picture = figures.draw(zoo.get("resnet8_cifar"), "skip")
    for name, begins in (("a.svg", b"<?xml"), ("b.png", b"\x89PNG")):
        assert figures.write(picture, tmp_path / name, "deepskip describe").read_bytes().startswith(begins)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.svg", "b.png"]
    for name in ("a.pdf", "a"):
        with pytest.raises(InputError, match=r"the ending '.*'; allowed: .svg or .png; nearest: a.svg"):
            figures.write(picture, tmp_path / name, "")
    with pytest.raises(WorkError):
        figures.write(picture, tmp_path / "a.svg" / "b.svg", "")


def test_the_command_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from deepskip.cli.app import main

    file = tmp_path / "skip.svg"
    assert main(["describe", "resnet20_cifar", "--draw", str(file), "--view", "skip"]) == 0
    assert f"drawn: {file}" in capsys.readouterr().out
    source = "<dc:source>deepskip describe resnet20_cifar --draw skip.svg --view skip</dc:source>"
    assert source in file.read_text(encoding="utf-8")
    assert main(["describe", "resnet20_cifar", "--draw", str(tmp_path / "a.pdf")]) == 2
    assert main(["describe", "resnet20_cifar", "--view", "skip"]) == 2
    assert main(["describe", "resnet20_cifar", "--plain", "--draw", str(file), "--view", "skip"]) == 2
    assert source in file.read_text(encoding="utf-8"), "what failed left the old drawing"
    assert [path.name for path in tmp_path.iterdir()] == ["skip.svg"]


def test_the_documented_drawings_are_what_their_commands_draw() -> None:
    def texts(svg: str) -> list[str]:
        tree = ET.fromstring(svg.encode())
        return ["".join(element.itertext()) for element in tree.iter() if element.tag.endswith("}text")]

    docs = Path(figures.__file__).parents[3] / "docs"
    page = (docs / "drawings.md").read_text(encoding="utf-8")
    shows = r"^`(deepskip describe (\S+) --draw (\S+) --view (\w+))`\n\n!\[.*\]\(pictures/(\S+)\)"
    found = re.findall(shows, page, re.MULTILINE)
    assert len(found) == page.count("![") == 11
    for command, net, file, view, shown in found:
        assert file == shown
        kept = (docs / "pictures" / file).read_text(encoding="utf-8")
        assert f"<dc:source>{command}</dc:source>" in kept
        assert texts(kept) == texts(figures.to_svg(figures.draw(zoo.get(net), view))), command
