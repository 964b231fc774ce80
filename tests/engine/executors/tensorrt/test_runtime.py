"""Loading a plan: what the real TensorRT-RTX says to one here, and what becomes of its answers."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from harness.engine.aot import sidecar
from harness.engine.aot.bindings import Binding, Flavour, binding, installed
from harness.engine.aot.here import Here
from harness.engine.aot.layers import Layer, from_inspector
from harness.engine.aot.signature import AXES, INPUTS, VELOCITY
from harness.engine.errors import EngineError, InvalidInput, PlanCorrupt, PlanMismatch
from harness.engine.executors import CudaStream, TensorRTExecutor
from harness.engine.executors.tensorrt.runtime import CudaRuntime, context_of, engine_from, information_of
from tests.engine.executors.tensorrt.fake_tensorrt import FakeEngine, FakeRuntime, Made, plan

MADE = Made()
needs_rtx = pytest.mark.skipif(Flavour.RTX not in installed(), reason="TensorRT-RTX is not installed")


@lru_cache
def real_plan() -> bytes:
    """A plan that TensorRT-RTX built: a decoder's inputs, and a velocity that is twice the latents."""
    trt = binding(Flavour.RTX).module
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    profile = builder.create_optimization_profile()
    inputs = {}
    for name in INPUTS[:-1]:
        shape = tuple(-1 if axis in ("rows", "frames", "tokens") else MADE.profile(name)[0][place]
                      for place, axis in enumerate(AXES[name]))  # fmt: skip
        inputs[name] = network.add_input(name, trt.float32, shape)
        profile.set_shape(name, *MADE.profile(name))
    latents = inputs["hidden_states"]
    total = network.add_elementwise(latents, latents, trt.ElementWiseOperation.SUM).get_output(0)
    total.name = VELOCITY
    network.mark_output(total)
    config = builder.create_builder_config()
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    return bytes(builder.build_serialized_network(network, config))


def written(folder: Path, data: bytes, **recorded: Any) -> Path:
    """A plan's file with metadata that is of these bytes."""
    file = plan(folder, Made(masked=False))
    file.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    version = binding(Flavour.RTX).version
    known = {"plan_sha256": digest, "version": version, "compute_capability": "8.9", "gpu": None, "driver": None}
    sidecar.write(file, replace(sidecar.read(file), **{**known, **recorded}))
    return file


class Claims(CudaRuntime):
    """Says that it has the GPU that the plan was built for."""

    def here(self, found: Binding) -> Here:
        return Here(str(found.flavour), found.version, "8.9")

    @contextmanager
    def _current(self) -> Iterator[None]:
        yield


@needs_rtx
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_real_plan_is_refused_without_a_gpu_before_tensorrt_is_asked(tmp_path: Path) -> None:
    with pytest.raises(PlanMismatch, match="compute_capability: the plan was built for 8.9, here it is no CUDA device"):
        TensorRTExecutor(written(tmp_path, real_plan()))


@needs_rtx
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_real_plan_that_tensorrt_is_asked_to_load_without_a_driver_is_a_named_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="TensorRT cannot load the plan here"):
        TensorRTExecutor(written(tmp_path, real_plan()), runtime=Claims())


@needs_rtx
@pytest.mark.parametrize("kept", [0, 1000, -100])
def test_bytes_that_are_no_whole_plan_are_a_named_error_of_tensorrt_s(kept: int) -> None:
    with pytest.raises(EngineError, match="TensorRT cannot load the plan here"):
        engine_from(real_plan()[:kept], binding(Flavour.RTX))


@needs_rtx
def test_a_real_plan_that_was_truncated_never_reaches_tensorrt(tmp_path: Path) -> None:
    file = written(tmp_path, real_plan())
    file.write_bytes(real_plan()[:-100])
    with pytest.raises(PlanCorrupt, match="bytes is not the one in tiny.plan.json"):
        TensorRTExecutor(file, runtime=Claims())


@pytest.mark.parametrize("answer", [RuntimeError("no"), ValueError("no"), None])
def test_whatever_loading_ends_in_but_an_engine_is_a_named_error(
    monkeypatch: pytest.MonkeyPatch, answer: Exception | None
) -> None:
    loader: Any = ModuleType("polygraphy.backend.trt")

    def engine_from_bytes(data: bytes) -> None:
        if answer is not None:
            raise answer

    loader.engine_from_bytes = engine_from_bytes
    monkeypatch.setitem(sys.modules, "polygraphy.backend.trt", loader)
    monkeypatch.setattr("harness.engine.executors.tensorrt.runtime.use_polygraphy", lambda found: None)
    with pytest.raises(EngineError, match="TensorRT cannot load the plan here"):
        engine_from(b"", Binding(Flavour.RTX, "1", None))


