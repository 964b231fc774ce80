"""Evidence of a difference: where the first one is, as lockstep says it, and what every tick, stage and slot shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine.decoders import AffineDecoder
from harness.engine.executors import Batch, EagerExecutor
from harness.parity.battery.player import Played, Player
from harness.parity.battery.scenarios import SCENARIOS, Scenario, configuration, play
from harness.parity.proofs import evidence
from harness.parity.proofs.lockstep import Lockstep, Parted
from harness.parity.proofs.switches import Pair
from harness.registry import ExecutorKind
from tests.fakes import Counting

PLAIN = SCENARIOS["ode_plain"]
SIDE = tuple[Any, Any]


class OffByOneBit(Counting):
    """From run number `run` on, one bit of one element of row `row` is another."""

    def __init__(self, run: int, row: int, place: tuple[int, int] = (5, 2)) -> None:
        super().__init__(EagerExecutor(AffineDecoder(4), max_rows=8))
        self.run_number, self.row, self.place = run, row, place

    def run(self, batch: Batch) -> Tensor:
        velocity = super().run(batch).clone()
        if len(self.rows) > self.run_number:
            velocity[(self.row, *self.place)].view(torch.int32).bitwise_xor_(1)
        return velocity


def sides(broken: Callable[[], Any]) -> tuple[SIDE, SIDE]:
    config = configuration(PLAIN)
    return (broken(), config), (EagerExecutor(AffineDecoder(4), max_rows=8), config)


def sound() -> EagerExecutor:
    return EagerExecutor(AffineDecoder(4), max_rows=8)


@pytest.mark.parametrize(("run", "row"), [(0, 0), (1, 2), (2, 2), (3, 1)])
def test_the_first_difference_is_the_one_at_which_lockstep_stops(run: int, row: int) -> None:
    with Lockstep(*sides(lambda: OffByOneBit(run, row))) as lockstep, pytest.raises(Parted) as parted:
        PLAIN.script(Player(lockstep, PLAIN.sizes))
    found = evidence.watched(PLAIN, *sides(lambda: OffByOneBit(run, row)))
    assert found.first == evidence.Place(parted.value.tick, parted.value.slot, parted.value.stage)
    assert (found.first.tick, found.first.slot, found.first.stage) == (run, row, "decoder")


def test_a_map_shows_every_tick_and_stage_before_and_after_the_first_difference() -> None:
    found = evidence.watched(PLAIN, *sides(lambda: OffByOneBit(1, 0)))
    assert [tick.number for tick in found.ticks] == [0, 1, 2, 3, 4]
    assert dict(found.ticks[0].stages) == {
        "host": "same", "gather": "same", "decoder": "same", "combine": "same", "step": "same", "dcw": "same",
        "commit": "same",
    }  # fmt: skip
    assert dict(found.ticks[1].stages) == {
        "host": "same", "gather": "same", "decoder": "differs", "combine": "differs", "step": "differs",
        "dcw": "differs", "commit": "differs",
    }  # fmt: skip
    assert found.ticks[2].stages["gather"] == "differs"
    assert [sorted(tick.slots) for tick in found.ticks[:2]] == [[], [0]]


def test_pipelines_that_are_the_same_have_no_first_difference() -> None:
    found = evidence.watched(PLAIN, *sides(sound))
    assert (found.first, found.pictures, found.stopped) == (None, (), "")
    assert {words for tick in found.ticks for words in tick.stages.values()} == {"same"}


def test_the_timeline_names_the_request_and_the_step_of_every_slot_also_of_one_that_finishes() -> None:
    found = evidence.watched(PLAIN, *sides(sound))
    seats = [
        [None if seat is None else (seat.id, seat.step, seat.total) for seat in tick.seats] for tick in found.ticks
    ]
    assert seats[0] == [("a", 1, 4), None, None]
    assert seats[1] == [("a", 2, 4), ("b", 1, 4), ("c", 1, 4)]
    assert seats[3] == [("a", 4, 4), ("b", 3, 4), ("c", 3, 4)]
    assert seats[4] == [None, ("b", 4, 4), ("c", 4, 4)]


def test_requests_that_enter_and_leave_in_one_tick_have_a_place_each() -> None:
    found = evidence.watched(SCENARIOS["ode_partial_denoise"], *sides(sound))
    ids = [{seat.id: (seat.step, seat.total) for seat in tick.seats if seat is not None} for tick in found.ticks]
    assert ids[0] == {"denoise-0.5": (1, 4), "denoise-0.3": (1, 4), "denoise-0.0": (1, 1)}
    assert [tick.seats.count(None) for tick in found.ticks] == [0, 1, 1, 1]


def test_a_picture_holds_both_sides_of_the_tensors_that_differ_first() -> None:
    found = evidence.watched(PLAIN, *sides(lambda: OffByOneBit(1, 2, (7, 3))))
    (picture,) = found.pictures
    assert picture.got.shape == picture.expected.shape == (PLAIN.sizes.frames, PLAIN.sizes.channels)
    moved = (picture.got.view(torch.int32) != picture.expected.view(torch.int32)).nonzero().tolist()
    assert moved == [[7, 3]]


class Breaks(Counting):
    def run(self, batch: Batch) -> Tensor:
        if len(self.rows) == 2:
            raise RuntimeError("out of <memory>")
        return super().run(batch)


def test_one_side_that_raises_ends_the_evidence_at_the_host_and_is_told() -> None:
    found = evidence.watched(PLAIN, *sides(lambda: Breaks(sound())))
    assert found.first == evidence.Place(2, None, "host")
    assert len(found.ticks) == 2
    assert "out of <memory>" in found.stopped


def test_steps_that_differ_differ_at_the_host() -> None:
    (first, config), (second, other) = sides(sound)
    found = evidence.watched(PLAIN, (first, replace(config, steps=5)), (second, other))
    assert found.first is not None
    assert found.first.stage == "host"


def test_a_pair_of_the_battery_is_watched_with_its_own_executors() -> None:
    pair = Pair("fused_cfg", "cfg_full", ExecutorKind.STATIC, "affine")
    found = evidence.of_pair(pair, SCENARIOS["cfg_full"])
    assert found.first is None
    assert found.ticks[0].stages["combine"] == "same"


# Captures.


def with_moved(*names: str, tick: int) -> Callable[[Scenario], Played]:
    """Plays a scenario of which these latents, and the digest of one tick, are others than the blessed."""

    def replay(scenario: Scenario) -> Played:
        played = play(scenario)
        finished = {name: latent + 1 if name in names else latent for name, latent in played.finished.items()}
        return Played(finished, (*played.ticks[:tick], "x", *played.ticks[tick + 1 :]))

    return replay


moved = with_moved("b", tick=3)


def test_a_capture_that_moved_has_its_tick_the_slot_of_its_request_and_a_picture() -> None:
    played = play(PLAIN)
    found = evidence.of_capture(PLAIN, moved, played.finished, played.ticks)
    assert [tick.stages["state"] for tick in found.ticks] == ["same", "same", "same", "differs", "same"]
    assert found.first == evidence.Place(3, 1, "state")
    assert [picture.name for picture in found.pictures] == ["b"]
    assert found.ticks[1].seats[1] == evidence.Seat("b", 1, 4)


RING = SCENARIOS["mixed_ring"]


def test_a_request_that_was_not_in_the_ring_at_the_first_tick_that_moved_names_no_slot() -> None:
    """`gated` moved, and comes into the ring later; of those that moved `self` alone was in it."""
    played, now = play(RING), with_moved("gated", "self", tick=1)(RING)
    kept = dict(sorted(played.finished.items()))
    found = evidence.of_capture(
        RING, lambda _: Played(dict(sorted(now.finished.items())), now.ticks), kept, played.ticks
    )
    seats = {seat.id: place for place, seat in enumerate(found.ticks[1].seats) if seat is not None}
    assert "gated" not in seats
    assert found.first == evidence.Place(1, seats["self"], "state")


def test_where_several_requests_moved_in_one_tick_no_slot_is_first_and_all_are_marked() -> None:
    played = play(RING)
    found = evidence.of_capture(RING, with_moved("masked", "self", tick=1), played.finished, played.ticks)
    seats = {seat.id: place for place, seat in enumerate(found.ticks[1].seats) if seat is not None}
    assert found.first == evidence.Place(1, None, "state")
    assert [tick.slots for tick in found.ticks[:2]] == [frozenset(), {seats["self"], seats["masked"]}]


def test_a_state_that_moved_and_no_latent_is_told_as_such() -> None:
    played = play(RING)
    found = evidence.of_capture(RING, with_moved(tick=1), played.finished, played.ticks)
    assert found.first == evidence.Place(1, None, "state") and found.pictures == ()
    assert found.notes == ("no finished latent moved: a part of the state did that no later tick read",)


def test_of_ticks_that_only_one_side_has_none_is_the_same() -> None:
    played = play(PLAIN)
    found = evidence.of_capture(PLAIN, play, played.finished, played.ticks[:4])
    assert [tick.stages["state"] for tick in found.ticks] == ["same"] * 4 + ["differs"]


def test_a_capture_without_digests_of_ticks_to_compare_says_nothing_of_them() -> None:
    played = play(PLAIN)
    found = evidence.of_capture(PLAIN, moved, played.finished, ())
    assert {tick.stages["state"] for tick in found.ticks} == {"none"}
    assert found.first == evidence.Place(None, 1, "state")


def test_tensors_of_other_shapes_have_no_picture() -> None:
    played = play(PLAIN)
    longer = {**played.finished, "a": torch.zeros(1, 3, 4)}
    found = evidence.of_capture(PLAIN, play, longer, played.ticks)
    assert found.pictures == ()
    assert "a: shape differs" in found.notes[0]
