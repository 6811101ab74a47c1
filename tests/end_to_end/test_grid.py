"""A grid of any cells: one begins from another, one cannot begin, one finds no memory; the others go on."""

from __future__ import annotations

import json
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import deepskip as ds
from deepskip.errors import TooLargeError
from deepskip.instruments import ends
from deepskip.nets.network import Network
from deepskip.studies.cell import Begin, Cell, in_order
from deepskip.studies.grid import CellEnded, run_grid
from deepskip.training import engine

RECIPE = ds.Recipe(epochs=1, max_steps=2)


class Doubled(Begin):
    """The other net, its head's weight doubled."""

    by: float = 2.0

    def net(self, trained: Network, spec: ds.Spec, seed: int) -> Network:
        assert trained.spec == spec
        with torch.no_grad():
            trained.head.linear.weight *= self.by  # type: ignore[union-attr]
        return trained


def cell(kind: str, *, depth: int = 8, recipe: ds.Recipe = RECIPE, **more: Any) -> Cell:
    data = ds.data.open("digits")
    spec = ds.zoo.cifar(depth, classes=10, input=data.input, plain=kind == "plain")
    given = {"device": "cpu", "precision": "float32", "fingerprint": data.fingerprint, "recipe": recipe}
    return Cell(study="test", kind=kind, depth=depth, seed=0, spec=spec, **{**given, **more})


def run(cells: list[Cell], **where: Any) -> dict[str, dict[str, Any]]:
    events = run_grid(cells, ds.data.open("digits"), Path("s"), **where)
    return {event.cell.hash: event.row for event in events if isinstance(event, CellEnded)}


def executor(kind: str) -> dict[str, Any]:
    return {"here": {}, "processes": {"workers": 2}, "threads": {"executor": ThreadPoolExecutor(2)}}[kind]


@pytest.mark.parametrize("where", ["here", "processes", "threads"])
def test_a_cell_begins_from_what_another_has_trained(where: str) -> None:
    first = cell("residual")
    # A step at a rate that changes nothing: the second ends with what it began from.
    still = RECIPE.replace(lr=1e-30, weight_decay=0.0)
    second = cell("residual", recipe=still, begin=Doubled(cell=first.hash))
    third = cell("residual", recipe=still, begin=Doubled(cell=second.hash, by=0.5))
    given = executor(where)
    rows = run([third, cell("plain"), second, first], **given, threads=1)
    if isinstance(given.get("executor"), Executor):
        given["executor"].shutdown()
    assert {row["status"] for row in rows.values()} == {"ok"}
    heads = [
        load_file(Path("s/cells", one.hash, "model.safetensors"))["head.linear.weight"]
        for one in (first, second, third)
    ]
    assert torch.equal(heads[1], 2 * heads[0])
    assert torch.equal(heads[2], heads[0])


@pytest.mark.parametrize("where", ["processes", "threads"])
def test_arrays_are_studied_in_the_process_that_has_them(where: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8)
    made = ds.data.from_arrays(images, np.arange(20) % 2, name="digits")  # whatever it is called
    spec = ds.zoo.cifar(8, classes=2, input=made.input)
    one = cell("residual").replace(spec=spec, fingerprint=made.fingerprint)
    given = executor(where)
    with pytest.raises(ds.InputError) as raised:
        list(run_grid([one, cell("plain")], made, Path("s"), **given))
    what = next(iter(given))
    assert f"{what}: got " in str(raised.value)
    assert "arrays in memory" in str(raised.value)
    assert not Path("s").exists()
    assert [e.row["status"] for e in run_grid([one], made, Path("s")) if isinstance(e, CellEnded)] == ["ok"]


def test_cells_come_after_what_they_begin_from_and_else_as_given() -> None:
    first = cell("residual")
    second = cell("residual", begin=Doubled(cell=first.hash))
    third = cell("plain", begin=Doubled(cell=second.hash))
    other = cell("plain")
    assert in_order([third, other, second, first]) == [other, first, second, third]
    with pytest.raises(ds.InputError, match="begin: got .*; allowed: the hash of a cell of the same study"):
        in_order([third])


