"""What a watched pipeline notes of each slot in each tick, whole: every feature that is in force and no other."""

from __future__ import annotations

from typing import Any

import pytest

from harness.engine import PLAIN_PATH, PipelineConfig, StreamPipeline, Switches
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import EagerExecutor
from harness.engine.executors.base import Batch
from harness.parity.battery.features import FEATURES, UNGUIDED, Watched, _Idle, pairs, watch
from harness.parity.battery.props import Props
from harness.parity.battery.scripts import (
    Control,
    Correct,
    Depth,
    Drain,
    Gain,
    Guided,
    Masked,
    Rewrite,
    Script,
    Submit,
    Text,
    Tick,
    Toward,
    Wavelets,
)

Moments = set[frozenset[str]]
ON = frozenset(f"{name}: on" for name in vars(Switches()))
BASE = ON | {"executor: eager", "rows: free", "solver: ode", "depth: several", "runs: 1", "steps: even"}
ALONE = BASE | {"conditions: 1", UNGUIDED}
"""Of a plain request alone in a ring."""


def watched(*events: Any, switches: Switches | None = None, max_rows: int = 8, **fields: Any) -> Moments:
    script = Script((*events, Drain()), **{"encoder_length": 16, "steps": 2, **fields})
    return watch(script, switches, max_rows=max_rows)


def more(moments: Moments, than: frozenset[str] = ALONE) -> list[list[str]]:
    """What each moment has beyond a plain request's, and with a minus what it lacks of it; in order."""
    return sorted([*sorted(moment - than), *(f"-{name}" for name in sorted(than - moment))] for moment in moments)


def test_a_plain_request_alone_has_the_features_of_its_ring() -> None:
    assert watched(Submit()) == {ALONE}


FULL = Submit(
    texts=(Text(1), Text(2, weight=0.5, span=(0.0, 0.9))),
    source=1,
    denoise=0.5,
    guided=Guided(negatives=(Text(3), Text(4)), eta=0.5, threshold=None, rescale=0.5),
    velocity_scale=(0.5, 1.5),
    toward=Toward(strength=0.5),
    masked=Masked(level=0.5, fading=True),
)


def test_a_request_with_everything_beside_a_plain_one_keeps_its_features_to_itself() -> None:
    moments = watched(FULL, Submit(seed=2), dcw=Wavelets("low", (0.0, 0.2)))
    both = BASE | {"beside another prompt", "wavelets by frame", "wavelets: low"}
    first = {
        "condition's weight: number", "conditions: several", "denoise: partial", "eta", "fading mask",
        "guidance: full", "guidance_scale: number", "latent mask: number", "momentum: number", "no threshold",
        "own source", "rescale: number", "several negatives", "step range", "velocity_scale: curve",
    }  # fmt: skip
    assert moments == {both | first, both | first | {"x0_strength: number"}, both | {"conditions: 1", UNGUIDED}}


