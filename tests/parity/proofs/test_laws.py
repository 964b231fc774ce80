"""What a request's bits may not depend on, and what may not change a bit, each law over random requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness import registry
from harness.engine import PLAIN_PATH, StreamPipeline, Switches
from harness.engine.decoders import AffineDecoder
from harness.parity.battery.props import Props
from harness.parity.battery.scripts import (
    Control,
    Correct,
    Drain,
    Event,
    Gain,
    Guided,
    Level,
    Masked,
    Script,
    Submit,
    Text,
    Tick,
    Toward,
    Wavelets,
)
from harness.parity.compare import assert_identical, difference
from harness.registry import COMPARED
from tests.parity.strategies import CONTROLS, LEVELS, SETTINGS, WAVELETS, submissions

# Traced, these take twice as long; what they run is run by others too.
pytestmark = pytest.mark.no_cover

LONGEST = 48
REQUESTS = submissions(LONGEST)
SCRIPTS = st.builds(
    Script,
    depth=st.integers(1, 8),
    steps=st.integers(1, 8),
    solver=st.sampled_from(["ode", "sde"]),
    encoder_length=st.just(LONGEST),
    dcw=st.none() | WAVELETS,
    frames=st.integers(1, 15),
)
KINDS = st.sampled_from(list(map(str, COMPARED)))
# Of the profile in force: these laws are asked of many values each.
FEWER = settings(max_examples=max(1, settings().max_examples * 3 // 10))


def pipeline(script: Script, kind: str, switches: Switches | None = None) -> StreamPipeline:
    return StreamPipeline(registry.executor(kind, AffineDecoder()), script.config(switches))


def latents(script: Script, kind: str, *events: Event, switches: Switches | None = None) -> dict[str | int, Tensor]:
    """What finished, by the request's name: `request-0` is the first that was submitted."""
    with pipeline(script, kind, switches) as running:
        return {f.id: f.latent for f in replace(script, events=(*events, Drain())).play(running)}


def alone(script: Script, kind: str, submit: Submit) -> Tensor:
    return latents(script, kind, submit)["request-0"]


@given(script=SCRIPTS, kind=KINDS, first=REQUESTS, others=st.lists(REQUESTS, min_size=1, max_size=6))
def test_neighbours_change_no_bit_of_a_request(script: Script, kind: str, first: Submit, others: list[Submit]) -> None:
    longest = Submit(seed=99, texts=(Text(98, LONGEST),) * 3)
    script = replace(script, depth=max(2, script.depth))
    together = latents(script, kind, longest, first, Tick(), *others)
    assert_identical(together["request-1"], alone(script, kind, first))


@given(
    script=SCRIPTS, kind=KINDS, requests=st.lists(REQUESTS, min_size=1, max_size=4), depths=st.permutations(range(1, 9))
)
def test_the_depth_changes_no_bit(script: Script, kind: str, requests: list[Submit], depths: Sequence[int]) -> None:
    made = []
    for depth in depths[:2]:
        events = [event for submit in requests for event in (submit, Tick(script.steps))]
        made.append(latents(replace(script, depth=depth), kind, *events))
    assert_identical(made[0], made[1], "latents")
    assert len(made[0]) == len(requests)


@given(data=st.data(), script=SCRIPTS, kind=KINDS, requests=st.lists(REQUESTS, min_size=2, max_size=5))
def test_the_order_of_arrival_changes_no_bit(
    data: st.DataObject, script: Script, kind: str, requests: list[Submit]
) -> None:
    script = replace(script, depth=8)
    order = data.draw(st.permutations(range(len(requests))))
    made = latents(script, kind, *requests)
    reordered = latents(script, kind, *[event for i in order for event in (requests[i], Tick())])
    for place, i in enumerate(order):
        assert_identical(reordered[f"request-{place}"], made[f"request-{i}"])


