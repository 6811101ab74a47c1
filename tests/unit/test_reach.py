"""What a spectrum study's rows say, on rows whose answer is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from deepskip.studies.reach import judge
from tests.unit.spectrum_rows import DEPTHS, HE, spectrum_rows

FAR = 434


def found(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return judge(rows, data="known", command="command", epochs=12, seeds=1)


def line(verdict: dict[str, Any], kind: str, depth: int) -> dict[str, Any]:
    return next(one for one in verdict["table"] if (one["kind"], one["depth"]) == (kind, depth))


SAID = """
    How deep a net trains on known: 8 layers with nothing special, 14 with good initial values, 20 with batch
    normalisation, 56 with skip connections and 434, the deepest tried, with identity skip connections. Each
    ingredient reaches deeper than those before it: the order of He's spectrum of depth. What first trains nets
    of 5 and 8, nothing special; of 14, good initial values; of 20, batch normalisation; of 32 and 56, skip
    connections; of 110, 218 and 434, identity skip connections. With nothing special the gradient vanishes from
    8 layers on: before training its norm at the first block is 6.3·10⁻⁴ times that at the last. With good
    initial values the gradient vanishes from 110 layers on: before training its norm at the first block is
    3.2·10⁻⁶ times that at the last. With batch normalisation the gradient explodes from 56 layers on: before
    training its norm at the first block is 3·10⁴ times that at the last.
