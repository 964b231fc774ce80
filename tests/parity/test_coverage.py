"""The battery and the property tests together use the features pairwise, and the measure itself is right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given

from harness import registry
from harness.engine import PipelineConfig, StreamPipeline, Switches
from harness.engine.decoders import AffineDecoder
from harness.parity.battery.features import (
    CHANGED,
    FEATURES,
    GROUPS,
    IMPOSSIBLE,
    POSSIBLE,
    REWRITTEN,
    RULES,
    UNGUIDED,
    Pair,
    Watched,
    pairs,
    watch,
)
from harness.parity.battery.scripts import (
    Control,
    Depth,
    Drain,
    Guided,
    Masked,
    Rewrite,
    Script,
    Submit,
    Text,
    Tick,
    Toward,
    Wavelets,
)  # fmt: skip
from tests.parity import coverage
from tests.parity.journal import drained
from tests.parity.pairs import SAID
from tests.parity.strategies import Case, cases, each_drawn_anew

# Traced, these take twice as long; what they run is run by others too.
pytestmark = pytest.mark.no_cover

LEAST = 0.95


def test_features_are_used_pairwise(request: pytest.FixtureRequest) -> None:
    found = coverage.measured()
    request.config.stash[SAID] = coverage.line(found)
    for name in ("properties", "all"):
        missing = coverage.missing(found[name])
        assert coverage.share(found[name].pairs) >= LEAST, f"{name}: {len(missing)} missing:\n" + "\n".join(missing)


def test_no_pair_that_is_called_impossible_ever_comes_together() -> None:
    assert coverage.measured()["all"].pairs & IMPOSSIBLE == set()


def test_every_feature_is_in_some_case() -> None:
    seen = {name for pair in coverage.measured()["all"].pairs for name in pair}
    assert seen == set(FEATURES)


def test_every_rule_names_features_and_has_a_reason() -> None:
    assert len(set(FEATURES)) == len(FEATURES)
    for these, those, why in RULES:
        assert these and those and why
        assert {*these, *those} <= set(FEATURES)
    assert all(frozenset(group[:2]) in IMPOSSIBLE for group in GROUPS)
    assert len(POSSIBLE) + len(IMPOSSIBLE) == len(FEATURES) * (len(FEATURES) - 1) // 2


def test_the_examples_of_a_proof_differ() -> None:
    """Without this the mutations of hypothesis would repeat some 25 scripts with small changes."""
    drawn: list[int] = []

    @coverage.DRAWN
    @given(case=cases())
    def draw(case: Case) -> None:
        drawn.append(hash((case.script.depth, case.script.steps, len(case.script.events), case.script.frames)))

    with each_drawn_anew():
        draw()
    assert len(set(drawn)) >= 80


# What "together" means.


def together(*events: object, switches: Switches | None = None, max_rows: int = 8, **fields: object) -> set[Pair]:
    script = replace(Script(encoder_length=16), events=(*events, Drain()), **fields)
    return pairs(watch(script, switches, max_rows=max_rows))


def meets(covered: set[Pair], one: str, other: str) -> bool:
    assert {one, other} <= set(FEATURES)
    return frozenset((one, other)) in covered


def test_features_of_two_requests_of_one_script_are_not_together() -> None:
    apart = together(Submit(guided=Guided()), Submit(seed=2, masked=Masked(level=0.5)))
    one = together(Submit(guided=Guided(), masked=Masked(level=0.5)))
    assert not meets(apart, "guidance: full", "latent mask: number")
    assert meets(one, "guidance: full", "latent mask: number")


def test_features_that_act_at_different_steps_are_not_together() -> None:
    late = Submit(toward=Toward(strength=0.5))
    early = together(late, Tick(), Control("velocity_scale", 2.0), Tick(), Control("velocity_scale", None))
    later = together(late, Tick(3), Control("velocity_scale", 2.0))
    assert not meets(early, "x0_strength: number", "velocity_scale: live")
    assert meets(later, "x0_strength: number", "velocity_scale: live")


def test_a_neutral_value_is_not_in_force() -> None:
    assert not meets(together(Submit(velocity_scale=1.0)), "velocity_scale: number", UNGUIDED)
    assert meets(together(Submit(velocity_scale=0.5)), "velocity_scale: number", UNGUIDED)


def test_a_change_is_in_flight_for_the_slots_that_were_there_before() -> None:
    name = f"velocity_scale {CHANGED}"
    change = Control("velocity_scale", 2.0)
    assert not meets(together(change, Submit()), name, UNGUIDED)
    assert not meets(together(Submit(), change), name, UNGUIDED)
    assert meets(together(Submit(), Tick(), change), name, UNGUIDED)
    assert not meets(together(Submit(), Tick(), Control("velocity_scale", None)), name, UNGUIDED)
    assert not meets(together(Submit(), Tick(), Control("rescale", 0.5)), f"rescale {CHANGED}", "conditions: 1")


def test_events_of_the_ring_are_seen() -> None:
    two = (Submit(), Submit(seed=2, texts=(Text(2),)), Tick())
    assert meets(together(Submit(), Tick(), Depth(1)), f"depth {CHANGED}", "depth: 1")
    assert meets(together(Submit(), Tick(), Rewrite(Text(), 7)), REWRITTEN, UNGUIDED)
    assert meets(together(Submit(), Tick(), *[Submit()] * 4), "queue dropped in flight", UNGUIDED)
    assert meets(together(Submit(), Tick(), Submit(frames=9)), "after another length", UNGUIDED)
    assert meets(together(*two), "beside another prompt", "depth: several")
    assert not meets(together(*[Submit()] * 2), "beside another prompt", "depth: several")
    assert meets(together(Submit(), dcw=Wavelets("pix")), "wavelets: pix", UNGUIDED)
    three = Submit(texts=(Text(1), Text(2), Text(3)))
    assert meets(together(*[three] * 3, max_rows=4), "runs: more", "conditions: several")
    assert meets(together(Submit(guided=Guided()), switches=Switches(fused_cfg=False)), "runs: 2", "fused_cfg: off")


# A watched pipeline against a real one.


def in_flight(pipeline: StreamPipeline) -> Iterator[tuple[object, int, int] | None]:
    for slot in pipeline.slots:
        yield None if slot is None else (slot.id, slot.step, slot.admitted_at)


class Beside(Watched):
    """Watches while the real pipeline runs, and compares both after every tick."""

    def __init__(self, config: PipelineConfig, max_rows: int) -> None:
        super().__init__(config, max_rows)
        self.real = StreamPipeline(registry.executor("eager", AffineDecoder(), max_rows), config)

    def submit(self, request):  # type: ignore[no-untyped-def]
        self.real.submit(request)
        return super().submit(request)

    def set_depth(self, depth: int) -> None:
        self.real.set_depth(depth)
        super().set_depth(depth)

    def tick(self):  # type: ignore[no-untyped-def]
        real, watched = self.real.tick(), super().tick()
        assert [each.id for each in watched] == [each.id for each in real]
        assert list(in_flight(self)) == list(in_flight(self.real))
        assert self.stats().decoder_rows == self.real.stats().decoder_rows
        return watched

    def drain(self):  # type: ignore[no-untyped-def]
        return drained(self)


def test_a_watched_pipeline_has_the_slots_that_a_real_one_has() -> None:
    two, guided = Submit(texts=(Text(1), Text(2))), Submit(seed=3, guided=Guided())
    events = (two, guided, Tick(), *[two] * 5, Depth(1), Tick(2), Depth(4), Submit(frames=9), guided, Drain())
    script = Script(events, depth=2, encoder_length=16)
    watched = Beside(script.config(), 8)
    script.play(watched)
    assert watched.stats().finished >= 1
    assert watched.stats().dropped >= 3
