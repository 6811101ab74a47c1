"""Models as repositories of the Hugging Face Hub: saved, pushed, loaded again; a hub on this machine only."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

import deepskip as ds
from deepskip.hub import repository
from deepskip.hub.card import card, is_as_written
from deepskip.hub.download import repository_folder
from deepskip.hub.huggingface import _Linked
from deepskip.weights.store import read_header
from tests.end_to_end.command import Command
from tests.end_to_end.hub import Hub

# huggingface_hub's own, on the way that it goes without Xet.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

DIGITS = ("--net", "resnet8_cifar", "--epochs", 1, "--batch", 240)


@pytest.fixture
def model() -> ds.Model:
    spec = ds.zoo.get("resnet8_cifar", classes=3, input=(3, 16, 16))
    prepared = ds.Preprocessing(size=16, resize=18, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1))
    header = ds.weights.Header(
        spec=spec,
        classes=("cat", "dog", "cow"),
        preprocessing=prepared,
        provenance={"data": {"name": "farm"}, "images": {"train": 9, "val": 3}},
        metrics={"val_error": 25.0},
    )
    return ds.Model(ds.build(spec, seed=1).eval(), header)


@pytest.fixture
def plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upload as huggingface_hub does without Xet, whose protocol the server here does not speak."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)


def same(a: ds.Model, b: ds.Model) -> bool:
    values, others = a.net.state_dict(), b.net.state_dict()
    return a.header == b.header and all(torch.equal(tensor, others[name]) for name, tensor in values.items())


def test_what_is_saved_is_what_is_loaded(model: ds.Model) -> None:
    model.save_pretrained("saved")
    assert sorted(path.name for path in Path("saved").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert same(ds.Model.from_pretrained("saved"), model)
    assert same(ds.load("saved"), model)
    assert same(ds.Model.from_pretrained(Path("saved", "model.safetensors")), model)
    config = json.loads(Path("saved", "config.json").read_text())
    assert config["id2label"] == {"0": "cat", "1": "dog", "2": "cow"}


def test_a_trained_model_s_card_has_its_numbers(deepskip: Command) -> None:
    assert deepskip("train", "digits", *DIGITS, "--out", "run").code == 0
    trained = ds.load("run")
    trained.save_pretrained("saved", licence="mit")
    text = Path("saved", "README.md").read_text()
    assert "license: mit" in text
    assert "1,437 pictures to train on, 360 to validate on" in text
    assert f"| top-1 error on validation pictures | {trained.header.metrics['val_error']:.2f} % | 360 |" in text


def test_a_card_is_renewed_until_somebody_writes_in_it(model: ds.Model) -> None:
    model.save_pretrained("saved")
    readme = Path("saved", "README.md")
    renewed = ds.Model(model.net, model.header.replace(metrics={"val_error": 12.5}))
    renewed.save_pretrained("saved", licence="mit")
    assert "12.50 %" in readme.read_text()
    model.save_pretrained("saved")
    assert "25.00 %" in readme.read_text()
    assert "license: mit" in readme.read_text()  # that of before, as no other is said
    assert is_as_written(readme.read_text())
    written = readme.read_text().replace("## Limits", "My own words.\n\n## Limits")
    for content in (written.encode(), b"\xff\xfe no text", b""):
        readme.write_bytes(content)
        renewed.save_pretrained("saved")
        assert readme.read_bytes() == content


def test_a_card_that_cannot_be_made_leaves_the_model_as_it_was(
    model: ds.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save_pretrained("saved")
    before = {path: path.read_bytes() for path in Path("saved").iterdir()}
    monkeypatch.setattr(repository, "card", lambda *_: 1 / 0)
    other = ds.Model(model.net, model.header.replace(classes=("a", "b", "c")))
    with pytest.raises(ZeroDivisionError):
        other.save_pretrained("saved")
    assert {path: path.read_bytes() for path in Path("saved").iterdir()} == before


def test_a_run_folder_is_no_place_to_save_in(model: ds.Model, deepskip: Command) -> None:
    deepskip("train", "digits", *DIGITS, "--out", "run")
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    with pytest.raises(ds.InputError, match=r"run: got a folder with another config.json, as a run folder has"):
        model.save_pretrained("run")
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before
    Path("file").write_text("")
    with pytest.raises(ds.InputError, match="file: got a file"):
        model.save_pretrained("file")
    Path("broken").mkdir()
    Path("broken", "config.json").write_text("{")
    with pytest.raises(ds.InputError, match="no JSON"):
        model.save_pretrained("broken")


def test_pushed_and_loaded_by_name(hub: Hub, plain_http: None, model: ds.Model, deepskip: Command) -> None:
    address = model.push_to_hub("anna/farm", token="secret", private=True, message="first")
    assert address == "hf://anna/farm"
    assert (hub.created[0]["organization"], hub.created[0]["name"]) == ("anna", "farm")
    assert "private" in str(hub.created[0])
    assert hub.messages == ["first"]
    assert {token for token in hub.tokens if token} == {"Bearer secret"}
    files = {path.rpartition("/")[2]: content for path, content in hub.files.items()}
    assert set(files) == {"README.md", "config.json", "model.safetensors"}
    assert b'ds.load("hf://anna/farm")' in files["README.md"]
    for loaded in (ds.load(address), ds.Model.from_pretrained("anna/farm"), ds.load("hf://anna/farm@main")):
        assert same(loaded, model)
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save("a.png")
    assert deepskip("describe", address, "--json").json["name"] == model.net.spec.name
    assert "--depth" in deepskip("describe", address, "--depth", 20).error
    assert deepskip("predict", address, "a.png", "--json").json[0]["class"] in model.classes
    made = Path("farm", "train")
    for label in ("cow", "cat"):
        (made / label).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(np.full((20, 20, 3), 40 * i, np.uint8)).save(made / label / f"{i}.png")
    made.with_name("val").symlink_to("train")
    said = deepskip("train", "farm", "--init", address, "--epochs", 1, "--out", "run")
    assert said.code == 0, said.err
    assert read_header("run").preprocessing == model.preprocessing
    assert read_header("run").provenance["init"] == address


def test_a_name_alone_is_the_owner_s_and_a_branch_is_made(hub: Hub, plain_http: None, model: ds.Model) -> None:
    assert model.push_to_hub("farm", token="secret", revision="next") == "hf://anna/farm@next"
    assert hub.branches == ["next"]
    assert hub.created[0]["organization"] is None
    assert any("/commit/next" in request for request in hub.requests)
    assert same(ds.Model.from_pretrained("anna/farm", revision="next"), model)


def test_a_card_that_somebody_wrote_stays_on_the_hub(hub: Hub, plain_http: None, model: ds.Model) -> None:
    place = "/anna/farm/resolve/c0ffee/README.md"
    hub.files[place] = b"---\nlicense: mit\n---\nMine."
    model.push_to_hub("anna/farm", token="secret")
    assert hub.files[place] == b"---\nlicense: mit\n---\nMine."
    old = card(model.header.replace(metrics={"val_error": 12.5}), "anna/farm", "mit")
    hub.files[place] = old.encode()
    model.push_to_hub("anna/farm", token="secret")
    assert b"25.00 %" in hub.files[place]
    assert b"license: mit" in hub.files[place]


@pytest.mark.parametrize("config", [b'{"model_type": "vit"}', b"{"])
def test_another_library_s_repository_stays_what_it_is(
    hub: Hub, plain_http: None, model: ds.Model, config: bytes
) -> None:
    hub.files["/anna/farm/resolve/c0ffee/config.json"] = config
    before = dict(hub.files)
    with pytest.raises(ds.InputError, match="hf://anna/farm: got a repository with .*config.json"):
        model.push_to_hub("anna/farm", token="secret")
    assert hub.files == before


@pytest.mark.parametrize(
    ("revision", "asked"), [(None, "anna/farm"), (None, "anna/farm@main"), ("a", "anna/farm@a")]
)
def test_what_was_pushed_last_is_what_is_loaded(
    hub: Hub, plain_http: None, model: ds.Model, revision: str | None, asked: str
) -> None:
    other = ds.Model(ds.build(model.net.spec, seed=2).eval(), model.header.replace(classes=("a", "b", "c")))
    for one in (model, other):
        one.push_to_hub("anna/farm", token="secret", revision=revision)
        assert same(ds.load(f"hf://{asked}"), one)


def test_two_repositories_are_two_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("a/b--c", "a--b/c", "a/b@c", "a/b--c@main")
    folders = {repository_folder(name) for name in names}
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example/")
    assert len(folders | {repository_folder(name) for name in names}) == 8


@pytest.mark.parametrize("name", ["a/b@..", "a/b@x/../y", "../b", "a/..", "a/.", "a/b@./x"])
def test_no_name_steps_out_of_its_folder(hub: Hub, name: str) -> None:
    with pytest.raises(ds.InputError, match="hf://: got .*; allowed: owner/name, or owner/name@revision"):
        ds.load(f"hf://{name}")
    assert hub.requests == []


def test_a_private_repository_needs_its_token(
    hub: Hub, plain_http: None, model: ds.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.needed = "secret"
    model.push_to_hub("anna/farm", token="secret")
    with pytest.raises(ds.WorkError, match=r"status 401; allowed: .*a private one needs HF_TOKEN"):
        ds.load("hf://anna/farm")
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert same(ds.load("hf://anna/farm"), model)


def test_a_token_stays_with_its_server() -> None:
    import urllib.request
    from email.message import Message

    asked = urllib.request.Request("https://hub.example/a", headers={"Authorization": "Bearer secret"})
    for url, kept in (
        ("https://hub.example/b", True),
        ("https://elsewhere.example/b", False),
        ("http://hub.example/b", False),
    ):
        other: Any = _Linked().redirect_request(asked, None, 302, "", Message(), url)  # type: ignore[arg-type]
        assert other.has_header("Authorization") == kept


@pytest.mark.parametrize("name", ["", "a/b/c", "a b", "https://hub/a", "../etc"])
def test_names_that_are_none(model: ds.Model, name: str) -> None:
    with pytest.raises((ds.InputError, ds.WorkError)) as raised:
        model.push_to_hub(name, token="secret")
    assert "\n" not in str(raised.value)


def test_what_the_hub_refuses_is_one_line(
    hub: Hub, plain_http: None, model: ds.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.needed = "another"
    with pytest.raises(
        ds.WorkError, match=r"hf://anna/farm: got status 401 .*; allowed: a network connection"
    ) as e:
        model.push_to_hub("anna/farm", token="secret")
    assert "\n" not in str(e.value)
    assert hub.files == {}
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ds.WorkError, match="hf://anna/farm: got "):
        model.push_to_hub("anna/farm", token="secret")


def test_without_huggingface_hub(model: ds.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        ds.InputError,
        match=r'push_to_hub: got no package huggingface_hub; allowed: pip install "deepskip\[hub\]"',
    ):
        model.push_to_hub("anna/farm")


def test_what_from_pretrained_does_not_know(model: ds.Model) -> None:
    with pytest.raises(
        ds.InputError, match="from_pretrained: got 'nothing'; allowed: a folder, an address, or"
    ):
        ds.Model.from_pretrained("nothing")
    model.save_pretrained("saved")
    with pytest.raises(ds.InputError, match="revision: got 'main'; allowed: none: saved is on this machine"):
        ds.Model.from_pretrained("saved", revision="main")


def test_a_repository_with_our_config_and_another_file(hub: Hub) -> None:
    hub.repository("a/b", config={"library_name": "deepskip"}, model=save({"a": torch.zeros(1)}))
    with pytest.raises(ds.InputError, match="a safetensors file without a deepskip header"):
        ds.load("hf://a/b")
