"""Each law's test can fail: the code is broken in one place, in a copy, and the test has to turn red.

Add a line here with every law. A mutant whose text is no longer in the source fails too: the list stays true.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import deepskip

SOURCE = Path(deepskip.__file__).parent
TESTS = Path(__file__).parents[1]

MUTANTS = {
    "1: a field is left out of equality and JSON": (
        "describe/spec.py",
        "class Conv(Value):\n",
        "class Conv(Value):\n    def __eq__(self, other): return self.channels == other.channels\n",
        "laws/test_spec.py::test_digests_tell_values_apart",
    ),
    "1: unknown fields are dropped in silence": (
        "describe/value.py",
        'extra="forbid"',
        'extra="ignore"',
        "laws/test_spec.py::test_unknown_and_missing_fields_are_refused",
    ),
    "2: groups are forgotten in the count": (
        "describe/ledger.py",
        "weights = x.shape.channels // conv.groups * conv.kernel**2 * conv.channels",
        "weights = x.shape.channels * conv.kernel**2 * conv.channels",
        "laws/test_ledger.py::test_parameters_layers_and_multiplications",
    ),
    "2: the memory of small tensors is forgotten": (
        "describe/ledger.py",
        "            self.floats += x.shape.values\n",
        "            self.floats += x.shape.values if x.shape.height > 1 else 0\n",
        "laws/test_ledger.py::test_activation_bytes_are_what_autograd_keeps",
    ),
    "2: the stem's pool does not widen the receptive field": (
        "describe/ledger.py",
        "low, high, jump = low - jump, high + jump, 2 * jump",
        "low, high, jump = low, high + jump, 2 * jump",
        "laws/test_ledger.py::test_receptive_field_is_what_gradients_reach",
    ),
    "3: the twin has no shared norm": (
        "nets/builder.py",
        'shared = spec.order == "pre" and site.changes\n    after',
        'shared = spec.order == "pre" and site.changes and site.shortcut != "none"\n    after',
        "laws/test_nets.py::test_the_twin_has_the_same_tensors_without_the_shortcuts",
    ),
    "3: the twin keeps its shortcut": (
        "nets/builder.py",
        "        return BranchOnly()\n",
        "        return Sum()\n",
        "laws/test_nets.py::test_the_twin_computes_something_else",
    ),
    "4: the sum is scaled": (
        "nets/parts.py",
        "return shortcut + branch",
        "return (shortcut + branch) * 0.999999",
        "laws/test_nets.py::test_a_silent_block_is_the_identity_bit_for_bit",
    ),
    "4: blocks are named by counting": (
        "nets/builder.py",
        "block.id: _block(spec, next(sites)) for block in stage.blocks",
        "f'b{i}': _block(spec, next(sites)) for i, block in enumerate(reversed(stage.blocks))",
        "laws/test_nets.py::test_extra_silent_blocks_leave_outputs_unchanged_bit_for_bit",
    ),
    "5: values are drawn in the order of building": (
        "nets/initial.py",
        "torch.randn(like.shape, generator=torch.Generator().manual_seed(seed)) * std",
        "torch.randn(like.shape) * std",
        "laws/test_nets.py::test_initial_values_depend_on_rule_seed_and_name_alone",
    ),
    "5: names do not matter": (
        "nets/initial.py",
        "derive(spec.initial, seed, name)",
        "derive(spec.initial, seed)",
        "laws/test_nets.py::test_different_seeds_and_names_give_different_values",
    ),
    "6: running statistics are not saved": (
        "weights/store.py",
        "for name, tensor in net.state_dict().items()}\n    with replacing",
        "for name, tensor in build(net.spec).state_dict().items()}\n    with replacing",
        "laws/test_store.py::test_save_load_is_the_same_network_bit_for_bit",
    ),
    "7: an epoch is resumed from its beginning": (
        "training/engine.py",
        "start=p.epoch_step,",
        "start=0,",
        "laws/test_resume.py::test_closed_at_a_step_and_resumed",
    ),
    "7: the optimiser's momentum is lost": (
        "training/engine.py",
        'self.optimiser.load_state_dict(state["optimiser"])',
        "pass",
        "laws/test_resume.py::test_closed_at_a_step_and_resumed",
    ),
    "7: the order of images does not depend on the epoch": (
        "data/batches.py",
        '_generator(seed, "shuffle", epoch)',
        '_generator(seed, "shuffle", start)',
        "laws/test_resume.py::test_closed_at_a_step_and_resumed",
    ),
}


@pytest.mark.parametrize("law", MUTANTS)
def test_the_law_notices(law: str, tmp_path: Path) -> None:
    file, right, wrong, test = MUTANTS[law]
    shutil.copytree(SOURCE, tmp_path / "src" / "deepskip", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(TESTS, tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "src" / "deepskip" / file
    text = path.read_text(encoding="utf-8")
    assert text.count(right) == 1, f"{file} has changed: renew this mutant"
    path.write_text(text.replace(right, wrong), encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"tests/{test}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "src"), "DEEPSKIP_HYPOTHESIS": "mutant"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1, f"the test passed on broken code, or did not run:\n{run.stdout}{run.stderr}"
    assert "1 failed" in run.stdout
