"""Lines of code that make a call: the first one outside torch, the standard library and the counters themselves."""

from __future__ import annotations

import os
from collections.abc import Mapping
from inspect import currentframe
from pathlib import Path
from typing import NamedTuple, TypeAlias

import torch

_TORCH, _OWN, _STANDARD = (os.path.dirname(file) + os.sep for file in (torch.__file__, __file__, os.__file__))


class Line(NamedTuple):
    """A line of code: the file's path, the line's number and the function's name; empty where there is none."""

    file: str
    number: int
    function: str

    def shown(self, root: Path) -> str:
        """Say where the line is, by a path from `root` where the file lies inside."""
        if not self.file:
            return "no line of Python"
        inside = Path(self.file).is_relative_to(root)
        path = os.path.relpath(self.file, root) if inside else self.file
        return f"{path}:{self.number} in {self.function}"


Lines: TypeAlias = Mapping[tuple[Line, str], int]
"""Number of calls by line and name of the call."""


def line_outside() -> Line:
    """Line that makes the present call."""
    frame = currentframe()
    while frame is not None:
        code = frame.f_code
        if not _passed_over(code.co_filename):
            return Line(code.co_filename, frame.f_lineno, code.co_qualname)
        frame = frame.f_back
    return Line("", 0, "")


def _passed_over(file: str) -> bool:
    # Installed packages lie in a folder of the standard library's.
    standard = file.startswith(_STANDARD) and not file.startswith(_STANDARD + "site-packages")
    return standard or file.startswith((_TORCH, _OWN, "<frozen"))
