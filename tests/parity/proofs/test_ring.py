"""Engines with the protocol of a ring: state, ticks and generators are part of the proof."""

from __future__ import annotations

import random
from operator import methodcaller
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from harness.engine.errors import InvalidInput
from harness.parity.compare import NothingCompared
from harness.parity.proofs.generic import EnginesParted, run
from harness.parity.proofs.ring import Ring, is_ring, sides
from tests.parity.proofs.rings import Bare, Silent, Slots, nudged


def hide(ring: Any) -> None:
    ring.hidden = ring.hidden + 1  # changes no output


def parted(plain: Any, fast: Any, events: Any = (1.0,) * 6, **options: Any) -> EnginesParted:
    with pytest.raises(EnginesParted) as caught:
        run(plain, fast, events, **options)
    return caught.value


def test_rings_that_agree_are_compared_in_output_state_and_stages() -> None:
    agreed = run(Slots(), Slots(), [1.0, 2.0])
    assert (agreed.events, agreed.tensors, agreed.states, agreed.stages) == (2, 4, 6, 16)
    assert str(agreed) == "4 tensors after 2 events, 6 of state, 16 of stages"


def test_state_that_no_output_shows_yet_is_compared_after_every_event() -> None:
    error = parted(Silent(), Silent(2, hide))
    assert (error.event, error.tick, error.slot, error.stage, error.path) == (2, 2, None, None, "state/hidden")
    assert "plain and fast differ at event 2, 1.0, tick 2:\n  state/hidden: bytes differ" in str(error)


def test_the_state_of_an_engine_without_the_protocol_is_not_compared_and_the_verdict_says_so() -> None:
    agreed = run(Bare().step, Bare(2, hide).step, [1.0] * 4)
    assert agreed.states == 0
    assert str(agreed) == "8 tensors after 4 events, state not compared"


def test_output_comes_before_state_and_both_are_listed() -> None:
    error = parted(Silent(), Silent(1, lambda ring: ring.x.__setitem__(0, ring.x[0] + 1)))
    assert [each.name for each in error.differences] == ["out[0]", "state/x[0]"]


def test_a_nan_in_the_state_of_both_proves_nothing() -> None:
    def poison(ring: Any) -> None:
        ring.hidden = torch.full((3,), float("nan"))
        ring.step = lambda event: {"out": torch.ones(1)}

    poisoned = Silent(), Silent()
    for ring in poisoned:
        poison(ring)
    assert "state/hidden is NaN in both" in str(parted(*poisoned))


def test_rings_whose_state_is_always_empty_are_refused() -> None:
    pair = [SimpleNamespace(step=lambda event: event, state=dict) for _ in range(2)]
    with pytest.raises(NothingCompared, match="the state of the rings held no tensor"):
        run(*pair, [torch.ones(1)])


def test_a_ring_is_stepped_and_an_event_that_can_be_called_is_called_with_it() -> None:
    plain, fast = Silent(), Silent()
    run(plain, fast, [1.0, methodcaller("step", 2.0)])
    assert plain.ticks == fast.ticks == 2


def test_a_ring_that_lost_a_tick_is_named() -> None:
    error = parted(Silent(), Silent(2, lambda ring: setattr(ring, "ticks", ring.ticks - 1)))
    assert (error.event, error.tick) == (2, 3)
    assert "plain has completed 3 ticks, fast 2" in str(error)


def test_an_event_of_several_ticks_names_them_all() -> None:
    def thrice(ring: Any) -> Any:
        return [ring.step(1.0) for _ in range(3)]

    error = parted(Silent(), Silent(4, nudged("step", 0, 1.0)), [thrice, thrice])
    assert (error.event, error.tick) == (1, 3)
    assert ", one of ticks 3 to 5:" in str(error)


@pytest.mark.parametrize(("fast", "lacks"), [
    (Bare(), "the methods step and state"),
    (Silent(), "the method observe"),
])  # fmt: skip
def test_engines_with_different_parts_of_the_protocol_are_refused(fast: Any, lacks: str) -> None:
    with pytest.raises(InvalidInput, match=f"fast: got an engine without {lacks}"):
        run(Slots(), fast, [1.0])
    with pytest.raises(InvalidInput, match=f"plain: got an engine without {lacks}"):
        run(fast, Slots(), [1.0])


def test_ticks_must_be_counted_by_both_and_in_integers() -> None:
    uncounted, wrong = Slots(), Slots()
    del uncounted.ticks
    with pytest.raises(InvalidInput, match="fast: got an engine without the number ticks"):
        sides(Slots(), uncounted)
    for number in ("1", True):
        wrong.ticks = number  # type: ignore[assignment]
        with pytest.raises(InvalidInput, match=f"ticks of fast: got {number!r}"):
            sides(Slots(), wrong)


def test_an_engine_whose_step_or_state_is_no_method_is_none() -> None:
    assert is_ring(Slots()) and isinstance(Slots(), Ring)
    assert not is_ring(SimpleNamespace(step=print, state={})) and not is_ring(Slots)


class Drawing(Silent):
    """Adds random numbers to its output, from the global generators or one that it names."""

    def __init__(self, draw: Any, named: Any = (), rounds: int = 1) -> None:
        super().__init__()
        self.draw, self.named, self.rounds = draw, named, rounds

    def step(self, event: Any) -> Any:
        return [torch.tensor(self.draw()) for _ in range(self.rounds)][-1]

    def generators(self) -> Any:
        return self.named


SHARED = random.Random(1)
DRAWS = [(lambda: torch.rand(()).item(), ()), (np.random.rand, ()), (random.random, ()), (SHARED.random, [SHARED])]


@pytest.mark.parametrize(("draw", "named"), DRAWS)
def test_equal_rings_that_draw_from_one_generator_agree(draw: Any, named: Any) -> None:
    run(Drawing(draw, named), Drawing(draw, named), [1] * 5)
    assert parted(Drawing(draw, named), Drawing(draw, named), isolate=False).event == 0


@pytest.mark.parametrize(("draw", "named"), DRAWS)
def test_a_ring_that_draws_once_more_differs(draw: Any, named: Any) -> None:
    assert parted(Drawing(draw, named), Drawing(draw, named, rounds=2)).event == 0


class Remembers(Drawing):
    """Draws numbers that change no output yet, and holds the state of torch's global generator."""

    def step(self, event: Any) -> Any:
        super().step(event)
        return torch.ones(1)

    def state(self) -> Any:
        return {"generator": torch.get_rng_state()}


def test_a_generator_whose_state_a_ring_holds_is_that_of_its_own_side() -> None:
    draw = DRAWS[0][0]
    assert run(Remembers(draw), Remembers(draw), [1] * 3).states == 3
    assert parted(Remembers(draw), Remembers(draw, rounds=2)).path == "state/generator"


def test_engines_without_the_protocol_draw_their_own_numbers_too_and_so_do_the_events() -> None:
    before, wanted = torch.get_rng_state(), torch.rand(4)
    torch.set_rng_state(before)
    events = (torch.rand(()) for _ in range(4))
    seen: list[float] = []
    run(lambda event: (seen.append(event.item()), torch.rand(2))[1], lambda event: torch.rand(2), events)
    assert seen == wanted.tolist()
