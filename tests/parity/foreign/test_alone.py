from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from harness.engine.errors import InvalidInput
from harness.parity.compare import NothingCompared
from harness.parity.foreign.alone import Alone, NotAlone
from harness.parity.foreign.journal import play
from harness.parity.foreign.records import Cancel, Live, Operation, Submit, Tick
from harness.parity.proofs.bounds import Bound
from tests.parity.foreign.pool import STEPS, AtOnce, Pool

PLAIN = {"seed": 1, "gain": 1.0, "mean": False}
MEAN = {**PLAIN, "mean": True}
LEAK = [Submit(0, MEAN), Submit(1, PLAIN), Tick(3), Submit(2, MEAN)]
ROUGH = Bound(k=20.0, rows=3, how="free", samples=3)


def checked(make: Any, operations: list[Operation], **bounds: Bound) -> Alone:
    alone = Alone(make, bounds)
    alone.check(play(make(), operations))
    return alone


def test_requests_end_with_the_bits_that_they_have_alone() -> None:
    assert checked(Pool, [Submit(0, MEAN), Tick(), Submit(1, PLAIN), Submit(2, MEAN), Cancel(1)]).compared == 2


@pytest.mark.parametrize("make", [Pool, AtOnce])
@pytest.mark.parametrize("before", range(6))
def test_a_request_meets_alone_the_live_changes_that_it_met_at_the_same_of_its_ticks(make: Any, before: int) -> None:
    three = [Submit(number, MEAN) for number in range(3)]
    assert checked(make, [*three, Tick(before), Live("bias", 0.25), Tick(1), Live("bias", 0.0)]).compared == 3


@pytest.mark.parametrize("make", [partial(Pool, depths=()), partial(Pool, depths=(2,))])
def test_a_ring_of_fixed_depth_is_compared_at_that_depth(make: Any) -> None:
    assert checked(make, [Submit(0, PLAIN), Submit(1, MEAN)]).compared == 2


def test_a_leak_is_named_with_request_tick_and_stage_and_with_the_script_of_the_request_alone() -> None:
    with pytest.raises(NotAlone, match=r"request 2 does not .*, first apart in its tick 0, stage mean:") as caught:
        checked(partial(Pool, "mean leaks"), LEAK)
    assert (caught.value.request, caught.value.tick, caught.value.stage) == (2, 0, "mean")
    assert f"{[Submit(2, MEAN), Tick(STEPS)]}"[1:-1] in str(caught.value)


def test_a_live_change_that_acts_late_is_found_where_it_came_before_the_request() -> None:
    class Late(Pool):
        def _tick(self) -> Any:
            now, self.bias = self.bias, getattr(self, "then", 0.0)
            made = super()._tick()
            self.then = self.bias = now
            return made

    with pytest.raises(NotAlone, match="request 0 does not end .* tick 0, stage step"):
        checked(Late, [Live("bias", 0.25), Tick(1), Submit(0, PLAIN)])


def test_a_request_that_is_fast_in_company_is_found() -> None:
    class Hasty(Pool):
        def _admit(self, slot: int, submit: Submit) -> None:
            super()._admit(slot, submit)
            self.at[slot] = len(self.slots) - 1

    with pytest.raises(NotAlone, match="request 1 ended after 2 ticks, and alone after 3"):
        checked(Hasty, [Submit(0, PLAIN), Submit(1, PLAIN)])


def test_a_live_change_that_changes_the_number_of_ticks_is_found_by_where_the_request_ends() -> None:
    class Stretched(Pool):
        def _admit(self, slot: int, submit: Submit) -> None:
            super()._admit(slot, submit)
            self.at[slot] = -1 if self.bias else 0

    with pytest.raises(NotAlone, match="has not ended alone after as many ticks"):
        checked(Stretched, [Live("bias", 0.25), Submit(0, PLAIN)])


def test_random_numbers_that_no_seed_decides_are_told_from_other_causes() -> None:
    drawing = partial(Pool, "draws from the global generator")
    with pytest.raises(NotAlone, match="let each request draw from its own seed, or say why not with not_alone="):
        checked(drawing, [Submit(0, PLAIN), Submit(1, PLAIN)])
    with pytest.raises(NotAlone) as caught:
        checked(partial(Pool, "mean leaks"), LEAK)
    assert "random" not in str(caught.value)


