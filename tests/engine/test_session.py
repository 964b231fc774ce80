from __future__ import annotations

import inspect
import weakref
from typing import Any

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
    Stream,
)
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import Batch, EagerExecutor, StaticExecutor
from harness.engine.noise import Purpose, noise
from harness.engine.request import required
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


NULL = torch.linspace(-1.0, 1.0, E).reshape(1, 1, E)
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def test_a_session_keeps_a_null_condition_for_each_length_and_dtype() -> None:
    made = Session(AffineDecoder(E), null_embedding=NULL)
    nulls = {}
    for _ in range(2):
        for dtype in DTYPES:
            for tokens in (5, 1, 9):
                null = made.null_condition(Condition(fixed(1, tokens, E).to(dtype)))
                assert_identical(null.encoder_hidden_states, NULL.to(dtype).expand(1, tokens, E).contiguous())
                assert null.encoder_hidden_states.is_contiguous()
                assert (null.encoder_mask, null.temporal_weight, null.step_range) == (None, None, None)
                assert nulls.setdefault((dtype, tokens), null) is null
    assert len({id(null) for null in nulls.values()}) == 12


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_stream_in_any_dtype_is_guided_against_the_null_condition_in_it(dtype: torch.dtype) -> None:
    made, prompt = Session(AffineDecoder(E), null_embedding=NULL), Condition(fixed(1, 5, E).to(dtype))
    for _ in range(2):
        stream = made.stream([prompt], context(), config=CONFIG)
        (finished,) = stream.tick(seed=7, guidance=3.0) + stream.drain()
        guided = Guidance(3.0, (Condition(NULL.to(dtype).repeat(1, 5, 1)),))
        alone = oracle.run(made.executor, Request([prompt], context(), 7, guidance=guided), CONFIG, 64)
        assert_identical(finished.latent, alone)


def test_a_null_embedding_that_is_given_goes_before_the_decoders_own() -> None:
    decoder = AffineDecoder(E)
    assert session().null_embedding is not None
    assert_identical(session().null_embedding, decoder.null_embedding)
    assert Session(decoder, null_embedding=NULL).null_embedding is NULL
    assert Session(AffineDecoder(), null_embedding=NULL).null_embedding is NULL
    assert Session(AffineDecoder()).null_embedding is None
    assert Session(lambda **_: NULL).null_embedding is None


@pytest.mark.parametrize(
    "given",
    [
        torch.ones(1, E),
        torch.ones(1, 2, E),
        torch.ones(2, 1, E),
        torch.ones(1, 1, E).long(),
        torch.full((1, 1, E), torch.inf),
    ],
    ids=["axes", "tokens", "rows", "whole numbers", "not finite"],
)
@pytest.mark.parametrize("own", [True, False], ids=["the decoder's", "given"])
def test_a_null_embedding_of_another_form_is_refused(given: torch.Tensor, own: bool) -> None:
    decoder = AffineDecoder()
    if own:
        decoder.null_embedding = given
    with pytest.raises(InvalidInput, match=r"^null_embedding: got .*, expected ") as refused:
        Session(decoder, null_embedding=None if own else given)
    assert refused.value.field == "null_embedding"


@pytest.mark.parametrize("mode", [mode for mode in GuidanceMode if mode.needs_negatives])
@pytest.mark.parametrize("whose", ["the guidance's", "the tick's", "the null condition"])
def test_a_guided_tick_has_the_bits_of_its_own_negatives(whose: str, mode: GuidanceMode) -> None:
    made, others = session(), (Condition(fixed(9, 3, E)), Condition(fixed(10, 4, E)))
    stream = made.stream([positive()], context(), config=CONFIG)
    negatives = {
        "the guidance's": others,
        "the tick's": others[:1],
        "the null condition": (made.null_condition(positive()),),
    }[whose]
    asked = Guidance(3.0, others if whose == "the guidance's" else (), mode, momentum=0.5, eta=0.25)
    negative = others[0] if whose == "the tick's" else None
    (finished,) = stream.tick(seed=7, guidance=asked, negative=negative) + stream.drain()
    guided = Guidance(3.0, negatives, mode, momentum=0.5, eta=0.25)
    request = Request([positive()], context(), 7, guidance=guided)
    assert_identical(finished.latent, oracle.run(made.executor, request, CONFIG, 64))


