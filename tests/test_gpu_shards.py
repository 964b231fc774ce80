"""Shards of the GPU's tests: every test is in one shard, and a run that is not whole is said to be so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.gpu import shards
from tests.gpu.shards import Recorder, check, declared, faults, is_in, main, parsed, run

pytest_plugins = ["pytester"]


@given(names=st.sets(st.text(min_size=1), max_size=30), of=st.integers(1, 9))
def test_every_test_is_in_exactly_one_shard(names: set[str], of: int) -> None:
    for name in names:
        assert sum(is_in(name, number, of) for number in range(1, of + 1)) == 1


def test_a_test_s_shard_is_the_same_everywhere() -> None:
    assert [n for n in range(1, 5) if is_in("tests/gpu/test_graphs.py::test_a", n, 4)] == [4]


@pytest.mark.parametrize("wrong", ["", "1", "0/4", "5/4", "1/0", "a/b", "1/4/2", "-1/4"])
def test_a_shard_of_another_form_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="expected NUMBER/OF"):
        parsed(wrong)
    assert parsed("2/4") == (2, 4)


def whole(**changed: Any) -> list[dict[str, Any]]:
    names = ["a", "b", "c"]
    made: list[dict[str, Any]] = [
        {"number": 1, "of": 2, "gpu": "H100", "collected": names, "ended": {"a": "passed", "c": "passed"}},
        {"number": 2, "of": 2, "gpu": "H100", "collected": names, "ended": {"b": "passed"}},
    ]
    made[1] |= changed
    return made


@pytest.mark.parametrize(("run", "said"), [
    (whole(), []),
    ([], ["no shard has run"]),
    (whole()[:1], ["shard 2/2 has not run", "b: did not run"]),
    (whole(ended={"b": "failed"}), ["b: failed"]),
    (whole(ended={"b": "skipped"}), ["b: skipped"]),
    (whole(ended={}), ["b: did not run"]),
    (whole(collected=["a"]), ["shard 2/2 is of another run than shard 1/2"]),
    (whole(of=3), ["shard 2/3 is of another run than shard 1/2"]),
    ([{"number": 1, "of": 1, "gpu": None, "collected": [], "ended": {}}], ["the shards have no test"]),
])  # fmt: skip
def test_a_run_that_is_not_whole_is_said_to_be_so(run: list[dict[str, Any]], said: list[str]) -> None:
    assert list(faults(run)) == said


def test_check_prints_the_whole_run_or_what_it_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(tmp_path) == 1
    for shard in whole():
        (tmp_path / f"shard-{shard['number']}-of-2.json").write_text(json.dumps(shard))
    assert check(tmp_path) == 0
    assert capsys.readouterr().out == "no shard has run\n3 tests passed in 2 shards on H100\n"


def test_without_a_gpu_what_is_not_tested_is_listed_and_red_where_a_gpu_is_required(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("HARNESS_REQUIRE_GPU", raising=False)
    assert run("1/1") == 0
    said = capsys.readouterr().out
    assert {line.split(": ")[1].split(",")[0] for line in said.splitlines()} == set(declared())
    assert all(names for names in declared().values())
    monkeypatch.setenv("HARNESS_REQUIRE_GPU", "1")
    assert main(["run"]) == main(["run", "2/3"]) == 1
    assert main([]) == 2


def test_shards_run_and_write_down_their_own_tests(pytester: pytest.Pytester, tmp_path: Path) -> None:
    file = pytester.makepyfile("""
        import pytest

        @pytest.mark.parametrize("n", range(12))
        def test_n(n):
            assert n != 3

        @pytest.fixture
        def broken():
            raise OSError

        def test_broken(broken):
            pass

        def test_skipped():
            pytest.skip("no")
    """)
    for number in (1, 2, 3):
        pytester.inline_run(str(file), plugins=[Recorder(number, 3, tmp_path)])
    written = [json.loads(each.read_text()) for each in sorted(tmp_path.glob("shard-*"))]
    assert sum(len(shard["ended"]) for shard in written) == 14
    assert all(len(shard["collected"]) == 14 for shard in written)
    name = file.name
    assert sorted(faults(written)) == [
        f"{name}::test_broken: failed",
        f"{name}::test_n[3]: failed",
        f"{name}::test_skipped: skipped",
    ]
    assert check(tmp_path) == 1
    assert shards.BUILT.parts[-2:] == ("build", "gpu")
