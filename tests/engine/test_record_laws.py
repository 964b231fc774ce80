"""Laws that every field of every record, and every live control, keeps: dtypes, layouts, copies, ranges."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.engine import DCW, Condition, Finished, InvalidInput, LatentMask, X0Target
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import EagerExecutor
from harness.engine.schedule import timesteps
from harness.parity.baselines.platform import ROOT
from harness.parity.compare import assert_identical, difference
from tests import laws
from tests.engine import scenes
from tests.engine.builders import D, E, T, condition, fixed, pipeline, request
from tests.engine.scenes import CURVES, GAINS, INTEGERS, MASKS, NUMBERS, PLACES, TENSORS, Scene

few = settings(max_examples=12)
TABLES = (TENSORS, MASKS, CURVES, GAINS, NUMBERS, INTEGERS, scenes.CHOICES, scenes.COMPOSED)
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
SEEDS = st.integers(0, 2**32 - 1)


def transposed(value: Tensor) -> Tensor:
    """The last two axes in the other order in memory."""
    return value.transpose(-1, -2).contiguous().transpose(-1, -2) if value.ndim > 1 else strided(value)


def strided(value: Tensor) -> Tensor:
    return torch.stack([value, value + 1], dim=-1)[..., 0]


def expanded(value: Tensor) -> Tensor:
    """One value for the whole last axis that has several, with a stride of 0."""
    axis = next((axis for axis in reversed(range(value.ndim)) if value.shape[axis] > 1), None)
    return value if axis is None else value.narrow(axis, 0, 1).expand(value.shape)


def offset(value: Tensor) -> Tensor:
    return torch.cat([value.flatten()[:1], value.flatten()])[1:].view(value.shape)


LAYOUTS = {each.__name__: each for each in (torch.clone, transposed, strided, expanded, offset)}
DTYPES, SHAPES = st.sampled_from(FLOATS), st.sampled_from(list(LAYOUTS))


def written(value: Tensor, dtype: torch.dtype, layout: str, graph: bool) -> Tensor:
    """The values in a dtype and a layout; with `graph`, torch follows what is computed from them."""
    made = LAYOUTS[layout](value.to(dtype))
    return made.requires_grad_() if graph and made.is_floating_point() else made


def plain(value: Tensor) -> Tensor:
    """The same values as contiguous float32."""
    return value.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)


def drawn(shape: tuple[int, ...], seed: int, high: float = 1.0) -> Tensor:
    """Values in [0, high), or -high to high for latents."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * high


def same(got: list[Finished], wanted: list[Finished]) -> None:
    laws.drew(__file__)
    assert len(got) == len(wanted) == 1
    assert_identical(got[0].latent, wanted[0].latent)
    for each in got:
        assert each.latent.is_contiguous()
        assert not each.latent.requires_grad


def test_every_field_of_every_record_and_every_live_control_has_its_laws() -> None:
    """A field that is new is in none of the tables."""
    assert Counter(key for table in TABLES for key in table) == Counter(scenes.KEYS)
    assert set(PLACES) == set(scenes.KEYS)


# Dtypes and layouts.


@pytest.mark.parametrize("key", TENSORS)
@few
@given(seed=SEEDS, dtype=DTYPES, layout=SHAPES, graph=st.booleans())
@example(seed=0, dtype=torch.bfloat16, layout="transposed", graph=True)
@example(seed=0, dtype=torch.float64, layout="clone", graph=False)
def test_a_latent_or_state_gives_the_bits_of_its_plain_float32_twin(
    key: str, seed: int, dtype: torch.dtype, layout: str, graph: bool
) -> None:
    value = written(drawn(TENSORS[key], seed) - 0.5, dtype, layout, graph)
    same(PLACES[key](value).run(), PLACES[key](plain(value)).run())


FORMS = st.sampled_from([(), (1,), (T,), (1, T), (1, T, 1)])


