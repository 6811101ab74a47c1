"""The reports: one file that loads nothing, where a name is text, an id is unique, a number is there."""

from __future__ import annotations

import html.parser
import re
from collections import Counter

import pytest

from deepskip import figures
from deepskip.reports import depth_report, identity_report, inline, run_report, spectrum_report, words
from deepskip.reports.inspection import story
from deepskip.studies import reach
from deepskip.studies.argument import judge
from tests.unit.identity_rows import identity_rows
from tests.unit.spectrum_rows import spectrum_rows

SCRIPT = "<script>alert(1)</script>"
HOSTILE = f'"><img src=x onerror=alert(1)>{SCRIPT}</style></svg>{{{{ 7*7 }}}}'
VOID = {"meta", "link", "img", "br", "input", "hr", "base"}


class Page(html.parser.HTMLParser):
    """What a page holds: its tags with their attributes, its ids, its visible words; tags must balance."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def study(kinds=("plain", "residual"), depths=(8, 20, 110), seeds=3, lost=None):
    rows, curves, table = [], [], []
    for kind in kinds:
        for depth in depths:
            gone = (kind, depth) == lost
            for seed in range(seeds):
                error = None if gone else (60.0 if kind == "plain" and depth > 50 else 0.5) + seed / 10
                status = "diverged" if gone else "ok"
                rows.append({"study": "depth", "kind": kind, "depth": depth, "seed": seed, "params": 78042,
                             "train_loss": error, "train_error": error, "val_error": error, "seconds": 61.0,
                             "status": status, "hash": "0"})  # fmt: skip
                curves += [{"kind": kind, "depth": depth, "seed": seed, "epoch": epoch, "train_error": error}
                           for epoch in (1, 2)]  # fmt: skip
            sd = None if gone or seeds == 1 else 0.1
            mean = None if gone else (60.1 if kind == "plain" and depth > 50 else depth / 100)
            table.append({"kind": kind, "depth": depth, "params": 78042, "n": 0 if gone else seeds,
                          "diverged": seeds if gone else 0, "train_error_mean": mean, "train_error_sd": sd,
                          "val_error_mean": mean, "val_error_sd": sd, "seconds_mean": 61.0})  # fmt: skip
    verdict = {"study": "depth", "data": "digits", "command": "deepskip study depth digits", "seeds": seeds,
               "epochs": 2, "depths": list(depths), "plain": {"degrades_at": 110},
               "residual": {"degrades_at": None}, "pays": None,
               "table": table,
               "sentences": ["Plain nets degrade from 110 layers on.", "Residual nets do not."]}  # fmt: skip
    return rows, curves, verdict


def depth_page(data="digits", environment=None, **shape):
    rows, curves, verdict = study(**shape)
    verdict |= {"data": data, "sentences": [*verdict["sentences"], f"All on {data}."]}
    drawn = {
        "curves": figures.training_curves(curves, data=data),
        "depth": figures.error_against_depth(rows, data=data),
    }
    return depth_report(rows, curves, verdict, drawn, environment or {"torch": "2.13.0", "cpu": {"cores": 4}})


def identity_page(data="digits", command="deepskip study identity digits", **shape):
    rows = identity_rows(**shape)
    drawn = {
        "insertion": figures.error_at_insertion(rows, data=data),
        "ratio": figures.ratio_by_place(rows, data=data),
    }
    verdict = judge(rows, data=data, command=command, epochs=12, seeds=3)
    return identity_report(rows, verdict, drawn, {"torch": "2.13.0", data: data})


def spectrum_page(data="digits", command="deepskip study spectrum digits", **shape):
    rows = spectrum_rows(**shape)
    verdict = reach.judge(rows, data=data, command=command, epochs=12, seeds=1)
    drawn = {
        "spectrum": figures.spectrum_of_depth(
            rows, data=data, reach=verdict["reach"], below=verdict["trains_below"]
        ),
        "signal": figures.signal_against_depth(rows, data=data),
    }
    return spectrum_report(rows, verdict, drawn, {"torch": "2.13.0", data: data})


def run_page(
    classes=("cat", "dog", "newt"), status="finished", scored=True, name="resnet18", epochs=3, draw=True
):
    count = len(classes)
    matrix = [[90 if t == p else (t + p) % 4 for p in range(count)] for t in range(count)]
    score = {
        "error": 3.2, "top5_error": 0.4, "loss": 0.41, "n": 100 * count, "calibration_error": 2.1,
        "confusion": matrix,
        "classes": [{"class": one, "n": sum(row), "error": 100 - 9000 / sum(row)}
                    for one, row in zip(classes, matrix, strict=True)],
    }  # fmt: skip
    summary = {
        "name": name, "data": "pets", "layers": 18, "params": 11181642, "macs": 595e6, "input": [3, 128, 128],
        "recipe": {"epochs": 3, "lr": 0.1, "ema": None, "augment": ["crop", "flip"]}, "seed": 0,
        "device": "cpu", "precision": "bf16", "seconds": 289.4,
        "command": "deepskip train pets", "status": status, "score": score if scored else None,
    }  # fmt: skip
    rows = [{"epoch": e, "train_loss": 1 / e, "train_error": 9.0 / e, "val_loss": None, "val_error": 10.0 / e,
             "learning_rate": 0.1, "images_per_second": 400, "seconds": 3.0}
            for e in range(1, epochs + 1)]  # fmt: skip
    drawn = {"run": figures.run_curves(rows)} if draw else {}
    if draw:
        steps = [{"step": s, "grad_norm": [1e-3, None], "rms": [1, 2], "ratio": [0, 1]} for s in (1, 5)]
        drawn["flow"] = figures.flow_maps([steps[0] | {"blocks": [f"{name}.b1", f"{name}.b2"]}, steps[1]])
    if scored and draw:
        drawn["confusion"] = figures.confusion(matrix, classes)
    return run_report(summary, rows, drawn)


PAGES = {
    "depth": depth_page,
    "depth, one seed": lambda: depth_page(seeds=1),
    "depth, one kind": lambda: depth_page(kinds=("residual",)),
    "depth, one lost": lambda: depth_page(lost=("plain", 110)),
    "depth, hostile": lambda: depth_page(data=HOSTILE, environment={HOSTILE: HOSTILE, "in": {"to": SCRIPT}}),
    "identity": identity_page,
    "identity, one seed": lambda: identity_page(seeds=1),
    "identity, some lost": lambda: identity_page(
        became=lambda _, start, seed: ("ok", "diverged", "impossible")[(len(start) + seed) % 3]
    ),
    "identity, all lost": lambda: identity_page(became=lambda *_: "out_of_memory"),
    "identity, hostile": lambda: identity_page(HOSTILE, HOSTILE),
    "spectrum": spectrum_page,
    "spectrum, 3 seeds": lambda: spectrum_page(seeds=3),
    "spectrum, some lost": lambda: spectrum_page(
        seeds=2, became=lambda kind, depth, seed: ("ok", "diverged", "out_of_memory")[(depth + seed) % 3]
    ),
    "spectrum, all lost": lambda: spectrum_page(became=lambda *_: "impossible"),
    "spectrum, hostile": lambda: spectrum_page(HOSTILE, HOSTILE),
    "run": run_page,
    "run, hostile": lambda: run_page(classes=(HOSTILE, SCRIPT, "&amp;", "a\x00b"), name=HOSTILE),
    "run, 100 classes": lambda: run_page(classes=[f"class {i}" for i in range(100)]),
    "run, interrupted": lambda: run_page(status="interrupted", scored=False, epochs=2),
    "run, diverged": lambda: run_page(status="diverged", scored=False, epochs=0),
    "run, no figure": lambda: run_page(draw=False),
}


@pytest.fixture(params=PAGES, scope="module")
def text(request):
    return PAGES[request.param]()


def test_nothing_is_loaded_and_nothing_runs(text):
    page = Page(text)
    assert not {"script", "img", "iframe", "object", "embed", "base", "audio", "video"} & {
        tag for tag, _ in page.tags
    }
    for tag, attributes in page.tags:
        assert "src" not in attributes
        assert "srcset" not in attributes
        assert not [key for key in attributes if key.startswith("on")]
        if tag == "a":
            assert attributes["href"] == "https://arxiv.org/abs/1512.03385"
        elif tag == "image":  # of a figure, inside the page
            assert attributes["href"].startswith("data:image/png;base64,")
        else:
            assert attributes.get("href", "#")[0] == "#" or attributes["href"] == "data:,"
    styles = "".join(re.findall(r"<style>(.*?)</style>", text, re.DOTALL))
    assert "@import" not in styles
    assert "url(" not in styles
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy


def test_ids_are_one_of_a_kind_and_all_references_arrive(text):
    page = Page(text)
    counts = Counter(attributes["id"] for _, attributes in page.tags if "id" in attributes)
    assert [name for name, count in counts.items() if count > 1] == []
    used = set(re.findall(r"url\(#([^)]+)\)", text)) | {a["href"][1:] for a in page.all("use")}
    used |= {name for _, a in page.tags for name in a.get("aria-labelledby", "").split()}
    assert used <= set(counts)


def test_it_can_be_read_without_eyes(text):
    page = Page(text)
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == len(page.all("main")) == len(page.all("title")) == 1
    assert all(a.get("role") == "img" and len(a.get("aria-label", "")) > 20 for a in page.all("svg"))
    assert len(page.all("figure")) == len(page.all("figcaption")) == len(page.all("svg"))
    assert all(a.get("scope") in {"col", "row", "rowgroup"} for a in page.all("th"))
    boxes = [a for a in page.all("div") if a.get("class") == "scroll"]
    assert len(boxes) == len(page.all("svg")) + len(page.all("table"))
    assert all(a["tabindex"] == "0" and ("aria-label" in a or "aria-labelledby" in a) for a in boxes)


def test_colours_follow_the_page(text):
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        bare = re.sub(r"var\(--[\w-]+, #[0-9a-f]{6}\)", "", svg)
        assert re.findall(r'style="[^"]*#[0-9a-f]{6}', bare) == []
        assert "currentColor" in svg
        for name in re.findall(r"var\((--c-[0-9a-f]{6})", svg):
            assert f"{name}:#" in text, "every colour has its value at night"


def test_no_type_is_ever_below_nine_pixels(text):
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        natural, least = map(float, re.search(r"--natural: (\d+)px; --least: (\d+)px", svg).groups())
        wide = float(re.search(r'viewBox="0 0 ([\d.]+) ', svg)[1])
        smallest = min(float(size) for size in re.findall(r"font-size: ([\d.]+)px", svg))
        assert smallest * least / wide > 8.95
        assert natural >= least


@pytest.mark.parametrize("name", ["depth, hostile", "identity, hostile", "spectrum, hostile", "run, hostile"])
def test_hostile_names_are_text(name):
    text = PAGES[name]()
    page = Page(text)
    assert SCRIPT not in text
    assert "<img" not in text
    assert SCRIPT in page.text, "it is shown as it is spelled"
    assert "{{ 7*7 }}" in page.text, "it is no template"


def test_the_verdict_comes_first_then_figures_then_the_table_then_the_making():
    text = depth_page()
    landmarks = ["<h1>Plain nets degrade from 110 layers on.</h1>", "Residual nets do not.", "<figure>",
                 "Figure 2.", "<table>", "deepskip study depth digits", "2.13.0", "arxiv.org"]  # fmt: skip
    places = [text.index(landmark) for landmark in landmarks]
    assert places == sorted(places)


def test_the_table_says_what_the_verdict_says():
    page = Page(depth_page())
    assert "78,042 60.1 ± 0.1 † 60.1 ± 0.1 3 1 min 1 s" in page.text
    assert "0.1 ± 0.1" in page.text
    assert "diverged" not in page.text
    assert len(page.all("strong")) == 2, "both kinds share the lowest validation error"
    assert "18 trainings 3 seeds 2 epochs each 36 epochs in all 18 min 18 s of training" in page.text
    assert "cpu.cores 4" in page.text


def test_one_seed_has_no_deviation_and_a_lost_cell_no_mean():
    assert "±" not in Page(depth_page(seeds=1)).text.split("The numbers")[1].split("finished.")[1]
    lost = Page(depth_page(lost=("plain", 110))).text
    assert "110 78,042 \N{EN DASH} † \N{EN DASH} 0 3" in lost


def test_the_identity_study_says_what_was_put_in_and_what_came_of_it():
    page = Page(identity_page())
    assert "18 silent blocks in a trained residual net change no bit of its outputs" in page.text
    assert (
        "residual, 8 layers none 8 4.0 ± 1.0 4.0 ± 1.0 3.5 ± 1.0 2.0 ± 1.0 2.0 ± 1.0 1.5 ± 1.0 3" in page.text
    )
    assert "silent: last weights zero 44 same bits 4.0 ± 1.0 4.0 ± 1.0 3.5 ± 1.0" in page.text
    assert "fresh: initial values 44 changed by up to 2.5 4.0 ± 1.0 90.0 ± 0.0 64.0 ± 9.0 †" in page.text
    assert "without a result" not in page.text
    assert page.text.index("residual, 8 layers") < page.text.index("plain, 8 layers")
    lost = Page(identity_page(became=lambda _, start, seed: "impossible" if start == "delta" else "ok")).text
    assert "3 impossible: it was impossible" in lost


def test_the_spectrum_says_what_trains_and_what_becomes_of_gradients():
    page = Page(spectrum_page())
    assert "How deep a net trains on digits: 8 layers with nothing special, 14 with good initial" in page.text
    assert "8 78,042 2.0 3.0 6.3·10⁻⁴ 2 0.16 3 1 1 min 1 s" in page.text
    assert len(page.all("strong")) == 2 + 3 + 4 + 6 + 9
    assert "without a result" not in page.text
    names = [
        "Nothing special: plain",
        "Initial values: delta",
        "Batch normalisation: He",
        "+ skip connections: post",
        "+ identity skips: pre",
    ]
    places = [page.text.index(name) for name in names]
    assert places == sorted(places)
    assert "3.2·10⁻⁴ → 0.02 0.5 → 0.01 1 → 1 0.16 → 3" in page.text
    lost = Page(spectrum_page(became=lambda kind, *_: "diverged" if kind == "norm" else "ok")).text
    assert "0 1 diverged 1 min 1 s" in lost
    assert "1 min 1 s diverged: it was diverged" in lost


@pytest.mark.parametrize(
    ("value", "read"),
    [(0, "0"), (0.834, "0.83"), (14.2, "14"), (123.4, "123"), (2.4e-7, "2.4·10⁻⁷"), (1e30, "1·10³⁰"),
     (0.00999, "1·10⁻²"), (None, "\u2013"), (float("inf"), "\u2013")],
)  # fmt: skip
def test_ratios(value, read):
    assert words.ratio(value) == read


def test_the_run_says_what_it_achieved():
    page = Page(run_page())
    assert "resnet18 misses 3.2% of 300 images of pets." in page.text
    assert "It trained for 3 epochs, in 4 min 49 s, on cpu in bf16." in page.text
    assert "five best" not in page.text, "with three classes that says nothing"
    assert "11,181,642" in page.text
    assert "595 M" in page.text
    assert "crop, flip" in page.text
    assert "ema" not in page.text
    most, least = "dog taken for newt 3 of 94", "cat taken for dog 1 of 93"
    assert page.text.index(most) < page.text.index(least)


@pytest.mark.parametrize(
    ("status", "epochs", "says"),
    [
        ("interrupted", 2, "It was interrupted after 2 of 3 epochs"),
        ("diverged", 1, "resnet18 diverged on pets."),
        ("finished", 3, "misses 3.3% of the validation images"),
        ("interrupted", 0, "resnet18 on pets has no score yet."),
    ],
)
def test_a_run_without_a_score_says_so(status, epochs, says):
    assert says in Page(run_page(status=status, epochs=epochs, scored=False)).text


def test_a_page_is_the_same_bytes_twice():
    assert depth_page() == depth_page()


def test_any_figure_can_be_set():
    plain = figures.training_curves([], data="x")
    plain.__class__ = plain.__class__.__bases__[0]
    rows, curves, verdict = study()
    assert "Figure 1. mine &amp; only." in depth_report(rows, curves, verdict, {"mine & only": plain}, {})


def test_small_type_scrolls_rather_than_shrinks():
    many = inline.inline_svg(figures.confusion([[1] * 100] * 100, [str(i) for i in range(100)]), "a", "b")
    few = inline.inline_svg(figures.run_curves([]), "a", "b")
    sizes = [re.findall(r"--natural: (\d+)px; --least: (\d+)px", svg)[0] for svg in (many, few)]
    assert sizes[0][0] == sizes[0][1]
    assert int(sizes[1][1]) < 0.9 * int(sizes[1][0])


def test_an_inlined_figure_keeps_its_own_names():
    figure = figures.training_curves(study()[1], data="x")
    one, other = inline.inline_svg(figure, "one", "words"), inline.inline_svg(figure, "other", "words")
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (one, other)]
    assert ids[0]
    assert not ids[0] & ids[1]


@pytest.mark.parametrize(
    ("seconds", "read"),
    [(4.21, "4.2 s"), (59.99, "60.0 s"), (289.4, "4 min 49 s"), (7500, "2 h 5 min"), (None, "\u2013")],
)
def test_durations(seconds, read):
    assert words.duration(seconds) == read


def _responses(plain: bool, layers: int, low: float, median: float, high: float) -> dict[str, object]:
    return {"stages": [], "branch_to_shortcut": None, "plain": plain, "layers": layers,
            "response_low": low, "response_median": median, "response_high": high}  # fmt: skip


@pytest.mark.parametrize(
    ("twin", "said"),
    [
        ((True, 18, 1.0, 1.1, 1.2), "residual layers respond less, each of them than any of the others, as in"),
        ((True, 18, 0.6, 1.1, 1.2), "residual layers respond less, as in figure 7 of He et al. 2015."),
        ((True, 18, 0.1, 0.2, 0.3), "residual layers respond no less, other than in figure 7"),
        ((False, 18, 0.1, 0.5, 0.9), "median is 0.5: those of the deeper net respond less, as in"),
        ((False, 108, 0.1, 0.5, 0.9), "those of the deeper net respond no less, other than in"),
        ((False, 54, 0.1, 0.5, 0.9), "Of the 54 layers of the net beside it the median is 0.5."),
    ],
)
def test_responses_are_set_beside_those_of_the_paper(twin, said):
    own = _responses(False, 54, 0.2, 0.4, 0.7)
    assert len(story("signal", own)) == 1
    assert said in story("signal", own | {"twin": _responses(*twin)})[-1]
    if twin[0]:
        swapped = _responses(*twin) | {"twin": own}
        assert said.split(",")[0] in story("signal", swapped)[-1], "the same of a plain net beside its twin"
