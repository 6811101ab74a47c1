"""The figures: what they show, that nothing in them collides, that a file is the same bytes each time."""

from __future__ import annotations

import itertools
import math
import random
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from deepskip import figures
from deepskip.errors import InputError
from deepskip.figures import colour, labels, rows
from deepskip.figures.depth import places_of
from tests.unit.identity_rows import identity_rows
from tests.unit.instrument_rows import (
    calibration_rows,
    gradient_rows,
    lens_rows,
    lesion_rows,
    path_rows,
    several_rows,
    signal_rows,
)
from tests.unit.saliency_rows import bowl, cliff, landscape_rows, pictures_of, saliency_rows
from tests.unit.spectrum_rows import HE, spectrum_rows

DEPTHS = (8, 20, 32, 56, 110)
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TWELVE = (8, 14, 20, 26, 32, 38, 44, 50, 56, 74, 92, 110)
NASTY = [
    "</text><script>alert(1)</script>",
    "$\\frac{1}$ & more",
    "a\nb\x00c\ud800",
    "数字",
    "x" * 200,
    "]]>--><!--",
]


def curve_rows(depths=DEPTHS, seeds=3, epochs=15, kinds=rows.KINDS, stop=None):
    """Return curves that fall to nearly nothing, plain ones the slower the deeper; `stop` ends one."""
    made = []
    for kind, (rank, depth), seed in itertools.product(kinds, enumerate(depths), range(seeds)):
        noise = random.Random(f"{kind}{depth}{seed}")
        for epoch in range(1, epochs + 1):
            slow = 1 + rank * (3 if kind == "plain" else 0.2)
            error = 90 * math.exp(-epoch / slow) + noise.random() * 0.2
            if stop and stop(kind, depth, seed) and epoch > stop(kind, depth, seed):
                break
            made.append({"kind": kind, "depth": depth, "seed": seed, "epoch": epoch, "train_error": error})
    return made


def study_rows(depths=DEPTHS, seeds=3, kinds=rows.KINDS, lost=lambda *_: False):
    made = []
    for kind, (rank, depth), seed in itertools.product(kinds, enumerate(depths), range(seeds)):
        gone = lost(kind, depth, seed)
        error = (0.0, 0.0, 1.0, 56.0, 89.0)[min(rank, 4)] if kind == "plain" else 0.1
        made.append({
            "study": "depth", "kind": kind, "depth": depth, "seed": seed, "params": 1000 * depth,
            "train_loss": None if gone else 0.1, "train_error": None if gone else error + seed / 10,
            "val_error": None if gone else error + 1.2 + seed / 10, "seconds": 3.0,
            "status": "diverged" if gone else "ok", "hash": f"{kind}{depth}{seed}",
        })  # fmt: skip
    return made


def run_rows(epochs=12):
    names = ("train_loss", "train_error", "val_loss", "val_error", "learning_rate")
    return [{"epoch": e, **dict.fromkeys(names, 50 / e)} for e in range(1, epochs + 1)]


def matrix(count):
    noise = random.Random(0)
    return [[200 if t == p else int(noise.random() < 0.3) * noise.randrange(40) for p in range(count)]
            for t in range(count)]  # fmt: skip


def flow_rows(blocks=27, steps=225, every=4, fall=2.0, only=("grad_norm", "rms", "ratio"), stage="s"):
    noise = random.Random(0)
    names = [f"{stage}{1 + 3 * i // blocks}.b{i + 1}" for i in range(blocks)]
    made = [
        {"step": step} | {field: [
            10 ** (fall * (i / blocks - 1) + noise.gauss(0, 0.1)) if field in only else None
            for i in range(blocks)
        ] for field in ("grad_norm", "rms", "ratio")}
        for step in sorted({*range(1, steps + 1, every), steps})
    ]  # fmt: skip
    return [made[0] | {"blocks": names}, *made[1:]]


def grid(rows, classes=CIFAR, side=32, channels=3):
    return figures.saliency_grid(rows, pictures_of(rows, side, channels), classes)


def nothing_finite(depth_rows):
    return [{**row, "train_error": float("nan"), "train_loss": None} for row in depth_rows]


def spectrum(data="digits", reach=HE, rows=None, **shape):
    made = spectrum_rows(reach, **shape) if rows is None else rows
    return figures.spectrum_of_depth(made, data=data, reach=reach, below=10.0)


