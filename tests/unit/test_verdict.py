"""What rows say: degradation, and which depth pays, on rows whose answer is known."""

from __future__ import annotations

from typing import Any

from deepskip.studies.verdict import judge


def _rows(kind: str, errors: dict[int, tuple[tuple[float, float] | None, ...]]) -> list[dict[str, Any]]:
    return [
        {
            "kind": kind,
            "depth": depth,
            "seed": seed,
            "params": depth * 1000,
            "train_error": pair and pair[0],
            "val_error": pair and pair[1],
            "seconds": 1.0,
            "status": "ok" if pair else "diverged",
        }
        for depth, pairs in errors.items()
        for seed, pair in enumerate(pairs)
    ]


def _judge(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return judge(rows, data="known", command="command", epochs=1, seeds=2)


def test_plain_degrades_and_residual_does_not() -> None:
    plain = _rows("plain", {8: ((1, 5), (2, 6)), 20: ((0, 4), (0, 4.2)), 56: ((30, 40), (50, 55))})
    residual = _rows("residual", {8: ((1, 5), (1, 5)), 20: ((0, 3), (0, 4)), 56: ((0, 3.1), (0, 3.3))})
    found = _judge(plain + residual)
    assert found["plain"] == {"degrades_at": 56}
    assert found["residual"] == {"degrades_at": None}
    # the best mean is 3.2 ± 0.14 (residual, 56); 20 layers at 3.5 are not within it
    assert found["pays"]["depth"] == 56
    assert found["sentences"][0] == (
        "Plain nets degrade from 56 layers on: training error rises from 0.0% at 20 to 40.0 ± 14.1% at 56."
    )
    assert "do not degrade up to 56 layers" in found["sentences"][1]


def test_a_shallower_net_within_one_sd_pays() -> None:
    found = _judge(_rows("residual", {8: ((5, 6), (5, 6)), 20: ((0, 3.4), (0, 3.6)), 56: ((0, 2.5), (0, 4.1))}))
    assert found["pays"]["depth"] == 20
    assert "20 layers pay (residual, validation error 3.5 ± 0.1%, n = 2)" in found["sentences"][-1]
    assert "the smallest depth within one standard deviation of the best, 3.3 ± 1.1%" in found["sentences"][-1]


def test_a_rise_within_the_spread_is_no_degradation() -> None:
    found = _judge(_rows("plain", {8: ((0, 1), (4, 1)), 20: ((3, 1), (7, 1))}))
    assert found["plain"] == {"degrades_at": None}
    found = _judge(_rows("plain", {8: ((2.0, 1), (2.0, 1)), 20: ((2.9, 1), (2.9, 1))}))
    assert found["plain"] == {"degrades_at": None}  # less than a point
    found = _judge(_rows("plain", {8: ((20, 1),), 20: ((29, 1),)}))
    assert found["plain"] == {"degrades_at": None}  # one seed: chance has no measure


def test_divergence_is_degradation() -> None:
    found = _judge(_rows("plain", {8: ((0, 1), (0, 1)), 56: (None, None)}))
    assert found["plain"] == {"degrades_at": 56}
    assert found["table"][1]["train_error_mean"] is None
    assert found["table"][1]["diverged"] == 2
    assert found["sentences"][0] == "Plain nets diverge from 56 layers on; training error is 0.0% at 8."
    half = _judge(_rows("plain", {8: ((0, 1), (0, 1)), 56: ((0, 1), None)}))
    assert half["plain"] == {"degrades_at": None}


def test_the_worst_depth_is_named_not_the_deepest() -> None:
    found = _judge(_rows("plain", {8: ((0, 1),), 20: ((30, 1),), 56: ((0, 1),)}))
    wanted = "training error rises from 0.0% at 8 to 30.0% at 20. One seed: a hint, no proof."
    assert found["sentences"][0].endswith(wanted)


def test_nothing_trained() -> None:
    found = _judge(_rows("plain", {8: (None, None)}) + _rows("residual", {8: (None, None)}))
    assert found["pays"] is None
    assert found["sentences"][-1] == "No depth pays on known: every training diverged."


def test_one_seed_has_no_spread() -> None:
    found = _judge(_rows("residual", {8: ((0, 2.0),), 20: ((0, 2.0),)}))
    assert found["pays"] == {"kind": "residual", "depth": 8, "val_error_mean": 2.0, "val_error_sd": None}
    assert found["sentences"][-1].endswith("the best of all, and the shallowest.")


def test_what_found_no_memory_says_nothing_of_depth() -> None:
    rows = _rows("residual", {8: ((0, 2.0), (0, 2.0)), 20: ((0, 1.0), (0, 1.0)), 1202: (None, None)})
    for row in rows[-2:]:
        row["status"] = "out_of_memory"
    found = _judge(rows)
    assert found["residual"] == {"degrades_at": None}
    assert found["depths"] == [8, 20]
    assert found["sentences"][-1] == "Without a result, out of memory: residual 1202 layers."
    assert _judge(rows[-2:])["sentences"][0] == "No depth pays on known: nothing was trained."
