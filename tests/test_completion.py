"""Completion in a shell: it offers what the commands take, and imports none of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from harness import completion, registry
from harness.cli import main
from harness.commands.completed import documented
from harness.engine.switches import SWITCHES
from harness.files import FileRefused
from harness.parity.baselines.bless import BATTERY
from harness.registry import ExecutorKind

ROOT = Path(__file__).resolve().parent.parent
SHOWN = [name for name, command in main.commands.items() if not command.hidden]
IN_A_PROCESS = """
import sys
from harness import script
try:
    script.main()
except SystemExit as ended:
    print(ended.code, [name for name in ("torch", "numpy", "harness.engine") if name in sys.modules])
"""


def offered(*words: str) -> list[str]:
    """What the shell offers for the last word."""
    shell = ShellComplete(completion.group(completion.read()), {}, "harness", completion.VARIABLE)
    return [item.value for item in shell.get_completions(list(words[:-1]), words[-1])]


def kinds(*words: str) -> list[str]:
    shell = ShellComplete(completion.group(completion.read()), {}, "harness", completion.VARIABLE)
    return [item.type for item in shell.get_completions(list(words[:-1]), words[-1])]


def asked(line: str, instruction: str = "bash_complete") -> subprocess.CompletedProcess[str]:
    """The console script as a shell asks it, in a process of its own."""
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1), completion.VARIABLE: instruction}
    command = [sys.executable, "-c", IN_A_PROCESS]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **words}, capture_output=True, text=True, check=False, timeout=60
    )


def test_the_file_says_what_the_commands_say() -> None:
    made = json.loads(json.dumps(documented(main, BATTERY)))
    again = "run `python -m harness _completion > made.json` and move made.json to harness/completion.json"
    assert json.loads(completion.FILE.read_text()) == made, again


def test_commands_are_offered_and_hidden_ones_are_not() -> None:
    assert offered("") == sorted(SHOWN)
    assert offered("b") == ["bench", "bless", "build"]


@pytest.mark.parametrize("command", SHOWN)
def test_every_option_of_a_command_is_offered(command: str) -> None:
    options = {name for each in main.commands[command].params for name in (*each.opts, *each.secondary_opts)}
    found = offered(command, "-")
    assert {name for name in options if name.startswith("-")} <= set(found)
    assert {"-h", "--help"} <= set(found) and len(found) == len(set(found))


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (("check", "--only", ""), list(BATTERY.scenarios)),
        (("check", ""), list(BATTERY.scenarios)),
        (("check", "--only", "ode_p"), [name for name in BATTERY.scenarios if name.startswith("ode_p")]),
        (("bless", "--only", ""), list(BATTERY.scenarios)),
        (("check", "--switch", ""), list(SWITCHES)),
        (("check", "--executor", "e"), ["eager"]),
        (("probe", "--executor", ""), [*map(str, ExecutorKind)]),
        (("probe", "--decoder", ""), [registry.AFFINE, *registry.PRESETS]),
        (("export", "--decoder", "t"), ["tiny"]),
        (("bench", "--switch", "fused"), ["fused_cfg=on", "fused_cfg=off"]),
        (("bench", "--decoder-switch", "norms="), ["norms=kernels", "norms=compiler"]),
        (("bench", "--cfg", "s"), ["self"]),
        (("compare", "HEAD", "--executor", "st"), ["static"]),
        (("check", "--switch", "fused_cfg", "--executor", "st"), ["static"]),
        (("check", "--nothing-such", ""), list(BATTERY.scenarios)),
        (("bench", "--depth", ""), []),
    ],
)
def test_values_that_are_computed_are_offered(words: tuple[str, ...], values: list[str]) -> None:
    assert offered(*words) == values


def test_an_option_is_offered_again_only_where_it_may_be_given_again() -> None:
    assert "--only" in offered("check", "--only", "ode_plain", "--on")
    assert offered("bench", "--depth", "2", "--dep") == []


@pytest.mark.parametrize(
    ("words", "kind"),
    [(("check", "--json", ""), "file"), (("check", "--captures", ""), "dir"), (("build", "tiny"), "file")],
)
def test_the_shell_itself_completes_a_path(words: tuple[str, ...], kind: str) -> None:
    assert kinds(*words) == [kind]


def test_a_completion_imports_neither_torch_nor_the_engine() -> None:
    done = asked("harness check --only ode_plai")
    assert done.stdout.splitlines() == ["plain,ode_plain", "0 []"], done.stderr


def test_the_module_answers_too_as_the_script_of_another_checkout_starts_it() -> None:
    words = {"COMP_WORDS": "harness check --switch host", "COMP_CWORD": "3", completion.VARIABLE: "bash_complete"}
    command = [sys.executable, "-m", "harness"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **words}, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "plain,host_gates\n"), done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_script(shell: str) -> None:
    done = asked("", f"{shell}_source")
    assert completion.VARIABLE in done.stdout and done.stdout.endswith("0 []\n"), done.stderr


def test_a_shell_that_click_does_not_know_is_a_usage_error() -> None:
    assert asked("", "ksh_source").stdout == "2 []\n"


@pytest.mark.parametrize("text", ["[]", '{"check": {}}', '{"check": {"help": "", "parameters": [{"names": ["-a"]}]}}'])
def test_a_file_of_another_schema_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "completion.json").write_text(text)
    with pytest.raises(FileRefused):
        completion.read(tmp_path / "completion.json")