CASES = {
    "curves": lambda: figures.training_curves(curve_rows(), data="digits"),
    "curves, 1 seed": lambda: figures.training_curves(curve_rows(seeds=1), data="digits"),
    "curves, 1 epoch": lambda: figures.training_curves(curve_rows(epochs=1), data="digits"),
    "curves, 2 epochs": lambda: figures.training_curves(curve_rows(epochs=2), data="digits"),
    "curves, 201 epochs": lambda: figures.training_curves(curve_rows(epochs=201, seeds=1), data="digits"),
    "curves, 1 depth": lambda: figures.training_curves(curve_rows((1202,)), data="digits"),
    "curves, 12 depths": lambda: figures.training_curves(curve_rows(TWELVE), data="digits"),
    "curves, only plain": lambda: figures.training_curves(curve_rows(kinds=["plain"]), data="digits"),
    "curves, only residual": lambda: figures.training_curves(curve_rows(kinds=["residual"]), data="digits"),
    "curves, some stop": lambda: figures.training_curves(
        curve_rows(stop=lambda _, depth, seed: 3 + seed if depth > 32 else None), data="digits"
    ),
    "curves, no number": lambda: figures.training_curves(nothing_finite(curve_rows()), data="digits"),
    "curves, no row": lambda: figures.training_curves([], data="digits"),
    "curves, nasty name": lambda: figures.training_curves(curve_rows(), data="".join(NASTY)),
    "depth": lambda: figures.error_against_depth(study_rows(), data="digits"),
    "depth, 1 seed": lambda: figures.error_against_depth(study_rows(seeds=1), data="digits"),
    "depth, 1 depth": lambda: figures.error_against_depth(study_rows((20,)), data="digits"),
    "depth, 12 depths": lambda: figures.error_against_depth(study_rows(TWELVE), data="digits"),
    "depth, 40 depths": lambda: figures.error_against_depth(study_rows(range(8, 248, 6)), data="digits"),
    "depth, far apart": lambda: figures.error_against_depth(study_rows((8, 1196, 1202)), data="digits"),
    "depth, only plain": lambda: figures.error_against_depth(study_rows(kinds=["plain"]), data="digits"),
    "depth, some lost": lambda: figures.error_against_depth(
        study_rows(TWELVE, lost=lambda kind, depth, seed: depth > 50 and (kind == "plain" or seed == 1)),
        data="digits",
    ),
    "depth, all lost": lambda: figures.error_against_depth(study_rows(lost=lambda *_: True), data="digits"),
    "depth, no row": lambda: figures.error_against_depth([], data="digits"),
    "flow": lambda: figures.flow_maps(flow_rows()),
    "flow, 540 blocks": lambda: figures.flow_maps(flow_rows(540, 64_100, 321, fall=30)),
    "flow, 5000 blocks": lambda: figures.flow_maps(flow_rows(5000, 40)),
    "flow, 1 block, 1 step": lambda: figures.flow_maps(flow_rows(1, 1)),
    "flow, 3 blocks, 2 steps": lambda: figures.flow_maps(flow_rows(3, 2)),
    "flow, 9999999 steps": lambda: figures.flow_maps(flow_rows(8, 10**7 - 1, 10**5)),
    "flow, plain": lambda: figures.flow_maps(flow_rows(only=("grad_norm", "rms"))),
    "flow, compiled": lambda: figures.flow_maps(flow_rows(only=("grad_norm",))),
    "flow, nothing": lambda: figures.flow_maps(flow_rows(only=())),
    "flow, no row": lambda: figures.flow_maps([]),
    "flow, nasty": lambda: figures.flow_maps(flow_rows(stage=NASTY[0] + NASTY[2] + NASTY[1])),
    "flow, odd values": lambda: figures.flow_maps(
        [{"step": 1, "grad_norm": [0.0, 1e-300, -1, "x", None, math.inf, 1e300]}, {"step": None}, {"step": 3}]
    ),
    "insertion": lambda: figures.error_at_insertion(identity_rows(), data="digits"),
    "insertion, 1 seed": lambda: figures.error_at_insertion(identity_rows(seeds=1), data="digits"),
    "insertion, some lost": lambda: figures.error_at_insertion(
        identity_rows(became=lambda _, start, seed: ("ok", "diverged", "impossible")[(len(start) + seed) % 3]),
        data="digits",
    ),
    "insertion, all lost": lambda: figures.error_at_insertion(
        identity_rows(became=lambda *_: "impossible"), data="digits"
    ),
    "insertion, no row": lambda: figures.error_at_insertion([], data="digits"),
    "insertion, nasty name": lambda: figures.error_at_insertion(identity_rows(), data="".join(NASTY)),
    "ratio": lambda: figures.ratio_by_place(identity_rows(), data="digits"),
    "ratio, 1 seed": lambda: figures.ratio_by_place(identity_rows(seeds=1), data="digits"),
    "ratio, 1 block": lambda: figures.ratio_by_place(identity_rows((2,)), data="digits"),
    "ratio, 12 depths": lambda: figures.ratio_by_place(identity_rows(TWELVE), data="digits"),
    "ratio, no number": lambda: figures.ratio_by_place(
        [{**row, "ratio_start": [None, math.inf], "ratio_end": None} for row in identity_rows()], data="digits"
    ),
    "ratio, no row": lambda: figures.ratio_by_place([], data="".join(NASTY)),
    "spectrum": spectrum,
    "spectrum, 3 seeds": lambda: spectrum(seeds=3),
    "spectrum, 1 depth": lambda: spectrum(depths=(10_000,), reach=dict.fromkeys(HE, 10_000)),
    "spectrum, 40 depths": lambda: spectrum(depths=range(5, 125, 3)),
    "spectrum, 1 ingredient": lambda: spectrum(reach={"skips": 56}),
    "spectrum, none reach": lambda: spectrum(reach=dict.fromkeys(HE, 1)),
    "spectrum, some lost": lambda: spectrum(seeds=2, became=lambda kind, depth, seed: (
        "out_of_memory" if depth > 400 else "impossible" if kind == "initial"
        else "diverged" if depth > 20 + seed * 40 else "ok"
    )),
    "spectrum, all lost": lambda: spectrum(became=lambda *_: "a_word_that_nobody_knows"),
    "spectrum, no row": lambda: spectrum(rows=[]),
    "spectrum, nasty name": lambda: spectrum("".join(NASTY)),
    "signal": lambda: figures.signal_against_depth(spectrum_rows(), data="digits"),
    "signal, 3 seeds": lambda: figures.signal_against_depth(spectrum_rows(seeds=3), data="digits"),
    "signal, 1 depth": lambda: figures.signal_against_depth(spectrum_rows(depths=(5,)), data="digits"),
    "signal, 40 depths": lambda: figures.signal_against_depth(spectrum_rows(depths=range(5, 125, 3)), data="x"),
    "signal, not finite": lambda: figures.signal_against_depth(
        [{**row, "grad_first_start": None, "rms_last_start": math.inf} for row in spectrum_rows()], data="x"
    ),
    "signal, not measured": lambda: figures.signal_against_depth(
        spectrum_rows(became=lambda *_: "impossible"), data="digits"
    ),
    "signal, no row": lambda: figures.signal_against_depth([], data="".join(NASTY)),
    "lesion": lambda: figures.error_without_block(lesion_rows(), data="digits"),
    "lesion, with a twin": lambda: figures.error_without_block(
        lesion_rows(), data="digits", twin=lesion_rows(9, plain=True)
    ),
    "lesion, 540 blocks": lambda: figures.error_without_block(lesion_rows(540), data="digits"),
    "lesion, 1 block": lambda: figures.error_without_block(lesion_rows(1), data="digits"),
    "lesion, 3 blocks": lambda: figures.error_without_block(lesion_rows(3), data="digits"),
    "lesion, no number": lambda: figures.error_without_block(
        [{**row, "lesion_error": None} for row in lesion_rows(9, plain=True)], data="digits"
    ),
    "lesion, no row": lambda: figures.error_without_block([], data="digits"),
    "lesion, nasty": lambda: figures.error_without_block(lesion_rows(stage=NASTY[0]), data="".join(NASTY)),
    "lesions": lambda: figures.error_of_lesions(*several_rows(), data="digits"),
    "lesions, 1 block": lambda: figures.error_of_lesions(several_rows(1)[0], [], data="digits"),
    "lesions, no row": lambda: figures.error_of_lesions([], [], data="".join(NASTY)),
    "lengths": lambda: figures.gradient_by_length(path_rows(), data="digits"),
    "lengths, 600 blocks": lambda: figures.gradient_by_length(path_rows(600, every=12), data="digits"),
    "lengths, 1 block": lambda: figures.gradient_by_length(path_rows(1), data="digits"),
    "lengths, no number": lambda: figures.gradient_by_length(
        [
            {**row, **dict.fromkeys(("gradient", "gradient_low", "gradient_high", "contribution", "effective"))}
            for row in path_rows()
        ],
        data="digits",
    ),
    "lengths, one path": lambda: figures.gradient_by_length(
        [
            {**row, "share": 100.0 * (row["length"] == 9), "contribution": 100.0 * (row["length"] == 9)}
            | ({} if row["length"] == 9 else {"gradient": None, "gradient_low": None, "gradient_high": None})
            | {"effective": row["length"] == 9}
            for row in path_rows(9)
        ],
        data="digits",
    ),
    "lengths, no row": lambda: figures.gradient_by_length([], data="".join(NASTY)),
    "responses": lambda: figures.response_by_layer({"resnet56": signal_rows()}, data="digits"),
    "responses, as in the paper": lambda: figures.response_by_layer(
        {
            "plain20": signal_rows(9, plain=True, strength=2),
            "plain56": signal_rows(27, plain=True, strength=2),
            "resnet20": signal_rows(9),
            "resnet56": signal_rows(27, strength=0.7),
            "resnet110": signal_rows(54, strength=0.5),
        },
        data="digits",
    ),
    "responses, 1,080 layers": lambda: figures.response_by_layer({"deep": signal_rows(540)}, data="digits"),
    "responses, 1 block": lambda: figures.response_by_layer({"".join(NASTY): signal_rows(1)}, data="digits"),
    "responses, no number": lambda: figures.response_by_layer(
        {"net": [{**row, "response_std": [None, math.inf]} for row in signal_rows()]}, data="".join(NASTY)
    ),
    "responses, no net": lambda: figures.response_by_layer({}, data="digits"),
    "rms": lambda: figures.rms_by_block(signal_rows(), data="digits"),
    "rms, plain": lambda: figures.rms_by_block(signal_rows(9, plain=True), data="digits"),
    "rms, 540 blocks": lambda: figures.rms_by_block(signal_rows(540), data="digits"),
    "rms, 1 block": lambda: figures.rms_by_block(
        signal_rows(1, stage=NASTY[0] + NASTY[2]), data="".join(NASTY)
    ),
    "rms, no number": lambda: figures.rms_by_block(
        [{**row, "branch_rms": None, "shortcut_rms": None, "stream_std": None} for row in signal_rows()],
        data="digits",
    ),
    "rms, no row": lambda: figures.rms_by_block([], data="digits"),
    "gradient": lambda: figures.gradient_by_block(gradient_rows(), data="digits"),
    "gradient, plain": lambda: figures.gradient_by_block(
        gradient_rows(9, plain=True, fall=-1.2), data="digits"
    ),
    "gradient, 540 blocks": lambda: figures.gradient_by_block(gradient_rows(540), data="digits"),
    "gradient, flat": lambda: figures.gradient_by_block(gradient_rows(fall=0.0), data="digits"),
    "gradient, 1 block": lambda: figures.gradient_by_block(
        gradient_rows(1, stage=NASTY[0] + NASTY[2]), data="".join(NASTY)
    ),
    "gradient, no start": lambda: figures.gradient_by_block(
        [{**row, "grad_norm_initial": None, "grad_correlation_initial": None} for row in gradient_rows()],
        data="digits",
    ),
    "gradient, no number": lambda: figures.gradient_by_block(
        [
            {**row, "grad_norm": 0.0, "grad_norm_initial": math.nan, "grad_correlation": None}
            for row in gradient_rows()
        ],
        data="digits",
    ),
    "gradient, no row": lambda: figures.gradient_by_block([], data="digits"),
    "lens": lambda: figures.error_after_block(lens_rows(), data="digits"),
    "lens, plain": lambda: figures.error_after_block(lens_rows(9, plain=True), data="digits"),
    "lens, 540 blocks": lambda: figures.error_after_block(lens_rows(540), data="digits"),
    "lens, 1 block": lambda: figures.error_after_block(
        lens_rows(1, stage=NASTY[0] + NASTY[2]), data="".join(NASTY)
    ),
    "lens, no row": lambda: figures.error_after_block([], data="digits"),
    "reliability": lambda: figures.reliability_diagram(calibration_rows(), data="digits"),
    "reliability, not scaled": lambda: figures.reliability_diagram(
        calibration_rows(scaled=False), data="digits"
    ),
    "reliability, too modest": lambda: figures.reliability_diagram(
        calibration_rows(gap=-20), data="".join(NASTY)
    ),
    "reliability, no image": lambda: figures.reliability_diagram(calibration_rows(0), data="digits"),
    "reliability, no row": lambda: figures.reliability_diagram([], data="digits"),
    "saliency": lambda: grid(saliency_rows()),
    "saliency, grey": lambda: grid(saliency_rows(3, 1, side=8, cells=2), side=8, channels=1),
    "saliency, large": lambda: grid(saliency_rows(1, 2, side=56, cells=7), side=224),
    "saliency, only wrong": lambda: grid(saliency_rows(0, 1)),
    "saliency, many": lambda: grid(saliency_rows(19, 9)),
    "saliency, nasty names": lambda: grid(saliency_rows(2, 8), (NASTY * 2)[:10]),
    "saliency, no number": lambda: grid(
        [{**row, "grad_cam": [[None]], "integrated": [[0.0, None]]} for row in saliency_rows(1, 1)]
    ),
    "saliency, no row": lambda: grid([]),
    "landscape": lambda: figures.loss_landscape(landscape_rows(bowl, cliff), data="digits"),
    "landscape, 1 net": lambda: figures.loss_landscape(landscape_rows(bowl), data="digits"),
    "landscape, 2 alike": lambda: figures.loss_landscape(
        landscape_rows(bowl, bowl, kinds=("residual", "residual")), data="digits"
    ),
    "landscape, only a line": lambda: figures.loss_landscape(landscape_rows(bowl, plane=0), data="digits"),
    "landscape, only a plane": lambda: figures.loss_landscape(landscape_rows(cliff, line=0), data="digits"),
    "landscape, far": lambda: figures.loss_landscape(landscape_rows(bowl, span=12345.0), data="digits"),
    "landscape, flat": lambda: figures.loss_landscape(landscape_rows(lambda x, y: 0.0), data="digits"),
    "landscape, no number": lambda: figures.loss_landscape(
        landscape_rows(lambda x, y: None, bowl), data="".join(NASTY)
    ),
    "landscape, no row": lambda: figures.loss_landscape([], data="digits"),
    "run": lambda: figures.run_curves(run_rows()),
    "run, 1 epoch": lambda: figures.run_curves(run_rows(1)),
    "run, 301 epochs": lambda: figures.run_curves(run_rows(301)),
    "run, only nulls": lambda: figures.run_curves([{"epoch": 1, "train_error": None, "val_loss": math.inf}]),
    "run, no row": lambda: figures.run_curves([]),
    "confusion, 2": lambda: figures.confusion(matrix(2), ["cat", "dog"]),
    "confusion, 1": lambda: figures.confusion([[7]], ["only"]),
    "confusion, nasty": lambda: figures.confusion(matrix(6), NASTY),
    "confusion, large counts": lambda: figures.confusion([[123456, 7], [98765, 1234567]], ["a", "b"]),
    "confusion, 8 with large counts": lambda: figures.confusion([[10**5] * 8] * 8, list("abcdefgh")),
    "confusion, nothing": lambda: figures.confusion([[0] * 3] * 3, ["a", "b", "c"]),
    "confusion, 10 digits": lambda: figures.confusion(matrix(10), list("0123456789")),
    "confusion, 37": lambda: figures.confusion(matrix(37), [f"class number {i}" for i in range(37)]),
    "confusion, 100": lambda: figures.confusion(matrix(100), [f"a long class name {i}" for i in range(100)]),
}  # fmt: skip


