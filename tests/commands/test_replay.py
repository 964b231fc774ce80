"""The command `replay`: what it compares, what it names, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from harness.cli import main
from harness.parity.traces import record
from tests.parity.traces.plain import Counter, counted
from tests.parity.traces.rings import recorded
from tests.parity.traces.test_reading import changed

RING = ("--ring", "tests.parity.traces.plain:Counter")


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(main, ["replay", *map(str, arguments)])


def test_a_trace_of_a_pipeline_is_played_with_what_it_was_recorded_with(tmp_path: Path) -> None:
    result = run(recorded(tmp_path / "a"), "--json", tmp_path / "r.json")
    assert (result.exit_code, result.output.count("values the same")) == (0, 1), result.output
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["same"], report["events"], report["cut"], report["differing"]) == (True, 17, "", [])


def test_a_difference_is_named_by_event_and_tick(tmp_path: Path) -> None:
    path = changed(counted(tmp_path / "a"), -3, lambda d: {**d, "made": [[d["made"][0][0], "0" * 64], *d["made"][1:]]})
    result = run(path, *RING, "--json", tmp_path / "r.json")
    assert result.exit_code == 1
    assert "the replay differs at event 5 (step), tick 5: output/made: other bits than recorded" in result.stdout
    assert "recorded on cpu-" in result.stderr
    difference = json.loads((tmp_path / "r.json").read_text())["difference"]
    assert (difference["event"], difference["tick"], difference["what"]) == (5, 5, "output/made")


def test_the_end_that_was_asked_for_is_met_before_a_later_difference(tmp_path: Path) -> None:
    path = changed(counted(tmp_path / "a"), -3, lambda d: {**d, "made": []})
    assert run(path, *RING, "--until", "4").exit_code == 0
    assert run(path, *RING, "--until", "5").exit_code == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "a ring of your own: give --ring MODULE:FUNCTION, such as a:b"),
        (("--ring", "no_such_module:f"), "--ring no_such_module:f: No module named"),
        (("--ring", "tests.parity.traces.plain:Nothing"), "has no attribute 'Nothing'"),
        ((*RING, "--decoder", "tiny"), "--decoder goes with a trace of a pipeline"),
    ],
)
def test_a_ring_is_made_by_a_function_that_the_command_line_names(
    tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    with record(Counter(), tmp_path / "a", factory="a:b") as ring:
        ring.step(None)
    result = run(tmp_path / "a", *options)
    assert (result.exit_code, message in result.stderr) == (2, True), result.stderr


def test_a_decoder_that_a_trace_names_is_used_only_where_it_is_a_preset(tmp_path: Path) -> None:
    path = changed(recorded(tmp_path / "a"), 0, lambda d: {**d, "hints": {"decoder": str(tmp_path)}})
    result = run(path)
    assert (result.exit_code, "names no preset: give --decoder" in result.stderr) == (2, True)
    assert run(path, "--decoder", "affine").exit_code == 0
    assert run(path, *RING).exit_code == 2


def test_a_trace_of_another_platform_is_not_compared(tmp_path: Path) -> None:
    path = changed(recorded(tmp_path / "a"), 0, lambda d: {**d, "fingerprint": {**d["fingerprint"], "torch": "0.1"}})
    result = run(path)
    assert (result.exit_code, "differs here in torch: not compared" in result.stderr) == (125, True)
    assert run(path, "--all").exit_code == 0


def test_a_file_that_is_no_trace_could_not_be_compared(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("{}")
    result = run(tmp_path / "a")
    assert (result.exit_code, "cannot replay: " in result.stderr) == (125, True)