@given(script=SCRIPTS, kind=KINDS, requests=st.lists(REQUESTS, min_size=1, max_size=4), one=SETTINGS, other=SETTINGS)
def test_no_combination_of_switches_changes_a_bit(
    script: Script, kind: str, requests: list[Submit], one: Switches, other: Switches
) -> None:
    events = [event for submit in requests for event in (submit, Tick())]
    made = [latents(script, kind, *events, switches=switches) for switches in (one, other)]
    assert_identical(made[0], made[1], "latents")


@given(script=SCRIPTS, kind=KINDS, submit=REQUESTS, between=st.integers(0, 3), other=REQUESTS)
def test_duplicate_requests_give_equal_bytes(
    script: Script, kind: str, submit: Submit, between: int, other: Submit
) -> None:
    made = latents(replace(script, depth=8), kind, submit, Tick(between), other, submit)
    assert_identical(made["request-2"], made["request-0"])


# Neutral values: a request without the feature, and the same one with the feature set to what changes nothing.

BARE = REQUESTS.map(
    lambda s: replace(
        s, texts=s.texts[:1], source=5, velocity_scale=None, noise_injection=None, toward=None, masked=None
    )
)
NEUTRAL: dict[str, Callable[[Submit], Submit]] = {
    "velocity scale": lambda s: replace(s, velocity_scale=1.0),
    "velocity scale, a curve": lambda s: replace(s, velocity_scale=(1.0, 1.0)),
    "noise injection": lambda s: replace(s, noise_injection=0.0),
    "noise injection, a curve": lambda s: replace(s, noise_injection=(0.0, 0.0)),
    "x0 strength": lambda s: replace(s, toward=Toward(7, strength=0.0)),
    "latent mask": lambda s: replace(s, masked=Masked(7, level=1.0)),
    "latent mask, a curve": lambda s: replace(s, masked=Masked(7, level=(1.0, 1.0))),
    "weight of an only condition": lambda s: replace(s, texts=(replace(s.texts[0], weight=0.25),)),
    "rescale": lambda s: replace(s, guided=replace(s.guided or Guided(), rescale=0.0)),
}


@pytest.mark.parametrize("name", NEUTRAL)
@given(script=SCRIPTS, kind=KINDS, submit=BARE, switches=SETTINGS)
@FEWER
def test_a_neutral_value_of_a_request_changes_no_bit(
    name: str, script: Script, kind: str, submit: Submit, switches: Switches
) -> None:
    if name == "rescale":
        submit = replace(submit, guided=replace(submit.guided or Guided(), rescale=None))
    if name == "weight of an only condition":
        submit = replace(submit, texts=(replace(submit.texts[0], weight=None),))
    made = [latents(script, kind, each, switches=switches) for each in (submit, NEUTRAL[name](submit))]
    assert_identical(made[1], made[0], "latents")


NEUTRAL_EVENTS: list[Event] = [
    Gain(1.0),
    Control("velocity_scale", 1.0),
    Control("noise_injection", (0.0, 0.0)),
    Control("rescale", 0.0),
    Control("x0_strength", 0.0),
    Correct(Wavelets(a=0.0, b=0.0)),
    Correct(Wavelets("low", a=(0.0, 0.0), b=0.5)),
]


@pytest.mark.parametrize("event", NEUTRAL_EVENTS)
@given(script=SCRIPTS, kind=KINDS, submit=BARE, switches=SETTINGS)
@FEWER
def test_a_neutral_control_changes_no_bit(
    event: Event, script: Script, kind: str, submit: Submit, switches: Switches
) -> None:
    script = replace(script, dcw=None)
    submit = replace(submit, toward=Toward(7), guided=replace(submit.guided or Guided(), rescale=None))
    made = [latents(script, kind, *events, switches=switches) for events in ([submit], [event, submit])]
    assert_identical(made[1], made[0], "latents")


