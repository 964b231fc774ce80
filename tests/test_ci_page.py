"""The recipes of docs/ci.md: workflows that parse, and commands that do what the page says."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.plugin.test_plugin import BLESSED, RAIL, Outside, _imported, _outside, commit

__all__ = ["_imported", "_outside"]
pytestmark = pytest.mark.no_cover

PAGE = (Path(__file__).parent.parent / "docs" / "ci.md").read_text(encoding="utf-8")
WORKFLOWS: dict[str, dict[str, Any]] = {
    each["name"]: each for each in map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
}
ON = True  # YAML 1.1 reads the key `on` as a boolean


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    (job,) = workflow["jobs"].values()
    return list(job["steps"])


def commands(workflow: dict[str, Any]) -> list[tuple[list[str], dict[str, str]]]:
    """The arguments of every pytest command of a workflow, and the variables of its step."""
    (job,) = workflow["jobs"].values()
    ran = [(step["run"], {**job.get("env", {}), **step.get("env", {})}) for step in job["steps"] if "run" in step]
    told = [(shlex.split(run.split("||")[0]), variables) for run, variables in ran if run.startswith("pytest")]
    return [
        (["the reason" if each == "$REASON" else each for each in words[1:]], variables) for words, variables in told
    ]


def test_the_page_is_short_and_has_three_recipes() -> None:
    assert len(PAGE.splitlines()) <= 100
    assert list(WORKFLOWS) == ["exact", "exact-gpu", "bless"]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_has_what_a_workflow_needs_and_its_variables_are_texts(name: str) -> None:
    workflow = WORKFLOWS[name]
    assert set(workflow) - {"permissions"} == {"name", ON, "jobs"}
    (job,) = workflow["jobs"].values()
    assert set(job) == {"runs-on", "env", "steps"}
    for step in steps(workflow):
        assert ("uses" in step) != ("run" in step) and set(step) <= {"name", "uses", "with", "run", "env"}
        assert all(type(value) is str for value in {**job["env"], **step.get("env", {})}.values())
        assert re.fullmatch(r"actions/(checkout@v4|setup-python@v5)", step.get("uses", "actions/checkout@v4"))


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_script_of_a_workflow_is_one_that_a_shell_reads(name: str) -> None:
    scripts = [step["run"] for step in steps(WORKFLOWS[name]) if "run" in step]
    assert scripts and commands(WORKFLOWS[name])
    for script in scripts:
        read = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
        assert (read.returncode, read.stderr) == (0, "")


def test_what_a_person_blesses_on_a_runner_is_red_once_and_then_green(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside.tests(BLESSED + RAIL)
    (bless, variables), (compare, others) = commands(WORKFLOWS["bless"])
    monkeypatch.setenv("CI", "true")
    assert outside.run(*bless).ret == pytest.ExitCode.USAGE_ERROR and not outside.captures.exists()
    monkeypatch.setenv("CI", variables["CI"])
    assert outside.run(*bless).ret == 1 and outside.entry().reason == "the reason"
    assert "CI" not in others
    monkeypatch.setenv("CI", "true")
    assert outside.run(*compare).ret == 0
    outside.edit("engine.py", "* self.gain + 1", "* self.gain + 2")
    assert outside.run(*compare).ret == 1


@pytest.fixture(name="on_another_cpu")
def _on_another_cpu(outside: Outside) -> Outside:
    """A project as the first recipe has it: blessed on the reference platform, by another machine."""
    (platform,) = set(re.findall(r"(?:reference-platform = \"|--harness-platform )([\w-]+)", PAGE))
    outside.bless("def test_tree(blessed): blessed('tree', tree, k=16)\n")
    outside.elsewhere()
    outside.own.rename(outside.captures / platform)
    outside.edit("pyproject.toml", "[tool", f'[tool.harness]\nreference-platform = "{platform}"\n[tool')
    commit(outside.root)
    return outside


@pytest.mark.parametrize("options", ["", *re.findall(r"`pytest (--harness-platform [\w-]+)`", PAGE)])
def test_a_runner_with_another_cpu_is_held_to_the_reference_platforms_captures(
    options: str, on_another_cpu: Outside
) -> None:
    ((arguments, _),) = commands(WORKFLOWS["exact"])
    assert on_another_cpu.run(*arguments, *options.split()).ret == 0
    on_another_cpu.edit("engine.py", "* self.gain + 1", "* self.gain + 1.000001")
    near = on_another_cpu.run(*arguments, *options.split())
    assert near.ret == 0 and "within tolerance: capture tree" in near.stdout.str()
    on_another_cpu.edit("engine.py", "1.000001", "1.0001")
    assert on_another_cpu.run(*arguments, *options.split()).ret == 1


def test_a_kept_platform_name_is_that_of_the_capability_which_the_recipe_sets() -> None:
    capability = WORKFLOWS["exact"]["jobs"]["test"]["env"]["ATEN_CPU_CAPABILITY"]
    assert f'"cpu-x86_64-{capability}"' in PAGE
    assert WORKFLOWS["bless"]["jobs"]["bless"]["env"]["ATEN_CPU_CAPABILITY"] == capability


def test_the_recipe_of_a_gpu_fails_where_the_gpu_is_gone_and_asks_for_no_captures_elsewhere(outside: Outside) -> None:
    runs = [step["run"] for step in steps(WORKFLOWS["exact-gpu"]) if "run" in step]
    assert runs.index("nvidia-smi") < runs.index("pytest")
    outside.bless()
    (outside.captures / "cuda-nvidia-h200" / "blessed" / "tree").mkdir(parents=True)
    assert "`cuda-nvidia-h200`" in PAGE
    assert outside.run().ret == 0