@pytest.mark.parametrize("key", [*CURVES, *GAINS])
@few
@given(seed=SEEDS, dtype=DTYPES, layout=SHAPES, graph=st.booleans(), form=FORMS, whole=st.booleans())
@example(seed=0, dtype=torch.float64, layout="clone", graph=False, form=(T,), whole=False)
def test_a_curve_gives_the_bits_of_its_plain_float32_twin(
    key: str, seed: int, dtype: torch.dtype, layout: str, graph: bool, form: tuple[int, ...], whole: bool
) -> None:
    shape = (1, T if whole else 1, D) if key in GAINS else form
    value = written(drawn(shape, seed), dtype, layout, graph)
    same(PLACES[key](value).run(), PLACES[key](plain(value)).run())


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.int64, *FLOATS], ids=str)
@few
@given(seed=SEEDS, layout=st.sampled_from(["clone", "offset", "expanded"]))
def test_a_mask_gives_the_bits_of_its_bool_twin(dtype: torch.dtype, seed: int, layout: str) -> None:
    attended = LAYOUTS[layout](((drawn((1, 3), seed) > 0.5) | torch.tensor([[True, False, False]])).to(dtype))
    place = PLACES["Condition.encoder_mask"]
    same(place(attended).run(), place(attended.bool().contiguous()).run())
    frames = (drawn((T,), seed) > 0.5).to(dtype)
    same(PLACES["LatentMask.mask"](frames).run(), PLACES["LatentMask.mask"](plain(frames)).run())


# Copies.

COPIED = [*MASKS, *CURVES, *GAINS]
MOMENTS: dict[str, int] = {"before it is submitted": 0, "while it is queued": 1, "while it is in flight": 2}


def overwritten(key: str, value: Tensor, moment: int, write: bool) -> list[Finished]:
    """Run a request whose caller writes into `value` at a moment."""

    def at(now: int) -> None:
        if write and moment == now:
            with torch.no_grad():
                value.fill_(7)

    scene = PLACES[key](value)
    p, made = scene.pipeline(), scene.made()
    if not key.startswith("live."):
        at(0)
    p.submit(made)
    scene.change(p)
    at(0)
    at(1)
    p.tick()
    at(2)
    return p.drain()


@pytest.mark.parametrize("key", COPIED)
@few
@given(
    seed=SEEDS,
    dtype=DTYPES,
    layout=st.sampled_from(["clone", "transposed", "strided", "offset"]),
    moment=st.sampled_from(list(MOMENTS)),
    whole=st.booleans(),
)
@example(seed=0, dtype=torch.float32, layout="clone", moment="before it is submitted", whole=True)
@example(seed=0, dtype=torch.float32, layout="strided", moment="before it is submitted", whole=True)
@example(seed=0, dtype=torch.float32, layout="transposed", moment="while it is queued", whole=True)
@example(seed=0, dtype=torch.float32, layout="clone", moment="while it is in flight", whole=False)
def test_a_caller_may_write_into_what_was_copied(
    key: str, seed: int, dtype: torch.dtype, layout: str, moment: str, whole: bool
) -> None:
    if key in MASKS:
        value = torch.tensor([[1, 0, 1]]).to(torch.bool if whole else dtype)
    else:
        value = drawn((1, T, D) if key in GAINS else (1, T, 1) if whole else (), seed).to(dtype)
    runs = [overwritten(key, LAYOUTS[layout](value.clone()), MOMENTS[moment], write) for write in (True, False)]
    same(*runs)


# Ranges.


def beyond(value: float, toward: float, *, in_float32: bool) -> float:
    """The neighbour of a number, which is a curve's value in float32."""
    if not in_float32:
        return math.nextafter(value, toward)
    return float(torch.nextafter(torch.tensor(value), torch.tensor(toward)))


