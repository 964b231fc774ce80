"""Two pipelines fed the same events and compared byte for byte at every tick.

What is compared: every slot's state (latent, guidance average, kept negative velocity), what a tick finished, and the
host facts around them (who is where, at which step, what a submission displaced). Where they part, every tensor that
was made in that tick is compared stage by stage, so that the first stage which differs is named and not just its
consequences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from enum import StrEnum
from types import TracebackType
from typing import TypeAlias, TypeVar, cast

from torch import Tensor

from harness.engine.config import DCW, PipelineConfig, Switches
from harness.engine.curve import CurveLike
from harness.engine.errors import InvalidInput
from harness.engine.execute import Observer, Stage
from harness.engine.executors import Executor
from harness.engine.pipeline import Finished, Stats, StreamPipeline, Submission
from harness.engine.request import Request
from harness.engine.slot import Slot
from harness.parity import catalog
from harness.parity.compare import Difference, compare_trees
from harness.parity.script import Script

T = TypeVar("T")

SWITCHES = tuple(field.name for field in fields(Switches))
"""The names of the tick's optimizations."""

PLAN = "plan"
"""The stage before any tensor was made: a host fact differs."""

Seen: TypeAlias = "dict[Stage, dict[int, dict[str, Tensor]]]"
"""Copies of what a tick made: by stage, place in the ring, name."""


class Parted(AssertionError):
    """Two pipelines that were fed the same events are not the same.

    Attributes:
        tick: the first tick that differs, from 0; a submission counts to the tick that would follow it.
        slot: the first place in the ring where it differs; None for what belongs to no slot.
        stage: the first stage of it that differs, or `PLAN`.
        detail: what differs there.
        repro: what to run to see it again.
    """

    def __init__(self, who: str, tick: int, slot: int | None, stage: str, detail: str, repro: str) -> None:
        """Say where `who` part."""
        where = f"tick {tick}, " + ("" if slot is None else f"slot {slot}, ") + f"stage {stage}"
        super().__init__(f"{who} part at {where}:\n  {detail}\nrepro:\n{repro}")
        self.tick, self.slot, self.stage, self.detail, self.repro = tick, slot, stage, detail, repro


def one_apart(config: PipelineConfig, switch: str) -> tuple[PipelineConfig, PipelineConfig]:
    """`config` with one switch on, and with it off; the other switches are `config`'s.

    Raises:
        InvalidInput: no such switch.
    """
    if switch not in SWITCHES:
        raise InvalidInput("switch", repr(switch), "one of " + ", ".join(map(repr, SWITCHES)))
    held = config.switches
    return replace(config, switches=held.turned_on(switch)), replace(config, switches=held.turned_off(switch))


def run(
    script: Script,
    switch: str,
    decoder: str = catalog.AFFINE,
    executor: catalog.Kind | str = catalog.Kind.EAGER,
    *,
    others: Switches | None = None,
    max_rows: int = 8,
    pin_rows: int | None = None,
) -> Lockstep:
    """Play a script on two pipelines one switch apart, and close them; what is left can still be asked for its stats.

    Args:
        script: what happens.
        switch: the one that is on in the first pipeline and off in the second.
        decoder: the name of the model that both use; see `catalog.decoder`.
        executor: the kind that each of them gets one of.
        others: how the other switches stand in both; None is all on.
        max_rows: of the executors.
        pin_rows: of the executors.

    Raises:
        Parted: they are not the same at some tick.
        InvalidInput: no such switch, or what the script asks for is refused, by both alike.
    """
    others = others or Switches()
    on, off = one_apart(script.config(others), switch)
    model = catalog.decoder(decoder, encoder_dim=script.encoder_dim)
    first, second = (catalog.executor(executor, model, max_rows, pin_rows) for _ in range(2))
    options = f"others=Switches({_arguments(others)}), {max_rows=}, {pin_rows=}"
    repro = (
        "from harness.engine import Switches\nfrom harness.parity.lockstep import run\n"
        "from harness.parity.script import *\n"
        f"run({script!r}, {switch!r}, {decoder!r}, {str(executor)!r}, {options})"
    )
    with Lockstep((first, on), (second, off), (f"{switch} on", "off"), repro) as lockstep:
        script.play(lockstep)
    return lockstep


