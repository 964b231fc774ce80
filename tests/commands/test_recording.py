"""The line that names the command which records a contract, word for word."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.commands import probe, recording
from harness.parity.baselines import contract
from harness.parity.baselines.contract import Finding, Findings, Standing

COMMAND = "python -m harness probe"
REASON = '--reason "..."'
SUBJECTS = contract.declared(["tiny"], ["static"], ["float32"], [16], max_rows=4)


def found(*standings: Standing, differs: bool = False, recorded: bool = True, left: Sequence[str] = ()) -> Findings:
    findings = tuple(Finding(str(number), {}, {}, standing) for number, standing in enumerate(standings))
    return Findings(findings, "here", ("cpu_model",) if differs else (), {}, recorded, tuple(left))


def elsewhere(*left: str) -> Findings:
    """What a probe finds beside a contract of another machine, with these subjects left out."""
    return found(Standing.NOT_GATED, Standing.NOT_GATED, differs=True, left=left)


def advice(findings: Findings, **given: Any) -> str:
    return recording.advice(findings, SUBJECTS, given)


@pytest.mark.parametrize("standings", [(Standing.KEPT,), (Standing.LOST, Standing.KEPT), (Standing.GAINED,)])
def test_where_everything_was_compared_there_is_no_line(standings: tuple[Standing, ...]) -> None:
    assert advice(found(*standings, left=("affine/eager/float32/T5/max4",)), frames=(16,)) == ""


def test_without_a_contract_the_command_is_the_one_that_was_given() -> None:
    missing = found(Standing.MISSING, Standing.MISSING, recorded=False)
    assert advice(missing) == f"to record one: {COMMAND} {REASON}"
    assert advice(missing, decoder=("tiny",), frames=(16,)) == (
        f"to record one: {COMMAND} --decoder tiny --frames 16 {REASON}"
    )


def test_options_stand_in_one_order_and_the_others_after_what_is_measured_as_they_were_given() -> None:
    line = advice(
        found(Standing.MISSING, recorded=False),
        captures=Path("c"),
        device="cuda:1",
        max_rows=4,
        frames=(16,),
        dtype=("float32",),
        executor=("static",),
        decoder=("tiny",),
    )
    options = "--decoder tiny --executor static --dtype float32 --frames 16 --captures c --device cuda:1 --max-rows 4"
    assert line == f"to record one: {COMMAND} {options} {REASON}"


@pytest.mark.parametrize(("standings", "said"), [
    ((Standing.MISSING,), "1 of 1"),
    ((Standing.MISSING, Standing.LOST, Standing.MISSING, Standing.KEPT, Standing.GAINED), "2 of 5"),
])  # fmt: skip
def test_those_alone_that_a_contract_of_this_machine_lacks_are_counted_and_nothing_else_is_to_be_measured(
    standings: tuple[Standing, ...], said: str
) -> None:
    line = advice(found(*standings, left=("affine/eager/bfloat16/T5/max4",)), max_rows=4)
    assert line == f"{said} subjects are not in it, to record them: {COMMAND} --max-rows 4 {REASON}"


def test_what_another_machine_recorded_is_added_after_what_was_asked_and_each_once() -> None:
    line = advice(
        elsewhere(
            "affine/eager/bfloat16/T5/max4",
            "affine/eager/bfloat16/T5/pinned4",
            "affine/static/float32/T16/max4",
            "tiny/static/float32/T5/pinned4",
        ),
        max_rows=4,
    )
    options = "--decoder tiny --decoder affine --executor static --executor eager --dtype float32 --dtype bfloat16"
    assert line == (
        f"to record one of this machine in its place: {COMMAND} {options} --frames 16 --frames 5 --max-rows 4 {REASON}"
    )


@pytest.mark.parametrize("rows", ["max4", "pinned4"])
def test_only_the_options_that_must_have_more_values_are_added(rows: str) -> None:
    line = advice(elsewhere(f"tiny/static/float32/T75/{rows}"))
    assert line == (f"to record one of this machine in its place: {COMMAND} --frames 16 --frames 75 {REASON}")


@pytest.mark.parametrize(("left", "words"), [
    (["tiny/static/float32/T16/max5"], "tiny/static/float32/T16/max5 is"),
    (["tiny/static/float32/T16/pinned5", "tiny/static/float32/T16/max5"],
     "tiny/static/float32/T16/max5, tiny/static/float32/T16/pinned5 are"),
    (["b", "a", "c"], "a, b, c are"),
    (["mid/eager/float16/T5/max4/0a1b2c3d4e5f"], "mid/eager/float16/T5/max4/0a1b2c3d4e5f is"),
    (["of x/mid/eager/float16/Tx/max4"], "of x/mid/eager/float16/Tx/max4 is"),
])  # fmt: skip
def test_what_the_command_cannot_measure_is_named_in_order(left: list[str], words: str) -> None:
    line = advice(elsewhere(*left))
    purpose = f"to record one of this machine in its place (refused unless {words} measured too)"
    assert line == f"{purpose}: {COMMAND} {REASON}"


def test_what_the_command_measures_is_not_named_beside_what_it_cannot() -> None:
    line = advice(elsewhere("other", "tiny/static/float32/T75/pinned4", "tiny/static/float32/T75/max4"))
    purpose = "to record one of this machine in its place (refused unless other is measured too)"
    assert line == f"{purpose}: {COMMAND} --frames 16 --frames 75 {REASON}"


def test_a_decoder_that_is_a_folder_is_told_from_its_name_and_quoted() -> None:
    line = advice(elsewhere("/models/my own/v1/static/float32/T16/max4"), captures=Path("my captures"))
    assert line == (
        "to record one of this machine in its place: "
        f"{COMMAND} --decoder tiny --decoder '/models/my own/v1' --captures 'my captures' {REASON}"
    )


@settings(max_examples=20)
@given(
    st.lists(st.text("ab '\"$\\/;*", min_size=1), min_size=1, max_size=3, unique=True),
    st.lists(st.integers(1, 99), min_size=1, max_size=3, unique=True),
    st.text("ab '\"$\\/;*", min_size=1),
)
def test_a_shell_reads_the_options_as_they_were_given(decoders: list[str], frames: list[int], captures: str) -> None:
    subjects = contract.declared(decoders, ["eager"], frames=frames)
    given = {"decoder": tuple(decoders), "frames": tuple(frames), "captures": captures}
    line = recording.advice(found(Standing.MISSING, recorded=False), subjects, given)
    words = [word for name in decoders for word in ("--decoder", name)]
    words += [word for number in frames for word in ("--frames", str(number))]
    assert shlex.split(line.removeprefix(f"to record one: {COMMAND}")) == [
        *words,
        "--captures",
        captures,
        "--reason",
        "...",
    ]


def test_the_options_of_the_command_line_are_named_as_they_are_typed(tmp_path: Path) -> None:
    words = ["--dtype", "float16", "--dtype", "float32", "--decoder", "tiny", "--frames", "7", "--max-rows", "3"]
    words += ["--reason", "", "--json", str(tmp_path / "r.json"), "--device", "cpu", "--executor", "static"]
    context = probe.probe_command.make_context("probe", words)
    given = probe._given(context)
    assert given == {
        "dtype": ("float16", "float32"),
        "decoder": ("tiny",),
        "frames": (7,),
        "max_rows": 3,
        "device": "cpu",
        "executor": ("static",),
    }
    named = shlex.split(recording.advice(found(Standing.MISSING, recorded=False), SUBJECTS, given))
    asked = probe.probe_command.make_context("probe", named[named.index("probe") + 1 :]).params
    assert asked["dtypes"] == ("float32",), "what was measured, which is for the command to pass on"
    assert {name: asked[name] for name in ("decoders", "frames", "max_rows", "device")} == {
        "decoders": ("tiny",),
        "frames": (16,),
        "max_rows": 3,
        "device": "cpu",
    }
