"""A refusal, of whatever field and whenever, leaves everything as it was: seen whole, and from what finishes later."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.engine import (
    DCW,
    Condition,
    ExecutorError,
    Finished,
    Guidance,
    InvalidInput,
    LatentMask,
    PipelineClosed,
    PipelineConfig,
    Request,
    Session,
    Stream,
    StreamPipeline,
    Switches,
    X0Target,
)
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import Batch, EagerExecutor
from harness.parity.compare import assert_identical
from harness.parity.snapshot import snapshot
from tests import laws
from tests.engine import scenes
from tests.engine.builders import D, E, T, condition, fixed, pipeline, request
from tests.engine.scenes import CHOICES, CURVES, GAINS, INTEGERS, KEYS, MASKS, NUMBERS, PLACES, TENSORS


def seen(subject: object) -> dict[str, Tensor]:
    """Everything that a refusal must leave as it was, torch's own state included."""
    state = {"random numbers": torch.get_rng_state(), "graph": torch.tensor(torch.is_grad_enabled())}
    return {**snapshot(subject), **state}


# Values that every field refuses.


def _numbers(low: float, high: float, *, in_float32: bool) -> list[Any]:
    given: list[Any] = [math.nan, math.inf, -math.inf, 10**400, True, "1", 1j]
    for bound, toward in ((low, -math.inf), (high, math.inf)):
        if bound not in (math.inf, -math.inf):
            beside = float(torch.nextafter(torch.tensor(bound), torch.tensor(toward)))
            given.append(beside if in_float32 else math.nextafter(bound, toward))
    return given


def _curves(low: float, high: float) -> list[Any]:
    bad = [torch.ones(2, T), torch.ones(T, 1, 1), torch.ones(0), torch.full((T,), math.nan), torch.tensor([1j])]
    return [*_numbers(low, high, in_float32=True), *bad, torch.full((T,), 1e39, dtype=torch.float64)]


def _tensors(shape: tuple[int, ...]) -> list[Any]:
    bad = [torch.ones(shape[1:]), torch.ones(shape).long(), torch.ones(2, *shape[1:]), torch.ones(1, 0, shape[2])]
    return [*bad, torch.full(shape, math.nan), torch.full(shape, 1e39, dtype=torch.float64), 1.0]


BAD: dict[str, list[Any]] = {
    **{key: _tensors(shape) for key, shape in TENSORS.items()},
    **{key: [torch.ones(1, 4), torch.zeros(1, 3), torch.full((1, 3), 0.5), True, "mask"] for key in MASKS},
    **{key: _curves(*bounds) for key, bounds in CURVES.items()},
    **{
        key: [*_tensors((1, T, D)), torch.full((1, 1, D), math.nextafter(high, math.inf) * 1.001)]
        for key, (_, high) in GAINS.items()
    },
    **{key: _numbers(*bounds, in_float32=False) for key, bounds in NUMBERS.items()},
    **{key: [low - 1, high + 1, 10**30, 1.0, True, "1"] for key, (low, high) in INTEGERS.items()},
    **{key: ["nothing", None, 1, 1.5] for key in CHOICES},
    "Condition.step_range": [(0.5, 0.5), (0.5, 0.2), (-1e-9, 1), (0, math.nextafter(1, 2)), (0.1,), 0.5, (False, 1)],
    "Guidance.negatives": [(), condition(), [None], [Condition(torch.ones(1, 3, E + 1))], 1],
    "LatentMask.strength_at": [0.5, "linear"],
    "Request.conditions": [[], condition(), None, [None], [condition(), Condition(torch.ones(1, 3, E).double())]],
    "Request.id": [True, 1.0, b"name", ("a",)],
    "Request.guidance": [2.0, DCW(), Guidance(2.0), Guidance(torch.ones(T + 1), mode="self")],
    "Request.x0_target": [0.5, fixed(3), X0Target(fixed(3, T + 1)), X0Target(fixed(3, T, D + 1))],
    "Request.latent_mask": [0.5, fixed(3), LatentMask(0.5, fixed(3, T + 1))],
    "PipelineConfig.dcw": ["double", 0.5, True],
    "PipelineConfig.switches": [None, True, "plain"],
    "live.dcw": ["double", 0.5, True],
}
LENGTHS = [key for key in CURVES if not key.startswith(("DCW.", "live."))]
for _key in LENGTHS:
    BAD[_key] += [torch.ones(T + 1), torch.ones(1, T - 1, 1)]