def test_what_cannot_begin_is_impossible_and_the_others_go_on() -> None:
    lost = cell("plain", recipe=RECIPE.replace(lr=1e30, warmup=0.0))
    after = cell("plain", begin=Doubled(cell=lost.hash))
    backwards = cell("plain", memory="reversible")
    well = cell("residual")
    rows = run([lost, after, backwards, well])
    assert [rows[one.hash]["status"] for one in (lost, after, backwards, well)] == [
        *("diverged", "impossible", "impossible", "ok"),
    ]
    for one in (lost, after, backwards):
        assert rows[one.hash]["train_error"] is rows[one.hash]["val_error"] is None
    assert "whose status is diverged" in rows[after.hash]["reason"]
    assert "nothing to reverse" in rows[backwards.hash]["reason"]
    assert "reason" not in rows[well.hash]
    again = run([lost, after, backwards, well])
    assert again == rows


@pytest.mark.parametrize("workers", [1, 2])
def test_what_finds_no_memory_is_tried_again(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = cell("residual"), cell("residual", depth=14)

    def check(spec: ds.Spec, *_: Any) -> None:
        if spec.layers == 14:
            raise TooLargeError("batch", "128 images", "fewer", "--batch 1")

    with ThreadPoolExecutor(1) as pool:
        where = {} if workers == 1 else {"executor": pool}
        with monkeypatch.context() as patch:
            patch.setattr(engine, "check", check)
            rows = run([large, small], **where)
        assert [rows[one.hash]["status"] for one in (large, small)] == ["out_of_memory", "ok"]
        assert rows[large.hash]["reason"] == "batch: got 128 images; allowed: fewer; nearest: --batch 1"
        assert run([large, small], **where)[large.hash]["status"] == "ok"


def test_memory_that_is_lost_on_the_way_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(engine.Stepper, "step", step)
    one = cell("residual", measure="ends")
    row = run([one])[one.hash]
    assert row["status"] == "out_of_memory"
    assert row["grad_first_start"] > 0
    assert row["grad_first_end"] is None


def test_a_row_has_its_columns_and_what_was_measured_wherever_it_was_trained() -> None:
    one = cell("residual", columns=(("ingredient", "skips"), ("blocks", 3)), measure="ends")
    row = run([one])[one.hash]
    assert (row["ingredient"], row["blocks"]) == ("skips", 3)
    data, net = ds.data.open("digits"), ds.build(one.spec, 0)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert ends.measure(net, data, 0) == {name: row[f"{name}_start"] for name in ends.COLUMNS}
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    trained = ds.load(Path("s/cells", one.hash)).net
    assert ends.measure(trained, data, 0) == {name: row[f"{name}_end"] for name in ends.COLUMNS}
    assert json.loads(Path("s/cells", one.hash, "row.json").read_text()) == row


def test_the_ends_are_measured_as_autograd_and_hooks_have_them() -> None:
    """An independent computation, with everything kept: batch statistics, the mean loss, both ends."""
    data = ds.data.open("digits")
    net = ds.build(ds.zoo.cifar(14, classes=10, input=data.input), 3).double()
    found = ends.measure(net, data, 5)
    from deepskip.data.batches import train_batches
    from deepskip.data.variation import Variation

    batch = next(train_batches(data.train, data.preprocessing, Variation(augment="none"), ends.BATCH, 5, 0))
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (data.preprocessing.mean, data.preprocessing.std))
    x = net.stem(((batch.images / 255 - mean) / std).double())
    kept = []
    for block in net.blocks():
        x = block(x)
        kept.append(x)
    torch.nn.CrossEntropyLoss()(net.head(x), batch.labels).backward()
    for end, i in (("first", 0), ("last", -1)):
        grads = torch.cat([p.grad.flatten() for p in list(net.blocks())[i].parameters() if p.grad is not None])
        assert found[f"grad_{end}"] == pytest.approx(float(grads.norm()), rel=1e-4)
        assert found[f"rms_{end}"] == pytest.approx(float(kept[i].detach().square().mean().sqrt()), rel=1e-4)


def test_new_fields_that_say_nothing_leave_a_cells_hash_as_it_was() -> None:
    one = cell("residual")
    fields = one.model_dump(mode="json")
    old = {k: v for k, v in fields.items() if k not in ("memory", "begin", "columns", "measure")}
    import hashlib

    text = json.dumps(old, sort_keys=True, separators=(",", ":"))
    assert one.hash == hashlib.sha256(text.encode()).hexdigest()[:16]
    others = [cell("residual", columns=(("a", 1),)), cell("residual", measure="ends")]
    others += [cell("residual", begin=Doubled(cell=one.hash, by=by)) for by in (2.0, 3.0)]
    others += [cell("residual", memory="recompute")]
    assert len({one.hash, *(other.hash for other in others)}) == 6
