"""Stages that may differ within what was measured, while everything before and after them is exact."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine.errors import InvalidInput
from harness.parity.compare import NothingCompared
from harness.parity.proofs.bounds import EPS, Bound, Bounded, Measured, measured
from harness.parity.proofs.generic import EnginesParted, run
from tests.parity.proofs.rings import Slots

ROWS = torch.linspace(0.1, 7.3, 96).reshape(4, 24)


def rounds(rows: Tensor) -> Tensor:
    """A decoder whose rows get other bits alone than in a batch."""
    return rows / 3 if len(rows) == 1 else rows * (1 / 3)


def exact(rows: Tensor) -> Tensor:
    return rows * 0.3


class Batched(Slots):
    """Decodes both slots in one batch if `fused`, else one after the other; guidance is fed by the decoder alone."""

    def __init__(self, fused: bool, decoder: Any = rounds, heeds: bool = True) -> None:
        super().__init__()
        self.x, self.hidden = [ROWS[0].clone(), ROWS[1].clone()], ROWS[2]
        self.fused, self.decoder, self.heeds = fused, decoder, heeds

    def step(self, event: Any) -> Any:
        rows = [self._stage("gather", slot, x * 0.5 + event) for slot, x in enumerate(self.x)]
        batches = [torch.stack(rows)] if self.fused else [row[None] for row in rows]
        velocities = torch.cat([self.decoder(batch) for batch in batches])
        decoded = [self._stage("decode", slot, velocity) for slot, velocity in enumerate(velocities)]
        used = decoded if self.heeds else list(velocities)
        guided = [self._stage("guidance", slot, each * 1.1) for slot, each in enumerate(used)]
        self.x = [self._stage("step", slot, rows[slot] - guided[slot]) for slot in (0, 1)]
        self.ticks += 1
        return list(self.x)


def bounds(**given: Any) -> dict[str, Bound]:
    return given or {"decode": measured(rounds, [ROWS]).free}


def parted(fast: Batched, **options: Any) -> EnginesParted:
    with pytest.raises(EnginesParted) as caught:
        run(Batched(fused=False), fast, [1.0] * 8, **options)
    return caught.value


# Measured.


def test_a_decoder_whose_bits_depend_on_the_number_of_rows_is_exact_only_pinned() -> None:
    found = measured(rounds, [ROWS])
    assert 0 < found.free.k < 4 and found.pinned.k == 0
    assert (found.free.rows, found.free.how, found.pinned.how) == (4, "free", "pinned")


def test_an_exact_decoder_has_bounds_of_zero() -> None:
    found = measured(exact, [ROWS])
    assert (found.free.k, found.pinned.k) == (0, 0)


def test_neighbours_that_move_a_row_are_found_with_pinned_rows_too() -> None:
    assert measured(lambda rows: rows + rows.mean() * 1e-6, [ROWS]).pinned.k > 0


def test_the_order_of_rows_is_varied() -> None:
    def first_is_special(rows: Tensor) -> Tensor:
        return torch.cat([rows[:1] * 1.0001, rows[1:]])

    assert measured(first_is_special, [ROWS]).pinned.k > 100


def test_neighbours_come_in_both_orders() -> None:
    def heeds_order(rows: Tensor) -> Tensor:
        return rows * 1.0001 if rows[0, 0] > rows[-1, 0] else rows

    assert measured(heeds_order, [ROWS]).pinned.k > 100


def test_a_row_that_differs_only_from_itself_alone_is_found() -> None:
    ran: set[float] = set()

    def second_time(rows: Tensor) -> Tensor:
        again = len(rows) == 1 and rows[0, 0].item() in ran
        ran.add(rows[0, 0].item())
        return rows * 1.0001 if again else rows

    assert measured(second_time, [ROWS]).free.k > 100


def test_the_distance_of_any_two_results_counts() -> None:
    def in_batches(*factors: float) -> float:
        return measured(lambda rows: rows * factors[len(rows) - 1], [ROWS]).free.k

    assert in_batches(1.0, 1 - 1e-4, 1 + 1e-4, 1.0) > 1.9 * in_batches(1.0, 1 - 1e-4, 1.0, 1.0) > 0


def test_a_decoder_that_differs_from_run_to_run_is_found() -> None:
    count = itertools.count()
    assert measured(lambda rows: rows + next(count) * 1e-5, [ROWS]).pinned.k > 0


def test_the_output_may_live_in_a_buffer_that_is_used_again() -> None:
    buffer = torch.empty(4, 24)
    assert measured(lambda rows: torch.mul(rows, 0.3, out=buffer[: len(rows)]), [ROWS]).free.k == 0


def test_every_input_is_cut_into_the_same_rows() -> None:
    assert measured(lambda a, b: a * b[:, None], [ROWS, torch.arange(4.0)]).free.k == 0


@pytest.mark.parametrize("inputs", [[], [ROWS[:1]], [ROWS, ROWS[:3]], [torch.tensor(1.0)]])
def test_inputs_without_two_common_rows_are_refused(inputs: Any) -> None:
    with pytest.raises(InvalidInput, match="inputs: got .* rows"):
        measured(exact, inputs)


@pytest.mark.parametrize("decoder", [lambda rows: rows / 0, lambda rows: rows[:-1], lambda rows: rows.sum()])
def test_an_output_that_proves_nothing_is_refused(decoder: Any) -> None:
    with pytest.raises(InvalidInput, match="decoder: got an output"):
        measured(decoder, [ROWS])


def test_rows_are_cut_into_groups_of_the_largest_batch_and_every_group_counts() -> None:
    sizes: list[int] = []

    def last_group_moves(rows: Tensor) -> Tensor:
        sizes.append(len(rows))
        moves = bool((rows > 6).any()) and len(rows) > 1
        return rows * (1 + 1e-5) if moves else rows

    found = measured(last_group_moves, [ROWS], most=2)
    assert set(sizes) == {1, 2} and found.free.k > 10
    assert (found.free.rows, found.free.samples) == (2, 4)
    assert measured(last_group_moves, [torch.cat([ROWS, ROWS[-1:] + 1])], most=3).free.k > 10
    for most in (1, 5):
        with pytest.raises(InvalidInput, match=f"most: got {most}, expected a number of rows, 2 to 4"):
            measured(exact, [ROWS], most)


def test_a_measurement_is_a_tree_that_can_be_blessed() -> None:
    tree = measured(rounds, [ROWS]).tree()
    assert tree["free"].dtype == torch.float64 and tree["free"].item() > 0 == tree["pinned"].item()
    assert tree["rows"].tolist() == [4, 4]


# In force.


def test_without_a_bound_the_decoder_parts_the_rings() -> None:
    error = parted(Batched(fused=True))
    assert (error.event, error.stage) == (0, "decode")


def test_within_a_measured_bound_the_rings_agree_and_the_verdict_names_the_bound() -> None:
    agreed = run(Batched(fused=False), Batched(fused=True), [1.0] * 30, bounds=bounds())
    (words,) = agreed.bounds
    assert words.startswith("decode within k = ") and words in str(agreed)
    assert "measured on 4 free rows in batches of up to 4; largest seen" in words and "in 60 tensors" in words


@pytest.mark.parametrize("slot", [0, 1])
@pytest.mark.parametrize("stage", ["gather", "guidance", "step"])
def test_one_ulp_before_or_after_the_decoder_is_still_named_exactly(stage: str, slot: int) -> None:
    class Moved(Batched):
        def _stage(self, at: str, place: int, value: Tensor) -> Tensor:
            moved = (at, place, self.ticks) == (stage, slot, 3)
            return super()._stage(at, place, torch.nextafter(value, value + 1) if moved else value)

    error = parted(Moved(fused=True), bounds=bounds())
    assert (error.tick, error.slot, error.stage, error.differences[0].max_ulp) == (3, slot, stage, 1)
    assert "not exact by request: decode within k = " in str(error)


@pytest.mark.parametrize("defect", [
    lambda rows: rounds(rows).flip(0),
    lambda rows: rounds(rows) * (1 + 1e-5),
    lambda rows: rounds(rows.bfloat16().float()),
    lambda rows: rounds(rows) * float("nan"),
    lambda rows: rounds(rows) * float("inf"),
])  # fmt: skip
def test_a_decoder_that_is_wrong_leaves_its_bound(defect: Any) -> None:
    error = parted(Batched(fused=True, decoder=defect), bounds=bounds())
    assert (error.event, error.slot, error.stage) == (0, 0, "decode")
    assert "the bound of decode (k = " in str(error)


def test_a_ring_that_does_not_go_on_with_the_replayed_tensor_is_red_and_never_green() -> None:
    assert parted(Batched(fused=True, heeds=False), bounds=bounds()).stage == "guidance"


def test_a_bound_of_zero_is_exact() -> None:
    assert parted(Batched(fused=True), bounds={"decode": measured(rounds, [ROWS]).pinned}).stage == "decode"
    assert run(Batched(fused=False, decoder=exact), Batched(fused=True, decoder=exact), [1.0], bounds={
        "decode": measured(exact, [ROWS]).free
    }).bounds[0].endswith("largest seen 0 in 2 tensors")  # fmt: skip


def test_no_bound_covers_another_dtype_or_a_nan_of_both() -> None:
    assert "no bound covers another shape or dtype" in str(
        parted(Batched(fused=True, decoder=lambda rows: rounds(rows).double()), bounds=bounds())
    )
    with pytest.raises(EnginesParted, match="is NaN in both"):
        run(*(Batched(fused, lambda rows: rows * float("nan")) for fused in (True, False)), [1.0], bounds=bounds())


def test_the_largest_distance_of_all_tensors_is_told() -> None:
    each = Bounded("decode", Bound(1e6, 4, "free", 4))
    plain = torch.ones(2)
    assert [each.beyond("x", plain * (1 + moved), plain) for moved in (0.0, 2.0**-10, 2.0**-20)] == [""] * 3
    assert (each.compared, each.largest) == (3, 2.0**-10 / EPS)


def test_the_rows_that_were_measured_are_within_their_own_bound() -> None:
    def beyond(rows: Tensor) -> list[str]:
        decode = Bounded("decode", measured(rounds, [rows]).free)
        return [decode.beyond("x", fast, rounds(row[None])[0]) for fast, row in zip(rounds(rows), rows, strict=True)]

    drawn = torch.randn(60, 4, 24, generator=torch.Generator().manual_seed(0))
    assert {words for rows in drawn for words in beyond(rows)} == {""}


@pytest.mark.parametrize("plain", [torch.zeros(2), torch.ones(2)])
def test_a_row_that_was_zero_and_then_was_not_gives_no_bound_that_everything_is_within(plain: Tensor) -> None:
    found = measured(lambda rows: rows * 0 if len(rows) == 1 else rows, [ROWS]).free
    assert found.k == float("inf") and found.limit(plain) == 0
    assert "k = inf" in Bounded("decode", found).beyond("x", plain + 1, plain)
    assert Bounded("decode", found).beyond("x", plain, plain) == ""


def test_a_bound_of_a_stage_that_is_not_reported_is_refused() -> None:
    with pytest.raises(NothingCompared, match="no ring reported decoder"):
        run(Batched(fused=True), Batched(fused=True), [1.0], bounds={"decoder": bounds()["decode"]})


def test_what_is_no_bound_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"bounds\['decode'\]: got Measured, expected a Bound"):
        run(Batched(fused=True), Batched(fused=True), [1.0], bounds={"decode": measured(exact, [ROWS])})  # type: ignore[dict-item]


def test_a_margin_is_asked_for_by_name_and_shown() -> None:
    bound = Bound(2.0, 4, "free", 9)
    assert str(bound.times(3)) == "k = 3 x 2, measured on 9 free rows in batches of up to 4"
    assert bound.times(3).limit(torch.ones(2)) == 3 * bound.limit(torch.ones(2)) == 6 * torch.finfo(torch.float32).eps
    for margin in (0.5, float("inf"), float("nan")):
        with pytest.raises(InvalidInput, match="margin"):
            bound.times(margin)


def test_a_bound_is_relative_to_a_finite_tensor() -> None:
    plain, moved = torch.tensor([1.0, float("inf")]), torch.tensor([1.1, float("inf")])
    assert Bound(2.0, 4, "free", 9).limit(plain) == 0
    assert [Bound(1e9, 4, "free", 9).allows(fast, plain) for fast in (plain, moved)] == [True, False]
    assert isinstance(measured(exact, [ROWS]), Measured)