@dataclass(frozen=True)
class Refusal:
    """A call that is refused.

    Attributes:
        name: for messages.
        field: part of the field that the refusal names.
        act: the call.
        before: what must be so first; done to the undisturbed twin too.
        first: a pipeline that was just made refuses the call.
        later: a pipeline that took requests refuses the call.
    """

    name: str
    field: str
    act: Callable[[StreamPipeline], object]
    before: Callable[[StreamPipeline], object] = lambda p: None
    first: bool = True
    later: bool = True


def _of(key: str, number: int) -> Refusal:
    """The refusal of a bad value in a field, as it reaches a pipeline."""

    def act(p: StreamPipeline) -> None:
        scene = PLACES[key](BAD[key][number])
        if key.startswith("live."):
            scene.change(p)
        elif key.startswith(("PipelineConfig.", "Switches.")):
            StreamPipeline(p.executor, PipelineConfig(**scene.config))
        elif key.startswith("DCW."):
            p.set_dcw(scene.config["dcw"])
        else:
            scene.submit(p)

    field = key.lower() if key.startswith("DCW.") else key.split(".")[1]
    return Refusal(f"{key}[{number}]", field, act)


def submits(**fields: Any) -> Callable[[StreamPipeline], object]:
    return lambda p: p.submit(request(9, **fields))


def sets(name: str, *given: Any) -> Callable[[StreamPipeline], object]:
    return lambda p: getattr(p, f"set_{name}")(*given)


def guided(negative: Condition) -> Guidance:
    return Guidance(2.0, [negative])


def freed(p: StreamPipeline) -> None:
    """Take away every control that could refuse what follows."""
    p.set_channel_gain(None)
    for name in scenes.SharedControl:
        p.set_shared_curve(name, None)


def alone(name: str, *given: Any) -> Callable[[StreamPipeline], object]:
    """Nothing queued or in flight, and one control."""

    def before(p: StreamPipeline) -> None:
        freed(p)
        p.drain()
        sets(name, *given)(p)

    return before


def on_meta(**fields: Any) -> Request:
    """A request on another device, where no value can be read: the tensor takes the place of one that was checked."""
    made = request(9, **fields)
    object.__setattr__(made, "context_latents", made.context_latents.to("meta"))
    return made


OTHER_LENGTH = torch.ones(T + 1)
FITTING = [
    Refusal("type", "request", lambda p: p.submit("request")),  # type: ignore[arg-type]
    Refusal("control", "name", sets("shared_curve", "volume", 1.0)),
    Refusal("control without a value", "name", sets("shared_curve", "volume", None)),
    Refusal("curve of a length", "momentum", sets("shared_curve", "momentum", OTHER_LENGTH), submits()),
    Refusal(
        "curve on a device", "momentum", sets("shared_curve", "momentum", torch.ones(T, device="meta")), first=False
    ),
    Refusal("gain of a length", "channel_gain", sets("channel_gain", torch.ones(1, T + 1, D)), submits()),
    Refusal("gain of a width", "channel_gain", sets("channel_gain", torch.ones(1, 1, D + 1)), first=False),
    Refusal("request of a control", "context_latents", submits(), alone("shared_curve", "momentum", OTHER_LENGTH)),
    Refusal("request of a gain", "context_latents", submits(), alone("channel_gain", torch.ones(1, T + 1, D))),
    Refusal(
        "request of a gain's width",
        "context_latents",
        submits(),
        sets("channel_gain", torch.ones(1, 1, D + 1)),
        later=False,
    ),
    Refusal("device", "context_latents", lambda p: p.submit(on_meta()), first=False),
    Refusal("width", "encoder_hidden_states", submits(conditions=[Condition(torch.ones(1, 3, E + 1))]), first=False),
    Refusal("dtype", "encoder_hidden_states", submits(conditions=[Condition(torch.ones(1, 3, E).half())]), first=False),
    Refusal("tokens", "encoder_hidden_states", submits(tokens=65), first=False),
    Refusal("negative", "guidance.negatives[0]", submits(guidance=guided(condition(2, 65))), first=False),
    Refusal("channels", "context_latents", submits(context_latents=torch.ones(1, T, 2 * D + 2)), first=False),
    Refusal("context", "context_latents", submits(context_latents=torch.ones(1, T, 2 * D).half()), first=False),
]