def words_of(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


def written(figure: Figure) -> list[str]:
    return [text.get_text() for text in words_of(figure)]


@pytest.fixture(params=CASES, scope="module")
def figure(request):
    return CASES[request.param]()


def test_words_stay_apart_and_inside(figure):
    with figures.style.language():
        figure.draw_without_rendering()
        boxes = [(text.get_text(), text.get_window_extent()) for text in words_of(figure)]
    wide, high = figure.get_size_inches() * figure.dpi
    for word, box in boxes:
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= wide and box.y1 <= high
        assert inside, f"{word!r} leaves the figure: {box}"
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        over_x, over_y = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(over_x, over_y) <= 0.5, f"{one!r} and {other!r} overlap by {over_x:.1f} x {over_y:.1f}"


def test_svg_is_well_formed_and_the_same_bytes_twice(figure):
    first = figures.to_svg(figure, "deepskip study depth digits")
    assert first == figures.to_svg(figure, "deepskip study depth digits")
    ET.fromstring(first.encode())
    assert "<dc:source>deepskip study depth digits</dc:source>" in first
    assert "<dc:date>" not in first


def test_two_drawings_of_the_same_rows_are_the_same_bytes():
    assert figures.to_svg(CASES["curves"]()) == figures.to_svg(CASES["curves"]())


def test_a_figure_speaks_for_itself(figure):
    assert figure.title
    assert figure.caption.endswith(".")
    assert len(figure.alt) > 20


def test_matplotlib_is_left_as_it_was():
    usual = figures.to_svg(CASES["depth"]())
    with matplotlib.rc_context({"xtick.direction": "in", "xtick.top": True, "font.size": 40}):
        assert figures.to_svg(CASES["depth"]()) == usual, "the reader's own matplotlibrc changes our figures"
        assert matplotlib.rcParams["font.size"] == 40
        assert matplotlib.rcParams["xtick.top"]


def test_names_stay_text():
    drawn = figures.to_svg(figures.confusion(matrix(6), NASTY))
    tree = ET.fromstring(drawn.encode())
    assert not [element for element in tree.iter() if element.tag.endswith("script")]
    texts = ["".join(element.itertext()) for element in tree.iter() if element.tag.endswith("}text")]
    assert any("$\\frac{1}$" in text for text in texts), "dollar signs are no mathematics"
    assert any("数字" in text for text in texts), "a name in any script is written as text"


def test_curves_name_every_depth_once_a_panel():
    found = written(CASES["curves, 12 depths"]())
    for depth in TWELVE[:-1]:
        assert sum(word.split()[0] == str(depth) for word in found) >= 2, depth
    assert found.count("110 layers") == 2


def test_a_diverged_seed_is_crossed_and_left_out_of_the_mean():
    whole = curve_rows((20,), kinds=["plain"])
    broken = [r for r in whole if not (r["seed"] == 0 and r["epoch"] > 4)]
    for row in broken:
        row["train_error"] = 80.0 if row["seed"] == 0 else 10.0
    axes = figures.training_curves(broken, data="digits").axes[0]
    means = [line for line in axes.lines if line.get_marker() == "None" and len(line.get_xdata()) == 15]
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    assert [set(line.get_ydata()) for line in means] == [{10.0}]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in crosses] == [(4, 80.0)]


