"""Errors say what to do next."""

from __future__ import annotations

import re

import click
import pytest
from click.testing import CliRunner

from harness.cli import main
from harness.commands.advice import advised
from harness.commands.common import could_not_run
from harness.engine.errors import CheckpointRefused, PlanCorrupt
from harness.parity.baselines import platform, store

KNOWN = [
    store.NoCaptures("x: no captures"),
    store.CaptureMissing("x: missing"),
    store.ManifestAltered("x: altered"),
    store.CaptureUnknown("x: unknown"),
    platform.NoReferencePlatform("x: missing"),
    PlanCorrupt("x: truncated"),
    CheckpointRefused("x", "nothing", "weights"),
    PermissionError(13, "Permission denied", "x"),
]


@pytest.mark.parametrize("error", KNOWN, ids=lambda error: type(error).__name__)
def test_an_error_is_followed_by_what_to_do_in_one_line(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, could_not_run("check", type(error)):
        raise error
    said = capsys.readouterr().err
    assert ended.value.code == 125
    assert re.fullmatch(rf"cannot check: {re.escape(str(error))}; (\w+ )+.*\n", said)


def test_an_error_without_advice_is_said_as_it_is() -> None:
    assert advised(ValueError("x: got 3, expected 4")) == "x: got 3, expected 4"


def test_a_kind_of_captures_error_has_the_advice_of_the_nearest_class() -> None:
    assert "restore" in advised(store.ManifestMissing("x")) and "--captures" in advised(store.NoCaptures("x"))


@pytest.mark.parametrize(("error", "words"), [
    (store.NoCaptures("x"), "name their folder with --captures, or bless this platform's"),
    (store.CaptureUnknown("x"), "remove the file, or bless its scenario"),
    (store.CaptureMissing("x"), "restore it with `git checkout`, or bless it anew"),
    (store.CaptureCorrupt("x"), "restore it with `git checkout`, or bless it anew"),
    (FileNotFoundError(2, "No such file", "x"), "name a file that is there"),
    (PermissionError(13, "Permission denied", "x"), "name a file that this user may read and write"),
], ids=lambda value: type(value).__name__)  # fmt: skip
def test_the_advice_is_that_of_the_error_s_own_class(error: Exception, words: str) -> None:
    assert advised(error).partition("; ")[2].startswith(words)


@pytest.mark.parametrize("error", KNOWN, ids=lambda error: type(error).__name__)
def test_every_option_and_command_of_an_advice_is_there(error: Exception) -> None:
    advice = advised(error).partition("; ")[2]
    options = {option for command in main.commands.values() for each in command.params for option in each.opts}
    assert set(re.findall(r"--[a-z-]+", advice)) <= options
    assert {words.split()[0] for words in re.findall(r"`([^`]+)`", advice)} <= {*main.commands, "git"}


def test_a_wrong_device_is_answered_with_right_ones() -> None:
    done = CliRunner().invoke(main, ["check", "--device", "nonsense"])
    assert "such as cpu or cuda" in click.unstyle(done.stderr)