def test_a_tick_says_what_it_submitted_and_a_tick_without_a_seed_that_it_submitted_nothing() -> None:
    stream = session().stream([positive()], context(), config=PipelineConfig(depth=1, steps=2))
    told = []
    for seed in (1, None, 2, 3, 4, None):
        stream.tick(seed=seed)
        last = stream.last_submission
        told.append(last and (last.id, [dropped.id for dropped in last.dropped]))
    assert told == [("request-0", []), None, ("request-1", []), ("request-2", []), ("request-3", ["request-2"]), None]


class Told(EagerExecutor):
    """Writes down that it is closed, and whether the streams were closed before."""

    def __init__(self) -> None:
        super().__init__(AffineDecoder(E))
        self.streams: list[Stream] = []
        self.told: list[list[bool]] = []

    def close(self) -> None:
        self.told.append([_is_closed(stream) for stream in self.streams])
        super().close()


def _is_closed(stream: Stream) -> bool:
    try:
        stream.pipeline.set_dcw(None)
    except PipelineClosed:
        return True
    return False


def test_a_session_closes_all_of_its_streams_and_then_its_executor() -> None:
    executor = Told()
    made = Session(AffineDecoder(E), executor)
    executor.streams = streams = [made.stream([positive()], context(), config=CONFIG) for _ in range(3)]
    for seed, stream in enumerate(streams):
        stream.tick(seed=seed)
    streams[1].close()
    assert [_is_closed(stream) for stream in streams] == [False, True, False]
    assert len(streams[2].tick(seed=9) + streams[2].drain()) == 2
    made.close()
    assert executor.told == [[True] * 3]
    made.close()
    assert executor.told == [[True] * 3] * 2


@pytest.mark.parametrize("null", [None, torch.ones(1, 1, E), torch.ones(1, 1, E + 1)], ids=["none", "fits", "wider"])
def test_a_session_closes_its_streams_whatever_null_embedding_it_has(null: torch.Tensor | None) -> None:
    class Bare:
        """A decoder without a null embedding of its own."""

        def __call__(self, **inputs: torch.Tensor) -> torch.Tensor:
            return AffineDecoder(E)(**inputs)

    made = Session(Bare(), null_embedding=null)
    streams = [made.stream([positive()], context(), config=CONFIG) for _ in range(2)]
    streams[0].tick(seed=1)
    made.close()
    assert [(_is_closed(stream), stream.pipeline.slots) for stream in streams] == [(True, ())] * 2


def test_streams_of_one_session_share_an_executor_and_no_queue_name_or_control() -> None:
    for executor in (EagerExecutor(AffineDecoder(E), 3), StaticExecutor(AffineDecoder(E), 3)):
        made, ended = Session(AffineDecoder(E), executor), []
        streams = [
            made.stream([positive()], fixed(2, frames, 2 * D), config=PipelineConfig(depth=2, steps=steps))
            for frames, steps in ((T, 3), (T + 2, 2))
        ]
        streams[1].pipeline.set_shared_curve("velocity_scale", 0.5)
        for seed in (1, 2):
            for stream in streams:
                ended.append(stream.tick(seed=seed, guidance=2.0))
        ended += [stream.drain() for stream in streams]
        found = [(f.id, f.seed, f.steps, f.latent.shape[1], f.ticks_in_flight) for batch in ended for f in batch]
        assert found == [
            ("request-0", 1, 2, T + 2, 2),
            ("request-0", 1, 3, T, 3),
            ("request-1", 2, 3, T, 3),
            ("request-1", 2, 2, T + 2, 2),
        ]
        for finished in (f for batch in ended for f in batch):
            frames, slow = finished.latent.shape[1], finished.steps == 2
            guided = Guidance(2.0, (made.null_condition(positive()),))
            own = {"velocity_scale": 0.5} if slow else {}
            request = Request([positive()], fixed(2, frames, 2 * D), finished.seed, guidance=guided, **own)
            config = PipelineConfig(steps=finished.steps)
            alone = oracle.run(EagerExecutor(AffineDecoder(E)), request, config, 64)
            assert_identical(finished.latent, alone)


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


