"""`bless`: what is written, refused or broken, and the nearest case that must not be so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.commands.exits import DIFFERS
from harness.parity.baselines import store
from harness.parity.baselines.bless import MARGIN, ReplayFailed, fresh_digests, plain_tensors
from harness.rails.costs.rails import counted_afresh
from tests.git import git
from tests.judged.conftest import UNIT, K, Made
from tests.judged.rows import CODES, Gives, Row, both, nothing, without_row


class Done(StrEnum):
    """What became of the folder of captures."""

    WRITTEN = "written"
    UNTOUCHED = "untouched"


WRITTEN, UNTOUCHED = Gives(Done.WRITTEN, 0), Gives(Done.UNTOUCHED, 0)
REFUSED, CRASHED = Gives(Done.UNTOUCHED, 2), Gives(Done.UNTOUCHED, 125)


class Blessing:
    """A bless of captures that were committed, with a reason; a test spoils one thing."""

    def __init__(self, made: Made, patch: pytest.MonkeyPatch) -> None:
        self.made, self.patch = made, patch
        self.reason, self.options = "why", list[str]()

    def said(self) -> Gives:
        """What became of the folder, and the exit code; what was written must be said, and nothing else."""
        before = self.made.contents()
        result = self.made.invoke("bless", "--reason", self.reason, *self.options)
        written = self.made.contents() != before
        if result.exit_code == 0:
            assert ("nothing written" in result.stdout) is not written
            assert self.made.invoke("check").exit_code == 0, "what was blessed must check"
        return Gives(Done.WRITTEN if written else Done.UNTOUCHED, result.exit_code)


def moved(made: Blessing) -> None:
    made.made.nudge(1)


def and_moved(*acts: Callable[[Blessing], Any]) -> Callable[[Blessing], None]:
    """There is something to write, and also this."""

    def act(made: Blessing) -> None:
        moved(made)
        for each in acts:
            each(made)

    return act


def ci(value: str) -> Callable[[Blessing], None]:
    return and_moved(lambda made: made.patch.setenv("CI", value))


def reason(text: str) -> Callable[[Blessing], None]:
    def act(made: Blessing) -> None:
        moved(made)
        made.reason = text

    return act


def uncommitted(made: Blessing) -> None:
    (made.made.captures / "new").touch()


def uncommitted_elsewhere(made: Blessing) -> None:
    (made.made.root / "new").touch()


def ignored(pattern: str, file: str) -> Callable[[Blessing], None]:
    def act(made: Blessing) -> None:
        (made.made.root / ".gitignore").write_text(f"{pattern}\n")
        git(made.made.root, "add", ".gitignore")
        git(made.made.root, "commit", "-qm", "ignore")
        (made.made.root / file).touch()

    return act


def differs_at(replay: int) -> Callable[[Blessing], None]:
    """Alpha's replay of this number, from 1, makes other bytes; the third is the fresh process's."""

    def act(made: Blessing) -> None:
        play, fresh = made.made.play, made.made._fresh

        def other(scenario: Any) -> Any:
            played = play(scenario)
            if scenario.name == "alpha" and len(made.made.calls["alpha"]) == replay:
                played.finished["r0"] = played.finished["r0"] + UNIT
            return played

        def afresh(names: Any) -> Any:
            made.made.nudge(1 if replay == 3 else 0)
            return fresh(names)

        made.patch.setattr(made.made, "play", other)
        made.patch.setattr(made.made, "_fresh", afresh)

    return act


def other_ticks(replay: int, *ticks: str) -> Callable[[Blessing], None]:
    """Alpha's replay of this number finishes the same latents through these states."""

    def act(made: Blessing) -> None:
        play, fresh = made.made.play, made.made._fresh

        def other(scenario: Any) -> Any:
            played = play(scenario)
            if scenario.name == "alpha" and len(made.made.calls["alpha"]) == replay:
                played.ticks = ticks
            return played

        def afresh(names: Any) -> Any:
            found = fresh(names)
            return {**found, "alpha": replace(found["alpha"], ticks=ticks)} if replay == 3 else found

        made.patch.setattr(made.made, "play", other)
        made.patch.setattr(made.made, "_fresh", afresh)

    return act