# Pipelines before a refusal, and what they do after it.


def new(p: StreamPipeline) -> None:
    """Nothing happened yet."""


def busy(p: StreamPipeline) -> None:
    """Slots at different steps, a queue, and every kind of control."""
    p.submit(request(1, guidance=Guidance(2.5, [condition(9)], "initialize"), id=None))
    p.tick()
    p.submit(request(2, latent_mask=LatentMask(scenes.MASK, fixed(3)), id=0))
    p.set_shared_curve("velocity_scale", torch.linspace(0.5, 1.0, T))
    p.set_channel_gain(torch.linspace(0.5, 1.0, D).reshape(1, 1, D))
    p.tick()
    p.set_dcw(DCW("pix", 0.1))
    p.submit(request(3, id=""))
    p.submit(request(4, id=None))


def shrunk(p: StreamPipeline) -> None:
    """As busy, with a depth below the number of slots and a queue beyond it."""
    busy(p)
    p.set_depth(1)


def drained(p: StreamPipeline) -> None:
    """Sizes and controls without a request."""
    busy(p)
    p.drain()


SITUATIONS = {each.__name__: each for each in (new, busy, shrunk, drained)}


def rest(p: StreamPipeline) -> Iterator[Any]:
    """Everything that a pipeline hands out from now on; the tensors are compared byte for byte."""
    yield from p.drain()
    freed(p)
    for number in range(3):
        yield p.submit(request(20 + number, id=None if number else "named"))
    yield from p.drain()
    yield p.stats()


def same_rest(p: StreamPipeline, twin: StreamPipeline) -> None:
    got, wanted = list(rest(p)), list(rest(twin))
    assert [vars(each) | {"latent": None} for each in got] == [vars(each) | {"latent": None} for each in wanted]
    assert_identical(*([each.latent for each in made if isinstance(each, Finished)] for made in (got, wanted)))


def refused(p: StreamPipeline, *refusals: Refusal) -> None:
    """Each call is refused by name, and nothing is other than before the first."""
    before = seen(p)
    for refusal in refusals:
        laws.drew(__file__)
        with pytest.raises(InvalidInput, match=r"(?s)got .*, expected ") as error:
            refusal.act(p)
        assert refusal.field in error.value.field, refusal.name
        assert_identical(seen(p), before, f"the pipeline after {refusal.name}")


def test_every_field_and_every_control_has_values_that_are_refused() -> None:
    assert set(BAD) == set(KEYS)
    assert all(BAD.values())


@pytest.mark.parametrize("situation", ["new", "shrunk"])
@pytest.mark.parametrize("key", KEYS)
def test_a_refused_value_leaves_everything_as_it_was(key: str, situation: str) -> None:
    p, twin = pipeline(), pipeline()
    for each in (p, twin):
        SITUATIONS[situation](each)
    refused(p, *(_of(key, number) for number in range(len(BAD[key]))))
    same_rest(p, twin)


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("refusal", FITTING, ids=lambda refusal: refusal.name)
def test_what_does_not_fit_the_pipeline_leaves_everything_as_it_was(refusal: Refusal, situation: str) -> None:
    if not (refusal.first if situation == "new" else refusal.later):
        return
    p, twin = pipeline(), pipeline()
    for each in (p, twin):
        SITUATIONS[situation](each)
        refusal.before(each)
    refused(p, refusal)
    same_rest(p, twin)


