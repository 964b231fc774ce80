"""Defects of what a terminal and the site show, and for each the test that must notice it."""

from __future__ import annotations

from tests.sabotage.runner import Defect

COMMON, COMPLETED = "harness/commands/common.py", "harness/commands/completed.py"
DETAILS = "harness/commands/details.py"
T_COMPLETION, T_PROGRESS = "tests/test_completion.py", "tests/commands/test_progress.py"
T_DETAILS = "tests/commands/test_details.py"

TERMINAL = [
    Defect(
        "hidden commands are offered",
        COMPLETED,
        "for name, command in group.commands.items() if not command.hidden}",
        "for name, command in group.commands.items()}",
        f"{T_COMPLETION}::test_the_file_says_what_the_commands_say",
    ),
    Defect(
        "a completion imports torch first",
        "harness/script.py",
        "    if completion.asked():\n",
        "    import torch  # noqa: F401, PLC0415\n\n    if completion.asked():\n",
        f"{T_COMPLETION}::test_a_completion_imports_neither_torch_nor_the_engine",
    ),
    Defect(
        "a value is offered whatever was begun",
        "harness/completion.py",
        "for value in each.values if value.startswith(begun)]",
        "for value in each.values]",
        f"{T_COMPLETION}::test_values_that_are_computed_are_offered",
    ),
    Defect(
        "a bar passes its end",
        COMMON,
        "                task.total = None\n",
        "                pass\n",
        f"{T_PROGRESS}::test_a_bar_with_more_steps_than_announced_ends_in_no_share[3-?]",
    ),
    Defect(
        "progress leaves an empty line in a pipe",
        COMMON,
        "disable=not console.is_terminal",
        "disable=False",
        f"{T_PROGRESS}::test_a_log_gets_not_even_an_empty_line",
    ),
    Defect(
        "the start is announced in a pipe",
        "harness/__main__.py",
        "not sys.stderr.isatty() or ",
        "",
        f"{T_PROGRESS}::test_the_start_is_announced_and_erased_on_a_terminal_that_can_erase[pipe]",
    ),
    Defect(
        "captures that were never made are to be restored",
        "harness/commands/advice.py",
        "    (store.NoCaptures, ",
        "    (KeyError, ",
        "tests/commands/test_advice.py::test_a_kind_of_captures_error_has_the_advice_of_the_nearest_class",
    ),
    Defect(
        "an example names a value that is not there",
        "harness/commands/examples.py",
        "--cfg full",
        "--cfg fall",
        "tests/commands/test_examples.py::test_an_example_is_a_command_line_that_its_command_understands",
    ),
    Defect(
        "a link of the site forgets its anchor",
        "docs/site/links.py",
        ' or ".") + mark + anchor',
        ' or ".")',
        "tests/site/test_pages.py::test_a_link_as_on_github_leads_to_the_same_place_of_the_site",
    ),
    Defect(
        "a red check tells the differences of one executor",
        DETAILS,
        "spread([each.about for each in failures], SHOWN)",
        "range(len(failures))[:SHOWN]",
        f"{T_DETAILS}::test_the_differences_that_are_told_are_of_different_switches_executors_and_scenarios",
    ),
    Defect(
        "a red check tells its differences to their ends",
        DETAILS,
        "LINES // len(chosen) - len(command)",
        "1000",
        f"{T_DETAILS}::test_a_check_in_which_everything_differs_stays_within_120_lines_of_80_columns",
    ),
    Defect(
        "a text that is cut looks whole",
        DETAILS,
        ".rstrip() + CUT]",
        ".rstrip()]",
        f"{T_DETAILS}::test_a_cut_detail_keeps_its_beginning_and_says_that_it_is_cut",
    ),
    Defect(
        "a report has evidence of one executor alone",
        "harness/report/differences.py",
        "[found[index] for index in spread([each.about for each in found], most)]",
        "list(found[:most])",
        "tests/report/test_differences.py::test_evidence_is_spread_over_executors_switches_and_scenarios",
    ),
    Defect(
        "what follows from the first difference of a ring is told one by one",
        "harness/parity/differences.py",
        "    if places and len(places) == len(differences):\n",
        "    if not differences:\n",
        "tests/parity/test_differences.py::"
        "test_of_a_ring_that_was_played_the_first_difference_is_told_and_the_rest_is_counted_with_its_places",
    ),
    Defect(
        "a long play is shown without the tick of its first difference",
        "harness/report/grid.py",
        "min(first - COLUMNS // 2, ",
        "min(first - COLUMNS, ",
        "tests/report/test_grid.py::"
        "test_the_tick_of_the_first_difference_is_shown_and_framed_wherever_it_is_in_a_long_play",
    ),
    Defect(
        "a switch that moved without having acted shows as idle in the matrix",
        "harness/report/matrix.py",
        'IDLE if passed and not result["acted"]',
        'IDLE if not result["acted"]',
        "tests/report/test_matrix.py::test_a_verdict_beside_an_exact_one_is_shown_whether_its_switch_acted_or_not",
    ),
    Defect(
        "a difference at tick 0 loses its tick on the page",
        "harness/report/page.py",
        "for name, value in places if value is not None)",
        "for name, value in places if value)",
        "tests/report/test_marks.py::test_a_place_is_told_from_tick_0_and_slot_0_on",
    ),
    Defect(
        "the command of a difference compares on another device",
        "harness/report/differences.py",
        "Engine(ExecutorKind.ONNX, device=device)",
        "Engine(ExecutorKind.ONNX)",
        "tests/report/test_repro.py::test_captures_of_a_device_are_compared_on_it_again",
    ),
    Defect(
        "a zero of another sign takes the whole scale of a map",
        "harness/report/heat.py",
        "apart = known[known > np.finfo(np.float64).tiny]",
        "apart = known",
        "tests/report/test_heat.py::test_a_zero_of_another_sign_does_not_take_the_scale_of_the_other_distances",
    ),
    Defect(
        "an error at a test's end hides the difference on the page of the run",
        "harness/plugin/html.py",
        'if report.outcome != "passed" and kept["outcome"] != "failed":',
        'if report.outcome != "passed":',
        "tests/plugin/test_html.py::"
        "test_the_page_of_an_interrupted_run_does_not_pass_and_an_error_at_a_test_s_end_hides_no_difference",
    ),
]
