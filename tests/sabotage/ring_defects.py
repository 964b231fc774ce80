"""Defects of lockstep of foreign rings: random state, stages, earlier outputs, bounds; each with its test."""

from __future__ import annotations

from tests.sabotage.runner import Defect

PROOFS, TESTS = "harness/parity/proofs", "tests/parity/proofs"

RINGS = [
    Defect(
        "both sides draw from one sequence",
        f"{PROOFS}/randomness.py",
        "            source.write(states[number])\n",
        "            pass\n",
        f"{TESTS}/test_randomness.py::test_each_side_draws_what_it_draws_alone_and_the_caller_draws_what_comes_next",
    ),
    Defect(
        "the caller's random state is not restored",
        f"{PROOFS}/randomness.py",
        "                source.write(callers)\n",
        "                pass\n",
        f"{TESTS}/test_randomness.py::test_the_callers_state_is_restored_also_after_an_error",
    ),
    Defect(
        "a side's own generator is rewound for the other side",
        f"{PROOFS}/randomness.py",
        "min(sides) if len(sides) == 1 else None",
        "None",
        f"{TESTS}/test_randomness.py::test_a_generator_that_one_side_names_moves_on_with_that_side_alone",
    ),
    Defect(
        "generators that the rings name are not kept apart",
        f"{PROOFS}/generic.py",
        "Isolation([side.generators() for side in pair], on=isolate)",
        "Isolation([[] for _ in pair], on=isolate)",
        f"{TESTS}/test_ring.py::test_equal_rings_that_draw_from_one_generator_agree",
    ),
    Defect(
        "the state of a ring is not compared",
        f"{PROOFS}/generic.py",
        "tree_differences(fast.tree, plain.tree) + tree_differences(fast.state, plain.state)",
        "tree_differences(fast.tree, plain.tree)",
        f"{TESTS}/test_ring.py::test_state_that_no_output_shows_yet_is_compared_after_every_event",
    ),
    Defect(
        "stages are ordered by their names",
        f"{PROOFS}/stages.py",
        "sorted(groups, key=lambda key: key[0])",
        "sorted(groups, key=lambda key: groups[key][0].stage)",
        f"{TESTS}/test_stages.py::test_stages_are_ordered_as_the_plain_ring_reports_them",
    ),
    Defect(
        "what the fast ring alone reports is not seen",
        f"{PROOFS}/stages.py",
        "for place in {**plain, **fast}:",
        "for place in plain:",
        f"{TESTS}/test_stages.py::test_a_stage_that_one_side_alone_reports_is_a_difference",
    ),
    Defect(
        "a stage that may be skipped is never compared",
        f"{PROOFS}/stages.py",
        "        if plain is None or fast is None:\n",
        "        if plain is None or fast is None or names & self.where_both:\n",
        f"{TESTS}/test_stages.py::test_a_stage_that_may_be_skipped_is_compared_where_both_report_it",
    ),
    Defect(
        "a report is kept without a copy",
        f"{PROOFS}/stages.py",
        "copied(tensor, place.path)",
        "tensor",
        f"{TESTS}/test_stages.py::test_a_report_is_copied_when_it_is_made",
    ),
    Defect(
        "earlier outputs are compared with themselves",
        f"{PROOFS}/handed_out.py",
        "identical(output.tensor, output.copy)",
        "identical(output.tensor, output.tensor)",
        f"{TESTS}/test_handed_out.py::test_a_buffer_that_is_used_again_is_named_with_both_events",
    ),
    Defect(
        "outputs are remembered without end",
        f"{PROOFS}/handed_out.py",
        "deque(maxlen=remember)",
        "deque()",
        f"{TESTS}/test_handed_out.py::test_only_the_outputs_of_the_last_events_are_remembered",
    ),
    Defect(
        "the fast ring goes on with its own tensor of a bounded stage",
        f"{PROOFS}/stages.py",
        "torch.empty_like(tensor, requires_grad=False).copy_(given)",
        "tensor",
        f"{TESTS}/test_bounds.py::test_within_a_measured_bound_the_rings_agree_and_the_verdict_names_the_bound",
    ),
    Defect(
        "what is beyond a bound passes",
        f"{PROOFS}/stages.py",
        "        return found if note else []\n",
        "        return []\n",
        f"{TESTS}/test_bounds.py::test_a_decoder_that_is_wrong_leaves_its_bound",
    ),
    Defect(
        "a NaN is within every bound",
        f"{PROOFS}/bounds.py",
        "_distance(fast, plain) <= most)",
        "_distance(fast, plain) <= most or _distance(fast, plain) == math.inf)",
        f"{TESTS}/test_bounds.py::test_a_decoder_that_is_wrong_leaves_its_bound",
    ),
    Defect(
        "a bounded run counts as exact",
        "harness/plugin/fixtures.py",
        "self._ledger.tolerance if agreed.bounds else self._ledger.exact",
        "self._ledger.exact",
        "tests/plugin/test_fixtures.py::test_a_comparison_within_a_bound_is_none_that_is_exact",
    ),
    Defect(
        "only the first group of rows is measured",
        f"{PROOFS}/bounds.py",
        "range(0, rows, size)]",
        "range(0, rows, size)][:1]",
        f"{TESTS}/test_bounds.py::test_rows_are_cut_into_groups_of_the_largest_batch_and_every_group_counts",
    ),
    Defect(
        "a row that was measured is beyond its own bound by a rounding",
        f"{PROOFS}/bounds.py",
        "_distance(fast, plain) <= most)",
        "max_abs(fast, plain) <= self.limit(plain))",
        f"{TESTS}/test_bounds.py::test_the_rows_that_were_measured_are_within_their_own_bound",
    ),
    Defect(
        "everything is within a bound that is not finite",
        f"{PROOFS}/bounds.py",
        "math.isfinite(most) and math.isfinite(_rms(plain))",
        "math.isfinite(_rms(plain))",
        f"{TESTS}/test_bounds.py::"
        "test_a_row_that_was_zero_and_then_was_not_gives_no_bound_that_everything_is_within",
    ),
    Defect(
        "a row has the same neighbours in every batch that is measured",
        f"{PROOFS}/bounds.py",
        "        yield list(group[::-1][:size])\n",
        "",
        f"{TESTS}/test_bounds.py::test_neighbours_come_in_both_orders",
    ),
    Defect(
        "the last group is not measured where it is smaller",
        f"{PROOFS}/bounds.py",
        "for start in range(0, rows, size)]",
        "for start in range(0, rows - size + 1, size)]",
        f"{TESTS}/test_bounds.py::test_rows_are_cut_into_groups_of_the_largest_batch_and_every_group_counts",
    ),
    Defect(
        "a ring's state is read with the caller's generators",
        f"{PROOFS}/generic.py",
        "            state = None if side.ring is None or error is not None else",
        "        state = None if side.ring is None or error is not None else",
        f"{TESTS}/test_ring.py::test_a_generator_whose_state_a_ring_holds_is_that_of_its_own_side",
    ),
    Defect(
        "an output without axes is not compared again",
        f"{PROOFS}/handed_out.py",
        "if tensor is not None and tensor.numel())",
        "if tensor is not None and tensor.ndim)",
        f"{TESTS}/test_handed_out.py::test_an_output_without_axes_is_compared_again_too",
    ),
    Defect(
        "a stage of a later tick comes before one of an earlier tick",
        f"{PROOFS}/stages.py",
        "(place.tick, place.stage, place.again), len",
        "(place.stage, place.again), len",
        f"{TESTS}/test_stages.py::test_stages_of_one_tick_come_before_those_of_the_next_in_the_same_event",
    ),
]
