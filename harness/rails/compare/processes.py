"""Processes of two trees: started, told when to run, and ended, whatever happens."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from harness.rails.compare import paced
from harness.rails.compare.worktrees import CannotCompare, Tree

ALIKE = {"PYTHONHASHSEED": "0"}
"""What both sides run with: drawn anew, the order of sets alone may make a process faster or slower for life."""


class Child:
    """A process of a tree, and what it wrote.

    Args:
        name: what to call it in words.
        process: that runs.
        stdout: where what it prints goes.
        stderr: where what it complains of goes.
    """

    def __init__(self, name: str, process: subprocess.Popen[str], stdout: IO[str], stderr: IO[str]) -> None:
        """See the class."""
        self._name, self._process, self._stdout, self._stderr = name, process, stdout, stderr

    def __str__(self) -> str:
        """Its name."""
        return self._name

    def output(self) -> str:
        """Wait for its end, and give its standard output.

        Raises:
            CannotCompare: it failed.
        """
        code = self._process.wait()
        if code != 0:
            raise CannotCompare(f"{self} exited with {code}:\n{_read(self._stderr)}")
        return _read(self._stdout)


@contextmanager
def started(
    what: str, command: Sequence[str], tree: Tree, environment: Mapping[str, str], pass_fds: Sequence[int] = ()
) -> Iterator[Child]:
    """An interpreter that runs `command` in a tree, with its package first on the path; it does not outlive the block.

    What it writes goes to files: a pipe that nobody reads would stop it.
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
    """A `bench` that runs a turn when it is told to.

    Args:
        child: its process.
        go: the end of a pipe to tell it by.
        heard: the end of a pipe that it answers by.
    """

    def __init__(self, child: Child, go: int, heard: int) -> None:
        """See the class."""
        self._child, self._go, self._heard = child, go, heard

    def release(self) -> None:
        """Let it run on."""
        # One that died while it waited is noticed by `listen`.
        with suppress(BrokenPipeError):
            os.write(self._go, b".")

    def listen(self) -> None:
        """Wait until it waits.

        Raises:
            CannotCompare: it ended before that.
        """
        if os.read(self._heard, 1) != paced.WAITING:
            self._child.output()
            raise CannotCompare(f"{self._child} ended before its last turn")

    def finish(self) -> None:
        """Wait until it has ended well.

        Raises:
            CannotCompare: it failed.
        """
        self._child.output()


def take_turns(first: Lane, second: Lane, turns: int) -> None:
    """Run so many turns of both in the order A B B A A B B A, an even number, and then both to their ends."""
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
    """A `bench` of a tree, that `paced.main` runs.

    Args:
        tree: to be timed.
        options: of `bench`.
        control: file with the control workload.
        report: file for it to write; bench's own JSON goes beside it, with `.bench` behind its name.
        slowdown: by which share every tick is made slower.
    """
    with ExitStack() as stack:
        (go, tell), (heard, say) = os.pipe(), os.pipe()
        for end in (tell, heard):
            stack.callback(os.close, end)
        source = Path(paced.__file__).read_text(encoding="utf-8")
        command = ["-c", source, str(control), str(report), str(go), str(say), *options]
        try:
            # Both sides have the variable, for an environment of another size moves a process's stack.
            environment = {paced.SLOWDOWN: f"{slowdown:.4f}", **ALIKE}
            child = stack.enter_context(started("bench", command, tree, environment, pass_fds=(go, say)))
        finally:
            os.close(go)
            os.close(say)
        yield Lane(child, tell, heard)


def _read(file: IO[str]) -> str:
    file.seek(0)
    return file.read().strip()
