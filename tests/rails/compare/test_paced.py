"""The script of a process: it waits where it should, and no more."""

from __future__ import annotations

import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from harness.engine.pipeline import StreamPipeline
from harness.parity.baselines.platform import ROOT
from harness.rails.compare import control as workload
from harness.rails.compare import paced as script
from harness.rails.compare.control import control
from harness.rails.compare.paced import TURN, Turns, Window, paced, slowed, value_of
from tests.fakes import StillClock


@given(st.integers(0, 50), st.integers(0, 200))
def test_a_window_is_parted_into_an_even_number_of_whole_turns(warmup: int, ticks: int) -> None:
    window = Window.of(["--warmup", str(warmup), f"--ticks={ticks}"])
    waits = [tick for tick in range(warmup + ticks + 50) if window.waits_before(tick)]
    assert window.turns % 2 == 0
    assert 0 <= ticks - window.turns * TURN < 2 * TURN
    assert waits == [warmup + TURN * turn for turn in range(window.turns + 1)]


@pytest.mark.parametrize(("options", "value"), [
    ([], "cpu"),
    (["--device", "cuda"], "cuda"),
    (["--device=cuda:1"], "cuda:1"),
    (["--device", "cuda", "--cfg", "--device=cpu"], "cpu"),
    (["--device", "cpu", "--device", "meta"], "meta"),
    (["--devices", "x", "--cfg", "--device"], "cpu"),
])  # fmt: skip
def test_the_last_value_of_an_option_counts(options: list[str], value: str) -> None:
    assert value_of(options, "--device", "cpu") == value


class Pipes:
    """Both ends of what a process talks by."""

    def __init__(self) -> None:
        (self.go, self.tell), (self.heard, self.say) = os.pipe(), os.pipe()

    def said(self) -> int:
        os.set_blocking(self.heard, False)
        try:
            return len(os.read(self.heard, 100))
        except BlockingIOError:
            return 0


def test_ticks_go_on_until_a_turn_is_over_and_the_control_runs_at_the_start_of_each() -> None:
    pipes, ran = Pipes(), []
    turns = Turns(Window(warmup=3, turns=2), pipes.go, pipes.say, lambda: float(len(ran)))
    tick = paced(lambda: ran.append(len(ran)), turns)
    os.write(pipes.tell, b"....")
    said = []
    for _ in range(3 + 2 * TURN + 5):
        tick()
        said.append(pipes.said())
    assert [tick for tick, waits in enumerate(said) if waits] == [3, 3 + TURN, 3 + 2 * TURN]
    assert turns.control_ms == [3.0, 3.0 + TURN, 3.0 + 2 * TURN]
    turns.end()
    assert len(turns.waited_ms) == 3, "it had waited at the end of its window"


def test_a_bench_that_ticks_no_more_behind_its_window_waits_at_its_end() -> None:
    pipes = Pipes()
    turns = Turns(Window(warmup=0, turns=2), pipes.go, pipes.say, lambda: 0.0)
    os.write(pipes.tell, b"....")
    for _ in range(2 * TURN):
        turns.before_tick()
    turns.end()
    assert pipes.said() == 3


def test_what_was_waited_is_the_wait_and_the_control(monkeypatch: pytest.MonkeyPatch) -> None:
    pipes, clock, read = Pipes(), StillClock(), os.read

    def waits(file: int, length: int) -> bytes:
        clock.sleep(0.03)
        return read(file, length)

    def slow() -> float:
        clock.sleep(0.02)
        return 0.0

    monkeypatch.setattr(script, "time", clock)
    monkeypatch.setattr(script.os, "read", waits)
    os.write(pipes.tell, b".")
    turns = Turns(Window(0, 2), pipes.go, pipes.say, slow)
    turns.before_tick()
    assert turns.waited_ms == pytest.approx([50])


def test_without_anyone_to_give_turns_it_ends() -> None:
    pipes = Pipes()
    os.close(pipes.tell)
    with pytest.raises(SystemExit, match="gone"):
        Turns(Window(0, 2), pipes.go, pipes.say, lambda: 0.0).before_tick()


