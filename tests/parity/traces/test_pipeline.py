"""A pipeline that is recorded, and its replay."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from harness.engine import Condition, InvalidInput, LatentMask, PipelineConfig, Session, StreamPipeline
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import Batch, EagerExecutor
from harness.parity.compare import digest
from harness.parity.traces import RecordingStopped, TraceParted, record
from harness.parity.traces.engine_replay import replayed_pipeline
from harness.parity.traces.reading import verified
from tests.parity.traces.rings import FRAMES, Nudged, drawn, executor, pipeline, play, recorded, request


def latents(made: list[Any]) -> list[tuple[object, str]]:
    return [(each.id, digest(each.latent)) for outcomes in made for each in outcomes]


def test_a_replay_makes_every_value_that_the_recorded_pipeline_made(tmp_path: Path) -> None:
    result = replayed_pipeline(recorded(tmp_path / "a"), executor)
    assert (result.events, result.cut, result.raised) == (17, "", 0)
    assert result.values == 19


def test_recording_changes_no_bit(tmp_path: Path) -> None:
    with record(pipeline(), tmp_path / "a") as ring:
        assert latents(play(ring)) == latents(play(pipeline()))


@pytest.mark.parametrize(("run", "tick"), [(0, 1), (1, 2), (2, 3)])
def test_one_ulp_in_a_decoder_run_is_named_at_its_tick(tmp_path: Path, run: int, tick: int) -> None:
    with record(pipeline(), tmp_path / "a") as ring:
        ring.submit(request(1, id="a"))
        for _ in range(3):
            ring.tick()
    with pytest.raises(TraceParted, match="request 'a', step|finished request 'a': latent") as parted:
        replayed_pipeline(tmp_path / "a", lambda _: Nudged(run))
    assert (parted.value.call, parted.value.tick) == ("tick", tick)


def test_one_ulp_within_a_drain_is_named_by_the_latent(tmp_path: Path) -> None:
    with record(pipeline(), tmp_path / "a") as ring:
        ring.submit(request(1, id="a"))
        ring.drain()
    with pytest.raises(TraceParted, match=r"\(drain\), tick 3: finished request 'a': latent: other bits"):
        replayed_pipeline(tmp_path / "a", lambda _: Nudged(1))


def test_a_difference_behind_the_tick_that_was_asked_for_is_not_met(tmp_path: Path) -> None:
    with record(pipeline(), tmp_path / "a") as ring:
        ring.submit(request(1, id="a"))
        for _ in range(3):
            ring.tick()
    assert replayed_pipeline(tmp_path / "a", lambda _: Nudged(2), until=2).ticks == 2


def test_a_stream_is_recorded_through_its_own_calls(tmp_path: Path) -> None:
    with Session(AffineDecoder()) as session:
        stream = session.stream([Condition(drawn(1, 5, 16))], drawn(2, FRAMES, 8), config=PipelineConfig(steps=3))
        own = stream.pipeline
        with record(stream, tmp_path / "a"):
            for seed in range(4):
                stream.tick(seed=seed)
        assert stream.pipeline is own
        stream.tick()
    assert replayed_pipeline(tmp_path / "a", executor).ticks == 4


def test_a_callback_that_raises_fails_its_request_in_the_replay_too(tmp_path: Path) -> None:
    def strength_at(step: int, total: int) -> float:
        if step == 1:
            raise ArithmeticError
        return 0.5

    with record(pipeline(), tmp_path / "a") as ring:
        ring.submit(request(1, latent_mask=LatentMask(0.5, drawn(1), strength_at)))
        assert len(ring.drain().failed) == 1
    assert replayed_pipeline(tmp_path / "a", executor).ticks == 2


def test_a_call_that_is_refused_is_refused_and_not_played(tmp_path: Path) -> None:
    with record(pipeline(), tmp_path / "a") as ring:
        with pytest.raises(InvalidInput, match="depth"):
            ring.set_depth(99)
        ring.submit(request(1))
        ring.drain()
    assert replayed_pipeline(tmp_path / "a", executor).raised == 1


class Failing(EagerExecutor):
    """Has no memory in its fifth run."""

    runs = 0

    def run(self, batch: Batch) -> Tensor:
        self.runs += 1
        if self.runs == 5:
            raise MemoryError
        return super().run(batch)


def test_the_ticks_of_a_drain_that_raised_are_played_and_its_latents_come_next(tmp_path: Path) -> None:
    made = StreamPipeline(Failing(AffineDecoder(), 8), PipelineConfig(depth=1, steps=3))
    with record(made, tmp_path / "a") as ring:
        ring.submit(request(1))
        ring.tick()
        ring.submit(request(2))
        with pytest.raises(MemoryError):
            ring.drain()
        assert len(ring.tick()) == 1
    result = replayed_pipeline(tmp_path / "a", executor)
    assert (result.ticks, result.raised) == (5, 1)


def test_outcomes_that_are_given_back_are_handed_out_again(tmp_path: Path) -> None:
    with record(pipeline(), tmp_path / "a") as ring:
        ring.submit(request(1))
        ring.keep(ring.drain())
        assert len(ring.collect()) == 1
    assert replayed_pipeline(tmp_path / "a", executor).events == 5


def test_a_pipeline_that_was_called_before_is_refused(tmp_path: Path) -> None:
    made = pipeline()
    made.set_dcw(None)
    with pytest.raises(InvalidInput, match="called before"):
        record(made, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_call_that_goes_past_the_recording_stops_it(tmp_path: Path) -> None:
    made = pipeline()
    with pytest.raises(RecordingStopped, match="went past the recording"), record(made, tmp_path / "a") as ring:
        made.submit(request(1))
        ring.tick()


def test_a_ring_goes_on_through_a_recording_that_has_ended(tmp_path: Path) -> None:
    made = pipeline()
    with record(made, tmp_path / "a") as ring:
        ring.submit(request(1))
    made.tick()
    assert len(ring.drain()) == 1
    assert verified(tmp_path / "a").events == 2


def test_an_interrupt_behind_a_tick_loses_no_latent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(RecordingStopped, match="KeyboardInterrupt"), record(pipeline(), tmp_path / "a") as ring:
        ring.submit(request(1))
        monkeypatch.setattr(ring._writer, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ring.drain()
        assert len(ring.collect()) == 1


def test_threads_that_submit_while_a_ring_ticks_are_recorded_in_one_order(tmp_path: Path) -> None:
    with record(pipeline(depth=8), tmp_path / "a") as ring:
        threads = [threading.Thread(target=ring.submit, args=[request(seed)]) for seed in range(6)]
        for thread in threads:
            thread.start()
            ring.tick()
        for thread in threads:
            thread.join()
        ring.drain()
    assert replayed_pipeline(tmp_path / "a", executor).events == 1 + 6 + 6 + 1


def test_two_recordings_of_one_pipeline_are_refused(tmp_path: Path) -> None:
    made = pipeline()
    with record(made, tmp_path / "a") as first:
        for again in (made, first):
            with pytest.raises(InvalidInput, match="a ring that is being recorded"):
                record(again, tmp_path / "other").finish()
    assert not (tmp_path / "other").exists()
