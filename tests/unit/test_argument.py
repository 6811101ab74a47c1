"""What an identity study's rows say, on rows whose answer is known."""

from __future__ import annotations

from typing import Any

import pytest

from deepskip.studies.argument import judge

Row = dict[str, Any]


def rows(
    after: dict[tuple[str, str], tuple[float | str, ...]],
    *,
    ratios: dict[int, tuple[float, float]] | None = None,
    **changes: Any,
) -> list[Row]:
    """Return a study's rows: `after`, a validation error for each seed, or what became of it instead.

    Nets begin at 3% and have 90% with fresh blocks or zeros put in; training errors are a third.
    """
    seeds = max(len(errors) for errors in after.values())
    made = [
        _row(twin, None, seed, 20, 3.0 + seed / 10) for twin in ("residual", "plain") for seed in range(seeds)
    ]
    for depth, (untrained, trained) in (ratios or {}).items():
        for seed in range(seeds):
            row = next((r for r in made if r["hash"] == f"residual None {depth} {seed}"), None)
            if row is None:
                made.append(row := _row("residual", None, seed, depth, 3.0))
            row |= {"ratio_start": [untrained] * 3, "ratio_end": [None, trained - 0.1, trained + 0.1]}
    for (twin, start), errors in after.items():
        for seed, error in enumerate(errors):
            row = _row(twin, start, seed, 20 if start == "kept" else 56, error)
            keeps = start in ("kept", "silent", "delta")
            at = 3.0 + seed / 10 if keeps else 90.0
            row |= {
                "layers_before": 20,
                "begins": f"{twin} None 20 {seed}",
                "blocks": 0 if start == "kept" else 18,
            }
            if error != "impossible":
                row |= {"val_scored_start": at, "train_scored_start": at / 3}
            if start != "kept" and error != "impossible":
                row |= {
                    "images": 360,
                    "same_outputs": 360 if keeps else 0,
                    "output_change": 0.0 if keeps else 2.5,
                }
                row["new_equal"] = 18 if keeps else 0
            if start == "silent":
                row |= {"ratio_start": [1.0, 0.0, 0.0], "ratio_end": [1.0, 0.01, 0.03]}
                row |= changes.get(start, {})
            made.append(row)
    return made


def _row(twin: str, start: str | None, seed: int, depth: int, error: float | str) -> Row:
    lost = isinstance(error, str)
    return {
        "twin": twin,
        "start": start,
        "blocks": 0,
        "kind": twin if start is None else f"{twin} {start}",
        "depth": depth,
        "seed": seed,
        "params": 1000,
        "val_scored_end": None if isinstance(error, str) else error,
        "train_scored_end": None if isinstance(error, str) else error / 3,
        "seconds": 1.0,
        "status": error if lost else "ok",
        **({"reason": "why"} if lost else {}),
        "hash": f"{twin} {start} {depth} {seed}",
    }


def found(after: dict[tuple[str, str], tuple[float | str, ...]], **more: Any) -> dict[str, Any]:
    return judge(rows(after, **more), data="known", command="command", epochs=12, seeds=3)


def line(verdict: dict[str, Any], twin: str, start: str) -> Row:
    return next(one for one in verdict["table"] if (one["twin"], one["start"]) == (twin, start))


SAME = {("residual", "kept"): (2.0, 2.5, 3.0), ("residual", "silent"): (2.1, 2.5, 3.2)}
PLAIN = {
    ("plain", "kept"): (3.0, 3.2, 3.1),
    ("plain", "fresh"): (50.0, 60.0, 70.0),
    ("plain", "delta"): (3.3, 3.2, 3.5),
    ("plain", "zero"): (90.0, 90.0, 90.0),
}
SAID = """
    18 silent blocks in a trained residual net change no bit of its outputs, and trained on it is no worse. A
    block whose last weights are zero is the identity: each of the 18 new blocks returns its input bit for bit
    (3 seeds). The residual net of 20 layers errs on 3.1 ± 0.1% of the validation images; with the blocks, 56
    layers, on 3.1 ± 0.1% (the same logits for all 360 images); trained on for 12 epochs, on 2.6 ± 0.6%,
    against 2.5 ± 0.5% without them (training error 0.9 ± 0.2% against 0.8 ± 0.2%; n = 3). Trained on,
    ‖F(x)‖/‖x‖ of its new blocks is 0.02, the mean over them. Its plain twin errs on 3.1 ± 0.1%, trained on
    without new blocks on 3.1 ± 0.1%; with as many, on 60.0 ± 10.0% with fresh blocks (90.0% at insertion),
    3.3 ± 0.2% with identity convolutions (3.1 ± 0.1% at insertion) and 90.0% with blocks of zeros (90.0% at
    insertion). Fresh blocks and blocks of zeros make it worse, identity convolutions do not. ‖F(x)‖/‖x‖ of
    trained residual nets, the mean over blocks, is 1.40 at 8 layers, 0.70 at 20 layers and 0.35 at 56 layers;
    untrained, 1.40, 0.80 and 0.70. The deeper the trained net, the nearer its blocks are to the identity; 50%
    of the fall was there before training.
"""