def test_rows_that_are_not_exact_are_red_and_the_message_says_how_to_give_a_bound() -> None:
    with pytest.raises(NotAlone, match=r"bounds=\{'decode': measured\(...\).free\}"):
        checked(partial(Pool, "rough"), [Submit(0, PLAIN), Submit(1, PLAIN)])


def test_a_stage_with_a_bound_may_differ_and_all_after_it_may_not() -> None:
    alone = checked(partial(Pool, "rough"), [Submit(0, MEAN), Submit(1, PLAIN)], decode=ROUGH)
    assert alone.compared == 2 and 0 < alone.bounded["decode"].largest <= 20
    alone.refuse_unused()
    with pytest.raises(NotAlone, match="request 2 does not end .* tick 0, stage mean"):
        checked(partial(Pool, "mean leaks"), LEAK, decode=ROUGH)


def test_what_is_beyond_the_bound_is_named_with_its_tick() -> None:
    tight = Bound(k=0.25, rows=3, how="free", samples=3)
    with pytest.raises(NotAlone, match=r"request 0 is beyond a bound.* tick 0, stage decode:\s+decode/value: max"):
        checked(partial(Pool, "rough"), [Submit(0, PLAIN), Submit(1, PLAIN)], decode=tight)


class Told(Pool):
    """A ring with a reference: the same steps in a loop."""

    off = 0.0

    def reference(self, submit: Submit, controls: list[dict[str, Any]]) -> Any:
        x = torch.randn(3, generator=torch.Generator().manual_seed(submit.values["seed"]))
        for control in controls:
            x = x - x * 0.75 * submit.values["gain"] / STEPS + control["bias"]
        return x + self.off if not submit.values["mean"] else None


BIASED = [Submit(0, PLAIN), Submit(1, MEAN), Tick(1), Live("bias", 0.25), Submit(2, PLAIN)]


def test_the_adapters_reference_gets_the_controls_of_each_tick_and_may_not_know() -> None:
    alone = checked(Told, BIASED)
    assert (alone.compared, alone.referred) == (3, 2)


def test_the_reference_finds_what_is_wrong_alone_too() -> None:
    with pytest.raises(NotAlone, match="request 0 does not end with the bits of the reference"):
        checked(partial(Told, "bias acts in the first step alone"), BIASED)


def test_a_reference_is_exact_unless_it_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Told, "off", 1e-6)
    with pytest.raises(NotAlone, match="bits of the reference"):
        checked(Told, BIASED)
    assert checked(Told, BIASED, reference=ROUGH).referred == 2
    with pytest.raises(NotAlone, match="bound of reference"):
        checked(Told, BIASED, reference=Bound(1.0, 3, "free", 3))


def test_equal_nans_prove_nothing() -> None:
    class Undefined(Pool):
        def _move(self, slot: int) -> Any:
            submit, x = super()._move(slot)
            return submit, None if x is None else x * torch.nan

    with pytest.raises(NotAlone, match="equal NaNs prove nothing"):
        checked(Undefined, [Submit(0, PLAIN)])


def test_a_bound_in_vain_and_a_comparison_of_nothing_are_red() -> None:
    with pytest.raises(NothingCompared, match="no request"):
        checked(Pool, [Submit(0, PLAIN), Cancel(0)]).refuse_unused()
    with pytest.raises(NothingCompared, match="bound of decoder"):
        checked(Pool, [Submit(0, PLAIN)], decoder=ROUGH).refuse_unused()


def test_a_bound_of_a_ring_that_reports_no_stage_is_refused() -> None:
    Silent: Any = type("Silent", (), {name: each for name, each in vars(Pool).items() if name != "observe"})
    assert checked(Silent, [Submit(0, PLAIN)]).compared == 1
    with pytest.raises(InvalidInput, match="an adapter that reports no stage"):
        checked(Silent, [], decode=ROUGH)
