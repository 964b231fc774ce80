"""Defects that only a GPU shows, and for each the test there that must notice it; each was seen red on an H100.

`python -m tests.sabotage --gpu` plants them, on a machine that has one.
"""

from __future__ import annotations

from tests.sabotage.runner import Defect

PIPELINE, TRANSFER = "harness/engine/pipeline.py", "harness/engine/transfer.py"
PACE, SESSION = "harness/engine/pace.py", "harness/engine/session.py"
SUBMIT, KEPT = "tests/gpu/test_submit.py", "tests/gpu/test_kept.py"

ON_GPU = [
    Defect(
        "a tick does not wait for what another stream submitted",
        PIPELINE,
        "        ordered.mark(records.tensors((queued, controls)))\n",
        "",
        f"{SUBMIT}::test_submissions_and_ticks_may_run_on_any_stream",
    ),
    Defect(
        "a tick does not wait for the submissions of other streams",
        PACE,
        "        before = [event for stream, event in self._marks.items() if stream != current]\n",
        "        before = []\n",
        f"{SUBMIT}::test_submissions_and_ticks_may_run_on_any_stream",
    ),
    Defect(
        "a tick does not wait for the last one on another stream",
        PACE,
        "        before += [event for event, stream in list(self._ends)[-1:] if stream != current]\n",
        "",
        f"{KEPT}::test_a_tick_waits_for_the_last_one_on_another_stream",
    ),
    Defect(
        "a value is read before its copy has ended",
        TRANSFER,
        "                self._block.event.synchronize()\n",
        "",
        f"{SUBMIT}::test_a_request_that_ends_early_is_waited_for_before_its_latent_is_handed_out",
    ),
    Defect(
        "a host block is written to while its copy is in flight",
        TRANSFER,
        "                if block.event.query():\n",
        "                if True:\n",
        f"{SUBMIT}::test_a_value_that_is_not_finite_fails_its_request_at_its_tick_and_no_other",
    ),
    Defect(
        "a stream does not wait for the copies of other streams",
        TRANSFER,
        'launched on the device\'s other streams."""\n',
        'launched on the device\'s other streams."""\n    return\n',
        f"{KEPT}::test_a_curve_that_a_record_copied_on_another_stream_is_there_when_the_tick_reads_it",
    ),
    Defect(
        "nobody learns of a copy that was launched",
        TRANSFER,
        'makes a tensor that a ring on any stream may read."""\n',
        'makes a tensor that a ring on any stream may read."""\n    return\n',
        f"{KEPT}::test_a_curve_that_a_record_copied_on_another_stream_is_there_when_the_tick_reads_it",
    ),
    Defect(
        "the null condition is read before another stream has made it",
        SESSION,
        "            note(states.device)\n",
        "",
        f"{KEPT}::test_a_session_s_null_condition_made_on_another_stream_is_there_when_the_tick_reads_it",
    ),
    Defect(
        "memory of a request is reused while the submitting stream reads it",
        PACE,
        "                tensor.record_stream(stream)\n",
        "                pass\n",
        f"{KEPT}::test_what_a_tick_reads_is_kept_until_the_tick_s_stream_is_done",
    ),
    Defect(
        "memory of a request is reused while the ticking stream reads it",
        PACE,
        "                tensor.record_stream(current)\n",
        "                pass\n",
        f"{KEPT}::test_what_a_tick_reads_is_kept_until_the_tick_s_stream_is_done",
    ),
    Defect(
        "memory of a failed tick is reused while its work still runs",
        PIPELINE,
        "                self._pace.mark(())\n",
        "                pass\n",
        f"{KEPT}::test_what_a_failed_tick_left_in_the_cache_is_kept_until_the_next_tick_s_stream_is_done",
    ),
    Defect(
        "memory of a control is reused while a tick reads it",
        PIPELINE,
        "        self._pace.mark(records.tensors(controls))\n",
        "",
        f"{KEPT}::test_a_control_that_was_replaced_is_kept_until_the_tick_s_stream_is_done",
    ),
    Defect(
        "the host runs ahead without a bound",
        PACE,
        "            self._ends[0][0].synchronize()\n",
        "",
        f"{SUBMIT}::test_the_host_is_never_further_ahead_than_asked",
    ),
    Defect(
        "a small host input is copied from pageable memory",
        TRANSFER,
        "    block = BLOCKS.take(host.nbytes, _indexed(device))\n    staged",
        "    moved = host.to(device)\n    note(device)\n    return moved\n    staged",
        f"{SUBMIT}::test_neither_record_nor_submission_nor_tick_waits_whatever_is_new",
    ),
]
"""Waits, order and memory of streams."""
