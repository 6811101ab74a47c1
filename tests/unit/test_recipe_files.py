"""Recipes in files: read, and refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepskip.errors import InputError
from deepskip.training.recipe import Recipe, named


def test_a_file_is_a_recipe_and_says_where_the_rest_is_from() -> None:
    Path("mine.yaml").write_text("epochs: 7\nlr: 1e-2\nsizes: [96, 112]\nfreeze: [stem]\n")
    assert named("mine.yaml") == Recipe(epochs=7, lr=0.01, sizes=(96, 112), freeze=("stem",))
    Path("other.yml").write_text(
        "recipe: he2015_cifar\nseedless: null\n".replace("seedless: null\n", "max_steps: 5\n")
    )
    assert named("other.yml") == named("he2015_cifar").replace(max_steps=5)
    Path("third.yaml").write_text("recipe: mine.yaml\nbatch: 4\n")
    assert named("third.yaml") == named("mine.yaml").replace(batch=4)
    Path("empty.yaml").write_text("")
    assert named("empty.yaml") == Recipe()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("epoch: 7", "wrong.yaml: got unknown field 'epoch'; allowed: epochs, .*; nearest: epochs"),
        ("epochs: many", "wrong.yaml: epochs: got 'many'; allowed: a whole number"),
        ("batch: 0", "wrong.yaml: batch: got 0"),
        ("- epochs", "wrong.yaml: got no mapping"),
        ("a: [1", r"wrong.yaml: got .*\(line 1\); allowed: a YAML file"),
        ("!!python/object/apply:os.system [ls]", "wrong.yaml: got could not determine a constructor"),
        ("recipe: quik", "recipe: got 'quik'; allowed: .*; nearest: quick"),
    ],
)
def test_wrong_files(text: str, says: str) -> None:
    Path("wrong.yaml").write_text(text)
    with pytest.raises(InputError, match=says):
        named("wrong.yaml")


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"none.yaml: got no such file"):
        named("none.yaml")
    Path("bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="bytes.yaml: got"):
        named("bytes.yaml")