"""


def test_hes_spectrum() -> None:
    verdict = found(spectrum_rows())
    assert " ".join(verdict["sentences"]) == " ".join(SAID.split())
    assert verdict["reach"] == HE
    assert verdict["order"] == "reproduced"
    assert verdict["cut"] == []
    assert [one["kind"] for one in verdict["first"]] == [
        next(kind for kind, far in HE.items() if depth <= far) for depth in DEPTHS
    ]
    one = line(verdict, "norm", 20)
    assert (one["train_error_mean"], one["train_error_sd"], one["trains"]) == (2.0, None, True)
    assert one["gradient_start"] == pytest.approx(10**1.6)
    assert (one["gradient_end"], one["activation_end"]) == (2.0, 3.0)
    assert one["activation_start"] == pytest.approx(10**0.4)
    assert line(verdict, "nothing", 434)["gradient_start"] == 0, "too small for the number format"


@pytest.mark.parametrize(
    ("reach", "order", "said"),
    [
        (HE, "reproduced", "Each ingredient reaches deeper than those before it"),
        (HE | {"skips": FAR}, "not separated", "Identity skip connections and skip connections are not told"),
        (
            HE | {"initial": 20},
            "not separated",
            "Batch normalisation and good initial values are not told apart",
        ),
        (
            HE | {"initial": 32},
            "not reproduced",
            "nets reach less deep with batch normalisation than with good",
        ),
        (HE | {"nothing": 0}, "reproduced", "not even 5 layers with nothing special, 14 with good initial"),
        (
            HE | {"initial": 0},
            "not reproduced",
            "nets reach less deep with good initial values than with nothing",
        ),
        (dict.fromkeys(HE, 0), "not separated", "nets reach as deep with both."),
        (dict.fromkeys(HE, FAR), "not separated", "nets reach as deep with both, the deepest tried."),
    ],
)
def test_the_order(reach: Mapping[str, int], order: str, said: str) -> None:
    verdict = found(spectrum_rows(reach))
    assert verdict["order"] == order
    assert said in " ".join(verdict["sentences"])


def test_a_depth_that_trains_past_one_that_does_not_is_not_reached() -> None:
    rows = spectrum_rows()
    for row in rows:
        if (row["kind"], row["depth"]) == ("norm", 56):
            row["train_error"] = 1.0
    verdict = found(rows)
    assert verdict["reach"]["norm"] == 20
    assert verdict["first"][5] == {"depth": 56, "kind": "norm"}
    assert (
        "With batch normalisation nets of 56 layers train too, past a depth that does not."
        in (verdict["sentences"])
    )


def test_what_diverged_does_not_train() -> None:
    verdict = found(spectrum_rows(became=lambda kind, depth, _: "diverged" if depth > 200 else "ok"))
    assert verdict["reach"]["identity"] == 110
    assert verdict["cut"] == []
    assert verdict["sentences"][-1].startswith(
        "Diverged: 218 layers with nothing special; 434 layers with nothing"
    )
    assert verdict["order"] == "reproduced"
    assert "of 218 and 434, none of them." in " ".join(verdict["sentences"])


@pytest.mark.parametrize("status", ["out_of_memory", "impossible"])
@pytest.mark.parametrize(
    ("kind", "depth", "order"),
    [
        ("identity", 434, "reproduced"),  # 218 is deeper than 56 all the same
        ("identity", 56, "not separated"),  # 32, at least, beside 56
        ("skips", 56, "not separated"),  # it may have reached further than the next
        ("skips", 218, "reproduced"),  # past a depth that does not train: changes nothing
    ],
)
def test_what_has_no_result_is_not_held_against_an_ingredient(
    kind: str, depth: int, order: str, status: str
) -> None:
    rows = spectrum_rows(became=lambda one, deep, _: status if (one, deep) == (kind, depth) else "ok")
    verdict = found(rows)
    assert verdict["order"] == order
    said = " ".join(verdict["sentences"])
    words = status.replace("_", " ").capitalize()
    assert f"{words}: {depth} layers with {'identity ' if kind == 'identity' else ''}skip connections." in said
    assert (verdict["cut"] == [kind]) == ((kind, depth) != ("skips", 218))
    assert ("cannot be compared: depths have no result." in said) == (order != "reproduced")
    assert line(verdict, kind, depth)["reason"] == f"it was {status}"
    assert line(verdict, kind, depth)["train_error_mean"] is None


def test_a_net_trains_when_its_mean_error_is_low_and_no_seed_diverged() -> None:
    def lose(status: str) -> dict[str, Any]:
        return line(
            found(spectrum_rows(seeds=3, became=lambda k, d, s: status if (d, s) == (8, 2) else "ok")),
            "norm",
            8,
        )

    whole, lost, cut = lose("ok"), lose("diverged"), lose("out_of_memory")
    assert (whole["trains"], lost["trains"], cut["trains"]) == (True, False, None)
    assert (whole["train_error_mean"], whole["train_error_sd"]) == (2.5, 0.5)
    assert (lost["train_error_mean"], lost["ok"], lost["n"]) == (2.25, 2, 3)
    assert lost["lost"] == {"diverged": 1}
    rows = spectrum_rows(seeds=3)
    for row in rows:
        row["train_error"] = {0: 0.0, 1: 0.0, 2: 30.0}[row["seed"]]
    assert found(rows)["reach"] == dict.fromkeys(HE), "10% is not under 10%"


def test_quotients_are_medians_over_seeds() -> None:
    rows = spectrum_rows(seeds=3)
    for row in rows:
        row["grad_first_start"] = {0: 1.0, 1: 0.5, 2: None}[row["seed"]]
        row["rms_last_start"] = {0: 1.0, 1: 100.0, 2: 2.0}[row["seed"]]
    one = line(found(rows), "skips", 20)
    assert (one["gradient_start"], one["activation_start"]) == (1.5, 2.0)


def test_nothing_trained_and_nothing_tried() -> None:
    verdict = found(spectrum_rows(became=lambda *_: "diverged"))
    assert verdict["sentences"][0].startswith("How deep a net trains on known: not even 5 layers with nothing")
    assert set(verdict["reach"].values()) == {None}
    assert judge([], data="known", command="command", epochs=1, seeds=1)["sentences"] == []
    alone = found([row for row in spectrum_rows() if row["kind"] == "skips"])
    assert alone["order"] == "not separated"
    assert alone["sentences"][0] == "How deep a net trains on known: 56 layers with skip connections."