ONE: dict[str, tuple[dict[str, Any], list[list[str]]]] = {
    "neutral values": (
        {"velocity_scale": 1.0, "noise_injection": 0.0, "toward": Toward(strength=0.0), "initial_noise": None},
        [[]],
    ),
    "noise": ({"noise_injection": 0.5}, [[], ["noise_injection: number"]]),
    "a source alone": ({"source": 3}, [["own source"]]),
    "a mixed start": (
        {"source": 3, "initial_noise": (0.0, 1.0), "denoise": 0.5},
        [["denoise: partial", "initial_noise: curve", "own source"]],
    ),
    "a denoise of 0": (
        {"source": 3, "denoise": 0.0, "noise_injection": 0.5, "toward": Toward(strength=0.5)},
        [["-steps: even", "denoise: 0", "own source", "steps: 1"]],
    ),
    "a curve of one value": ({"velocity_scale": (2.0, 2.0)}, [["velocity_scale: curve"]]),
    "a gate": ({"toward": Toward(curve=0.5, gate=0.0)}, [[], ["gated target: number"]]),
    "a gate by frame": ({"toward": Toward(curve=(0.25, 0.5), gate=0.0)}, [[], ["gated target: curve"]]),
    "a mask by frame": ({"masked": Masked(level=1.0, every=2)}, [["latent mask: curve"]]),
    "a neutral mask": ({"masked": Masked(level=1.0)}, [[]]),
    "one condition with a weight": ({"texts": (Text(1, weight=0.5),)}, [[]]),
    "a weight by frame": (
        {"texts": (Text(1, weight=(0.0, 1.0)), Text(2))},
        [["-conditions: 1", "condition's weight: curve", "conditions: several"]],
    ),
    "both kinds of weight": (
        {"texts": (Text(1, weight=(0.0, 1.0)), Text(2, weight=0.5))},
        [["-conditions: 1", "condition's weight: curve", "condition's weight: number", "conditions: several"]],
    ),
    "a caller's mask on one of two": (
        {"texts": (Text(1), Text(2, hidden=1))},
        [["-conditions: 1", "caller's mask", "conditions: several"]],
    ),
    "a range that ends": (
        {"texts": (Text(1), Text(2, span=(0.0, 0.5)))},
        [["-conditions: 1", "conditions: several", "step range"], ["step range"]],
    ),
    "guided by itself": (
        {"guided": Guided(mode="self", negatives=(Text(2), Text(3)), momentum=0.0)},
        [["-no guidance", "guidance: self", "guidance_scale: number", "momentum: number"]],
    ),
    "initialized": (
        {"guided": Guided(scale=(1.0, 2.0), mode="initialize", negatives=(Text(2), Text(3)), rescale=(0.0, 0.5))},
        [
            ["-no guidance", "guidance: initialize", "guidance_scale: curve", "momentum: number", "rescale: curve"],
            [
                "-no guidance", "guidance: initialize", "guidance_scale: curve", "momentum: number", "rescale: curve",
                "several negatives",
            ],
        ],
    ),
}  # fmt: skip


def told(moments: Moments) -> list[list[str]]:
    return sorted([sorted(line) for line in more(moments)])


@pytest.mark.parametrize(("fields", "found"), ONE.values(), ids=ONE)
def test_a_field_of_a_request_is_in_force_where_it_acts_and_only_there(
    fields: dict[str, Any], found: list[list[str]]
) -> None:
    assert told(watched(Submit(**fields))) == sorted(sorted(line) for line in found)


@pytest.mark.parametrize(("fields", "found"), [
    ({"solver": "sde"}, [["-solver: ode", "solver: sde"]]),
    ({"depth": 1}, [["-depth: several", "depth: 1"]]),
    ({"steps": 1}, [["-steps: even", "steps: 1"]]),
    ({"steps": 3}, [["-steps: even", "steps: odd"]]),
    ({"dcw": Wavelets("pix", 0.1, 0.0)}, [["wavelets: pix"]]),
    ({"dcw": Wavelets("low", 0.0, 0.1)}, [["wavelets: low"]]),
    ({"dcw": Wavelets("double", 0.0, 0.0)}, [[]]),
    ({"dcw": Wavelets("high", 0.1, (0.0, 0.1))}, [["wavelets by frame", "wavelets: high"]]),
    ({"switches": PLAIN_PATH}, [[
        *(f"-{name}" for name in sorted(ON)), *sorted(name.replace(": on", ": off") for name in ON)
    ]]),
    ({"switches": Switches(host_gates=False)}, [["-host_gates: on", "host_gates: off"]]),
])  # fmt: skip
def test_a_ring_s_own_features_are_those_of_its_configuration(fields: dict[str, Any], found: list[list[str]]) -> None:
    assert told(watched(Submit(), **fields)) == sorted(sorted(line) for line in found)