def afresh_of(*names: str) -> Callable[[Blessing], None]:
    """The fresh process answers for these scenarios."""

    def act(made: Blessing) -> None:
        fresh = made.made._fresh
        made.patch.setattr(made.made, "_fresh", lambda _names: fresh(names))

    return act


def elsewhere(made: Blessing) -> None:
    made.made.elsewhere()
    made.made.commit()


def only(name: str) -> Callable[[Blessing], None]:
    return lambda made: made.options.extend(["--only", name])


def corrupt(made: Blessing) -> None:
    made.made.manifest.write_text("{")
    made.made.commit()


def empty(made: Blessing) -> None:
    made.made.finished["alpha"] = {"r0": torch.empty(0)}


def nearly_empty(made: Blessing) -> None:
    made.made.finished["alpha"] = {"r0": torch.full((1, 1), 2.0), "r1": torch.empty(0)}


def plain_moves_zero(made: Blessing) -> None:
    made.made.finished["alpha"]["r0"] = torch.zeros(3, 4)


def plain_leaves_zero(made: Blessing) -> None:
    plain_moves_zero(made)
    made.made.plain = 0.0


def plain_is_nan(made: Blessing) -> None:
    made.made.plain = float("nan")


def crash(made: Blessing) -> None:
    made.made.crashes.add("beta")


def of_beta_alone(made: Blessing) -> None:
    crash(made)
    only("alpha")(made)
    made.patch.setattr(made, "said", lambda: said_of_alpha(made))


def said_of_alpha(made: Blessing) -> Gives:
    before = made.made.contents()
    code = made.made.invoke("bless", "--reason", made.reason, *made.options).exit_code
    return Gives(Done.WRITTEN if made.made.contents() != before else Done.UNTOUCHED, code)


TABLE = [
    Row("a scenario moved by one ULP", moved, WRITTEN, "none moved", nothing, UNTOUCHED),
    Row("another digest of a tick", lambda m: m.made.ticks.update(alpha=("xx",)), WRITTEN,
        "the same", nothing, UNTOUCHED),
    Row("captures of another machine, and the same bits", elsewhere, WRITTEN, "of this one", nothing, UNTOUCHED),
    Row("a scenario that is no more", lambda m: m.made.scenarios.pop("beta"), WRITTEN, "all there", nothing, UNTOUCHED),
    Row("continuous integration", ci("true"), REFUSED, "CI=false", ci("false"), WRITTEN),
    Row("CI=1", ci("1"), REFUSED, "CI=0", ci("0"), WRITTEN),
    Row("a reason of spaces", reason("  "), REFUSED, "of one letter", reason("x"), WRITTEN),
    Row("an uncommitted capture", and_moved(uncommitted), REFUSED,
        "another uncommitted file", and_moved(uncommitted_elsewhere), WRITTEN),
    Row("an ignored capture", and_moved(ignored("*.bak", "captures/old.bak")), REFUSED,
        "another ignored file", and_moved(ignored("*.bak", "old.bak")), WRITTEN),
    Row("a second replay that differs", and_moved(differs_at(2)), REFUSED, "none", moved, WRITTEN),
    Row("a third replay, in a fresh process, that differs", and_moved(differs_at(3)), REFUSED,
        "a fourth, which nobody makes", and_moved(differs_at(4)), WRITTEN),
    Row("the same latents through another state, in the second replay", and_moved(other_ticks(2, "aa", "xx", "cc")),
        REFUSED, "through the same", and_moved(other_ticks(2, "aa", "bb", "cc")), WRITTEN),
    Row("the same latents through another state, in a fresh process", and_moved(other_ticks(3, "aa", "xx", "cc")),
        REFUSED, "through the same", and_moved(other_ticks(3, "aa", "bb", "cc")), WRITTEN),
    Row("the same latents after fewer ticks, in a fresh process", and_moved(other_ticks(3, "aa", "bb")),
        REFUSED, "after as many", and_moved(other_ticks(3, "aa", "bb", "cc")), WRITTEN),
    Row("a fresh process that leaves out a scenario", and_moved(afresh_of("alpha")), REFUSED,
        "that answers for each", and_moved(afresh_of("beta", "alpha")), WRITTEN),
    Row("some, beside captures of another machine", and_moved(elsewhere, only("alpha")), REFUSED,
        "beside this machine's", and_moved(only("alpha")), WRITTEN),
    Row("some, over a corrupt manifest", and_moved(corrupt, only("alpha")), REFUSED,
        "all over it", and_moved(corrupt), WRITTEN),
    Row("a scenario without an element", empty, REFUSED, "with one element", nearly_empty, WRITTEN),
    Row("zeros that plain kernels move", plain_moves_zero, REFUSED,
        "that they leave", plain_leaves_zero, WRITTEN),
    Row("plain kernels that give no number", and_moved(plain_is_nan), REFUSED, "and nothing to measure", plain_is_nan,
        UNTOUCHED),
    Row("a crash", and_moved(crash), CRASHED, "of another scenario than the one asked for", and_moved(of_beta_alone),
        WRITTEN),
]  # fmt: skip