def test_the_seeds_argument() -> None:
    verdict = found({**SAME, **PLAIN}, ratios={8: (1.4, 1.4), 20: (0.8, 0.7), 56: (0.7, 0.35)})
    assert " ".join(verdict["sentences"]) == " ".join(SAID.split())
    assert verdict["there_before_training"] == pytest.approx(0.5)  # halved once untrained, twice trained
    assert {(one["twin"], one["start"]): one["worse"] for one in verdict["table"]} == {
        ("residual", "kept"): None,
        ("residual", "silent"): False,
        ("plain", "kept"): None,
        ("plain", "fresh"): True,
        ("plain", "delta"): False,
        ("plain", "zero"): True,
    }
    silent = line(verdict, "residual", "silent")
    assert (silent["same"], silent["seen"], silent["identities"], silent["output_change"]) == (3, 3, 18, 0.0)
    assert verdict["depths"] == [8, 20, 56]


@pytest.mark.parametrize(
    ("kept", "silent", "worse"),
    [
        ((2.0, 2.0), (2.9, 2.9), False),  # less than a point
        ((2.0, 2.0), (3.1, 3.1), True),
        ((1.0, 3.0), (3.0, 5.0), False),  # within both deviations, 1.4 each
        ((1.0, 3.0), (4.0, 6.0), True),
        ((2.0,), (11.9,), False),  # one seed: chance has no measure
        ((2.0,), (12.1,), True),
        ((2.0, 2.0), ("diverged", "diverged"), True),
        ((2.0, 2.0), (2.0, "diverged"), False),
        ((2.0, 2.0), ("out_of_memory", "out_of_memory"), None),
        (("diverged", "diverged"), (2.0, 2.0), None),
    ],
)
def test_worse_is_more_than_chance(kept: Any, silent: Any, worse: bool | None) -> None:
    verdict = found({("residual", "kept"): kept, ("residual", "silent"): silent})
    assert line(verdict, "residual", "silent")["worse"] is worse


def test_training_error_alone_is_worse_too() -> None:
    made = rows(SAME)
    for row in made:
        if row["start"] == "silent":
            row["train_scored_end"] += 5
    verdict = judge(made, data="known", command="command", epochs=1, seeds=3)
    assert line(verdict, "residual", "silent")["worse"] is True
    assert verdict["sentences"][0].endswith("change no bit of its outputs, but trained on it is worse.")


def test_one_image_that_changed_is_said() -> None:
    one = {"same_outputs": 359, "output_change": 1e-6, "new_equal": 17}
    said = found(SAME, silent=one)["sentences"]
    assert said[0].startswith("18 silent blocks in a trained residual net change its outputs, and trained on")
    assert (
        said[1]
        == "Of the 18 new blocks, whose last weights are zero, 17 return their input bit for bit (3 seeds)."
    )
    assert "the same logits for not all images" in said[2]


def test_what_could_not_be_put_in_is_said() -> None:
    verdict = found({("residual", "kept"): (2.0,), ("residual", "silent"): ("impossible",)})
    assert (
        verdict["sentences"][0]
        == "18 silent blocks could not be put into the residual net: impossible, 1 seed."
    )
    silent = line(verdict, "residual", "silent")
    assert (silent["worse"], silent["lost"], silent["reason"]) == (None, {"impossible": 1}, "why")
    plain = found({**SAME, ("plain", "kept"): (3.0,), ("plain", "delta"): ("impossible",)})
    assert "on impossible, 1 seed with identity convolutions" in plain["sentences"][4]
    assert len(plain["sentences"]) == 5


def test_seeds_that_diverged_are_in_no_mean() -> None:
    verdict = found({("residual", "kept"): (2.0, 3.0, 4.0), ("residual", "silent"): (2.0, 4.0, "diverged")})
    silent = line(verdict, "residual", "silent")
    assert (silent["val_after_mean"], silent["ok"], silent["n"]) == (3.0, 2, 3)
    assert "on 3.0 ± 1.4% (diverged, 1 seed)" in verdict["sentences"][2]


@pytest.mark.parametrize(
    ("ratios", "said"),
    [
        ({8: (1.0, 1.0), 56: (1.2, 0.5)}, "by training alone."),
        ({8: (1.0, 1.0), 56: (0.4, 0.5)}, "all of the fall was there before training."),
        ({8: (1.0, 1.0), 56: (0.5, 1.1)}, "Trained blocks are no nearer to the identity in deeper nets."),
        ({8: (1.0, 0.9)}, "is 0.90 at 8 layers; untrained, 1.00."),
    ],
)
def test_how_the_ratios_fall(ratios: dict[int, tuple[float, float]], said: str) -> None:
    made = rows({**SAME}, ratios=ratios)
    made = [row for row in made if row["depth"] in ratios or row["start"]]
    verdict = judge(made, data="known", command="command", epochs=1, seeds=3)
    assert verdict["sentences"][-1].endswith(said)


def test_nothing_trained() -> None:
    verdict = found(dict.fromkeys((*SAME, *PLAIN), ("diverged",)))
    for row in verdict["table"]:
        assert row["val_after_mean"] is None
    assert all(isinstance(sentence, str) for sentence in verdict["sentences"])
    assert judge([], data="known", command="command", epochs=1, seeds=1)["sentences"] == []
