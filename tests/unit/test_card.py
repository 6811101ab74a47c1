"""A model's card: what the header says and nothing else, whatever stands in its names."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import deepskip as ds
from deepskip.hub.card import card, is_as_written, licence_of
from deepskip.hub.repository import config_of, is_ours
from deepskip.training.recipe import Recipe, read_recipe
from deepskip.weights.store import Header

PREPARED = ds.Preprocessing(size=32, resize=36, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1))
RECIPE = Recipe(epochs=3, freeze=("stem",), mixup=0.2)
TRAINED = {
    "data": {"name": "cifar10", "fingerprint": "ab" * 32},
    "images": {"train": 50_000, "val": 10_000},
    "recipe": RECIPE.model_dump(mode="json"),
    "seed": 7,
    "precision": "bf16",
    "torch": "2.13.0",
    "step": 90,
    "steps": 117,
    "command": "deepskip train /home/anna/photos",
}
MEASURED = {"epoch": 3, "train_loss": 1.5, "train_error": 40.25, "val_loss": 1.25, "val_error": 33.33}


def header(classes: tuple[str, ...] = ("cat", "dog", "cow"), **fields: Any) -> Header:
    spec = ds.zoo.get("resnet8_cifar", classes=len(classes))
    return Header(spec=spec, classes=classes, preprocessing=PREPARED, **fields)


def front(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text.removeprefix("---\n").split("\n---\n", 1)[0])
    return found


def test_the_front_is_what_the_hub_reads() -> None:
    found = front(card(header(provenance=TRAINED, metrics=MEASURED), licence="mit"))
    assert found["library_name"] == "deepskip"
    assert found["pipeline_tag"] == "image-classification"
    assert found["license"] == "mit"
    result = found["model-index"][0]["results"][0]
    assert result["dataset"] == {"type": "cifar10", "name": "cifar10", "split": "validation"}
    assert result["metrics"] == [{"type": "accuracy", "name": "accuracy, top 1, n = 10000", "value": 0.6667}]
    assert "base_model" not in found


def test_the_front_is_valid_for_huggingface_hub() -> None:
    hub = pytest.importorskip("huggingface_hub")
    text = card(header(provenance={**TRAINED, "init": "hf://timm/resnet18.a1@v2"}, metrics=MEASURED))
    read = hub.ModelCard(text).data
    assert read.base_model == "timm/resnet18.a1"
    assert read.model_name == "resnet8_cifar"
    assert read.eval_results[0].metric_value == 0.6667


def test_all_that_is_known_is_said_once() -> None:
    text = card(header(provenance=TRAINED, metrics=MEASURED), "anna/cats")
    assert is_as_written(text)
    for said in (
        "# resnet8\\_cifar on cifar10",
        f"{ds.count(header().spec).params:,} parameters",
        'ds.load("hf://anna/cats")',
        "the shorter side resized to 36 pixels (bilinear), its middle 32 × 32 cut out",
        "cat, dog, cow.",
        "50,000 pictures to train on, 10,000 to validate on",
        "90 of 117 steps were taken. Seed 7, bf16, PyTorch 2.13.0.",
        "| top-1 error on validation pictures | 33.33 % | 10,000 |",
        "| mean cross-entropy in training, as pictures were varied there | 1.5000 nats | 50,000 |",
        "Of the last epoch, number 3.",
        "one of its 3 classes",
        "pictures from elsewhere than cifar10 was not measured",
    ):
        assert text.count(said) == 1, said
    assert "anna/photos" not in text  # a path of somebody's machine is nobody's business


def test_the_recipe_in_it_is_one(tmp_path: Any) -> None:
    text = card(header(provenance=TRAINED))
    inside = text.split("```yaml\n")[1].split("```")[0]
    (tmp_path / "recipe.yaml").write_text(inside)
    assert read_recipe(tmp_path / "recipe.yaml") == RECIPE


def test_a_recipe_without_milestones_stays_one(tmp_path: Any) -> None:
    recipe = Recipe(epochs=3, milestones=())
    text = card(header(provenance={**TRAINED, "recipe": recipe.model_dump(mode="json")}))
    (tmp_path / "recipe.yaml").write_text(text.split("```yaml\n")[1].split("```")[0])
    assert read_recipe(tmp_path / "recipe.yaml") == recipe


def test_a_card_knows_whether_anybody_wrote_in_it() -> None:
    text = card(header(provenance=TRAINED, metrics=MEASURED), licence="mit")
    assert is_as_written(text)
    assert is_as_written(text.replace("\n", "\r\n"))  # as Git may have it on another system
    for other in (text.replace("33.33", "33.34"), text + "Mine.\n", text.replace("mit", "gpl"), "", "Mine."):
        assert not is_as_written(other)
    assert licence_of(text) == "mit"
    assert licence_of(card(header())) is None
    for other in ("", "Mine.", "---\n[\n---\n", "---\n- a\n---\n", "---\nlicense: 3\n---\n"):
        assert licence_of(other) is None


@pytest.mark.parametrize("span", ["ab", [0], [0, 1, 2], ["black", "white"], {"a": 0, "b": 1}, [None, 3]])
def test_a_range_that_is_none_is_left_out(span: Any) -> None:
    assert "(black)" not in card(header(provenance={**TRAINED, "value_range": span}))


def test_what_is_not_known_is_not_said() -> None:
    text = card(header())
    assert "model-index" not in front(text)
    assert "The file does not say which pictures it was trained on." in text
    assert "The file does not say how it was trained." in text
    assert "The file holds none." in text
    assert "What it does on any pictures was not measured." in text
    assert 'ds.load("FOLDER")' in text
    text = card(header(metrics={"val_error": 12.5}))
    assert "| top-1 error on validation pictures | 12.50 % | not recorded |" in text
    assert front(text)["model-index"][0]["results"][0]["metrics"][0]["name"] == "accuracy, top 1"


def test_foreign_values_are_called_that() -> None:
    notes = ["the file has no head"]
    known = {"source": "timm", "file": "hf://timm/resnet8.a1", "sha256": "cd" * 32, "notes": notes}
    text = card(header(provenance=known))
    assert "Not trained by deepskip: the values are from timm, `hf://timm/resnet8.a1`, SHA-256 `cdcd" in text
    assert "- the file has no head" in text
    assert front(text)["base_model"] == "timm/resnet8.a1"


def test_numbers_that_were_pixels_and_a_choice_of_epoch_are_said() -> None:
    known = {**TRAINED, "value_range": [0.0, 16.0], "recipe": {**RECIPE.model_dump(mode="json"), "patience": 3}}
    text = card(header(provenance=known))
    assert "numbers from 0 (black) to 16 (white), in 256 levels" in text
    assert "so that error was chosen, too" in text
    assert "(black)" not in card(header(provenance={**TRAINED, "value_range": [0, 255]}))


def test_what_was_measured_in_training_alone_is_called_that() -> None:
    known = {**TRAINED, "images": {"train": 1400}}
    text = card(header(provenance=known, metrics={"train_error": 0.0}))
    assert "1,400 pictures to train on, none to validate on" in text
    assert "What it does on pictures that it did not learn from was not measured." in text
    assert "model-index" not in front(text)


def test_many_classes_are_counted() -> None:
    text = card(header(tuple(f"c{i}" for i in range(1000))))
    assert "c19, and 980 more" in text
    assert "c20" not in text


NASTY = ("</details><script>alert(1)</script>", "a|b", "`x`", "---\n# big", "[l](http://x)", "\x1b[31m", "é 猫")


def test_names_cannot_become_markup() -> None:
    known = {
        **TRAINED,
        "seed": NASTY[0],
        "data": {"name": NASTY[0]},
        "recipe": {"a\n```\nb": "c\n```\n# d"},
        "init": "`rm`\n# x",
    }
    text = card(header(NASTY, provenance=known, metrics={**MEASURED, "epoch": NASTY[3]}), "a/b")
    below = text.split("\n---\n", 1)[1]
    assert front(text)["model-index"][0]["results"][0]["dataset"]["name"] == NASTY[0]
    assert "<script" not in below.replace("\\<script", "")
    headings = [line for line in below.splitlines() if line.startswith("#")]
    assert [line.lstrip("# ") for line in headings][1:] == [
        "Use",
        "Classes",
        "Data",
        "Training",
        "Metrics",
        "Limits",
    ]
    assert sum(line.startswith("```") for line in below.splitlines()) == 4
    assert "\x1b" not in text
    assert "é 猫" in below


@settings(max_examples=50)
@given(st.text(min_size=1), st.text())
def test_any_names_make_a_card(label: str, name: str) -> None:
    text = card(header((label, label + "2"), provenance={"data": {"name": name}}, metrics=MEASURED))
    assert front(text)["model-index"]
    assert len([line for line in text.splitlines() if line.startswith("## ")]) == 6


def test_config_json_says_what_others_look_for() -> None:
    config = config_of(header(provenance=TRAINED))
    assert json.loads(json.dumps(config)) == config
    assert is_ours(config)
    assert config["id2label"] == {"0": "cat", "1": "dog", "2": "cow"}
    assert config["label2id"]["cow"] == 2
    assert config["image_size"] == 32
    assert ds.Spec.from_dict(config["spec"]) == header().spec
    for other in ({}, [], None, {"library_name": "timm"}, {"spec": config["spec"]}):
        assert not is_ours(other)
