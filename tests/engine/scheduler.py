"""A scheduler of threads whose every switch is drawn from a seed: one thread runs at a time, and hands over at lines.

A run is therefore reproduced by its seed. Locks are the scheduler's own: a thread that would wait hands over instead.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import harness.engine

ENGINE = str(Path(harness.engine.__file__).parent)
STUCK = 100_000


class Scheduler:
    """Runs functions in threads, one step of the engine at a time.

    Args:
        seed: decides every switch.
        chance: probability of a switch at each step of the files in question.
        files: names of the engine's files that may be switched in.
        step: `line`, or `opcode`, which finds what happens in the middle of a line.
    """

    def __init__(
        self, seed: int, chance: float = 0.1, files: Sequence[str] = ("pipeline.py", "state.py"), step: str = "line"
    ) -> None:
        self._step = step
        self._drawn = random.Random(seed)
        self._chance = chance
        self._files = {f"{ENGINE}/{name}" for name in files}
        self._alive: list[int] = []
        self._turns: list[threading.Semaphore] = []
        self._here = threading.local()
        self._errors: list[BaseException] = []
        self.switches = 0

    def run(self, *works: Callable[[], object]) -> None:
        """Run every function to its end; raise the first error of any."""
        self._turns = [threading.Semaphore(0) for _ in works]
        self._alive = list(range(len(works)))
        threads = [threading.Thread(target=self._work, args=(i, work)) for i, work in enumerate(works)]
        for thread in threads:
            thread.start()
        self._turns[self._drawn.choice(self._alive)].release()
        for thread in threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def pause(self, *, leave: bool = False) -> None:
        """Hand over to a thread that is drawn, which may be this one; with `leave` to another one."""
        me = getattr(self._here, "number", None)
        if me is None:
            return
        others = [number for number in self._alive if not leave or number != me]
        chosen = self._drawn.choice(others) if others else me
        if chosen != me:
            self.switches += 1
            self._turns[chosen].release()
            self._turns[me].acquire()

    def lock(self) -> Lock:
        """Make a lock that may be taken again by the thread that has it."""
        return Lock(self)

    def _work(self, number: int, work: Callable[[], object]) -> None:
        self._here.number = number
        self._turns[number].acquire()
        try:
            sys.settrace(self._called)
            work()
        except BaseException as error:  # noqa: BLE001 - raised by `run`
            self._errors.append(error)
        finally:
            sys.settrace(None)
            self._alive.remove(number)
            if self._alive:
                self._turns[self._drawn.choice(self._alive)].release()

    def _called(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename not in self._files:
            return None
        frame.f_trace_opcodes = self._step == "opcode"
        return self._stepped

    def _stepped(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == self._step and self._drawn.random() < self._chance:
            self.pause()
        return self._stepped


class Lock:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler, self._inner = scheduler, threading.RLock()
        self._held = 0

    def __enter__(self) -> Lock:
        waited = 0
        while not self._inner.acquire(blocking=False):
            waited += 1
            if waited > STUCK:
                raise RuntimeError("every thread waits for another one")
            self._scheduler.pause(leave=True)
        self._held += 1
        return self

    def __exit__(self, *_error: object) -> None:
        self._held -= 1
        self._inner.release()

    def locked(self) -> bool:
        return self._held > 0
