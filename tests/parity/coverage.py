"""Pairwise coverage: which features the battery and the property tests bring together.

`python -m tests.parity.coverage` prints the shares and the pairs that are missing. Nothing is computed: the scripts are
drawn as the tests draw them and played on pipelines that only plan. A source draws as many examples as its test, and
the state machine a quarter of them, because drawing them takes longest. Which ones hypothesis draws depends on the text
of a test, so they are examples of the same kind and not the same ones.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from harness.engine.switches import PLAIN_PATH, SWITCHES, Switches
from harness.parity.battery.features import POSSIBLE, Pair, Watched, pairs, watch
from harness.parity.battery.player import Player
from harness.parity.battery.scenarios import SCENARIOS, configuration, pinned
from harness.parity.battery.scripts import Drain, Script, Submit, Tick
from harness.registry import COMPARED, LIVE
from tests.parity.proofs.test_laws import REQUESTS, SCRIPTS
from tests.parity.proofs.test_machine import Anything
from tests.parity.strategies import CASES, SETTINGS, Case, cases, each_drawn_anew

Moments = set[frozenset[str]]
EXAMPLES = 100
DRAWN = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@dataclass(frozen=True)
class Source:
    """What one test brings together, and in how many cases."""

    cases: int
    moments: Moments

    @property
    def pairs(self) -> set[Pair]:
        return pairs(self.moments)


def battery() -> Source:
    """Every scenario as the oracle and the plain-path test run it: on every kind of executor, fast and plain."""
    moments: Moments = set()
    for scenario in SCENARIOS.values():
        for switches in (scenario.switches, PLAIN_PATH):
            config = replace(configuration(scenario), switches=switches)
            watched = Watched(config, 8, LIVE, pinned=pinned(scenario) is not None)
            scenario.script(Player(watched, scenario.sizes))
            moments |= watched.moments
    return Source(len(SCENARIOS), moments)


def drawn(**strategies: st.SearchStrategy[Any]) -> Callable[[Callable[..., Moments]], Source]:
    """What a function of a drawn example notes, over all examples."""

    def over(noted: Callable[..., Moments]) -> Source:
        moments: Moments = set()
        count = [0]

        @DRAWN
        @given(**strategies)
        def each(**example: Any) -> None:
            moments.update(noted(**example))
            count[0] += 1

        each()
        return Source(count[0], moments)

    return over


def oracle() -> Source:
    @drawn(case=cases(rewrites=False))
    def source(case: Case) -> Moments:
        return watch(case.script, case.others, COMPARED, case.max_rows, pinned=case.pinned)

    return source


def switches() -> Source:
    """Each switch is on in one of two pipelines and off in the other; here all of them at once, in the test in turn."""

    @drawn(case=CASES)
    def source(case: Case) -> Moments:
        moments: Moments = set()
        for switches in (case.others, opposite(case.others)):
            moments |= watch(case.script, switches, LIVE, case.max_rows, pinned=case.pinned)
        return moments

    return source


def opposite(switches: Switches) -> Switches:
    for name, record in SWITCHES.items():
        on = getattr(switches, name) == record.fast
        switches = switches.turned_off(name) if on else switches.turned_on(name)
    return switches


def laws() -> Source:
    """Of the laws, the one about combinations of switches."""

    @drawn(script=SCRIPTS, requests=st.lists(REQUESTS, min_size=1, max_size=4), one=SETTINGS, other=SETTINGS)
    def source(script: Script, requests: list[Submit], one: Switches, other: Switches) -> Moments:
        events = tuple(event for submit in requests for event in (submit, Tick()))
        script = replace(script, events=(*events, Drain()))
        return watch(script, one, COMPARED) | watch(script, other, COMPARED)

    return source


def machine() -> Source:
    moments: Moments = set()
    count = [0]

    class Watching(Anything):
        kind = "eager"

        def made(self, script: Script, max_rows: int) -> Any:
            return Watched(script.config(), max_rows, COMPARED)

        def judge(self) -> None:
            pass

        def teardown(self) -> None:
            if hasattr(self, "pipeline"):
                self.happen(Drain())
                moments.update(self.pipeline.moments)
                count[0] += 1

    run_state_machine_as_test(Watching, settings=settings(DRAWN, max_examples=EXAMPLES // 4, stateful_step_count=20))
    return Source(count[0], moments)


PROPERTIES = {"oracle": oracle, "switches": switches, "laws": laws, "state machine": machine}


@lru_cache(maxsize=1)
def measured() -> dict[str, Source]:
    """Every source by name, `properties` and `all` last."""
    with each_drawn_anew():
        made = {"battery": battery(), **{name: source() for name, source in PROPERTIES.items()}}
    drawn = [made[name] for name in PROPERTIES]
    made["properties"] = Source(sum(source.cases for source in drawn), set().union(*(s.moments for s in drawn)))
    both = [made["battery"], made["properties"]]
    made["all"] = Source(sum(source.cases for source in both), both[0].moments | both[1].moments)
    return made


def share(covered: set[Pair]) -> float:
    return len(covered & POSSIBLE) / len(POSSIBLE)


def line(found: dict[str, Source]) -> str:
    """The shares in one line."""
    shares = {name: f"{share(found[name].pairs):.1%}" for name in ("all", "properties", "battery")}
    return (
        f"{shares['all']} of {len(POSSIBLE)} possible pairs of features in {found['all'].cases} cases "
        f"(property tests alone {shares['properties']}, battery alone {shares['battery']})"
    )


def missing(source: Source) -> list[str]:
    return sorted(" + ".join(sorted(pair)) for pair in POSSIBLE - source.pairs)


def main() -> None:
    found = measured()
    for name, source in found.items():
        sys.stdout.write(f"{name:14} {source.cases:5} cases {share(source.pairs):7.1%}\n")
    sys.stdout.write("\n".join(["", "Pairs that nothing brings together:", *missing(found["all"]), ""]))


if __name__ == "__main__":
    main()