@pytest.mark.parametrize(("code", "ends"), [(None, False), (0, False), (3, True), ("broke", True)])
def test_a_bench_that_fails_ends_the_process_as_it_ended_and_reports_nothing(
    code: int | str | None, ends: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bench(*_args: Any, **_options: Any) -> None:
        raise SystemExit(code)

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["it"])
    monkeypatch.setattr(StreamPipeline, "tick", StreamPipeline.tick)
    monkeypatch.setattr(script.runpy, "run_module", bench)
    pipes, report, fake = Pipes(), tmp_path / "report.json", tmp_path / "control.py"
    fake.write_text("def control(_device):\n    return lambda: 0.0\n")
    os.write(pipes.tell, b".")
    with pytest.raises(SystemExit) if ends else nullcontext() as raised:
        script.main(str(fake), str(report), pipes.go, pipes.say, [])
    assert (raised.value.code if raised else 0) == (code or 0)
    assert (report.exists(), pipes.said()) == (not ends, int(not ends))


def test_a_slowed_tick_takes_its_share_more_and_gives_what_the_tick_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = StillClock(read_s=1e-6)

    def tick(value: int) -> int:
        clock.sleep(0.01)
        return value

    monkeypatch.setattr(script, "time", clock)
    started = clock.perf_counter()
    assert slowed(tick, 0.5)(7) == 7
    assert clock.perf_counter() - started == pytest.approx(0.015, abs=1e-5)


def test_the_control_takes_time_and_shares_no_code_with_the_engine() -> None:
    assert control("cpu")() > 0.0
    assert "harness" not in Path(control.__code__.co_filename).read_text().split("import", 1)[1]


