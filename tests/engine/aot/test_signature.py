from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from harness.engine.aot.signature import AXES, INPUTS, Signature, Span
from harness.engine.errors import BatchTooLarge, OutsideProfile
from harness.engine.executors import Batch

DTYPES = {
    "hidden_states": torch.float16,
    "timestep": torch.float32,
    "encoder_hidden_states": torch.float16,
    "context_latents": torch.float16,
    "encoder_mask": torch.bool,
    "velocity": torch.float16,
}
ENGINE = Signature(DTYPES, Span(1, 8), Span(2, 100), Span(1, 64), 8, 16, 32, frames_multiple=2)


def batch(
    rows: int = 2, frames: int = 10, tokens: int = 12, channels: int = 8, context: int = 16, width: int = 32
) -> Batch:
    return Batch(
        hidden_states=torch.zeros(rows, frames, channels),
        timestep=torch.zeros(rows),
        encoder_hidden_states=torch.zeros(rows, tokens, width),
        encoder_mask=torch.ones(rows, tokens, dtype=torch.bool),
        context_latents=torch.zeros(rows, frames, context),
    )


def test_a_span_holds_both_its_ends_and_nothing_beyond_them() -> None:
    assert [n in Span(2, 4) for n in (1, 2, 4, 5)] == [False, True, True, False]
    assert 10**9 in Span(2)
    assert str(Span(2)) == "at least 2"
    assert str(Span(3, 3)) == "3"


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [(Span(1, 8), Span(2, 4), Span(2, 4)), (Span(1), Span(3), Span(3)), (Span(1), Span(1, 4), Span(1, 4))],
)
def test_sizes_that_two_inputs_allow_are_those_that_each_allows(one: Span, other: Span, both: Span) -> None:
    assert one.met(other) == other.met(one) == both


def test_frames_are_padded_to_the_patch_size() -> None:
    assert [ENGINE.padded_frames(n) for n in (1, 2, 3, 10)] == [2, 2, 4, 10]
    assert replace(ENGINE, frames_multiple=1).padded_frames(3) == 3


def test_shapes_are_given_for_every_tensor_of_the_engine_with_padded_frames() -> None:
    assert ENGINE.shapes(3, 9, 5) == {
        "hidden_states": (3, 10, 8),
        "timestep": (3,),
        "encoder_hidden_states": (3, 5, 32),
        "context_latents": (3, 10, 16),
        "encoder_mask": (3, 5),
        "velocity": (3, 10, 8),
    }


def test_an_engine_without_the_input_takes_no_mask() -> None:
    without = replace(ENGINE, dtypes={name: dtype for name, dtype in DTYPES.items() if name != "encoder_mask"})
    assert ENGINE.takes_mask
    assert not without.takes_mask
    assert "encoder_mask" not in without.shapes(1, 2, 1)


def test_a_batch_that_fits_is_let_through_up_to_the_very_ends() -> None:
    ENGINE.check(batch(rows=8, frames=99, tokens=64), 8)
    ENGINE.check(batch(rows=1, frames=1, tokens=1), 8)


def test_more_rows_than_the_executors_ceiling_are_refused() -> None:
    with pytest.raises(BatchTooLarge, match="3 rows: .* takes at most 2"):
        ENGINE.check(batch(rows=3), 2)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"frames": 101}, "frames T: got 102, the compiled decoder takes 2 to 100"),
        ({"tokens": 65}, "tokens L: got 65, the compiled decoder takes 1 to 64"),
        ({"channels": 4}, "channels D: got 4, the compiled decoder takes 8"),
        ({"context": 8}, "context channels: got 8, the compiled decoder takes 16"),
        ({"width": 16}, "encoder width E: got 16, the compiled decoder takes 32"),
    ],
)
def test_other_sizes_than_the_engines_are_refused_by_name(sizes: dict[str, int], words: str) -> None:
    with pytest.raises(OutsideProfile, match=words):
        ENGINE.check(batch(**sizes), 8)


def test_rows_outside_the_engines_range_are_refused_by_name_and_the_first_misfit_is_named() -> None:
    with pytest.raises(OutsideProfile, match="^rows: got 9, the compiled decoder takes 1 to 8$"):
        ENGINE.check(batch(rows=9, frames=200), 20)
    with pytest.raises(OutsideProfile, match="^rows: got 1, the compiled decoder takes 2$"):
        replace(ENGINE, rows=Span(2, 2)).check(batch(rows=1), 8)
    with pytest.raises(BatchTooLarge, match="^a batch of 9 rows: the compiled decoder takes at most 8$"):
        ENGINE.check(batch(rows=9, width=1), 8)
    for sizes, first in (
        ({"frames": 200, "tokens": 65}, "frames T"),
        ({"tokens": 65, "channels": 1}, "tokens L"),
        ({"channels": 1, "context": 1}, "channels D"),
        ({"context": 1, "width": 1}, "context channels"),
    ):
        with pytest.raises(OutsideProfile, match=f"^{first}: got"):
            ENGINE.check(batch(**sizes), 8)


def test_spans_that_do_not_meet_hold_nothing_in_common() -> None:
    both = Span(1, 2).met(Span(3, 4))
    assert both == Span(3, 2)
    assert not [size for size in range(6) if size in both]
    assert str(Span(2, 8)) == "2 to 8"
    assert Span(1).met(Span(1)) == Span(1, None)


def test_inputs_stand_in_the_order_of_the_file() -> None:
    assert INPUTS == ("hidden_states", "timestep", "encoder_hidden_states", "context_latents", "encoder_mask")
    assert tuple(AXES) == (*INPUTS, "velocity")
