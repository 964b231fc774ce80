"""A part of `check --all` that cannot run hides nothing of the others."""

from __future__ import annotations

import click
import pytest

from harness.commands.parts import Parts
from harness.parity.baselines.store import ManifestAltered

KNOWN = (ManifestAltered,)


@pytest.mark.parametrize(("error", "words"), [(ManifestAltered("a.json: altered"), 0), (KeyError("gone"), 1)])
def test_an_error_is_printed_and_kept_and_what_follows_runs(
    error: Exception, words: int, capsys: pytest.CaptureFixture[str]
) -> None:
    parts, ran = Parts("check", True, KNOWN), []
    with parts.isolated("captures"):
        ran.append("captures")
    with parts.isolated("costs"):
        raise error
    with parts.isolated("switches"):
        ran.append("switches")
    said = capsys.readouterr().err
    assert ("Traceback" in said, f"cannot check costs: {error}" in said) == (bool(words), not words)
    assert ran == ["captures", "switches"]
    assert parts.failed == {"costs": f"{type(error).__name__}: {error}"}


def test_the_one_part_of_a_command_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    parts = Parts("check", False, KNOWN)
    with pytest.raises(SystemExit) as ended, parts.isolated("costs"):
        raise ManifestAltered("a.json: altered")
    assert (ended.value.code, parts.failed) == (125, {})
    todo = "restore it with `git checkout`, or bless it anew with `bless --reason`"
    assert capsys.readouterr().err == f"cannot check: a.json: altered; {todo}\n"


@pytest.mark.parametrize("error", [click.UsageError("wrong"), KeyboardInterrupt(), SystemExit(1)])
def test_what_is_no_failure_of_a_part_ends_the_command(error: BaseException) -> None:
    parts = Parts("check", True, KNOWN)
    with pytest.raises(type(error)), parts.isolated("costs"):
        raise error
    assert parts.failed == {}
