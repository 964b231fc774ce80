"""The process that times one revision: the revision's own `bench`, run in turns of a few ticks.

`harness.rails.compare.processes` passes the source of this file to `python -c` in the folder of a revision, so the same
code drives every revision. The file imports only those modules of the package that it drives.

Inside the window that `bench` measures, the process stops after every `TURN` ticks. It writes a byte to one pipe, waits
for a byte from another pipe, runs the control workload, and continues. So only one process runs at a time, and both
processes see the same machine. The duration of each stop (wait and control workload) is recorded, because it is part of
the measured time of the first tick of the turn.
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
"""The number of ticks of a turn."""

WAITING = b"."

SLOWDOWN = "HARNESS_SLOWDOWN"
"""The environment variable with the slowdown of every tick, as a share of its time, made by a busy wait."""


@dataclass(frozen=True)
class Window:
    """The ticks that `bench` measures.

    Attributes:
        warmup: the number of ticks before the window.
        turns: the number of turns of `TURN` ticks each, an even number; the remaining ticks belong to no turn.
    """

    warmup: int
    turns: int

    @classmethod
    def of(cls, options: Sequence[str]) -> Window:
        """The window of the options `--warmup` and `--ticks` of `bench`, each 0 where it is missing.

        Raises:
            ValueError: an option is not a whole number.
        """
        return cls(int(value_of(options, "--warmup", "0")), int(value_of(options, "--ticks", "0")) // (2 * TURN) * 2)

    def waits_before(self, tick: int) -> bool:
        """Return True if a turn begins with tick number `tick`, or the last turn ended before this tick."""
        turn, within = divmod(tick - self.warmup, TURN)
        return within == 0 and 0 <= turn <= self.turns


class Turns:
    """Counts ticks, waits for turns, and records the time of the control workload at the start of each turn.

    Args:
        window: the ticks that are divided into turns.
        go: the file descriptor of the pipe that gives this process its turn, by a byte.
        say: the file descriptor of the pipe to which this process writes `WAITING`.
        control: runs the control workload and returns its time in ms.

    Attributes:
        control_ms: the time of the control workload, one value for each stop.
        waited_ms: the duration of each stop, the control workload included.
    """

    def __init__(self, window: Window, go: int, say: int, control: Callable[[], float]) -> None:
        self.control_ms: list[float] = []
        self.waited_ms: list[float] = []
        self._window, self._go, self._say, self._control = window, go, say, control
        self._ticks = 0

    def before_tick(self) -> None:
        """Count a tick; before the first tick of a turn, wait for the turn."""
        if self._window.waits_before(self._ticks):
            self._wait()
        self._ticks += 1

    def end(self) -> None:
        """Report the end of the last turn, if no tick after the window has done so."""
        if len(self.waited_ms) == self._window.turns:
            self._wait()

    def _wait(self) -> None:
        settle()
        started = time.perf_counter()
        os.write(self._say, WAITING)
        if not os.read(self._go, 1):
            sys.exit("the process that gives the turns is gone")
        self.control_ms.append(self._control())
        self.waited_ms.append(1e3 * (time.perf_counter() - started))


def settle() -> None:
    """Wait for the GPU, if one is in use, because work of this turn must not run in the turn of the other process."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def value_of(options: Sequence[str], name: str, default: str) -> str:
    """The value of the option `name` on a command line, the last one if it is repeated; else `default`."""
    found = default
    for option, value in zip(options, [*options[1:], default], strict=False):
        if option == name:
            found = value
        elif option.startswith(f"{name}="):
            found = option.removeprefix(f"{name}=")
    return found


def slowed(tick: Callable[..., Any], share: float) -> Callable[..., Any]:
    """Make a tick slower by `share` of its time, by a busy wait, which is exact to the microsecond, unlike a sleep."""

    def slower(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        finished = tick(*args, **kwargs)
        end = time.perf_counter() + share * (time.perf_counter() - started)
        while time.perf_counter() < end:
            pass
        return finished

    return slower


def paced(tick: Callable[..., Any], turns: Turns) -> Callable[..., Any]:
    """Make a tick wait for its turn."""

    def waiting(*args: Any, **kwargs: Any) -> Any:
        turns.before_tick()
        return tick(*args, **kwargs)

    return waiting


def main(control: str, report: str, go: int, say: int, options: list[str]) -> None:
    """Run `bench` of the package in the working folder, and write the times of stops and control workload.

    Args:
        control: the path of the file with the control workload.
        report: the path of the JSON file to write; the JSON of `bench` goes to `<report>.bench`.
        go: see `Turns`.
        say: see `Turns`.
        options: the options of `bench`.
    """
    package = importlib.import_module("harness").__file__
    if package is None or not Path(package).resolve().is_relative_to(Path.cwd().resolve()):
        sys.exit(f"{package} was imported, which is not a file of this revision")
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