def test_a_correction_is_not_in_force_in_a_step_at_time_0() -> None:
    moments = watched(Submit(source=3, denoise=0.0), dcw=Wavelets("double", 0.1, (0.0, 0.1)))
    assert told(moments) == [["-steps: even", "denoise: 0", "own source", "steps: 1"]]


def test_what_is_watched_is_of_every_kind_of_executor_in_turn_and_of_pinned_or_free_rows() -> None:
    script = Script((Submit(), Drain()), steps=2)
    pinned = (ALONE - {"rows: free", "executor: eager"}) | {"rows: pinned"}
    assert watch(script) == {ALONE}
    assert watch(script, kinds=("static", "deferred"), pinned=True) == {
        pinned | {"executor: static"},
        pinned | {"executor: deferred"},
    }
    assert watch(script, kinds=()) == set()


@pytest.mark.parametrize(("rows", "texts", "runs"), [
    (8, 2, "1"), (6, 2, "1"), (5, 2, "2"), (3, 2, "2"), (9, 3, "1"), (5, 3, "2"), (4, 3, "more"), (3, 4, "more"),
])  # fmt: skip
def test_runs_are_counted_by_the_rows_that_one_may_have(rows: int, texts: int, runs: str) -> None:
    requests = [Submit(seed, tuple(map(Text, range(texts)))) for seed in (1, 2, 3)]
    moments = watched(*requests, max_rows=rows)
    assert {name for moment in moments for name in moment if name.startswith("runs: ")} == {f"runs: {runs}"}


def test_a_run_has_at_most_8_rows_unless_it_is_said() -> None:
    for count, runs in ((4, "1"), (5, "2")):
        requests = tuple(Submit(seed, (Text(1), Text(2))) for seed in range(count))
        script = Script((*requests, Drain()), depth=5, steps=2, encoder_length=16)
        assert {name for moment in watch(script) for name in moment if name.startswith("runs")} == {f"runs: {runs}"}
        made = Watched(script.config(), 8)
        script.play(made)
        assert made.moments == watch(script)


# Events.

EVENTS: dict[str, tuple[tuple[Any, ...], list[list[str]]]] = {
    "a control": (
        (Submit(), Tick(), Control("velocity_scale", 2.0)),
        [[], ["velocity_scale changed in flight", "velocity_scale: live"]],
    ),
    "a control that is neutral": (
        (Submit(), Tick(), Control("velocity_scale", 1.0)),
        [[], ["velocity_scale changed in flight"]],
    ),
    "a control that was set before": (
        (Control("velocity_scale", 2.0), Submit(), Tick(), Control("velocity_scale", None)),
        [["velocity_scale changed in flight"], ["velocity_scale: live"]],
    ),
    "no control": ((Submit(), Tick(), Control("velocity_scale", None)), [[]]),
    "a control that does not act on the request": (
        (Submit(), Tick(), Control("rescale", 0.5), Control("x0_strength", 0.5), Control("sde_curve", 0.5)),
        [[]],
    ),
    "a gain": ((Submit(), Tick(), Gain(0.5)), [[], ["channel gain", "gain changed in flight"]]),
    "a gain that was set before": (
        (Gain(0.5), Submit(), Tick(), Gain(None)),
        [["channel gain"], ["gain changed in flight"]],
    ),
    "no gain": ((Submit(), Tick(), Gain(None)), [[]]),
    "a correction": (
        (Submit(), Tick(), Correct(Wavelets("low"))),
        [[], ["wavelets changed in flight", "wavelets: low"]],
    ),
    "a correction that was on before": (
        (Correct(Wavelets("low")), Submit(), Tick(), Correct(None)),
        [["wavelets changed in flight"], ["wavelets: low"]],
    ),
    "no correction": ((Submit(), Tick(), Correct(None)), [[]]),
    "a depth": ((Submit(), Tick(), Depth(4)), [[], ["depth changed in flight"]]),
    "a smaller depth": ((Submit(), Tick(), Depth(1)), [[], ["-depth: several", "depth changed in flight", "depth: 1"]]),
    "the same depth": ((Submit(), Tick(), Depth(3)), [[]]),
    "a rewrite": ((Submit(), Tick(), Rewrite(Text(), 7)), [[], ["condition rewritten in flight"]]),
    "a rewrite of another text": ((Submit(), Tick(), Rewrite(Text(9), 7)), [[]]),
    "a rewrite before the request": ((Submit(), Rewrite(Text(), 7)), [[]]),
    "a full queue": (
        (Submit(), Tick(), *[Submit()] * 4),
        [[], ["beside another step"], ["beside another step", "queue dropped in flight"]],
    ),
    "a queue that is just full": ((Submit(), Tick(), *[Submit()] * 3), [[], ["beside another step"]]),
    "another length": ((Submit(), Tick(), Submit(frames=9)), [[], ["after another length"]]),
    "another length and then more of it": (
        (Submit(), Tick(), Submit(frames=9), Tick(), Submit(frames=9)),
        [[], ["after another length"], ["after another length", "beside another step"]],
    ),
    "the same length again": ((Submit(), Tick(), Submit(frames=12)), [[], ["beside another step"]]),
    "the same prompt beside it": ((Submit(), Submit(2)), [[]]),
    "another prompt beside it": ((Submit(), Submit(2, (Text(2),))), [["beside another prompt"]]),
}  # fmt: skip


