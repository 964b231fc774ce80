"""Processes that judge files: one may hang or die of a file, and another takes its place."""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing.connection import Connection

from tests.fuzz.judge import SECONDS, Judge, Judged
from tests.fuzz.kinds import KINDS

_START = 120.0
"""How long a process may take to start: it imports torch and makes the files."""


def work(pipe: Connection, seed: int) -> None:
    """Judge each mutation whose number comes through the pipe."""
    judge = Judge()
    pipe.send(None)
    while (index := pipe.recv()) is not None:
        pipe.send(judge.judged(seed, index))
    judge.close()


class Worker:
    """A process that judges files, and is replaced when one takes too long or ends it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.start()

    def start(self) -> None:
        self.pipe, other = multiprocessing.Pipe()
        self.process = multiprocessing.get_context("spawn").Process(target=work, args=(other, self.seed), daemon=True)
        self.process.start()
        other.close()
        if not self.pipe.poll(_START):
            sys.exit("a process did not start")
        self.pipe.recv()

    def judged(self, index: int) -> Judged:
        """The verdict about one mutation; `hung` and `died` where there is none."""
        self.pipe.send(index)
        kind = KINDS[index % len(KINDS)].name
        try:
            if self.pipe.poll(3 * SECONDS):
                found: Judged = self.pipe.recv()
                return found
            verdict = "hung"
        except EOFError:
            verdict = "died"
        self.process.kill()
        self.process.join()
        self.start()
        return Judged(kind, verdict, 3 * SECONDS)

    def end(self) -> None:
        self.pipe.send(None)
        self.process.join()
