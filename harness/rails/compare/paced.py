"""The process that times one revision: its own `bench`, a few ticks at a time, whenever it is this process's turn.

`harness.rails.compare.revisions` gives the source of this file to `python -c` in the folder of a revision: every
revision is driven by the same code. It imports nothing of the package but what it drives.

In bench's window it says through a pipe every `TURN` ticks that it waits, and waits for a byte from another; then it
runs the control workload, and goes on. So but one process runs at a time, and both see the same machine. What the wait
and the control took is kept: it fell into the time of the tick that comes first in the turn.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TURN = 2
"""Ticks of a turn."""

WAITING = b"."

SLOWDOWN = "HARNESS_SLOWDOWN"
"""The environment variable with the share of a tick's time by which it is made slower, by a busy wait."""


@dataclass(frozen=True)
class Window:
    """The ticks that `bench` measures, as its options say.

    Attributes:
        warmup: ticks before it.
        turns: of `TURN` ticks each, an even number; what is left over belongs to no turn.
    """

    warmup: int
    turns: int

    @classmethod
    def of(cls, options: Sequence[str]) -> Window:
        """The window of options that name `--warmup` and `--ticks`."""
        return cls(int(value_of(options, "--warmup", "0")), int(value_of(options, "--ticks", "0")) // (2 * TURN) * 2)

    def waits_before(self, tick: int) -> bool:
        """Whether a turn begins with this tick of the process, or the last one is over."""
        turn, within = divmod(tick - self.warmup, TURN)
        return within == 0 and 0 <= turn <= self.turns


class Turns:
    """Counts ticks, waits for turns, and keeps what the control workload took at the start of each.

    Args:
        window: when to wait.
        go: where a byte comes from when it is this process's turn.
        say: where to say that it waits for one.
        control: runs the control workload and gives its ms.
    """

    def __init__(self, window: Window, go: int, say: int, control: Callable[[], float]) -> None:
        """See the class."""
        self.control_ms: list[float] = []
        self.waited_ms: list[float] = []
        self._window, self._go, self._say, self._control = window, go, say, control
        self._ticks = 0

    def before_tick(self) -> None:
        """Wait, where a turn is over."""
        if self._window.waits_before(self._ticks):
            self._wait()
        self._ticks += 1

    def end(self) -> None:
        """Wait once more, where there was no tick behind the window to do it."""
        if len(self.waited_ms) == self._window.turns:
            self._wait()

    def _wait(self) -> None:
        settle()
        started = time.perf_counter()
        os.write(self._say, WAITING)
        if not os.read(self._go, 1):
            sys.exit("whoever gives the turns is gone")
        self.control_ms.append(self._control())
        self.waited_ms.append(1e3 * (time.perf_counter() - started))


def settle() -> None:
    """Wait for the GPU, where one is in use: its work of this turn must not run in another's."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def value_of(options: Sequence[str], name: str, default: str) -> str:
    """What a command line's options say of one, the last time they do."""
    found = default
    for option, value in zip(options, [*options[1:], default], strict=False):
        if option == name:
            found = value
        elif option.startswith(f"{name}="):
            found = option.removeprefix(f"{name}=")
    return found


def slowed(tick: Callable[..., Any], share: float) -> Callable[..., Any]:
    """A tick that takes `share` of its time more, to the microsecond, which no sleep keeps."""

    def slower(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        finished = tick(*args, **kwargs)
        end = time.perf_counter() + share * (time.perf_counter() - started)
        while time.perf_counter() < end:
            pass
        return finished

    return slower


def paced(tick: Callable[..., Any], turns: Turns) -> Callable[..., Any]:
    """A tick that waits for its turn."""

    def waiting(*args: Any, **kwargs: Any) -> Any:
        turns.before_tick()
        return tick(*args, **kwargs)

    return waiting


def main(control: str, report: str, go: int, say: int, options: list[str]) -> None:
    """Run `bench` of the package in the working folder, and write down what its turns began with.

    Args:
        control: file with the control workload.
        report: file to write; bench's own JSON goes beside it, with `.bench` behind its name.
        go: see `Turns`.
        say: see `Turns`.
        options: of `bench`.
    """
    package = importlib.import_module("harness").__file__
    if package is None or not Path(package).resolve().is_relative_to(Path.cwd().resolve()):
        sys.exit(f"{package} was imported, which is not of this revision")
    pipeline = importlib.import_module("harness.engine.pipeline").StreamPipeline
    run_control = runpy.run_path(control)["control"](value_of(options, "--device", "cpu"))
    turns = Turns(Window.of(options), go, say, run_control)
    share = float(os.environ.get(SLOWDOWN, "0"))
    pipeline.tick = paced(slowed(pipeline.tick, share) if share else pipeline.tick, turns)
    sys.argv = ["harness", "bench", *options, "--json", f"{report}.bench"]
    try:
        runpy.run_module("harness", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if ended.code:
            raise
    turns.end()
    Path(report).write_text(json.dumps({"control_ms": turns.control_ms, "waited_ms": turns.waited_ms}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