MEANS_SOMETHING: dict[str, tuple[Submit, Submit]] = {
    "guidance 1, which advances the average": (
        Submit(guided=Guided(3.0, momentum=0.0)),
        Submit(guided=Guided((1.0, 3.0), momentum=0.0)),
    ),
    "momentum 0": (Submit(guided=Guided()), Submit(guided=Guided(momentum=0.0))),
    "an sde curve of 0": (Submit(source=4), Submit(source=4, sde_curve=0.0)),
    "velocity scale 0": (Submit(), Submit(velocity_scale=0.0)),
    "a mask of 0": (Submit(source=4), Submit(source=4, masked=Masked(level=0.0))),
    "a mask of 1 that fades": (Submit(source=4), Submit(source=4, masked=Masked(fading=True))),
    "a gated curve of 0": (Submit(), Submit(toward=Toward(curve=0.0))),
    "an x0 strength": (Submit(), Submit(toward=Toward(strength=0.25))),
}


@pytest.mark.parametrize("name", MEANS_SOMETHING)
@pytest.mark.parametrize("switches", [Switches(), PLAIN_PATH], ids=["fast", "plain"])
def test_nothing_else_is_neutral(name: str, switches: Switches) -> None:
    without, with_it = (latents(Script(), "eager", s, switches=switches)["request-0"] for s in MEANS_SOMETHING[name])
    assert difference(with_it, without) is not None


@pytest.mark.parametrize("switches", [Switches(), PLAIN_PATH], ids=["fast", "plain"])
def test_guidance_1_runs_its_negative_rows_and_advances_the_average(switches: Switches) -> None:
    with pipeline(Script(), "eager", switches) as running:
        Submit(guided=Guided(1.0)).happen(running, Props(Script()))
        running.tick()
        slot = running.slots[0]
        assert slot is not None
        assert slot.average is not None
        assert slot.average.any()
        assert running.stats().decoder_rows == 2


# Shared controls: in force from the start, or the same value on every request that has what the control acts on.


def own(name: str, level: Level) -> Callable[[Submit], Submit]:
    """The request with the control's value as its own, where it has what the control acts on."""

    def given_it(s: Submit) -> Submit:
        if name in ("velocity_scale", "noise_injection"):
            return replace(s, **{name: level})
        if name == "sde_curve":
            return s if s.source is None and s.masked is None else replace(s, sde_curve=level)
        if name == "x0_strength":
            return s if s.toward is None or s.toward.curve is not None else replace(s, toward=toward(s.toward))
        field = {"guidance_scale": "scale"}.get(name, name)
        return s if s.guided is None else replace(s, guided=replace(s.guided, **{field: level}))

    def toward(target: Toward) -> Toward:
        return replace(target, strength=level)

    return given_it


@pytest.mark.parametrize("name", CONTROLS)
@given(script=SCRIPTS, kind=KINDS, requests=st.lists(REQUESTS, min_size=1, max_size=3), level=LEVELS)
@FEWER
def test_a_shared_control_equals_the_same_value_on_every_slot_that_has_the_feature(
    name: str, script: Script, kind: str, requests: list[Submit], level: Level
) -> None:
    script = replace(script, depth=max(3, script.depth))
    shared = latents(script, kind, Control(name, level), *requests)
    assert_identical(shared, latents(script, kind, *map(own(name, level), requests)), "latents")


@given(script=SCRIPTS, kind=KINDS, requests=st.lists(REQUESTS, min_size=2, max_size=6), count=st.integers(1, 3))
def test_a_latent_handed_out_never_changes(script: Script, kind: str, requests: list[Submit], count: int) -> None:
    handed_out: list[tuple[Tensor, Tensor]] = []
    with pipeline(script, kind) as running:
        props = Props(script)
        for event in [event for submit in requests for event in (submit, Tick(count))] + [Drain()]:
            handed_out += [(f.latent, f.latent.clone()) for f in event.happen(running, props)]
            for latent, copy in handed_out:
                assert_identical(latent, copy)
    assert handed_out
