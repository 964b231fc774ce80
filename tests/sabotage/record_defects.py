"""Defects of records, of refusals and of names, and for each the test that must notice it."""

from __future__ import annotations

from tests.sabotage.runner import Defect

ENGINE = "harness/engine"
PIPELINE, REQUEST, SESSION = f"{ENGINE}/pipeline.py", f"{ENGINE}/request.py", f"{ENGINE}/session.py"
STATE = f"{ENGINE}/state.py"
LAWS, REFUSALS = "tests/engine/test_record_laws.py", "tests/engine/test_refusals.py"
T_PIPELINE = "tests/engine/test_pipeline.py"

RECORDS = [
    Defect(
        "a first request that is refused fixes the sizes",
        PIPELINE,
        "        geometry.accept(request, self.executor)\n",
        "        self._state = replace(state, geometry=geometry, proven=True)\n"
        "        geometry.accept(request, self.executor)\n",
        f"{REFUSALS}::test_what_does_not_fit_the_pipeline_leaves_everything_as_it_was[request of a control-new]",
    ),
    Defect(
        "a depth that is refused stays in force",
        PIPELINE,
        '        self._check_depth("depth", depth)\n',
        '        self._state = replace(self._state, depth=depth)\n        self._check_depth("depth", depth)\n',
        f"{REFUSALS}::test_a_refused_value_leaves_everything_as_it_was[live.depth-shrunk]",
    ),
    Defect(
        "a control that is refused takes the old one away",
        PIPELINE,
        "        made = None if value is None else checked(value)\n",
        "        self._control(lambda controls: controls.sharing(control, None))\n"
        "        made = None if value is None else checked(value)\n",
        f"{REFUSALS}::test_a_refused_value_leaves_everything_as_it_was[live.velocity_scale-shrunk]",
    ),
    Defect(
        "a stream that refuses forgets its last submission",
        SESSION,
        "            request = replace(self._template, seed=seed",
        "            self.last_submission = None\n            request = replace(self._template, seed=seed",
        f"{REFUSALS}::test_a_stream_that_refuses_leaves_everything_as_it_was[seed-1]",
    ),
    Defect(
        "an automatic name counts submissions alone",
        STATE,
        "number = max(self.stats.submitted, self.unused_name)",
        "number = self.stats.submitted",
        f"{REFUSALS}::test_an_automatic_name_is_never_one_that_a_caller_used_or_an_earlier_automatic_one",
    ),
    Defect(
        "a name that is empty or 0 is lost",
        STATE,
        "        if request.id is None:\n",
        "        if not request.id:\n",
        f"{REFUSALS}::test_a_name_is_handed_out_as_it_was_given[0]",
    ),
    Defect(
        "a live control takes any number",
        PIPELINE,
        "device=self._device, **control.bounds)",
        "device=self._device)",
        f"{LAWS}::test_the_neighbour_beyond_a_bound_is_refused_by_name[live.velocity_scale]",
    ),
    Defect(
        "a norm threshold that float32 rounds to 0 is taken",
        REQUEST,
        "self.norm_threshold, **ranges.NORM)",
        "self.norm_threshold, 5e-324)",
        f"{LAWS}::test_a_number_that_float32_cannot_hold_is_refused_or_runs_finite[Guidance.norm_threshold]",
    ),
    Defect(
        "a float64 tensor is checked as float64",
        f"{ENGINE}/checks.py",
        "torch.isfinite(value.detach().float())",
        "torch.isfinite(value)",
        f"{LAWS}::test_a_float64_tensor_that_float32_cannot_hold_is_refused_by_name",
    ),
    Defect(
        "a range is checked at the smallest value alone",
        f"{ENGINE}/curve.py",
        "made.largest > high",
        "made.smallest > high",
        f"{LAWS}::test_one_frame_beyond_a_bound_is_enough_to_refuse_a_curve[Guidance.scale]",
    ),
    Defect(
        "a tick records a graph",
        PIPELINE,
        "            with torch.no_grad(), ",
        "            with torch.enable_grad(), ",
        f"{LAWS}::test_no_latent_of_a_ring_carries_a_graph",
    ),
    Defect(
        "the channel gain is the caller's tensor",
        f"{ENGINE}/curve.py",
        "    return _of_tensor(field, value, tuple(value.shape), _SEEN_PER_CHANNEL)\n",
        "    return of_values(value.detach().to(torch.float32))\n",
        f"{LAWS}::test_a_caller_may_write_into_what_was_copied[live.channel_gain]",
    ),
    Defect(
        "a source is mixed in its own dtype",
        f"{ENGINE}/slot.py",
        "solver.renoised(source.float(), drawn, first)",
        "solver.renoised(source, drawn, first)",
        f"{LAWS}::test_a_slot_reads_a_latent_of_another_dtype_as_float32",
    ),
    Defect(
        "a step range is compared by products",
        REQUEST,
        "self.step_range[0] <= step / total < self.step_range[1]",
        "self.step_range[0] * total <= step < self.step_range[1] * total",
        f"{LAWS}::test_a_step_range_begins_and_ends_at_exact_fractions_of_the_steps[49]",
    ),
    Defect(
        "of an executor's output the number of rows is checked alone",
        f"{ENGINE}/executors/base.py",
        "made.shape == shape and",
        "made.shape[:1] == shape[:1] and",
        f"{REFUSALS}::test_a_velocity_of_another_shape_is_refused_and_leaves_everything_as_it_was",
    ),
    Defect(
        "the ring is closed up when a slot finishes",
        STATE,
        "fitted(stays, state.depth)",
        "fitted(tuple(sorted(stays, key=lambda slot: slot is None)), state.depth)",
        f"{T_PIPELINE}::test_a_slot_keeps_its_place_as_long_as_it_is_in_flight",
    ),
    Defect(
        "the queue is as long as the depth that was configured",
        STATE,
        "max(len(state.queue) - state.depth, 0)",
        "max(len(state.queue) - 4, 0)",
        f"{T_PIPELINE}::test_a_smaller_depth_drops_the_oldest_that_wait_beyond_it_and_so_does_the_next_submission",
    ),
]