ALWAYS = [_of(key, number) for key, values in BAD.items() for number in range(len(values))]
EVENTS = st.one_of(
    st.tuples(st.just("submit"), st.integers(1, 9)),
    st.tuples(st.just("tick"), st.just(0)),
    st.tuples(st.just("depth"), st.integers(1, 4)),
    st.tuples(st.just("scale"), st.integers(0, 3)),
    st.tuples(st.just("refuse"), st.integers(0, len(ALWAYS) - 1)),
)


@settings(max_examples=60)
@given(events=st.lists(EVENTS, min_size=3, max_size=12))
def test_refusals_between_any_events_change_nothing(events: list[tuple[str, int]]) -> None:
    p, twin = pipeline(), pipeline()
    for kind, number in [*events, ("refuse", len(events))]:
        if kind == "refuse":
            refused(p, ALWAYS[number])
            continue
        for each in (p, twin):
            if kind == "submit":
                each.submit(request(number, id=None if number % 2 else number))
            elif kind == "tick":
                each.tick()
            elif kind == "depth":
                each.set_depth(number)
            else:
                each.set_shared_curve("velocity_scale", number / 2 if number else None)
    same_rest(p, twin)


# Refusals of a tick.


SHAPES: dict[str, Callable[[Tensor], Any]] = {
    "a frame too few": lambda v: v[:, :-1],
    "a frame too many": lambda v: torch.cat([v, v[:, :1]], dim=1),
    "one frame for all": lambda v: v[:, :1],
    "a channel too few": lambda v: v[..., :-1],
    "a channel too many": lambda v: torch.cat([v, v[..., :1]], dim=2),
    "one channel for all": lambda v: v[..., :1],
    "a row too few": lambda v: v[:-1],
    "a row too many": lambda v: torch.cat([v, v[:1]]),
    "one row for all": lambda v: v[:1],
    "no rows": lambda v: v[:0],
    "without rows": lambda v: v[0],
    "an axis too many": lambda v: v[None],
    "an axis at the end": lambda v: v[..., None],
    "one number": lambda v: v.mean(),
    "transposed": lambda v: v.transpose(1, 2),
}


class Misshapen(EagerExecutor):
    """Returns velocities of another shape at one of its runs."""

    def __init__(self, change: Callable[[Tensor], Any], run: int) -> None:
        super().__init__(AffineDecoder())
        self.change, self.left = change, run

    def run(self, batch: Batch) -> Tensor:
        self.left -= 1
        velocity = super().run(batch)
        return velocity if self.left else self.change(velocity)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("run", [1, 3])
def test_a_velocity_of_another_shape_is_refused_and_leaves_everything_as_it_was(name: str, run: int) -> None:
    """Also one that would broadcast: a frame, channel or row for all."""
    laws.drew(__file__)
    # Without the cache, which a failed tick fills too.
    rebuilt = Switches(cached_conditioning=False)
    p, twin = pipeline(executor=Misshapen(SHAPES[name], run), switches=rebuilt), pipeline(switches=rebuilt)
    for each in (p, twin):
        each.submit(request(1))
        each.submit(request(2))
        for _ in range(run - 1):
            each.tick()
    before = seen(p)
    with pytest.raises(ExecutorError, match=r"returned .* for rows of \[2, 6, 4\]"):
        p.tick()
    p.executor.left += 1  # type: ignore[attr-defined]
    assert_identical(seen(p), before)
    p.executor.left = 0  # type: ignore[attr-defined]
    same_rest(p, twin)


# Streams and sessions.

