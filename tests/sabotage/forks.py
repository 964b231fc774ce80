"""`python -m tests.sabotage.forks`: forks itself for each job, so that torch is imported once for thousands of them.

It reads a job a line, as JSON, and answers a line. The process imports what tests need and nothing of this project: a
fork imports the project anew, from the folder in which the process runs, with whatever stands there at that moment.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

CI_LIKE = {"CI": "true", "HARNESS_HYPOTHESIS_PROFILE": "sabotage", "PYTHONDONTWRITEBYTECODE": "1"}
"""Environment of every run that judges a change."""

LIBRARIES = (
    "torch", "torch.fx", "torch.export", "torch.testing", "torch.utils.benchmark", "numpy", "safetensors.torch",
    "hypothesis", "pytest", "coverage", "ptwt", "pywt", "diffusers", "rich.progress", "click",
    "diffusers.models.transformers.ace_step_transformer", "onnx", "onnxruntime", "onnxscript",
)  # fmt: skip
"""What takes long to import; what is not installed is left out, as the tests do."""


@dataclass(frozen=True)
class Ended:
    """How a fork ended.

    Attributes:
        timed_out: it was stopped at its time limit.
        status: its exit code, or minus the signal that ended it.
        code: pytest's exit code; None where it wrote no report.
        found: ids of the tests it was to run.
        outcomes: outcome of each test that ran, by id.
        seconds: time of each, in seconds.
        took: the whole run, in seconds.
        lines: tests by module and line, where they were recorded.
    """

    timed_out: bool
    status: int
    code: int | None = None
    found: list[str] = field(default_factory=list)
    outcomes: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    took: float = 0.0
    lines: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    @property
    def red(self) -> str:
        """The first test that failed or could not run; empty where none did."""
        return next((test for test, outcome in self.outcomes.items() if outcome in ("failed", "error")), "")


class Forks:
    """A process in a copy of the project that runs jobs one after the other."""

    def __init__(self, copy: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="sabotage-jobs-")
        environment = {
            **os.environ,
            **CI_LIKE,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(copy), os.environ.get("PYTHONPATH", "")])),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.sabotage.forks"],
            cwd=copy, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._count = 0

    def run(self, files: Sequence[str], tests: Sequence[str] | None, *, seconds: float, record: bool = False) -> Ended:
        """Run tests in a fork.

        Args:
            files: test files to collect.
            tests: ids of the tests to run; None runs all of them.
            seconds: time limit, in seconds.
            record: record the lines of each test, and do not stop at the first failure.
        """
        self._count += 1
        folder = Path(self._folder.name) / str(self._count)
        folder.mkdir()
        report = folder / "report.json"
        job = {"files": list(files), "tests": None if tests is None else list(tests), "record": record}
        told = json.dumps({**job, "report": str(report), "seconds": seconds})
        answer = json.loads(self._asked(told))
        written = json.loads(report.read_text()) if report.is_file() else {}
        return Ended(answer["timed_out"], answer["status"], **written)

    def _asked(self, line: str) -> str:
        stdin, stdout = _pipe(self._process.stdin), _pipe(self._process.stdout)
        stdin.write(line + "\n")
        stdin.flush()
        answer = stdout.readline()
        if not answer:
            raise RuntimeError(f"the process that forks has ended, with exit code {self._process.wait()}")
        return answer

    def close(self) -> None:
        """End the process and drop what its jobs wrote."""
        with self._process:
            self._process.kill()
        self._folder.cleanup()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:
        raise TypeError("the process has no pipe")
    return pipe


def serve(answers: IO[str]) -> None:
    """Answer every job of the standard input."""
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _child(job)
        answers.write(json.dumps(_waited(pid, job["seconds"])) + "\n")
        answers.flush()


def _waited(pid: int, seconds: float) -> dict[str, Any]:
    """Wait for a fork; at its time limit, it and the processes it started are stopped."""
    until = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            _kill(pid)
            return {"timed_out": False, "status": os.waitstatus_to_exitcode(status)}
        if time.monotonic() > until:
            _kill(pid)
            os.waitpid(pid, 0)
            return {"timed_out": True, "status": -signal.SIGKILL}
        time.sleep(0.01)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _child(job: dict[str, Any]) -> None:
    os.setpgid(0, 0)
    status = 1
    try:
        silent = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(silent, descriptor)
        importlib.import_module("tests.sabotage.tracer").run(job)
        status = 0
    finally:
        os._exit(status)


def main() -> None:
    """Import what takes long, then serve."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    importlib.import_module("torch").set_num_threads(1)
    held = [name for name in sys.modules if name.split(".")[0] == "harness"]
    if held:
        raise RuntimeError(f"{held[0]} is imported already: a mutant would not take its place")
    serve(answers)


if __name__ == "__main__":
    main()