def test_what_a_tick_gives_is_that_tick_s_alone_and_the_next_one_has_the_stream_s_defaults_again() -> None:
    made, condition = session(), positive()
    other = Condition(fixed(9, 3, E))
    config = PipelineConfig(depth=6, steps=8)
    stream = made.stream([condition], context(), config=config, source=fixed(3, T, D))
    null = made.null_condition(condition)
    stream.tick(seed=1, guidance=2.0, negative=other)
    stream.tick(seed=2, guidance=2.0)
    stream.tick(seed=3, guidance=Guidance(3.0, (other,), eta=0.5))
    stream.tick(seed=4, guidance=Guidance(2.0, eta=0.25))
    stream.tick(seed=5, denoise=0.5, guidance=None)
    stream.tick(seed=6)
    held = [slot.request for slot in stream.pipeline.slots if slot is not None]
    assert [request.seed for request in held] == [1, 2, 3, 4, 5, 6]
    assert [[*map(id, request.negatives)] for request in held] == [
        [id(other)], [id(null)], [id(other)], [id(null)], [], [],
    ]  # fmt: skip
    assert [(r.guidance.eta, r.guidance.scale.uniform) for r in held[:4] if r.guidance and r.guidance.scale] == [
        (0.0, 2.0), (0.0, 2.0), (0.5, 3.0), (0.25, 2.0),
    ]  # fmt: skip
    assert [(r.guidance, r.denoise) for r in held[4:]] == [(None, 0.5), (None, 1.0)]


def test_a_seed_a_denoise_and_a_scale_of_0_are_values_like_others() -> None:
    made, source = session(), fixed(3, T, D)
    null = made.null_condition(positive())
    for denoise, steps in ((0.0, 1), (1.0, 3)):
        stream = made.stream([positive()], context(), config=CONFIG, source=source)
        (finished,) = stream.tick(seed=0, denoise=denoise, guidance=0) + stream.drain()
        assert (finished.seed, finished.denoise, finished.steps) == (0, denoise, steps)
        assert stream.pipeline.stats().decoder_rows == 2 * steps
        request = Request([positive()], context(), 0, denoise=denoise, source=source, guidance=Guidance(0.0, [null]))
        assert_identical(finished.latent, oracle.run(made.executor, request, CONFIG, 64))


@pytest.mark.parametrize("scale", [0, 0.0, 1, 1.0, -1.5])
def test_with_every_scale_the_negative_rows_run(scale: float) -> None:
    stream = session().stream([positive()], context(), config=CONFIG)
    stream.tick(seed=7, guidance=scale)
    assert stream.pipeline.stats().decoder_rows == 2
    (slot,) = [slot for slot in stream.pipeline.slots if slot is not None]
    assert slot.request.guidance is not None
    assert required(slot.request.guidance.scale).uniform == scale


def test_what_a_tick_and_a_stream_take_when_nothing_is_said() -> None:
    ticked = {name: each.default for name, each in inspect.signature(Stream.tick).parameters.items()}
    assert ticked == {"self": inspect.Parameter.empty, "seed": None, "denoise": 1.0, "negative": None, "guidance": None}
    made = session()
    assert type(made.executor) is EagerExecutor
    assert made.executor.max_rows == EagerExecutor(AffineDecoder(E)).max_rows == 8
    stream = made.stream([positive()], context())
    assert stream.pipeline.config == PipelineConfig()
    stream.tick(seed=7)
    (slot,) = [slot for slot in stream.pipeline.slots if slot is not None]
    assert (slot.request.denoise, slot.request.source, slot.request.guidance) == (1.0, None, None)


def test_a_session_is_closed_by_an_error_which_goes_on() -> None:
    made = session()
    stream = made.stream([positive()], context())
    with pytest.raises(KeyError, match="mine"), made:
        raise KeyError("mine")
    assert _is_closed(stream)
    with pytest.raises(PipelineClosed, match="the session is closed"):
        made.stream([positive()], context())


class Failing(EagerExecutor):
    """Fails while it is told to."""

    failing = False

    def run(self, batch: Batch) -> torch.Tensor:
        if self.failing:
            raise MemoryError("out of memory")
        return super().run(batch)


