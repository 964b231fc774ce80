"""What a contract records, what is said of it, and what it is compared with, without an executor."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.parity.baselines import contract, platform, store
from harness.parity.baselines.contract import Contract, Finding, Findings, Recorded, Standing
from harness.parity.baselines.refusals import BlessRefused
from harness.parity.proofs.invariance import Property, Subject

A, B, C = (Subject(name, "eager", "float32", 5, None, 2) for name in "abc")


def held(rerun: tuple[bool, ...] = (True, True), padding: tuple[bool, ...] = (False, True)) -> dict[Property, Any]:
    """All that is not named was not measured."""
    given = {Property.RERUN: rerun, Property.PADDING: padding}
    return {asked: dict(enumerate(given.get(asked, ()), start=1)) for asked in Property}


def rows(**numbers: list[int]) -> dict[str, list[int]]:
    return {asked.value: numbers.get(asked.value, []) for asked in Property}


HOLDS, FAILS = rows(rerun=[1, 2], padding=[2]), rows(padding=[1])


class Bench:
    """Measurements that a test makes up, and the order in which they are asked for."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.captures, self.held, self.log = root / "captures", dict.fromkeys("abc", held()), list[str]()
        self.here = {"cpu": "one", "mkl": "2"}
        patch.setattr(contract, "measured", self._measured)
        patch.setattr(platform, "of_device", lambda device="cpu": dict(self.here))
        patch.setattr(contract, "refuse_unless_explicit", lambda *words: self.log.append(f"may {words[0]}"))

    def _measured(self, subject: Subject) -> Any:
        self.log.append(f"measure {subject.decoder}")
        return self.held[subject.decoder]

    def advance(self, name: str) -> None:
        self.log.append(f"announce {name[0]}")

    def record(self, *subjects: Subject, reason: str = "why") -> Findings:
        return contract.record(reason, subjects, self.captures, self.advance)

    def probe(self, *subjects: Subject) -> Findings:
        return contract.probe(subjects, self.captures, self.advance)

    @property
    def known(self) -> Contract:
        found = contract.read(self.captures)
        assert found is not None
        return found


@pytest.fixture(name="bench")
def _bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


# Recording.


def test_a_contract_is_written_to_the_last_value_sorted_by_subject_and_read_as_it_was(bench: Bench) -> None:
    bench.record(B, A)
    assert contract.path(bench.captures) == bench.captures / platform.name() / "contract.json"
    entry = {
        "reason": "why",
        "holds": {"fused": "", "rows_alone": "", "permutation": "", "neighbours": "", "duplicates": "", "padding": "2",
                  "rerun": "1-2"},
        "fails": {"fused": "", "rows_alone": "", "permutation": "", "neighbours": "", "duplicates": "", "padding": "1",
                  "rerun": ""},
    }  # fmt: skip
    assert store.read_document(contract.path(bench.captures)) == {
        "fingerprint": bench.here,
        "subjects": {A.name: entry, B.name: entry},
    }
    assert bench.known == Contract(bench.here, dict.fromkeys((A.name, B.name), Recorded(HOLDS, FAILS, "why")))


def test_each_subject_is_announced_and_measured_twice_after_recording_was_allowed(bench: Bench) -> None:
    bench.record(B, A)
    once = ["announce b", "measure b", "announce a", "measure a"]
    assert bench.log == ["may why", *once, *once]
    bench.log.clear()
    bench.probe(A, B)
    assert bench.log == ["announce a", "measure a", "announce b", "measure b"]


def test_what_is_returned_is_against_the_contract_as_it_was_before(bench: Bench) -> None:
    first = bench.record(A)
    assert [(f.standing, f.holds, f.fails) for f in first.findings] == [(Standing.MISSING, HOLDS, FAILS)]
    assert first.recorded is False
    bench.held["a"] = held((True, False), (True, True))
    second = bench.record(A, reason="other")
    expected = Finding(A.name, rows(rerun=[1], padding=[1, 2]), rows(rerun=[2]), Standing.LOST, "rerun at 2 rows")
    assert second.findings == (expected,)
    third = bench.record(A, reason="again")
    assert third.findings[0].standing is Standing.KEPT
    assert bench.known.entries[A.name].reason == "again"


def test_of_the_others_every_value_is_kept(bench: Bench) -> None:
    bench.record(A, B, reason="first")
    was = bench.known.entries
    bench.held = dict.fromkeys("abc", held((False, False), (False, False)))
    bench.record(C, B, reason="more")
    now = bench.known.entries
    assert list(now) == [A.name, B.name, C.name]
    assert now[A.name] == was[A.name]
    assert now[B.name] == now[C.name] == Recorded(rows(), rows(rerun=[1, 2], padding=[1, 2]), "more")