def test_a_null_in_the_last_epoch_is_divergence():
    rows = curve_rows((20,), seeds=1, kinds=["plain"])
    rows[-1]["train_error"] = None
    picture = figures.training_curves(rows, data="digits")
    assert [line.get_xdata()[0] for line in picture.axes[0].lines if line.get_marker() == "x"] == [14]
    assert rows[-1]["epoch"] == 15


def test_both_panels_share_their_y_axis():
    for name in ("curves", "depth", "depth, some lost"):
        one, other = CASES[name]().axes
        assert one.get_ylim() == other.get_ylim()


def test_depth_ticks_stand_at_the_depths_and_every_seed_is_a_dot():
    axes = CASES["depth"]().axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == [str(depth) for depth in DEPTHS]
    dots = [line for line in axes.lines if line.get_markersize() < 3 and line.get_marker() == "o"]
    assert [len(line.get_xdata()) for line in dots] == [3] * len(DEPTHS) * 2


def test_a_diverged_cell_is_a_cross_and_in_no_mean():
    lost = study_rows(lost=lambda kind, depth, seed: (kind, depth, seed) == ("plain", 110, 2))
    axes = figures.error_against_depth(lost, data="digits").axes[0]
    assert [line.get_marker() for line in axes.lines].count("x") == 1
    plain = next(line for line in axes.lines if len(line.get_xdata()) == 5)
    assert plain.get_ydata()[-1] == pytest.approx(89.05)


