"""Foreign names and files: tables that are total and one to one, parity with goldens, hostile files refused."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from deepskip.describe import zoo
from deepskip.describe.families import imagenet
from deepskip.describe.spec import Block, Conv, Junction, Spec, Stage, Stem
from deepskip.errors import InputError
from deepskip.hub.architectures import ResNetConfig, architecture, find
from deepskip.nets.builder import build
from deepskip.weights.adapters import SOURCES, detect, from_foreign, names, shapes, to_foreign
from deepskip.weights.adapters.layers import layers
from deepskip.weights.foreign import load_foreign, nearest_net, read_tensors
from tests.golden.values import filled, images

GOLDEN = Path(__file__).parents[1] / "golden" / "adapters.json"
SHARED = Path(__file__).parents[2] / ".." / "shared" / "weights"


def one_block_each(spec: Spec, last: int = 1) -> Spec:
    """Return `spec` with one block a stage, `last` in the last one, and 7 classes."""
    stages = tuple(
        Stage(id=stage.id, blocks=stage.blocks[: last if stage is spec.stages[-1] else 1])
        for stage in spec.stages
    )
    return spec.replace(stages=stages, classes=7)


def transformers_spec(**fields: Any) -> Spec:
    return ResNetConfig.model_validate(
        {"depths": [1, 2], "hidden_sizes": [16, 32], "embedding_size": 8} | fields
    ).spec("small")


def cifar8(**fields: Any) -> Spec:
    return zoo.cifar(8, **fields)


SMALL: dict[str, tuple[str, Spec]] = {
    "torchvision basic": ("torchvision", one_block_each(imagenet(18))),
    "timm basic": ("timm", one_block_each(imagenet(18))),
    "timm d, squeeze": (
        "timm",
        one_block_each(imagenet(50, deep_stem=True, projection="pool", squeeze=16)),
    ),
    "timm squeeze of 64": ("timm", one_block_each(imagenet(18, squeeze=16, squeeze_multiple=8))),
    "timm grouped": ("timm", one_block_each(imagenet(50, groups=32, width=128))),
    "timm c": ("timm", one_block_each(imagenet(50, deep_stem=True))),
    "timm pre basic": ("timm", one_block_each(imagenet(18, order="pre", first="own"))),
    "timm pre d, group": (
        "timm",
        one_block_each(imagenet(50, order="pre", norm="group", deep_stem=True, projection="pool")),
    ),
    "timm pre": ("timm", one_block_each(imagenet(50, order="pre"), last=2)),
    "transformers early stride": (
        "transformers",
        transformers_spec(downsample_in_bottleneck=True).replace(classes=7),
    ),
    "transformers first stride": (
        "transformers",
        transformers_spec(depths=[1, 1], downsample_in_first_stage=True).replace(classes=7),
    ),
    "cifar A": ("cifar", cifar8()),
    "cifar B": ("cifar", cifar8(shortcut="B")),
}


def stem_of(channels: int) -> Stem:
    return Stem(convs=(Conv(channels=channels, kernel=7, stride=2),), pool=True)


def test_groups_matter_only_to_group_normalisers() -> None:
    assert names(imagenet(18).replace(norm_groups=8), "timm") == names(imagenet(18), "timm")


def covered() -> list[tuple[str, str]]:
    found = []
    for entry in zoo.ZOO:
        for source in SOURCES:
            try:
                names(entry.spec, source)
            except InputError:
                continue
            found.append((entry.name, source))
    return found


def test_the_adapters_cover_the_zoo() -> None:
    nets: dict[str, set[str]] = {source: set() for source in SOURCES}
    for name, source in covered():
        nets[source].add(name)
    usual = {"resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet200"}
    wide = {"wide_resnet50_2", "wide_resnet101_2", "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"}
    assert nets["torchvision"] == usual | wide
    assert nets["timm"] >= usual | wide | {
        "resnet50_d",
        "seresnet50",
        "preresnet50",
        "resnet50_gn",
        "resnet26_d",
    }
    assert nets["transformers"] >= usual | {"resnet50_v1"}
    assert nets["cifar"] == {f"resnet{depth}_cifar" for depth in (8, 14, 20, 32, 44, 56, 110, 1202)}


@pytest.mark.parametrize(("net", "source"), covered())
def test_a_table_is_total_and_one_to_one(net: str, source: str) -> None:
    spec = zoo.get(net)
    table = names(spec, source)
    assert len(set(table.values())) == len(table)
    assert list(table) == [f"{layer}.{tensor}" for layer, tensors in layers(spec).items() for tensor in tensors]


@pytest.mark.parametrize("name", SMALL)
def test_layers_are_those_that_the_builder_makes(name: str) -> None:
    _, spec = SMALL[name]
    built = {key: tuple(tensor.shape) for key, tensor in build(spec).state_dict().items()}
    assert built == {f"{la}.{t}": shape for la, tensors in layers(spec).items() for t, shape in tensors.items()}


@pytest.mark.parametrize(
    "spec",
    [one_block_each(imagenet(50, norm="group")), *(cifar8(order=order) for order in ("pre", "norm_after"))],
    ids=["group", "pre", "norm_after"],
)
def test_layers_of_other_orders_and_normalisers(spec: Spec) -> None:
    built = {key: tuple(tensor.shape) for key, tensor in build(spec).state_dict().items()}
    assert built == {f"{la}.{t}": shape for la, tensors in layers(spec).items() for t, shape in tensors.items()}


@pytest.mark.parametrize("name", SMALL)
def test_there_and_back_is_the_same_key_for_key(name: str) -> None:
    source, spec = SMALL[name]
    theirs = filled(shapes(spec, source))
    assert detect(theirs) == ("torchvision" if name in ("timm basic", "timm grouped") else source)
    back = to_foreign(spec, from_foreign(spec, theirs, source), source)
    assert list(back) == list(theirs)
    assert all(torch.equal(back[key], theirs[key]) for key in theirs)
    assert all(back[key].shape == theirs[key].shape for key in theirs)


@pytest.mark.parametrize("name", [name for name in SMALL if not name.startswith("cifar")])
def test_logits_are_the_librarys(name: str) -> None:
    source, spec = SMALL[name]
    net = build(spec, dtype=torch.float64).eval()
    net.load_state_dict(from_foreign(spec, filled(shapes(spec, source)), source))
    with torch.no_grad():
        ours = net(images(2, 3, 64))
    theirs = torch.tensor(json.loads(GOLDEN.read_text())[name], dtype=torch.float64)
    assert (ours - theirs).abs().max() <= 1e-10 * theirs.abs().max()


def test_the_golden_tells_a_stride_in_the_wrong_place() -> None:
    late = transformers_spec().replace(classes=7)  # the same tensors, the stride on the 3×3
    net = build(late, dtype=torch.float64).eval()
    net.load_state_dict(from_foreign(late, filled(shapes(late, "transformers")), "transformers"))
    theirs = torch.tensor(json.loads(GOLDEN.read_text())["transformers early stride"])
    with torch.no_grad():
        assert (net(images(2, 3, 64)) - theirs).abs().max() > 1e-3 * theirs.abs().max()


@pytest.mark.parametrize(
    ("source", "spec", "says"),
    [
        ("torchvision", imagenet(50, v1=True), "stages.s2.b1: got 1×1/2, 3×3, 1×1"),
        ("torchvision", imagenet(50, deep_stem=True), "stem: got 3×3/2, 3×3, 3×3 then a max-pool"),
        ("torchvision", imagenet(50, order="pre"), "order: got pre; allowed: post in torchvision"),
        ("torchvision", imagenet(50, squeeze=16), "squeeze: got 16; allowed: None in torchvision"),
        ("torchvision", imagenet(18, plain=True), "shortcut: got none; allowed: B in torchvision"),
        ("torchvision", imagenet(18).replace(survival=0.5), "survival: got 0.5"),
        (
            "torchvision",
            imagenet(18).replace(junction=Junction(kind="scaled", branch_scale=0.5)),
            "junction: got",
        ),
        ("torchvision", cifar8(shortcut="B"), "stem: got 3×3; allowed: 7×7/2 then a max-pool"),
        ("timm", imagenet(50, v1=True), "stages.s2.b1"),
        (
            "timm",
            imagenet(18, squeeze=16),
            "got 4 of 64 channels; allowed: 8 in timm, which rounds",
        ),
        ("timm", imagenet(50, norm="group", order="pre"), "got one convolution and group normalisers"),
        ("timm", imagenet(18, order="pre"), "first: got shared: stages.s1.b1 shares"),
        (
            "timm",
            imagenet(50, order="pre", first="own").replace(stem=stem_of(256)),
            "stages.s1.b1: got 256 channels in and out",
        ),
        (
            "timm",
            imagenet(50, norm="group").replace(stem=stem_of(48)),
            "stem.norm1: got 48 channels; allowed: a mul",
        ),
        ("timm", imagenet(34, norm="group").replace(norm_groups=16), "norm_groups: got 16; allowed: 32"),
        ("transformers", imagenet(50, order="pre"), "order: got pre"),
        ("transformers", imagenet(50, groups=32, width=128), "b1: got 1×1, 3×3 in 32 groups, 1×1"),
        ("cifar", cifar8(plain=True), "shortcut: got none; allowed: A, B"),
        ("cifar", imagenet(18), "stem"),
        ("cifar", zoo.wide(16, widen=1), "order: got pre"),
        ("nowhere", imagenet(18), "source: got 'nowhere'; allowed: torchvision"),
    ],
)
def test_a_net_that_a_library_does_not_have_is_refused(source: str, spec: Spec, says: str) -> None:
    with pytest.raises(InputError) as raised:
        names(spec, source)
    assert says in str(raised.value)


def test_widths_and_stages_are_checked() -> None:
    narrow = Stage(id="s1", blocks=(Block(id="b1", convs=(Conv(channels=8), Conv(channels=8))),))
    stem = Stem(convs=(Conv(channels=16),))
    net = Spec(base="odd", input=(3, 32, 32), classes=10, stem=stem, stages=(narrow,), shortcut="B")
    with pytest.raises(InputError, match="stages: got 1; allowed: 3"):
        names(net, "cifar")
    wide = zoo.cifar(8, shortcut="B")
    wide = wide.replace(stages=(*wide.stages[:2], narrow.replace(id="s3", blocks=wide.stages[1].blocks)))
    with pytest.raises(InputError, match="channels: got 16, 16, 32, 32; allowed: 16, 16, 32, 64"):
        names(wide, "cifar")


def test_missing_counters_are_zero_and_a_convolution_may_be_the_head() -> None:
    source, spec = SMALL["timm pre"]
    theirs = {key: tensor for key, tensor in filled(shapes(spec, source)).items() if "num_batches" not in key}
    theirs["head.fc.weight"] = theirs["head.fc.weight"].flatten(1)  # an older file
    state = from_foreign(spec, theirs)
    assert state["head.norm.num_batches_tracked"] == 0
    assert state["head.linear.weight"].shape == (7, 2048)


def test_missing_extra_and_misshapen_tensors_are_named() -> None:
    spec = cifar8()
    theirs = filled(shapes(spec, "cifar"))
    with pytest.raises(InputError, match=r"checkpoint: layer9: got \[\]; allowed: no such tensor"):
        from_foreign(spec, {**theirs, "layer9": torch.zeros(())})
    with pytest.raises(InputError, match=r"conv1.weight: got \[2\]; allowed: \[16, 3, 3, 3\]"):
        from_foreign(spec, {**theirs, "conv1.weight": torch.zeros(2)})
    theirs.pop("layer3.0.bn2.bias")
    with pytest.raises(InputError, match=r"layer3.0.bn2.bias: got no such tensor; allowed: \[64\]"):
        from_foreign(spec, theirs)
    with pytest.raises(InputError, match=r"state: stem.conv1.weight: got no such tensor"):
        to_foreign(spec, {}, "cifar")


def test_names_of_nobody_and_of_ours() -> None:
    with pytest.raises(InputError, match="got tensors called a, b; allowed: a checkpoint of torchvision"):
        detect(["b", "a"])
    with pytest.raises(InputError, match="deepskip's own tensors"):
        detect(build(cifar8()).state_dict())


@pytest.mark.parametrize(
    ("name", "layers", "zoo_name"),
    [
        ("resnet26", 26, None),
        ("resnet50d", 52, "resnet50_d"),
        ("resnetv2_101", 101, "preresnet101"),
        ("seresnet152", 152, "seresnet152"),
        ("resnext101_64x4d", 101, "resnext101_64x4d"),
        ("wide_resnet50_2", 50, "wide_resnet50_2"),
        ("resnet50_gn", 50, "resnet50_gn"),
        ("resnet18", 18, "resnet18"),
    ],
)
def test_architectures_by_their_librarys_names(name: str, layers: int, zoo_name: str | None) -> None:
    spec = architecture(name)
    assert spec is not None
    assert spec.layers == layers
    if zoo_name:
        assert spec == zoo.get(zoo_name)
    assert find(name, source="timm") == spec


def test_other_architectures_are_unknown() -> None:
    for name in (
        *("resnetaa50", "resnext50", "resnet50_2", "wide_resnet50", "resnet51q", "densenet121"),
        *("wide_resnet18_2", "wide_resnet34_2", "resnext18_32x4d", "resnext34_32x4d", "seresnext18_32x4d"),
        *("seresnetv2_50", "seresnetv2_18"),
    ):
        assert architecture(name) is None, name
        with pytest.raises(InputError, match=f"net: got '{name}'"):
            find(name)
    with pytest.raises(InputError, match="net: got 'resnetaa50'"):
        find("resnetaa50", source="timm")
    assert find("resnet_cifar", 20) == zoo.cifar(20)


# Files ------------------------------------------------------------------------------------------------------


def state20() -> dict[str, Tensor]:
    return {key: t.float() for key, t in filled(shapes(cifar8(), "cifar")).items() if "num_batches" not in key}


def write_wrapped(path: Path) -> None:
    wrapped = {f"module.{key}": tensor for key, tensor in state20().items()}
    torch.save({"state_dict": wrapped, "best_prec1": 91.7, "epoch": 3}, path)


def write_nested(path: Path) -> None:
    some = {("module." if "layer1" in key else "") + key: tensor for key, tensor in state20().items()}
    torch.save({"checkpoint": 1, "model": {"model_state": some}}, path)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: torch.save(state20(), path),
        lambda path: torch.save(state20(), path, _use_new_zipfile_serialization=False),
        lambda path: save_file(state20(), path),
        write_wrapped,
        write_nested,
    ],
)
def test_files_are_read_whatever_is_round_the_tensors(write: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    write(path)
    found, wanted = read_tensors(path), state20()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    net, notes = load_foreign(path, cifar8())
    assert notes == []
    assert not net.training
    assert torch.equal(net.state_dict()["head.linear.bias"], wanted["linear.bias"])


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("pwned"),)


def plain_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": Evil()}))


def zipped_pickle(path: Path) -> None:
    torch.save({"state_dict": state20(), "arguments": Evil()}, path)


def cut_zip(path: Path) -> None:
    content = io.BytesIO()
    torch.save(state20(), content)
    path.write_bytes(content.getvalue()[:20_000])


def wrong_header(path: Path) -> None:
    path.write_bytes((1 << 40).to_bytes(8, "little") + b'{"a": 1}')


def cut_safetensors(path: Path) -> None:
    save_file(state20(), path)
    path.write_bytes(path.read_bytes()[:-9])


def other_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "not a model")


def test_a_file_that_is_not_there_is_near_one_that_is(tmp_path: Path) -> None:
    torch.save(state20(), tmp_path / "resnet20.pth")
    (tmp_path / "resnet21.txt").touch()
    with pytest.raises(InputError, match=f"no such file; .*nearest: {tmp_path / 'resnet20.pth'}"):
        read_tensors(tmp_path / "resnet21.pth")
    with pytest.raises(InputError, match=r"tensors$"):
        read_tensors(tmp_path / "nowhere" / "resnet20.pth")


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (plain_pickle, "a pickle of more than tensors"),
        (zipped_pickle, "a pickle of more than tensors (getattr)"),
        (cut_zip, "a damaged or truncated file"),
        (other_zip, "a damaged or truncated file"),
        (wrong_header, "no readable safetensors file"),
        (cut_safetensors, "no readable safetensors file"),
        (lambda path: path.write_text("hello\n"), "neither PyTorch's format nor safetensors"),
        (lambda path: path.write_bytes(b""), "neither PyTorch's format nor safetensors"),
        (lambda path: torch.save({"epoch": 3}, path), "a file without named tensors"),
        (lambda path: torch.save([torch.zeros(2)], path), "a file without named tensors"),
        (lambda path: torch.save({3: torch.zeros(2)}, path), "a file without named tensors"),
        (lambda path: path.mkdir(), "a folder"),
        (lambda path: None, "no such file"),
        (
            lambda path: torch.save({"a": torch.zeros(1), "module.a": torch.zeros(1)}, path),
            "two sets of tensors",
        ),
    ],
)
def test_hostile_files_are_refused_in_one_line(
    write: Callable[[Path], object], says: str, tmp_path: Path
) -> None:
    path = tmp_path / "file.pth"
    write(path)
    with pytest.raises(InputError) as raised:
        read_tensors(path)
    assert says in str(raised.value)
    assert str(raised.value).startswith(f"{path}: got ")
    assert "\n" not in str(raised.value)
    assert not Path("pwned").exists()


def test_the_hostile_pickle_would_run_code() -> None:
    with pytest.raises(AttributeError):  # PosixPath → None has no state_dict: the code did run
        pickle.loads(pickle.dumps(Evil())).state_dict()
    assert Path("pwned").exists()


def saved(tmp_path: Path, spec: Spec, source: str, **changes: Tensor) -> Path:
    path = tmp_path / f"{spec.base}.pth"
    tensors = {
        key: t.float() if t.is_floating_point() else t for key, t in filled(shapes(spec, source)).items()
    }
    torch.save(tensors | changes, path)
    return path


def test_the_files_head_is_taken_or_left_out(tmp_path: Path) -> None:
    path = saved(tmp_path, cifar8().replace(classes=1000), "cifar")
    net, notes = load_foreign(path, cifar8())
    assert net.spec.classes == 1000
    assert notes == []
    net, notes = load_foreign(path, cifar8(), classes=10, seed=4)
    assert notes == ["the file's head has 1000 classes: the new head for 10 classes is untrained (seed 4)"]
    assert torch.equal(
        net.state_dict()["head.linear.weight"], build(cifar8(), 4).state_dict()["head.linear.weight"]
    )
    assert torch.equal(net.state_dict()["stem.conv1.weight"], read_tensors(path)["conv1.weight"])


def test_a_file_without_a_head_gets_a_new_one(tmp_path: Path) -> None:
    tensors = {key: tensor for key, tensor in state20().items() if not key.startswith("linear")}
    torch.save(tensors, tmp_path / "body.pth")
    net, notes = load_foreign(tmp_path / "body.pth", cifar8(), "cifar")
    assert net.spec.classes == 10
    assert notes == ["the file has no head: the new head for 10 classes is untrained (seed 0)"]


def test_a_bottleneck_file_is_no_basic_net(tmp_path: Path) -> None:
    path = saved(tmp_path, imagenet(50), "torchvision")
    with pytest.raises(InputError) as raised:
        load_foreign(path, imagenet(18))
    assert f"{path}: layer1.0.conv1.weight: got [64, 64, 1, 1]; allowed: [64, 64, 3, 3]" in str(raised.value)
    assert str(raised.value).endswith("; nearest: resnet50")
    with pytest.raises(InputError, match="order: got pre; allowed: post in torchvision; nearest: resnet50"):
        load_foreign(path, imagenet(50, order="pre"))


def test_the_nearest_net_is_found_by_shapes() -> None:
    for name, source in (
        ("resnext50_32x4d", "torchvision"),
        ("seresnet50", "timm"),
        ("resnet44_cifar", "cifar"),
    ):
        spec = zoo.get(name, classes=3)
        assert nearest_net(filled_meta(shapes(spec, source)), source) == name
    assert nearest_net({}, "cifar") == "resnet8_cifar"


def filled_meta(found: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in found.items()}


def test_halves_and_broken_numbers_are_said(tmp_path: Path) -> None:
    halves = {key: tensor.half() for key, tensor in state20().items()}
    halves["layer1.0.bn1.bias"][3] = float("nan")
    torch.save(halves, tmp_path / "half.pth")
    net, notes = load_foreign(tmp_path / "half.pth", cifar8())
    assert notes == [
        "stored as float16, held as float32",
        "1 tensors hold values that are not finite, layer1.0.bn1.bias first",
    ]
    assert next(net.parameters()).dtype == torch.float32


# The published CIFAR checkpoints ----------------------------------------------------------------------------


def published_forward(tensors: dict[str, Tensor], x: Tensor) -> Tensor:
    """Return what a published CIFAR net computes, written out from the paper and their names, without ours."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var = tensors[f"{name}.running_mean"], tensors[f"{name}.running_var"]
        return functional.batch_norm(x, mean, var, tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    x = functional.relu(norm(functional.conv2d(x, tensors["conv1.weight"], padding=1), "bn1"))
    for stage in (1, 2, 3):
        for j in range(sum(f"layer{stage}.{i}.conv1.weight" in tensors for i in range(300))):
            name, stride = f"layer{stage}.{j}", 2 if stage > 1 and j == 0 else 1
            y = functional.conv2d(x, tensors[f"{name}.conv1.weight"], stride=stride, padding=1)
            y = functional.conv2d(
                functional.relu(norm(y, f"{name}.bn1")), tensors[f"{name}.conv2.weight"], padding=1
            )
            extra = y.shape[1] - x.shape[1]
            short = functional.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, extra // 2, extra // 2))
            x = functional.relu(short + norm(y, f"{name}.bn2"))
    return functional.linear(x.mean((2, 3)), tensors["linear.weight"], tensors["linear.bias"])


@pytest.mark.parametrize("file", ["resnet20-12fca82f.th", "resnet56-4bfd9763.th"])
def test_the_published_checkpoints_compute_what_they_did(file: str) -> None:
    path = SHARED / file
    if not path.is_file():
        pytest.skip(f"no {file} in ../shared/weights")
    net, notes = load_foreign(path, zoo.get(f"{file.split('-')[0]}_cifar"))
    assert notes == []
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        theirs = published_forward({key: t.double() for key, t in read_tensors(path).items()}, x)
        assert (net.double()(x) - theirs).abs().max() <= 1e-12 * theirs.abs().max()
        single = net.float()(x.float())
    assert (single - theirs).abs().max() <= 1e-5 * theirs.abs().max()