def test_a_contract_of_another_machine_is_replaced_as_a_whole_or_not_at_all(bench: Bench) -> None:
    bench.record(A, B)
    before = contract.path(bench.captures).read_bytes()
    bench.here = {"cpu": "two", "mkl": "3"}
    bench.log.clear()
    with pytest.raises(BlessRefused, match="^it would mix contracts of two machines, which differ in cpu, mkl$"):
        bench.record(A)
    assert bench.log == ["may why"], "refused before anything was measured, which may take minutes"
    assert contract.path(bench.captures).read_bytes() == before
    found = bench.record(B, C, A)
    assert found.differs == ("cpu", "mkl")
    assert bench.known.fingerprint == bench.here
    assert list(bench.known.entries) == [A.name, B.name, C.name]


@pytest.mark.parametrize(
    "last", [held((True, False)), held(padding=(True, True)), held((True,)), held((True, True, False))]
)
def test_what_is_measured_otherwise_again_is_refused_by_name_and_nothing_is_written(last: Any, bench: Bench) -> None:
    bench.record(A, B)
    before = contract.path(bench.captures).read_bytes()
    measured, seen = bench._measured, list[str]()

    def otherwise(subject: Subject) -> Any:
        seen.append(subject.decoder)
        return last if seen.count("b") == 2 else measured(subject)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contract, "measured", otherwise)
        with pytest.raises(BlessRefused) as error:
            bench.record(A, B)
    assert str(error.value) == f"{B.name} is not reproducible: measured again, other properties hold"
    assert contract.path(bench.captures).read_bytes() == before


# Comparing.


@pytest.mark.parametrize(("now", "standing", "detail"), [
    (held(), Standing.KEPT, ""),
    (held((True, False)), Standing.LOST, "rerun at 2 rows"),
    (held((False, False)), Standing.LOST, "rerun at 1-2 rows"),
    (held((False, False), (False, False)), Standing.LOST, "padding at 2 rows; rerun at 1-2 rows"),
    (held((True,)), Standing.LOST, "rerun at 2 rows"),
    (held((True, True, False)), Standing.KEPT, ""),
    (held(padding=(True, True)), Standing.GAINED, "padding at 1 rows"),
    (held((True, False), (True, True)), Standing.LOST, "rerun at 2 rows"),
])  # fmt: skip
def test_what_was_lost_or_gained_is_named_and_a_loss_goes_before_a_gain(
    now: Any, standing: Standing, detail: str, bench: Bench
) -> None:
    bench.record(A, B)
    bench.held["b"] = now
    kept, found = bench.probe(A, B).findings
    assert (found.subject, found.standing, found.detail) == (B.name, standing, detail)
    assert (kept.standing, kept.detail) == (Standing.KEPT, "")
    bench.here = {"cpu": "one", "mkl": "3"}
    *_, elsewhere = bench.probe(A, B).findings
    lost = "; ".join(f"not {words}" for words in detail.split("; ")) if standing is Standing.LOST else ""
    assert (elsewhere.standing, elsewhere.detail) == (Standing.NOT_GATED, lost)


def test_recorded_subjects_that_were_not_measured_are_named_in_order(bench: Bench) -> None:
    assert bench.probe(A) == Findings(
        (Finding(A.name, HOLDS, FAILS, Standing.MISSING),), platform.name(), (), bench.here, False, ()
    )
    bench.record(C, B, A)
    found = bench.probe(B)
    assert found == Findings(
        (Finding(B.name, HOLDS, FAILS, Standing.KEPT),), platform.name(), (), bench.here, True, (A.name, C.name)
    )


def finding(standing: Standing) -> Finding:
    return Finding("x", rows(rerun=[1]), rows(padding=[1]), standing, "words")


@pytest.mark.parametrize("kinds", [*product(Standing, repeat=2), *((kind,) for kind in Standing), ()], ids=str)
def test_one_loss_is_a_loss_and_one_subject_that_was_not_compared_gates_nothing(kinds: tuple[Standing, ...]) -> None:
    found = Findings(tuple(finding(kind) for kind in kinds), "here", (), {"cpu": "one"})
    assert found.lost is (Standing.LOST in kinds)
    assert found.gated is (bool(kinds) and not {Standing.MISSING, Standing.NOT_GATED} & set(kinds))
    assert found.document() == {
        "findings": [
            {"subject": "x", "holds": rows(rerun=[1]), "fails": rows(padding=[1]), "standing": kind, "detail": "words"}
            for kind in kinds
        ],
        "platform": {"name": "here", "differs": [], "fingerprint": {"cpu": "one"}},
        "summary": {"lost": found.lost, "gated": found.gated, "text": found.summary()},
    }


