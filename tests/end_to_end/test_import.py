"""`deepskip import` and `ds.load` of addresses: whole runs, hostile input, a hub on this machine only."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor

import deepskip as ds
from deepskip.hub import published
from deepskip.hub.architectures import ResNetConfig
from deepskip.hub.download import models_folder
from deepskip.weights.adapters import from_foreign, shapes
from deepskip.weights.store import read_header
from tests.end_to_end.command import Command
from tests.end_to_end.hub import Hub
from tests.golden.values import filled, images

SHARED = Path(__file__).parents[2] / ".." / "shared" / "weights"


def theirs(spec: ds.Spec, source: str) -> dict[str, Tensor]:
    found = filled(shapes(spec, source))
    return {key: t.float() if t.is_floating_point() else t for key, t in found.items()}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., Path]:
    def make(net: str = "resnet8_cifar", source: str = "cifar", classes: int | None = None) -> Path:
        path = tmp_path / f"{net}.pth"
        tensors = theirs(ds.zoo.get(net, classes=classes), source)
        torch.save({"state_dict": {f"module.{key}": tensor for key, tensor in tensors.items()}}, path)
        return path

    return make


def picture(path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (48, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_a_cifar_checkpoint_becomes_a_model(deepskip: Command, checkpoint: Callable[..., Path]) -> None:
    file = checkpoint()
    said = deepskip("import", file, "--net", "resnet_cifar", "--depth", 8, "--json")
    assert said.code == 0
    assert said.json["source"] == "cifar"
    assert said.json["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    header = read_header("model.safetensors")
    assert header.classes[:2] == ("airplane", "automobile")
    assert (header.preprocessing.size, header.preprocessing.resize) == (32, 32)
    assert header.preprocessing.mean == (0.485, 0.456, 0.406)
    assert header.spec.input == (3, 32, 32)
    predicted = deepskip("predict", "model.safetensors", picture(Path("a.png")), "--json").json
    assert predicted[0]["class"] in header.classes


def test_an_imagenet_checkpoint_gets_its_names(deepskip: Command, checkpoint: Callable[..., Path]) -> None:
    file = checkpoint("resnet18", "torchvision")
    said = deepskip("import", file, "--net", "resnet18", "--out", "r18.safetensors")
    assert said.code == 0, said.err
    assert "11.7M parameters from torchvision" in said.out
    header = read_header("r18.safetensors")
    assert len(set(header.classes)) == 1000
    assert (header.classes[0], header.classes[1], header.classes[-1]) == ("tench", "goldfish", "toilet tissue")
    assert (header.preprocessing.size, header.preprocessing.resize) == (224, 256)
    assert header.preprocessing.interpolation == "bilinear"
    model = ds.load("r18.safetensors")
    with torch.no_grad():
        x = images(1, 3, 64).float()
        net = ds.build(model.net.spec).eval()
        net.load_state_dict(from_foreign(model.net.spec, theirs(model.net.spec, "torchvision")))
        assert (model.net(x) - net(x)).abs().max() <= 1e-5 * net(x).abs().max()


def test_preprocessing_and_classes_are_options(deepskip: Command, checkpoint: Callable[..., Path]) -> None:
    file = checkpoint(classes=3)
    Path("names.txt").write_text("cat\ndog\ncow\n\n")
    options = ("--size", 40, "--resize", 44, "--interpolation", "bicubic", "--classes-from", "names.txt")
    assert deepskip("import", file, "--net", "resnet8_cifar", *options).code == 0
    header = read_header("model.safetensors")
    assert header.classes == ("cat", "dog", "cow")
    assert header.spec.input == (3, 40, 40)
    prepared = header.preprocessing
    assert (prepared.size, prepared.resize, prepared.interpolation) == (40, 44, "bicubic")
    assert deepskip("import", file, "--net", "resnet8_cifar", "--out", "b.safetensors").code == 0
    assert read_header("b.safetensors").classes == ("class 0", "class 1", "class 2")


def test_another_number_of_classes_is_said(deepskip: Command, checkpoint: Callable[..., Path]) -> None:
    file = checkpoint(classes=1000)
    Path("names.txt").write_text("\n".join("0123456789"))
    said = deepskip("import", file, "--net", "resnet8_cifar", "--classes-from", "names.txt")
    assert said.code == 0
    assert said.err == (
        "warning: the file's head has 1000 classes: the new head for 10 classes is untrained (seed 0)\n"
    )
    assert len(read_header("model.safetensors").classes) == 10


def test_nothing_is_overwritten_unasked(deepskip: Command, checkpoint: Callable[..., Path]) -> None:
    file = checkpoint()
    Path("model.safetensors").write_text("precious")
    said = deepskip("import", file, "--net", "resnet8_cifar")
    assert said.code == 2
    assert "a file that is there already; allowed: a new file, or --force" in said.error
    assert deepskip("import", "nowhere.pth", "--net", "resnet8_cifar", "--force").code == 2
    assert Path("model.safetensors").read_text() == "precious"
    assert deepskip("import", file, "--net", "resnet8_cifar", "--force").code == 0
    assert ds.load("model.safetensors").net.spec.layers == 8


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("pwned"),)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (pickle.dumps({"state_dict": Evil()}), "nothing in it was run"),
        (b"PK\x03\x04 cut short", "a damaged or truncated file"),
        ((99).to_bytes(8, "little") + b"{}", "no readable safetensors file"),
        (b"hello", "neither PyTorch's format nor safetensors"),
    ],
)
def test_hostile_files(deepskip: Command, content: bytes, says: str) -> None:
    Path("file.pth").write_bytes(content)
    said = deepskip("import", "file.pth", "--net", "resnet18")
    assert said.code == 2
    assert says in said.error
    assert not Path("pwned").exists()
    assert not Path("model.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--net", "resnet14_cifar"), "nearest: resnet8_cifar"),
        (("--net", "resnet18"), "nearest: resnet8_cifar"),
        (("--net", "plain8_cifar"), "shortcut: got none; allowed: A, B"),
        (("--net", "rsnet8_cifar"), "nearest: resnet8_cifar"),
        (("--net", "resnet8_cifar", "--from", "timmm"), "--from: got 'timmm'; allowed: torchvision, timm"),
        (("--net", "resnet8_cifar", "--from", "transformers"), "in transformers; nearest: "),
        (("--net", "resnet8_cifar", "--size", 0), "Preprocessing.size: got 0"),
        (("--net", "resnet8_cifar", "--resize", 20), "resize: got 20; allowed: at least size = 32"),
        (("--net", "resnet8_cifar", "--interpolation", "nearest"), "interpolation: got 'nearest'"),
        (("--net", "resnet8_cifar", "--classes-from", "no.txt"), "no.txt: got no such file or directory"),
        (("--net", "resnet8_cifar", "--out", "."), "--out: got ., a folder"),
    ],
)
def test_wrong_options(
    deepskip: Command, checkpoint: Callable[..., Path], options: tuple[object, ...], says: str
) -> None:
    said = deepskip("import", checkpoint(), *options)
    assert said.code == 2
    assert says in said.error
    assert not Path("model.safetensors").exists()


def _with(name: str, change: Callable[[Tensor], object]) -> dict[str, object]:
    tensors: dict[str, object] = dict(theirs(ds.zoo.get("resnet8_cifar"), "cifar"))
    tensors[name] = change(tensors[name])  # type: ignore[arg-type]
    return tensors


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("conv1.weight", lambda t: t.to_sparse(), "conv1.weight: got a sparse tensor; allowed: dense"),
        ("conv1.weight", lambda t: t.to("meta"), "conv1.weight: got a meta (without values) tensor"),
        ("conv1.weight", lambda t: t.to(torch.complex64), "conv1.weight: got a complex tensor"),
        (
            "conv1.weight",
            lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
            "conv1.weight: got a quantised tensor",
        ),
        (
            "conv1.weight",
            lambda t: torch.nested.nested_tensor([t[0], t[1]]),
            "conv1.weight: got a nested tensor; allowed: dense",
        ),
        (
            "conv1.weight",
            lambda t: t[:1, :1, :1, :1].clone().expand(10**6, 10**6, 3, 3),
            "conv1.weight: got a tensor of 36,000,000,000,000 bytes on 4 (expanded)",
        ),
        ("linear.weight", lambda t: t.sum(), "linear.weight: got []; allowed: [10, 64]"),
        ("linear.weight", lambda t: t[:0], "linear.weight: got [0, 64]; allowed: [10, 64]"),
        ("linear.bias", lambda t: t[:3], "linear.bias: got [3]; allowed: [10]"),
        ("conv1.weight", lambda t: t.long(), "conv1.weight: got a tensor of int64; allowed: floating-point"),
        ("bn1.running_var", lambda t: -t, "bn1.running_var: got a variance below 0"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*quantize_per_tensor.*", "ignore:.*[Qq]uant.*", "ignore:.*nested.*")
def test_tensors_that_are_no_weights(
    deepskip: Command, name: str, change: Callable[[Tensor], object], says: str
) -> None:
    torch.save(_with(name, change), "odd.pth")
    said = deepskip("import", "odd.pth", "--net", "resnet8_cifar")
    assert said.code == 2
    assert says in said.error
    assert not Path("model.safetensors").exists()


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2"])
def test_eight_bits_are_read(deepskip: Command, kind: str) -> None:
    tensors = {
        k: t.to(getattr(torch, kind)) if t.ndim > 1 else t for k, t in _with("bn1.bias", lambda t: t).items()
    }
    torch.save(tensors, "small.pth")
    said = deepskip("import", "small.pth", "--net", "resnet8_cifar")
    assert said.code == 0, said.err
    assert said.err == f"warning: stored as {kind}, held as float32\n"
    held = ds.load("model.safetensors").net.get_parameter("stem.conv1.weight")
    assert torch.equal(held.data, tensors["conv1.weight"].float())


@pytest.mark.parametrize("gone", ["linear.weight", "linear.bias"])
@pytest.mark.parametrize("named", [(), ("--classes-from", "names.txt")])
def test_half_a_head_is_refused(deepskip: Command, gone: str, named: tuple[str, ...]) -> None:
    Path("names.txt").write_text("cat\ndog\n")
    tensors = _with(gone, lambda t: t)
    del tensors[gone]
    torch.save(tensors, "half.pth")
    said = deepskip("import", "half.pth", "--net", "resnet8_cifar", *named)
    assert (said.code, f"{gone}: got no such tensor" in said.error) == (2, True), said.err


def test_a_new_head_knows_no_names(deepskip: Command) -> None:
    tensors = {key: t for key, t in theirs(ds.zoo.get("resnet18"), "torchvision").items() if key[:2] != "fc"}
    torch.save(tensors, "body.pth")
    said = deepskip("import", "body.pth", "--net", "resnet18")
    assert (said.code, "the file has no head" in said.err) == (0, True), said.err
    assert read_header("model.safetensors").classes[::999] == ("class 0", "class 999")


def test_control_characters_are_escaped(deepskip: Command) -> None:
    tensors = _with("bn1.bias", lambda t: t)
    torch.save({**tensors, "x\x1b[31mred\u202e": torch.zeros(2)}, "red.pth")
    said = deepskip("import", "red.pth", "--net", "resnet8_cifar")
    assert said.code == 2
    assert "x\\x1b[31mred\\u202e: got [2]; allowed: no such tensor" in said.error
    assert "\x1b" not in said.err


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_archive_is_called_one(deepskip: Command) -> None:
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save("script.pt")
    said = deepskip("import", "script.pt", "--net", "resnet8_cifar")
    assert (said.code, "got a TorchScript archive" in said.error) == (2, True), said.err


def test_a_grey_file_is_a_grey_net(deepskip: Command) -> None:
    torch.save(theirs(ds.zoo.get("resnet8_cifar", input=(1, 32, 32)), "cifar"), "grey.pth")
    said = deepskip("import", "grey.pth", "--net", "resnet8_cifar")
    assert said.code == 0, said.err
    header = read_header("model.safetensors")
    assert (header.spec.input, header.preprocessing.colour) == ((1, 32, 32), "L")
    torch.save(theirs(ds.zoo.get("resnet8_cifar", input=(5, 32, 32)), "cifar"), "five.pth")
    said = deepskip("import", "five.pth", "--net", "resnet8_cifar", "--force")
    assert (said.code, "got a net of 5 input channels; allowed: 1 (grey) or 3" in said.error) == (2, True), (
        said.err
    )


def test_antialiased_nets_are_refused_by_name_and_else_said(
    deepskip: Command, checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = checkpoint("resnet18", "torchvision")
    for name in ("seresnetaa50d_ra2-0b1a.pth", "resnetaa101d.bin", "ResNetBlur50.pth"):
        file = file.rename(name)
        said = deepskip("import", file, "--net", "resnet18")
        assert (said.code, "anti-aliased" in said.error) == (2, True), name
    file = file.rename("resnet18-0aa50123.pth")  # a hash, as torchvision's names have
    assert "resnetaa50" in deepskip("import", file, "--net", "resnet18").err
    digits = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    monkeypatch.setattr(published, "PUBLISHED", (published.Weights("resnet18", "v1", digits, 256),))
    assert deepskip("import", file, "--net", "resnet18", "--force").err == ""
    assert "resnetaa50" not in deepskip("import", checkpoint(), "--net", "resnet8_cifar", "--force").err


def test_a_dictionary_that_holds_itself(deepskip: Command) -> None:
    endless: dict[str, object] = {}
    endless["state_dict"] = endless
    torch.save(endless, "endless.pth")
    said = deepskip("import", "endless.pth", "--net", "resnet8_cifar")
    assert (said.code, "a file without named tensors" in said.error) == (2, True)


def test_a_wrong_source_names_the_right_one(deepskip: Command, checkpoint: Callable[..., Path]) -> None:
    said = deepskip("import", checkpoint(), "--net", "resnet8_cifar", "--from", "torchvision")
    assert said.error.endswith("nearest: --from cifar")


def test_a_library_s_own_name_means_its_own_net(deepskip: Command) -> None:
    """The zoo's resnet26 has basic blocks; timm's, and so this file, bottlenecks."""
    torch.save(theirs(ds.zoo.imagenet(26, block="bottleneck"), "timm"), "resnet26.pth")
    said = deepskip("import", "resnet26.pth", "--net", "resnet26", "--json")
    assert (said.code, said.json["name"]) == (0, "resnet26_bottleneck"), said.err


def test_outputs_that_are_not_finite_are_said(deepskip: Command, checkpoint: Callable[..., Path]) -> None:
    deepskip("import", checkpoint(), "--net", "resnet8_cifar")
    model = ds.load("model.safetensors")
    model.net.get_parameter("head.linear.weight").data.mul_(1e38).mul_(1e3)
    model.net.get_parameter("head.linear.weight").data.nan_to_num_(posinf=3e38, neginf=-3e38)
    ds.weights.store.save(Path("large.safetensors"), model.net, model.header)
    for label in model.classes[:2]:
        Path("photos", label).mkdir(parents=True)
        for i in range(3):
            picture(Path("photos", label, f"{i}.png"))
    said = deepskip("evaluate", "large.safetensors", "photos")
    assert (said.code, "outputs that are not finite" in said.error) == (1, True)


def test_class_names_must_differ(deepskip: Command, checkpoint: Callable[..., Path]) -> None:
    for text, says in (("a\na\n", "'a' twice"), ("a\n\nb\n", "an empty line"), ("", "no names")):
        Path("names.txt").write_text(text)
        said = deepskip("import", checkpoint(), "--net", "resnet8_cifar", "--classes-from", "names.txt")
        assert says in said.error


# Addresses --------------------------------------------------------------------------------------------------


TIMM_CONFIG = {
    "architecture": "resnet18",
    "num_classes": 1000,
    "pretrained_cfg": {
        "input_size": [3, 64, 64],
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "crop_mode": "center",
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.2, 0.1],
        "tag": "a1_in1k",
    },
}


def test_a_network_of_timms_from_the_hub(hub: Hub, deepskip: Command) -> None:
    tensors = theirs(ds.zoo.get("resnet18", classes=5), "timm")
    config = {**TIMM_CONFIG, "label_names": ["n1", "n2", "n3", "n4", "n5"], "label_descriptions": {"n1": "one"}}
    hub.repository("timm/small.a1", config=config, model=save(tensors))
    model = ds.load("hf://timm/small.a1")
    assert model.classes == ("one", "n2", "n3", "n4", "n5")
    assert model.net.spec.input == (3, 64, 64)
    prepared = model.preprocessing
    assert (prepared.size, prepared.resize, prepared.interpolation) == (64, 67, "bicubic")
    assert prepared.mean == (0.5, 0.4, 0.3)
    assert model.header.provenance["file"] == "hf://timm/small.a1"
    asked = len(hub.requests)
    said = deepskip("predict", "hf://timm/small.a1", picture(Path("a.png")), "--json")
    assert said.json[0]["class"] in model.classes
    assert len(hub.requests) == asked  # from the cache


def test_a_repository_that_contradicts_itself_is_refused(hub: Hub) -> None:
    tensors = theirs(ds.zoo.get("resnet18", classes=5), "timm")
    config = {**TIMM_CONFIG, "label_names": ["n1", "n2", "n3"]}
    hub.repository("timm/small.a1", config=config, model=save(tensors))
    with pytest.raises(
        ds.InputError, match="hf://timm/small.a1: config.json: got 3 labels; allowed: 5, as the head"
    ):
        ds.load("hf://timm/small.a1")


def test_a_network_of_transformers_from_the_hub(hub: Hub) -> None:
    config = {
        "model_type": "resnet",
        "depths": [1, 1],
        "hidden_sizes": [16, 32],
        "embedding_size": 8,
        "id2label": {"1": "dog", "0": "cat"},
    }
    spec = ResNetConfig.model_validate(config).spec("resnet_it")
    processor = {"size": {"shortest_edge": 112}, "crop_pct": 0.875, "resample": 3}
    tensors = theirs(spec, "transformers")
    hub.repository("me/it", config=config, preprocessor_config=processor, model=save(tensors))
    model = ds.load("hf://me/it")
    assert model.classes == ("cat", "dog")
    assert (model.preprocessing.size, model.preprocessing.resize) == (112, 128)
    assert model.net.spec.base == "resnet_me_it"


@pytest.mark.parametrize(
    ("name", "config", "says"),
    [
        ("a/b", {**TIMM_CONFIG, "architecture": "resnetaa50"}, "hf://a/b: architecture: got 'resnetaa50'"),
        ("a/b", {**TIMM_CONFIG, "architecture": 3}, "hf://a/b: architecture: got 3"),
        ("a/b", {"model_type": "bert"}, "hf://a/b: got a model of type 'bert'"),
        ("a/b", {"model_type": "resnet", "depths": [0], "hidden_sizes": [8]}, "depths.0: got 0"),
        ("a/b", {**TIMM_CONFIG, "pretrained_cfg": {"crop_mode": "squash"}}, "crop_mode: got 'squash'"),
        ("a", TIMM_CONFIG, "hf://: got 'a'; allowed: owner/name"),
        ("../../etc", TIMM_CONFIG, "hf://: got"),
    ],
)
def test_repositories_that_hold_no_net_of_ours(hub: Hub, name: str, config: object, says: str) -> None:
    hub.repository("a/b", config=config, preprocessor_config={}, model=save({"a": torch.zeros(1)}))
    with pytest.raises(ds.InputError) as raised:
        ds.load(f"hf://{name}")
    assert says in str(raised.value)


def test_a_file_that_is_another_than_the_hub_says(hub: Hub) -> None:
    hub.repository("a/b", config=TIMM_CONFIG, model=save({"a": torch.zeros(1)}))
    hub.stated = "0" * 64
    with pytest.raises(ds.WorkError, match="got a file with SHA-256 .*; allowed: SHA-256 0000"):
        ds.load("hf://a/b")
    assert not list(models_folder().rglob("*.safetensors"))


def test_a_repository_that_is_not_there(hub: Hub) -> None:
    with pytest.raises(ds.WorkError, match=f"{hub.url}/a/b/resolve/main/model.safetensors: got status 404"):
        ds.load("hf://a/b")


def test_no_network_is_one_line(hub: Hub, deepskip: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(published, "FOLDER", "http://127.0.0.1:9")
    said = deepskip("predict", "hf://timm/resnet18.a1_in1k", picture(Path("a.png")))
    assert said.code == 1
    assert (
        "http://127.0.0.1:9/timm/resnet18.a1_in1k/resolve/main/model.safetensors: got no answer" in said.error
    )
    said = deepskip("predict", "torchvision://resnet18", "a.png")
    assert said.code == 1
    assert "http://127.0.0.1:9/resnet18-f37072fd.pth: got no download (ConnectionError)" in said.error


def test_torchvisions_weights_are_checked_by_their_name(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(theirs(ds.zoo.get("resnet18"), "torchvision"), "r18.pth")
    content = Path("r18.pth").read_bytes()
    digits = hashlib.sha256(content).hexdigest()[:8]
    weights = published.Weights("resnet18", "v2", digits, 232)
    monkeypatch.setattr(published, "PUBLISHED", (*published.PUBLISHED, weights))
    hub.files[f"/{weights.file}"] = content
    model = ds.load("torchvision://resnet18")
    assert model.classes[0] == "tench"
    assert model.preprocessing.resize == 232
    assert model.header.provenance["file"] == "torchvision://resnet18@v2"
    asked = len(hub.requests)
    ds.load("torchvision://resnet18")
    assert len(hub.requests) == asked
    hub.files["/resnet18-f37072fd.pth"] = content
    with pytest.raises(ds.WorkError, match="allowed: SHA-256 f37072fd"):
        ds.load("torchvision://resnet18@v1")


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("torchvision://resnet19", "torchvision://: got 'resnet19'; allowed: resnet18"),
        ("torchvision://resnet18@v2", "torchvision://resnet18: got 'v2'; allowed: v1"),
        ("ftp://somewhere/else", "got no known address; allowed: torchvision://NET or hf://OWNER/NAME"),
    ],
)
def test_unknown_addresses(address: str, says: str) -> None:
    with pytest.raises(ds.InputError) as raised:
        ds.load(address)
    assert says in str(raised.value)


@pytest.mark.parametrize(("net", "file"), [("resnet20_cifar", "resnet20-12fca82f.th")])
def test_a_published_checkpoint_is_imported(deepskip: Command, net: str, file: str) -> None:
    if not (SHARED / file).is_file():
        pytest.skip(f"no {file} in ../shared/weights")
    assert deepskip("import", SHARED / file, "--net", net).code == 0
    header = read_header("model.safetensors")
    assert header.provenance["sha256"].startswith(file.split("-")[1].removesuffix(".th"))
    assert header.classes[3] == "cat"
