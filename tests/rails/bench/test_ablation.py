"""A saving is a figure only where the switch acted and the saving is beyond the noise."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from harness.cli import main
from harness.engine import Switches
from harness.engine.decoders.decoder_switches import ACCELERATIONS, ALL, PLAIN
from harness.engine.pipeline import StreamPipeline
from harness.engine.results import Stats
from harness.engine.switches import PLAIN_PATH, SWITCHES
from harness.rails.bench import ablation
from harness.rails.bench.ablation import (
    FEWEST,
    FLOOR,
    Says,
    _differences,
    _measured,
    _Run,
    _saving,
    ablate,
    ablated_ticks,
    difference,
)
from harness.rails.bench.throughput import Advance, Driver, Load, Window, silent
from tests.fakes import StillClock

SMALL = Load(decoder="affine", duration=0.64, ticks=16, warmup=8)
LONG = replace(SMALL, steps=2, ticks=2 * FEWEST)
NOISE = [-0.3, 0.2, -0.1, 0.3, 0.1, -0.2, 0.0, 0.1]


def idle(load: Load) -> set[str]:
    return {saving.switch for saving in ablate(load) if saving.tick is saving.host is Says.IDLE}


@pytest.mark.parametrize(("more", "expected"), [
    ({}, {"fused_cfg", "joined_stream"}),
    ({"executor": "static"}, {"fused_cfg", "joined_stream"}),
    ({"cfg": "full"}, {"joined_stream"}),
    ({"cfg": "full", "switches": Switches(fused_cfg=False)}, {"fused_cfg", "joined_stream"}),
    ({"executor": "deferred"}, {"fused_cfg"}),
    ({"switches": PLAIN_PATH}, set(SWITCHES)),
])  # fmt: skip
def test_a_switch_that_has_nothing_to_do_on_this_load_is_marked(more: dict[str, Any], expected: set[str]) -> None:
    assert idle(replace(SMALL, **more)) == expected


def test_each_acceleration_that_is_on_is_measured_off_too_and_acts() -> None:
    switches = PLAIN.turned_on("kept_time", "fused_norms")
    load = replace(SMALL, decoder="tiny", ticks=8, decoder_switches=switches)
    advanced: list[str] = []
    found = {saving.switch: saving for saving in ablate(load, advanced.append)}
    assert list(found) == [FLOOR, *SWITCHES, "kept_time", "fused_norms"]
    assert Says.IDLE not in {found[name].tick for name in ("kept_time", "fused_norms")}
    assert len(advanced) == ablated_ticks(load)


def test_the_one_acceleration_that_is_off_is_that_of_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Load] = []

    def measured(variants: dict[str, Load], load: Load, advance: Advance) -> dict[str, _Run]:
        seen.extend(variants.values())
        return {name: _Run([1.0] * 8, [1.0] * 8, Stats()) for name in variants}

    monkeypatch.setattr(ablation, "_measured", measured)
    ablate(replace(SMALL, decoder="tiny", decoder_switches=ALL))
    on = {each.decoder_switches.on for each in seen[-len(ACCELERATIONS) :]}
    assert on == {tuple(kept for kept in ACCELERATIONS if kept != name) for name in ACCELERATIONS}
    assert {each.decoder_switches for each in seen[: -len(ACCELERATIONS)]} == {ALL}


def test_what_a_switch_did_before_the_window_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def warm_up(self: Driver, advance: Advance = silent) -> None:
        load = self.load
        for self.load in (replace(load, cfg="full"), load):
            plain(self, advance)

    plain = Driver.warm_up
    monkeypatch.setattr(Driver, "warm_up", warm_up)
    assert "fused_cfg" in idle(SMALL)


def test_a_saving_beyond_the_noise_is_a_figure_and_its_interval_holds_it(
    monkeypatch: pytest.MonkeyPatch, still_clock: StillClock
) -> None:
    run = StreamPipeline.tick

    def ticking(self: StreamPipeline) -> Any:
        still_clock.sleep(0.0 if self.config.switches.host_gates else 0.02)
        return run(self)

    monkeypatch.setattr(StreamPipeline, "tick", ticking)
    found = {saving.switch: saving for saving in ablate(LONG)}["host_gates"]
    assert found.tick is found.host is Says.BEYOND
    assert found.turns == FEWEST
    assert [*found.tick_interval, found.saved_tick_ms] == pytest.approx([20.0] * 3)
    assert [*found.host_interval, found.saved_host_ms] == pytest.approx([20.0] * 3)


# The mark.


def mark(saved: list[float], *, acted: bool = True, noise: list[float] = NOISE) -> Says:
    return difference(saved).says(difference(noise), acted=acted)


def shifted(ms: float) -> list[float]:
    return [ms + each for each in NOISE]


@pytest.mark.parametrize(
    ("ms", "says"), [(0.0, Says.WITHIN), (0.2, Says.WITHIN), (5.0, Says.BEYOND), (-5.0, Says.BEYOND)]
)
def test_a_saving_or_a_loss_counts_where_its_interval_is_beyond_that_of_equal_loads(ms: float, says: Says) -> None:
    assert mark(shifted(ms)) is says
    assert mark(shifted(ms), acted=False) is Says.IDLE


def test_noise_of_two_equal_loads_hides_a_steady_saving() -> None:
    assert mark([1.0] * 8, noise=[0.0] * 8) is Says.BEYOND
    assert mark([1.0] * 8, noise=[1.5] * 8) is Says.WITHIN
    assert mark([1.0] * 8, noise=[-1.5] * 8) is Says.WITHIN


def test_noise_that_is_a_loss_hides_a_saving_as_one_that_is_a_saving_does() -> None:
    assert mark([1.0] * 8, noise=[-3.0] * 4 + [0.1] * 4) is Says.WITHIN
    assert mark([1.0] * 8, noise=[3.0] * 4 + [-0.1] * 4) is Says.WITHIN


def test_tick_and_host_part_are_each_held_against_their_own_noise() -> None:
    on, off = (_Run([ms] * FEWEST, [ms] * FEWEST, Stats()) for ms in (0.0, 5.0))
    loud, quiet = [9.0] * FEWEST, [0.0] * FEWEST
    found = _saving("host_gates", off, on, _differences(_Run(loud, quiet, Stats()), on), acts=True)
    assert (found.tick, found.host) == (Says.WITHIN, Says.BEYOND)
    found = _saving("host_gates", off, on, _differences(_Run(quiet, loud, Stats()), on), acts=True)
    assert (found.tick, found.host) == (Says.BEYOND, Says.WITHIN)


def test_a_few_turns_say_nothing_whatever_they_are() -> None:
    assert mark([5.0] * (FEWEST - 1), noise=[0.0] * (FEWEST - 1)) is Says.WITHIN
    assert mark([5.0] * FEWEST, noise=[0.0] * FEWEST) is Says.BEYOND


def test_pure_noise_is_seldom_a_figure() -> None:
    draw = np.random.default_rng(1)
    marks = [mark(list(draw.normal(size=FEWEST)), noise=list(draw.normal(size=FEWEST))) for _ in range(200)]
    assert marks.count(Says.BEYOND) <= 0.05 * len(marks)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40))
def test_an_interval_is_the_same_every_time_and_within_what_was_measured(saved: list[float]) -> None:
    found = difference(saved)
    assert found == difference(saved)
    assert min(saved) - 1e-9 <= found.low <= found.high <= max(saved) + 1e-9


# The command.


def test_the_report_and_the_table_mark_what_is_no_figure(tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    options = ["--decoder", "affine", "--duration", "0.64", "--ticks", "8", "--warmup", "8", "--ablate"]
    result = CliRunner().invoke(main, ["bench", *options, "--json", str(file)])
    assert result.exit_code == 0, result.output
    rows = {row["switch"]: row for row in json.loads(file.read_text())["ablation"]}
    assert list(rows) == [FLOOR, *SWITCHES]
    assert {row["turns"] for row in rows.values()} == {1}
    for row in rows.values():
        assert row["tick_interval"][0] <= row["saved_tick_ms"] <= row["tick_interval"][1]
    assert rows["joined_stream"]["tick"] == rows["fused_cfg"]["host"] == "did_not_act"
    assert rows["host_gates"]["tick"] == "within_noise"
    lines = [line for line in result.stdout.splitlines() if "joined_stream" in line or "host_gates" in line]
    assert [("did_not_act" in line, "within_noise" in line) for line in lines] == 2 * [(False, True), (True, False)]
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_every_other_turn_goes_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    def window(self: Driver, ticks: int, advance: Advance = silent) -> Window:
        seen.append(next(name for name, load in variants.items() if load is self.load))
        return plain(self, ticks, advance)

    seen: list[str] = []
    plain = Driver.window
    monkeypatch.setattr(Driver, "window", window)
    variants = {name: replace(LONG) for name in "abc"}
    _measured(variants, LONG, silent)
    assert "".join(seen) == "abccba" * (FEWEST // 2)