def test_a_cell_without_memory_is_not_called_diverged():
    rows = study_rows(lost=lambda kind, depth, _: (kind, depth) == ("residual", 110))
    for row in rows:
        row["status"] = "out_of_memory" if row["train_error"] is None else "ok"
    picture = figures.error_against_depth(rows, data="digits")
    assert "no result" in written(picture)
    assert "diverged" not in picture.caption
    assert "out of memory" in picture.caption


def test_numbers_that_a_diverged_cell_left_behind_are_not_drawn():
    rows = study_rows()
    rows[-1] |= {"status": "diverged", "train_error": 1e9, "val_error": 1e9}
    axes = figures.error_against_depth(rows, data="digits").axes[0]
    assert max(max(line.get_ydata()) for line in axes.lines) < 110


def test_means_stand_at_the_three_moments_and_dots_are_seeds():
    picture = figures.error_at_insertion(identity_rows(), data="digits")
    residual, plain = (
        [(line.get_zorder(), list(line.get_ydata())) for line in axes.lines] for axes in picture.axes
    )
    assert residual.count((5, [4.0, 4.0, 3.5])) == 2
    assert (5, [4.0, 90.0, 64.0]) in plain
    assert (3.5, [2.0, 88.0, 62.0]) in plain  # training
    assert (4, [55.0, 64.0, 73.0]) in plain
    assert {"fresh 64%", "silent 3.5%", "no blocks 3.5%"} <= set(written(picture))


def test_a_lost_seed_is_in_no_mean_and_is_counted():
    made = identity_rows(became=lambda _, start, seed: "diverged" if (start, seed) == ("fresh", 0) else "ok")
    next(row for row in made if row["status"] == "diverged")["val_scored_end"] = 1e9
    picture = figures.error_at_insertion(made, data="digits")
    assert f"fresh 68% {rows.CROSS}1" in written(picture)
    assert "seeds without a result" in picture.caption
    made = identity_rows(became=lambda _, start, seed: "diverged" if start == "fresh" else "ok")
    assert f"fresh {rows.CROSS}3" in written(figures.error_at_insertion(made, data="digits"))


def test_ratios_stand_at_the_places_of_their_blocks():
    made = identity_rows((8, 20))
    picture = figures.ratio_by_place(made, data="digits")
    before, trained = picture.axes
    assert before.get_ylim() == trained.get_ylim()
    second = [row["ratio_end"][1] for row in made if row["kind"] == "residual" and row["depth"] == 8]
    assert list(trained.lines[0].get_xdata()) == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert trained.lines[0].get_ydata()[1] == pytest.approx(sum(second) / 3)
    assert {"8 layers", "20"} <= set(written(picture))


def cells_of(picture):
    """Return what stands in each cell of a spectrum, its colour, and the frames, by row and column."""
    (axes,) = picture.axes
    boxes = [box for box in axes.patches if box.get_fill() or box.get_hatch()]
    frames = [box for box in axes.patches if box not in boxes]
    words = {}
    for text in axes.texts:
        for i, box in enumerate(boxes):
            if box.get_bbox().contains(*text.get_position()):
                words.setdefault(i, []).append(text)
    return boxes, words, frames


def test_a_spectrum_is_dark_where_nets_train_and_every_number_can_be_read():
    errors = [0.0, 5.0, 9.9, 10.0, 50.0, 89.9, 100.0]
    made = [{**spectrum_rows()[0], "depth": depth, "train_error": error} for depth, error in enumerate(errors)]
    boxes, words, frames = cells_of(spectrum(rows=made, reach={"nothing": 2}))
    assert [[text.get_text() for text in words[i]] for i in range(7)] == [
        ["0.0"], ["5.0"], ["9.9"], ["10"], ["50"], ["90"], ["100"]
    ]  # fmt: skip
    shown = [matplotlib.colors.to_hex(box.get_facecolor()) for box in boxes]
    light = [colour.to_oklch(one)[0] for one in shown]
    assert light[:6] == sorted(light[:6])
    assert light[3] - light[2] > 0.2, "where nets stop to train, the grey jumps"
    for by_night in (False, True):
        for i, one in enumerate(shown):
            ink = matplotlib.colors.to_hex(words[i][0].get_color())
            if by_night:  # as pages set them: `inline` and page.css
                one = colour.night(one)
                ink = "#131619" if ink == colour.PAPER else "#e8e6e1"
            assert contrast(one, ink) >= 4.5, (errors[i], by_night)
    (frame,) = frames
    inside = [frame.get_bbox().contains(*words[i][0].get_position()) for i in range(7)]
    assert inside == [True] * 3 + [False] * 4


def test_a_spectrum_frames_how_deep_each_ingredient_reaches():
    picture = spectrum(reach=HE | {"initial": None}, rows=spectrum_rows())
    boxes, words, frames = cells_of(picture)
    framed = [sum(frame.get_bbox().contains(*words[i][0].get_position()) for i in words) for frame in frames]
    assert framed == [2, 4, 6, 9]
    assert [word for word in written(picture) if word.startswith(("to ", "none"))] == [
        "to 8 layers", "none", "to 20 layers", "to 56 layers", "to 434 layers"
    ]  # fmt: skip
    assert len(boxes) == 45
    dots = [line.get_xdata()[0] / picture.axes[0].get_xlim()[1] * 9 for line in picture.axes[0].lines]
    assert dots == pytest.approx([2, 4, 4, 6]), "past 10, 30, 30 and 100 layers of 5, 8, 14, 20, 32, 56, 110, …"
    assert len(spectrum(rows=spectrum_rows(depths=(110, 218))).axes[0].lines) == 0


