"""The set-up of `make run` says that it works, and what pip says goes to a terminal alone."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.makefile import without_make

ROOT = Path(__file__).resolve().parents[1]
FAKE = """#!/bin/sh
# Stands for an interpreter: makes an environment whose interpreter is this file, and notes how pip is called.
case "$*" in
  "-m venv "*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  *) echo "$*" >> pip.txt ;;
esac
"""


@pytest.fixture(name="project")
def _project(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    (tmp_path / "fake").write_text(FAKE)
    (tmp_path / "fake").chmod(0o755)
    return tmp_path


def set_up(project: Path, stdout: int) -> subprocess.CompletedProcess[bytes]:
    command = ["make", ".venv/.stamp", "PYTHON=./fake"]
    return subprocess.run(command, cwd=project, env=without_make(), stdout=stdout, check=True)


def test_in_a_pipe_one_line_says_what_is_installed_and_how_long_it_takes_and_pip_is_quiet(project: Path) -> None:
    (line,) = set_up(project, subprocess.PIPE).stdout.decode().splitlines()
    assert line.startswith("Setting up .venv with ./fake: torch and the extras test,")
    assert line.endswith(" This takes a few minutes, once.")
    assert "install -qq " in (project / "pip.txt").read_text()
    assert set_up(project, subprocess.PIPE).stdout.decode().strip() == "make: '.venv/.stamp' is up to date."


def test_on_a_terminal_pip_shows_its_progress(project: Path) -> None:
    main, terminal = os.openpty()
    set_up(project, terminal)
    os.close(terminal)
    os.close(main)
    (line,) = (project / "pip.txt").read_text().splitlines()
    assert "-m pip install --disable-pip-version-check -c constraints.txt -e .[test," in line and "-q" not in line
