"""What a platform's contract says is asked again: nothing that it records may be lost in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from harness import registry
from harness.cli import main
from harness.parity.baselines import contract, platform
from harness.parity.baselines.contract import Findings, Recorded, Standing
from harness.parity.baselines.refusals import BlessRefused
from harness.parity.baselines.store import ManifestAltered
from harness.parity.proofs.invariance import RING, Property, Subject
from tests.git import git

SUBJECT, PINNED = contract.declared(["affine"], ["eager"], frames=[5], max_rows=3)
NAMED = ["--decoder", "affine", "--executor", "eager", "--frames", "5", "--max-rows", "3"]


@pytest.fixture(name="captures")
def _captures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CI", raising=False)
    git(tmp_path, "init", "-q")
    return tmp_path / "captures"


def recorded(captures: Path, **change: Any) -> dict[str, Any]:
    """Record two subjects, commit them, then change what the contract says of one."""
    contract.record("first", [SUBJECT, PINNED], captures)
    file = contract.path(captures)
    document = contract.store.read_document(file)
    document["subjects"][SUBJECT.name].update(change)
    contract.store.write_document(file, document)
    git(captures.parent, "add", "-A")
    git(captures.parent, "commit", "-qm", "contract")
    return document


def found(captures: Path) -> contract.Finding:
    (finding,) = contract.probe([SUBJECT], captures).findings
    return finding


def probe(captures: Path, *more: str) -> Result:
    return CliRunner().invoke(main, ["probe", *NAMED, "--captures", str(captures), *more])


def test_what_was_recorded_is_kept(captures: Path) -> None:
    document = recorded(captures)
    entry = document["subjects"][SUBJECT.name]
    assert entry["holds"]["rows_alone"] == "1-3"
    assert entry["fails"]["padding"] == "1-3"
    assert (found(captures).standing, found(captures).detail) == (Standing.KEPT, "")
    assert probe(captures).exit_code == 0


@pytest.mark.parametrize(("rows", "text"), [([], ""), ([1], "1"), ([1, 2, 3], "1-3"), ([1, 2, 4, 6, 7], "1-2, 4, 6-7")])
def test_numbers_of_rows_are_written_as_ranges(rows: list[int], text: str) -> None:
    assert contract.ranges(rows) == text
    assert contract.numbers(text) == rows


def everything(rows: str) -> dict[str, str]:
    return {asked.value: rows for asked in Property}


def test_a_recorded_property_that_does_not_hold_is_lost(captures: Path, tmp_path: Path) -> None:
    recorded(captures, holds=everything("1"), fails=everything(""))
    assert (found(captures).standing, found(captures).detail) == (Standing.LOST, "padding at 1 rows")
    result = probe(captures, "--json", str(tmp_path / "r.json"))
    assert result.exit_code == 1
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["summary"]["lost"]
    assert report["findings"][0]["standing"] == "lost"


def test_a_recorded_number_of_rows_that_is_not_measured_is_lost(captures: Path) -> None:
    recorded(captures, holds={"rerun": "1-4"})
    assert found(captures).detail == "rerun at 4 rows"


def test_a_recorded_property_that_is_not_measured_any_more_is_lost(captures: Path) -> None:
    recorded(captures, holds={"symmetry": "1-3"}, fails={})
    assert (found(captures).standing, found(captures).detail) == (Standing.LOST, "symmetry at 1-3 rows")


@pytest.mark.parametrize("count", [1, 2, 9, 10, 20, 100])
@pytest.mark.parametrize("standing", contract.Standing)
def test_the_summary_counts_however_many_subjects_have_a_standing_and_names_no_other(
    standing: contract.Standing, count: int
) -> None:
    other = next(each for each in contract.Standing if each is not standing)
    kinds = [standing] * count + [other]
    findings = tuple(contract.Finding(str(number), {}, {}, kind) for number, kind in enumerate(kinds))
    said = Findings(findings, "here", (), {}).summary()
    assert said.startswith(f"{count + 1} subjects: ")
    counted = said.removeprefix(f"{count + 1} subjects: ").removesuffix(" (contract of here)").split(", ")
    assert sorted(counted) == sorted([f"{count} {standing}", f"1 {other}"])


def test_a_property_gained_is_said_and_no_failure(captures: Path) -> None:
    recorded(captures, fails={**everything(""), "rerun": "2"})
    assert (found(captures).standing, found(captures).detail) == (Standing.GAINED, "rerun at 2 rows")
    assert probe(captures).exit_code == 0


def test_without_a_contract_nothing_is_compared_and_nothing_written(captures: Path) -> None:
    assert found(captures).standing is Standing.MISSING
    assert probe(captures).exit_code == 125
    assert not captures.exists()


def test_a_contract_of_another_machine_gates_nothing_and_says_in_what_it_differs(captures: Path) -> None:
    document = recorded(captures, holds=everything("1"), fails=everything(""))
    document["fingerprint"]["cpu_model"] = "another"
    contract.store.write_document(contract.path(captures), document)
    findings = contract.probe([SUBJECT], captures)
    assert (findings.differs, findings.gated, findings.lost) == (("cpu_model",), False, False)
    assert findings.findings[0].standing is Standing.NOT_GATED
    assert "padding at 1 rows" in findings.findings[0].detail
    assert probe(captures).exit_code == 125
    assert "differs in cpu_model" in probe(captures).stdout


def test_an_edited_contract_is_refused(captures: Path) -> None:
    recorded(captures)
    file = contract.path(captures)
    file.write_text(file.read_text().replace('"rerun"', '"reruns"', 1))
    with pytest.raises(ManifestAltered):
        contract.probe([SUBJECT], captures)
    assert probe(captures).exit_code == 125


@pytest.mark.parametrize(
    "subjects", [["one"], {"one": {}}, {"one": {"reason": "", "holds": {"rerun": "x"}, "fails": {}}}]
)
def test_a_file_that_is_no_contract_is_refused_by_name(captures: Path, subjects: Any) -> None:
    file = contract.path(captures)
    contract.store.write_document(file, {"fingerprint": {}, "subjects": subjects})
    with pytest.raises(ManifestAltered, match=f"{file}: altered, not a contract"):
        contract.read(captures)


@pytest.mark.parametrize("why", ["ci", "no reason", "uncommitted", "another machine", "not reproducible"])
def test_recording_is_refused_where_it_would_not_be_an_explicit_act(
    captures: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    document = recorded(captures)
    if why == "ci":
        monkeypatch.setenv("CI", "true")
    if why in ("uncommitted", "another machine"):
        document["fingerprint"]["cpu_model"] = "another"
        document["subjects"]["other"] = document["subjects"][SUBJECT.name]
        contract.store.write_document(contract.path(captures), document)
    if why == "another machine":
        git(captures.parent, "commit", "-qam", "moved")
    if why == "not reproducible":
        seen: list[int] = []
        measured = contract.measured
        monkeypatch.setattr(contract, "measured", lambda subject: (seen.append(1), flipped(measured(subject), seen))[1])
    with pytest.raises(BlessRefused):
        contract.record(" " if why == "no reason" else "again", [SUBJECT], captures)
    assert probe(captures, "--reason", " " if why == "no reason" else "again").exit_code == 2


def flipped(held: Any, seen: list[int]) -> Any:
    return {**held, Property.RERUN: {len(seen): True}}


def test_recording_again_keeps_the_other_subjects(captures: Path) -> None:
    recorded(captures)
    other = Subject("affine", "static", "float32", 5, 3, 3)
    contract.record("more", [other], captures)
    known = contract.read(captures)
    assert known is not None
    assert set(known.entries) == {SUBJECT.name, PINNED.name, other.name}
    assert {entry.reason for entry in known.entries.values()} == {"first", "more"}


def test_an_unknown_decoder_is_a_usage_error(captures: Path) -> None:
    assert CliRunner().invoke(main, ["probe", "--decoder", "nine", "--captures", str(captures)]).exit_code == 2


# This platform's own contract.

ASKED = contract.declared(executors=["eager", "static", "onnx"], frames=[16])
# An odd T is padded there. Free rows of the real architecture are what a machine's kernels make of them.
ON_ENGINES = [s for s in contract.declared(executors=["onnx"], frames=[15]) if s.pin_rows or s.decoder == "affine"]


@pytest.fixture(name="findings", scope="module")
def _findings() -> Findings:
    with platform.one_thread():
        return contract.probe(ASKED)


def test_this_platform_keeps_its_contract_to_the_letter(findings: Findings) -> None:
    """Where the contract was measured on this very machine, it says exactly what holds; a gain is to be recorded."""
    known = contract.read()
    if known is None or findings.differs:
        # Nothing is recorded of this machine. What the engine relies on is asked below, on every machine alike.
        assert {f.standing for f in findings.findings} <= {Standing.MISSING, Standing.NOT_GATED}
        return
    assert {f.subject: Recorded(f.holds, f.fails, known.entries[f.subject].reason) for f in findings.findings} == {
        subject.name: known.entries[subject.name] for subject in ASKED
    }


@pytest.mark.parametrize("subject", ON_ENGINES, ids=lambda subject: subject.name)
def test_what_a_ring_relies_on_holds_on_an_engine(subject: Subject) -> None:
    (finding,) = contract.probe([subject]).findings
    assert {name: rows for name, rows in finding.fails.items() if name in RING and rows} == {}
    assert all(finding.holds[asked.value] for asked in RING)


RELIED_ON = [subject for subject in ASKED if subject.pin_rows is not None or subject.decoder == "affine"]


@pytest.mark.parametrize("subject", RELIED_ON, ids=lambda subject: subject.name)
def test_what_a_ring_relies_on_holds_on_any_platform(findings: Findings, subject: Subject) -> None:
    (finding,) = [f for f in findings.findings if f.subject == subject.name]
    assert {name: rows for name, rows in finding.fails.items() if name in RING and rows} == {}
    assert all(finding.holds[asked.value] for asked in RING)


def test_a_cpu_s_contract_covers_these_combinations_and_no_executor_or_dtype_in_its_fingerprint() -> None:
    subjects = contract.declared()
    assert [(s.decoder, s.executor, s.dtype, s.frames, s.pin_rows, s.max_rows, s.device) for s in subjects] == [
        (decoder, str(executor), "float32", frames, pin, 8, "cpu")
        for decoder in ("affine", "tiny")
        for executor in registry.COMPARED
        for frames in (16, 75)
        for pin in (None, 8)
    ]
    facts = platform.fingerprint()
    assert platform.of_device() == {name: facts[name] for name in facts if name not in ("executor", "dtype")}
    assert {"executor", "dtype"} <= facts.keys()