NULL = torch.linspace(-1.0, 1.0, E).reshape(1, 1, E)
STREAM: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "seed": [("seed", {"seed": value}) for value in (-1, 2**64, 1.0, True, "1")],
    "denoise": [("denoise", {"denoise": value}) for value in (-0.1, math.nan, 10**400, True, "1", None, 0.5)],
    "negative": [
        ("negative", {"negative": condition(9)}),
        ("negative", {"negative": condition(9), "guidance": guided(condition(8))}),
        ("guidance.negatives", {"negative": condition(9, 65), "guidance": 2.0}),
        ("guidance.negatives", {"negative": Condition(torch.ones(1, 3, E + 1)), "guidance": 2.0}),
        ("guidance.negatives", {"negative": Condition(torch.ones(1, 3, E).half()), "guidance": 2.0}),
        ("guidance.negatives", {"negative": "none", "guidance": 2.0}),
    ],
    "guidance": [
        *(("guidance.scale", {"guidance": value}) for value in (math.nan, True, 1e39, "2", torch.ones(T + 1), 50.001)),
        ("guidance.negatives", {"guidance": guided(condition(9, 65))}),
        ("guidance.negatives", {"guidance": guided(Condition(torch.ones(1, 3, E + 1)))}),
    ],
}


def stream() -> Stream:
    made = Session(AffineDecoder(E), null_embedding=NULL)
    config = PipelineConfig(depth=2, steps=3, encoder_length=64)
    return made.stream([condition()], fixed(7, T, 2 * D), config=config)


def test_every_argument_of_a_streams_tick_has_values_that_are_refused() -> None:
    assert set(STREAM) == set(inspect.signature(Stream.tick).parameters) - {"self"}


@pytest.mark.parametrize("ticks", [0, 1, 2, 5])
@pytest.mark.parametrize("name", STREAM)
def test_a_stream_that_refuses_leaves_everything_as_it_was(name: str, ticks: int) -> None:
    """Its session, its last submission and its pipeline."""
    streams = stream(), stream()
    for each in streams:
        for seed in range(ticks):
            each.tick(seed=seed, guidance=2.0 if seed == 1 else None)
        each.pipeline.set_dcw(DCW("low"))
    for field, arguments in STREAM[name]:
        laws.drew(__file__)
        before = seen(streams[0])
        with pytest.raises(InvalidInput) as error:
            streams[0].tick(**{"seed": 7, **arguments})
        assert field in error.value.field
        assert_identical(seen(streams[0]), before, f"the stream after {arguments}")
    ended = [[*each.tick(seed=8, guidance=1.5), *each.drain()] for each in streams]
    assert [f.id for f in ended[0]] == [f.id for f in ended[1]]
    assert_identical([f.latent for f in ended[0]], [f.latent for f in ended[1]])
    same_rest(streams[0].pipeline, streams[1].pipeline)


def test_a_stream_without_a_null_condition_leaves_everything_as_it_was() -> None:
    made = Session(AffineDecoder()).stream([condition()], fixed(7, T, 2 * D))
    made.tick(seed=1)
    before = seen(made)
    with pytest.raises(InvalidInput, match="null_embedding"):
        made.tick(seed=2, guidance=2.0)
    assert_identical(seen(made), before)


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("conditions", {"conditions": []}),
        ("conditions", {"conditions": [None]}),
        ("context_latents", {"context_latents": torch.ones(1, T, 5)}),
        ("source", {"source": fixed(3, T + 1)}),
        ("config.depth", {"config": PipelineConfig(depth=9)}),
    ],
)
def test_a_session_that_refuses_a_stream_is_as_it_was(field: str, arguments: dict[str, Any]) -> None:
    made = Session(AffineDecoder(E))
    made.stream([condition()], fixed(7, T, 2 * D)).tick(seed=1, guidance=2.0)
    before = seen(made)
    with pytest.raises(InvalidInput) as error:
        made.stream(**{"conditions": [condition(2, 4)], "context_latents": fixed(7, T, 2 * D), **arguments})
    assert field in error.value.field
    assert_identical(seen(made), before)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_closed_pipeline_refuses_and_stays_as_it_is(situation: str) -> None:
    p = pipeline()
    SITUATIONS[situation](p)
    p.close()
    before = seen(p)
    for call in (p.tick, p.drain, submits(), sets("depth", 1), sets("dcw", None), sets("channel_gain", None)):
        laws.drew(__file__)
        with pytest.raises(PipelineClosed):
            call() if call in (p.tick, p.drain) else call(p)  # type: ignore[call-arg]
        assert_identical(seen(p), before)