def at_bounds(low: float, high: float, *, in_float32: bool) -> list[float]:
    """Both bounds and their neighbours inside."""
    if high == math.inf:
        high = math.nextafter(math.inf, 0.0)
    inside = [beyond(low, high, in_float32=in_float32), beyond(high, low, in_float32=in_float32)]
    return [low, *inside, high]


def level(key: str, value: float) -> Any:
    return torch.full((1, 1, D), value, dtype=torch.float64) if key in GAINS else value


RANGES: dict[str, tuple[float, float]] = CURVES | GAINS | NUMBERS
BOUNDS = [(key, n) for key in RANGES for n in range(4)]


def runs_finite(scene: Scene, steps: int) -> None:
    laws.drew(__file__)
    p = scene.pipeline(**({} if "steps" in scene.config else {"steps": steps}))
    scene.submit(p)
    assert all(math.isfinite(t) for queued in p._state.queue for t in queued.times)
    (finished,) = p.drain()
    assert scenes.finite(finished.latent)


@pytest.mark.parametrize("steps", [1, 8, 32])
@pytest.mark.parametrize("key", RANGES)
def test_a_request_with_a_value_at_a_bound_ends_with_a_finite_latent(key: str, steps: int) -> None:
    for value in at_bounds(*RANGES[key], in_float32=key not in NUMBERS):
        runs_finite(PLACES[key](level(key, value)), steps)


@pytest.mark.parametrize("key", RANGES)
@few
@given(share=st.floats(0.0, 1.0), steps=st.integers(1, 12))
@example(share=0.5, steps=8)
def test_a_request_with_a_value_in_range_ends_with_a_finite_latent(key: str, share: float, steps: int) -> None:
    low, high = RANGES[key]
    high = 1e300 if high == math.inf else high
    value = low + share * (high - low)
    runs_finite(PLACES[key](level(key, min(max(value, low), high))), steps)


@pytest.mark.parametrize("key", RANGES)
def test_the_neighbour_beyond_a_bound_is_refused_by_name(key: str) -> None:
    low, high = RANGES[key]
    for bound, toward in ((low, -math.inf), (high, math.inf)):
        laws.drew(__file__)
        value = beyond(bound, toward, in_float32=key not in NUMBERS)
        with pytest.raises(InvalidInput) as refused:
            PLACES[key](level(key, value)).run()
        assert key.split(".")[1] in refused.value.field


WILD = [1e39, -1e39, 1e300, -1e300, math.inf, -math.inf, math.nan, 10**400]


@pytest.mark.parametrize("key", RANGES)
def test_a_number_that_float32_cannot_hold_is_refused_or_runs_finite(key: str) -> None:
    for value in [*WILD, 1e-39, 1e-50, 5e-324, -5e-324]:
        if isinstance(value, int) and key in GAINS:
            continue
        try:
            runs_finite(PLACES[key](level(key, value)), 3)
        except InvalidInput as refused:
            assert key.split(".")[1] in refused.field
        else:
            assert value not in WILD or key == "Request.denoise"


@pytest.mark.parametrize("key", CURVES)
def test_one_frame_beyond_a_bound_is_enough_to_refuse_a_curve(key: str) -> None:
    low, high = CURVES[key]
    for bound, toward in ((low, -math.inf), (high, math.inf)):
        for place in range(T):
            laws.drew(__file__)
            values = torch.full((T,), min(max(0.5, low), high))
            values[place] = beyond(bound, toward, in_float32=True)
            with pytest.raises(InvalidInput, match=f"expected values [<>]= {bound}$"):
                PLACES[key](values).run()


@pytest.mark.parametrize("key", INTEGERS)
def test_whole_numbers_run_from_bound_to_bound_and_no_further(key: str) -> None:
    low, high = INTEGERS[key]
    for value in {low, min(low + 1, high), max(high - 1, low), high}:
        runs_finite(PLACES[key](value), 3)
    wrong: list[Any] = [low - 1, high + 1, 2**64, 10**30, True, float(low)]
    for value in wrong:
        laws.drew(__file__)
        with pytest.raises(InvalidInput) as refused:
            PLACES[key](value).run()
        assert key.split(".")[1] in refused.value.field


