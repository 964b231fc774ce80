"""Defects of what a terminal and the site show, and for each the test that must notice it."""

from __future__ import annotations

from tests.sabotage.runner import Defect

COMMON, COMPLETED = "harness/commands/common.py", "harness/commands/completed.py"
T_COMPLETION, T_PROGRESS = "tests/test_completion.py", "tests/commands/test_progress.py"

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
]
