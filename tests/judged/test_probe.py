"""`probe`: each standing and exit code, and the nearest case that must not give it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.parity.baselines import contract, platform, store
from harness.parity.baselines.contract import Standing
from harness.parity.proofs.invariance import Property
from tests.judged.conftest import Made, report
from tests.judged.rows import Gives, Row, both, nothing, without_row

KEPT, GAINED = Gives(Standing.KEPT, 0), Gives(Standing.GAINED, 0)
LOST, MISSING = Gives(Standing.LOST, 1), Gives(Standing.MISSING, 125)
NOT_GATED = Gives(Standing.NOT_GATED, 125)
NO_REPORT, REFUSED = Gives(None, 125), Gives(None, 2)
FREE, PINNED = "affine/eager/float32/T5/max2", "affine/eager/float32/T5/pinned2"


class Measured:
    """A probe of two subjects, of which a contract records that all holds but padding at two rows."""

    def __init__(self, made: Made, patch: pytest.MonkeyPatch) -> None:
        self.made, self.patch, self.calls = made, patch, [0]
        whole = {asked: {1: True, 2: asked is not Property.PADDING} for asked in Property}
        self.held: dict[str, Any] = {name: {asked: dict(at) for asked, at in whole.items()} for name in (FREE, PINNED)}
        patch.setattr(contract, "measured", self._measured)
        self.options = ["--decoder", "affine", "--executor", "eager", "--frames", "5", "--max-rows", "2"]
        assert self.probe("--reason", "first").exit_code == 0
        made.commit()

    def _measured(self, subject: Any) -> Any:
        self.calls[0] += 1
        return self.held[subject.name]

    def probe(self, *more: str) -> Any:
        return self.made.invoke("probe", *self.options, *more)

    def recorded(self, change: Callable[[dict[str, Any]], Any]) -> None:
        """Change what the contract says, and commit it."""
        file = contract.path(self.made.captures)
        document = store.read_document(file)
        change(document)
        store.write_document(file, document)
        self.made.commit()

    def said(self) -> Gives:
        """The one standing beside `kept`, and the exit code."""
        path = self.made.root / "r.json"
        result = self.probe("--json", str(path))
        found = {Standing(each["standing"]) for each in report(path).get("findings", [])}
        (standing,) = (found - {Standing.KEPT}) or found or {None}
        return Gives(standing, result.exit_code)


def holds(asked: Property, rows: int, truth: bool, name: str = FREE) -> Callable[[Measured], None]:
    def act(made: Measured) -> None:
        made.held[name][asked][rows] = truth

    return act


def not_measured(asked: Property, rows: int) -> Callable[[Measured], None]:
    def act(made: Measured) -> None:
        del made.held[FREE][asked][rows]

    return act


def recorded(change: Callable[[dict[str, Any]], Any]) -> Callable[[Measured], None]:
    return lambda made: made.recorded(change)


def of_another_machine(*more: Callable[[Measured], Any], **fields: str) -> Callable[[Measured], None]:
    def act(made: Measured) -> None:
        made.recorded(lambda document: document["fingerprint"].update(fields or {"cpu_model": "another"}))
        for each in more:
            each(made)

    return act


def with_options(*words: str) -> Callable[[Measured], None]:
    return lambda made: made.options.extend(words)


def raising(error: Exception) -> Callable[[Measured], None]:
    def act(made: Measured) -> None:
        def broken(_: Any) -> Any:
            raise error

        made.patch.setattr(contract, "measured", broken)

    return act


def recording(*acts: Callable[[Measured], Any], reason: str = "why") -> Callable[[Measured], None]:
    def act(made: Measured) -> None:
        for each in acts:
            each(made)
        made.options += ["--reason", reason]

    return act


def under_ci(value: str) -> Callable[[Measured], None]:
    return lambda made: made.patch.setenv("CI", value)


def uncommitted(made: Measured) -> None:
    (made.made.captures / "new").touch()


def not_the_same_again(made: Measured) -> None:
    once = made._measured

    def measured(subject: Any) -> Any:
        found = once(subject)
        return {**found, Property.RERUN: {1: True, 2: made.calls[0] % 4 == 0}}

    made.patch.setattr(contract, "measured", measured)


def with_more(document: dict[str, Any]) -> None:
    document["subjects"]["more"] = document["subjects"][FREE]


def lost_and_lacking(lacking: str) -> Callable[[Measured], None]:
    """The free subject loses a property; the contract lacks one of the two."""

    def act(made: Measured) -> None:
        made.recorded(lambda document: document["subjects"].pop(lacking))
        holds(Property.RERUN, 1, False)(made)

    return act


TABLE = [
    Row("a property lost at one number of rows", holds(Property.RERUN, 2, False), LOST,
        "one that was recorded as failing fails", holds(Property.PADDING, 2, False), KEPT),
    Row("a recorded number of rows that was not measured", not_measured(Property.FUSED, 1), LOST,
        "one that was recorded as failing", not_measured(Property.PADDING, 2), GAINED),
    Row("a property lost of one subject alone", holds(Property.FUSED, 1, False, PINNED), LOST, "none", nothing, KEPT),
    Row("a property gained", holds(Property.PADDING, 2, True), GAINED, "none", nothing, KEPT),
    Row("a subject that the contract lacks", recorded(lambda d: d["subjects"].pop(FREE)), MISSING,
        "one that it has and nobody asked for", recorded(with_more), KEPT),
    Row("one lost beside one that the contract lacks", lost_and_lacking(PINNED), Gives("both", 1),
        "the contract lacks the lost one", lost_and_lacking(FREE), MISSING),
    Row("a contract of another machine", of_another_machine(), NOT_GATED, "of this one", nothing, KEPT),
    Row("lost on another machine", of_another_machine(holds(Property.RERUN, 2, False)), NOT_GATED,
        "lost on this one", holds(Property.RERUN, 2, False), LOST),
    Row("a contract that was edited", lambda m: damaged(m), NO_REPORT,
        "none", lambda m: contract.path(m.made.captures).unlink(), MISSING),
    Row("an output that is not finite", raising(ArithmeticError("not finite")), NO_REPORT, "none", nothing, KEPT),
    Row("a crash", raising(RuntimeError("the driver is gone")), NO_REPORT, "none", nothing, KEPT),
    Row("recording under continuous integration", recording(under_ci("true")), REFUSED,
        "comparing there", under_ci("true"), KEPT),
    Row("recording over uncommitted captures", recording(uncommitted), REFUSED,
        "comparing with them", uncommitted, KEPT),
    Row("recording what a second measurement does not find", recording(not_the_same_again), REFUSED,
        "what it finds", recording(), KEPT),
    Row("recording some where another machine recorded more",
        recording(of_another_machine(), recorded(with_more)), REFUSED,
        "where it recorded the same", recording(of_another_machine()), Gives(Standing.NOT_GATED, 0)),
    Row("recording in place of what was lost", recording(holds(Property.RERUN, 2, False)), Gives(Standing.LOST, 0),
        "comparing with it", holds(Property.RERUN, 2, False), LOST),
    Row("no frame at all", with_options("--frames", "0"), REFUSED, "five frames", nothing, KEPT),
]  # fmt: skip


def damaged(made: Measured) -> None:
    file = contract.path(made.made.captures)
    file.write_text(file.read_text().replace('"rerun"', '"reruns"', 1))


@both(TABLE)
def test_probe(act: Callable[[Measured], Any], gives: Gives, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = Measured(made, monkeypatch)
    act(measured)
    if gives.verdict == "both":
        assert measured.probe().exit_code == gives.code
        return
    assert measured.said() == gives


def test_every_standing_and_exit_code_has_a_row() -> None:
    assert without_row(TABLE, Standing) == set()


@pytest.mark.parametrize("field", sorted(platform.of_device()))
def test_a_contract_that_differs_in_one_field_of_its_fingerprint_gates_nothing(
    field: str, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = Measured(made, monkeypatch)
    of_another_machine(**{field: "another"})(measured)
    assert measured.said() == NOT_GATED
    assert f"differs in {field}" in measured.probe().stdout


def test_recorded_subjects_that_were_not_measured_are_counted_in_the_summary(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = Measured(made, monkeypatch)
    assert "not measured" not in measured.probe().stdout
    measured.recorded(lambda document: document["subjects"].update(more=document["subjects"][FREE]))
    assert "; 1 recorded subject was not measured" in measured.probe().stdout
    measured.recorded(lambda document: document["subjects"].update(most=document["subjects"][FREE]))
    assert "; 2 recorded subjects were not measured" in measured.probe().stdout


def test_nothing_is_written_without_a_reason(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = Measured(made, monkeypatch)
    holds(Property.PADDING, 2, True)(measured)
    before = made.contents()
    measured.probe()
    assert made.contents() == before
    assert Path(contract.path(made.captures)).is_file()