@pytest.mark.parametrize(("key", "n"), [(key, n) for key, values in scenes.CHOICES.items() for n in range(len(values))])
def test_every_choice_runs_finite(key: str, n: int) -> None:
    runs_finite(PLACES[key](scenes.CHOICES[key][n]), 3)


@pytest.mark.parametrize(
    ("key", "n"), [(key, n) for key, values in scenes.COMPOSED.items() for n in range(len(values))]
)
def test_every_record_and_function_that_a_field_takes_runs_finite(key: str, n: int) -> None:
    runs_finite(PLACES[key](scenes.COMPOSED[key][n]()), 3)


@pytest.mark.parametrize("key", TENSORS)
@pytest.mark.parametrize("value", [3.5e38, -1e39, 1e300, math.inf, math.nan])
def test_a_float64_tensor_that_float32_cannot_hold_is_refused_by_name(key: str, value: float) -> None:
    given = torch.ones(TENSORS[key], dtype=torch.float64)
    given[0, 1, 2] = value
    laws.drew(__file__)
    with pytest.raises(
        InvalidInput, match=r"at \(0, 1, 2\), 1 such values, expected values that are finite"
    ) as refused:
        PLACES[key](given)
        PLACES[key](given).run()
    assert key.split(".")[1] in refused.value.field


@settings(max_examples=200)
@given(steps=st.integers(1, 1000), denoise=st.floats(0.0, 2.0), shift=st.floats(1e-3, 1e3))
@example(steps=1000, denoise=1.0, shift=1e3)
@example(steps=1000, denoise=1.0, shift=1e-3)
@example(steps=1000, denoise=math.nextafter(1e-6, 1.0), shift=1e3)
@example(steps=1000, denoise=math.nextafter(1e-6, 1.0), shift=1e-3)
@example(steps=1000, denoise=math.nextafter(1.0, 0.0), shift=1e3)
@example(steps=1, denoise=0.9, shift=math.nextafter(1e-3, 1.0))
def test_times_fall_strictly_from_at_most_1_to_0(steps: int, denoise: float, shift: float) -> None:
    laws.drew(__file__)
    times = timesteps(steps, denoise, shift)
    if denoise <= 1e-6:
        assert times == (0.0, 0.0)
        return
    assert len(times) == steps + 1
    assert 1.0 >= times[0] > times[-1] == 0.0
    assert all(t > s for t, s in pairwise(times))


# Single claims.


@pytest.mark.parametrize("total", [1, 2, 3, 5, 7, 9, 11, 13, 49, 99])
def test_a_step_range_begins_and_ends_at_exact_fractions_of_the_steps(total: int) -> None:
    """By division: the product of a third and 3 need not be 1."""
    for start in range(total):
        for end in range(start + 1, total + 1):
            laws.drew(__file__)
            ranged = condition(step_range=(start / total, end / total))
            assert [s for s in range(total) if ranged.is_active(s, total)] == list(range(start, end))
            after = math.nextafter(start / total, 1.0)
            if after < end / total:
                later = condition(step_range=(after, math.nextafter(end / total, 2.0) if end < total else 1.0))
                assert [s for s in range(total) if later.is_active(s, total)] == [
                    *range(start + 1, end),
                    *([end] if end < total else []),
                ]