@both(TABLE)
def test_bless(act: Callable[[Blessing], Any], gives: Gives, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    blessing = Blessing(made, monkeypatch)
    act(blessing)
    assert blessing.said() == gives


def test_every_outcome_and_exit_code_has_a_row() -> None:
    """Bless judges nothing, so it never exits with 1."""
    assert without_row(TABLE, Done, CODES - {DIFFERS}) == set()
    assert DIFFERS not in {row.gives.code for row in TABLE} | {row.instead.code for row in TABLE}


@pytest.mark.parametrize("replay", [lambda: fresh_digests(["s"]), lambda: plain_tensors([]), counted_afresh])
@pytest.mark.parametrize(("end", "code"), [("exit 1", 1), ("exit 255", 255), ("kill -9 $$", -9), ("kill -15 $$", -15)])
def test_what_a_fresh_process_wrote_before_it_failed_is_no_replay(
    replay: Callable[[], Any], end: str, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "python"
    monkeypatch.setattr("sys.executable", str(script))
    script.write_text("#!/bin/sh\necho '{}'\n")
    script.chmod(0o755)
    assert replay() == {}
    script.write_text(f"#!/bin/sh\necho '{{}}'\necho of this >&2\n{end}\n")
    with pytest.raises(ReplayFailed, match=f"exited with {code}:\nof this$"):
        replay()


# Tolerances.


def test_a_tolerance_of_another_machine_is_never_kept(made: Made) -> None:
    """It was measured on other kernels: here it may be far too wide."""
    before = {name: entry.k for name, entry in store.read_manifest(made.own).scenarios.items()}
    made.elsewhere()
    made.commit()
    made.plain = K
    made.invoke("bless", "--reason", "here")
    after = {name: entry.k for name, entry in store.read_manifest(made.own).scenarios.items()}
    assert before == {"alpha": K, "beta": K}
    assert after == {"alpha": 4 * K, "beta": 4 * K}


def test_a_tolerance_of_this_machine_is_kept_where_its_scenario_did_not_move(made: Made) -> None:
    made.plain = K
    made.nudge(4)
    made.invoke("bless", "--reason", "alpha moved")
    entries = store.read_manifest(made.own).scenarios
    assert entries["beta"].k == K
    assert entries["alpha"].k > 3 * K


@pytest.mark.parametrize("steps", [1.0, 2.0])
def test_k_is_four_times_what_plain_kernels_move_the_tensor_that_they_move_most(made: Made, steps: float) -> None:
    """docs/captures.md says four times."""
    made.plain = steps
    made.elsewhere()
    made.commit()
    made.invoke("bless", "--reason", "here")
    assert store.read_manifest(made.own).scenarios["alpha"].k == 4 * steps
    assert MARGIN == 4
