"""Profiles from runs: first the wall time without a profiler, then the time of each layer with a profiler."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from harness.engine.aot.layers import Layer
from harness.engine.aot.sidecar import Sidecar
from harness.engine.executors import Batch, CudaGraphExecutor, Executor
from harness.engine.executors.stream import run_to_end
from harness.engine.noise import Purpose, noise
from harness.rails.profile import kernels
from harness.rails.profile.report import Gaps, NoLayers, Profile, Timed, joined
from harness.rails.profile.rules import Facts

_MODULE = "module: "
"""The prefix of the name of a module's scope in torch's profile, before the path of the module."""


class Subject(Protocol):
    """The interface of a program whose layers can be profiled.

    Attributes:
        source: the profiler: `tensorrt`, `onnxruntime` or `torch`.
    """

    source: str

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Facts about the program and its runtime for the report, by name."""
        ...

    def run(self) -> None:
        """Run once and wait for the device."""
        ...

    def layers(self, runs: int, warmup: int) -> tuple[list[Timed], bool]:
        """Profile `runs` runs after `warmup` runs.

        Returns:
            The layers with their average times, and True if their names were joined with a plan's list of layers.

        Raises:
            ProfileRefused: the profiler reported no layers, or layers that cannot be attributed.
        """
        ...


@runtime_checkable
class SeesGaps(Protocol):
    """A subject whose profiler tells when kernels run.

    Attributes:
        gaps: the gaps of the last profile; None before one, and without a GPU.
    """

    gaps: Gaps | None


def profiled(subject: Subject, iters: int, warmup: int, provenance: Mapping[str, Any]) -> Profile:
    """Profile a subject: `iters` runs for the wall time, then `iters` runs with the profiler.

    A profiler slows runs down, so the wall time is measured without a profiler.

    Args:
        subject: the program.
        iters: the number of runs for each of the two measurements.
        warmup: the number of runs before each of the two measurements.
        provenance: facts for the report.

    Raises:
        ProfileRefused: see `Subject.layers` and `Profile`.
    """
    for _ in range(warmup):
        subject.run()
    wall = [_milliseconds(subject.run) for _ in range(iters)]
    layers, resolved = subject.layers(iters, warmup)
    gaps = subject.gaps if isinstance(subject, SeesGaps) else None
    return Profile(subject.source, layers, iters, tuple(wall), resolved, provenance, gaps)


def batch(shape: tuple[int, int, int], channels: int, encoder_dim: int, device: torch.device | str = "cpu") -> Batch:
    """A batch of seeded random latents and conditions, with times from 1 to 1/N and all tokens attended.

    Args:
        shape: rows N, frames T and tokens L.
        channels: latent channels D.
        encoder_dim: encoder width E.
        device: the device of the tensors.
    """
    rows, frames, tokens = shape

    def drawn(first: int, length: int, width: int) -> Tensor:
        each = [noise(first + row, Purpose.INITIAL, 0, (1, length, width), device) for row in range(rows)]
        return torch.cat(each)

    context = drawn(2 * rows, frames, channels)
    return Batch(
        hidden_states=drawn(0, frames, channels),
        timestep=torch.linspace(1.0, 1.0 / rows, rows, device=device),
        encoder_hidden_states=drawn(rows, tokens, encoder_dim),
        encoder_mask=torch.ones(rows, tokens, dtype=torch.bool, device=device),
        context_latents=torch.cat([context, torch.ones_like(context)], dim=2),
    )


class Profiling(Protocol):
    """The interface of an executor that reports layer times, such as `TensorRTExecutor`.

    Attributes:
        sidecar: the plan's metadata.
    """

    sidecar: Sidecar

    def profiling(self, listener: Callable[[str, float], None]) -> AbstractContextManager[None]:
        """Report name and milliseconds of each layer to `listener`, for every run inside the block."""
        ...


@dataclass
class EngineSubject:
    """A plan, profiled by TensorRT's profiler.

    Attributes:
        executor: an `Executor` that also implements `Profiling`.
        batch: the batch of every run.
        source: see `Subject`.
    """

    executor: Any
    batch: Batch
    source: str = "tensorrt"

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Fields of the plan's metadata; see `Subject`."""
        names = ("flavour", "version", "compute_capability", "gpu", "driver", "dtypes", "verbosity")
        return {name: getattr(self.executor.sidecar, name) for name in names}

    def run(self) -> None:
        """Run the batch; see `Subject.run`."""
        run_to_end(self.executor, self.batch)

    def layers(self, runs: int, warmup: int) -> tuple[list[Timed], bool]:
        """Profile the plan's layers; see `Subject.layers`."""
        tally = Tally()
        with self.executor.profiling(_ignored):
            for _ in range(warmup):
                self.run()
        with self.executor.profiling(tally.add):
            for _ in range(runs):
                self.run()
        listed: tuple[Layer, ...] = self.executor.sidecar.layers
        described = joined(list(tally.ms), listed)
        return tally.averages(runs, lambda name: Facts(described[name])), bool(listed)


