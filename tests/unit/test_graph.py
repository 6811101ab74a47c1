"""The exported graph computes what the net does: every family, any batch, whatever state the net is in."""

from __future__ import annotations

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given as drawing
from hypothesis import settings
from hypothesis import strategies as st

from deepskip.data.batches import normalise
from deepskip.deploy import graph
from deepskip.deploy.lowering import BINARY, UNARY, Graph, Value, one, two
from deepskip.describe.spec import Spec
from deepskip.errors import InputError
from deepskip.extras import need, openvino_core
from deepskip.model import Model
from deepskip.nets import parts
from tests.laws.strategies import specs
from tests.unit.deployed import FAMILIES, made, needed, pixels

needed("onnx", "onnxruntime", "openvino")
onnx = need("onnx", "this test")


def eager(model: Model, given: np.ndarray, dtype: torch.dtype = torch.float32) -> np.ndarray:
    """Return the logits that the net itself computes in evaluation."""
    net = copy.deepcopy(model.net).to("cpu", dtype).eval()
    with torch.no_grad():
        images = torch.from_numpy(given).permute(0, 3, 1, 2).contiguous()
        return net(normalise(images, model.preprocessing, dtype)).numpy()


def differs(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max() / np.abs(other).max())


def by_onnx(content: bytes, given: np.ndarray) -> np.ndarray:
    session = need("onnxruntime", "this test").InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: given})[0]


def by_openvino(converted: object, given: np.ndarray) -> np.ndarray:
    return openvino_core().compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(given)[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_computes_the_same_elsewhere(family: str) -> None:
    model = made(FAMILIES[family])
    content = graph.onnx_bytes(model)
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    converted = graph.openvino_of(content)
    for n in (1, 5):
        given = pixels(model.net.spec, n)
        wanted = eager(model, given)
        for found in (by_onnx(content, given), by_openvino(converted, given)):
            assert found.shape == wanted.shape
            assert differs(found, wanted) < 1e-5
            assert (found.argmax(1) == wanted.argmax(1)).all()


@settings(max_examples=40)
@drawing(specs(coupled=True), st.sampled_from((2, 3, 8)))
def test_any_net_does(spec: Spec, side: int) -> None:
    model = made(spec.replace(input=(spec.input[0], side, side)))
    content = graph.onnx_bytes(model)
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    given = pixels(model.net.spec, 3)
    wanted = eager(model, given)
    for found in (by_onnx(content, given), by_openvino(graph.openvino_of(content), given)):
        assert np.abs(found - wanted).max() <= 1e-4 * max(np.abs(wanted).max(), 1)


def test_a_part_that_is_not_known_is_refused() -> None:
    x = Value("x", 3, 8)
    with pytest.raises(InputError, match="stem.relu1: got a GELU"):
        one(Graph(), "stem.relu1", torch.nn.GELU(), x)
    with pytest.raises(InputError, match="junction: got a ReLU"):
        two(Graph(), "junction", torch.nn.ReLU(), x, x)
    known = {*UNARY, *BINARY}
    own = [
        part for part in vars(parts).values() if isinstance(part, type) and part.__module__ == parts.__name__
    ]
    assert set(own) <= known


def test_nodes_are_called_as_parts_and_nothing_of_this_machine_is_told() -> None:
    model = made(FAMILIES["post, option A"])
    proto = graph.onnx_model(model)
    names = [node.name for node in proto.graph.node]
    assert len(set(names)) == len(names)
    parts = {*dict(model.net.named_modules()), "input"}
    assert {"stem.conv1", "stages.s1.b1.junction", "stages.s2.b1.shortcut", "head.linear"} <= set(names)
    assert all(
        name in parts or name.rpartition(".")[0] in {*parts, "input"} or name == "input" for name in names
    )
    assert not any(node.op_type == "BatchNormalization" for node in proto.graph.node)
    assert b"/" not in b"".join(name.encode() for name in names)
    assert b".py" not in graph.onnx_bytes(model)
    assert graph.onnx_bytes(model) == graph.onnx_bytes(model)


def test_scaling_can_be_left_outside() -> None:
    model = made(FAMILIES["post, option A"])
    given = pixels(model.net.spec, 3)
    images = normalise(torch.from_numpy(given).permute(0, 3, 1, 2).contiguous(), model.preprocessing).numpy()
    content = graph.onnx_bytes(model, "outside")
    assert differs(by_onnx(content, images), eager(model, given)) < 1e-5
    assert onnx.load_from_string(content).graph.input[0].name == "images"
    with pytest.raises(InputError, match="scaling: got 'insid'; allowed: inside, outside; nearest: inside"):
        graph.onnx_bytes(model, "insid")  # type: ignore[arg-type]


@pytest.mark.parametrize("state", ["training", "float64", "bfloat16", "channels last", "frozen"])
def test_whatever_state_the_net_is_in(state: str) -> None:
    model = made(FAMILIES["pre"])
    net = {
        "training": lambda net: net.train(),
        "float64": lambda net: net.double(),
        "bfloat16": lambda net: net.bfloat16(),
        "channels last": lambda net: net.to(memory_format=torch.channels_last),
        "frozen": lambda net: net.requires_grad_(False),
    }[state](model.net)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    given = pixels(net.spec, 3)
    found = graph.prepared(net)
    images = normalise(torch.from_numpy(given).permute(0, 3, 1, 2), model.preprocessing)
    with torch.no_grad():
        assert differs(found(images).numpy(), eager(Model(net, model.header), given)) < 1e-5
    assert {p.dtype for p in found.parameters()} == {torch.float32}
    assert net.training == (state == "training")
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_net_on_a_gpu() -> None:
    model = made(FAMILIES["post, option A"])
    given = pixels(model.net.spec, 3)
    wanted = eager(model, given)
    there = Model(model.net.cuda(), model.header)
    assert differs(by_onnx(graph.onnx_bytes(there), given), wanted) < 1e-4
    assert next(there.net.parameters()).is_cuda


def test_without_the_packages_one_line_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['onnx'] = None\n"
        "from deepskip.extras import has, need\n"
        "assert not has('onnx')\n"
        "need('onnx', '--to onnx')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip().endswith(
        'InputError: --to onnx: got no package onnx; allowed: pip install "deepskip[export]"'
    )


def test_no_package_speaks_to_the_network() -> None:
    code = (
        "import socket\n"
        "def no(*_, **__): raise SystemExit('the network was asked for')\n"
        "socket.socket.connect = socket.getaddrinfo = no\n"
        "from deepskip.extras import need\n"
        "for name in ('openvino', 'nncf', 'onnxruntime'): need(name, 'this')\n"
        "import sys, threading; assert threading.active_count() == 1, threading.enumerate()\n"
        "assert sys.modules['openvino_telemetry'] is None"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_these_tests_do_not_either() -> None:
    """Where one imports OpenVINO past `need`, it tells of every conversion."""
    assert sys.modules["openvino_telemetry"] is None
