"""Each law's test can fail: the code is broken in one place, in a copy, and the test has to turn red.

Add a line here with every law. A mutant whose text is no longer in the source fails too: the list stays true.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
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
    "threads that work ahead have teams of their own": (
        "data/ahead.py",
        "    _openmp().limit(limits=1)\n",
        "",
        "unit/test_ahead.py",
    ),
    "3: the twin has no shared norm": (
        "describe/spec.py",
        'return "nr" if changed or special else ""',
        'return "nr" if (changed or special) and not self.is_plain else ""',
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
    "7: the average begins anew": (
        "training/stepper.py",
        'self.average.load(state["average"])',
        "pass",
        "laws/test_resume.py::test_with_everything_on",
    ),
    "7: the optimiser's momentum is lost": (
        "training/stepper.py",
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
    "8: a file is not proved": (
        "deploy/export.py",
        "form.write(path, model, metadata, agreement)",
        "form.write(path, model, metadata, lambda written: None)",
        "unit/test_export.py::test_a_broken_export_leaves_nothing_behind[False-torch]",
    ),
    "8: another class may come first": (
        "deploy/proof.py",
        "        if agreement.other:\n",
        "        if False:\n",
        "unit/test_export.py::test_what_the_proof_lets_pass",
    ),
    "8: what is exported is in training mode": (
        "deploy/graph.py",
        "return fold(made).float().eval()",
        "return fold(made).float().train(net.training)",
        "unit/test_graph.py::test_whatever_state_the_net_is_in[training]",
    ),
    "8: int8 may lose anything": (
        "deploy/quantize.py",
        "if cost.drop > limit:",
        "if cost.drop > 100 + limit:",
        "unit/test_quantize.py::test_too_much_lost_is_refused_and_nothing_is_written",
    ),
    "8: half of a pair is left behind": (
        "deploy/formats/openvino.py",
        "        for old in placed:\n            old.unlink()\n",
        "",
        "unit/test_export.py::test_both_of_openvinos_files_or_none",
    ),
    "folding: the running mean is forgotten": (
        "surgery/folding.py",
        "norm.bias.double() - mean.double() * scale",
        "norm.bias.double()",
        "laws/test_folding.py::test_a_folded_net_has_the_same_outputs",
    ),
    "folding: the Spec is the old one": (
        "surgery/folding.py",
        'norm="folded")\n\n\ndef _pairs',
        'norm="none")\n\n\ndef _pairs',
        "laws/test_folding.py::test_its_spec_is_true",
    ),
    "memory: statistics are updated twice": (
        "training/recompute.py",
        "norm.track_running_stats = not norm.training",
        "pass",
        "laws/test_recompute.py::test_so_are_those_of_the_zoo",
    ),
    "memory: other branches are dropped the second time": (
        "training/recompute.py",
        "            torch.set_rng_state(self.random)\n",
        "",
        "laws/test_recompute.py::test_so_are_those_of_the_zoo",
    ),
    "memory: on the way back nothing is given back": (
        "training/recompute.py",
        "        self.relieve()\n",
        "",
        "laws/test_recompute.py::test_before_every_piece_what_is_free_is_given_back_both_ways",
    ),
    "memory: what was held at first is what may be held": (
        "training/relief.py",
        "        self._least = min(self._least, held)\n",
        "",
        "unit/test_relief.py::test_it_waits_until_the_process_has_grown_by_the_bound",
    ),
    "training: a run is another one where it was measured anew": (
        "training/engine.py",
        "if way is None and out is not None:",
        "if way is None and resume and out is not None:",
        "laws/test_resume.py::test_a_run_is_known_again_whatever_way_was_measured_for_it",
    ),
    "memory: a run's gradients wait for its end": (
        "training/recompute.py",
        "PIECE = 4 ",
        "PIECE = 400 ",
        "laws/test_recompute.py::test_gradients_do_not_wait_for_the_way_back_to_end",
    ),
    "memory: gradients are made anew in every step": (
        "training/stepper.py",
        'set_to_none=self.way.memory == "store"',
        "set_to_none=True",
        "laws/test_recompute.py::test_steps_that_keep_little_have_their_gradients_in_one_place",
    ),
    "memory: a gradient goes round the branch": (
        "training/recompute.py",
        "gradient + through",
        "gradient",
        "laws/test_recompute.py::test_reversed_gradients_are_the_stored_ones_but_for_rounding",
    ),
    "7: rows after the state stay": (
        "training/rundir.py",
        'if _number(row, "step") <= step]',
        'if _number(row, "step") < math.inf]',
        "laws/test_flow.py::test_rows_after_the_state_are_taken_again_and_half_a_row_is_dropped",
    ),
    "flow: hooks stay for the backward pass": (
        "training/flow.py",
        "                handle.remove()\n",
        "                handle.id\n",
        "unit/test_flow.py::test_hooks_are_gone_before_the_backward_pass_and_after_an_exception",
    ),
    "flow: what is recorded is clipped": (
        "training/stepper.py",
        "        if flow:\n",
        "        if flow and nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.clip or 1e9) >= 0:\n",
        "unit/test_flow.py::test_of_a_step_in_parts_the_gradient_is_the_wholes_and_the_activations_are_the_lasts",
    ),
    "flow: the first part is measured": (
        "training/stepper.py",
        "flow if i == len(parts) else None",
        "flow if i == 1 else None",
        "unit/test_flow.py::test_of_a_step_in_parts_the_gradient_is_the_wholes_and_the_activations_are_the_lasts",
    ),
    "flow: the ratio is upside down": (
        "training/flow.py",
        "shortcut, branch = inputs",
        "branch, shortcut = inputs",
        "unit/test_flow.py::test_a_row_is_what_its_words_say",
    ),
    "flow: small gradients are squared in float32": (
        "training/flow.py",
        ", 2, dtype=torch.float64)",
        ", 2)",
        "unit/test_flow.py::test_gradients_too_small_to_square_in_float32_are_told_apart_from_zero",
    ),
    "flow: the loss's scale is left in": (
        "training/flow.py",
        "(value / scale) ** 2",
        "value**2",
        "unit/test_flow.py::test_a_loss_that_is_scaled_does_not_scale_the_gradient",
    ),
    "4: new blocks are not silent": (
        "surgery/growing.py",
        "            tensor.zero_()\n\n\ndef _pass_on",
        "            tensor.mul_(1e-6)\n\n\ndef _pass_on",
        "laws/test_growing.py::test_a_grown_net_has_the_same_outputs_bit_for_bit",
    ),
    "4: a gate is held to leave its shortcut alone": (
        "surgery/growing.py",
        '("exclusive_gate", "shortcut_gate")',
        '("exclusive_gate",)',
        "laws/test_growing.py::test_a_gate_changes_its_shortcut_so_no_block_behind_it_is_silent",
    ),
    "4: a grown net shares its tensors": (
        "surgery/growing.py",
        "tensor.clone() for name",
        "tensor for name",
        "laws/test_growing.py::test_the_other_blocks_keep_their_names_and_values",
    ),
    "growing: two factors of a branch are zero": (
        "surgery/growing.py",
        'start != "fresh" and not _starts_at_zero(spec)',
        'start != "fresh"',
        "laws/test_growing.py::test_rezero_is_silent_by_its_scale_alone",
    ),
    "growing: a delta block divides by more than one": (
        "surgery/growing.py",
        "fill_(1 - module.eps)",
        "fill_(1)",
        "laws/test_growing.py::test_a_delta_block_passes_on_what_a_plain_block_gets",
    ),
    "identity study: new blocks are put into an untrained net": (
        "studies/identity.py",
        "growing.grow(trained, self.blocks",
        "growing.grow(__import__('deepskip').build(trained.spec), self.blocks",
        "end_to_end/test_identity_study.py::test_an_interrupted_study_ends_as_one_that_was_not",
    ),
    "insertion: blocks that were there are counted": (
        "instruments/insertion.py",
        ' if row["block"] not in held',
        "",
        "unit/test_insertion.py::test_only_new_blocks_are_counted",
    ),
    "insertion: outputs are compared by value": (
        "instruments/insertion.py",
        "(before.view(torch.int32) == after.view(torch.int32))",
        "(before == after)",
        "unit/test_insertion.py::test_outputs_are_compared_image_by_image_and_bit_by_bit",
    ),
    "identity study: one standard deviation is enough": (
        "studies/argument.py",
        "max(MARGIN, sum(sds))",
        "max(MARGIN, max(sds))",
        "unit/test_argument.py::test_worse_is_more_than_chance",
    ),
    "identity study: training error does not count": (
        "studies/argument.py",
        "    for split in SPLITS:\n        sds",
        "    for split in ('val',):\n        sds",
        "unit/test_argument.py::test_training_error_alone_is_worse_too",
    ),
    "identity study: the fall is upside down": (
        "studies/argument.py",
        "return falls[0] / falls[1]",
        "return falls[1] / falls[0]",
        "unit/test_argument.py::test_the_seeds_argument",
    ),
    "spectrum study: an ingredient keeps the one before's initial values": (
        "studies/spectrum.py",
        '"norm": "none", "initial": "delta_orthogonal"',
        '"norm": "none", "initial": "pytorch"',
        "end_to_end/test_spectrum_study.py::test_an_interrupted_study_ends_as_one_that_was_not",
    ),
    "spectrum study: pre-activation turns into bottlenecks": (
        "studies/spectrum.py",
        'zoo.cifar(depth, block="basic", layers_per_skip=each,',
        "zoo.cifar(depth,",
        "end_to_end/test_spectrum_study.py::test_an_ingredient_changes_nothing_but_what_it_is",
    ),
    "spectrum study: a depth past a gap counts": (
        "studies/reach.py",
        'itertools.takewhile(lambda line: line["trains"], lines)',
        'filter(lambda line: line["trains"], lines)',
        "unit/test_reach.py::test_a_depth_that_trains_past_one_that_does_not_is_not_reached",
    ),
    "spectrum study: what has no result does not train": (
        "studies/reach.py",
        'return True if line["ok"] == line["n"] else None',
        'return line["ok"] == line["n"]',
        "unit/test_reach.py::test_what_has_no_result_is_not_held_against_an_ingredient",
    ),
    "spectrum study: a seed that diverged is forgotten": (
        "studies/reach.py",
        'if "diverged" in line["lost"] or (mean',
        "if (mean",
        "unit/test_reach.py::test_a_net_trains_when_its_mean_error_is_low_and_no_seed_diverged",
    ),
    "spectrum study: as deep is deeper": (
        "studies/reach.py",
        'return "deeper" if other > one',
        'return "deeper" if other >= one',
        "unit/test_reach.py::test_the_order",
    ),
    "spectrum study: gradients are upside down": (
        "studies/reach.py",
        'f"grad_first_{when}", f"grad_last_{when}"',
        'f"grad_last_{when}", f"grad_first_{when}"',
        "unit/test_reach.py::test_hes_spectrum",
    ),
    "spectrum: the frame is a depth too long": (
        "figures/spectrum.py",
        "many = sum(depth <= reach for depth in depths)",
        "many = 1 + sum(depth <= reach for depth in depths)",
        "unit/test_figures.py::test_a_spectrum_frames_how_deep_each_ingredient_reaches",
    ),
    "spectrum: what was lost is in the mean": (
        "figures/spectrum.py",
        'if status == "ok" and error is not None:',
        "if error is not None:",
        "unit/test_figures.py::test_a_cell_of_a_spectrum_is_a_mean_of_seeds",
    ),
    "spectrum: nothing left of a gradient is left out": (
        "figures/spectrum.py",
        "        return -math.inf\n    return math.log10",
        "        return None\n    return math.log10",
        "unit/test_figures.py::test_signals_stand_in_powers_of_ten",
    ),
    "grid: a cell is compared with what it began as": (
        "studies/grid.py",
        "return cell.begin.measure(net, trained, data, cell.seed)",
        "return cell.begin.measure(net, net, data, cell.seed)",
        "end_to_end/test_identity_study.py::test_an_interrupted_study_ends_as_one_that_was_not",
    ),
    "identity: images are compared with themselves": (
        "instruments/identity.py",
        "m - torch.diag(m.diagonal())",
        "m",
        "unit/test_identity.py::test_unrelated_features_have_no_similarity_however_many_there_are",
    ),
    "identity: hooks stay": (
        "instruments/taps.py",
        "    hooks.enter_context(block.junction.register_forward_hook(joined))\n",
        "    block.junction.register_forward_hook(joined)\n",
        "unit/test_identity.py::test_the_net_is_left_as_it_was",
    ),
    "taps: hooks stay": (
        "instruments/taps.py",
        "hooks.enter_context(module.register_forward_hook(_reader(seen, name, reduce, hooks, gradients)))",
        "module.register_forward_hook(_reader(seen, name, reduce, hooks, gradients))",
        "unit/test_taps.py::test_no_hook_stays_after_an_exception",
    ),
    "taps: gradients are read for ever": (
        "instruments/taps.py",
        "hooks.enter_context(own.register_hook(arrived))",
        "own.register_hook(arrived)",
        "unit/test_taps.py::test_backward_passes_after_it_are_not_seen",
    ),
    "taps: an identity's gradient is its input's": (
        "instruments/taps.py",
        "own = out.view_as(out) if out.requires_grad",
        "own = out if out.requires_grad",
        "unit/test_taps.py::test_the_identitys_gradient_is_not_all_of_its_inputs",
    ),
    "taps: a tensor is kept beside its number": (
        "instruments/taps.py",
        "seen[name].append(reduce(out.detach()))",
        "seen[name].append(reduce(out.detach())); vars(seen).setdefault('all', []).append(out)",
        "unit/test_taps.py::test_no_more_is_held_than_what_is_kept",
    ),
    "taps: another place computes for ever": (
        "instruments/taps.py",
        '        del own["forward"]\n',
        "        pass\n",
        "unit/test_taps.py::test_two_blocks_change_places",
    ),
    "taps: zero times infinity": (
        "instruments/taps.py",
        "out * factor if factor else torch.zeros_like(out)",
        "out * factor",
        "unit/test_taps.py::test_numbers_scale_and_zero_cuts",
    ),
    "instruments: gradients of others are lost": (
        "instruments/taps.py",
        "            parameter.grad = gradient\n",
        "            pass\n",
        "laws/test_instruments.py::test_a_net_that_fails_is_left_as_it_was",
    ),
    "instruments: parameters stay frozen": (
        "instruments/taps.py",
        "            parameter.requires_grad_(requires)\n",
        "",
        "laws/test_instruments.py::test_a_net_that_fails_is_left_as_it_was",
    ),
    "scores: modules get the net's mode": (
        "scoring.py",
        "            module.training = training\n",
        "            module.training = modes[0][1]\n",
        "laws/test_instruments.py::test_a_net_is_left_as_it_was[summary]",
    ),
    "lesion: the branch is not cut": (
        "instruments/lesion.py",
        "nothing = torch.zeros_like(",
        "nothing = torch.ones_like(",
        "unit/test_lesion.py::test_a_lesion_is_a_branch_of_zeros",
    ),
    "lesion: all is computed anew for each": (
        "instruments/trials.py",
        "    return Variant(start, parts[start:])\n",
        "    return Variant(0, parts)\n",
        "unit/test_lesion.py::test_every_block_before_the_lesion_is_computed_once_for_all",
    ),
    "lesion: every block's input is held": (
        "instruments/trials.py",
        "                x = block(x)\n",
        "                x = block(x); vars(intact).setdefault('held', []).append(x)\n",
        "unit/test_lesion.py::test_a_net_of_ten_blocks_holds_no_more_than_one_of_three",
    ),
    "lesion: what is not finite can be right": (
        "instruments/trials.py",
        " & logits.isfinite().all(1)",
        "",
        "unit/test_lesion.py::test_logits_that_are_not_finite_are_wrong",
    ),
    "paths: the shortcut's gradient is everybody's": (
        "instruments/paths.py",
        "(~branch, branch)",
        "(branch | ~branch, branch)",
        "unit/test_paths.py::test_all_paths_add_up_to_the_gradient",
    ),
    "paths: small gradients are lost": (
        "instruments/paths.py",
        ".clamp(max=1e30)",
        ".clamp(min=1, max=1)",
        "unit/test_paths.py::test_gradients_smaller_than_any_number_of_float32",
    ),
    "paths: a path is as long as it likes": (
        "instruments/paths.py",
        "order[:, i] < k",
        "order[:, i] <= k",
        "unit/test_paths.py::test_sampling_agrees_with_all_paths",
    ),
    "signal: a response is taken after its ReLU": (
        "instruments/signal.py",
        "            found += [last] if last else []\n",
        "            found += [name] if last else []\n",
        "unit/test_signal.py::test_a_response_is_what_the_next_relu_or_the_junction_gets",
    ),
    "signal: of two residual nets the shallower is held to respond less": (
        "reports/inspection.py",
        'key=lambda one: -one["layers"]',
        'key=lambda one: one["layers"]',
        "unit/test_reports.py::test_responses_are_set_beside_those_of_the_paper",
    ),
    "reports: a narrow page makes type too small to read": (
        "reports/inline.py",
        "_LEAST = 6.75",
        "_LEAST = 6.3",
        "unit/test_reports.py::test_no_type_is_ever_below_nine_pixels",
    ),
    "calibration: a dot at 100% is cut in half": (
        "figures/calibration.py",
        '"clip_on": False}',
        '"clip_on": True}',
        "unit/test_figures.py::test_a_reliability_diagram_has_its_bins_and_errors",
    ),
    "signal: the mean is not taken off": (
        "instruments/signal.py",
        "variance = square - mean * mean",
        "variance = square",
        "unit/test_signal.py::test_rows_are_what_their_words_say",
    ),
    "gradient: the loss of every batch counts as much": (
        "instruments/gradient.py",
        'labels, reduction="sum")',
        "labels) * 2.5",
        "unit/test_gradient.py::test_norms_are_those_of_finite_differences",
    ),
    "gradient: an image is compared with itself": (
        "instruments/gradient.py",
        "(float(directions.square().sum()) - n) / (n * (n - 1))",
        "float(directions.square().sum()) / (n * n)",
        "unit/test_gradient.py::test_correlations_are_those_of_finite_differences",
    ),
    "gradient: the initial net divides by one": (
        "instruments/gradient.py",
        "norm.momentum, norm.training = None, True",
        "norm.momentum, norm.training = None, False",
        "unit/test_gradient.py::test_the_initial_net_is_the_specs_with_the_statistics_of_the_images",
    ),
    "lens: a probe is scored on what it has seen": (
        "instruments/lens.py",
        "_wrong(features[~out], labels[~out], features[out]",
        "_wrong(features, labels, features[out]",
        "unit/test_lens.py::test_of_a_split_alone_no_image_is_scored_by_a_probe_that_has_seen_it",
    ),
    "lens: the penalty is the one that fits best": (
        "instruments/lens.py",
        "leverage = 1 / n + turned.square() @ shrink",
        "leverage = torch.zeros(n)",
        "unit/test_lens.py::test_the_probe_is_scikit_learns_ridge",
    ),
    "calibration: an image scales itself": (
        "instruments/calibration.py",
        "fit_temperature(logits[~out], labels[~out])",
        "fit_temperature(logits, labels)",
        "unit/test_calibration.py::test_an_image_does_not_scale_itself",
    ),
    "calibration: the surest are in the bin below": (
        "scoring.py",
        "(confidence * CALIBRATION_BINS).ceil().long().clamp(1, CALIBRATION_BINS) - 1",
        "(confidence * CALIBRATION_BINS).ceil().long().clamp(1, CALIBRATION_BINS - 1) - 1",
        "unit/test_calibration.py::test_bins_are_counted_as_by_hand",
    ),
    "identity: every module gets one mode": (
        "instruments/taps.py",
        "            module.training = training\n",
        "            module.training = modes[0][1]\n",
        "unit/test_identity.py::test_the_net_is_left_as_it_was",
    ),
    "identity: what a gate does is not seen": (
        "instruments/taps.py",
        "watcher.joined(i, inputs[0], out)",
        "watcher.joined(i, inputs[0], inputs[0] + inputs[1])",
        "unit/test_identity.py::test_rows_are_what_their_words_say",
    ),
    "saliency: gradients are summed over pixels": (
        "instruments/saliency.py",
        "gradients.mean((2, 3), keepdim=True)",
        "gradients.sum((2, 3), keepdim=True)",
        "unit/test_saliency.py::test_anywhere_else_it_is_what_finite_differences_give",
    ),
    "saliency: what speaks against a class is shown": (
        "instruments/saliency.py",
        ".sum(1).relu()",
        ".sum(1)",
        "unit/test_saliency.py::test_at_the_last_map_grad_cam_is_the_heads_weights",
    ),
    "saliency: every path begins at zero": (
        "instruments/saliency.py",
        "points = (baseline + along)",
        "points = (along)",
        "unit/test_saliency.py::test_of_a_cubic_net_two_points_are_enough_and_the_gradient_alone_is_not",
    ),
    "saliency: points of a path count alike": (
        "instruments/saliency.py",
        "torch.from_numpy(weights / 2)",
        "torch.full((steps,), 1 / steps)",
        "unit/test_saliency.py::test_completeness_the_sum_is_the_difference_of_logits",
    ),
    "saliency: the least sure mistakes come first": (
        "instruments/saliency.py",
        "(-one.confidence, one.image)",
        "(one.confidence, one.image)",
        "unit/test_saliency.py::test_a_row_is_what_its_words_say",
    ),
    "landscape: a direction is as long as the whole tensor": (
        "instruments/landscape.py",
        ".flatten(1).norm(dim=1)",
        ".flatten(1).norm().expand(len(weight))",
        "unit/test_landscape.py::test_each_filter_of_a_direction_is_as_long_as_the_nets",
    ),
    "landscape: directions are not as long as the net": (
        "instruments/landscape.py",
        "        scale = _norms(weight) / _norms(drawn)\n",
        "        scale = 1 / _norms(drawn)\n",
        "unit/test_landscape.py::test_a_net_that_computes_the_same_has_the_same_landscape",
    ),
    "landscape: the plane is a line": (
        "instruments/landscape.py",
        "(x, y or 0.0)",
        "(x, 0.0)",
        "unit/test_landscape.py::test_of_a_linear_net_the_landscape_is_the_closed_form",
    ),
    "landscape: the trained weights are moved": (
        "instruments/landscape.py",
        ".detach().clone()",
        ".detach()",
        "unit/test_landscape.py::test_the_weights_are_never_written_to",
    ),
    "junctions: the exclusive gate is inverted": (
        "nets/parts.py",
        "(1 - gate) * shortcut + gate * branch",
        "gate * shortcut + (1 - gate) * branch",
        "unit/test_junctions.py::test_a_junction_computes_its_formula",
    ),
    "junctions: the shortcut gate is inverted": (
        "nets/parts.py",
        "(1 - self.gate(shortcut).sigmoid()) * shortcut + branch",
        "self.gate(shortcut).sigmoid() * shortcut + branch",
        "unit/test_junctions.py::test_a_junction_computes_its_formula",
    ),
    "junctions: the factors of a scaled sum are swapped": (
        "nets/parts.py",
        "self.shortcut_scale * shortcut + self.branch_scale * branch",
        "self.branch_scale * shortcut + self.shortcut_scale * branch",
        "unit/test_junctions.py::test_a_junction_computes_its_formula",
    ),
    "junctions: the trained scale is not used": (
        "nets/parts.py",
        "shortcut + self.scale * branch",
        "shortcut + branch",
        "unit/test_junctions.py::test_a_junction_computes_its_formula",
    ),
    "junctions: dropout drops the branch": (
        "nets/parts.py",
        "self.dropout(shortcut) + branch",
        "shortcut + self.dropout(branch)",
        "unit/test_junctions.py::test_a_dropout_shortcut_drops_and_rescales_in_training",
    ),
    "stochastic depth: a branch is kept with 1 - p": (
        "nets/parts.py",
        "device=branch.device) < self.survival",
        "device=branch.device) >= self.survival",
        "unit/test_junctions.py::test_a_branch_survives_as_often_as_it_should",
    ),
    "stochastic depth: evaluation does not scale": (
        "nets/parts.py",
        "if self.training else self.survival",
        "if self.training else 1.0",
        "unit/test_junctions.py::test_evaluation_scales_the_branch_by_its_survival",
    ),
    "stochastic depth: survival begins at the first block": (
        "describe/spec.py",
        "survival = 1 - i / total * (1 - self.survival)",
        "survival = 1 - (i - 1) / total * (1 - self.survival)",
        "unit/test_junctions.py::test_survival_falls_linearly_from_the_input",
    ),
    "initial: zero_last zeroes nothing": (
        "nets/initial.py",
        "        elif spec.zero_last:\n            gains[ending(spec, site)] = 0.0",
        "        elif spec.zero_last:\n            gains[ending(spec, site)] = 1.0",
        "unit/test_junctions.py::test_zero_last_zeroes_one_tensor_a_block",
    ),
    "initial: zero_last zeroes the convolution before a normaliser": (
        "nets/initial.py",
        'spec.order in ("post", "relu_only")',
        'spec.order in ("post",)',
        "unit/test_junctions.py::test_zero_last_zeroes_one_tensor_a_block",
    ),
    "initial: Fixup scales no branch": (
        "nets/initial.py",
        "blocks ** (-1 / (2 * convs - 2))",
        "1.0",
        "unit/test_junctions.py::test_fixup_scales_a_branch_by_its_rule",
    ),
    "initial: Fixup ends no branch in zero": (
        "nets/initial.py",
        "            gains[ending(spec, site)] = 0.0\n        elif",
        "            gains[ending(spec, site)] = 1.0\n        elif",
        "unit/test_junctions.py::test_fixup_scales_a_branch_by_its_rule",
    ),
    "initial: a gate's bias is ignored": (
        "nets/initial.py",
        'case GateConv(), "bias":\n            return torch.tensor(module.start)',
        'case GateConv(), "bias":\n            return torch.zeros(())',
        "unit/test_junctions.py::test_a_gate_begins_with_its_bias",
    ),
    "initial: α begins at one": (
        "nets/initial.py",
        'case LearnedSum(), "scale":\n            return torch.tensor(module.start)',
        'case LearnedSum(), "scale":\n            return torch.ones(())',
        "unit/test_junctions.py::test_a_learned_scale_begins_where_the_spec_says",
    ),
    "3: a plain net begins with silent branches": (
        "nets/initial.py",
        "    if spec.is_plain:\n        return gains\n",
        "",
        "laws/test_nets.py::test_a_plain_net_ignores_zero_last",
    ),
    "speed: what was there before a training stays frozen": (
        "garbage.py",
        "        gc.unfreeze()",
        "        pass",
        "unit/test_garbage.py::test_settled_leaves_out_what_was_there_and_finds_what_comes",
    ),
    "7: packed tensors lose their order in memory": (
        "training/packing.py",
        "list(value.stride())]",
        "list(value.contiguous().stride())]",
        "unit/test_packing.py::test_everything_comes_back",
    ),
    "7: what a step left half taken is saved": (
        "training/engine.py",
        "            if not self.torn:\n",
        "            if True:\n",
        "laws/test_resume.py::test_a_step_that_somebody_elses_handler_interrupts_is_not_saved",
    ),
    "7: a net keeps the average where it was interrupted": (
        "training/average.py",
        "with deferred_interrupt():",
        "if True:",
        "unit/test_training_parts.py::test_ctrl_c_while_the_average_is_put_on_or_taken_off",
    ),
    "ranks: each takes its share in parts as it likes": (
        "training/stepper.py",
        "least = batch.total if batch.copies > 1 else batch.total // ranks",
        "least = len(batch.labels)",
        "unit/test_training_parts.py::test_every_process_takes_its_share_in_as_many_parts",
    ),
    "speed: the first training to end gives the memory of all back": (
        "training/heap.py",
        "        if _blocks == 0:\n",
        "        if True:\n",
        "unit/test_heap.py::test_blocks_that_end_out_of_turn",
    ),
    "speed: a step's memory goes back to the system": (
        "training/heap.py",
        "library.mallopt(_MMAP_THRESHOLD, _NEVER) or library.mallopt(_MMAP_THRESHOLD, _USUAL)",
        "pass",
        "unit/test_heap.py::test_what_is_freed_is_there_again_without_a_page_fault",
    ),
    "muon: a kernel's update is not made orthogonal": (
        "training/muon.py",
        "            moves = _orthogonal(moves, [self.groups.get(p, 1) for p in params])\n",
        "",
        "unit/test_muon.py::test_it_takes_the_steps_of_pytorchs",
    ),
    "muon: a grouped kernel is one matrix": (
        "training/muon.py",
        "self.groups.get(p, 1) for p in params",
        "1 for p in params",
        "unit/test_muon.py::test_a_grouped_convolution_is_a_matrix_a_group",
    ),
    "a training that never begins leaves parts frozen": (
        "training/engine.py",
        "        with self.frozen.held():",
        "        self.frozen.hold()\n        if True:",
        "unit/test_training_parts.py::test_a_training_that_never_begins_leaves_the_net_as_it_was",
    ),
    "find-lr: classes are not weighed": (
        "training/finder.py",
        "weights=weights)",
        "weights=None)",
        "unit/test_training_parts.py::test_the_search_takes_the_steps_of_the_training",
    ),
    "7: a finished run's lost model stays lost": (
        "training/engine.py",
        "if self.folder and self.folder.lacks_model():",
        "if False:",
        "laws/test_resume.py::test_a_finished_run_makes_its_model_again",
    ),
    "7: an older run's folder is another's": (
        "training/rundir.py",
        "{**_renewed(held), ",
        "{**held, ",
        "laws/test_resume.py::test_a_run_of_a_version_that_knew_fewer_settings_goes_on",
    ),
    "7: Muon's momentum is not in the state": (
        "training/stepper.py",
        '        self.optimiser.load_state_dict(state["optimiser"])\n',
        "",
        "laws/test_resume.py::test_muons_momentum_is_part_of_the_state",
    ),
    "muon: momentum is the last gradient": (
        "training/muon.py",
        'torch._foreach_mul_(buffers, group["momentum"])',
        "torch._foreach_mul_(buffers, 0.0)",
        "unit/test_muon.py::test_other_parameters_take_sgds_steps",
    ),
    "initial: delta-orthogonal values are drawn unevenly": (
        "nets/initial.py",
        "    q, r = found\n",
        "    q, r = drawn, found[1]\n",
        "laws/test_nets.py::test_a_delta_orthogonal_net_keeps_every_length",
    ),
    "3: a silent branch has a bias": (
        "nets/initial.py",
        'if kind in ("weight", "bias") else 1.0',
        'if kind == "weight" else 1.0',
        "laws/test_nets.py::test_a_branch_that_begins_silent_has_no_bias",
    ),
    "6: a header of a few bytes takes all memory": (
        "weights/store.py",
        "        _check_size(file, header.spec, tensors)\n",
        "",
        "laws/test_store.py::test_what_is_no_model_is_refused",
    ),
    "hub: a card that somebody wrote is lost": (
        "hub/repository.py",
        "    if held is None or is_as_written(held):\n",
        "    if True:\n",
        "end_to_end/test_hub.py::test_a_card_is_renewed_until_somebody_writes_in_it",
    ),
    "hub: a model is saved over a run": (
        "hub/repository.py",
        "    _check_place(folder)\n",
        "",
        "end_to_end/test_hub.py::test_a_run_folder_is_no_place_to_save_in",
    ),
    "hub: a token is told to another server": (
        "hub/huggingface.py",
        'other.remove_header("Authorization")',
        "pass",
        "end_to_end/test_hub.py::test_a_token_stays_with_its_server",
    ),
    "hub: another library's repository is written over": (
        "hub/repository.py",
        "        for file in (CONFIG, CARD):\n",
        "        for file in (CARD,):\n",
        "end_to_end/test_hub.py::test_another_library_s_repository_stays_what_it_is",
    ),
    "hub: what was pushed first is loaded for ever": (
        "hub/repository.py",
        "        forget(named, revision)\n",
        "",
        "end_to_end/test_hub.py::test_what_was_pushed_last_is_what_is_loaded",
    ),
    "cli: an error stands at a name that nobody typed": (
        "cli/app.py",
        "_fail(_as_typed(error), error.exit_code)",
        "_fail(str(error), error.exit_code)",
        "end_to_end/test_hostile.py::test_wrong_words",
    ),
    "card: names are markup": (
        "hub/card.py",
        'return _PUNCTUATION.sub(r"\\\\\\1", printable(text))',
        "return printable(text)",
        "unit/test_card.py::test_names_cannot_become_markup",
    ),
    "card: a command line with its paths is published": (
        "hub/card.py",
        'computed = [f"seed {_plain(str(known[\'seed\']))}"] if "seed" in known else []',
        'computed = [str(known.get("command")), f"seed {known[\'seed\']}"]',
        "unit/test_card.py::test_all_that_is_known_is_said_once",
    ),
    "arrays: a class's only picture is set aside": (
        "data/arrays.py",
        "min(max(round(part * len(members)), 1), len(members) - 1)",
        "max(round(part * len(members)), 1)",
        "unit/test_arrays.py::test_a_part_of_every_class_is_set_aside",
    ),
    "arrays: indices are taken for names": (
        "data/arrays.py",
        'if indices and given.dtype.kind != "U":',
        "if False:",
        "unit/test_arrays.py::test_names_are_classes_and_numbers_are_indices_into_given_ones",
    ),
    "rows: levels are cut": (
        "data/rows.py",
        "= np.rint(",
        "= np.floor(",
        "unit/test_arrays.py::test_numbers_become_the_nearest_level",
    ),
    "sklearn: one picture's score is told as one": (
        "sklearn.py",
        'left_out = () if self.validation_fraction else ("val_loss", "val_error")',
        "left_out = ()",
        "end_to_end/test_sklearn.py::test_the_model_is_one_as_any_other",
    ),
    "sklearn: the seed is not the caller's": (
        "sklearn.py",
        "        return int(random_state)\n",
        "        return 0\n",
        "end_to_end/test_sklearn.py::test_the_seed_decides_and_nothing_else",
    ),
    "sklearn: a fit that failed leaves its classes": (
        "sklearn.py",
        "            self.__dict__ = before\n",
        "",
        "end_to_end/test_sklearn.py::test_a_fit_that_fails_changes_nothing",
    ),
    "sklearn: uint8 is taken for numbers from 0 to 1": (
        "sklearn.py",
        "        check_same_numbers(rows, self.value_range_, eight_bits=self._eight_bits)\n",
        "",
        "end_to_end/test_sklearn.py::test_eight_bits_and_other_numbers_are_not_mixed",
    ),
    "folding: a frozen normaliser becomes a bias that trains": (
        "surgery/folding.py",
        'trained[f"{norm}.bias"] for',
        "True for",
        "laws/test_folding.py::test_mode_precision_memory_order_and_frozen_parameters_stay",
    ),
    "predict: answers are out of order": (
        "deploy/stream.py",
        "itertools.chain(first, read)",
        "itertools.chain(read, first)",
        "unit/test_stream.py::test_answers_are_those_of_one_at_a_time_in_order",
    ),
    "predict: all files are taken at once": (
        "deploy/stream.py",
        "window=(1 + AHEAD) * batch",
        "window=10_000",
        "unit/test_stream.py::test_few_pictures_are_held_and_threads_end",
    ),
    "flips: the mean of logits": (
        "deploy/stream.py",
        ".log_softmax(2).logsumexp(0) - math.log(2)",
        ".mean(0)",
        "unit/test_stream.py::test_flips_are_the_mean_of_both_pictures",
    ),
    "ways: an inexact one is taken unasked": (
        "deploy/choosing.py",
        '(wanted == "fastest" and way.numbers != "float32")',
        "True",
        "unit/test_choosing.py::test_what_is_not_exact_has_to_be_asked_for",
    ),
    "ways: a remembered one is not compared": (
        "deploy/choosing.py",
        "one.agreement.exact or",
        "one.agreement.exact or held is not None or",
        "unit/test_choosing.py::test_a_remembered_way_is_compared_again",
    ),
    "ways: what is no number is within the tolerance": (
        "deploy/choosing.py",
        "return self.difference <= EXACT",
        "return not self.difference > EXACT",
        "unit/test_choosing.py::test_logits_that_are_not_finite_are_not_exact",
    ),
    "threshold: images of one probability are parted": (
        "deploy/threshold.py",
        "(last & (100 * right >= wanted * taken))",
        "(100 * right >= wanted * taken)",
        "unit/test_threshold.py::test_it_is_the_lowest_that_will_do",
    ),
    "tree: a class leads out of the folder": (
        "deploy/results.py",
        '.strip(" .") or "_"',
        ' or "_"',
        "unit/test_results.py::test_no_two_classes_share_a_folder_and_each_is_one_name",
    ),
    "tree: a picture takes another's place": (
        "deploy/results.py",
        "            place = _free(place)\n",
        "",
        "unit/test_results.py::test_pictures_of_one_name_stay_two",
    ),
    "the first unit does not share its activation": (
        "describe/spec.py",
        'special = first and self.first == "shared"',
        "special = False",
        "laws/test_nets.py::test_the_first_unit_shares_its_activation",
    ),
    "serve: a body is not counted as it comes": (
        "deploy/serve/body.py",
        "        _check(count, limits)\n",
        "",
        "unit/test_serve.py::test_what_is_refused",
    ),
    "serve: half a form will do": (
        "deploy/serve/body.py",
        "        if not self._whole:\n",
        "        if False:\n",
        "unit/test_serve.py::test_a_form_cut_short_anywhere_is_refused",
    ),
    "serve: who goes leaves the bytes behind": (
        "deploy/serve/limits.py",
        "            self.bytes -= visit.bytes\n",
        "",
        "unit/test_serve.py::test_no_more_is_let_in_than_there_is_room_for_and_all_of_it_goes_out",
    ),
    "serve: what is given up is computed": (
        "deploy/serve/queue.py",
        "            if not asked.future.done():\n",
        "            if True:\n",
        "unit/test_serve.py::test_what_is_given_up_is_not_computed",
    ),
    "serve: a batch is one too large": (
        "deploy/serve/queue.py",
        "len(taken) < self._batch",
        "len(taken) <= self._batch",
        "unit/test_serve.py::test_while_a_batch_is_computed_the_next_one_gathers",
    ),
    "serve: a bomb is unpacked": (
        "deploy/serve/decoder.py",
        "if height * width > self._limits.pixels:",
        "if False:",
        "unit/test_serve.py::test_pictures_that_are_refused_by_number",
    ),
    "serve: any token will do": (
        "deploy/serve/app.py",
        'kind.lower() != "bearer" or not hmac',
        'kind.lower() != "bearer" and not hmac',
        "end_to_end/test_serve.py::test_a_token",
    ),
    "serve: who left is still computed for": (
        "deploy/serve/service.py",
        "        if not working.done():\n            raise ClientDisconnect\n        return working.result()\n",
        "        return await working\n",
        "end_to_end/test_serve.py::test_what_nobody_waits_for_any_more_is_not_computed",
    ),
    "serve: a head may come drop by drop": (
        "deploy/serve/connection.py",
        "        self._within(self.timeout_keep_alive)\n",
        "",
        "end_to_end/test_serve.py::test_nobody_holds_a_connection_without_asking",
    ),
    "serve: any film is scans": (
        "deploy/serve/decoder.py",
        r'rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)"',
        r'rb"\xff\xda"',
        "unit/test_serve.py::test_a_film_behind_a_photograph_is_no_scans",
    ),
    "serve: bytes that were announced are held": (
        "deploy/serve/body.py",
        "        _check(announced, limits)  # but",
        "        visit.hold(bytes=announced)  # but",
        "unit/test_serve.py::test_only_bytes_that_came_are_held",
    ),
    "serve: any name will do": (
        "deploy/serve/guard.py",
        "if name not in self._hosts:",
        "if name is None:",
        "end_to_end/test_serve.py::test_on_this_machine_it_goes_by_names_of_this_machine",
    ),
    "serve: what is refused is let in": (
        "deploy/serve/limits.py",
        "if gate.pictures + more[0] > limits.queue:",
        "if gate.pictures + more[0] > 2 * limits.queue:",
        "unit/test_serve.py::test_no_more_is_let_in_than_there_is_room_for_and_all_of_it_goes_out",
    ),
    "8: OpenVINO is proved with many threads only": (
        "deploy/export.py",
        "        if self._alone:\n",
        "        if False:\n",
        "unit/test_export.py::test_openvinos_answers_by_one_thread_are_part_of_the_proof",
    ),
    "ways: a wrong way is fast": (
        "deploy/choosing.py",
        '(wanted == "fastest" and way.numbers != "float32")',
        'wanted == "fastest"',
        "unit/test_choosing.py::test_a_float32_way_with_other_answers_is_wrong_and_not_fast",
    ),
    "replay: a recording has the pictures it was made of": (
        "training/replay.py",
        "        self._batch.images.copy_(batch.images, non_blocking=True)\n",
        "",
        "unit/test_replay.py::test_every_batch_has_its_own_gradient_and_the_fourth_of_a_shape_is_recorded",
    ),
    "replay: any share will do": (
        "training/replay.py",
        "if batch.others is not None or self.why is not None:",
        "if self.why is not None:",
        "unit/test_replay.py::test_shares_that_differ_and_other_totals_are_not_replayed",
    ),
    "lesion: a block that is cut computes": (
        "instruments/lesion.py",
        "            changed.enter_context(taps.computing(block, _without(site, block)))\n",
        "            pass\n",
        "unit/test_serve.py::test_a_cut_block_computes_nothing_and_afterwards_all_is_as_it_was",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code and its tests, broken in one file at a time: what stays whole stays compiled."""
    folder = tmp_path_factory.mktemp("broken")
    for source, copy in ((SOURCE, "src/deepskip"), (TESTS, "tests")):
        shutil.copytree(source, folder / copy, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def runner(folder: Path) -> Iterator[Callable[[str], int]]:
    """Run a test in the folder and return its exit status; one process holds the libraries ready for all."""
    quick = {
        "DEEPSKIP_HYPOTHESIS": "mutant",
        "DEEPSKIP_PATIENCE": "5",
        "OPENBLAS_NUM_THREADS": "1",  # it would start its threads before the forks
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    with subprocess.Popen(
        [sys.executable, Path(__file__).parent / "breaking.py", folder],
        env=os.environ | quick,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        asks, answers = process.stdin, process.stdout

        def run(test: str) -> int:
            asks.write(json.dumps(test) + "\n")
            asks.flush()
            return int(json.loads(answers.readline()))

        yield run
        asks.close()


@contextlib.contextmanager
def broken(path: Path, right: str, wrong: str) -> Iterator[None]:
    """Let `path` hold `wrong` for `right` in the block."""
    text = path.read_text(encoding="utf-8")
    assert text.count(right) == 1, f"{path.name} has changed: renew this mutant"
    compiled = Path(importlib.util.cache_from_source(path))
    path.write_text(text.replace(right, wrong), encoding="utf-8")
    compiled.unlink(missing_ok=True)  # it is held to be the file's by second and size, which may be the same
    try:
        yield
    finally:
        path.write_text(text, encoding="utf-8")
        compiled.unlink(missing_ok=True)


@pytest.mark.parametrize("law", MUTANTS)
def test_the_law_notices(law: str, folder: Path, runner: Callable[[str], int]) -> None:
    file, right, wrong, test = MUTANTS[law]
    with broken(folder / "src" / "deepskip" / file, right, wrong):
        status = runner(test)
    printed = (folder / "output.txt").read_text(encoding="utf-8")
    assert status == 1, f"the test passed on broken code, or did not run:\n{printed}"
    assert "1 failed" in printed