def test_a_cell_of_a_spectrum_says_what_became_of_it():
    became = {110: "diverged", 218: "out_of_memory", 434: "impossible"}
    rows_ = spectrum_rows({"skips": 56}, became=lambda _, depth, __: became.get(depth, "ok"))
    picture = spectrum(rows=rows_, reach={"skips": 56})
    boxes, words, _ = cells_of(picture)
    assert [words[i][0].get_text() for i in (6, 7, 8)] == [rows.CROSS, "no room", rows.NONE]
    assert all(boxes[i].get_hatch() and not boxes[i - 3].get_hatch() for i in (6, 7, 8))
    for sign, meaning in ((rows.CROSS, "diverged"), ("no room", "out of memory"), (rows.NONE, "impossible")):
        assert f"{sign}: {meaning}." in picture.caption
    assert "diverged at 110, out of memory at 218, impossible at 434" in picture.alt
    assert "diverged" not in CASES["spectrum"]().caption


def test_a_cell_of_a_spectrum_is_a_mean_of_seeds():
    picture = spectrum(rows=spectrum_rows({"skips": 5}, (5, 8), seeds=3), reach={"skips": 5})
    _, words, _ = cells_of(picture)
    assert [[text.get_text() for text in words[i]] for i in (0, 1)] == [["2.5", "± 0.5"], ["80", "± 0.5"]]
    lost = spectrum_rows({"skips": 5}, (5,), seeds=3, became=lambda *cell: "ok" if cell[-1] else "diverged")
    lost[0]["train_error"] = 1e9
    _, words, _ = cells_of(spectrum(rows=lost, reach={"skips": None}))
    assert [text.get_text() for text in words[0]] == ["2.8", f"{rows.CROSS}1"]


def test_signals_stand_in_powers_of_ten():
    made = spectrum_rows(depths=(5, 50, 434))
    made[0]["grad_first_start"] = made[0]["grad_last_start"] = 0.0
    made[1]["grad_last_start"] = None
    picture = figures.signal_against_depth(made, data="digits")
    gradient, activation = picture.axes
    low, high = gradient.get_ylim()
    assert activation.get_ylim() == (low, high)
    lines = [list(line.get_ydata()) for line in gradient.lines if len(line.get_xdata()) == 3]
    assert [low, high, low] in lines, "zero below, no number above, and 10⁻¹⁷³ is zero in float32"
    assert [pytest.approx(0.4), pytest.approx(4.0), pytest.approx(34.72)] in lines
    assert "Triangle on the lower edge: zero" in picture.caption
    assert "Triangle on the upper edge" in picture.caption
    clean = figures.signal_against_depth(spectrum_rows({"skips": 5}), data="digits")
    assert "Triangle" not in clean.caption
    assert "10⁻²⁰" in written(CASES["signal"]())


def test_a_grid_shows_what_was_taken_for_what():
    picture = CASES["saliency"]()
    found = written(picture)
    assert {"Right", "The surest mistakes", "automobile", "76.0%"} <= set(found)
    bold = [text.get_text() for text in words_of(picture) if text.get_weight() == "bold"]
    assert len(bold) == 2 + 8, "what is wrong stands out"
    assert "ship taken for automobile." in picture.alt
    assert "99.99%" in found, "nobody is certain"
    assert len(picture.axes[0].images) == 3 * 16 + 1


def test_a_picture_is_its_own_where_the_map_is_largest_and_fades_where_it_is_zero():
    (row,) = saliency_rows(1, 0)
    row["grad_cam"] = [[0.0, 2.0], [0.0, 2.0]]
    row["integrated"] = [[-1.0, 0.0], [0.5, 1.0]]
    (pixels,) = pictures_of([row])
    shown, faded, levels, _ = (
        image.get_array() for image in figures.saliency_grid([row], [pixels], CIFAR).axes[0].images
    )
    assert (shown == pixels).all()
    assert (faded[:, -8:] == pixels[:, -8:]).all()
    assert faded[:, :8].min() >= 0.88 * 255 - 1
    assert levels.tolist() == [[-1.0, 0.0], [pytest.approx(0.5, abs=0.01), 1.0]]
    with pytest.raises(InputError, match="pictures: got 0; allowed: 1, one a row"):
        figures.saliency_grid([row], [], CIFAR)


def test_what_speaks_for_a_class_is_darker_also_in_grey():
    from deepskip.figures.saliency import _TINTS

    light = [colour.to_oklch(matplotlib.colors.to_hex(_TINTS(i)))[0] for i in range(_TINTS.N)]
    assert light == sorted(light, reverse=True)


def test_landscapes_share_their_levels_and_their_middle_is_the_net():
    made = landscape_rows(bowl, cliff)
    picture = figures.loss_landscape(made, data="digits")
    lines, first, bar, second = picture.axes
    assert [text for axes in (lines, first, second) for text in axes.get_xticklabels()][1].get_text() == "0"
    drawn = [axes.collections[0] for axes in (first, second)]
    assert drawn[0].levels.tolist() == drawn[1].levels.tolist()
    assert (drawn[0].get_facecolor() == drawn[1].get_facecolor()).all()
    assert [line.get_linestyle() for line in lines.lines if len(line.get_xdata()) > 1] == ["-", "--"]
    at_zero = [row["error"] for row in made if row["x"] == 0 and row["y"] is None]
    assert [line.get_ydata()[0] for line in lines.lines if len(line.get_xdata()) == 1] == at_zero
    assert "Hatched" in picture.caption
    assert "Hatched" not in CASES["landscape, 1 net"]().caption
    assert [text.get_text() for text in bar.get_xticklabels()]


def test_places_keep_their_order_and_their_distance():
    for depths in (DEPTHS, TWELVE, (8, 1196, 1202)):
        places = places_of(depths, 3.0)
        assert (places[0], places[-1]) == (0.0, 1.0)
        for (a, b), (left, right) in zip(itertools.pairwise(depths), itertools.pairwise(places), strict=True):
            assert right - left > (labels.width(str(a)) + labels.width(str(b))) / 2 / 3.0
    logs = [math.log(depth / 8) / math.log(110 / 8) for depth in DEPTHS]
    assert places_of(DEPTHS, 3.0) == pytest.approx(logs), "where there is room, the axis is logarithmic"


