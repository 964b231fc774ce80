"""What takes seconds says so on a terminal, and says nothing in a pipe."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner, Result
from rich.console import Console

import harness
from harness.cli import main
from harness.commands.common import progress
from harness.parity.baselines.bless import Battery, digests

ROOT = Path(__file__).resolve().parent.parent.parent
TERMINAL = {"TTY_COMPATIBLE": "1", "COLUMNS": "80", "TERM": "xterm"}
"""Makes rich write as to a terminal."""


def battery() -> Battery:
    made = SimpleNamespace(finished={"r0": torch.ones(1, 2, 3)}, ticks=("aa",))
    return Battery(
        {"one": SimpleNamespace(name="one")},  # type: ignore[arg-type]
        lambda scenario: made,  # type: ignore[arg-type, return-value]
        lambda names: {name: digests(made) for name in names},  # type: ignore[arg-type]
        lambda names: {name: made.finished for name in names},
    )


@pytest.fixture(name="run")
def _run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.delenv("CI", raising=False)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    return lambda *words, env: CliRunner().invoke(main, words, obj=battery(), env=env)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("bless", "--captures", "captures", "--reason", "first"), "playing every scenario three times"),
        (("export", "--decoder", "affine", "out.onnx"), "exporting"),
        (("build", "missing.onnx"), "building"),
        (("profile", "--decoder", "affine", "--iters", "1", "--batch", "1", "--seq-len", "4"), "profiling"),
        (("check", "--captures", "captures"), "check"),
    ],
    ids=lambda words: words[0],
)
def test_a_command_says_what_it_does_on_a_terminal_alone(
    run: Callable[..., Result], words: tuple[str, ...], said: str
) -> None:
    on_a_terminal, in_a_pipe = (run(*words, env=env) for env in (TERMINAL, {"TTY_COMPATIBLE": "0"}))
    assert f" {said} " in on_a_terminal.stdout
    # What a profile says of time that it cannot attribute, as on a busy machine, has the word too.
    assert f" {said} " not in in_a_pipe.output.replace("profiling makes each layer slower", "")
    assert "\x1b" not in in_a_pipe.output and "\r" not in in_a_pipe.output


@pytest.mark.parametrize(("steps", "said"), [(1, "50%"), (2, "100%"), (3, "?")])
def test_a_bar_with_more_steps_than_announced_ends_in_no_share(steps: int, said: str) -> None:
    terminal = Console(file=StringIO(), force_terminal=True, width=80)
    with progress(terminal, 2) as advance:
        for step in range(steps):
            advance(f"step {step}")
    last = terminal.file.getvalue().split("step ")[-1]  # type: ignore[attr-defined]
    assert ("100%" in last, "50%" in last) == (said == "100%", said == "50%")


def test_a_log_gets_not_even_an_empty_line() -> None:
    log = Console(file=StringIO(), width=80)
    with progress(log, 2) as advance:
        advance("one")
    assert log.file.getvalue() == ""  # type: ignore[attr-defined]


def test_an_unknown_number_of_steps_shows_the_time_that_passed() -> None:
    terminal = Console(file=StringIO(), force_terminal=True, width=80)
    with progress(terminal, None, "waiting"):
        pass
    assert "waiting" in terminal.file.getvalue() and "0:00:00" in terminal.file.getvalue()  # type: ignore[attr-defined]


def version(*, stderr: int, term: str = "xterm") -> None:
    """Run `harness --version` with an error output."""
    environment = {**os.environ, "TERM": term}
    command = [sys.executable, "-m", "harness", "--version"]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=stderr, check=True)
    assert done.stdout.decode() == f"harness, version {harness.__version__}\n"


def pending(ours: int) -> bytes:
    """What was written and is not read yet."""
    os.set_blocking(ours, False)
    try:
        return os.read(ours, 10_000)
    except BlockingIOError:
        return b""


@pytest.mark.parametrize(
    ("opened", "term", "said"),
    [
        (pty.openpty, "xterm", b"starting ...\r\x1b[K"),
        (pty.openpty, "dumb", b""),
        (os.pipe, "xterm", b""),
    ],
    ids=["terminal", "terminal that cannot erase", "pipe"],
)
def test_the_start_is_announced_and_erased_on_a_terminal_that_can_erase(
    opened: Callable[[], tuple[int, int]], term: str, said: bytes
) -> None:
    ours, theirs = opened()
    try:
        version(stderr=theirs, term=term)
        assert pending(ours) == said
    finally:
        os.close(theirs)
        os.close(ours)
