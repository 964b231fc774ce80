"""Some five hundred mutated files of all kinds, as hypothesis draws them, and the judge that `make fuzz` uses too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.parity.baselines import store
from tests.fuzz.judge import Judge, Judged
from tests.fuzz.kinds import KINDS

EACH = 35
"""Files of a kind."""


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    made = Judge()
    yield made
    made.close()


@pytest.mark.parametrize("number", range(len(KINDS)), ids=[kind.name for kind in KINDS])
@settings(max_examples=EACH, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(turn=st.integers(0, 2**32))
def test_a_mutated_file_is_refused_by_name_or_means_what_it_meant(judge: Judge, number: int, turn: int) -> None:
    found = judge.judged(0, turn * len(KINDS) + number)
    assert found.passes, f"{found.kind}: {found.verdict}, {found.seconds:.1f} s, {found.mib:.0f} MiB\n{found.detail}"


def test_the_judge_tells_a_traceback_another_meaning_and_a_refusal_apart(tmp_path: Path) -> None:
    def reads(path: Path) -> str:
        said = path.read_text()
        if said == "bug":
            raise KeyError(said)
        if said == "bad":
            raise store.CaptureCorrupt(f"{path}: bad")
        return said.strip()

    def makes(folder: Path) -> Path:
        (folder / "a").write_text("good")
        return folder / "a"

    kind = replace(KINDS[0], name="k", make=makes, read=reads, digest=True)
    judge = Judge({"k": kind})
    verdicts = {said: judge.read(kind, said.encode()).verdict for said in ("good ", "bad", "bug", "other")}
    assert verdicts == {"good ": "identical", "bad": "refused", "bug": "traceback", "other": "silent"}
    assert judge.read(kind, b"other", renewed=True).verdict == "read"
    judge.close()


@pytest.mark.parametrize(
    ("verdict", "seconds", "mib", "passes"),
    [
        ("refused", 9.0, 1000.0, True),
        ("identical", 0.0, 0.0, True),
        ("refused", 10.0, 0.0, False),
        ("refused", 0.0, 1024.0, False),
        ("traceback", 0.0, 0.0, False),
        ("silent", 0.0, 0.0, False),
        ("hung", 0.0, 0.0, False),
    ],
)
def test_a_file_passes_by_its_verdict_its_time_and_its_memory(
    verdict: str, seconds: float, mib: float, passes: bool
) -> None:
    assert Judged("k", verdict, seconds, mib).passes is passes
