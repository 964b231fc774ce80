"""A probe that has nothing to compare with says how to record a contract, and the command it names is not refused."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from torch import Tensor

from harness.cli import main
from harness.commands import recording
from harness.engine.decoders import AffineDecoder
from harness.engine.errors import InvalidInput
from harness.parity.baselines import contract, platform
from harness.parity.proofs.invariance import Subject
from tests.git import commit, git

NAMED = ["--decoder", "affine", "--executor", "eager", "--frames", "5", "--max-rows", "2"]
HERE = platform.name()
RECORD = "python -m harness probe "


@pytest.fixture(name="captures")
def _captures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CI", raising=False)
    git(tmp_path, "init", "-q")
    return tmp_path / "captures"


def probe(captures: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["probe", *options, "--captures", str(captures)])


def of_another_machine(captures: Path, *more: Subject) -> None:
    """A contract of this platform's name that another machine recorded."""
    subjects = contract.declared(["affine"], ["eager"], frames=[5], max_rows=2)
    contract.record("first", [*subjects, *more], captures)
    document = contract.store.read_document(contract.path(captures))
    document["fingerprint"]["cpu_model"] = "another"
    contract.store.write_document(contract.path(captures), document)
    commit(captures.parent)


def advice(result: Result) -> str:
    (line,) = [line for line in result.stdout.splitlines() if RECORD in line]
    return line


def followed(captures: Path, result: Result) -> Result:
    """What comes of the command that a probe names, with a reason."""
    words = shlex.split(advice(result).partition(RECORD)[2])
    assert words[-2:] == ["--reason", "..."]
    return CliRunner().invoke(main, ["probe", *words[:-1], "why"])


def test_without_a_contract_the_command_that_records_one_is_named(captures: Path) -> None:
    result = probe(captures, *NAMED)
    assert result.exit_code == 125
    assert f"no contract of {HERE}" in result.stdout
    options = f"--decoder affine --executor eager --frames 5 --max-rows 2 --captures {captures}"
    assert advice(result).endswith(f'{RECORD}{options} --reason "..."')
    assert followed(captures, result).exit_code == 0
    assert probe(captures, *NAMED).exit_code == 0


def test_a_probe_without_options_names_the_command_without_options(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = contract.Findings((), HERE, (), {}, recorded=False)
    monkeypatch.setattr(contract, "probe", lambda *_: empty)
    assert advice(CliRunner().invoke(main, ["probe"])).endswith(f'{RECORD}--reason "..."')


def test_a_reason_without_words_and_a_report_are_no_part_of_the_named_command(captures: Path, tmp_path: Path) -> None:
    result = probe(captures, *NAMED, "--reason", "", "--json", str(tmp_path / "r.json"))
    options = f"--decoder affine --executor eager --frames 5 --max-rows 2 --captures {captures}"
    assert advice(result).endswith(f'{RECORD}{options} --reason "..."')


def test_a_contract_of_another_machine_is_named_as_such_with_what_differs(captures: Path) -> None:
    of_another_machine(captures)
    result = probe(captures, *NAMED)
    assert result.exit_code == 125
    assert "contract of another machine, this one differs in cpu_model" in result.stdout
    assert "in its place" in advice(result)
    assert followed(captures, result).exit_code == 0
    assert probe(captures, *NAMED).exit_code == 0


def test_the_command_measures_what_the_other_machine_recorded_too(captures: Path) -> None:
    of_another_machine(captures, *contract.declared(["affine"], ["static"], frames=[6], max_rows=2))
    result = probe(captures, *NAMED)
    assert "--executor eager --executor static --frames 5 --frames 6" in advice(result)
    assert followed(captures, result).exit_code == 0


@pytest.mark.parametrize("other", [
    Subject("affine", "eager", "float32", 5, 3, 3),
    Subject("affine", "eager", "float32", 5, None, 7),
])  # fmt: skip
def test_where_no_one_command_measures_all_of_it_the_rest_is_named(captures: Path, other: Subject) -> None:
    of_another_machine(captures, other)
    assert f"refused unless {other.name} is measured" in advice(probe(captures, *NAMED))


def test_beside_a_file_that_was_named_nothing_else_can_be_measured(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").touch()
    subjects = contract.declared(["affine"], ["onnx"], frames=[5], engine=tmp_path / "a.onnx")
    found = contract.Findings((), HERE, ("cpu_model",), {}, unmeasured=("tiny/eager/float32/T5/max8",))
    line = recording.advice(found, subjects, {"executor": ("onnx",)})
    assert "refused unless tiny/eager/float32/T5/max8 is measured" in line
    assert line.endswith('probe --executor onnx --reason "..."')


def test_subjects_that_this_machines_contract_lacks_are_counted(captures: Path) -> None:
    assert probe(captures, *NAMED, "--reason", "first").exit_code == 0
    commit(captures.parent)
    result = probe(captures, *NAMED, "--frames", "6")
    assert result.exit_code == 125
    assert "2 of 4 subjects are not in it" in advice(result)
    assert followed(captures, result).exit_code == 0


@pytest.mark.parametrize("more", [[], ["--reason", "again"]])
def test_where_a_contract_gates_nothing_is_advised(captures: Path, more: list[Any]) -> None:
    assert RECORD not in probe(captures, *NAMED, "--reason", "first").stdout
    commit(captures.parent)
    assert RECORD not in probe(captures, *NAMED, *more).stdout


@pytest.mark.parametrize("more", [[], ["--reason", "why"]])
@pytest.mark.parametrize("error", [None, RuntimeError("the driver is gone")])
def test_where_nothing_can_be_measured_nothing_is_lost(
    captures: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], error: Exception | None
) -> None:
    assert probe(captures, *NAMED, "--reason", "first").exit_code == 0
    commit(captures.parent)
    before = contract.path(captures).read_bytes()

    def broken(self: AffineDecoder, **inputs: Tensor) -> Tensor:
        if error:
            raise error
        return inputs["hidden_states"] * float("nan")

    monkeypatch.setattr(AffineDecoder, "__call__", broken)
    result = probe(captures, *NAMED, *more)
    assert result.exit_code == 125, result.output
    assert (str(error) if error else "cannot probe: the decoder's output for rows [0] is not finite") in result.stderr
    assert contract.path(captures).read_bytes() == before


def test_what_is_measured_is_what_was_typed_and_nothing_that_was_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def declared(**given: Any) -> None:
        seen.append(given)
        raise InvalidInput("decoder", "enough", "nothing")

    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(contract, "declared", declared)
    typed = "--decoder affine --decoder tiny --executor static --dtype bfloat16 --dtype float16 --frames 5 --frames 6"
    for words in (f"{typed} --max-rows 3 --device meta", ""):
        CliRunner().invoke(main, ["probe", *words.split()])
    assert seen == [
        {
            "decoders": ("affine", "tiny"),
            "executors": ("static",),
            "dtypes": ("bfloat16", "float16"),
            "frames": (5, 6),
            "max_rows": 3,
            "device": "meta",
            "engine": None,
        },
        {"max_rows": 8, "device": "cpu", "engine": None},
    ]