@pytest.mark.parametrize(("differs", "recorded", "unmeasured", "said"), [
    ((), True, (), "contract of here)"),
    ((), False, (), "there is no contract of here)"),
    (("cpu", "mkl"), True, (), "here: contract of another machine, this one differs in cpu, mkl)"),
    ((), True, ("a",), "contract of here); 1 recorded subject was not measured"),
    (("cpu",), True, ("a", "b"),
     "here: contract of another machine, this one differs in cpu); 2 recorded subjects were not measured"),
])  # fmt: skip
def test_a_summary_says_in_one_line_with_what_was_compared(
    differs: tuple[str, ...], recorded: bool, unmeasured: tuple[str, ...], said: str
) -> None:
    kinds = [Standing.LOST, Standing.KEPT, Standing.LOST, Standing.GAINED]
    found = Findings(tuple(map(finding, kinds)), "here", differs, {}, recorded, unmeasured)
    assert found.summary() == f"4 subjects: 1 kept, 1 gained, 2 lost ({said}"
    assert found.document()["platform"]["differs"] == list(differs)


# Reading.


@pytest.mark.parametrize("document", [
    {"subjects": {}}, {"fingerprint": None, "subjects": {}}, {"fingerprint": ["cpu"], "subjects": {}},
    {"fingerprint": {}}, {"fingerprint": {}, "subjects": None},
    *[{"fingerprint": {}, "subjects": {"a": {"reason": "", "holds": {}, "fails": {}, name: None}}}
      for name in ("holds", "fails")],
    *[{"fingerprint": {}, "subjects": {"a": {k: v for k, v in {"reason": "", "holds": {}, "fails": {}}.items()
                                             if k != name}}} for name in ("reason", "holds", "fails")],
    *[{"fingerprint": {}, "subjects": {"a": {"reason": "", "holds": {"rerun": text}, "fails": {}}}}
      for text in ("2-1", "1-", "1,2", "1-2-3", "2, 1", "1-2, 3", " 1", "-1", "one", 1)],
])  # fmt: skip
def test_a_contract_of_another_form_is_altered_and_none_of_it_is_guessed(
    document: dict[str, Any], tmp_path: Path
) -> None:
    file = contract.path(tmp_path)
    assert contract.read(tmp_path) is None
    store.write_document(file, document)
    with pytest.raises(store.ManifestAltered) as error:
        contract.read(tmp_path)
    assert str(error.value).startswith(f"{file}: altered, not a contract (")


@settings(max_examples=15)
@given(st.sets(st.integers(1, 12)).map(sorted))
def test_numbers_of_rows_are_read_as_they_were_written(rows: list[int]) -> None:
    assert contract.numbers(contract.ranges(rows)) == rows


# Subjects.


def test_every_combination_is_declared_once_with_free_and_with_pinned_rows_and_all_that_it_shares(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.plan").touch()
    found = contract.declared(["a", "b"], ["eager", "static"], ["float32", "float16"], [5, 6], max_rows=3,
                              device="cuda:1", engine=tmp_path / "a.plan")  # fmt: skip
    expected = [
        Subject(decoder, executor, dtype, frames, pinned, 3, "cuda:1", tmp_path / "a.plan")
        for decoder, executor, dtype, frames, pinned in product(
            "ab", ("eager", "static"), ("float32", "float16"), (5, 6), (None, 3)
        )
    ]
    assert found == expected


def test_a_cpu_s_contract_covers_both_decoders_both_executors_and_both_lengths() -> None:
    assert [(s.decoder, s.executor, s.dtype, s.frames, s.pin_rows, s.max_rows, s.device, s.engine)
            for s in contract.declared()] == [
        (decoder, executor, "float32", frames, pinned, 8, "cpu", None)
        for decoder, executor, frames, pinned in product(
            ("affine", "tiny"), ("eager", "static"), (16, 75), (None, 8)
        )
    ]  # fmt: skip


@pytest.mark.parametrize("fails", [False, True])
def test_an_executor_is_closed_after_it_was_measured_whatever_happens(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[object] = []
    executor = SimpleNamespace(close=lambda: log.append("closed"))
    subject: Any = SimpleNamespace(make=lambda: (executor, "rows"))

    def measure(*given: Any) -> str:
        log.append(given)
        if fails:
            raise RuntimeError("broke")
        return "held"

    monkeypatch.setattr(contract, "measure", measure)
    if fails:
        with pytest.raises(RuntimeError, match="broke"):
            contract.measured(subject)
    else:
        assert contract.measured(subject) == "held"  # type: ignore[comparison-overlap]
    assert log == [(executor, "rows"), "closed"]


def test_a_gpu_s_contract_is_read_from_its_own_folder_and_compared_on_its_own_machine(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(platform, "name", lambda device="cpu": f"name-of-{device}")
    monkeypatch.setattr(platform, "of_device", lambda device="cpu": (asked.append(device), bench.here)[1])
    subject = Subject("a", "eager", "float32", 5, None, 2, "cuda:1")
    found = bench.record(subject)
    assert (found.platform, set(asked)) == ("name-of-cuda:1", {"cuda:1"})
    assert [str(path.relative_to(bench.captures)) for path in bench.captures.rglob("*.json")] == [
        "name-of-cuda:1/contract.json"
    ]
    assert bench.probe(subject).gated
