"""The plugin in an environment that has only its own dependencies, and in a project that uses no fixture."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.parity.baselines import platform
from tests.git import commit
from tests.plugin.test_plugin import BLESSED, ENGINE, LOADED, RAIL

pytestmark = pytest.mark.no_cover

ROOT = Path(__file__).resolve().parents[2]

OF_EXTRAS = (
    "diffusers", "transformers", "huggingface_hub", "ptwt", "pywt", "click", "rich", "pytest_benchmark", "hypothesis",
    "onnx", "onnxruntime", "onnxscript", "polygraphy", "tensorrt", "tensorrt_rtx",
)  # fmt: skip
"""Modules that no dependency of the plugin brings."""

WITHOUT = f"import sys; sys.modules.update(dict.fromkeys({OF_EXTRAS})); "
"""Makes an import of any of them fail, as where it is not installed."""

LOCKSTEP = """
def test_lockstep(lockstep):
    assert lockstep(Ring(), Ring(), [1.0, 2.0]).events == 2
"""


TIME = """
def test_time(time_rail):
    time_rail("sum", lambda: sum(range(1000)), lambda: sum(range(100_000)))
"""


def child(code: str, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run Python code in a new process that finds this checkout's package."""
    path = f"import sys; sys.path[:0] = [{str(ROOT)!r}]; "
    command = [sys.executable, "-P", "-c", path + code, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def project(root: Path, tests: str) -> None:
    (root / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["."]\n')
    (root / "engine.py").write_text("\n".join(line[4:] for line in ENGINE.splitlines()))
    (root / "test_it.py").write_text(f"from engine import *\n\n{tests}")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)


def run(root: Path, before: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A run of pytest in a project; `before` runs ahead of pytest."""
    told = ["-p", "no:cacheprovider", *LOADED, *arguments]
    isolated = "import os; os.environ['PYTEST_DISABLE_PLUGIN_AUTOLOAD'] = '1'; os.environ.pop('CI', None); "
    return child(f"{before}{isolated}import pytest; sys.exit(pytest.main(sys.argv[1:]))", *told, cwd=root)


def test_every_fixture_works_where_nothing_of_the_extras_is_installed(tmp_path: Path) -> None:
    project(tmp_path, BLESSED + RAIL + LOCKSTEP + TIME)
    first = run(tmp_path, WITHOUT, "--harness-bless", "the first")
    assert "blessed: 2, run again" in first.stdout, first.stdout + first.stderr
    assert (tmp_path / "captures" / platform.name() / "blessed" / "tree").is_dir()
    commit(tmp_path)
    second = run(tmp_path, WITHOUT)
    assert (second.returncode, "exact: 1 capture, 1 cost rail, 1 lockstep" in second.stdout) == (0, True), second.stdout
    # On a busy machine the ratio may be too uncertain for a verdict, which is said in its own line.
    assert re.search(r"^(within its limit|not gated): time rail sum: ", second.stdout, re.MULTILINE), second.stdout


def test_a_switch_of_this_projects_pipeline_says_which_extra_it_needs(tmp_path: Path) -> None:
    switch = "def test_switch(lockstep): lockstep.switch('fused_cfg', script=None)\n"
    project(tmp_path, switch)
    ran = run(tmp_path, WITHOUT)
    assert ran.returncode == 1
    assert "lockstep.switch needs pip install 'stream-harness[engine]'" in ran.stdout


MEASURED = """
import json, pytest, time
started = time.perf_counter()
import harness.plugin
took = time.perf_counter() - started
heavy = [name for name in ("torch", "numpy", "safetensors") if name in sys.modules]
print(json.dumps({"took": took, "heavy": heavy}))
"""


@pytest.mark.alone
def test_the_import_of_the_plugin_takes_under_a_tenth_of_a_second() -> None:
    found = [json.loads(child(MEASURED).stdout) for _ in range(3)]
    assert [each["heavy"] for each in found] == [[], [], []]
    assert min(each["took"] for each in found) < 0.1


def test_a_run_that_uses_no_fixture_imports_no_torch(tmp_path: Path) -> None:
    project(tmp_path, "")
    names = "'torch', 'numpy', 'safetensors'"
    (tmp_path / "test_it.py").write_text(
        f"import sys\ndef test_a(): assert not {{{names}}} & sys.modules.keys()\n"
        f"def test_b(request): assert request.config.pluginmanager.has_plugin('harness.plugin')\n"
    )
    ran = run(tmp_path, "")
    assert ran.returncode == 0, ran.stdout


def test_the_command_says_in_one_sentence_what_to_install() -> None:
    ran = child(WITHOUT + "from harness.script import main; main()", "check")
    words = "the command harness needs pip install 'stream-harness[engine,cli]'; a checkout has its own Python: "
    words += ".venv/bin/python, which `make run` sets up\n"
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", words)


def test_the_module_says_the_same() -> None:
    ran = child(WITHOUT + "import runpy; runpy.run_module('harness', run_name='__main__', alter_sys=True)")
    words = "the command harness needs pip install 'stream-harness[engine,cli]'; a checkout has its own Python: "
    words += ".venv/bin/python, which `make run` sets up\n"
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", words)
