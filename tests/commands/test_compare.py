"""What `compare` is asked for, and how it is printed; its verdicts and exit codes are in `tests/judged`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from harness.cli import main
from harness.commands.compare import _exit_code
from harness.rails.compare import revisions
from harness.rails.compare.revisions import Asked, Comparison, Draw, Outputs
from harness.rails.compare.statistics import Judged, Ratio, Side, TimeVerdict
from harness.rails.compare.worktrees import CannotCompare, Revision

LONG = tuple(f"scenario_{number:02}" for number in range(20))


def comparison(verdict: TimeVerdict = TimeVerdict.SAME, outputs: Outputs | None = None, share: float = 0.0) -> Any:
    side = Side((1.0,) * 4, (1.0,) * 4)
    process = revisions.Process(side, (1.0,) * 32, "same")
    judged = Judged(verdict, "why " * 40, Ratio(1.0, 0.9, 1.1, 0.0, 0.0), Ratio(1.0, 1.0, 1.0, 0.0, 0.0), 0.02, 16, 16)
    named = Revision("a[b]" + "c" * 90), Revision("[red]head[/red]")
    return Comparison(
        *named, Asked(slowdown=share), outputs or Outputs((), (), (), 2), (Draw(((process,) * 2,), judged),)
    )


class Called:
    """Calls of the two ways to compare."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.compared: list[tuple[Any, ...]] = []
        self.calibrated: list[tuple[Any, ...]] = []
        self.fails: Exception | None = None
        self.outputs = Outputs((), (), (), 2)
        self.verdicts = {0.01: TimeVerdict.INCONCLUSIVE, 0.03: TimeVerdict.SLOWER}

        def compare(*asked: Any) -> Comparison:
            self.compared.append(asked[:-1])
            if self.fails:
                raise self.fails
            return comparison(outputs=self.outputs)

        def calibrate(*asked: Any) -> Mapping[float, Comparison]:
            self.calibrated.append(asked[:-1])
            return {share: comparison(verdict, self.outputs, share) for share, verdict in self.verdicts.items()}

        patch.setattr(revisions, "compare", compare)
        patch.setattr(revisions, "calibrate", calibrate)


@pytest.fixture(name="called")
def _called(monkeypatch: pytest.MonkeyPatch) -> Called:
    return Called(monkeypatch)


def invoke(*words: str) -> Result:
    return CliRunner().invoke(main, ["compare", *words])


@pytest.mark.parametrize(("words", "base", "head", "asked"), [
    (["one"], "one", None, Asked()),
    (["one", "two"], "one", "two", Asked()),
    (["--rounds", "3", "--most", "7", "one", "two"], "one", "two", Asked((), 3, 7)),
    (["one", "--most", "7", "--ticks", "80", "--rounds", "3"], "one", None, Asked(("--ticks", "80"), 3, 7)),
    (["one", "--switch", "fused_cfg=off", "--cfg", "two"], "one", None,
     Asked(("--switch", "fused_cfg=off", "--cfg", "two"))),
    (["one", "--rounds", "20"], "one", None, Asked((), 20, 20)),
])  # fmt: skip
def test_revisions_and_options_reach_a_comparison_in_the_working_folder(
    words: list[str], base: str, head: str | None, asked: Asked, called: Called, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert invoke(*words).exit_code == 0
    assert (called.compared, called.calibrated) == ([(base, head, asked, tmp_path)], [])


@pytest.mark.parametrize(("words", "base"), [([], None), (["one"], "one")])
def test_a_calibration_is_of_a_revision_or_else_of_the_working_tree(
    words: list[str], base: str | None, called: Called, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("--calibrate", *words, "--rounds", "3", "--most", "4", "--depth", "2")
    assert result.exit_code == 0, result.output
    asked = Asked(("--depth", "2"), 3, 4)
    assert (called.compared, called.calibrated) == ([], [(base, asked, tmp_path)])


@pytest.mark.parametrize(("words", "named"), [
    ([], ""), (["--calibrate", "a", "b"], "'a', 'b'"), (["a", "b", "c", "--ticks", "80"], "'a', 'b', 'c'"),
])  # fmt: skip
def test_too_many_or_too_few_revisions_are_named(words: list[str], named: str, called: Called) -> None:
    result = invoke(*words)
    expected = "BASE" if "--calibrate" in words else "BASE [HEAD]"
    assert result.exit_code == 2
    assert f"expected {expected} before any option of bench, got ({named})" in " ".join(result.stderr.split())
    assert called.compared == called.calibrated == []


def test_a_line_is_never_broken_nor_read_as_markup(called: Called) -> None:
    called.outputs = Outputs(LONG, (), (), 2)
    lines = invoke("one").stdout.splitlines()
    assert lines[:4] == [
        f"outputs MOVED: {', '.join(LONG)}",
        "outputs of 2 scenarios are byte for byte the same",
        f"A: a[b]{'c' * 90}",
        "B: [red]head[/red]",
    ]
    assert lines[-1] == f"same: {'why ' * 40}"


def test_a_revision_that_cannot_be_had_is_one_line_and_a_crash_has_its_traceback(
    called: Called, tmp_path: Path
) -> None:
    file = tmp_path / "r.json"
    called.fails = CannotCompare("no such revision")
    result = invoke("one", "--json", str(file))
    assert (result.exit_code, result.stdout, result.stderr) == (125, "", "cannot compare: no such revision\n")
    called.fails = RuntimeError("broke")
    result = invoke("one", "--json", str(file))
    assert (result.exit_code, result.stdout) == (125, "") and "Traceback" in result.stderr
    assert not file.exists()


def test_the_json_is_the_comparison_and_of_a_calibration_all_of_them(called: Called, tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    invoke("one", "--json", str(file))
    assert json.loads(file.read_text()) == json.loads(json.dumps(comparison().document()))
    called.outputs = Outputs(("moved",), (), (), 2)
    assert invoke("--calibrate", "--json", str(file)).exit_code == 1
    tried = [comparison(verdict, called.outputs, share).document() for share, verdict in called.verdicts.items()]
    assert json.loads(file.read_text()) == json.loads(json.dumps({"smallest_caught": 0.03, "tried": tried}))


@pytest.mark.parametrize(("verdict", "moved", "code"), [
    (TimeVerdict.FASTER, False, 0), (TimeVerdict.SAME, False, 0), (TimeVerdict.SLOWER, False, 1),
    (TimeVerdict.INCONCLUSIVE, False, 3), (TimeVerdict.FASTER, True, 1), (TimeVerdict.SAME, True, 1),
    (TimeVerdict.SLOWER, True, 1), (TimeVerdict.INCONCLUSIVE, True, 1),
])  # fmt: skip
def test_each_verdict_has_its_exit_code_and_a_moved_output_always_1(
    verdict: TimeVerdict, moved: bool, code: int
) -> None:
    one: Any = SimpleNamespace(outputs=SimpleNamespace(passes=not moved), verdict=verdict)
    assert _exit_code({0.0: one}, calibrate=False) == code
    caught = verdict is TimeVerdict.SLOWER
    assert _exit_code({0.01: one}, calibrate=True) == (1 if moved else 0 if caught else 3)
