from __future__ import annotations

import pytest
import torch

from harness.engine import (
    Condition,
    Guidance,
    GuidanceMode,
    InvalidInput,
    PipelineClosed,
    PipelineConfig,
    Request,
    Session,
)
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import EagerExecutor
from harness.engine.noise import Purpose, noise
from harness.parity.compare import assert_identical, difference
from harness.parity.proofs import oracle

T, D, E = 6, 4, 8
CONFIG = PipelineConfig(depth=2, steps=3)


def fixed(seed: int, frames: int, width: int) -> torch.Tensor:
    return noise(seed, Purpose.INITIAL, 0, (1, frames, width))


def session() -> Session:
    return Session(AffineDecoder(E))


def positive() -> Condition:
    return Condition(fixed(1, 5, E))


def context() -> torch.Tensor:
    return fixed(2, T, 2 * D)


def test_a_stream_makes_the_latents_of_its_requests() -> None:
    made = session()
    condition = positive()
    stream = made.stream([condition], context(), config=CONFIG, source=fixed(3, T, D))
    finished = [f for seed in (7, 8) for f in stream.tick(seed=seed, denoise=0.5)] + stream.drain()
    assert [f.seed for f in finished] == [7, 8]
    for f in finished:
        request = Request([condition], context(), f.seed, denoise=0.5, source=fixed(3, T, D))
        assert_identical(f.latent, oracle.run(made.executor, request, CONFIG, 64))


def test_guidance_without_a_negative_uses_the_null_condition() -> None:
    made, condition = session(), positive()
    stream = made.stream([condition], context(), config=CONFIG)
    (finished,) = stream.tick(seed=7, guidance=3.0) + stream.drain()
    guided = Guidance(3.0, (made.null_condition(condition),))
    request = Request([condition], context(), 7, guidance=guided)
    assert_identical(finished.latent, oracle.run(made.executor, request, CONFIG, 64))


def test_a_negative_is_used_where_it_is_given() -> None:
    made = session()
    finished = []
    for negative in (None, Condition(fixed(9, 3, E))):
        stream = made.stream([positive()], context(), config=CONFIG)
        finished += stream.tick(seed=7, guidance=Guidance(3.0), negative=negative) + stream.drain()
    assert difference(finished[0].latent, finished[1].latent) is not None


def test_the_null_condition_repeats_the_embedding_at_the_condition_s_length() -> None:
    made = session()
    null = made.null_condition(positive())
    assert null.length == 5
    for token in range(5):
        assert_identical(null.encoder_hidden_states[:, token : token + 1], made.null_embedding)
    assert made.null_condition(positive()) is null


def test_a_session_without_a_null_embedding_says_so() -> None:
    with pytest.raises(InvalidInput, match="null_embedding"):
        Session(AffineDecoder()).null_condition(positive())


def test_a_null_embedding_of_another_width_is_refused() -> None:
    with pytest.raises(InvalidInput, match="width 8"):
        session().null_condition(Condition(torch.ones(1, 2, 4)))


def test_a_negative_without_guidance_is_refused_and_nothing_is_submitted() -> None:
    stream = session().stream([positive()], context(), config=CONFIG)
    with pytest.raises(InvalidInput, match="negative"):
        stream.tick(seed=1, negative=positive())
    assert stream.pipeline.stats().submitted == 0


@pytest.mark.parametrize("mode", [mode for mode in GuidanceMode if not mode.needs_negatives])
def test_a_negative_that_the_mode_would_not_use_is_refused_and_nothing_is_submitted(mode: GuidanceMode) -> None:
    stream = session().stream([positive()], context(), config=CONFIG)
    with pytest.raises(InvalidInput, match=f"negative: .*guidance of mode {mode}"):
        stream.tick(seed=1, guidance=Guidance(2.0, mode=mode), negative=positive())
    assert stream.pipeline.stats().submitted == 0


@pytest.mark.parametrize("which", ["context", "source", "prompt", "negative"])
def test_a_tensor_that_was_overwritten_between_ticks_is_refused_and_nothing_is_submitted(which: str) -> None:
    prompt, negative = positive(), Condition(fixed(9, 3, E))
    given = {"context": context(), "source": fixed(3, T, D)}
    stream = session().stream([prompt], given["context"], config=CONFIG, source=given["source"])
    given |= {"prompt": prompt.encoder_hidden_states, "negative": negative.encoder_hidden_states}
    for seed in range(2):
        stream.tick(seed=seed, guidance=2.5, negative=negative)
    given[which][0, 0, 0] = float("nan")
    before = stream.pipeline.stats()
    with pytest.raises(InvalidInput, match=r"nan at \(0, 0, 0\)"):
        stream.tick(seed=7, guidance=2.5, negative=negative)
    assert stream.pipeline.stats() == before
    given[which][0, 0, 0] = 0.5
    stream.tick(seed=8, guidance=2.5, negative=negative)


def test_a_tick_without_a_seed_submits_nothing() -> None:
    stream = session().stream([positive()], context(), config=CONFIG)
    assert stream.tick() == []
    assert stream.last_submission is None


def test_closing_a_session_closes_its_streams_and_its_executor() -> None:
    executor = EagerExecutor(AffineDecoder(E))
    with Session(AffineDecoder(E), executor) as made:
        stream = made.stream([positive()], context())
        stream.tick(seed=1)
    with pytest.raises(PipelineClosed):
        stream.tick(seed=1)
    with pytest.raises(PipelineClosed):
        made.stream([positive()], context())
    with pytest.raises(PipelineClosed, match="the pipeline is closed"):
        stream.tick()
    # A closed pipeline holds no latents.
    assert (stream.pipeline.stats().in_flight, stream.pipeline.slots) == (0, ())


def test_an_executor_in_the_decoders_place_is_refused() -> None:
    with pytest.raises(InvalidInput, match="a decoder; the executor is the second argument"):
        Session(EagerExecutor(AffineDecoder(16)))  # type: ignore[arg-type]


def test_a_negative_beside_those_of_the_guidance_is_refused_by_its_name() -> None:
    stream = session().stream([positive()], context(), config=CONFIG)
    with pytest.raises(InvalidInput) as refused:
        stream.tick(seed=1, guidance=Guidance(3.0, (positive(),)), negative=positive())
    assert str(refused.value) == "negative: got a condition beside guidance.negatives, expected either of the two"
    assert stream.pipeline.stats().submitted == 0


def test_a_null_condition_has_the_condition_s_dtype_and_no_gradient() -> None:
    trained = fixed(4, 1, E).requires_grad_()
    null = Session(AffineDecoder(E), null_embedding=trained).null_condition(Condition(fixed(1, 5, E).bfloat16()))
    states = null.encoder_hidden_states
    assert (states.dtype, states.requires_grad) == (torch.bfloat16, False)
    assert_identical(states, trained.detach().bfloat16().expand(1, 5, E).contiguous())
