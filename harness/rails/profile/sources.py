"""Profiles from runs: the wall time first, without any profiler, and then the layers, by the profiler of what runs."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from harness.engine.aot.layers import Layer
from harness.engine.aot.sidecar import Sidecar
from harness.engine.executors import Batch, Executor
from harness.engine.executors.stream import run_to_end
from harness.engine.noise import Purpose, noise
from harness.rails.profile.report import NoLayers, Profile, Timed, joined
from harness.rails.profile.rules import Facts

_MODULE = "module: "
"""What the scope of a module is called in torch's profile, before its path."""


class Subject(Protocol):
    """Something that runs and whose layers can be profiled.

    Attributes:
        source: whose profiler tells the layers.
    """

    source: str

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What is run and by what, as far as only it knows."""
        ...

    def run(self) -> None:
        """One run, to its end: when it returns the device has nothing left to do."""
        ...

    def layers(self, runs: int, warmup: int) -> tuple[list[Timed], bool]:
        """Every layer of so many profiled runs, averaged, after `warmup` more; and whether an engine's list was used.

        Raises:
            ProfileRefused: the profiler told nothing that can be used.
        """
        ...


def profiled(subject: Subject, iters: int, warmup: int, provenance: Mapping[str, Any]) -> Profile:
    """A subject's profile: `iters` runs for the wall time, then `iters` profiled ones, each after `warmup` others.

    A profiler makes runs slower, so that the wall time comes from runs that none has touched.

    Raises:
        ProfileRefused: see `Subject.layers` and `Profile`.
    """
    for _ in range(warmup):
        subject.run()
    wall = [_milliseconds(subject.run) for _ in range(iters)]
    layers, resolved = subject.layers(iters, warmup)
    return Profile(subject.source, layers, iters, tuple(wall), resolved, provenance)


def batch(shape: tuple[int, int, int], channels: int, encoder_dim: int, device: torch.device | str = "cpu") -> Batch:
    """Rows to run: drawn latents and conditions at times from 1 down, everything attended.

    Args:
        shape: rows N, frames T and tokens L.
        channels: D.
        encoder_dim: E.
        device: where the tensors are.
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
    """An executor whose engine reports layer times, as `TensorRTExecutor` does.

    Attributes:
        sidecar: its plan's metadata.
    """

    sidecar: Sidecar

    def profiling(self, listener: Callable[[str, float], None]) -> AbstractContextManager[None]:
        """Every run inside reports each layer's name and milliseconds."""
        ...


@dataclass
class EngineSubject:
    """An engine with a profiler of its own.

    Attributes:
        executor: an `Executor` that is `Profiling` as well.
        batch: what it runs.
    """

    executor: Any
    batch: Batch
    source: str = "tensorrt"

    @property
    def provenance(self) -> Mapping[str, Any]:
        """See `Subject`: what the plan's metadata says."""
        names = ("flavour", "version", "compute_capability", "gpu", "driver", "dtypes", "verbosity")
        return {name: getattr(self.executor.sidecar, name) for name in names}

    def run(self) -> None:
        """See `Subject.run`."""
        run_to_end(self.executor, self.batch)

    def layers(self, runs: int, warmup: int) -> tuple[list[Timed], bool]:
        """See `Subject.layers`."""
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
    """An executor that calls a decoder by torch.

    Attributes:
        executor: eager or static.
        decoder: that it calls; the scopes of its modules are marked while it is profiled.
        batch: what it runs.
    """

    executor: Executor
    decoder: Any
    batch: Batch
    source: str = "torch"
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def on_gpu(self) -> bool:
        """Whether kernels of a GPU are what takes time."""
        return self.batch.hidden_states.device.type == "cuda"

    def run(self) -> None:
        """See `Subject.run`."""
        run_to_end(self.executor, self.batch)
        if self.on_gpu:
            torch.cuda.synchronize(self.batch.hidden_states.device)

    def layers(self, runs: int, warmup: int) -> tuple[list[Timed], bool]:
        """See `Subject.layers`."""
        activities = [torch.profiler.ProfilerActivity.CPU]
        if self.on_gpu:
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        with scopes(self.decoder):
            for _ in range(warmup):
                self.run()
            with torch.profiler.profile(activities=activities, acc_events=True) as found:
                for _ in range(runs):
                    self.run()
        return operators(found.events() or (), runs, on_gpu=self.on_gpu), False


class Tally:
    """Sums of what is reported layer by layer."""

    def __init__(self) -> None:
        """Of nothing yet."""
        self.ms: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)

    def add(self, name: str, ms: float) -> None:
        """One call of a layer."""
        self.ms[name] += ms
        self.calls[name] += 1

    def averages(self, runs: int, facts: Callable[[str], Facts]) -> list[Timed]:
        """Every layer in the order of its first report, averaged over `runs`.

        Raises:
            NoLayers: none was reported.
        """
        if not self.ms:
            raise NoLayers(f"the profiler reported no layer in {runs} runs")
        return [Timed(facts(name), ms / runs, self.calls[name] / runs) for name, ms in self.ms.items()]


def operators(events: Any, runs: int, *, on_gpu: bool) -> list[Timed]:
    """The operators of torch's events, by module and name, without what they call.

    Args:
        events: of a profile.
        runs: that are in it.
        on_gpu: count the kernels that an operator launched, and not what the host took to launch them.

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
    """Mark in torch's profile which module of `decoder` an operator is called from; one that is no module has none."""
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
    """The path of the module that an operator is called from."""
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
    """Of a run that only warms up."""
