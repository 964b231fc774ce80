"""Blessed traces in a check: each has a verdict, and what cannot be replayed here is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.parity.baselines import platform
from harness.parity.baselines.verdicts import Verdict
from harness.parity.traces import blessed, record
from harness.parity.traces.blessed import TraceResult
from harness.parity.traces.engine_replay import replayed_pipeline
from tests.parity.traces.kept import put, sealed
from tests.parity.traces.plain import counted
from tests.parity.traces.rings import executor, pipeline, play, recorded
from tests.parity.traces.test_reading import changed, records, written


def the(captures: Path) -> TraceResult:
    (result,) = blessed.check(captures)
    return result


def hinted(path: Path, **hints: str) -> Path:
    with record(pipeline(), path, **hints) as ring:
        play(ring)
    return path


def test_a_blessed_trace_whose_digests_are_made_again_is_exact(tmp_path: Path) -> None:
    path = put(tmp_path / "captures", recorded(tmp_path / "a"))
    found = the(tmp_path / "captures")
    assert (found.name, found.verdict, found.platform, found.path) == ("night", Verdict.EXACT, platform.name(), path)
    assert (found.ticks, found.values) == (6, replayed_pipeline(path, executor).values)


def test_the_first_digest_that_moved_is_named_and_the_other_traces_are_replayed(tmp_path: Path) -> None:
    other = changed(recorded(tmp_path / "a"), -2, lambda d: {**d, "made": [[n, "0" * 64] for n, _ in d["made"]]})
    put(tmp_path / "captures", other, "early")
    put(tmp_path / "captures", recorded(tmp_path / "b"), "late")
    early, late = blessed.check(tmp_path / "captures")
    assert (early.name, early.verdict, late.name, late.verdict) == ("early", Verdict.MOVED, "late", Verdict.EXACT)
    assert early.detail.startswith("the replay differs at event 16 (drain)")


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])
    sealed(path.parent)


def without_an_end(path: Path) -> None:
    written(path, records(path)[:-1])
    sealed(path.parent)


def without_a_tensor(path: Path) -> None:
    kept = records(path)
    del kept[next(number for number, (kind, _) in enumerate(kept) if kind == b"T")]
    written(path, kept)
    sealed(path.parent)


SPOILT = [
    (lambda path: path.unlink(), Verdict.MISSING, "night.trace: missing"),
    (lambda path: path.write_bytes(path.read_bytes()[:-1]), Verdict.CORRUPT, "altered, its SHA-256"),
    (lambda path: path.with_name("manifest.json").unlink(), Verdict.MISSING, "manifest.json: missing"),
    (lambda path: path.with_name("manifest.json").write_text("{}"), Verdict.CORRUPT, "manifest.json: format version"),
    (cut_off, Verdict.CORRUPT, "cut off: the file ends at byte"),
    (without_an_end, Verdict.CORRUPT, "cut off: the file ends without the record of its end"),
    (without_a_tensor, Verdict.CORRUPT, "expected a tensor that a record before holds"),
    (lambda path: sealed(written(path, records(path)[:1]).parent), Verdict.CORRUPT, "cut off"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "verdict", "words"), SPOILT)
def test_a_trace_that_is_not_what_was_blessed_fails(
    spoil: Callable[[Path], Any], verdict: Verdict, words: str, tmp_path: Path
) -> None:
    spoil(put(tmp_path / "captures", recorded(tmp_path / "a")))
    found = the(tmp_path / "captures")
    assert (found.verdict, found.compared, words in found.detail) == (verdict, True, True), found


def test_a_file_that_the_manifest_does_not_name_is_an_orphan_beside_the_others(tmp_path: Path) -> None:
    path = put(tmp_path / "captures", recorded(tmp_path / "a"))
    path.with_name("more.trace").write_bytes(b"x")
    found = {each.name: each.verdict for each in blessed.check(tmp_path / "captures")}
    assert found == {"more.trace": Verdict.ORPHAN, "night": Verdict.EXACT}


def elsewhere(root: Path) -> Path:
    return changed(recorded(root / "a"), 0, lambda d: {**d, "fingerprint": {**d["fingerprint"], "torch": "0.1"}})


NOT_HERE = [
    (elsewhere, "which differs here in torch: not compared"),
    (lambda root: hinted(root / "a"), "the trace names no preset"),
    (lambda root: hinted(root / "a", decoder="/some/checkpoint"), "the trace names no preset"),
    (lambda root: hinted(root / "a", decoder="affine", executor="warp"), "an executor or a dtype that is not known"),
    (lambda root: hinted(root / "a", decoder="affine", executor="onnx"), "executors of the kind onnx run a file"),
    (lambda root: hinted(root / "a", decoder="affine", executor="compiled_graph"), "do not run on cpu"),
    (lambda root: counted(root / "a"), "a trace of a ring of your own"),
]  # fmt: skip


@pytest.mark.parametrize(("made", "words"), NOT_HERE)
def test_a_trace_that_cannot_be_replayed_here_says_why_and_is_no_comparison(
    made: Callable[[Path], Path], words: str, tmp_path: Path
) -> None:
    put(tmp_path / "captures", made(tmp_path))
    found = the(tmp_path / "captures")
    assert (found.verdict, found.compared, words in found.detail) == (Verdict.NOT_GATED, False, True), found


def test_words_with_which_no_executor_can_be_made_fail_the_trace_alone(tmp_path: Path) -> None:
    put(tmp_path / "captures", hinted(tmp_path / "a", decoder="affine", pin_rows="0"), "early")
    put(tmp_path / "captures", recorded(tmp_path / "b"), "late")
    early, late = blessed.check(tmp_path / "captures")
    assert (early.verdict, "pin_rows: got 0" in early.detail, late.verdict) == (
        Verdict.CORRUPT, True, Verdict.EXACT,
    )  # fmt: skip


def test_a_trace_of_another_decoder_of_other_bits_moved(tmp_path: Path) -> None:
    put(tmp_path / "captures", hinted(tmp_path / "a", decoder="tiny"))
    found = the(tmp_path / "captures")
    assert (found.verdict, found.detail.startswith("the replay differs at event ")) == (Verdict.MOVED, True)


def test_traces_of_other_platforms_are_named_and_not_replayed(tmp_path: Path) -> None:
    put(tmp_path / "captures", recorded(tmp_path / "a"), where="cuda-some-gpu")
    found = the(tmp_path / "captures")
    assert (found.name, found.platform, found.verdict) == ("night", "cuda-some-gpu", Verdict.NOT_GATED)
    assert found.detail == "blessed on cuda-some-gpu, and replayed there alone"


def test_each_trace_is_told_before_it_is_played(tmp_path: Path) -> None:
    told: list[str] = []
    put(tmp_path / "captures", recorded(tmp_path / "a"), "late")
    put(tmp_path / "captures", recorded(tmp_path / "b"), "early")
    assert blessed.number(tmp_path / "captures") == 2
    blessed.check(tmp_path / "captures", advance=told.append)
    assert told == ["trace early", "trace late"]


def test_where_no_trace_was_blessed_there_is_nothing_to_check(tmp_path: Path) -> None:
    assert (blessed.number(tmp_path / "none"), blessed.check(tmp_path / "none")) == (0, ())
    (tmp_path / "captures" / platform.name() / "traces").mkdir(parents=True)
    assert (blessed.number(tmp_path / "captures"), blessed.check(tmp_path / "captures")) == (0, ())
