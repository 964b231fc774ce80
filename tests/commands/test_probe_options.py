"""Every option of `probe` reaches what is measured, and what it printed, announced and ended with is what was found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from harness.cli import main
from harness.commands import probe as command
from harness.engine.aot import bindings
from harness.engine.errors import BatchTooLarge, EngineError, ExportRefused, InvalidInput, OutsideProfile
from harness.parity.baselines import contract
from harness.parity.baselines.captures import CAPTURES
from harness.parity.baselines.contract import Finding, Findings, Standing
from harness.parity.baselines.refusals import BlessRefused
from harness.parity.baselines.store import CapturesError
from tests.commands.test_tables import rows

KEPT = Findings((Finding("a", {"rerun": [1]}, {"rerun": []}, Standing.KEPT),), "here", (), {})


class Asked:
    """What a probe was asked for; it finds what it was told, or raises."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.probes: list[tuple[Any, ...]] = []
        self.records: list[tuple[Any, ...]] = []
        self.totals: list[int] = []
        self.finds: Findings | Exception = KEPT

        def answered() -> Findings:
            if isinstance(self.finds, Exception):
                raise self.finds
            return self.finds

        def probe(*asked: Any) -> Findings:
            self.probes.append(asked[:-1])
            return answered()

        def record(*asked: Any) -> Findings:
            self.records.append(asked[:-1])
            return answered()

        @contextmanager
        def progress(_console: Any, total: int, _what: str) -> Iterator[Callable[[str], None]]:
            self.totals.append(total)
            yield lambda _name: None

        patch.setattr(contract, "probe", probe)
        patch.setattr(contract, "record", record)
        patch.setattr(command, "progress", progress)


@pytest.fixture(name="asked")
def _asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(monkeypatch)


def probe(*words: str) -> Result:
    return CliRunner().invoke(main, ["probe", *words])


def test_without_options_what_a_contract_of_this_cpu_covers_is_measured_with_the_blessed_captures(asked: Asked) -> None:
    assert probe().exit_code == 0
    assert asked.probes == [(contract.declared(), CAPTURES)]
    assert [subject.name for subject in asked.probes[0][0]] == [
        f"{decoder}/{executor}/float32/T{frames}/{rows}8"
        for decoder in ("affine", "tiny")
        for executor in ("eager", "static")
        for frames in (16, 75)
        for rows in ("max", "pinned")
    ]


def test_every_option_reaches_the_subjects(asked: Asked, tmp_path: Path) -> None:
    words = ["--decoder", "mid", "--decoder", "tiny", "--executor", "static", "--executor", "eager"]
    words += ["--dtype", "float16", "--dtype", "bfloat16", "--frames", "7", "--frames", "5", "--max-rows", "3"]
    probe(*words, "--device", "cuda:1", "--captures", str(tmp_path))
    subjects = contract.declared(
        ["mid", "tiny"], ["static", "eager"], ["float16", "bfloat16"], [7, 5], max_rows=3, device="cuda:1"
    )
    assert asked.probes == [(subjects, tmp_path)]
    assert asked.records == []


