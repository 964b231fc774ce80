"""Processes of two trees: starts the processes, gives each its turns, and ends both on success and on failure."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from harness.files import reading
from harness.rails.compare import paced
from harness.rails.compare.worktrees import CannotCompare, Tree

ALIKE = {"PYTHONHASHSEED": "0"}
"""Environment variables of both sides. A random hash seed changes the order of sets, and so the speed of a process."""


class Child:
    """A process of a tree and its output.

    Args:
        name: the name in messages.
        process: the running process.
        stdout: the file with the process's standard output.
        stderr: the file with the process's standard error.
    """

    def __init__(self, name: str, process: subprocess.Popen[str], stdout: IO[str], stderr: IO[str]) -> None:
        self._name, self._process, self._stdout, self._stderr = name, process, stdout, stderr

    def __str__(self) -> str:
        """The name of the process."""
        return self._name

    def output(self) -> str:
        """Wait for the end of the process and return its standard output.

        Raises:
            CannotCompare: the exit code is not 0; the message holds the standard error.
        """
        code = self._process.wait()
        if code != 0:
            raise CannotCompare(f"{self} exited with {code}:\n{_read(self._stderr)}")
        return _read(self._stdout)


@contextmanager
def started(
    what: str, command: Sequence[str], tree: Tree, environment: Mapping[str, str], pass_fds: Sequence[int] = ()
) -> Iterator[Child]:
    """Run `command` with this Python interpreter in a tree, whose package comes first on the path.

    The process is killed at the end of the block. Its output goes to files, because a full pipe would block it.

    Args:
        what: the name of the command in messages.
        command: the arguments of the interpreter.
        tree: the tree to run in.
        environment: variables to add to the environment.
        pass_fds: file descriptors that the process inherits.
    """
    path = os.pathsep.join(filter(None, [str(tree.folder), os.environ.get("PYTHONPATH", "")]))
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=tree.folder,
            env={**os.environ, "PYTHONPATH": path, **environment},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            pass_fds=pass_fds,
            text=True,
        )
        try:
            yield Child(f"{what} of {tree.revision}", process, out, err)
        finally:
            process.kill()
            process.wait()


class Lane:
    """A `bench` process that runs one turn at a time.

    Args:
        child: the process.
        go: the write end of the pipe that gives the process a turn.
        heard: the read end of the pipe on which the process reports that it waits.
    """

    def __init__(self, child: Child, go: int, heard: int) -> None:
        self._child, self._go, self._heard = child, go, heard

    def release(self) -> None:
        """Let the process run its next turn."""
        # `listen` reports a process that died while it waited.
        with suppress(BrokenPipeError):
            os.write(self._go, b".")

    def listen(self) -> None:
        """Block until the process waits for its next turn.

        Raises:
            CannotCompare: the process ended before.
        """
        if os.read(self._heard, 1) != paced.WAITING:
            self._child.output()
            raise CannotCompare(f"{self._child} ended before its last turn")

    def finish(self) -> None:
        """Wait for the end of the process.

        Raises:
            CannotCompare: the exit code is not 0.
        """
        self._child.output()


def take_turns(first: Lane, second: Lane, turns: int) -> None:
    """Run `turns` turns, an even number, of both processes in the order A B B A A B B A, and then both to their ends.

    Raises:
        CannotCompare: a process failed or ended early.
    """
    for lane in (first, second):
        lane.listen()
    for _ in range(turns // 2):
        for lane in (first, second, second, first):
            lane.release()
            lane.listen()
    for lane in (first, second):
        lane.release()
    for lane in (first, second):
        lane.finish()


@contextmanager
def lane(tree: Tree, options: Sequence[str], control: Path, report: Path, slowdown: float) -> Iterator[Lane]:
    """Start `bench` in a tree, under the control of `paced.main`.

    Args:
        tree: the tree to time.
        options: the options of `bench`.
        control: the file with the control workload.
        report: the JSON file that the process writes; the JSON of `bench` goes to `<report>.bench`.
        slowdown: the slowdown of every tick, as a share of its time; 0 is none.
    """
    with ExitStack() as stack:
        (go, tell), (heard, say) = os.pipe(), os.pipe()
        for end in (tell, heard):
            stack.callback(os.close, end)
        source = reading.text(Path(paced.__file__))
        command = ["-c", source, str(control), str(report), str(go), str(say), *options]
        try:
            # Both sides get the variable: the size of the environment moves the stack, and so changes the speed.
            environment = {paced.SLOWDOWN: f"{slowdown:.4f}", **ALIKE}
            child = stack.enter_context(started("bench", command, tree, environment, pass_fds=(go, say)))
        finally:
            os.close(go)
            os.close(say)
        yield Lane(child, tell, heard)


def _read(file: IO[str]) -> str:
    file.seek(0)
    return file.read().strip()
