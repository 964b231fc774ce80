"""Defects of the rails and wrappers for projects with an engine of their own, each with its test."""

from __future__ import annotations

from tests.sabotage.runner import Defect

_CALLS, _BLOCK, _COUNTERS = (f"harness/rails/costs/{name}.py" for name in ("calls", "block", "counters"))
_RATIO, _COMMANDS, _PRINTED = (
    f"harness/rails/{name}.py" for name in ("bench/ratio", "compare/commands", "compare/printed")
)
_DANGER, _FIXTURES = "harness/parity/danger.py", "harness/plugin/fixtures.py"
_T_CALLS, _T_RATIO = "tests/rails/costs/test_calls.py::test_", "tests/rails/bench/test_ratio.py::test_"
_T_COMMANDS, _T_DANGER = "tests/rails/compare/test_commands.py::test_", "tests/parity/test_danger.py::test_"
_WRONG_RING = f"{_T_DANGER}a_wrong_ring_is_the_same_on_a_plain_decoder_and_another_on_a_dangerous_one"

ANYBODY = [
    Defect(
        "a decoder that is left out is counted all the same",
        _BLOCK,
        "        with self._operators.paused(), self._reads.paused():\n            yield\n",
        "        with self._reads.paused():\n            yield\n",
        f"{_T_CALLS}what_runs_inside_a_target_is_left_out_and_its_calls_are_one_count",
    ),
    Defect(
        "a decoder in another thread pauses the block",
        _BLOCK,
        "        if threading.get_ident() != self._thread:\n",
        "        if self._thread is None:\n",
        f"{_T_CALLS}a_target_that_another_thread_calls_is_counted_and_leaves_nothing_of_this_thread_out",
    ),
    Defect(
        "calls of every object of a class are counted as those of one",
        _CALLS,
        "            if only is not _MISSING and args[0] is not only:\n",
        "            if only is not _MISSING and type(args[0]) is not type(only):\n",
        f"{_T_CALLS}another_object_of_the_class_is_not_counted",
    ),
    Defect(
        "a method that was counted stays in its object",
        _CALLS,
        'own = slot or attribute in getattr(owner, "__dict__", {})',
        "own = True",
        f"{_T_CALLS}a_target_has_the_attributes_afterwards_that_it_had_before",
    ),
    Defect(
        "one metric that is faster hides one that is inconclusive",
        _COMMANDS,
        "TimeVerdict.INCONCLUSIVE, TimeVerdict.FASTER, TimeVerdict.SAME)",
        "TimeVerdict.FASTER, TimeVerdict.INCONCLUSIVE, TimeVerdict.SAME)",
        f"{_T_COMMANDS}of_two_verdicts_the_worse_one_is_that_of_all",
    ),
    Defect(
        "a decoder that nothing called counts as left out",
        _BLOCK,
        "    if block.uncalled:\n",
        "    if block.uncalled and not block.counts:\n",
        "tests/plugin/test_fixtures.py"
        "::test_a_decoder_that_nothing_calls_is_not_left_out_and_neither_blessed_nor_judged",
    ),
    Defect(
        "a read is laid to a line of torch",
        "harness/rails/costs/lines.py",
        "    return standard or file.startswith((_TORCH, _OWN, ",
        "    return standard or file.startswith((_OWN, ",
        "tests/rails/costs/test_lines.py::test_a_read_has_the_line_of_code_that_makes_it",
    ),
    Defect(
        "a read by an operator has no line",
        _COUNTERS,
        "                self._asking.lines[line_outside(), name] += 1\n        return out\n",
        "        return out\n",
        "tests/rails/costs/test_lines.py::test_a_read_has_the_line_of_code_that_makes_it",
    ),
    Defect(
        "a time rail is red by one end of its interval alone",
        _RATIO,
        "    elif low > at_most:\n",
        "    elif high > at_most:\n",
        f"{_T_RATIO}where_the_noise_is_too_wide_it_is_undecided_after_the_time_that_it_has",
    ),
    Defect(
        "a time rail that is too slow needs no second draw",
        _RATIO,
        "    if first.verdict is not RatioVerdict.BEYOND:\n",
        "    if first.verdict is not RatioVerdict.UNDECIDED:\n",
        f"{_T_RATIO}a_ratio_that_does_not_recur_is_undecided",
    ),
    Defect(
        "a time rail that is too slow passes",
        _FIXTURES,
        "        if found.verdict is ratio.RatioVerdict.BEYOND:\n",
        "        if found.verdict is ratio.RatioVerdict.BEYOND and found.why:\n",
        "tests/plugin/test_time_rail.py::test_a_sleep_of_5_ms_in_a_tick_is_red_and_says_by_how_much",
    ),
    Defect(
        "an undecided time rail passes",
        _FIXTURES,
        '            self._notes.not_gated.append(why)\n            self._ledger.not_gated.append(f"time rail',
        '            self._ledger.not_gated.append(f"time rail',
        "tests/plugin/test_time_rail.py::test_an_undecided_tick_is_no_pass_is_named_and_is_red_where_that_is_asked_for",
    ),
    Defect(
        "a strict run skips what is not gated",
        "harness/plugin/hooks.py",
        "        if item.config.option.harness_strict:\n",
        "        if item.config.option.harness_strict and notes.blessed:\n",
        "tests/plugin/test_hooks.py::test_a_strict_run_fails_a_test_that_was_not_gated_with_every_reason",
    ),
    Defect(
        "only the first run's outputs are compared",
        _COMMANDS,
        "            self.digests[side].setdefault(name, set()).add(digest)\n",
        "            self.digests[side].setdefault(name, {digest})\n",
        f"{_T_COMMANDS}every_output_is_compared_in_every_run",
    ),
    Defect(
        "a command that moved an output passes by its times",
        _COMMANDS,
        "        return not self.moved and not self.only_base\n",
        "        return not self.only_base\n",
        f"{_T_COMMANDS}every_verdict_has_its_exit_code_and_outputs_come_first",
    ),
    Defect(
        "both sides run the checkout's own file",
        _COMMANDS,
        "    _refuse_own_files(asked.command, where)\n",
        "",
        f"{_T_COMMANDS}a_file_of_the_checkout_by_its_full_path_would_be_the_same_for_both",
    ),
    Defect(
        "a line of a command that is no sample is skipped",
        _PRINTED,
        "        found = _line(line, where)\n",
        '        if not line.startswith("{"):\n            continue\n        found = _line(line, where)\n',
        "tests/rails/compare/test_printed.py::test_anything_else_is_refused_by_its_line",
    ),
    Defect(
        "a shared output is a copy",
        _DANGER,
        "        return view.copy_(tensor)\n",
        "        return view.copy_(tensor).clone()\n",
        _WRONG_RING,
    ),
    Defect(
        "an earlier result is poisoned nowhere",
        _DANGER,
        "        self._last = _tensors(made)\n",
        "        self._last = []\n",
        _WRONG_RING,
    ),
    Defect(
        "a deferred result is there at once",
        _DANGER,
        "            self._later.launch(lambda: _fill(pairs, given, (args, kwargs)))\n",
        "            _fill(pairs, given, (args, kwargs))\n",
        _WRONG_RING,
    ),
    Defect(
        "a deferred result takes no notice of arguments that were written to",
        _DANGER,
        "    if named_differences(_bytes(arguments), given):\n",
        "    if not given:\n",
        _WRONG_RING,
    ),
    Defect(
        "the padding of pinned rows is a copy of a row",
        _DANGER,
        "        if tensor.is_floating_point() or tensor.is_complex() or not count:\n",
        "        if not count:\n",
        f"{_T_DANGER}padding_is_nan_and_of_whole_numbers_the_first_row",
    ),
]