@dataclass
class TorchSubject:
    """A decoder that runs in torch, profiled by torch's profiler.

    On a GPU a run that is recorded has no operators any more: its layers are its kernels, by name.

    Attributes:
        executor: an executor that runs the decoder itself.
        decoder: the decoder whose modules are marked in the profile; None marks none. Of an executor of recorded runs
            none are marked.
        batch: the batch of every run.
        source: see `Subject`.
        provenance: see `Subject`.
        gaps: see `SeesGaps`.
    """

    executor: Executor
    decoder: Any
    batch: Batch
    source: str = "torch"
    provenance: Mapping[str, Any] = field(default_factory=dict)
    gaps: Gaps | None = None

    @property
    def on_gpu(self) -> bool:
        """True if the batch is on a GPU, so that the time of kernels counts."""
        return self.batch.hidden_states.device.type == "cuda"

    @property
    def recorded(self) -> bool:
        """True if the executor replays recorded runs."""
        return isinstance(self.executor, CudaGraphExecutor)

    def run(self) -> None:
        """Run the batch; see `Subject.run`."""
        run_to_end(self.executor, self.batch)
        if self.on_gpu:
            torch.cuda.synchronize(self.batch.hidden_states.device)

    def layers(self, runs: int, warmup: int) -> tuple[list[Timed], bool]:
        """Profile the operators or the kernels of torch; see `Subject.layers`."""
        activities = [torch.profiler.ProfilerActivity.CPU]
        if self.on_gpu:
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        with scopes(None if self.recorded else self.decoder):
            for _ in range(warmup):
                self.run()
            with torch.profiler.profile(activities=activities, acc_events=True) as found:
                for _ in range(runs):
                    with torch.profiler.record_function(kernels.RUN):
                        self.run()
        events = list(found.events() or ())
        ran = kernels.on_device(events) if self.on_gpu else []
        self.gaps = kernels.gaps(ran, kernels.starts(events))
        if self.on_gpu and self.recorded:
            return kernels.by_name(ran, runs), False
        return operators(events, runs, on_gpu=self.on_gpu), False


class Tally:
    """Sums of times and calls by layer name.

    Attributes:
        ms: the sum of milliseconds of each layer.
        calls: the number of calls of each layer.
    """

    def __init__(self) -> None:
        self.ms: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)

    def add(self, name: str, ms: float) -> None:
        """Count one call of a layer, which took `ms` milliseconds."""
        self.ms[name] += ms
        self.calls[name] += 1

    def averages(self, runs: int, facts: Callable[[str], Facts]) -> list[Timed]:
        """The layers with times and calls per run, in the order of their first report.

        Args:
            runs: the number of runs in the sums.
            facts: makes the facts of a layer from its name.

        Raises:
            NoLayers: no layer was reported.
        """
        if not self.ms:
            raise NoLayers(f"the profiler reported no layer in {runs} runs")
        return [Timed(facts(name), ms / runs, self.calls[name] / runs) for name, ms in self.ms.items()]


def operators(events: Any, runs: int, *, on_gpu: bool) -> list[Timed]:
    """The average self time of each operator in torch's profile, by module and name.

    Self time does not include the operators that an operator calls.

    Args:
        events: the events of the profile.
        runs: the number of runs in the profile.
        on_gpu: True: the time of the kernels that the operator launched. False: the time of the host.

    Raises:
        NoLayers: no operator took any time.
    """
    tally, ops = Tally(), {}
    for event in events:
        if "::" not in event.name or event.device_type.name != "CPU":
            continue
        took = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if took > 0:
            name = "/".join(part for part in (_module_of(event), event.name) if part)
            ops[name] = event.name
            tally.add(name, took / 1e3)
    return tally.averages(runs, lambda name: Facts(Layer(name), ops[name]))


@contextmanager
def scopes(decoder: Any) -> Iterator[None]:
    """Mark the modules of `decoder` in torch's profile, inside the block; a decoder that is no `nn.Module` has none."""
    if not isinstance(decoder, nn.Module):
        yield
        return
    open_scopes: list[Any] = []

    def enter(path: str) -> Callable[..., None]:
        def hook(*_called: Any) -> None:
            open_scopes.append(torch.profiler.record_function(_MODULE + path))
            open_scopes[-1].__enter__()

        return hook

    def leave(*_called: Any) -> None:
        open_scopes.pop().__exit__(None, None, None)

    with ExitStack() as hooks:
        for path, module in decoder.named_modules():
            if path:
                for handle in (
                    module.register_forward_pre_hook(enter(path)),
                    module.register_forward_hook(leave, always_call=True),
                ):
                    hooks.callback(handle.remove)
        yield


def _module_of(event: Any) -> str:
    """The path of the module that an operator is called from; empty if there is none."""
    while event is not None:
        if event.name.startswith(_MODULE):
            return str(event.name[len(_MODULE) :])
        event = event.cpu_parent
    return ""


def _milliseconds(run: Callable[[], None]) -> float:
    started = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - started)


def _ignored(_name: str, _ms: float) -> None:
    """Ignore a layer of a warm-up run."""