def test_an_engine_tells_its_layers_as_json() -> None:
    runtime = FakeRuntime()
    told = information_of(FakeEngine(runtime, MADE), runtime.binding("tensorrt-rtx"))
    assert from_inspector(told) == (Layer("layer told as JSON"),)


def test_rtx_compiles_a_shape_s_kernels_before_its_first_run_and_not_behind_the_runs() -> None:
    """What it would use until then has other bits."""
    runtime = FakeRuntime()
    found = runtime.binding("tensorrt-rtx")
    context_of(FakeEngine(runtime, MADE), found)
    assert runtime.configs[0].dynamic_shapes_kernel_specialization_strategy.name == "EAGER"


def test_the_full_tensorrt_has_no_such_choice() -> None:
    runtime = FakeRuntime(flavour=Flavour.TENSORRT)
    context_of(FakeEngine(runtime, MADE), runtime.binding("tensorrt"))
    assert runtime.configs == [None]


@pytest.mark.parametrize("flavour", list(Flavour))
def test_an_engine_that_gives_no_context_is_a_named_error(flavour: Flavour) -> None:
    runtime = FakeRuntime(flavour=flavour)
    runtime.broken["create_execution_context"] = None
    with pytest.raises(EngineError, match="no execution context"):
        context_of(FakeEngine(runtime, MADE), runtime.binding(flavour))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_device_that_is_no_gpu_is_refused(device: str) -> None:
    with pytest.raises(InvalidInput, match="device"):
        CudaRuntime(device)


class FakeCuda:
    """In place of torch.cuda: writes down which device is current."""

    def __init__(self) -> None:
        self.current: list[torch.device] = []

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 3

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        self.current.append(device)
        yield
        self.current.pop()

    def Stream(self, device: Any) -> Any:  # noqa: N802 torch's name
        return SimpleNamespace(device=device, cuda_stream=17)

    def Event(self) -> None:  # noqa: N802 torch's name
        return None


def test_a_plan_is_loaded_on_the_gpu_that_the_executor_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda()
    monkeypatch.setattr(torch, "cuda", cuda)
    seen: list[list[torch.device]] = []
    module = "harness.engine.executors.tensorrt.runtime"
    monkeypatch.setattr(f"{module}.engine_from", lambda data, found: seen.append(list(cuda.current)))
    monkeypatch.setattr(f"{module}.context_of", lambda engine, found: seen.append(list(cuda.current)))
    for device, expected in (("cuda", "cuda:3"), ("cuda:1", "cuda:1")):
        runtime = CudaRuntime(device)
        runtime.engine(b"", Binding(Flavour.RTX, "1", None))
        runtime.context(None, Binding(Flavour.RTX, "1", None))
        assert (seen, runtime.device) == ([[torch.device(expected)]] * 2, torch.device(expected))
        seen.clear()


def test_its_stream_is_on_its_gpu_and_has_a_handle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "cuda", FakeCuda())
    stream = CudaRuntime("cuda:1").stream()
    assert isinstance(stream, CudaStream)
    assert stream.handle == 17
    assert stream._own.device == torch.device("cuda:1")


@pytest.mark.parametrize("error", [TypeError, RuntimeError, ValueError])
def test_a_loader_that_raises_is_a_named_error_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def engine_from_bytes(data: bytes) -> None:
        raise error("too little memory")

    loader: Any = ModuleType("polygraphy.backend.trt")
    loader.engine_from_bytes = engine_from_bytes
    monkeypatch.setitem(sys.modules, "polygraphy.backend.trt", loader)
    monkeypatch.setattr("harness.engine.executors.tensorrt.runtime.use_polygraphy", lambda found: None)
    with pytest.raises(EngineError) as refused:
        engine_from(b"", Binding(Flavour.RTX, "1", None))
    assert str(refused.value) == (
        "TensorRT cannot load the plan here (too little memory): the reason is in TensorRT's log"
    )


def test_here_is_the_gpu_of_the_runtime_and_its_buffers_are_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "harness.engine.executors.tensorrt.runtime"
    monkeypatch.setattr(torch, "cuda", FakeCuda())
    monkeypatch.setattr(f"{module}.machine.here", lambda found, device: (found.version, device))
    monkeypatch.setattr(f"{module}.machine.binding_for", lambda flavour: f"binding of {flavour}")
    monkeypatch.setattr(f"{module}.aligned", lambda *asked: asked)
    runtime, device = CudaRuntime("cuda:1"), torch.device("cuda:1")
    told: Any = runtime.here(Binding(Flavour.RTX, "1.7", None))
    assert told == ("1.7", device)
    assert runtime.binding("tensorrt") == "binding of tensorrt"  # type: ignore[comparison-overlap]
    assert runtime.allocate((2, 3), torch.float16) == ((2, 3), torch.float16, device)  # type: ignore[comparison-overlap]
