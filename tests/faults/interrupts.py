"""An exception at any line: what a signal, another thread or an allocation may raise between two lines of the engine.

Two places are spared, at which a trace function is called though Python itself raises nothing there. One lies between
the last line of a block of a `with` and the call that leaves it. The other is the entry of a function or a generator,
before its first line: where a trace function raises there, CPython 3.11 frees objects that are still used.
"""

from __future__ import annotations

import contextlib
import dis
import sys
import weakref
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, TypeVar

import torch.utils.weak

import harness.engine

R = TypeVar("R")

FILES = (
    str(Path(harness.engine.__file__).parent),
    *(str(module.__file__) for module in (contextlib, weakref, torch.utils.weak)),
)
"""Where an exception may be raised: every file of the engine, and what the engine calls to keep its state."""


class Interrupt:
    """Calls a function and raises an error at one of its lines.

    Args:
        at: number of the line at which the error is raised, from 1; 0 raises nothing.
        error: the error.
        files: names of the files whose lines count; none counts all.

    Attributes:
        lines: number of lines that have run.
        where: file, line number and function of the line at which the error was raised, or None.
    """

    def __init__(self, at: int = 0, error: BaseException | None = None, files: Sequence[str] = ()) -> None:
        self.lines = 0
        self.where: tuple[str, int, str] | None = None
        self._at, self._error, self._names = at, error, tuple(f"/{name}" for name in files)

    def call(self, work: Callable[[], R]) -> R:
        """Call `work`, and let the error out if it comes out."""
        before, hook = sys.gettrace(), sys.unraisablehook
        # Python drops an exception that is raised while an object is freed, such as a generator.
        sys.unraisablehook = lambda told: None if told.exc_value is self._error else hook(told)
        sys.settrace(self._called)
        try:
            return work()
        finally:
            sys.settrace(before)
            sys.unraisablehook = hook

    def _called(self, frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(FILES) or (self._names and not name.endswith(self._names)):
            return None
        return self._stepped

    def _stepped(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line" and frame.f_lasti not in _leavings(frame.f_code):
            self._line(frame)
        return self._stepped

    def _line(self, frame: FrameType) -> None:
        self.lines += 1
        if self.lines == self._at and self._error is not None:
            self.where = (Path(frame.f_code.co_filename).name, frame.f_lineno, frame.f_code.co_name)
            raise self._error


@cache
def _leavings(code: CodeType) -> frozenset[int]:
    """Offsets at which the block of a `with` is left: three times None is loaded, for the call that leaves it."""
    made = list(dis.get_instructions(code))
    three = zip(made, made[1:], made[2:], strict=False)
    return frozenset(
        each[0].offset for each in three if all(i.opname == "LOAD_CONST" and i.argval is None for i in each)
    )
