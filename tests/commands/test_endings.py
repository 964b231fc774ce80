"""Exit codes mean one thing each, and none comes by accident: each way in which a command may end has its own."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner

from harness import registry
from harness.cli import main
from harness.commands import exits
from harness.commands.endings import Commands, ended
from harness.engine.decoders import AceStepDecoder

ROOT = Path(__file__).parents[2]


@click.group(cls=Commands)
def commands() -> None:
    """Commands that end in every way."""


@commands.command("ends")
@click.argument("how")
def _ends(how: str) -> None:
    click.echo("so far")
    WAYS[how]()


@commands.command("writes")
@click.argument("code", type=int)
def _writes(code: int) -> None:
    sys.stdout.write("\u2502 \u00fc\n")  # as the tables are written, past click
    sys.exit(code)


def raises(error: BaseException) -> Callable[[], None]:
    def end() -> None:
        raise error

    return end


WAYS: dict[str, Callable[[], None]] = {
    "well": lambda: None,
    "by a verdict": lambda: sys.exit(exits.DIFFERS),
    "inconclusive": lambda: sys.exit(exits.INCONCLUSIVE),
    "a wrong command line": raises(click.UsageError("wrong")),
    "click's own code": raises(click.exceptions.Exit(2)),
    "interrupted": raises(KeyboardInterrupt()),
    "out of memory": raises(MemoryError()),
    "a crash": raises(RuntimeError("crash")),
    "a full disk": raises(OSError(errno.ENOSPC, "No space left on device")),
    "nobody reads": raises(BrokenPipeError(errno.EPIPE, "Broken pipe")),
    "no such file": raises(FileNotFoundError("nothing")),
}
CODES = dict(zip(WAYS, (0, 1, 3, 2, 2, 130, 125, 125, 125, 125, 125), strict=True))


@pytest.mark.parametrize("how", WAYS)
def test_a_command_that_ends_this_way_has_this_code(how: str) -> None:
    result = CliRunner().invoke(commands, ["ends", how])
    assert result.exit_code == CODES[how]
    assert result.stdout == "so far\n"
    assert bool(result.stderr) == (how == "a wrong command line" or CODES[how] > 100), result.stderr


def test_what_the_terminal_lacks_is_written_as_an_escape_sequence() -> None:
    call = "from tests.commands.test_endings import commands; commands(['writes', '0'])"
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", call], cwd=ROOT, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"\\u2502 \\xfc\n"), done.stderr


def test_a_crash_is_told_with_its_traceback_and_what_is_no_crash_in_one_line() -> None:
    told = {how: CliRunner().invoke(commands, ["ends", how]).stderr for how in WAYS}
    assert "Traceback" in told["a crash"]
    assert "RuntimeError: crash" in told["a crash"]
    assert told["interrupted"].strip() == "interrupted"
    assert told["a full disk"] == "cannot write the output: [Errno 28] No space left on device\n"


@pytest.mark.parametrize("name", ["ENOSPC", "EPIPE", "EIO", "EFBIG", "EDQUOT"])
def test_an_output_that_cannot_be_written_is_told_in_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left, ended():
        raise OSError(getattr(errno, name), "why")
    assert left.value.code == exits.COULD_NOT_RUN
    assert capsys.readouterr().err == f"cannot write the output: [Errno {getattr(errno, name)}] why\n"


def test_a_command_that_is_called_as_a_function_raises_what_it_raises() -> None:
    with pytest.raises(RuntimeError, match="crash"):
        commands(["ends", "a crash"], standalone_mode=False)


def test_the_codes_are_these() -> None:
    named = {name: code for name, code in vars(exits).items() if name.isupper()}
    assert named == {
        "PASSED": 0,
        "DIFFERS": 1,
        "USAGE": 2,
        "INCONCLUSIVE": 3,
        "COULD_NOT_RUN": 125,
        "INTERRUPTED": 130,
    }
    assert isinstance(main, Commands)


def test_a_bench_of_weights_that_are_not_finite_could_not_run_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoilt(*_arguments: Any, **_options: Any) -> AceStepDecoder:
        made = AceStepDecoder.preset("tiny")
        with torch.no_grad():
            made.transformer.scale_shift_table.fill_(torch.nan)
        return made

    monkeypatch.setattr(registry, "decoder", spoilt)
    result = CliRunner().invoke(main, ["bench", "--ticks", "2", "--warmup", "8", "--duration", "0.4"])
    assert result.exit_code == exits.COULD_NOT_RUN
    assert "cannot bench: request 'request-0' failed after 0 steps: positive[0]: a velocity that is not finite" in (
        " ".join(result.stderr.split())
    )


@pytest.mark.parametrize("command", ["bench", "export", "probe"])
def test_a_broken_checkpoint_could_not_run_and_the_file_is_named(command: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"_class_name": "AceStepTransformer1DModel"}')
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"no weights")
    more = [str(tmp_path / "made.onnx")] if command == "export" else []
    result = CliRunner().invoke(main, [command, "--decoder", str(tmp_path), *more])
    assert result.exit_code == exits.COULD_NOT_RUN
    assert "diffusion_pytorch_model.safetensors" in result.stderr


# As processes.

CHECK = [sys.executable, "-m", "harness", "check", "ode_plain"]
# Without a buffer nothing would be left to fail at the end of a process.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}


def test_a_report_that_finds_no_room_could_not_run() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            CHECK, cwd=ROOT, env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == exits.COULD_NOT_RUN, done.stderr
    assert done.stderr == "cannot write the output: [Errno 28] No space left on device\n"


def test_a_verdict_whose_report_finds_no_room_is_none() -> None:
    call = "from tests.commands.test_endings import commands; commands(['writes', '1'])"
    with Path("/dev/full").open("w") as full:
        pipes = {"stdout": full, "stderr": subprocess.PIPE}
        done = subprocess.run([sys.executable, "-c", call], cwd=ROOT, env=ENVIRONMENT, text=True, check=False, **pipes)
    assert (done.returncode, done.stderr) == (
        exits.COULD_NOT_RUN,
        "cannot write the output: [Errno 28] No space left on device\n",
    )


def test_a_terminal_of_ascii_changes_no_verdict() -> None:
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(CHECK, cwd=ROOT, env=environment, capture_output=True, check=False)
    assert done.returncode == exits.PASSED, done.stderr
    assert b"exact" in done.stdout
    done.stdout.decode("ascii")


def after_work_of(process: subprocess.Popen[str], seconds: float) -> None:
    """Wait until a process has used so many seconds of a core: a busy machine takes longer to start it."""
    ticks, limit = seconds * os.sysconf("SC_CLK_TCK"), time.monotonic() + 300
    while sum(map(int, Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13])) < ticks:
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.1)


def test_a_command_that_is_interrupted_says_so() -> None:
    # A shell that runs the tests in the background makes its children ignore the interrupt.
    heeding = ["env", "--default-signal=INT", sys.executable]
    command = [*heeding, "-m", "harness", "bench", "--decoder", "affine", "--ticks", "100000000", "--no-dcw"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, text=True, start_new_session=True, **pipes)
    try:
        after_work_of(process, 10)
        process.send_signal(signal.SIGINT)
        _out, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, said.strip()) == (exits.INTERRUPTED, "interrupted")
