from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.engine.executors.tensorrt.profiling import Listening
from tests.engine.executors.tensorrt.binding_signatures import installed


class Profiler:
    """TensorRT's base class, which a subclass has to initialise by name."""

    initialised = False

    def __init__(self) -> None:
        self.initialised = True


MODULES = [SimpleNamespace(IProfiler=Profiler), *([installed()] if installed() else [])]


@pytest.mark.parametrize("module", MODULES, ids=["stand-in", "installed"][: len(MODULES)])
def test_a_listener_is_told_every_layer(module: Any) -> None:
    told: list[tuple[str, float]] = []
    listening = Listening(module, lambda name, milliseconds: told.append((name, milliseconds)))
    assert isinstance(listening.profiler, module.IProfiler)
    for name in ("gemm", "softmax"):
        listening.profiler.report_layer_time(name, 0.5)
    listening.raise_first()
    assert told == [("gemm", 0.5), ("softmax", 0.5)]


def test_the_base_class_is_initialised() -> None:
    assert Listening(MODULES[0], lambda name, milliseconds: None).profiler.initialised


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_what_a_listener_raises_never_reaches_tensorrt_and_is_raised_once_after(error: BaseException) -> None:
    def listener(name: str, milliseconds: float) -> None:
        raise error

    listening = Listening(MODULES[0], listener)
    for _ in range(2):
        listening.profiler.report_layer_time("gemm", 1.0)
    with pytest.raises(type(error)) as raised:
        listening.raise_first()
    assert raised.value is error
    listening.raise_first()


def test_every_run_s_first_error_is_raised_however_many_runs_went_before() -> None:
    wrong: list[int] = []

    def listener(name: str, _milliseconds: float) -> None:
        if wrong:
            raise ValueError(f"{name} of run {wrong[-1]}")

    listening = Listening(MODULES[0], listener)
    for run in range(5):
        wrong[:] = [run] if run % 2 else []
        for layer in ("gemm", "softmax"):
            listening.profiler.report_layer_time(layer, 1.0)
        if run % 2:
            with pytest.raises(ValueError, match=f"gemm of run {run}"):
                listening.raise_first()
        else:
            listening.raise_first()


def test_of_several_errors_the_first_is_raised_and_each_run_has_its_own() -> None:
    def listener(name: str, milliseconds: float) -> None:
        if milliseconds < 1:
            raise ValueError(name)

    listening = Listening(MODULES[0], listener)
    for run in ("first", "second"):
        for layer, milliseconds in (("fine", 2.0), ("a", 0.5), ("b", 0.25)):
            listening.profiler.report_layer_time(f"{run} {layer}", milliseconds)
        with pytest.raises(ValueError, match=f"^{run} a$"):
            listening.raise_first()
