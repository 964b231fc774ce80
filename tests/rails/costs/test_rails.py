"""What a steady ring costs is counted exactly, and a change in either direction is a failure until it is blessed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from harness.cli import main
from harness.engine import Switches, execute
from harness.engine.executors import EagerExecutor
from harness.engine.session import Stream
from harness.engine.switches import SWITCHES
from harness.parity.baselines import platform, store
from harness.parity.baselines.refusals import BlessRefused
from harness.rails.costs import rails as costs
from harness.rails.costs.counts import OPERATOR, Counts, replacement
from harness.rails.costs.rails import count, rails
from harness.rails.costs.workload import KINDS, STEPS, STREAMS, Workload, is_due
from tests.git import git

SMALL = Workload("cfg_full", 2)
UNFUSED = Workload("cfg_full", 2, switches=Switches(fused_cfg=False))
(PINNED,) = re.findall(r"^torch==(.*)$", (platform.ROOT / "constraints.txt").read_text(), re.MULTILINE)


@pytest.fixture(name="now", scope="module")
def _now() -> dict[str, Counts]:
    return costs.counted()


def test_costs_are_as_blessed() -> None:
    """With the torch that is pinned they are gated; with another one the report says that they are not."""
    report = costs.check()
    if costs.version() != PINNED:
        assert report.gated or "not gated" in report.summary()
    else:
        assert report.passes, report.summary()


def test_this_platform_s_own_costs_go_before_the_reference_platform_s_and_these_before_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "reference_platform", lambda: "reference")
    for name in ("another", "reference", platform.name()):
        (tmp_path / name).mkdir()
        (tmp_path / name / "costs.json").touch()
        assert costs.path(tmp_path).parent.name == name


def test_every_kind_is_counted_at_every_depth_and_every_switch_off() -> None:
    names = set(rails())
    wanted = {f"{kind}/{depth}" for kind in [*KINDS, "cfg_full, two passes", "dcw"] for depth in (1, 4, 8)}
    wanted |= {f"stream {kind}/4" for kind in STREAMS}
    assert names == wanted | {f"mixed, {switch} off/4" for switch in SWITCHES}


def test_a_period_is_full_steps_and_as_many_admissions_as_places(now: dict[str, Counts]) -> None:
    for name, workload in rails().items():
        assert now[name]["ticks"] == workload.period
        assert now[name]["admitted"] * STEPS == workload.period * workload.depth, name
        assert now[name]["operators"] == sum(n for key, n in now[name].items() if key.startswith(OPERATOR))


def test_counts_are_the_same_again(now: dict[str, Counts]) -> None:
    assert {name: count(rails()[name]) for name in ("plain/1", "mixed/4", "dcw/8")} == {
        name: now[name] for name in ("plain/1", "mixed/4", "dcw/8")
    }


def test_a_switch_costs_what_it_is_there_to_save(now: dict[str, Counts]) -> None:
    on = now["mixed/4"]
    off = {switch: now[f"mixed, {switch} off/4"] for switch in SWITCHES}
    assert off["fused_cfg"]["decoder_runs"] == 2 * on["decoder_runs"]
    assert off["cached_conditioning"]["rebuilds"] == on["decoder_runs"] > on["rebuilds"] == 0
    assert off["integrator"]["operators"] > on["operators"]
    assert off["host_gates"]["host_reads"] > on["host_reads"] == 0
    assert off["host_gates"]["curves"] > on["curves"]
    assert off["joined_stream"] == on  # nothing to join without a stream of its own


def test_a_whole_tick_of_a_stream_reads_nothing_and_costs_a_ring_s_tick_and_what_is_submitted(
    now: dict[str, Counts],
) -> None:
    for kind in STREAMS:
        assert now[f"stream {kind}/4"]["host_reads"] == 0, kind
    same = ("ticks", "admitted", "decoder_runs", "decoder_rows", "rebuilds")
    for kind in STREAMS.keys() & KINDS.keys():
        stream, ring = now[f"stream {kind}/4"], now[f"{kind}/4"]
        assert {name: stream[name] for name in same} == {name: ring[name] for name in same}, kind
        assert stream["operators"] >= ring["operators"]


def test_a_stream_whose_tensors_are_written_to_reads_each_of_them_at_every_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tick = Stream.tick

    def written(self: Stream, **asked: Any) -> Any:
        for tensor in (self._template.context_latents, self._template.source):
            tensor.add_(0.0)
        return tick(self, **asked)

    workload = rails()["stream plain/4"]
    monkeypatch.setattr(Stream, "tick", written)
    counts = count(workload)
    assert counts["host_reads"] == 2 * counts["admitted"]


def test_operators_outside_the_decoder_grow_linearly_with_the_depth(now: dict[str, Counts]) -> None:
    assert set(costs.growth(now)) == {*KINDS, "cfg_full, two passes", "dcw"}
    for name, (fixed, per_slot) in costs.growth(now).items():
        middle = now[f"{name}/4"]["operators"] / now[f"{name}/4"]["ticks"]
        assert abs(middle - (fixed + 4 * per_slot)) < 0.05 * middle, name


def test_a_ring_with_the_wavelet_correction_costs_more_than_a_plain_one() -> None:
    plain, corrected = (count(rails()[name])["operators"] for name in ("plain/1", "dcw/1"))
    assert corrected > plain


def test_each_rail_is_named_before_it_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(costs, "rails", lambda: {"fused": SMALL, "unfused": UNFUSED})
    monkeypatch.setattr(costs, "count", seen.append)
    costs.counted(seen.append)
    assert seen == ["fused", SMALL, "unfused", UNFUSED]


# What one more of something flips.


def extra_item(monkeypatch: pytest.MonkeyPatch) -> None:
    before(monkeypatch, lambda inputs: next(iter(inputs.values())).sum(dim=(0, 1, 2)).item())


def extra_tolist(monkeypatch: pytest.MonkeyPatch) -> None:
    before(monkeypatch, lambda inputs: next(iter(inputs.values())).tolist())


def extra_allocation(monkeypatch: pytest.MonkeyPatch) -> None:
    before(monkeypatch, lambda inputs: torch.empty(3))


def extra_view(monkeypatch: pytest.MonkeyPatch) -> None:
    before(monkeypatch, lambda inputs: next(iter(inputs.values())).view(-1))


def extra_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    before(monkeypatch, lambda inputs: next(iter(inputs.values())).clone())


def extra_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    combine = execute.advance.combine

    def touching(plan: Any, *arguments: Any) -> Any:
        _ = plan.guidance.scale.values
        return combine(plan, *arguments)

    monkeypatch.setattr(execute.advance, "combine", touching)


def extra_run(monkeypatch: pytest.MonkeyPatch) -> None:
    run = EagerExecutor.run

    def twice(self: EagerExecutor, batch: Any) -> torch.Tensor:
        run(self, batch)
        return run(self, batch)

    monkeypatch.setattr(EagerExecutor, "run", twice)


def before(monkeypatch: pytest.MonkeyPatch, act: Callable[[dict[int, torch.Tensor]], Any]) -> None:
    """Let something happen in every tick, before its first run is gathered."""
    gather = execute._gather

    def gathering(rows: Any, plans: Any, inputs: Any, machinery: Any) -> Any:
        act(inputs)
        return gather(rows, plans, inputs, machinery)

    monkeypatch.setattr(execute, "_gather", gathering)


FLIPS: list[tuple[Callable[[pytest.MonkeyPatch], None], set[str]]] = [
    (extra_item, {"host_reads", "allocations", "operators", "aten::sum", "aten::_local_scalar_dense"}),
    (extra_tolist, {"host_reads"}),
    (extra_allocation, {"allocations", "operators", "aten::empty"}),
    (extra_view, {"operators", "aten::view"}),
    (extra_copy, {"allocations", "copies", "operators", "aten::clone"}),
    (extra_curve, {"curves"}),
    (extra_run, {"decoder_runs", "decoder_rows", "operators", "aten::slice"}),
]


@pytest.mark.parametrize(("more", "flips"), FLIPS, ids=lambda value: getattr(value, "__name__", ""))
def test_one_more_of_something_flips_the_counts_that_name_it_and_no_other(
    more: Callable[[pytest.MonkeyPatch], None], flips: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    was = count(SMALL)
    more(monkeypatch)
    now = count(SMALL)
    changed = {name.removeprefix(OPERATOR) for name in {*was, *now} if was.get(name) != now.get(name)}
    assert changed == flips


def test_a_second_decoder_run_flips_runs_and_what_a_run_costs_but_no_rows() -> None:
    was, now = count(SMALL), count(UNFUSED)
    assert now["decoder_runs"] == 2 * was["decoder_runs"]
    assert now["decoder_rows"] == was["decoder_rows"]


def test_what_the_decoder_does_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    was = count(SMALL)
    run = EagerExecutor.decode
    monkeypatch.setattr(costs.AffineDecoder, "__call__", busy(costs.AffineDecoder.__call__))
    assert run is EagerExecutor.decode
    assert count(SMALL) == was


def busy(call: Any) -> Any:
    def decode(self: Any, **inputs: torch.Tensor) -> torch.Tensor:
        return call(self, **inputs).clone() * 1.0

    return decode


# Blessing and checking.


@pytest.fixture(name="captures")
def _captures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: dict[str, Counts]) -> Path:
    """A checkout without costs, in which counting is quick: two rails, counted before."""
    monkeypatch.delenv("CI", raising=False)
    few = {name: rails()[name] for name in ("plain/1", "cfg_full/4")}
    monkeypatch.setattr(costs, "rails", lambda: few)
    monkeypatch.setattr(costs, "count", lambda workload: dict(now[f"{workload.kind}/{workload.depth}"]))
    monkeypatch.setattr(costs, "counted_afresh", lambda: {name: dict(now[name]) for name in few})
    git(tmp_path, "init", "-q")
    return tmp_path / "captures"


def commit(captures: Path) -> None:
    git(captures.parent, "add", "-A")
    git(captures.parent, "commit", "-qm", "costs")


def alter(captures: Path, act: Callable[[dict[str, Any]], Any]) -> None:
    file = costs.path(captures)
    document = store.read_document(file)
    act(document["torch"][costs.version()])
    store.write_document(file, document)


def invoke(command: str, captures: Path, *more: str) -> Result:
    return CliRunner().invoke(main, [command, "--costs", "--captures", str(captures), *more])


def test_blessed_costs_check_as_they_are(captures: Path) -> None:
    costs.bless("first", captures)
    assert costs.check(captures).passes
    assert invoke("check", captures).exit_code == 0
    commit(captures)
    assert "nothing written" in invoke("bless", captures, "--reason", "again").stdout


@pytest.mark.parametrize("by", [1, -1])
def test_more_and_less_are_failures_alike_that_name_row_and_replacement(
    captures: Path, by: int, tmp_path: Path
) -> None:
    costs.bless("first", captures)
    alter(captures, lambda rails: rails["cfg_full/4"].update(copies=rails["cfg_full/4"]["copies"] + by))
    (wrong,) = costs.check(captures).wrong()
    assert (wrong.rail, wrong.name) == ("cfg_full/4", "copies")
    assert replacement(wrong) == f'"copies": {wrong.now}'
    result = invoke("check", captures, "--json", str(tmp_path / "r.json"))
    assert result.exit_code == 1
    report = json.loads((tmp_path / "r.json").read_text())
    assert [row for row in report["costs"] if row["verdict"] == "moved"] == [
        {"rail": "cfg_full/4", "name": "copies", "blessed": wrong.blessed, "now": wrong.now, "verdict": "moved"}
    ]


@pytest.mark.parametrize("act", [
    lambda rails: rails.pop("plain/1"),
    lambda rails: rails.update(gone={"ticks": 8}),
    lambda rails: rails["plain/1"].pop("ticks"),
    lambda rails: rails["plain/1"].update({"operator aten::gone": 1}),
])  # fmt: skip
def test_a_rail_or_count_that_only_one_side_has_is_a_failure(captures: Path, act: Callable[[Any], Any]) -> None:
    costs.bless("first", captures)
    alter(captures, act)
    assert not costs.check(captures).passes
    assert costs.check(captures).wrong()


def test_costs_of_another_torch_gate_nothing_and_say_so(captures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    costs.bless("first", captures)
    here = costs.version()
    monkeypatch.setattr(costs, "version", lambda: "2.0.0")
    report = costs.check(captures)
    assert (report.gated, report.passes, report.wrong()) == (False, False, [])
    assert "not gated" in invoke("check", captures).stdout
    assert invoke("check", captures).exit_code == 125
    commit(captures)
    costs.bless("both", captures)
    assert set(costs.read(costs.path(captures))) == {"2.0.0", here}


@pytest.mark.parametrize("document", [
    {"reason": "why"},
    {"torch": None},
    {"torch": 1},
    {"torch": [["2.13.0", {}]]},
    {"torch": {costs.version(): 1}},
    {"torch": {costs.version(): {"plain/1": 1}}},
    {"torch": {"2.0.0": ["plain/1"], costs.version(): {"plain/1": {"ticks": 8}}}},
])  # fmt: skip
def test_a_file_that_is_sealed_but_holds_no_costs_is_refused_by_name_and_by_every_command(
    captures: Path, document: dict[str, Any]
) -> None:
    file = captures / platform.name() / "costs.json"
    store.write_document(file, document)
    with pytest.raises(store.CapturesError, match=r"costs\.json: altered, not of format 1"):
        costs.read(file)
    commit(captures)
    for command, more, code in (("check", [], 125), ("bless", ["--reason", "again"], 2)):
        result = invoke(command, captures, *more)
        assert result.exit_code == code, result.output
        assert "costs.json: altered, not of format 1" in " ".join(result.output.split())


@pytest.mark.parametrize("why", ["ci", "no reason", "uncommitted", "not again", "not afresh"])
def test_blessing_is_refused_where_it_would_not_be_an_explicit_act(
    captures: Path, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if why == "ci":
        monkeypatch.setenv("CI", "true")
    if why == "uncommitted":
        costs.bless("first", captures)
    if why == "not again":
        counts = iter(range(100))
        monkeypatch.setattr(costs, "count", lambda workload: {"ticks": next(counts)})
    if why == "not afresh":
        monkeypatch.setattr(costs, "counted_afresh", lambda: {})
    with pytest.raises(BlessRefused):
        costs.bless("" if why == "no reason" else "again", captures)
    assert invoke("bless", captures, "--reason", "" if why == "no reason" else "again").exit_code == 2


def test_a_fresh_process_counts_with_this_package_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, ticks in (("here", 1), ("elsewhere", 2)):
        (tmp_path / place / "harness").mkdir(parents=True)
        (tmp_path / place / "harness" / "__init__.py").write_text(f'SAYS = \'{{"rail": {{"ticks": {ticks}}}}}\'\n')
        # A package that is found elsewhere, such as the installed one, says nothing of the sort.
        (tmp_path / place / "harness" / "__main__.py").write_text("from harness import SAYS\nprint(SAYS)\n")
    monkeypatch.setattr(costs, "PACKAGE", tmp_path / "here" / "harness")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert costs.counted_afresh() == {"rail": {"ticks": 1}}


@pytest.mark.no_cover  # what it runs is another process
def test_a_fresh_process_counts_the_same(now: dict[str, Counts]) -> None:
    assert costs.counted_afresh() == now


@pytest.mark.parametrize(("ticks", "submitted", "in_flight", "queued", "due"), [
    (0, 0, 0, 0, True),
    (1, 1, 1, 0, False),
    (2, 1, 1, 0, True),
    (5, 3, 3, 0, False),
    (6, 3, 3, 0, True),
    (6, 3, 3, 1, False),
    (7, 4, 4, 0, False),
    # A place is free already, because a request ended early: the ring is full no more, and does not fill again.
    (7, 4, 3, 0, True),
    (7, 4, 3, 1, False),
    (9, 5, 3, 0, True),
])  # fmt: skip
def test_a_request_is_due_every_other_tick_while_four_places_fill_and_then_at_every_free_place(
    ticks: int, submitted: int, in_flight: int, queued: int, due: bool
) -> None:
    stats: Any = SimpleNamespace(ticks=ticks, in_flight=in_flight, queued=queued)
    assert is_due(stats, submitted, depth=4, steps=8) is due