def test_counts_are_written_when_few_and_not_when_many():
    assert "200" in written(figures.confusion(matrix(5), list("abcde")))
    assert "200" not in written(CASES["confusion, 100"]())


def maps_of(picture):
    """Return the levels of each map, [lines, columns], masked where nothing was measured."""
    return [image.get_array() for axes in picture.axes for image in axes.images if axes.get_xlabel() == "step"]


def test_a_map_is_darker_where_more_flows_and_even_in_powers_of_ten():
    values = [1e-4, 1e-3, 1e-2, 1e-1]
    rows = [{"step": 1, "grad_norm": values}, {"step": 2, "grad_norm": [0.0, None, math.inf, 9.9e-2]}]
    (levels,) = maps_of(figures.flow_maps(rows))
    assert levels[:, 0].tolist() == [0, 8, 16, 23], "24 colours from 10⁻⁴ to 10⁻¹"
    assert levels[:, 1].tolist() == [0, None, None, 23]
    light = [colour.to_oklch(colour.heat(i / 23))[0] for i in range(24)]
    assert light == sorted(light, reverse=True)
    assert min(a - b for a, b in itertools.pairwise(light)) > 0.02


def test_a_column_is_the_last_step_recorded_up_to_it():
    rows = [{"step": step, "rms": [value]} for step, value in ((1, 1.0), (4, 99.0), (6, 1.0))]
    (levels,) = maps_of(figures.flow_maps(rows[::-1]))
    assert (levels[0] > 0).tolist() == [False, False, False, True, True, False]


def test_of_many_blocks_none_is_left_out():
    rows = flow_rows(5000, 1, fall=0)
    rows[0]["grad_norm"] = [1e-30 if i == 3217 else 1.0 for i in range(5000)]
    (levels, *_) = maps_of(figures.flow_maps(rows))
    assert levels.shape == (500, 1)
    assert levels.min() == levels[321, 0] < levels.max()
    assert "geometric mean of 10 blocks" in figures.flow_maps(rows).caption


def test_a_map_names_the_blocks_where_stages_begin():
    picture = CASES["flow"]()
    assert [text.get_text() for text in picture.axes[0].get_yticklabels()] == [
        "s1.b1",
        "s2.b10",
        "s3.b19",
        "s3.b27",
    ]
    assert not [t for t in picture.axes[2].get_yticklabels() if t.get_text()]
    for name, panels in (("flow, plain", 2), ("flow, compiled", 1)):
        assert len(maps_of(CASES[name]())) == panels
    assert "no shortcut" in CASES["flow, plain"]().caption
    assert "compiled" in CASES["flow, compiled"]().caption


def test_a_lesion_stands_at_its_block_and_the_twin_has_the_same_scale():
    net, twin = lesion_rows(), lesion_rows(9, plain=True)
    one, two = figures.error_without_block(net, data="digits", twin=twin).axes
    assert one.get_ylim() == two.get_ylim()
    for axes, rows_, markers in ((one, net, {"o", "D"}), (two, twin, {"s"})):
        marks = {line.get_xdata()[0]: line for line in axes.lines if line.get_marker() in markers}
        known = {row["index"]: row for row in rows_ if row["lesion_error"] is not None}
        assert set(marks) == set(known)
        for i, row in known.items():
            assert marks[i].get_ydata()[0] == row["lesion_error"]
            assert (marks[i].get_marker() == "D") == (row["shortcut"] == "pad")
    assert "3 blocks have nothing" in CASES["lesion, with a twin"]().caption


def test_lesions_are_dots_and_their_mean():
    deleted, shuffled = several_rows()
    left, right = CASES["lesions"]().axes
    dots = [next(line for line in axes.lines if line.get_marker() == "o") for axes in (left, right)]
    assert list(dots[0].get_ydata()) == [row["error"] for row in deleted]
    assert list(dots[1].get_xdata()) == [row["tau"] for row in shuffled]
    mean = next(line for line in left.lines if len(line.get_xdata()) == 8)
    assert list(mean.get_xdata()) == [0, 1, 2, 3, 5, 8, 12, 20]
    assert mean.get_ydata()[1] == pytest.approx(sum(r["error"] for r in deleted if r["deleted"] == 1) / 3)
    assert right.get_xlim()[0] > right.get_xlim()[1], "the net's own order is on the left"


def test_effective_lengths_are_stronger_and_the_gradient_is_on_a_logarithmic_scale():
    made = path_rows()
    picture = CASES["lengths"]()
    _, middle, right = picture.axes
    inside = [row["length"] for row in made if row["effective"]]
    strong = max(
        right.collections, key=lambda one: colour.to_oklch(matplotlib.colors.to_hex(one.get_facecolor()))[1]
    )
    xs = strong.get_paths()[0].vertices[:, 0]
    assert (min(xs), max(xs)) == pytest.approx((inside[0] - 0.38, inside[-1] + 0.38))
    line = next(line for line in middle.lines if line.get_marker() == "None")
    assert line.get_ydata()[3] == pytest.approx(math.log10(made[3]["gradient"]))
    assert f"Paths of {inside[0]} to {inside[-1]} branches carry" in picture.caption


def _line(axes, value, at=0):
    """Return the line of `axes` that has `value` at its place `at`."""
    return next(
        line
        for line in axes.lines
        if len(line.get_ydata()) > at and line.get_ydata()[at] == pytest.approx(value)
    )


def test_responses_stand_in_order_and_by_magnitude():
    made = signal_rows()
    every = [value for row in made for value in row["response_std"]]
    left, right = CASES["responses"]().axes
    assert list(_line(left, every[0]).get_ydata()) == every
    assert list(_line(right, max(every)).get_ydata()) == sorted(every, reverse=True)
    assert left.get_ylim() == right.get_ylim()
    names = written(CASES["responses, as in the paper"]())
    assert all(names.count(name) == 2 for name in ("plain20", "plain56", "resnet20", "resnet56", "resnet110"))


def test_branch_shortcut_and_stream_are_drawn_block_by_block():
    made = signal_rows()
    left, right = CASES["rms"]().axes
    for axes, field in ((left, "branch_rms"), (left, "shortcut_rms"), (right, "stream_std")):
        line = _line(axes, made[0][field])
        assert list(line.get_ydata()) == [row[field] for row in made]
        assert list(line.get_xdata()) == [row["index"] for row in made]
    assert "shortcut" not in written(CASES["rms, plain"]())