@pytest.mark.parametrize(("device", "used"), [(None, "cuda"), ("cuda:1", "cuda:1")])
def test_a_plan_is_measured_on_the_gpu_that_was_named_or_on_the_first(
    device: str | None, used: str, asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(bindings, "binding", lambda *_: None)
    plan = tmp_path / "a.plan"
    plan.touch()
    words = ["--executor", "tensorrt", "--engine", str(plan), "--decoder", "tiny"]
    probe(*words, *(["--device", device] if device else []))
    ((subjects, _),) = asked.probes
    assert {(each.device, each.engine, each.decoder) for each in subjects} == {(used, plan, "tiny")}


def test_a_file_without_the_name_of_its_decoder_is_a_usage_error(asked: Asked, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").touch()
    result = probe("--executor", "onnx", "--engine", str(tmp_path / "a.onnx"))
    assert (result.exit_code, asked.probes) == (2, [])
    assert "--engine goes with one --decoder, from which the file was made, got 0" in " ".join(result.stderr.split())


@pytest.mark.parametrize(("words", "steps", "end"), [
    ([], 2, ""), (["--frames", "16"], 4, ""), (["--reason", "why"], 4, "; recorded"), (["--reason", ""], 2, ""),
])  # fmt: skip
def test_recording_measures_twice_and_the_last_line_says_that_it_was_recorded(
    words: list[str], steps: int, end: str, asked: Asked
) -> None:
    result = probe("--decoder", "tiny", "--executor", "eager", "--frames", "5", *words)
    assert (result.exit_code, asked.totals) == (0, [steps])
    assert result.stdout.splitlines()[-1] == f"1 subjects: 1 kept (contract of here){end}"


def test_what_was_asked_for_with_a_reason_is_recorded_for_that_reason(asked: Asked, tmp_path: Path) -> None:
    probe("--decoder", "tiny", "--frames", "5", "--max-rows", "2", "--captures", str(tmp_path), "--reason", "a new CPU")
    subjects = contract.declared(["tiny"], frames=[5], max_rows=2)
    assert (asked.probes, asked.records) == ([], [("a new CPU", subjects, tmp_path)])


RESTORE = "restore it with `git checkout`, or bless it anew with `bless --reason`"


@pytest.mark.parametrize(("error", "code", "said"), [
    (CapturesError("contract.json: altered"), 125, f"cannot probe: contract.json: altered; {RESTORE}\n"),
    (EngineError("the driver is gone"), 125, "cannot probe: the driver is gone\n"),
    (ExportRefused("frozen"), 125, "cannot probe: frozen\n"),
    (OutsideProfile("9 rows"), 125, "cannot probe: 9 rows\n"),
    (ArithmeticError("row 0 is not finite"), 125, "cannot probe: row 0 is not finite\n"),
    (BlessRefused("CI is set"), 2, "refused: CI is set\n"),
])  # fmt: skip
@pytest.mark.parametrize("more", [[], ["--reason", "why"]])
def test_what_can_be_expected_to_fail_is_one_line_and_no_finding(
    error: Exception, code: int, said: str, more: list[str], asked: Asked, tmp_path: Path
) -> None:
    asked.finds = error
    result = probe(*more, "--json", str(tmp_path / "r.json"))
    assert (result.exit_code, result.stderr, result.stdout) == (code, said, "")
    assert not (tmp_path / "r.json").exists()


@pytest.mark.parametrize("error", [RuntimeError("broke"), BatchTooLarge("9 rows")])
def test_what_nobody_expects_has_its_traceback_and_is_no_finding(error: Exception, asked: Asked) -> None:
    asked.finds = error
    result = probe()
    assert (result.exit_code, result.stdout) == (125, "")
    assert "Traceback" in result.stderr and str(error) in result.stderr


def test_a_subject_that_cannot_be_made_is_a_usage_error(asked: Asked) -> None:
    asked.finds = InvalidInput("decoder", "nine", "another")
    result = probe()
    assert result.exit_code == 2
    assert "Error: decoder: got nine, expected another" in result.stderr


@pytest.mark.parametrize("words", [["--max-rows", "0"], ["--frames", "0"], ["--dtype", "float64"], ["--executor", "x"]])
def test_what_no_executor_has_is_a_usage_error(words: list[str], asked: Asked) -> None:
    assert probe(*words).exit_code == 2
    assert asked.probes == []


def found(*standings: Standing, recorded: bool = True, differs: tuple[str, ...] = ()) -> Findings:
    findings = tuple(Finding(f"s{n}", {}, {"rerun": [n]}, each) for n, each in enumerate(standings))
    return Findings(findings, "here", differs, {"cpu": "one"}, recorded)


K, G, L, M, N = Standing.KEPT, Standing.GAINED, Standing.LOST, Standing.MISSING, Standing.NOT_GATED


@pytest.mark.parametrize(("findings", "code", "advice"), [
    (found(K), 0, ""),
    (found(K, G), 0, ""),
    (found(K, L), 1, ""),
    (found(L, K, G), 1, ""),
    (found(M, M, recorded=False), 125, "to record one"),
    (found(K, M), 125, "1 of 2 subjects are not in it, to record them"),
    (found(M, K), 125, "1 of 2 subjects are not in it, to record them"),
    (found(L, M), 1, "1 of 2 subjects are not in it, to record them"),
    (found(N, N, differs=("cpu",)), 125, "to record one of this machine in its place"),
    (found(N, M, differs=("cpu",)), 125, "to record one of this machine in its place"),
])  # fmt: skip
@pytest.mark.parametrize("reason", ["", "why"])
def test_findings_are_written_whole_and_the_last_line_advises_where_something_was_not_compared(
    findings: Findings, code: int, advice: str, reason: str, asked: Asked, tmp_path: Path
) -> None:
    asked.finds = findings
    words = ["--decoder", "tiny", "--executor", "eager", "--frames", "5", "--json", str(tmp_path / "r.json")]
    result = probe(*words, "--reason", reason)
    assert result.exit_code == (0 if reason else code)
    assert json.loads((tmp_path / "r.json").read_text()) == json.loads(json.dumps(findings.document()))
    options = "--decoder tiny --executor eager --frames 5"
    lines = [findings.summary() + ("; recorded" if reason else "")]
    lines += [f'{advice}: python -m harness probe {options} --reason "..."'] if advice and not reason else []
    after = result.stdout.splitlines()
    assert after[-len(lines) :] == lines
    assert ("python -m harness probe" in result.stdout) == bool(advice and not reason)
    assert [row[0] for row in rows(result.stdout) if row[0]] == ["subject", *(f.subject for f in findings.findings)]
