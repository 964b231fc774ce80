"""Tensors that are not read when a request is made: what is not finite fails its request, at a tick that is told.

READ_LATER is made to hold the CPU, where everything is as on a GPU but for the time it takes.
"""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine import (
    FailReason,
    Guidance,
    InvalidInput,
    LatentMask,
    Request,
    RequestFailed,
    StreamPipeline,
    X0Target,
    all_finished,
    once,
)
from harness.engine.curve import curve
from harness.engine.results import Outcomes
from harness.engine.slot import admit
from harness.parity.compare import assert_identical
from harness.rails.costs.counters import HostReads
from tests.engine.builders import D, T, condition, fixed, pipeline, request

AHEAD = 2


@pytest.fixture(autouse=True)
def _later(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(once, "READ_LATER", {"cuda", "cpu"})
    yield
    gc.collect()


def bad(*shape: int, value: float = math.nan) -> Tensor:
    made = fixed(3, *shape) if shape else fixed(3)
    made.view(-1)[-1] = value
    return made


FIELDS: dict[str, Callable[[], dict[str, Any]]] = {
    "context_latents": lambda: {"context_latents": bad(T, 2 * D)},
    "source": lambda: {"source": bad()},
    "x0_target.latent": lambda: {"x0_target": X0Target(bad(), 0.5)},
    "latent_mask.original": lambda: {"latent_mask": LatentMask(0.5, bad())},
    "conditions[0].encoder_hidden_states": lambda: {"conditions": [spoilt(5)]},
    "conditions[1].encoder_hidden_states": lambda: {"conditions": [condition(1, 5), spoilt(5)]},
    "guidance.negatives[0].encoder_hidden_states": lambda: {"guidance": Guidance(2.0, [spoilt(5)])},
    "guidance.negatives[1].encoder_hidden_states": lambda: {"guidance": Guidance(2.0, [condition(1, 5), spoilt(5)])},
}


def spoilt(tokens: int) -> Any:
    made = condition(9, tokens)
    made.encoder_hidden_states[0, -1, 0] = math.nan
    return made


def ticks(p: StreamPipeline, count: int) -> list[Outcomes]:
    return [p.tick() for _ in range(count)]


def test_the_fields_are_all_that_a_request_does_not_copy() -> None:
    made = request(
        conditions=[condition(1, 5), condition(2, 5)],
        guidance=Guidance(2.0, [condition(1, 5), condition(2, 5)]),
        source=fixed(4),
        x0_target=X0Target(fixed(4), 0.5),
        latent_mask=LatentMask(0.5, fixed(4)),
    )
    assert made.tensors().keys() == FIELDS.keys()


@pytest.mark.parametrize("field", FIELDS)
def test_a_value_that_is_not_finite_fails_its_request_by_name_at_its_tick(field: str) -> None:
    p = pipeline(steps=8, depth=2)
    submission = p.submit(request(id="bad", **FIELDS[field]()))
    assert submission.dropped == ()
    assert ticks(p, AHEAD + 1) == [[], [], []]
    (failed,) = p.tick().failed
    assert (failed.id, failed.reason, failed.step) == ("bad", FailReason.INPUT_NOT_FINITE, AHEAD + 1)
    assert failed.detail.startswith(f"{field}: values from nan to nan, expected")
    assert p.slots == (None, None)
    stats = p.stats()
    assert (stats.failed, stats.finished, stats.admitted, stats.in_flight) == (1, 0, 1, 0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_every_value_that_is_not_finite_is_found_in_every_dtype(value: float, dtype: torch.dtype) -> None:
    p = pipeline(steps=8)
    p.submit(request(source=bad(value=value).to(dtype)))
    assert [len(each.failed) for each in ticks(p, 4)] == [0, 0, 0, 1]


def test_a_number_beyond_float32_is_not_finite_and_the_largest_is() -> None:
    for value, fails in ((1e39, True), (-1e39, True), (torch.finfo(torch.float32).max / 4, False)):
        p = pipeline(steps=6)
        given = fixed(3).double()
        given[0, 0, 0] = value
        p.submit(request(source=given))
        made = p.drain()
        assert (len(made), len(made.failed)) == (not fails, fails)


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_the_tick_is_told_by_how_far_the_host_may_be_ahead(ahead: int) -> None:
    p = pipeline(steps=8, max_ticks_ahead=ahead)
    p.submit(request(source=bad()))
    assert [bool(each.failed) for each in ticks(p, ahead + 2)] == [False] * (ahead + 1) + [True]


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_request_that_ends_before_fails_at_its_last_step_and_hands_out_no_latent(steps: int) -> None:
    p = pipeline(steps=steps)
    p.submit(request(id=0, source=bad()))
    made = ticks(p, steps)
    assert made[:-1] == [[]] * (steps - 1)
    assert [(each.id, each.step) for each in made[-1].failed] == [(0, steps - 1)]
    assert made[-1] == []
    assert p.stats().in_flight == 0


def test_a_request_of_one_step_is_read_too() -> None:
    p = pipeline(steps=8)
    p.submit(request(source=bad(), denoise=0.0))
    made = p.tick()
    assert (len(made), len(made.failed)) == (0, 1)


def test_the_clock_runs_from_the_admission_not_from_the_submission() -> None:
    p = pipeline(steps=6, depth=1)
    p.submit(request(id="first"))
    p.tick()
    p.submit(request(id="bad", source=bad()))
    made = ticks(p, 5 + AHEAD + 2)
    told = [[each.id for each in (*tick, *tick.failed)] for tick in made]
    assert told == [[]] * 4 + [["first"]] + [[]] * (AHEAD + 1) + [["bad"]]


def others(with_bad: bool) -> tuple[list[Tensor], list[str | int]]:
    p = pipeline(steps=6, depth=3)
    p.submit(request(id="a", seed=1, guidance=Guidance(2.0, [condition(2, 3)])))
    p.tick()
    p.submit(request(id="bad", source=bad(), seed=9) if with_bad else request(id="bad", seed=9))
    p.submit(request(id="b", seed=2, noise_injection=0.2))
    for _ in range(2):
        p.tick()
    p.submit(request(id="c", seed=3))
    done = [each for each in p.drain() if each.id != "bad"]
    return [each.latent for each in done], [each.id for each in done]


def test_the_others_have_the_bits_that_they_have_without_it() -> None:
    got, wanted = others(with_bad=True), others(with_bad=False)
    assert sorted(map(str, got[1])) == sorted(map(str, wanted[1])) == ["a", "b", "c"]
    named = [dict(zip(map(str, names), latents, strict=True)) for latents, names in (got, wanted)]
    assert_identical(named[0], named[1])


def test_its_place_is_free_in_the_tick_that_names_it_and_places_are_told_in_order() -> None:
    p = pipeline(steps=4, depth=2)
    p.submit(request(id="ends"))
    p.submit(request(id="bad", source=bad()))
    p.tick()
    p.submit(request(id="next"))
    made = ticks(p, 3)
    assert [each.id for each in made[-1]] == ["ends"]
    assert [each.id for each in made[-1].failed] == ["bad"]
    assert [slot and slot.id for slot in p.slots] == [None, "next"]


def test_one_that_is_cancelled_while_its_tensors_are_read_is_dropped_and_does_not_fail_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    p = pipeline(steps=4, depth=1)
    p.submit(request(id="bad", source=bad()))
    p.tick()
    due, dropped = p._verdicts.due, list[Any]()

    def told_meanwhile(*asked: Any) -> Any:
        made = due(*asked)
        if made.failed:
            dropped.extend(each.id for each in p.cancel("bad"))
        return made

    monkeypatch.setattr(p._verdicts, "due", told_meanwhile)
    made = Outcomes().joined(*ticks(p, 4))
    assert (dropped, [*made], [*made.failed]) == (["bad"], [], [])


def test_a_place_that_fails_and_ends_in_one_tick_tells_the_one_that_was_there_first() -> None:
    p = pipeline(steps=6, depth=1)
    p.submit(request(id="bad", source=bad()))
    p.tick()
    p.submit(request(id="short", denoise=0.0, source=fixed(4)))
    made = Outcomes().joined(*ticks(p, 3))
    assert ([each.id for each in made.failed], [each.id for each in made]) == (["bad"], ["short"])


def test_a_tick_that_raises_has_read_nothing_and_names_it_again() -> None:
    class Refusing:
        def __init__(self, inner: Any) -> None:
            self.inner, self.refuses = inner, False
            self.max_rows, self.takes_mask, self.stream = inner.max_rows, inner.takes_mask, None

        def run(self, batch: Any) -> Tensor:
            if self.refuses:
                raise MemoryError
            return self.inner.run(batch)  # type: ignore[no-any-return]

        def close(self) -> None:
            self.inner.close()

    held = pipeline(steps=8)
    executor = Refusing(held.executor)
    p = StreamPipeline(executor, held.config)
    p.submit(request(id="bad", source=bad()))
    p.submit(request(id="good"))
    ticks(p, AHEAD + 1)
    executor.refuses = True
    for _ in range(2):
        before = p.slots
        with pytest.raises(MemoryError):
            p.tick()
        assert p.slots == before
        assert p.stats().failed == 0
    executor.refuses = False
    assert [each.id for each in p.tick().failed] == ["bad"]


def test_a_tensor_that_was_found_finite_is_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    plain = once._ends_of

    def counting(value: Tensor, stream: int) -> Any:
        looked.append(id(value))
        return plain(value, stream)

    monkeypatch.setattr(once, "_ends_of", counting)
    p, source = pipeline(steps=8, depth=4), fixed(5)
    for seed in range(2):
        p.submit(request(seed=seed, source=source))
    assert looked.count(id(source)) == 1, "asked for once, while nothing is known yet"
    ticks(p, AHEAD + 2)
    assert all(slot is None or slot.unread is None for slot in p.slots)
    p.submit(request(seed=3, source=source))
    assert looked.count(id(source)) == 1
    source[0, 0, 0] = math.nan
    p.submit(request(id="bad", seed=4, source=source))
    assert looked.count(id(source)) == 2, "a write makes it unseen"
    assert [each.id for each in p.drain().failed] == ["bad"]


def test_a_tensor_that_was_found_bad_fails_every_request_that_has_it() -> None:
    p, source = pipeline(steps=6, depth=2), bad()
    for name in ("one", "two"):
        p.submit(request(id=name, source=source))
    p.drain()
    p.submit(request(id="three", source=source))
    assert [each.id for each in p.drain().failed] == ["three"]
    assert p.stats().failed == 3


def test_an_inference_tensor_is_unseen_every_time() -> None:
    with torch.inference_mode():
        source = fixed(5).clone()
    p = pipeline(steps=6)
    p.submit(request(source=source))
    p.drain()
    with torch.inference_mode():
        source.fill_(math.nan)
    p.submit(request(id="bad", source=source))
    assert [each.id for each in p.drain().failed] == ["bad"]


def test_nothing_is_read_when_a_request_is_made_or_submitted() -> None:
    p = pipeline(steps=6)
    p.submit(request())
    with HostReads() as reads:
        made = Request([condition(4, 5)], fixed(6, T, 2 * D), 3, source=fixed(7))
        p.submit(made)
    assert reads.seen == {}


def test_what_a_refused_submission_looked_at_is_forgotten() -> None:
    p = pipeline(steps=6)
    p.submit(request())
    before = p.stats(), p.slots
    with pytest.raises(InvalidInput):
        p.submit(request(conditions=[condition(1, 200)], source=bad()))
    assert (p.stats(), p.slots) == before
    assert len(p.drain()) == 1


def test_tensors_are_let_go_with_their_request() -> None:
    p, source = pipeline(steps=5), fixed(5)
    gone = weakref.ref(source)
    p.submit(request(source=source))
    del source
    p.drain()
    gc.collect()
    assert gone() is None


def test_all_finished_raises_where_a_request_failed() -> None:
    p = pipeline(steps=5)
    p.submit(request(id="bad", source=bad()))
    p.submit(request(id="good"))
    made = p.drain()
    with pytest.raises(RequestFailed, match="request 'bad' failed after 3 steps: source: values from nan") as error:
        all_finished(made)
    assert error.value.outcomes is made
    assert [each.id for each in all_finished(Outcomes(made, dropped=made.dropped))] == ["good"]


# Curves and masks are read once.


def test_a_curve_of_one_tensor_is_read_once_and_again_after_a_write() -> None:
    given = torch.linspace(0, 1, T)
    first = curve("f", given)
    with HostReads() as reads:
        assert curve("f", given) is first
    assert reads.seen == {}
    given[0] = 0.5
    second = curve("f", given)
    assert second is not first
    assert (float(first.values[0, 0, 0]), float(second.values[0, 0, 0])) == (0.0, 0.5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_curve_that_is_not_finite_is_refused_every_time(value: float) -> None:
    given = torch.full((T,), value)
    for _ in range(2):
        with pytest.raises(InvalidInput, match=r"at \(0, 0, 0\), 6 such values"):
            curve("f", given)


def test_a_mask_of_one_tensor_is_read_once_and_again_after_a_write() -> None:
    mask = torch.tensor([[1, 0, 1, 1, 0]])
    made = [type(condition())(condition(1, 5).encoder_hidden_states, mask) for _ in range(2)]
    assert made[0].encoder_mask is made[1].encoder_mask
    mask[0, 1] = 1
    again = type(condition())(condition(1, 5).encoder_hidden_states, mask)
    assert again.encoder_mask is not None
    assert made[0].encoder_mask is not None
    assert (again.encoder_mask.tolist(), made[0].encoder_mask.tolist()) == (
        [[True, True, True, True, False]],
        [[True, False, True, True, False]],
    )


def test_a_gain_of_one_tensor_is_read_once_and_keeps_its_shape() -> None:
    p, gain = pipeline(), torch.full((1, 1, D), 0.5)
    p.submit(request())
    p.set_channel_gain(gain)
    with HostReads() as reads:
        p.set_channel_gain(gain)
    assert reads.seen == {}
    assert p._state.controls.channel_gain is not None
    assert p._state.controls.channel_gain.values.shape == (1, 1, D)


def test_a_mask_of_frames_of_one_tensor_is_read_once_also_where_it_is_bool() -> None:
    mask, original = torch.arange(T) % 2 == 0, fixed(4)
    first = LatentMask(mask, original)
    with HostReads() as reads:
        second = LatentMask(mask, original)
    assert reads.seen == {}
    assert second.mask is first.mask


def test_what_is_remembered_of_a_tensor_is_of_its_shape_too() -> None:
    given = torch.ones(1, 3)
    states = condition(1, 3).encoder_hidden_states, condition(1, 2).encoder_hidden_states
    kind = type(condition())
    assert kind(states[0], given).encoder_mask is not None
    given.data = torch.ones(1, 2)
    made = kind(states[1], given).encoder_mask
    assert made is not None
    assert made.shape == (1, 2)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_a_tensor_of_eight_bits_is_looked_at_too(dtype: torch.dtype) -> None:
    ends = once._ends(torch.tensor([[[1.5, -2.0, 0.25]]]).to(dtype))
    assert ends.tolist() == [-2.0, 1.5]
    assert math.isnan(once._ends(torch.tensor([[[1.5, math.nan]]]).to(dtype))[0])


def test_a_wait_for_a_request_that_ends_early_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    p = pipeline(steps=1)
    p.submit(request())
    (queued,) = p._state.queue
    assert queued.unread is not None
    monkeypatch.setattr(queued.unread._fetched, "waited", False)
    plain = queued.unread._fetched.read

    def late() -> list[Any]:
        queued.unread._fetched.waited = True  # type: ignore[union-attr]
        return plain()

    monkeypatch.setattr(queued.unread._fetched, "read", late)
    p.drain()
    assert p.stats().waits == 1


def test_of_a_request_whose_tensors_were_all_found_finite_nothing_is_fetched() -> None:
    p, made = pipeline(steps=6), request(source=fixed(5))
    p.submit(made)
    assert p._state.queue[0].unread is not None
    p.drain()
    p.submit(made)
    assert p._state.queue[0].unread is None


def test_of_several_bad_tensors_the_first_is_named() -> None:
    p = pipeline(steps=6)
    p.submit(request(id="bad", source=bad(), x0_target=X0Target(bad(value=math.inf), 0.5)))
    (failed,) = p.drain().failed
    assert failed.detail.startswith("source: values from nan")


def test_a_wait_is_counted_once_also_where_the_tick_is_run_again() -> None:
    p = pipeline(steps=1)
    p.submit(request())
    (queued,) = p._state.queue
    assert queued.unread is not None
    queued.unread._fetched.waited = True
    slot = admit("id", request(), (1.0, 0.0), 0, masked=False, unread=queued.unread)
    for _ in range(2):
        assert p._verdicts.not_finite(slot) is None
    assert p.stats().waits == 0, "it had been waited for before"