def test_gradients_are_logarithms_and_cosines_are_not():
    made = gradient_rows()
    left, right = CASES["gradient"]().axes
    for moment in ("", "_initial"):
        line = _line(left, math.log10(made[0][f"grad_norm{moment}"]))
        assert 10 ** line.get_ydata()[20] == pytest.approx(made[20][f"grad_norm{moment}"])
        assert (
            _line(right, made[0][f"grad_correlation{moment}"]).get_ydata()[20]
            == made[20][f"grad_correlation{moment}"]
        )
    texts = [tick.get_text() for tick in left.get_yticklabels()]
    assert len(texts) >= 2
    for place, text in zip(left.get_yticks(), texts, strict=True):
        assert 10**place == pytest.approx(float(text))


def test_the_lens_has_its_intervals():
    made = lens_rows()
    (axes,) = CASES["lens"]().axes
    probe = _line(axes, made[0]["lens_probe_error"])
    head = next(line for line in axes.lines if line.get_marker() == "o")
    assert [value for value in head.get_ydata() if not math.isnan(value)] == [
        row["lens_head_error"] for row in made if row["lens_head_error"] is not None
    ]
    assert list(probe.get_ydata()) == [row["lens_probe_error"] for row in made]
    tops = [max(path.vertices[:, 1]) for band in axes.collections for path in band.get_paths()]
    assert made[0]["lens_probe_high"] in tops
    assert "own head 5.6%" in written(CASES["lens"]())


def test_a_reliability_diagram_has_its_bins_and_errors():
    made = calibration_rows()
    picture = CASES["reliability"]()
    for half, axes in zip((made[:15], made[15:]), picture.axes[::2], strict=True):
        dots = {line.get_xdata()[0]: line.get_ydata()[0] for line in axes.lines if line.get_marker() == "o"}
        assert dots == {row["confidence"]: row["accuracy"] for row in half if row["n"]}
        whole = [line for line in axes.lines if line.get_marker() == "o" or len(set(line.get_xdata())) == 1]
        assert not any(line.get_clip_on() for line in whole), "a dot at 100% is a whole one"
        n = sum(row["n"] for row in half)
        error = sum(row["n"] * abs(row["accuracy"] - row["confidence"]) for row in half if row["n"]) / n
        assert f"right (%); calibration error {rows.percent(error)}" in [t.get_text() for t in axes.texts]


@pytest.mark.parametrize("wrong", [[], [[1, 2]], [[1], [2]], [[1, 2], [3]]])
def test_a_matrix_that_is_not_square_is_refused(wrong):
    with pytest.raises(InputError, match="confusion matrix: got"):
        figures.confusion(wrong, ["a", "b"])


def test_save_writes_svg_and_png_whole(tmp_path: Path):
    picture = CASES["depth"]()
    for name in ("a.svg", "b", "c.png", "v1.5"):
        made = figures.save(picture, tmp_path / "figures" / name, "deepskip study depth digits", png=True)
        assert made == tmp_path / "figures" / f"{name.removesuffix('.svg').removesuffix('.png')}.svg"
        assert made.read_text(encoding="utf-8") == figures.to_svg(picture, "deepskip study depth digits")
        with Image.open(made.with_name(f"{made.name[:-4]}.png")) as png:
            assert png.format == "PNG"
            assert png.info["Comment"] == "deepskip study depth digits"
            assert (png.info["Title"], png.info["Description"]) == (picture.title, picture.alt)
    assert len(list((tmp_path / "figures").iterdir())) == 8


def test_spread_keeps_apart_moves_little_and_stays_inside():
    assert labels.spread([0.0, 1.0, 2.0], 0.5, 0, 3) == [0.0, 1.0, 2.0], "what has room stays where it is"
    assert labels.spread([1.0, 1.0], 1.0, 0, 3) == pytest.approx([0.5, 1.5]), "a tie parts evenly"
    assert labels.spread([0.0] * 5, 1.0, 0, 8) == pytest.approx([0, 1, 2, 3, 4])
    assert labels.spread([9.0] * 5, 4.0, 0, 8) == pytest.approx([0, 2, 4, 6, 8]), "too tight: gaps shrink alike"
    noise = random.Random(0)
    for _ in range(200):
        wanted = sorted(noise.random() * 10 for _ in range(noise.randrange(1, 12)))
        places = labels.spread(wanted, 0.8, 0, 10)
        assert all(b - a >= 0.8 - 1e-9 for a, b in itertools.pairwise(places))
        assert min(places) >= 0
        assert max(places) <= 10 + 1e-9


def test_colours_are_ordered_in_grey_by_day_and_by_night():
    for kind in rows.KINDS:
        day = [colour.shade(kind, i / 11) for i in range(12)]
        light = [colour.to_oklch(one)[0] for one in day]
        dark = [colour.to_oklch(colour.night(one))[0] for one in day]
        assert light == sorted(light, reverse=True)
        assert dark == sorted(dark)
        assert min(abs(a - b) for a, b in itertools.pairwise(light)) > 0.02


def test_colours_survive_the_round_trip():
    for one in ("#1b1f24", "#ffffff", "#000000", "#c05a10", "#2166cc"):
        assert colour.oklch(*colour.to_oklch(one)) == one


def test_every_label_can_be_read_on_white():
    for text in words_of(CASES["curves"]()) + words_of(CASES["run"]()):
        assert contrast(matplotlib.colors.to_hex(text.get_color()), "#ffffff") >= 4.5


def contrast(one: str, other: str) -> float:
    def luminance(code: str) -> float:
        parts = [int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (1, 1.0),
        (2.5, 2.5),
        (None, None),
        (float("nan"), None),
        (float("-inf"), None),
        ("3", None),
        (True, None),
    ],
)
def test_only_finite_numbers_count(value, read):
    assert rows.number(value) == read


def test_drawing_needs_no_screen_and_no_global_figure():
    import subprocess
    import sys

    code = (
        "import sys; from deepskip import figures, reports; figures.run_curves([]);"
        "assert 'matplotlib.pyplot' not in sys.modules; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
