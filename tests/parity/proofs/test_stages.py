"""Stages that rings report: the first one that differs is named, in the order of the plain ring."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.engine.errors import InvalidInput
from harness.parity.compare import NothingCompared
from harness.parity.proofs.generic import EnginesParted, run
from harness.parity.proofs.stages import Place, Recorder, Stages
from tests.parity.proofs.rings import Slots, nudged

STAGES = ["gather", "decode", "guidance", "step"]


def parted(fast: Any, plain: Any = None, **options: Any) -> EnginesParted:
    with pytest.raises(EnginesParted) as caught:
        run(plain or Slots(), fast, [1.0] * 6, **options)
    return caught.value


@pytest.mark.parametrize("slot", [0, 1])
@pytest.mark.parametrize("stage", STAGES)
def test_the_first_tick_slot_and_stage_that_differ_are_named(stage: str, slot: int) -> None:
    error = parted(Slots(3, nudged(stage, slot)))
    assert (error.event, error.tick, error.slot, error.stage) == (3, 3, slot, stage)
    assert error.path == f"{stage}[{slot}]/value"
    assert f"differ at event 3, 1.0, tick 3, slot {slot}, stage {stage}:\n  {stage}[{slot}]/value: bytes" in str(error)


def test_a_stage_that_differs_only_on_the_way_is_named() -> None:
    class Detour(Slots):
        def _stage(self, stage: str, slot: int, value: Any) -> Any:
            shown = value + 1e-6 if (stage, slot, self.ticks) == ("decode", 1, 2) else value
            self.report(stage, slot, "value", shown)
            return value

    error = parted(Detour())
    assert (error.tick, error.slot, error.stage, len(error.differences)) == (2, 1, "decode", 1)


def seen(*places: tuple[str, int | None, str], value: float = 0.0) -> dict[Place, torch.Tensor]:
    recorder = Recorder(lambda: 0)
    for place in places:
        recorder(*place, torch.tensor(value))
    return recorder.seen


def first(plain: Any, fast: Any, **options: Any) -> Any:
    apart = Stages(**options).first_apart(plain, fast)
    return apart and (apart[0].stage, apart[0].slot, [each.name for each in apart[1]])


A, B, C = ("a", 0, "x"), ("b", 0, "x"), ("c", 0, "x")


def test_stages_are_ordered_as_the_plain_ring_reports_them() -> None:
    assert first(seen(B, A), seen(A, B, value=1.0)) == ("b", 0, ["b[0]/x"])


def test_within_a_slot_all_tensors_of_the_stage_are_listed() -> None:
    more = ("a", 0, "y")
    assert first(seen(A, B, more), seen(A, B, more, value=1.0)) == ("a", 0, ["a[0]/x", "a[0]/y"])


def test_slots_come_in_the_order_of_reports_and_a_stage_of_no_slot_is_named_too() -> None:
    places = [("a", 5, "x"), ("a", None, "x"), ("a", 1, "x")]
    assert first(seen(*places), seen(*places, value=1.0)) == ("a", 5, ["a[5]/x"])
    assert first(seen(("a", None, "x")), seen(("a", None, "x"), value=1.0)) == ("a", None, ["a/x"])


def test_a_stage_that_is_reported_twice_is_compared_twice_in_the_order_of_time() -> None:
    plain, fast = seen(A, B, A, B), seen(A, B, A, B)
    assert first(plain, fast) is None
    for again, name in ((1, "b"), (1, "a")):
        fast[Place(0, name, 0, "x", again)] = torch.tensor(1.0)
    assert first(plain, fast) == ("a", 0, ["a[0]/x#2"])
    fast[Place(0, "b", 0, "x", 0)] = torch.tensor(1.0)
    assert first(plain, fast) == ("b", 0, ["b[0]/x"])


@pytest.mark.parametrize(("plain", "fast", "alone"), [((A, B), (A,), "plain"), ((A,), (A, B), "fast")])
def test_a_stage_that_one_side_alone_reports_is_a_difference(plain: Any, fast: Any, alone: str) -> None:
    apart = Stages().first_apart(seen(*plain), seen(*fast))
    assert apart is not None and apart[0].stage == "b"
    assert apart[2] == [f"only {alone} reports b[0]/x; where_both compares a stage only where both report it"]


@pytest.mark.parametrize("allowed", ["b", "b/x"])
def test_a_stage_that_may_be_skipped_is_compared_where_both_report_it(allowed: str) -> None:
    other = ("b", 1, "x")
    options = {"where_both": frozenset({allowed})}
    assert first(seen(A, B, other), seen(A, other), **options) is None
    assert first(seen(A, B, other), {**seen(A), **seen(other, value=1.0)}, **options) == ("b", 1, ["b[1]/x"])
    assert first(seen(A, B, C), seen(A, B), **options) == ("c", 0, ["c[0]/x"])


class Fused(Slots):
    """Reports no guidance."""

    def _stage(self, stage: str, slot: int, value: Any) -> Any:
        return value if stage == "guidance" else super()._stage(stage, slot, value)


def test_the_verdict_names_what_was_skipped() -> None:
    assert "only plain reports guidance[0]/value" in str(parted(Fused()))
    agreed = run(Slots(), Fused(), [1.0] * 2, where_both=["guidance"])
    assert (agreed.skipped, agreed.stages) == (("guidance",), 12)
    assert str(agreed).endswith("12 of stages, guidance only where both report it")


def test_a_stage_that_no_ring_reports_cannot_be_named() -> None:
    with pytest.raises(NothingCompared, match="no ring reported guidnace, which where_both or bounds names"):
        run(Slots(), Slots(), [1.0], where_both=["guidnace"])


def test_one_stage_in_place_of_a_list_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"where_both: got 'guidance', expected a list of stages"):
        run(Slots(), Slots(), [1.0], where_both="guidance")


def test_rings_that_can_report_and_never_do_are_refused() -> None:
    class Mute(Slots):
        def observe(self, callback: Any) -> None: ...

    with pytest.raises(NothingCompared, match="neither reported a stage"):
        run(Mute(), Mute(), [1.0])


def test_a_nan_at_the_same_stage_of_both_proves_nothing() -> None:
    def poison(ring: Any) -> None:
        ring.nudge[("decode", 1)] = float("nan")

    error = parted(Slots(2, poison), Slots(2, poison))
    assert (error.tick, error.slot, error.stage) == (2, 1, "decode")
    assert "decode[1]/value is NaN in both" in str(error)


def test_an_error_of_one_side_names_the_last_stage_that_it_reported() -> None:
    class Fails(Slots):
        def _stage(self, stage: str, slot: int, value: Any) -> Any:
            if (stage, slot, self.ticks) == ("guidance", 1, 2):
                raise KeyError("gone")
            return super()._stage(stage, slot, value)

    error = parted(Fails())
    assert (error.event, error.tick) == (2, 2)
    assert "plain returns, fast raises KeyError: 'gone' (after decode[1]/value)" in str(error)


def test_afterwards_the_rings_report_to_nobody() -> None:
    pair = Slots(), Slots(1, nudged("step", 0))
    with pytest.raises(EnginesParted):
        run(*pair, [1.0] * 2)
    assert {ring.report.__name__ for ring in pair} == {"untouched"}


def test_stages_of_one_tick_come_before_those_of_the_next_in_the_same_event() -> None:
    def ticks(*moved: tuple[int, str]) -> dict[Place, torch.Tensor]:
        places = [Place(tick, stage, 0, "x", 0) for tick in (4, 5) for stage in "ab"]
        return {place: torch.tensor(float((place.tick, place.stage) in moved)) for place in places}

    apart = Stages().first_apart(ticks(), ticks((5, "a"), (4, "b")))
    assert apart is not None and (apart[0].tick, apart[0].stage, len(apart[1])) == (4, "b", 1)


def test_a_report_without_an_element_is_compared_and_not_counted() -> None:
    stages, places = Stages(), [Place(0, "a", 0, name, 0) for name in "xy"]
    sides = [{places[0]: torch.ones(2), places[1]: torch.empty(0, size)} for size in (3, 3, 4)]
    assert stages.first_apart(sides[0], sides[1]) is None and stages.compared == 1
    assert stages.first_apart(sides[0], sides[2]) is not None


def test_a_replayed_tensor_has_the_strides_of_the_ring_s_own() -> None:
    plain = Recorder(lambda: 0)
    plain("decode", 0, "x", torch.arange(6.0).reshape(2, 3))
    own = torch.zeros(3, 2).T
    given = Recorder(lambda: 0, ["decode"], plain.seen)("decode", 0, "x", own)
    assert given.stride() == own.stride() and torch.equal(given, torch.arange(6.0).reshape(2, 3))


def test_a_report_is_copied_when_it_is_made() -> None:
    recorder, buffer = Recorder(lambda: None), torch.zeros(2)
    assert recorder("a", 0, "x", buffer) is buffer
    buffer.fill_(1)
    recorder("b", 0, "x", buffer)
    assert [each.tolist() for each in recorder.seen.values()] == [[0, 0], [1, 1]]
