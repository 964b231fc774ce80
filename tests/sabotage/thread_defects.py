"""Defects of threads, and for each the test that must notice it; the tests switch threads by a seed."""

from __future__ import annotations

from tests.sabotage.runner import Defect

ENGINE = "harness/engine"
PIPELINE, STATE, TURNS = f"{ENGINE}/pipeline.py", f"{ENGINE}/state.py", f"{ENGINE}/turns.py"
INSIDE, SHARING = "tests/engine/test_threads.py", "tests/engine/test_threads_sharing.py"
SWITCHED = f"{INSIDE}::test_eight_threads_that_a_seed_switches_lose_no_request_and_no_bit"

THREADS = [
    Defect(
        "a submission takes no lock",
        PIPELINE,
        "        with self._lock:\n            return self._queued(request, fixed)\n",
        "        return self._queued(request, fixed)\n",
        SWITCHED,
    ),
    Defect(
        "a tick commits without a lock",
        PIPELINE,
        "        with self._lock:\n            counted = plan.counted(",
        "        if plan:\n            counted = plan.counted(",
        SWITCHED,
    ),
    Defect(
        "what a running tick admits still fills the queue",
        STATE,
        "max(len(state.queue) - state.depth, 0)",
        "max(len(state.queue) + len(state.taken) - state.depth, 0)",
        f"{INSIDE}::test_a_submission_inside_a_run_finds_the_queue_without_what_the_tick_admits",
    ),
    Defect(
        "what a running tick holds is dropped in silence",
        STATE,
        "        gone=(*state.gone, *gone),\n",
        "        gone=state.gone,\n",
        f"{INSIDE}::test_another_length_inside_a_run_drops_what_waits_at_once_and_what_runs_at_the_next_tick",
    ),
    Defect(
        "what a failed tick took is lost",
        STATE,
        "(*back, *self.queue)",
        "self.queue",
        f"{INSIDE}::test_a_tick_that_fails_puts_back_what_it_took_before_what_came_meanwhile",
    ),
    Defect(
        "a failed tick takes back what others have changed",
        STATE,
        "replace(self, before=None, stats=counted",
        "replace(self, stats=counted",
        f"{INSIDE}::test_a_tick_that_fails_puts_back_what_it_took_before_what_came_meanwhile",
    ),
    Defect(
        "pipelines take no turns on the executor that they share",
        TURNS,
        "        with self._lock:\n            self._owner = here\n",
        "        if here:\n            self._owner = here\n",
        f"{SHARING}::test_threads_that_a_seed_switches_inside_ticks_share_an_executor",
    ),
    Defect(
        "every pipeline has a turn of its own",
        TURNS,
        "            if known is None:\n",
        "            if known is None or executor.max_rows:\n",
        f"{SHARING}::test_pipelines_of_an_executor_have_one_turn_which_goes_with_the_executor",
    ),
    Defect(
        "threads share the mask of a decoder",
        f"{ENGINE}/decoders/ace_step.py",
        "nullcontext() if torch.compiler.is_compiling() else self._lock",
        "nullcontext()",
        f"{SHARING}::test_threads_that_a_seed_switches_inside_runs_share_a_decoder",
    ),
    Defect(
        "a tick forgets what was marked while it ran",
        f"{ENGINE}/pace.py",
        "        self._marks.clear()\n",
        "        self._marks.clear()\n        self._fresh.clear()\n",
        "tests/engine/test_pace.py::test_what_is_marked_while_a_tick_runs_is_waited_for_by_the_next_one",
    ),
    Defect(
        "a drain that fails loses what had finished",
        PIPELINE,
        "                self._state = self._state.keeping(made)\n",
        "                pass\n",
        "tests/engine/test_failures.py::test_a_drain_whose_tick_fails_keeps_what_it_has_for_the_next_call",
    ),
]
