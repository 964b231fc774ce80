"""Defects of what holds against faults, and for each the test that must notice it."""

from __future__ import annotations

from tests.sabotage.runner import Defect

ENGINE = "harness/engine"
PARCELS, STATE, SESSION = f"{ENGINE}/parcels.py", f"{ENGINE}/state.py", f"{ENGINE}/session.py"
MEMORY, STATIC = f"{ENGINE}/executors/memory.py", f"{ENGINE}/executors/static.py"
FAULTS, OUT = "tests/engine/test_faults.py", "tests/engine/executors/test_memory.py"
FLAGS, T_FLAGS = "harness/parity/baselines/flags.py", "tests/parity/baselines/test_flags.py"
ANY_LINE = f"{FAULTS}::test_an_interrupt_at_any_line"

FAULTY = [
    Defect(
        "a call that is interrupted at its last line loses what it hands out",
        PARCELS,
        "            parcel.content = content\n",
        "            pass\n",
        f"{ANY_LINE}_of_a_tick_loses_nothing_and_says_nothing_twice[tick]",
    ),
    Defect(
        "what a failed call has kept is left to its thread",
        PARCELS,
        "        parcel.thread = None\n",
        "",
        f"{FAULTS}::test_what_a_call_of_one_thread_has_failed_to_hand_out_another_thread_gets",
    ),
    Defect(
        "what a dead thread has kept is left to it",
        PARCELS,
        " or not thread.is_alive()",
        "",
        f"{FAULTS}::test_what_a_thread_that_ended_did_not_hand_out_is_handed_out_to_another_one",
    ),
    Defect(
        "what another thread is handing out is handed out twice",
        PARCELS,
        "        return thread is None or",
        "        return thread is not None or",
        f"{FAULTS}::test_what_another_thread_is_handing_out_is_left_to_it",
    ),
    Defect(
        "parcels that have arrived are kept",
        STATE,
        "if each.content is not None and id(each) not in gone]",
        "if id(each) not in gone]",
        f"{FAULTS}::test_a_parcel_that_has_arrived_is_forgotten_by_the_next_call",
    ),
    Defect(
        "a tick that fails takes back what was handed out meanwhile",
        STATE,
        "return replace(self, before=None, parcels=",
        "return replace(self, parcels=",
        f"{FAULTS}::test_a_tick_that_fails_does_not_take_back_what_was_handed_out_meanwhile",
    ),
    Defect(
        "a drain does not wait for what an interrupted tick took",
        STATE,
        "self.queue or self.taken or self.gone",
        "self.queue or self.gone",
        f"{FAULTS}::test_an_interrupt_while_a_failed_tick_is_tidied_up_loses_nothing",
    ),
    Defect(
        "a submission that is interrupted keeps to itself what it displaced",
        f"{ENGINE}/keeping.py",
        "            self._state = state.sending(parcel) if left else state\n",
        "            self._state = state\n",
        f"{ANY_LINE}_of_a_submission_leaves_it_whole_or_undone_and_names_what_it_displaced",
    ),
    Defect(
        "a stream whose tick is interrupted forgets what it has submitted",
        SESSION,
        "            return known is not None and self.pipeline.keeps(known)\n",
        "            return False\n",
        f"{ANY_LINE}_of_a_stream_s_tick_submits_once_and_loses_nothing",
    ),
    Defect(
        "a stream whose tick is interrupted at its end loses what it hands out",
        SESSION,
        "                self.pipeline.keep(made)\n",
        "                pass\n",
        f"{ANY_LINE}_of_a_stream_s_tick_submits_once_and_loses_nothing",
    ),
    Defect(
        "a turn does not know that it is inside itself",
        f"{ENGINE}/turns.py",
        "        if self._is_inside():\n",
        "        if not self._what:\n",
        "tests/engine/test_threads.py::test_a_tick_inside_a_tick_is_refused_by_name_and_harms_nothing",
    ),
    Defect(
        "an executor without memory frees nothing",
        MEMORY,
        "    free()\n",
        "",
        f"{OUT}::test_a_static_executor_frees_its_buffers_and_runs_again",
    ),
    Defect(
        "an executor runs again after any error",
        MEMORY,
        "        if not is_out_of_memory(error):\n",
        "        if error is None:\n",
        f"{OUT}::test_any_other_error_is_reported_at_once",
    ),
    Defect(
        "the cause of an error is not looked at",
        MEMORY,
        "        error = error.__cause__\n",
        "        error = None\n",
        f"{OUT}::test_an_error_is_told_by_what_caused_it",
    ),
    Defect(
        "a wrong velocity is learnt for ever",
        STATIC,
        "                self._buffers.drop(_shapes(prepared))\n",
        "",
        f"{OUT}::test_one_wrong_velocity_at_the_learning_call_is_no_lesson_for_ever[dtype]",
    ),
    Defect(
        "a session keeps its closed streams",
        SESSION,
        "            self._streams.pop(id(stream), None)\n",
        "            self._streams.get(id(stream), None)\n",
        "tests/engine/test_session.py::test_a_session_lets_closed_streams_go",
    ),
    Defect(
        "a variable that changes no bit loosens the gate",
        FLAGS,
        "    if probed and probe() == fresh_probe():\n",
        "    if probed and not fresh_probe():\n",
        f"{T_FLAGS}::test_a_variable_or_setting_that_changes_no_bit_is_in_no_fingerprint",
    ),
    Defect(
        "the probe looks at no convolution and no product",
        FLAGS,
        "                digest.update(made.contiguous()",
        "                digest.update(torch.zeros_like(made)",
        f"{T_FLAGS}::test_a_variable_that_changes_bits_is_named_in_its_process[MKL_CBWR=COMPATIBLE]",
    ),
    Defect(
        "a setting of torch is not named",
        FLAGS,
        "flag.read() for name, flag in FLAGS.items() if flag.read() != flag.fresh}",
        "flag.read() for name, flag in FLAGS.items() if not flag.fresh and flag.read()}",
        f"{T_FLAGS}::test_a_setting_that_changes_bits_is_named_by_check[mkldnn_enabled]",
    ),
    Defect(
        "a tick computes under its caller's autocast",
        f"{ENGINE}/transfer.py",
        "return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()",
        "return torch.autocast(kind, enabled=False) if not kind else nullcontext()",
        "tests/engine/test_autocast.py::test_a_tick_inside_a_caller_s_setting_makes_the_bits_that_it_makes_without[autocast]",
    ),
    Defect(
        "a wavelet is judged under autocast",
        f"{ENGINE}/wavelet.py",
        '        with torch.autocast("cpu", enabled=False):\n            restored',
        '        with torch.autocast("cpu", enabled=torch.is_autocast_enabled("cpu")):\n            restored',
        "tests/engine/test_autocast.py::test_a_wavelet_is_judged_as_it_is_without_autocast",
    ),
]
