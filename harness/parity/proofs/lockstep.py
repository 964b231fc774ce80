"""Lockstep of two pipelines: both get the same events and are compared byte for byte at every tick.

The comparison covers every tensor that a tick makes, stage by stage; every slot's state (latent, guidance average, kept
negative velocity); the latents that the tick finished; and host facts (the request and the step of each slot, the
requests that a submission displaced). Finished latents are compared again after every later tick. A difference is
reported with the first tick, slot and stage that differ.

State and velocities that are not finite are refused, because equal NaNs may have different causes and prove nothing. A
run that compared nothing is refused too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from enum import StrEnum
from types import TracebackType
from typing import TypeAlias, TypeVar, cast

import torch
from torch import Tensor

from harness import registry
from harness.engine.config import DCW, PipelineConfig
from harness.engine.curve import CurveLike
from harness.engine.decoders import Decoder
from harness.engine.errors import InvalidInput
from harness.engine.execute import Observer, Stage
from harness.engine.executors import Executor
from harness.engine.geometry import LENGTH_MULTIPLE
from harness.engine.pipeline import StreamPipeline
from harness.engine.request import Request
from harness.engine.results import Dropped, FailReason, Finished, Outcomes, Stats, Submission
from harness.engine.slot import Slot
from harness.engine.switches import SWITCHES, Switches
from harness.parity.baselines import platform
from harness.parity.battery.scripts import Script
from harness.parity.compare import NothingCompared, compare_named, identical
from harness.parity.differences import LATENTS, Words
from harness.parity.proofs.inputs import inputs_of, writes

T = TypeVar("T")

HOST = "host"
"""In place of a stage, for a difference between host facts."""
REPRO = "\nrepro:\n"
"""Words between a difference and the code or command that shows it again."""

Seen: TypeAlias = "dict[Stage, dict[int, dict[str, Tensor]]]"
"""Copies of the tensors that a tick made, by stage, place in the ring and name."""


class Parted(AssertionError):
    """Two pipelines differ after the same events.

    Attributes:
        tick: number of the first tick that differs, from 0; a submission belongs to the tick after it.
        slot: first place in the ring that differs in that tick; None for a difference that belongs to no slot.
        stage: first stage of that tick that differs, or `HOST`.
        detail: the differences, in words.
        repro: the code or command that shows the difference again.
    """

    def __init__(self, who: str, tick: int, slot: int | None, stage: str, detail: str, repro: str) -> None:
        """Name the first tick, slot and stage at which the pipelines `who` differ."""
        where = f"tick {tick}, " + ("" if slot is None else f"slot {slot}, ") + f"stage {stage}"
        super().__init__(f"{who} differ at {where}:\n  {detail}{REPRO}{repro}")
        self.tick, self.slot, self.stage, self.detail, self.repro = tick, slot, stage, detail, repro


def one_apart(config: PipelineConfig, switch: str) -> tuple[PipelineConfig, PipelineConfig]:
    """Return `config` with one switch on, and `config` with the switch off; the other switches stay as they are.

    Raises:
        InvalidInput: an unknown switch.
    """
    if switch not in SWITCHES:
        raise InvalidInput("switch", repr(switch), "one of " + ", ".join(map(repr, SWITCHES)))
    held = config.switches
    return replace(config, switches=held.turned_on(switch)), replace(config, switches=held.turned_off(switch))


def acted(switch: str, on: Stats, off: Stats) -> bool:
    """Say whether a switch changed the work of one of two pipelines; if not, their equality proves nothing."""
    return SWITCHES[switch].acted(on, off)


def run(
    script: Script,
    switch: str,
    decoder: str | Decoder = registry.AFFINE,
    executor: registry.ExecutorKind | str | Callable[[], Executor] = registry.ExecutorKind.EAGER,
    *,
    others: Switches | None = None,
    max_rows: int = 8,
    pin_rows: int | None = None,
    device: str = "cpu",
) -> Lockstep:
    """Play a script on two pipelines that differ in one switch.

    The comparison uses one torch thread. Both pipelines are closed at the end; the returned `Lockstep` still has their
    statistics.

    Args:
        script: the events.
        switch: the switch, on in the first pipeline and off in the second.
        decoder: the model that both use, or its name; see `registry.decoder`.
        executor: kind of the two executors, or a function that makes a new executor at every call; `decoder` is then
            not read.
        others: the other switches in both pipelines; None is all on.
        max_rows: limit of rows in one run of the executors.
        pin_rows: number of rows to which the executors pad every run, or None.
        device: device of the decoder and of all tensors.

    Raises:
        Parted: the pipelines differ at some tick.
        NothingCompared: no tick made a tensor.
        InvalidInput: an unknown switch, one executor object for both pipelines, or an event that both pipelines refuse.
    """
    others = others or Switches()
    on, off = one_apart(script.config(others), switch)
    first, second = _two_executors(script, decoder, executor, max_rows, pin_rows, device)
    asked = str(executor) if isinstance(executor, str) else executor
    options = f"others=Switches({_arguments(others)}), {max_rows=}, {pin_rows=}, {device=}"
    repro = (
        "from harness.engine import Switches\nfrom harness.parity.proofs.lockstep import run\n"
        "from harness.parity.battery.scripts import *\n"
        f"run({script!r}, {switch!r}, {decoder!r}, {asked!r}, {options})"
    )
    names = (f"{switch} on", "off")
    with platform.one_thread(), Lockstep((first, on), (second, off), names, repro) as lockstep:
        script.play(lockstep, device)
    if not lockstep.compared:
        raise NothingCompared(f"no tick of the script made a tensor: {script!r}")
    return lockstep


def _two_executors(
    script: Script,
    decoder: str | Decoder,
    executor: registry.ExecutorKind | str | Callable[[], Executor],
    max_rows: int,
    pin_rows: int | None,
    device: str,
) -> tuple[Executor, Executor]:
    if isinstance(executor, str):
        engine = None
        if isinstance(decoder, str):
            tokens = script.encoder_length or LENGTH_MULTIPLE
            engine = registry.engine_for(executor, decoder, encoder_dim=script.encoder_dim, tokens=tokens)
            decoder = registry.decoder(decoder, encoder_dim=script.encoder_dim, device=device)
        first, second = (registry.executor(executor, decoder, max_rows, pin_rows, device, engine) for _ in range(2))
        return first, second
    made = executor(), executor()
    if made[0] is made[1]:
        raise InvalidInput("executor", "one executor for both pipelines", "a new one at every call")
    return made


class Lockstep:
    """Driver of two pipelines with the interface of one; raises `Parted` where the two differ.

    Args:
        first: executor and configuration of the first pipeline, whose results are returned.
        second: executor and configuration of the second pipeline.
        names: names of the two pipelines in messages.
        repro: the code or command that shows a difference again.

    Attributes:
        first: the first pipeline.
        second: the second pipeline.
        finished: all finished latents of the first pipeline.
        compared: number of compared tensors.
        overlapping: number of ticks after which slots were at two different steps or more.
    """

    def __init__(
        self,
        first: tuple[Executor, PipelineConfig],
        second: tuple[Executor, PipelineConfig],
        names: tuple[str, str] = ("first", "second"),
        repro: str = "feed two pipelines the same events again",
    ) -> None:
        self._seen: tuple[Seen, Seen] = ({}, {})
        self.first, self.second = (
            StreamPipeline(executor, config, observe=_recorder(seen))
            for (executor, config), seen in zip((first, second), self._seen, strict=True)
        )
        self.finished: list[Finished] = []
        self.compared = 0
        self.overlapping = 0
        self._handed_out: list[tuple[Tensor, Tensor, Tensor]] = []
        self._inputs: dict[str, Tensor] = {}
        self._ticking = 0
        self._who, self._sides = " and ".join(names), Words(*names, LATENTS.axes)
        self._repro = repro

    # The interface of a StreamPipeline.

    @property
    def slots(self) -> tuple[Slot | None, ...]:
        """The ring of the first pipeline."""
        return self.first.slots

    def stats(self) -> Stats:
        """Return the statistics of the first pipeline."""
        return self.first.stats()

    def submit(self, request: Request) -> Submission:
        """Submit the request to both pipelines and compare the results."""
        self._inputs.update(inputs_of(f"request {self.stats().submitted}", request))
        first, second = self._both(lambda pipeline: pipeline.submit(request))
        self._agree({(None, name): fact for name, fact in vars(first).items()},
                    {(None, name): fact for name, fact in vars(second).items()})  # fmt: skip
        return first

    def tick(self) -> Outcomes:
        """Run one tick of both pipelines and compare everything; return what left the first pipeline's ring."""
        for seen in self._seen:
            seen.clear()
        first, second = self._both(lambda pipeline: pipeline.tick())
        if any(each.reason is FailReason.VELOCITY_NOT_FINITE for each in (*first.failed, *second.failed)):
            self._compare_stages(finite=True)  # a stage says more than the failure that it leads to
        self._agree(_facts(self.first, first), _facts(self.second, second))
        self._compare_stages()
        self._compare_what_is_left(first, second)
        self._compare_what_was_handed_out(first, second)
        self.overlapping += len({slot.step for slot in self.slots if slot is not None}) > 1
        self.finished += first
        return first

    def drain(self) -> Outcomes:
        """Tick until nothing is queued or in flight; return everything that left the ring, in order."""
        ticks = []
        while self.stats().queued or self.stats().in_flight:
            ticks.append(self.tick())
        return Outcomes().joined(*ticks)

    def set_shared_curve(self, name: str, value: CurveLike | None) -> None:
        """Set a shared curve on both pipelines."""
        self._both(lambda pipeline: pipeline.set_shared_curve(name, value))

    def set_channel_gain(self, gain: Tensor | None) -> None:
        """Set the channel gain of both pipelines."""
        self._both(lambda pipeline: pipeline.set_channel_gain(gain))

    def set_dcw(self, dcw: DCW | None) -> None:
        """Set the wavelet correction of both pipelines."""
        self._both(lambda pipeline: pipeline.set_dcw(dcw))

    def set_depth(self, depth: int) -> tuple[Dropped, ...]:
        """Set the depth of both pipelines; return what left the queue of the first."""
        first, second = self._both(lambda pipeline: pipeline.set_depth(depth))
        self._agree({(None, "dropped"): first}, {(None, "dropped"): second})
        return first

    def close(self) -> None:
        """Close both pipelines and their executors."""
        for pipeline in (self.first, self.second):
            pipeline.close()
            pipeline.executor.close()

    def __enter__(self) -> Lockstep:
        """Return the lockstep."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close both pipelines and their executors."""
        self.close()

    # Comparison.

    def _both(self, act: Callable[[StreamPipeline], T]) -> tuple[T, T]:
        """Apply `act` to both pipelines and return both results.

        Raises:
            Parted: only one pipeline raises, the two raise different errors, or one writes to an input.
            Exception: the error that both pipelines raise, with the same message.
        """
        self._ticking = self.first.stats().ticks
        versions = self._versions()
        first, error = _outcome(act, self.first)
        self._agree(versions, self._versions())
        second, other = _outcome(act, self.second)
        self._agree(versions, self._versions())
        self._agree({(None, "error"): _words(error)}, {(None, "error"): _words(other)})
        if error is not None:
            raise error
        return cast(T, first), cast(T, second)

    def _versions(self) -> dict[tuple[int | None, str], object]:
        """The writes to each input, by name: a pipeline must not change what the other one reads."""
        return {(None, f"writes to {name}"): writes(tensor) for name, tensor in self._inputs.items()}

    def _agree(
        self, first: Mapping[tuple[int | None, str], object], second: Mapping[tuple[int | None, str], object]
    ) -> None:
        """Raise `Parted` at the first host fact that differs; the key of a fact is its slot and its name."""
        for slot, name in {**first, **second}:
            a, b = first.get((slot, name)), second.get((slot, name))
            if a != b:
                raise self._parted(slot, HOST, f"{name}: {a} and {b}")

    def _compare_stages(self, *, finite: bool = False) -> None:
        first, second = self._seen
        for stage in Stage:
            a, b = first.get(stage, {}), second.get(stage, {})
            for slot in sorted(a.keys() | b.keys()):
                self._compare(slot, stage, a.get(slot, {}), b.get(slot, {}))
                if finite:
                    self._refuse_not_finite(slot, a.get(slot, {}), stage)

    def _compare_what_is_left(self, first: Sequence[Finished], second: Sequence[Finished]) -> None:
        for index, (a, b) in enumerate(zip(self.first.slots, self.second.slots, strict=True)):
            if a is not None and b is not None:
                self._compare(index, Stage.COMMIT, a.state(), b.state())
                self._refuse_not_finite(index, a.state())
        for number, (done, other) in enumerate(zip(first, second, strict=True)):
            self._compare(
                None, Stage.COMMIT, {f"finished[{number}]": done.latent}, {f"finished[{number}]": other.latent}
            )
            self._refuse_not_finite(None, {f"finished[{number}]": done.latent})

    def _compare_what_was_handed_out(self, first: Sequence[Finished], second: Sequence[Finished]) -> None:
        """Compare the latents that both pipelines gave in earlier ticks with copies, then copy the new ones."""
        for number, (one, other, copy) in enumerate(self._handed_out):
            name = f"latent {number}, handed out before"
            self._compare(None, Stage.COMMIT, {name: one}, {name: copy})
            self._compare(None, Stage.COMMIT, {name: copy}, {name: other})
        self._handed_out += [(a.latent, b.latent, a.latent.clone()) for a, b in zip(first, second, strict=True)]

    def _compare(self, slot: int | None, stage: str, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
        """Raise `Parted` unless both hold tensors of the same names and bytes."""
        self.compared += len(first)
        if first.keys() == second.keys() and all(identical(first[name], second[name]) for name in first):
            return
        raise self._parted(slot, stage, "\n  ".join(each.told(self._sides) for each in compare_named(first, second)))

    def _refuse_not_finite(self, slot: int | None, tensors: Mapping[str, Tensor], stage: str = Stage.COMMIT) -> None:
        for name, tensor in tensors.items():
            if not bool(torch.isfinite(tensor).all()):
                raise self._parted(slot, stage, f"{name} is not finite in both: equal NaNs prove nothing")

    def _parted(self, slot: int | None, stage: str, detail: str) -> Parted:
        return Parted(self._who, self._ticking, slot, stage, detail, self._repro)


def _recorder(seen: Seen) -> Observer:
    """Make an observer that keeps a copy of every tensor in `seen`."""

    def observe(stage: Stage, slot: int, name: str, tensor: Tensor) -> None:
        seen.setdefault(stage, {}).setdefault(slot, {})[name] = tensor.clone()

    return observe


def _outcome(act: Callable[[StreamPipeline], T], pipeline: StreamPipeline) -> tuple[T | None, Exception | None]:
    try:
        return act(pipeline), None
    except Exception as error:  # noqa: BLE001 - any exception that only one pipeline raises is a difference
        return None, error


def _words(error: Exception | None) -> str:
    return "none" if error is None else f"{type(error).__name__}: {error}"


def _facts(pipeline: StreamPipeline, outcomes: Outcomes) -> dict[tuple[int | None, str], object]:
    """Host facts of a pipeline after a tick that no switch may change."""
    facts: dict[tuple[int | None, str], object] = {(None, "places"): len(pipeline.slots)}
    for index, slot in enumerate(pipeline.slots):
        facts[index, "slot"] = None if slot is None else (slot.id, slot.admitted_at, slot.times, slot.step)
    facts[None, "results"] = [
        *((each.id, each.seed, each.steps, each.denoise, each.ticks_in_flight) for each in outcomes),
        *outcomes.failed,
        *outcomes.dropped,
    ]
    stats = asdict(pipeline.stats())
    # Switches change these counts, and timing the last. They must not change the number of rows.
    different = ("decoder_runs", "conditioning", "joins", "waits")
    return {**facts, **{(None, name): stats[name] for name in stats if name not in different}}


def _arguments(switches: Switches) -> str:
    held = asdict(switches)
    return ", ".join(f"{name}={(str(v) if isinstance(v, StrEnum) else v)!r}" for name, v in held.items())
