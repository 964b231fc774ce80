"""Two sides that draw from the same generators, each with the sequence that it would draw alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from harness.engine.errors import InvalidInput
from harness.parity.proofs.randomness import Isolation

SHARED_TORCH, SHARED_NUMPY = torch.Generator(), np.random.default_rng(3)
SHARED_OLD, SHARED_PYTHON = np.random.RandomState(3), random.Random(3)

DRAWS: dict[str, tuple[Callable[[], float], list[Any]]] = {
    "torch": (lambda: torch.rand(()).item(), []),
    "numpy": (lambda: float(np.random.rand()), []),
    "random": (random.random, []),
    "a second normal value of random": (lambda: random.gauss(0, 1), []),
    "a torch generator": (lambda: torch.rand((), generator=SHARED_TORCH).item(), [SHARED_TORCH]),
    "a numpy generator": (lambda: float(SHARED_NUMPY.random()), [SHARED_NUMPY]),
    "an old numpy generator": (lambda: float(SHARED_OLD.rand()), [SHARED_OLD]),
    "a python generator": (SHARED_PYTHON.random, [SHARED_PYTHON]),
}


def in_turns(isolation: Isolation, draw: Callable[[], float], count: int) -> tuple[list[float], list[float]]:
    drawn: tuple[list[float], list[float]] = ([], [])
    for _ in range(count):
        for side in (0, 1):
            with isolation.turn(side):
                drawn[side].append(draw())
    return drawn


@pytest.mark.parametrize("name", DRAWS)
def test_each_side_draws_what_it_draws_alone_and_the_caller_draws_what_comes_next(name: str) -> None:
    draw, named = DRAWS[name]
    drawn = in_turns(Isolation([named, named]), draw, 5)
    alone = [draw() for _ in range(5)]
    assert drawn == (alone, alone)


@pytest.mark.parametrize("name", DRAWS)
def test_without_isolation_the_sides_take_numbers_from_each_other(name: str) -> None:
    draw, named = DRAWS[name]
    first, second = in_turns(Isolation([named, named], on=False), draw, 3)
    assert not set(first) & set(second)


@pytest.mark.parametrize("name", DRAWS)
def test_what_the_caller_draws_between_turns_is_his_and_moves_no_side(name: str) -> None:
    draw, named = DRAWS[name]
    isolation, drawn, own = Isolation([named, named]), [], []
    for _ in range(3):
        with isolation.turn(1):
            drawn.append(draw())
        own.append(draw())
    assert drawn == own


def test_a_generator_that_one_side_names_moves_on_with_that_side_alone() -> None:
    own, expected = random.Random(5), random.Random(5)
    isolation = Isolation([[own], []])
    drawn = in_turns(isolation, own.random, 2)
    wanted = [expected.random() for _ in range(3)]
    assert drawn == (wanted[:2], wanted[:2])
    assert own.random() == wanted[2]


def test_the_callers_state_is_restored_also_after_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(KeyError), Isolation([[], []]).turn(0):
        torch.rand(3)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("wrong", [random.SystemRandom(), 5, torch.rand])
def test_what_is_no_generator_is_refused_by_name(wrong: object) -> None:
    with pytest.raises(InvalidInput, match=f"generators: got {type(wrong).__name__}, expected torch.Generator"):
        Isolation([[], [wrong]])


def test_an_event_that_initializes_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    isolation = Isolation([[], []])
    with pytest.raises(InvalidInput, match="isolate: got an event that initialized CUDA"), isolation.turn(0):
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_rng_state_all", list)