# Names.


def test_an_automatic_name_is_never_one_that_a_caller_used_or_an_earlier_automatic_one() -> None:
    p = pipeline(depth=8)
    given_names = ["request-1", None, "request-4", None, None, "request-2", None, "request-0", None, None]
    names: list[Any] = []
    for number, name in enumerate(given_names):
        names.append(p.submit(request(number, id=name)).id)
        if number % 3 == 2:
            p.drain()
    for number, name in enumerate(given_names):
        assert names[number] not in names[:number] if name is None else names[number] == name


@settings(max_examples=60)
@given(
    names=st.lists(st.one_of(st.none(), st.integers(0, 12).map("request-{}".format)), min_size=2, max_size=10),
    ticks=st.integers(0, 3),
)
def test_no_two_requests_of_a_pipeline_have_one_name_where_one_is_automatic(
    names: list[str | None], ticks: int
) -> None:
    laws.drew(__file__)
    p = pipeline(depth=3)
    seen_names: dict[str | int, bool] = {}
    for number, name in enumerate(names):
        try:
            made = p.submit(request(number, id=name)).id
        except InvalidInput as error:
            assert error.field == "id"
            assert seen_names[str(name)]
            continue
        if name is None:
            assert made not in seen_names
        else:
            held = [slot.id for slot in p.slots if slot is not None] + [queued.id for queued in p._state.queue]
            assert made == name
            assert held.count(name) == 1 or not seen_names[name]
        seen_names[made] = seen_names.get(made, False) or name is None
        for _ in range(ticks):
            p.tick()


@pytest.mark.parametrize("ticks", [0, 1])
def test_a_callers_name_that_an_automatic_one_in_the_pipeline_has_is_refused(ticks: int) -> None:
    p, twin = pipeline(), pipeline()
    for each in (p, twin):
        assert each.submit(request(1, id=None)).id == "request-0"
        for _ in range(ticks):
            each.tick()
    refused(p, Refusal("a taken name", "id", submits(id="request-0")))
    same_rest(p, twin)
    assert p.submit(request(2, id="request-0")).id == "request-0"


@pytest.mark.parametrize("name", [0, "", -1, 2**70, "request-0", "request-00", "request-1x"])
def test_a_name_is_handed_out_as_it_was_given(name: Any) -> None:
    p = pipeline(depth=1)
    assert p.submit(request(1, id=name)).id == name
    assert [dropped.id for dropped in p.submit(request(2, id=name)).dropped] == [name]
    p.tick()
    assert [slot.id for slot in p.slots if slot is not None] == [name]
    (finished,) = p.drain()
    assert finished.id == name
    assert type(finished.id) is type(name)


def test_automatic_names_go_on_behind_the_largest_number_that_a_caller_may_use() -> None:
    p, twin = pipeline(depth=8), pipeline(depth=8)
    for each in (p, twin):
        each.submit(request(1, id="request-" + 18 * "9"))
    assert [p.submit(request(n, id=None)).id for n in (2, 3)] == [f"request-{10**18}", f"request-{10**18 + 1}"]
    assert [twin.submit(request(n, id=None)).id for n in (2, 3)] == [f"request-{10**18}", f"request-{10**18 + 1}"]
    for digits in (19, 5000):
        refused(p, Refusal("a name beyond reach", "id", submits(id="request-" + digits * "9")))
    same_rest(p, twin)