@pytest.mark.parametrize(("events", "found"), EVENTS.values(), ids=EVENTS)
def test_an_event_is_seen_by_the_slots_that_were_in_flight_and_by_no_other(
    events: tuple[Any, ...], found: list[list[str]]
) -> None:
    assert told(watched(*events)) == sorted(sorted(line) for line in found)


def test_a_rewritten_negative_condition_is_seen_too() -> None:
    guided = Submit(guided=Guided(negatives=(Text(90, 3),)))
    usual = watched(guided)
    moments = watched(guided, Tick(), Rewrite(Text(90, 3), 7))
    assert moments == usual | {moment | {"condition rewritten in flight"} for moment in usual}


# Pairs, and that nothing is computed.


def test_pairs_are_every_two_features_of_one_moment_and_none_of_two_moments() -> None:
    one, two, three = FEATURES[0], FEATURES[7], FEATURES[-1]
    assert pairs([]) == set()
    assert pairs([frozenset({one})]) == set()
    assert pairs([frozenset({one, two}), frozenset({three})]) == {frozenset({one, two})}
    assert pairs([frozenset({one, two, three}), frozenset({one, two})]) == {
        frozenset({one, two}), frozenset({one, three}), frozenset({two, three})
    }  # fmt: skip
    assert pairs(iter([frozenset({one, three}), frozenset({two, three})])) == {
        frozenset({one, three}), frozenset({two, three})
    }  # fmt: skip


def test_an_executor_of_a_watched_pipeline_refuses_to_run() -> None:
    idle = _Idle(5)
    seen: list[Batch] = []

    class Keeping(EagerExecutor):
        def run(self, batch: Batch) -> Any:
            seen.append(batch)
            return super().run(batch)

    with StreamPipeline(Keeping(AffineDecoder(8)), PipelineConfig()) as real:
        Submit(texts=(Text(1), Text(2))).happen(real, Props(Script()))
        real.tick()
    with pytest.raises(TypeError, match=f"^a watched pipeline ran a batch of {seen[0].rows} rows$"):
        idle.run(seen[0])
    assert (idle.max_rows, idle.takes_mask, idle.stream) == (5, True, None)


def test_a_watched_pipeline_returns_what_a_submission_returns() -> None:
    made, props = Watched(PipelineConfig(depth=1), 8), Props(Script())
    first, second, third = (made.submit(props.request(Submit(seed))) for seed in (1, 2, 3))
    assert [dropped.id for dropped in second.dropped] == [first.id]
    assert [dropped.id for dropped in third.dropped] == [second.id]
