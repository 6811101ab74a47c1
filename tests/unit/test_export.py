"""Law 8: what is exported computes the same from its file, says what the model file says, or is not there."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from deepskip.deploy import graph
from deepskip.deploy.export import FORMATS, export, read_metadata
from deepskip.deploy.formats import openvino as ov
from deepskip.deploy.proof import compare, prove, reference
from deepskip.describe import zoo
from deepskip.errors import InputError, WorkError
from deepskip.model import Model
from deepskip.weights.adapters.translate import from_foreign
from tests.unit.deployed import FAMILIES, header, made, needed, pixels

needed("onnx", "onnxruntime", "openvino")

GRAPHS = ("onnx", "openvino", "torch")
SMALL = FAMILIES["post, option A"]


def place(folder: Path, to: str) -> Path:
    return folder / f"net{FORMATS[to].SUFFIX}"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def model() -> Model:
    return made(SMALL)


@pytest.fixture(scope="module")
def torchvision_model() -> Model:
    return made(zoo.get("resnet18", input=(3, 32, 32), classes=5))


@pytest.mark.parametrize("to", GRAPHS)
@pytest.mark.parametrize("scaling", graph.SCALINGS)
def test_a_file_says_what_the_model_says_and_computes_the_same(
    tmp_path: Path, model: Model, to: str, scaling: graph.Scaling
) -> None:
    images = pixels(SMALL, 70)
    done = export(model, to, place(tmp_path, to), images=images, scaling=scaling)
    assert done.agreement.images == 70
    assert done.agreement.other == 0
    assert done.agreement.difference < 1e-5
    assert {path.name for path in done.files} == set(files(tmp_path))
    assert done.size == sum(map(len, files(tmp_path).values()))
    found = read_metadata(place(tmp_path, to))
    assert found == done.metadata
    assert found.header == model.header
    assert found.export.scaling == scaling
    assert (
        found.export.inputs
        == {
            "inside": {"pixels": "[batch, 16, 16, 3]"},
            "outside": {"images": "[batch, 3, 16, 16]"},
        }[scaling]
    )
    with FORMATS[to].Runner(place(tmp_path, to), threads=1) as runner:
        wanted = reference(model, images)
        assert compare(runner(images[:1]), wanted[:1]).difference < 1e-5
        assert compare(runner(images), wanted).difference < 1e-5
    assert all(
        b"site-packages" not in content and b"deepskip/deploy" not in content
        for content in files(tmp_path).values()
    )


def test_torchvisions_names_hold_the_same_net(tmp_path: Path, torchvision_model: Model) -> None:
    spec = torchvision_model.net.spec
    done = export(torchvision_model, "torchvision", place(tmp_path, "torchvision"), images=pixels(spec, 9))
    tensors = load_file(done.files[0])
    assert {"conv1.weight", "bn1.running_var", "layer2.0.downsample.1.bias", "fc.weight"} <= set(tensors)
    state = from_foreign(spec, tensors, "torchvision")
    assert all(torch.equal(state[name], t) for name, t in torchvision_model.net.state_dict().items())
    assert read_metadata(done.files[0]).header == torchvision_model.header


def test_torchvision_has_no_such_net(tmp_path: Path, model: Model) -> None:
    with pytest.raises(InputError, match="in torchvision"):
        export(model, "torchvision", place(tmp_path, "torchvision"), images=pixels(SMALL, 3))
    assert files(tmp_path) == {}


@pytest.mark.parametrize("to", GRAPHS)
def test_the_same_model_gives_the_same_file(tmp_path: Path, model: Model, to: str) -> None:
    images = pixels(SMALL, 2)
    first = export(model, to, place(tmp_path / "a", to), images=images)
    second = export(model, to, place(tmp_path / "b", to), images=images)
    assert [f.read_bytes() for f in first.files] == [f.read_bytes() for f in second.files]


# --- a broken export ------------------------------------------------------------------------------------------


def broken_tail(model: Model) -> Model:
    """Return the model with the smallest change of one number: what a wrong exporter would write."""
    net = made(model.net.spec).net
    net.load_state_dict(model.net.state_dict())
    with torch.no_grad():
        net.head.linear.weight[0] += 1.0
    return Model(net, model.header)


@pytest.mark.parametrize("to", [*GRAPHS, "torchvision"])
@pytest.mark.parametrize("held", [False, True])
def test_a_broken_export_leaves_nothing_behind(
    tmp_path: Path, model: Model, torchvision_model: Model, monkeypatch: pytest.MonkeyPatch, to: str, held: bool
) -> None:
    given = torchvision_model if to == "torchvision" else model
    images = pixels(given.net.spec, 40)
    path = place(tmp_path, to)
    if held:
        export(given, to, path, images=images)
    before = files(tmp_path)
    write = FORMATS[to].write
    monkeypatch.setattr(FORMATS[to], "write", lambda path, model, *rest: write(path, broken_tail(model), *rest))
    with pytest.raises(WorkError, match="nothing was written") as caught:
        export(given, to, path, images=images)
    assert str(path) in str(caught.value)
    assert files(tmp_path) == before
    assert list(tmp_path.iterdir()) == [path for path in tmp_path.iterdir() if path.name in before]


@pytest.mark.parametrize("state", ["training", "float64"])
def test_the_net_may_be_in_any_state(tmp_path: Path, state: str) -> None:
    given = made(SMALL)
    given.net.train() if state == "training" else given.net.double()
    done = export(given, "onnx", place(tmp_path, "onnx"), images=pixels(SMALL, 20))
    assert done.agreement.difference < 1e-5
    assert given.net.training == (state == "training")


def test_a_net_that_is_not_its_specs_any_more_is_refused(tmp_path: Path) -> None:
    given = made(SMALL)
    given.net.stages["s2"]["b1"].after.relu = torch.nn.GELU()
    with pytest.raises(WorkError, match="nothing was written"):
        export(given, "onnx", place(tmp_path, "onnx"), images=pixels(SMALL, 20))
    assert files(tmp_path) == {}


def test_a_net_that_gives_no_numbers_is_refused(tmp_path: Path) -> None:
    given = made(SMALL)
    with torch.no_grad():
        given.net.head.linear.bias[0] = torch.inf
    with pytest.raises(WorkError, match="outputs that are not finite"):
        export(given, "onnx", place(tmp_path, "onnx"), images=pixels(SMALL, 3))
    assert files(tmp_path) == {}


@pytest.mark.parametrize(
    ("images", "wanted"),
    [
        (
            pixels(zoo.cifar(8, input=(1, 16, 16)), 2),
            r"images: got \[2, 16, 16, 1\]; allowed: \[n, 16, 16, 3\]",
        ),
        (pixels(zoo.cifar(8, input=(3, 8, 8)), 2), r"images: got \[2, 8, 8, 3\]"),
        (pixels(SMALL, 2)[0], r"images: got \[16, 16, 3\]"),
        (pixels(SMALL, 2)[:0], r"images: got \[0, 16, 16, 3\]"),
        (pixels(SMALL, 2).astype(np.float32), "images: got float32; allowed: uint8"),
    ],
)
def test_images_that_do_not_fit_are_refused(tmp_path: Path, model: Model, images: Any, wanted: str) -> None:
    with pytest.raises(InputError, match=wanted):
        export(model, "onnx", place(tmp_path, "onnx"), images=images)


def test_a_preprocessing_of_another_size_than_the_specs_is_what_is_exported(tmp_path: Path) -> None:
    given = made(SMALL)
    other = Model(given.net, header(SMALL).replace(preprocessing=header(SMALL).preprocessing.replace(size=12)))
    done = export(other, "onnx", place(tmp_path, "onnx"), images=pixels(zoo.cifar(8, input=(3, 12, 12)), 9))
    assert done.metadata.export.inputs == {"pixels": "[batch, 12, 12, 3]"}


@pytest.mark.parametrize(
    ("to", "name", "wanted"),
    [
        ("onyx", "a.onnx", "--to: got 'onyx'; allowed: onnx, openvino, torch, torchvision; nearest: onnx"),
        (
            "onnx",
            "a.xml",
            "--out: got .*a.xml; allowed: a name that ends in .onnx, for onnx; nearest: .*a.onnx",
        ),
        ("openvino", "a", "a name that ends in .xml"),
    ],
)
def test_wrong_kinds_and_names_are_refused(
    tmp_path: Path, model: Model, to: str, name: str, wanted: str
) -> None:
    with pytest.raises(InputError, match=wanted):
        export(model, to, tmp_path / name, images=pixels(SMALL, 2))


# --- the proof itself -----------------------------------------------------------------------------------------


@dataclasses.dataclass
class Fixed:
    """A runner that knows its answers."""

    logits: np.ndarray
    alone: np.ndarray | None = None
    name: str = "fixed"
    threads: int = 1

    def __call__(self, given: np.ndarray) -> np.ndarray:
        return (
            self.logits[:1]
            if len(given) == 1 and self.alone is None
            else self.logits
            if len(given) > 1
            else self.alone
        )

    def close(self) -> None:
        pass


WANTED = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, 2.9999]], np.float32)
SHOWN = np.zeros((2, 4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ([[0, 1.9e-4, 0], [0, 0, 0]], None),  # of the largest, 2
        ([[0, 2.1e-4, 0], [0, 0, 0]], "logits that differ by 1.1e-04"),
        ([[0, 0, 0], [0, 0, 2e-4]], "another most probable class for 1 of 2 pictures"),
        ([[np.nan, 0, 0], [0, 0, 0]], "."),
        ([[np.inf, 0, 0], [0, 0, 0]], "logits that differ by inf"),
    ],
)
def test_what_the_proof_lets_pass(change: list[list[float]], wanted: str | None) -> None:
    runner = Fixed(WANTED + np.array(change, np.float32))
    if wanted is None:
        assert prove("here", runner, SHOWN, WANTED).difference == pytest.approx(9.5e-5, rel=1e-3)
        return
    with pytest.raises(WorkError, match=f"here: got {wanted}"):
        prove("here", runner, SHOWN, WANTED)


def test_a_picture_alone_and_the_number_of_classes_are_part_of_the_proof() -> None:
    with pytest.raises(WorkError, match="logits that differ"):
        prove("here", Fixed(WANTED, alone=WANTED[:1] * 1.01), SHOWN, WANTED)
    with pytest.raises(WorkError, match=r"logits \[2, 2\]; allowed: \[2, 3\]"):
        prove("here", Fixed(WANTED[:, :2]), SHOWN, WANTED)


def test_openvinos_answers_by_one_thread_are_part_of_the_proof(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes other kernels then, and of a net with tensors of one channel they have been wrong."""
    needed("openvino")
    asked: list[int | None] = []

    class Runner(ov.Runner):
        def __call__(self, given: np.ndarray) -> np.ndarray:
            asked.append(self.threads)
            return super().__call__(given) + (0.3 if self.threads == 1 else 0)

    monkeypatch.setattr(ov, "Runner", Runner)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with pytest.raises(WorkError, match=r"model\.xml, one thread: got (logits that differ|another)"):
        export(model, "openvino", tmp_path / "model.xml", images=pixels(model.net.spec, 3))
    assert not list(tmp_path.iterdir())
    assert set(asked) == {2, 1}