@pytest.mark.parametrize("which", ["source", "x0_target", "latent_mask", "conditions", "context_latents"])
def test_no_latent_of_a_ring_carries_a_graph(which: str) -> None:
    """Neither do states in flight, also if the caller's tensors are followed by torch."""
    leaf = fixed(3).requires_grad_()
    prompt = Condition(fixed(1, 5, E).requires_grad_())
    given: dict[str, Any] = {
        "source": {"source": leaf, "denoise": 0.7, "sde_curve": 0.5},
        "x0_target": {"x0_target": X0Target(leaf, strength=torch.ones(T, requires_grad=True))},
        "latent_mask": {"latent_mask": LatentMask(0.5, leaf)},
        "conditions": {"conditions": [prompt], "guidance": scenes.guided(negatives=[prompt], mode="initialize")},
        "context_latents": {"context_latents": fixed(7, T, 2 * D).requires_grad_()},
    }
    p = pipeline(executor=Following(), dcw=DCW())
    p.submit(request(**given[which]))
    with torch.enable_grad():
        while p.stats().in_flight or p.stats().queued:
            finished = p.tick()
            states = [each for slot in p.slots if slot is not None for each in slot.state().values()]
            assert not any(each.requires_grad for each in states)
    assert not finished[0].latent.requires_grad
    assert torch.is_grad_enabled()


class Following(EagerExecutor):
    """Returns velocities of which torch follows the weights, where the caller's mode lets it."""

    def __init__(self) -> None:
        super().__init__(AffineDecoder())
        self.weight = torch.ones(1, requires_grad=True)

    def run(self, batch: Any) -> Tensor:
        return super().run(batch) * self.weight


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("key", ["source", "original", "latent"])
def test_a_slot_reads_a_latent_of_another_dtype_as_float32(key: str, dtype: torch.dtype) -> None:
    """Rounded once, when it is given: arithmetic in a narrower or a wider dtype has other bits."""
    value = fixed(3).to(dtype)
    uses: list[Callable[[Tensor], dict[str, Any]]] = {
        "source": [
            lambda v: {"source": v, "denoise": 0.7},
            lambda v: {"source": v, "initial_noise": 0.3},
            lambda v: {"source": v, "sde_curve": 0.3},
        ],
        "original": [
            lambda v: {"latent_mask": LatentMask(scenes.MASK, v)},
            lambda v: {"latent_mask": LatentMask(0.3, v), "denoise": 0.7, "sde_curve": 0.3},
        ],
        "latent": [lambda v: {"x0_target": X0Target(v, strength=0.3)}],
    }[key]
    for use in uses:
        ended = []
        for taken in (value, value.float()):
            p = pipeline()
            p.submit(request(**use(taken)))
            ended.append(p.drain())
        assert ended[0][0].latent.dtype == torch.float32
        same(*ended)


def test_a_field_that_is_drawn_here_changes_the_latent() -> None:
    """The scenes read what is put into them: two values of a field end with different bits."""
    for key in [*TENSORS, *MASKS, *CURVES, *GAINS]:
        shape = {**TENSORS, **MASKS}.get(key, (1, T, D) if key in GAINS else (T,))
        one, other = (drawn(shape, seed) for seed in (1, 2))
        if key in MASKS:
            one, other = torch.tensor([[1, 1, 1]]), torch.tensor([[1, 0, 1]])
        ended = [PLACES[key](value).run()[0].latent for value in (one, other)]
        assert difference(*ended) is not None, key


def test_the_documented_ranges_are_those_of_the_fields() -> None:
    rows = re.findall(r"^\| (`[A-Z].*?) \| (\S+) \| (\S+) \| ", (ROOT / "docs/requests.md").read_text(), re.MULTILINE)
    told = {name: (low, high) for names, low, high in rows for name in re.findall(r"`(\w+\.\w+)`", names)}
    held = {key: bounds for key, bounds in {**CURVES, **NUMBERS, **INTEGERS}.items() if not key.startswith("live.")}
    assert told.keys() == held.keys() - {"Request.seed", "PipelineConfig.depth"}
    words: dict[str, float] = {"none": math.inf, "`2**-126`": 2.0**-126, "3.4028235e38": scenes.LARGEST}
    for key, (low, high) in told.items():
        assert (words.get(low) or float(low), words.get(high) or float(high)) == held[key]
