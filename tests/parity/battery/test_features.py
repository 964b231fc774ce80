"""What the scenarios bring together is written down in features.json, so that the measure cannot change unseen.

`python -m tests.parity.battery.test_features` writes the file anew; read the difference before it is committed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.engine import PLAIN_PATH, PipelineConfig
from harness.parity.battery.features import FEATURES, IMPOSSIBLE, POSSIBLE, Watched
from harness.parity.battery.player import Player
from harness.parity.battery.scenarios import SCENARIOS, configuration, pinned
from harness.registry import LIVE
from tests.engine.builders import condition, request

WRITTEN = Path(__file__).with_name("features.json")


def moments(name: str) -> set[frozenset[str]]:
    scenario = SCENARIOS[name]
    made = set()
    for switches in (scenario.switches, PLAIN_PATH):
        config = replace(configuration(scenario), switches=switches)
        watched = Watched(config, 8, LIVE, pinned=pinned(scenario) is not None)
        scenario.script(Player(watched, scenario.sizes))
        made |= watched.moments
    return made


def described(found: set[frozenset[str]]) -> dict[str, Any]:
    """The features, and a digest of which of them come together."""
    listed = sorted(sorted(moment) for moment in found)
    digest = hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]
    return {"features": sorted(set().union(*found)), "moments": len(found), "digest": digest}


def space() -> dict[str, Any]:
    """Every feature, and the pairs that are possible."""
    impossible = sorted(sorted(pair) for pair in IMPOSSIBLE)
    digest = hashlib.sha256(json.dumps(impossible).encode()).hexdigest()[:16]
    return {"features": list(FEATURES), "possible": len(POSSIBLE), "impossible": len(IMPOSSIBLE), "digest": digest}


def written() -> Mapping[str, Any]:
    return dict(json.loads(WRITTEN.read_text()))


def test_every_scenario_is_written_down() -> None:
    assert list(written()) == ["space", *SCENARIOS]


def test_the_space_of_features_is_what_was_written() -> None:
    assert space() == written()["space"]


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_brings_together_what_was_written(name: str) -> None:
    assert described(moments(name)) == written()[name]


def test_one_condition_of_several_with_a_step_range_is_a_step_range() -> None:
    watched = Watched(PipelineConfig(), 8)
    watched.submit(request(conditions=[condition(1), condition(2, step_range=(0.0, 0.5))]))
    watched.tick()
    assert all("step range" in moment for moment in watched.moments) and watched.moments


if __name__ == "__main__":
    WRITTEN.write_text(
        json.dumps({"space": space(), **{name: described(moments(name)) for name in SCENARIOS}}, indent=1) + "\n"
    )
