"""Requests that each have a prompt and a context of their own, made before the ticks that need them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine import Request, StreamPipeline
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import CudaGraphExecutor, EagerExecutor
from harness.engine.guidance_modes import GuidanceMode
from harness.engine.request import Guidance, required
from harness.engine.results import Submission
from harness.engine.session import Session
from harness.parity.compare import assert_identical
from harness.rails.bench.stock import Stock
from harness.rails.bench.throughput import TOKENS, Driver, Load, bench
from tests.engine.builders import fixed

SMALL = Load(decoder="affine", executor="cuda_graph", duration=0.64, ticks=16, warmup=8, fresh=True)
NULL = fixed(5, 1, 6)


@pytest.fixture(name="session")
def _session() -> Iterator[Session]:
    with Session(AffineDecoder(6), EagerExecutor(AffineDecoder(6)), null_embedding=NULL) as session:
        yield session


@pytest.fixture(name="drawn")
def _drawn(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Every tensor that a stock drew."""
    plain, drawn = Stock._drawn, list[Tensor]()

    def noted(self: Stock, size: tuple[int, int, int]) -> Tensor:
        drawn.append(plain(self, size))
        return drawn[-1]

    monkeypatch.setattr(Stock, "_drawn", noted)
    return drawn


@pytest.fixture(name="submitted")
def _submitted(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Every request that a pipeline was given."""
    plain, submitted = StreamPipeline.submit, list[Request]()

    def submit(self: StreamPipeline, request: Request) -> Submission:
        submitted.append(request)
        return plain(self, request)

    monkeypatch.setattr(StreamPipeline, "submit", submit)
    return submitted


def stock(device: str = "cpu") -> Stock:
    return Stock(3, 6, 10, 2, device)


def prompt(request: Request) -> Tensor:
    return request.conditions[0].encoder_hidden_states


# A stock.


def test_a_request_has_the_sizes_of_the_stock_and_all_that_it_was_asked_for(session: Session) -> None:
    source = fixed(3, 10, 2)
    found = stock().request(session, 17, 0.5, source, None)
    assert (len(found.conditions), prompt(found).shape) == (1, (1, 3, 6))
    assert found.context_latents.shape == (1, 10, 4)
    assert (found.seed, found.denoise, found.guidance) == (17, 0.5, None)
    assert found.source is not None
    assert_identical(found.source, source)
    assert stock().request(session, 18, 1.0, None, None).source is None


def test_what_is_made_is_made_on_the_device_of_the_stock(drawn: list[Tensor]) -> None:
    stock("meta").fill(2)
    assert [each.device.type for each in drawn] == ["meta"] * 4


def test_a_stock_is_filled_up_and_not_added_to(session: Session, drawn: list[Tensor]) -> None:
    made = stock()
    made.fill(3)
    assert len(drawn) == 2 * 3
    made.fill(2)
    made.request(session, 0, 1.0, None, None)
    assert len(drawn) == 2 * 3, "taken from what is there"
    made.fill(5)
    assert len(drawn) == 2 * 6


def test_a_stock_that_is_empty_makes_what_a_request_needs(session: Session, drawn: list[Tensor]) -> None:
    made = stock()
    first, second = (made.request(session, seed, 1.0, None, None) for seed in (0, 1))
    assert len(drawn) == 2 * 2
    assert not torch.equal(prompt(first), prompt(second))


def test_no_prompt_and_no_context_is_used_twice(session: Session, drawn: list[Tensor]) -> None:
    made = stock()
    made.fill(4)
    requests = [made.request(session, 0, 1.0, None, None) for _ in range(6)]
    assert len({prompt(each).numpy().tobytes() for each in requests}) == 6
    assert len({each.context_latents.numpy().tobytes() for each in requests}) == 6
    assert len({each.data_ptr() for each in drawn}) == len(drawn) == 12


@pytest.mark.parametrize("mode", GuidanceMode)
def test_a_guided_request_has_the_session_s_null_condition_where_its_mode_runs_negative_rows(
    session: Session, mode: GuidanceMode
) -> None:
    found = stock().request(session, 0, 1.0, None, Guidance(3.0, mode=mode)).guidance
    assert found is not None
    assert (required(found.scale).uniform, found.mode) == (3.0, mode)
    assert len(found.negatives) == (mode is not GuidanceMode.SELF)
    for negative in found.negatives:
        assert_identical(negative.encoder_hidden_states, NULL.expand(1, 3, 6).contiguous())


# A ring.


def ticked(load: Load, ticks: int) -> Driver:
    driver = Driver(load)
    driver.warm_up()
    for _ in range(ticks):
        driver.tick()
    return driver


@pytest.mark.parametrize("more", [{}, {"cfg": "full"}, {"cfg": "self"}, {"denoise": 0.5}, {"depth": 2}])
def test_each_request_of_a_ring_has_its_own_prompt_and_context_and_none_is_used_twice(
    more: dict[str, Any], submitted: list[Request]
) -> None:
    driver = ticked(replace(SMALL, **more), 24)
    with driver.session:
        assert len(submitted) == driver.submitted >= 8
        assert driver.dropped == 0
    for tensors in ([prompt(each) for each in submitted], [each.context_latents for each in submitted]):
        assert len({each.data_ptr() for each in tensors}) == len(submitted)
        assert len({each.numpy().tobytes() for each in tensors}) == len(submitted)
    assert {tuple(prompt(each).shape) for each in submitted} == {(1, TOKENS, 16)}
    assert {tuple(each.context_latents.shape) for each in submitted} == {(1, 16, 8)}
    assert [each.seed for each in submitted] == list(range(1, len(submitted) + 1))
    assert {each.denoise for each in submitted} == {driver.load.denoise}
    assert {each.source is None for each in submitted} == {driver.load.denoise == 1}
    modes = {None if each.guidance is None else str(each.guidance.mode) for each in submitted}
    assert modes == {driver.load.cfg}


def test_the_requests_of_another_ring_share_one_prompt_and_one_context(
    submitted: list[Request], drawn: list[Tensor]
) -> None:
    driver = ticked(replace(SMALL, fresh=False), 24)
    driver.stock(100)
    driver.session.close()
    assert len(submitted) >= 8
    assert {prompt(each).data_ptr() for each in submitted} == {prompt(submitted[0]).data_ptr()}
    assert {each.context_latents.data_ptr() for each in submitted} == {submitted[0].context_latents.data_ptr()}
    assert drawn == []


@pytest.mark.parametrize(("steps", "depth"), [(8, 1), (8, 2), (8, 3), (8, 4), (8, 8), (9, 4), (4, 8), (1, 1)])
@pytest.mark.parametrize("ticks", [1, 7, 24])
def test_a_stock_for_so_many_ticks_lasts_so_long(steps: int, depth: int, ticks: int, drawn: list[Tensor]) -> None:
    driver = Driver(replace(SMALL, steps=steps, depth=depth, warmup=steps))
    with driver.session:
        driver.stock(steps)
        for count in (steps, ticks, ticks):
            driver.stock(count)
            made = len(drawn)
            for _ in range(count):
                driver.tick()
            assert len(drawn) == made, "made in a tick"


def test_a_window_s_requests_are_made_before_its_clock_starts(
    drawn: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver(SMALL)
    found: list[int] = []
    plain = Driver.tick

    def tick(self: Driver) -> Any:
        found.append(len(drawn))
        return plain(self)

    monkeypatch.setattr(Driver, "tick", tick)
    with driver.session:
        driver.warm_up()
        warmed = len(found)
        driver.window(24)
    assert len(set(found[:warmed])) == len(set(found[warmed:])) == 1
    assert found[0] > 0


def test_every_new_request_s_conditions_are_copied_to_the_recorded_run_and_those_of_others_are_kept() -> None:
    """A request enters every other tick: then five inputs are copied, and else the state and the times alone."""
    driver = ticked(SMALL, 0)
    executor = driver.tap.inner
    assert isinstance(executor, CudaGraphExecutor)
    with driver.session:
        before = executor.stats()
        for _ in range(16):
            driver.tick()
        after = executor.stats()
    assert after.copied - before.copied == 8 * 5 + 8 * 2
    assert after.kept - before.kept == 8 * 3


def test_a_bench_of_fresh_requests_makes_as_many_latents_as_one_of_shared_ones() -> None:
    fresh, shared = bench(SMALL), bench(replace(SMALL, fresh=False))
    assert (fresh.latents, fresh.dropped, fresh.runs, fresh.rows) == (8, 0, 1.0, 4.0)
    assert (shared.latents, shared.dropped, shared.runs, shared.rows) == (8, 0, 1.0, 4.0)
    assert fresh.outputs != shared.outputs
    assert fresh.document()["load"]["fresh"] is True


def test_two_stocks_of_the_same_sizes_hold_the_same_and_torch_s_generator_stays() -> None:
    state, default = torch.random.get_rng_state(), torch.get_default_dtype()
    one, two = (Stock(2, 3, 4, 5, "cpu") for _ in range(2))
    one.fill(3)
    try:
        torch.set_default_dtype(torch.float64)
        two.fill(3)
    finally:
        torch.set_default_dtype(default)
    assert_identical([list(pair) for pair in one._made], [list(pair) for pair in two._made], "stock")
    assert len({float(states.sum()) for states, _context in one._made}) == 3
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_guidance_keeps_all_its_fields_beside_the_null_condition(session: Session) -> None:
    asked = Guidance(2.0, mode="initialize", rescale=0.5, eta=0.25, norm_threshold=None)
    made = Stock(2, 6, 4, 5, "cpu").request(session, 1, 1.0, None, asked).guidance
    assert made is not None and len(made.negatives) == 1
    assert (made.mode, required(made.rescale).uniform, made.eta, made.norm_threshold) == ("initialize", 0.5, 0.25, None)
