"""States in few pieces come back as they were; what is no state is refused."""

from __future__ import annotations

import json
import math

import pytest
import torch

from deepskip.errors import InputError
from deepskip.training import packing
from deepskip.training.packing import pack, unpack


@pytest.mark.parametrize("at_once", [1, 100, packing.AT_ONCE])
def test_everything_comes_back(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(packing, "AT_ONCE", at_once)
    kernel = torch.randn(4, 3, 3, 3)
    state = {
        "net": {
            "one": kernel,
            "two": kernel.to(memory_format=torch.channels_last),
            "count": torch.tensor(7),
            "half": torch.randn(3).bfloat16(),
            "none": torch.empty(0, 3),
            "sliced": torch.randn(6, 4)[::2, 1:],
            "flag": torch.tensor([True, False]),
        },
        "optimiser": {
            "state": {0: {"momentum": kernel * 2}, 7: {}},
            "groups": [{"lr": 0.1, "betas": (0.9, 1e-300)}],
        },
        "list": ["tensor", "float32", 0, [1], [1]],  # which is what a tensor is written as
        "rows": [{"loss": math.inf, "error": None, "ok": True}],
    }
    packed = pack(state)
    assert set(packed) == {"tree", "float32", "int64", "bfloat16", "bool"}
    found = unpack(packed)
    assert found["optimiser"]["state"].keys() == {0, 7}
    assert found["optimiser"]["groups"] == state["optimiser"]["groups"]
    assert found["list"] == state["list"]
    assert found["rows"] == state["rows"]
    for name, tensor in state["net"].items():
        assert found["net"][name].dtype == tensor.dtype
        assert torch.equal(found["net"][name], tensor)
    assert found["net"]["two"].stride() == state["net"]["two"].stride()
    assert torch.equal(found["optimiser"]["state"][0]["momentum"], kernel * 2)


def test_what_comes_back_is_its_own() -> None:
    value = torch.ones(3)
    found = unpack(pack({"a": value, "b": value}))
    found["a"].add_(1)
    assert found["b"].tolist() == value.tolist() == [1, 1, 1]
    assert found["a"].untyped_storage().nbytes() == 12


@pytest.mark.parametrize(
    "packed",
    [
        {},
        {"tree": "half a li"},
        {"tree": json.dumps(["tensor", "float32", 0, [9], [1]]), "float32": torch.zeros(3)},
        {"tree": json.dumps(["tensor", "float32", -1, [1], [1]]), "float32": torch.zeros(3)},
        {"tree": json.dumps(["tensor", "float64", 0, [1], [1]]), "float32": torch.zeros(3)},
        {"tree": json.dumps(["dict", 5])},
        {"tree": "[]"},
        {"tree": "5"},
        {"net": {"weight": torch.zeros(3)}, "optimiser": {}},  # as PyTorch writes it
    ],
)
def test_what_is_no_state_is_refused(packed: dict[str, object]) -> None:
    with pytest.raises(InputError, match="state: got no packed one"):
        unpack(packed)
