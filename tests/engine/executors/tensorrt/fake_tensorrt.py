"""A machine with TensorRT that has none: plans are small files, engines compute with a torch decoder.

The engine and its context have the methods of the installed binding and are held to its signatures call by call. Like
the real ones, a context knows tensors by address alone: it reads the memory there as the engine's dtype and shape say.
What is not the memory of a live buffer is refused, where a real engine would read or write it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from harness.engine.aot.bindings import Binding, Flavour
from harness.engine.aot.here import Here
from harness.engine.aot.sidecar import Sidecar, write
from harness.engine.aot.signature import AXES, INPUTS, MASK, VELOCITY
from harness.engine.decoders import AceStepDecoder, Decoder
from harness.engine.executors.tensorrt import engine
from harness.engine.executors.tensorrt.buffers import ALIGNMENT, aligned
from harness.engine.executors.tensorrt.runtime import RawStream, context_of
from harness.registry import DeferredStream
from tests.engine.executors.tensorrt.binding_signatures import Held, installed

Profile = tuple[int, int, int]
VERSION = "1.7.1.116"
HERE = Here("tensorrt-rtx", VERSION, "9.0", "NVIDIA H100", "580.1")
HANDLE = 0x51DE


@dataclass(frozen=True)
class Made:
    """What a plan's engine is; the sizes are minimum, optimum, maximum.

    Attributes:
        dtypes: TensorRT's names, where a tensor is not FLOAT (the mask: BOOL).
        most_rows: a smaller maximum on one input.
        static: whether sizes are fixed where minimum and maximum are one, without a profile.
    """

    rows: Profile = (1, 4, 8)
    frames: Profile = (2, 16, 64)
    tokens: Profile = (1, 16, 64)
    channels: int = 8
    encoder_dim: int = 32
    dtypes: Mapping[str, str] = field(default_factory=dict)
    most_rows: Mapping[str, int] = field(default_factory=dict)
    masked: bool = True
    static: bool = False
    velocity: tuple[int, ...] | None = None

    def names(self) -> list[str]:
        return [name for name in (*INPUTS, VELOCITY) if self.masked or name != MASK]

    def dtype(self, name: str) -> str:
        return self.dtypes.get(name, "BOOL" if name == MASK else "FLOAT")

    def profile(self, name: str) -> tuple[tuple[int, ...], ...]:
        def shape(which: int) -> tuple[int, ...]:
            fixed = {"channels": self.channels, "context_channels": 2 * self.channels, "encoder_dim": self.encoder_dim}
            dynamic = {"rows": self.rows, "frames": self.frames, "tokens": self.tokens}
            sizes = fixed | {axis: sizes[which] for axis, sizes in dynamic.items()}
            if which == 2:
                sizes["rows"] = self.most_rows.get(name, sizes["rows"])
            return tuple(sizes[axis] for axis in AXES[name])

        low, opt, high = (shape(which) for which in range(3))
        return low, tuple(map(min, opt, high)), high

    def shape(self, name: str) -> tuple[int, ...]:
        if name == VELOCITY and self.velocity is not None:
            return self.velocity
        low, _, high = self.profile(name)
        fixed = [axis not in ("rows", "frames", "tokens") or self.static for axis in AXES[name]]
        return tuple(a if a == b and kept else -1 for a, b, kept in zip(low, high, fixed, strict=True))


def plan(folder: Path, made: Made | None = None, name: str = "tiny.plan", **recorded: Any) -> Path:
    """A plan's file with its metadata beside it.

    Args:
        folder: where.
        made: its engine.
        name: of the file.
        recorded: of the metadata, what does not fit the engine or this machine.
    """
    made = made or Made()
    file = folder / name
    data = json.dumps(asdict(made)).encode()
    file.write_bytes(data)
    sidecar = Sidecar(
        plan_sha256=hashlib.sha256(data).hexdigest(),
        onnx_sha256="0" * 64,
        flavour=HERE.flavour,
        version=HERE.version,
        compute_capability=str(HERE.compute_capability),
        gpu=HERE.gpu,
        driver=HERE.driver,
        profile={n: made.profile(n) for n in made.names() if n != VELOCITY},
        dtypes={n: str(engine.DTYPES.get(made.dtype(n), "none")).removeprefix("torch.") for n in made.names()},
        frames_multiple=2,
        verbosity="detailed",
    )
    write(file, replace(sidecar, **recorded))
    return file


@lru_cache
def tiny(device: str = "cpu") -> AceStepDecoder:
    return AceStepDecoder.preset("tiny", 0, device=device)


class Memory:
    """Who lives where."""

    def __init__(self) -> None:
        self._living: WeakValueDictionary[int, Tensor] = WeakValueDictionary()

    def add(self, tensor: Tensor) -> Tensor:
        self._living[tensor.data_ptr()] = tensor
        return tensor

    def living(self) -> int:
        return len(self._living)

    def at(self, address: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        """What an engine sees at an address."""
        assert address in self._living, f"{address:#x} is no live buffer's address"
        size = math.prod(shape) * dtype.itemsize
        memory = self._living[address].view(-1).view(torch.uint8)
        assert memory.numel() >= size, f"{size} bytes at {address:#x}, where {memory.numel()} are allocated"
        return memory[:size].view(dtype).view(shape)


class TapeStream(DeferredStream):
    """Computes a run as late as it may, and writes down what is asked of it."""

    def __init__(self, tape: list[tuple[Any, ...]], handle: int = HANDLE) -> None:
        super().__init__()
        self.tape, self.handle = tape, handle

    def launch(self, work: Callable[[], None]) -> None:
        self.tape.append(("launch",))
        super().launch(work)

    def join(self) -> None:
        self.tape.append(("join",))
        super().wait()

    def wait(self) -> None:
        self.tape.append(("wait",))
        super().wait()


class FakeConfig(Held):
    stands_for = "IRuntimeConfig"

    def __init__(self) -> None:
        self._strategy: Any = None

    @property
    def dynamic_shapes_kernel_specialization_strategy(self) -> Any:
        return self._strategy

    @dynamic_shapes_kernel_specialization_strategy.setter
    def dynamic_shapes_kernel_specialization_strategy(self, strategy: Any) -> None:
        self._strategy = strategy


class FakeInspector(Held):
    stands_for = "EngineInspector"

    def get_engine_information(self, format: Any) -> str:  # noqa: A002 - the binding's own name
        return json.dumps({"Layers": [f"layer told as {format.name}"]})


class FakeEngine(Held):
    stands_for = "ICudaEngine"

    def __init__(self, runtime: FakeRuntime, made: Made) -> None:
        self._runtime, self._made = runtime, made

    def __del__(self) -> None:
        self._runtime.tape.append(("engine freed",))

    @property
    def num_io_tensors(self) -> int:
        return len(self._made.names())

    def get_tensor_name(self, index: int) -> str:
        return self._made.names()[index]

    def get_tensor_mode(self, name: str) -> Any:
        return enum("TensorIOMode", "OUTPUT" if name == VELOCITY else "INPUT")

    def get_tensor_dtype(self, name: str) -> Any:
        return enum("DataType", self._made.dtype(name))

    def get_tensor_shape(self, name: str) -> Any:
        return dims(self._made.shape(name))

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Any]:
        assert -1 in self._made.shape(name), f"{name} is of one shape and has no profile"
        return [dims(shape) for shape in self._made.profile(name)]

    def create_runtime_config(self) -> FakeConfig:
        return FakeConfig()

    def create_engine_inspector(self) -> FakeInspector:
        return FakeInspector()

    def create_execution_context(self, runtime_config: Any = None) -> Any:
        self._runtime.configs.append(runtime_config)
        return self._runtime.answer("create_execution_context", lambda: FakeContext(self._runtime, self._made))


class FakeContext(Held):
    """Refuses what a real context refuses, and whatever `FakeRuntime.broken` says."""

    stands_for = "IExecutionContext"

    def __init__(self, runtime: FakeRuntime, made: Made) -> None:
        self._runtime, self._made = runtime, made
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._profiler: Any = None
        self._emits = True

    def __del__(self) -> None:
        self._runtime.tape.append(("context freed",))

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        def answer() -> bool:
            low, _, high = self._made.profile(name)
            fits = all(a <= size <= b for a, size, b in zip(low, tuple(shape), high, strict=True))
            self._shapes |= {name: tuple(shape)} if fits else {}
            return fits

        return self._did("set_input_shape", answer, name, tuple(shape))

    def set_tensor_address(self, name: str, memory: int) -> bool:
        def answer() -> bool:
            self._addresses[name] = memory
            return memory != 0 and memory % ALIGNMENT == 0

        return self._did("set_tensor_address", answer, name, memory)

    def infer_shapes(self) -> list[str]:
        return self._did("infer_shapes", lambda: [n for n in self._inputs() if n not in self._shapes])

    def get_tensor_shape(self, name: str) -> Any:
        rows_and_frames = self._shapes["hidden_states"][:2]
        return self._did("get_tensor_shape", lambda: dims((*rows_and_frames, self._made.channels)), name)

    def execute_async_v3(self, stream_handle: int) -> bool:
        return self._did("execute_async_v3", lambda: self._computed(stream_handle), stream_handle)

    def report_to_profiler(self) -> bool:
        def answer() -> bool:
            for name, milliseconds in self._runtime.layers.items():
                with suppress(Exception):  # as TensorRT does
                    self._profiler.report_layer_time(name, milliseconds)
            return self._profiler is not None

        return self._did("report_to_profiler", answer)

    @property
    def profiler(self) -> Any:
        return self._profiler

    @profiler.setter
    def profiler(self, profiler: Any) -> None:
        self._runtime.tape.append(("profiler", profiler is not None))
        self._profiler = profiler

    @property
    def enqueue_emits_profile(self) -> bool:
        return self._emits

    @enqueue_emits_profile.setter
    def enqueue_emits_profile(self, emits: bool) -> None:
        self._runtime.tape.append(("enqueue_emits_profile", emits))
        self._emits = emits

    def _inputs(self) -> list[str]:
        return [name for name in self._made.names() if name != VELOCITY]

    def _did(self, call: str, answer: Callable[[], Any], *arguments: Any) -> Any:
        self._runtime.tape.append((call, *arguments))
        return self._runtime.answer(call, answer)

    def _computed(self, handle: int) -> bool:
        with self._runtime.on(handle):
            read = {name: self._tensor(name, self._shapes[name]) for name in self._inputs()}
            velocity = self._runtime.computes(self._made, read)
            self._tensor(VELOCITY, tuple(velocity.shape)).copy_(velocity)
        return True

    def _tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        dtype = engine.DTYPES[self._made.dtype(name)]
        return self._runtime.memory.at(self._addresses[name], dtype, shape)


class FakeRuntime:
    """Implements `runtime.Runtime`.

    Attributes:
        tape: what was asked of stream, context and engine, in order.
        broken: what a call returns or raises in place of its answer.
        layers: what a profiler is told: times by name.
        configs: with what contexts were made.
        allocations: how many buffers were made.
    """

    def __init__(
        self,
        decoder: Decoder | None = None,
        flavour: Flavour = Flavour.RTX,
        machine: Here = HERE,
        device: str = "cpu",
        stream: Callable[[list[tuple[Any, ...]]], RawStream] = TapeStream,
        on: Callable[[int], AbstractContextManager[Any]] | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.decoder = decoder or tiny(device)
        self.tape: list[tuple[Any, ...]] = []
        self.broken: dict[str, Any] = {}
        self.layers = {"gemm": 1.5, "kgen": 0.25}
        self.configs: list[Any] = []
        self.memory = Memory()
        self.allocations = 0
        self.on = on or (lambda handle: nullcontext())
        self._flavour, self._machine, self._stream = flavour, machine, stream

    def binding(self, flavour: str) -> Binding:
        return Binding(self._flavour, VERSION, installed() or WITHOUT_BINDING)

    def here(self, found: Binding) -> Here:
        return self._machine

    def engine(self, data: bytes, found: Binding) -> FakeEngine:
        self.tape.append(("engine",))
        broken = self.broken.get("engine")
        if isinstance(broken, Exception):
            raise broken
        raw = json.loads(data)
        lists = {name: tuple(value) for name, value in raw.items() if isinstance(value, list)}
        return FakeEngine(self, Made(**{**raw, **lists}))

    def context(self, engine: FakeEngine, found: Binding) -> Any:
        return context_of(engine, found)

    def stream(self) -> RawStream:
        return self._stream(self.tape)

    def allocate(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        self.allocations += 1
        self.tape.append(("allocate", shape, dtype))
        return self.memory.add(aligned(shape, dtype, self.device))

    def computes(self, made: Made, read: Mapping[str, Tensor]) -> Tensor:
        """What the engine makes of the memory that it read."""
        inputs = {name: t if t.dtype is torch.bool else t.float() for name, t in read.items()}
        if MASK in inputs or getattr(self.decoder, "takes_mask", True):
            inputs.setdefault(MASK, torch.ones_like(inputs["encoder_hidden_states"][:, :, 0], dtype=torch.bool))
        with torch.no_grad():
            return self.decoder(**inputs)

    def answer(self, call: str, answer: Callable[[], Any]) -> Any:
        if call not in self.broken:
            return answer()
        broken = self.broken[call]
        if isinstance(broken, Exception):
            raise broken
        return broken

    def calls(self) -> list[str]:
        """The names on the tape, which is empty then."""
        names = [entry[0] for entry in self.tape]
        self.tape.clear()
        return names


def dims(shape: tuple[int, ...]) -> Any:
    """As the binding has shapes: comparable with tuples and lists alone, and no tuple."""
    module = installed()
    return tuple(shape) if module is None else module.Dims(shape)


_FORMATS = SimpleNamespace(JSON=SimpleNamespace(name="JSON"))
_STRATEGIES = SimpleNamespace(EAGER=SimpleNamespace(name="EAGER"), LAZY=SimpleNamespace(name="LAZY"))
# What stands in for the binding where none is installed: calls are then held to no signature.
WITHOUT_BINDING = SimpleNamespace(
    IProfiler=object,
    DynamicShapesKernelSpecializationStrategy=_STRATEGIES,
    LayerInformationFormat=_FORMATS,
)


def enum(kind: str, name: str) -> Any:
    module = installed()
    return SimpleNamespace(name=name) if module is None else getattr(module, kind).__members__[name]
