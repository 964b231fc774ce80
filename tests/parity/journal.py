"""A pipeline that remembers which controls were in force at each tick, so that the oracle can be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from harness.engine import DCW, Finished, Outcomes, PipelineConfig, Request, StreamPipeline, Submission
from harness.engine.executors import Executor
from harness.parity.compare import assert_identical
from harness.parity.proofs import oracle
from harness.parity.proofs.oracle import StepControls


def drained(pipeline: StreamPipeline) -> Outcomes:
    """`drain` of a pipeline whose `tick` notes something: its own `drain` does not call `tick`."""
    ticks = []
    while pipeline.stats().queued or pipeline.stats().in_flight:
        ticks.append(pipeline.tick())
    return Outcomes().joined(*ticks)


class JournaledPipeline(StreamPipeline):
    def __init__(self, executor: Executor, config: PipelineConfig) -> None:
        super().__init__(executor, config)
        self.now = StepControls(dcw=config.dcw)
        self.journal: list[StepControls] = []
        self.requests: dict[str | int, Request] = {}
        self.finished: list[tuple[Finished, int]] = []

    def submit(self, request: Request) -> Submission:
        submission = super().submit(request)
        self.requests[submission.id] = request
        return submission

    def tick(self) -> Outcomes:
        self.journal.append(self.now)
        finished = super().tick()
        self.finished += [(f, len(self.journal)) for f in finished]
        return finished

    def drain(self) -> Outcomes:
        """By `tick`, so that every tick is in the journal."""
        return drained(self)

    def set_shared_curve(self, name: str, value: Any) -> None:
        super().set_shared_curve(name, value)
        shared: Mapping[str, Any] = {k: v for k, v in self.now.shared.items() if k != name}
        self.now = replace(self.now, shared=shared if value is None else {**shared, name: value})

    def set_channel_gain(self, gain: Any) -> None:
        super().set_channel_gain(gain)
        self.now = replace(self.now, channel_gain=gain)

    def set_dcw(self, dcw: DCW | None) -> None:
        super().set_dcw(dcw)
        self.now = replace(self.now, dcw=dcw)

    def assert_oracle_agrees(self, executor: Executor, which: list[tuple[Finished, int]] | None = None) -> None:
        """Every finished latent, or those of `which`, has exactly the bits of its request run alone."""
        judged = self.finished if which is None else which
        assert judged
        for finished, ended in judged:
            controls = self.journal[ended - finished.ticks_in_flight : ended]
            alone = oracle.run(executor, self.requests[finished.id], self.config, self.encoder_length or 0, controls)
            assert_identical(finished.latent, alone, f"request {finished.id}")