def test_after_a_tick_that_failed_the_last_submission_is_the_one_that_was_taken_last() -> None:
    executor = Failing(AffineDecoder(E))
    stream = Session(AffineDecoder(E), executor).stream([positive()], context(), config=CONFIG)
    stream.tick(seed=1)
    first = stream.last_submission
    executor.failing = True
    with pytest.raises(MemoryError):
        stream.tick()
    assert stream.last_submission is first
    with pytest.raises(MemoryError):
        stream.tick(seed=2)
    assert stream.last_submission is not None
    assert stream.last_submission.id == "request-1"
    executor.failing = False
    assert [f.seed for f in stream.tick() + stream.drain()] == [1, 2]
    assert stream.last_submission is None


def test_the_null_condition_of_a_stream_has_the_length_of_its_first_condition() -> None:
    made, prompts = session(), [positive(), Condition(fixed(4, 3, E)), Condition(fixed(5, 9, E))]
    for order in (prompts, prompts[::-1], prompts[1:]):
        stream = made.stream(order, context(), config=CONFIG)
        stream.tick(seed=1, guidance=2.0)
        (slot,) = [slot for slot in stream.pipeline.slots if slot is not None]
        (negative,) = slot.request.negatives
        assert negative is made.null_condition(order[0])
        assert negative.length == order[0].length


def test_a_stream_of_another_width_than_the_null_embedding_takes_negatives_of_its_own() -> None:
    made = Session(AffineDecoder(), null_embedding=torch.ones(1, 1, E + 1))
    stream = made.stream([positive()], context(), config=CONFIG)
    with pytest.raises(InvalidInput, match="width 9, as the null embedding has"):
        stream.tick(seed=1, guidance=2.0)
    (finished,) = stream.tick(seed=1, guidance=2.0, negative=positive()) + stream.drain()
    assert finished.seed == 1


def test_a_null_embedding_in_float64_is_not_rounded_for_conditions_in_float64() -> None:
    exact = torch.full((1, 1, E), 1 / 3, dtype=torch.float64)
    null = Session(AffineDecoder(E), null_embedding=exact).null_condition(Condition(fixed(1, 5, E).double()))
    assert_identical(null.encoder_hidden_states, exact.repeat(1, 5, 1))


TICKS: list[dict[str, Any]] = [
    {"seed": 1, "denoise": 0.5, "guidance": 3.0, "negative": Condition(fixed(9, 3, E))},
    {"seed": 2},
    {"seed": 2, "guidance": 3.0},
    {"seed": 3, "guidance": Guidance(2.0, (Condition(fixed(8, 4, E)),), momentum=0.5)},
    {"seed": 3, "guidance": 2.0},
    {"seed": 2, "denoise": 0.7, "guidance": Guidance(2.0, mode="self")},
    {"seed": 1, "denoise": 0.5},
    {"seed": 1, "denoise": 0.5, "guidance": 3.0},
]


def test_no_tick_keeps_an_argument_of_an_earlier_one() -> None:
    """Each request ends with the bits that it has in a stream of its own, in a session of its own."""
    source = fixed(3, T, D)
    stream = session().stream([positive()], context(), config=CONFIG, source=source)
    for arguments in (*TICKS, *TICKS[::-1]):
        (finished,) = stream.tick(**arguments) + stream.drain()
        alone = session().stream([positive()], context(), config=CONFIG, source=source)
        (wanted,) = alone.tick(**arguments) + alone.drain()
        assert (finished.seed, finished.denoise, finished.steps) == (wanted.seed, wanted.denoise, wanted.steps)
        assert_identical(finished.latent, wanted.latent)


def test_sessions_share_no_null_condition() -> None:
    made = [Session(AffineDecoder(E), null_embedding=NULL * n) for n in (1, 2)] + [session()]
    for each in (*made, *made):
        assert each.null_embedding is not None
        null = each.null_condition(positive()).encoder_hidden_states
        assert_identical(null, each.null_embedding.expand(1, 5, E).contiguous())


def test_a_session_lets_closed_streams_go() -> None:
    made = session()
    gone = []
    for seed in range(20):
        stream = made.stream([positive()], context(), config=CONFIG)
        stream.tick(seed=seed)
        gone.append(weakref.ref(stream))
        gone.append(weakref.ref(stream.pipeline))
        stream.close()
        stream.close()
        del stream
    assert [each() for each in gone] == [None] * 40
    kept = made.stream([positive()], context(), config=CONFIG)
    made.close()
    with pytest.raises(PipelineClosed):
        kept.tick(seed=1)