def test_the_control_is_twelve_products_additions_and_norms_without_gradients() -> None:
    class Seen(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.__name__ in names:
                seen.append((func.__name__, torch.is_grad_enabled()))
            return func(*args, **(kwargs or {}))

    names = ("__matmul__", "matmul", "add", "norm", "div")
    seen: list[Any] = []
    run = control("cpu")
    for _ in range(2):
        seen.clear()
        with Seen():
            run()
        assert seen == [(name, False) for name in ("matmul", "add", "norm", "div")] * 12


def test_the_control_starts_from_the_same_numbers_every_time_whatever_was_drawn_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn, randn = [], torch.randn

    def drawing(*size: int, **options: Any) -> torch.Tensor:
        drawn.append(randn(*size, **options))
        return drawn[-1]

    monkeypatch.setattr(torch, "randn", drawing)
    for seed in (1, 2):
        torch.manual_seed(seed)
        control("cpu")
    assert drawn[0].shape == (256, 256)
    assert torch.equal(*drawn)


@pytest.mark.parametrize(("device", "ms"), [("cpu", 0.0), ("cuda:0", 30.0)])
def test_the_control_s_time_is_in_ms_until_its_device_is_done(
    device: str, ms: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, waited, moved = StillClock(read_s=0.002), [], []

    def wait(of: str) -> None:
        waited.append(of)
        clock.sleep(0.03)

    monkeypatch.setattr(workload, "time", clock)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, to: (moved.append(to), self)[1])
    monkeypatch.setattr(torch.cuda, "synchronize", wait)
    assert control(device)() == pytest.approx(2.0 + ms)
    assert (moved, waited) == ([device], [device] * bool(ms))


@pytest.mark.parametrize("in_use", [True, False])
def test_a_turn_ends_when_a_gpu_that_is_in_use_is_done(in_use: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pipes, heard = Pipes(), []
    cuda = SimpleNamespace(is_initialized=lambda: in_use, synchronize=lambda: heard.append(pipes.said()))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    os.write(pipes.tell, b"..")
    turns = Turns(Window(0, 2), pipes.go, pipes.say, lambda: 0.0)
    turns.before_tick()
    assert (heard, pipes.said()) == ([0] * in_use, 1), "it is waited for before the other process gets its turn"
    monkeypatch.delitem(sys.modules, "torch")
    turns.before_tick()
    turns.before_tick()
    assert len(turns.waited_ms) == 2, "a bench without torch has nothing to wait for"


def test_a_tick_gets_what_it_was_called_with() -> None:
    def tick(*args: Any, **options: Any) -> Any:
        return args, options

    pipes = Pipes()
    turns = Turns(Window(5, 2), pipes.go, pipes.say, lambda: 0.0)
    assert paced(slowed(tick, 0.0), turns)(1, 2, seed=3) == ((1, 2), {"seed": 3})


def test_a_bench_is_driven_with_its_options_and_its_ticks_wait_and_are_slowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slowed tick waits first: a wait is no part of what is made slower."""
    called: list[Any] = []

    def bench(module: str, **options: Any) -> None:
        called.append((module, options, sys.argv))
        for _ in range(5):
            StreamPipeline.tick("self")  # type: ignore[arg-type]

    def making(name: str) -> Any:
        def make(tick: Any, of: Any) -> Any:
            called.append((name, of if name == "slowed" else type(of).__name__))
            return lambda *args: (called.append((name, args)), tick(*args))[1]

        return make

    monkeypatch.chdir(ROOT)
    monkeypatch.setenv(script.SLOWDOWN, "0.2500")
    monkeypatch.setattr(sys, "argv", ["it"])
    monkeypatch.setattr(StreamPipeline, "tick", lambda *args: called.append(("tick", args)))
    monkeypatch.setattr(script.runpy, "run_module", bench)
    monkeypatch.setattr(script, "slowed", making("slowed"))
    monkeypatch.setattr(script, "paced", making("paced"))
    pipes, report, fake = Pipes(), tmp_path / "report", tmp_path / "control.py"
    fake.write_text("def control(device):\n    return lambda: {'cpu': 1.0, 'cuda': 7.0}[device]\n")
    os.write(pipes.tell, b".")
    script.main(str(fake), str(report), pipes.go, pipes.say, ["--device", "cuda", "--json", "mine", "--ticks", "1"])
    wanted = ["harness", "bench", "--device", "cuda", "--json", "mine", "--ticks", "1", "--json", f"{report}.bench"]
    assert called[:2] == [("slowed", 0.25), ("paced", "Turns")]
    assert called[2] == ("harness", {"run_name": "__main__", "alter_sys": True}, wanted)
    assert called[3:6] == [(name, ("self",)) for name in ("paced", "slowed", "tick")]
    written = json.loads(report.read_text())
    assert (written["control_ms"], len(written["waited_ms"])) == ([7.0], 1)


def test_a_turn_s_work_on_a_gpu_is_waited_for_before_the_turn_is_given_away(monkeypatch: pytest.MonkeyPatch) -> None:
    pipes, said = Pipes(), []
    monkeypatch.setattr(script, "settle", lambda: said.append(pipes.said()))
    os.write(pipes.tell, b".")
    Turns(Window(0, 2), pipes.go, pipes.say, lambda: 0.0).before_tick()
    assert (said, pipes.said()) == ([0], 1)


def test_the_script_takes_files_pipes_and_the_options_of_bench_and_reports_its_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bench(name: str, **options: Any) -> None:
        ran.append((name, options["run_name"], list(sys.argv)))

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(StreamPipeline, "tick", StreamPipeline.tick)
    monkeypatch.setattr(script.runpy, "run_module", bench)
    pipes, report, fake = Pipes(), tmp_path / "report.json", tmp_path / "control.py"
    ran: list[Any] = []
    fake.write_text("def control(device):\n    return lambda: float(len(device))\n")
    os.write(pipes.tell, b".")
    given = ["--warmup", "3", "--device", "meta"]
    monkeypatch.setattr(sys, "argv", ["-c", str(fake), str(report), str(pipes.go), str(pipes.say), *given])
    script.runpy.run_path(script.__file__, run_name="__main__")
    assert ran == [("harness", "__main__", ["harness", "bench", *given, "--json", f"{report}.bench"])]
    said = json.loads(report.read_text())
    assert (list(said), said["control_ms"], len(said["waited_ms"])) == (["control_ms", "waited_ms"], [4.0], 1)
