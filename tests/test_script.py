"""The console script of an installed package: in a checkout it is that checkout which is run and compared."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from harness import script
from harness.parity.baselines import platform, store
from tests.git import git

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETTINGS = f'[tool.harness]\nreference-platform = "{platform.reference_platform()}"\n'
# As pip writes it.
SCRIPT = "import sys\nfrom {module} import {name}\nif __name__ == '__main__':\n    sys.exit({name}())\n"


def package(folder: Path, version: str) -> None:
    """A copy of the package that says another version."""
    shutil.copytree(ROOT / "harness", folder / "harness", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "harness" / "__init__.py").write_text(f'__version__ = "{version}"\n')


class Installed:
    """The package in a folder of its own, apart from any checkout, and its console script."""

    def __init__(self, root: Path) -> None:
        self.site, self.script = root / "site", root / "bin" / "harness"
        package(self.site, "1.installed")
        self.script.parent.mkdir()
        module, _, name = PROJECT["project"]["scripts"]["harness"].partition(":")
        self.script.write_text(SCRIPT.format(module=module, name=name))

    def __call__(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name != "CI"}
        environment["PYTHONPATH"] = str(self.site)
        command = [sys.executable, str(self.script), *arguments]
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(name="harness", scope="module")
def _harness(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("installed"))


@pytest.fixture(name="project")
def _project(tmp_path: Path) -> Path:
    """A project with settings and captures, and no package of that name."""
    (tmp_path / "pyproject.toml").write_text(SETTINGS)
    shutil.copytree(ROOT / "captures", tmp_path / "captures")
    (tmp_path / "a" / "b").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("where", [".", "a/b", "harness/parity/baselines"])
def test_in_a_checkout_its_own_package_is_run(harness: Installed, project: Path, where: str) -> None:
    package(project, "2.checkout")
    assert "2.checkout" in harness("--version", cwd=project / where).stdout


def test_where_another_package_is_run_python_s_path_stays_behind_it(harness: Installed, project: Path) -> None:
    package(project, "2.checkout")
    (project / "harness" / "__main__.py").write_text("import os\nprint(os.environ['PYTHONPATH'])\n")
    assert harness(cwd=project).stdout.strip().split(os.pathsep) == [str(project), str(harness.site)]


def test_this_process_becomes_one_of_the_checkout_s_package_with_its_arguments_and_environment(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def become(*what: Any) -> None:
        seen.append(what)
        raise SystemExit

    seen: list[Any] = []
    (project / "harness").mkdir()
    (project / "harness" / "__init__.py").touch()
    monkeypatch.chdir(project / "a")
    monkeypatch.setenv("PYTHONPATH", "behind")
    monkeypatch.setattr(sys, "argv", ["harness", "check", "--costs"])
    monkeypatch.setattr(os, "execve", become)
    with pytest.raises(SystemExit):
        script.main()
    ((file, command, environment),) = seen
    assert (file, command[-4:]) == (sys.executable, ["-m", "harness", "check", "--costs"])
    assert environment["PYTHONPATH"] == f"{project}{os.pathsep}behind"
    assert environment.keys() == os.environ.keys()


def test_in_a_checkout_its_own_captures_are_compared(harness: Installed, project: Path) -> None:
    package(project, "2.checkout")
    for file in project.glob("captures/*/scenarios/ode_plain.safetensors"):
        file.unlink()
    done = harness("check", "--only", "ode_plain", "--only", "sde_plain", "--json", "r.json", cwd=project / "a")
    assert done.returncode == 1, done.stderr
    found = json.loads((project / "a" / "r.json").read_text())["scenarios"]
    assert [each["verdict"] == "missing" for each in found] == [True, False]


def test_in_a_project_without_the_package_its_captures_are_compared(harness: Installed, project: Path) -> None:
    done = harness("check", "--only", "ode_plain", cwd=project / "a" / "b")
    assert (done.returncode, "1 scenario: 1 " in done.stdout) == (0, True), done.stderr


def test_what_is_blessed_in_a_project_is_what_the_installed_engine_makes(harness: Installed, project: Path) -> None:
    shutil.rmtree(project / "captures")
    git(project, "init", "-q")
    done = harness("bless", "--only", "ode_plain", "--reason", "first", cwd=project)
    assert done.returncode == 0, done.stderr
    manifest = store.read_manifest(project / "captures" / platform.name() / "scenarios")
    assert manifest.engine == store.engine_digest(harness.site / "harness" / "engine")
    assert manifest.engine == store.engine_digest(ROOT / "harness" / "engine")


def test_outside_of_any_checkout_there_are_no_captures(harness: Installed, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.others]\n")
    done = harness("check", cwd=tmp_path)
    assert done.returncode == 125
    assert f"{harness.site / 'captures'}: no such folder of captures" in done.stderr


def test_a_checkout_whose_package_cannot_be_imported_could_not_run(harness: Installed, project: Path) -> None:
    package(project, "2.checkout")
    (project / "harness" / "cli.py").write_text("raise RuntimeError\n")
    assert harness("check", cwd=project).returncode == 125


def test_the_exit_code_and_arguments_are_passed_on(harness: Installed, project: Path) -> None:
    package(project, "2.checkout")
    done = harness("check", "--only", "no such 'name", cwd=project)
    assert done.returncode == 2
    assert "no such 'name" in done.stderr


def test_outside_of_any_checkout_this_process_runs_the_installed_package_under_its_own_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(script.checkout, "around", lambda: None)
    monkeypatch.setattr("harness.__main__.main", lambda **options: seen.append(options))
    script.main()
    assert seen == [{"prog_name": "harness"}]