class Lockstep:
    """Drives two pipelines as if they were one, and raises where they are not the same.

    Args:
        first: executor and configuration of the first pipeline; its results are handed out.
        second: of the second.
        names: what the two are called in a report.
        repro: what to run to see a difference again.

    Attributes:
        first: the first pipeline.
        second: the second.
        finished: all that finished.
    """

    def __init__(
        self,
        first: tuple[Executor, PipelineConfig],
        second: tuple[Executor, PipelineConfig],
        names: tuple[str, str] = ("first", "second"),
        repro: str = "the events before",
    ) -> None:
        """See the class."""
        self._seen: tuple[Seen, Seen] = ({}, {})
        self.first, self.second = (
            StreamPipeline(executor, config, observe=_recorder(seen))
            for (executor, config), seen in zip((first, second), self._seen, strict=True)
        )
        self._ticking = 0
        self.finished: list[Finished] = []
        self._who = " and ".join(names)
        self._repro = repro

    # What a caller asks and tells, as of a StreamPipeline.

    @property
    def slots(self) -> tuple[Slot | None, ...]:
        """The first pipeline's ring."""
        return self.first.slots

    def stats(self) -> Stats:
        """The first pipeline's."""
        return self.first.stats()

    def submit(self, request: Request) -> Submission:
        """Submit to both."""
        first, second = self._both(lambda pipeline: pipeline.submit(request))
        self._agree(vars(first), vars(second))
        return first

    def tick(self) -> list[Finished]:
        """Run one tick of both and compare everything."""
        for seen in self._seen:
            seen.clear()
        first, second = self._both(lambda pipeline: pipeline.tick())
        self._agree(_facts(self.first, first), _facts(self.second, second))
        made, expected = _tensors(self.first, first), _tensors(self.second, second)
        differences = compare_trees(made, expected) if any(made.values()) else []
        if differences:
            raise self._parted(differences)
        self.finished += first
        return first

    def drain(self) -> list[Finished]:
        """Tick until nothing is queued or in flight."""
        finished: list[Finished] = []
        while self.stats().queued or self.stats().in_flight:
            finished += self.tick()
        return finished

    def set_shared_curve(self, name: str, value: CurveLike | None) -> None:
        """Set it on both."""
        self._both(lambda pipeline: pipeline.set_shared_curve(name, value))

    def set_channel_gain(self, gain: Tensor | None) -> None:
        """Set it on both."""
        self._both(lambda pipeline: pipeline.set_channel_gain(gain))

    def set_dcw(self, dcw: DCW | None) -> None:
        """Set it on both."""
        self._both(lambda pipeline: pipeline.set_dcw(dcw))

    def set_depth(self, depth: int) -> None:
        """Set it on both."""
        self._both(lambda pipeline: pipeline.set_depth(depth))

    def close(self) -> None:
        """Close both, and the executors."""
        for pipeline in (self.first, self.second):
            pipeline.close()
            pipeline.executor.close()

    def __enter__(self) -> Lockstep:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close both."""
        self.close()

    # How they are compared.

    def _both(self, act: Callable[[StreamPipeline], T]) -> tuple[T, T]:
        """What `act` gives of both. What both refuse in the same words is refused; what one refuses parts them."""
        self._ticking = self.first.stats().ticks
        (first, refusal), (second, other) = (_outcome(act, pipeline) for pipeline in (self.first, self.second))
        self._agree({"refusal": str(refusal)}, {"refusal": str(other)})
        if refusal is not None:
            raise refusal
        return cast(T, first), cast(T, second)

    def _agree(self, first: Mapping[str, object], second: Mapping[str, object]) -> None:
        """Raise `Parted` at the first host fact that differs."""
        for name in {**first, **second}:
            if first.get(name) != second.get(name):
                detail = f"{name}: {first.get(name)} and {second.get(name)}"
                raise Parted(self._who, self._ticking, None, PLAN, detail, self._repro)

    def _parted(self, differences: Sequence[Difference]) -> Parted:
        """The first stage, and in it the first slot, where what the tick made differs."""
        first, second = self._seen
        for stage in Stage:
            a, b = first.get(stage, {}), second.get(stage, {})
            for slot in sorted(a.keys() | b.keys()):
                found = compare_trees(a.get(slot, {}), b.get(slot, {}))
                if found:
                    return Parted(self._who, self._ticking, slot, stage, _listed(found), self._repro)
        return Parted(self._who, self._ticking, None, Stage.COMMIT, _listed(differences), self._repro)


def _recorder(seen: Seen) -> Observer:
    """An observer that keeps a copy of everything."""

    def observe(stage: Stage, slot: int, name: str, tensor: Tensor) -> None:
        seen.setdefault(stage, {}).setdefault(slot, {})[name] = tensor.clone()

    return observe


def _outcome(act: Callable[[StreamPipeline], T], pipeline: StreamPipeline) -> tuple[T | None, InvalidInput | None]:
    try:
        return act(pipeline), None
    except InvalidInput as refusal:
        return None, refusal


def _facts(pipeline: StreamPipeline, finished: Sequence[Finished]) -> dict[str, object]:
    """Everything about a pipeline after a tick that is no tensor and that no switch may change."""
    stats = asdict(pipeline.stats())
    # Runs and cached conditionings are what the switches are for; how many rows run is not.
    facts: dict[str, object] = {name: stats[name] for name in stats if name not in ("decoder_runs", "conditioning")}
    for index, slot in enumerate(pipeline.slots):
        facts[f"slot {index}"] = slot and (slot.id, slot.admitted_at, slot.times, slot.step)
    facts["finished"] = [(f.id, f.seed, f.steps, f.denoise, f.ticks_in_flight) for f in finished]
    return facts


def _tensors(pipeline: StreamPipeline, finished: Sequence[Finished]) -> dict[str, dict[str, Tensor]]:
    """Everything that a tick left behind."""
    slots = {f"slot {index}": slot.state() for index, slot in enumerate(pipeline.slots) if slot is not None}
    return {**slots, "finished": {str(f.id): f.latent for f in finished}}


def _arguments(switches: Switches) -> str:
    held = asdict(switches)
    return ", ".join(f"{name}={(str(v) if isinstance(v, StrEnum) else v)!r}" for name, v in held.items())


def _listed(differences: Sequence[Difference]) -> str:
    return "\n  ".join(map(str, differences))