def test_logits_of_zero_have_no_relative_difference() -> None:
    zero = np.zeros((2, 3), np.float32)
    assert compare(zero, zero).difference == 0
    assert compare(zero + 1e-9, zero).difference == np.inf


# --- files ----------------------------------------------------------------------------------------------------


def test_both_of_openvinos_files_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.xml"

    def write(xml: str, weights: str) -> None:
        with ov.replacing_pair(path) as beside:
            beside.write_text(xml)
            beside.with_suffix(".bin").write_text(weights)

    replace, calls = Path.replace, []

    def failing(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == fails_at:
            raise OSError(28, "no space left on device")
        return replace(self, target)

    for moves, before in ((2, {}), (4, {"net.xml": b"one", "net.bin": b"1"})):
        for fails_at in range(1, moves + 1):
            calls.clear()
            with monkeypatch.context() as patched:
                patched.setattr(Path, "replace", failing)
                with pytest.raises(WorkError, match="no space left on device"):
                    write("two", "2")
            assert files(tmp_path) == before, fails_at
            assert len(list(tmp_path.iterdir())) == len(before)
        write("one", "1")
    write("two", "2")
    assert files(tmp_path) == {"net.xml": b"two", "net.bin": b"2"}


@pytest.mark.parametrize("name", ["a.onnx", "a.xml", "a.pt2", "a.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x00\x01junk", b"<net/>", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_export_is_said_in_a_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="got (no readable|a file without deepskip metadata)") as caught:
        read_metadata(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_metadata_of_no_file() -> None:
    with pytest.raises(InputError, match="no such file"):
        read_metadata("nowhere.onnx")
    with pytest.raises(
        InputError, match="a file that ends in '.jpg'; allowed: .onnx, .xml, .pt2, .safetensors"
    ):
        read_metadata("a.jpg")


def test_a_model_file_is_no_export(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", metadata={"deepskip": "{}"})
    with pytest.raises(InputError, match="a file without deepskip_export metadata"):
        read_metadata(tmp_path / "a.safetensors")


def test_the_reference_is_the_net_in_evaluation(model: Model) -> None:
    images = pixels(SMALL, 5)
    wanted = reference(model, images)
    model.net.train()
    assert np.array_equal(reference(model, images), wanted)
    assert model.net.training
    model.net.eval()
