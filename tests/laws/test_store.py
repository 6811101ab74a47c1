"""Law 6: what is saved and loaded computes the same, bit for bit; what is no model is refused in a line."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from deepskip.describe import zoo
from deepskip.describe.preprocessing import Preprocessing
from deepskip.describe.spec import Spec
from deepskip.errors import InputError
from deepskip.nets.builder import build
from deepskip.weights import store
from tests.laws.strategies import scrambled, specs


def _header(spec: Spec) -> store.Header:
    names = tuple(f"class {i}" for i in range(spec.classes))
    grey = spec.input[0] == 1
    preprocessing = Preprocessing(
        size=8,
        resize=8,
        colour="L" if grey else "RGB",
        mean=(0.5,) * spec.input[0],
        std=(0.25,) * spec.input[0],
    )
    return store.Header(spec=spec, classes=names, preprocessing=preprocessing, metrics={"val_error": 1.5})


@settings(max_examples=40)
@given(specs(), st.integers(0, 9))
def test_save_load_is_the_same_network_bit_for_bit(tmp_path_factory, spec: Spec, seed: int) -> None:
    path = tmp_path_factory.mktemp("m") / "model.safetensors"
    net = scrambled(build(spec), seed).eval()
    store.save(path, net.to(memory_format=torch.channels_last), _header(spec))
    loaded, header = store.load(path)
    assert header == _header(spec)
    assert not loaded.training
    x = torch.randn(2, *spec.input)
    assert torch.equal(loaded(x), net.to(memory_format=torch.contiguous_format)(x))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    spec = zoo.get("resnet8_cifar", input=(1, 8, 8))
    store.save(tmp_path / store.FILE, build(spec), _header(spec))
    return tmp_path / store.FILE


def test_a_run_folder_is_its_model(model: Path) -> None:
    assert store.read_header(model.parent) == store.read_header(model)


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("evil_was_here"),)


@pytest.mark.parametrize(
    "kind", ["truncated", "empty", "text", "pickle", "foreign", "version", "tensor", "missing", "nan", "vast"]
)
def test_what_is_no_model_is_refused(model: Path, kind: str) -> None:
    data = model.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    if kind == "truncated":
        model.write_bytes(data[: len(data) // 2])
    elif kind == "empty":
        model.write_bytes(b"")
    elif kind == "text":
        model.write_text("not a model")
    elif kind == "pickle":
        model.write_bytes(pickle.dumps(_Evil()))
    elif kind == "foreign":
        save_file({"w": torch.zeros(2)}, model)
    elif kind == "version":
        own = json.loads(header["__metadata__"]["deepskip"]) | {"format": 99}
        save_file({"w": torch.zeros(2)}, model, metadata={"deepskip": json.dumps(own)})
    elif kind == "tensor":
        save_file({"stem.conv1.weight": torch.zeros(2)}, model, metadata=header["__metadata__"])
    elif kind == "nan":
        model.write_bytes(data[:-400] + b"\xff" * 400)
    elif kind == "vast":  # 65 TB, if it were believed
        text = header["__metadata__"]["deepskip"].replace('"channels":64', '"channels":1000000')
        assert "1000000" in text
        save_file({"w": torch.zeros(2)}, model, metadata={"deepskip": text})
    elif kind == "missing":
        model.unlink()
    with pytest.raises(InputError) as caught:
        store.load(model)
    assert str(model) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path("evil_was_here").exists()


def test_a_failed_save_leaves_the_old_file(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = model.read_bytes()

    def break_off(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(store, "save_file", break_off)
    spec = zoo.get("resnet8_cifar", input=(1, 8, 8))
    with pytest.raises(Exception, match="got no space left on device"):
        store.save(model, build(spec, 1), _header(spec))
    assert model.read_bytes() == before
    assert [p.name for p in model.parent.iterdir()] == [store.FILE]
