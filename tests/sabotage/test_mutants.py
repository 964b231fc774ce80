"""Mutants are what they say, their fates are judged honestly, and this commit's share of them meets its fate."""

from __future__ import annotations

import subprocess
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from harness.parity.baselines.platform import ROOT
from tests.sabotage import mutants as tool
from tests.sabotage import reach as reaching
from tests.sabotage.forks import Ended
from tests.sabotage.mutants import (
    Case,
    Fate,
    Journal,
    Outcome,
    Reasons,
    Workshop,
    cases,
    complaints,
    document,
    honest,
    judged,
    part,
    reasons,
    sample,
    score,
)
from tests.sabotage.mutation import mutants
from tests.sabotage.reach import Reach
from tests.sabotage.runner import revision

PARTS = 48
"""Of the sample's killed mutants a run plants every so manieth, the one that the commit picks first."""

SOURCE = '''
"""Text."""
LIMIT = 3

def f(x: int = 1, flag: bool = True) -> int:
    """More text."""
    if x < 2 and flag:
        return g(x, flag) + 1
    return -x if f"{x}" else x.clamp(min=0)[1:]
'''


def changes(source: str) -> list[str]:
    return [mutant.name for mutant in mutants(textwrap.dedent(source))]


def test_expressions_have_their_mutants_and_texts_and_annotations_have_none() -> None:
    assert changes(SOURCE) == [
        "module: 3 -> 4",
        "module: 3 -> 2",
        "f: 1 -> 2",
        "f: True -> False",
        "f: if x < 2 and flag -> if not (x < 2 and flag)",
        "f: x < 2 and flag -> x < 2 or flag",
        "f: x < 2 and flag -> flag",
        "f: x < 2 and flag -> x < 2",
        "f: x < 2 -> x <= 2",
        "f: 2 -> 3",
        "f: 2 -> 1",
        "f: g(x, flag) + 1 -> g(x, flag) - 1",
        "f: g(x, flag) -> g(flag, x)",
        "f: 1 -> 2 (2)",
        "f: -x if f'{x}' else x.clamp(min=0)[1:] -> -x",
        "f: -x if f'{x}' else x.clamp(min=0)[1:] -> x.clamp(min=0)[1:]",
        "f: -x -> x",
        "f: x.clamp(min=0)[1:] -> x.clamp(min=0)",
        "f: x.clamp(min=0) -> x",
        "f: x.clamp(min=0) -> x.clamp()",
        "f: 0 -> 1",
        "f: 1 -> 2 (3)",
    ]


MISTAKES = {
    "copy or cast removed": ("y = x.clone()", "y = (x)"),
    "statement deleted": ("self.x = 1", "pass"),
    "condition negated": ("if x.ok:\n    pass", "if (not (x.ok)):\n    pass"),
    "check ignored": ("y = a and b.c", "y = (b.c)"),
    "truth for is not None": ("y = x is not None", "y = (bool(x))"),
    "element dropped": ("key = (a, b)", "key = ((b,))"),
    "arguments swapped": ("f(a=x, b=y)", "(f(a=y, b=x))"),
    "moved before its check": (
        "if x < 1:\n    raise E(x)\nself.x = x",
        "self.x = x\nif x < 1:\n    raise E(x)",
    ),
    "all for any": ("y = all(x)", "y = (any(x))"),
    "loop stops early": ("for i in x:\n    pass", "for i in list(x)[:-1]:\n    pass"),
    "constant lowered": ("RERUNS = 3", "RERUNS = (2)"),
    "except widened": ("try:\n    pass\nexcept OSError:\n    pass", "try:\n    pass\nexcept Exception:\n    pass"),
    "context removed": ("with torch.no_grad():\n    x.y = 1", "if True:\n    x.y = 1"),
    "argument left out": ("f(a=x)", "(f())"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_every_mistake_has_its_operator(kind: str) -> None:
    source, wanted = MISTAKES[kind]
    assert wanted in [mutant.source for mutant in mutants(source) if mutant.kind == kind]


def test_a_mutant_differs_from_the_source_in_its_one_place() -> None:
    lines = 'def f(x):\n    é = "é", x + 1  # kept\n    return x * 2'
    made = {mutant.name: mutant.source for mutant in mutants(lines)}
    assert made["f: x + 1 -> x - 1"] == lines.replace("x + 1", "(x - 1)")
    assert made["f: x * 2 -> x / 2"] == lines.replace("x * 2", "(x / 2)")


def test_arguments_whose_order_says_nothing_are_not_swapped() -> None:
    assert changes("max(x, y)\nx.transpose(i, j)\ng(x, *y)") == [
        "module: max(x, y) -> nothing",
        "module: x.transpose(i, j) -> nothing",
        "module: g(x, *y) -> nothing",
    ]


def test_a_mutant_knows_the_lines_that_meet_it() -> None:
    source = "LIMIT = 1\nclass C:\n    x = 2\ndef f(a=3):\n    if (\n        a < 4\n    ):\n        return 5\n"
    lines = {mutant.name: mutant.lines for mutant in mutants(source)}
    assert lines["module: 1 -> 2"] is None
    assert lines["C: 2 -> 3"] is None
    assert lines["f: 3 -> 4"] == (5, 8)
    assert lines["f: a < 4 -> a <= 4"] == (5, 7)
    assert lines["f: 5 -> 6"] == (8, 8)


@pytest.mark.sabotage
def test_names_are_unique_in_the_package_and_every_part_has_its_share() -> None:
    everything = cases()
    names = [case.name for case in everything]
    assert len(set(names)) == len(names)
    drawn = sample(everything, tool.SHARES, seed=1)
    assert [part(case.module) for case in drawn] == [name for name, count in tool.SHARES.items() for _ in range(count)]
    assert drawn == sample(everything[::-1], tool.SHARES, seed=1)
    assert drawn != sample(everything, tool.SHARES, seed=2)
    # A mutant that is gone leaves its place to one, and the others stay.
    fewer = [case for case in everything if case.name != drawn[0].name]
    redrawn = {case.name for case in sample(fewer, tool.SHARES, seed=1)}
    assert {case.name for case in drawn} - redrawn == {drawn[0].name}
    assert set(reasons().all) <= set(names)
    assert all(len(reason) > 20 for reason in reasons().all.values())


GREEN, RED = {"a": "passed", "b": "passed"}, {"a": "passed", "b": "failed"}


@pytest.mark.parametrize(
    ("ended", "fate"),
    [
        (Ended(False, 0, 0, ["a", "b"], GREEN), (Fate.SURVIVED, "")),
        (Ended(False, 0, 1, ["a", "b"], RED), (Fate.KILLED, "b")),
        (Ended(False, 0, 1, ["a", "b"], {"a": "error"}), (Fate.KILLED, "a")),
        (Ended(True, -9), (Fate.TIMED_OUT, "")),
        (Ended(False, -11), (Fate.BROKEN, "")),  # a crash says nothing of a test
        (Ended(False, 0, 2, []), (Fate.BROKEN, "")),  # the module cannot be imported
        (Ended(False, 0, 1, ["a", "b"], GREEN), (Fate.BROKEN, "")),
        (Ended(False, 0, 0, ["a"], {"a": "passed"}), (Fate.BROKEN, "")),  # a test is missing
        (Ended(False, 0, 0, ["a", "b"], {"a": "passed", "b": "skipped"}), (Fate.BROKEN, "")),
    ],
)
def test_only_a_test_that_is_red_kills_and_only_tests_that_all_pass_let_live(
    ended: Ended, fate: tuple[Fate, str]
) -> None:
    assert judged(ended, ["a", "b"]) == fate


def outcomes(killed: int, *others: str, fate: Fate = Fate.SURVIVED, broken: int = 0) -> list[Outcome]:
    module = "harness/engine/solver.py"
    made = [Outcome(f"k{n}", "", module, Fate.KILLED, f"t{n}") for n in range(killed)]
    made += [Outcome(name, "", module, fate) for name in others]
    return made + [Outcome(f"b{n}", "", module, Fate.BROKEN) for n in range(broken)]


def complained(found: list[Outcome], known: dict[str, str], *others: str) -> list[str]:
    return complaints(found, Reasons({}, known), [outcome.name for outcome in found] + list(others))


def test_a_survivor_needs_a_reason_and_a_reason_a_survivor() -> None:
    assert complained(outcomes(99, "s"), {"s": "because"}) == []
    assert complained(outcomes(99, "s"), {}) == ["survived without a reason: s"]
    assert complained(outcomes(99), {"k3": "because"}) == ["has a reason and was noticed: k3"]
    assert complained(outcomes(99), {"gone": "because"}) == ["has a reason and is no mutant: gone"]
    assert complained(outcomes(99), {"elsewhere": "because"}, "elsewhere") == []


@pytest.mark.parametrize("fate", [Fate.SURVIVED, Fate.UNREACHED, Fate.NOT_RUN])
def test_what_no_test_failed_for_survives_and_lowers_the_score(fate: Fate) -> None:
    few = outcomes(8, "s", "t", fate=fate, broken=10)
    assert score(few) == 0.8
    assert complained(few, {}) == [
        "survived without a reason: s",
        "survived without a reason: t",
        "the score of engine is 80.0%, below 95%",
    ]


def test_a_time_out_counts_as_noticed_and_is_counted_apart() -> None:
    few = outcomes(19, "s", fate=Fate.TIMED_OUT)
    assert score(few) == 1.0
    counts = document(few, Reasons({}, {}), 1)["counts"]
    assert isinstance(counts, dict)
    assert (counts["killed"], counts["timed_out"]) == (19, 1)
    assert score([]) == 0.0


def test_a_mutant_that_changes_nothing_does_not_lower_the_score_and_needs_its_reason() -> None:
    few = outcomes(8, "s", "t")
    assert score(few, {"s", "t"}) == 1.0
    assert complaints(few, Reasons({"s": "because", "t": "because"}, {}), [each.name for each in few]) == []
    assert complaints(few, Reasons({"s": "because", "k1": "because"}, {}), [each.name for each in few]) == [
        "survived without a reason: t",
        "has a reason and was noticed: k1",
        "the score of engine is 87.5%, below 95%",
    ]


def test_a_kill_by_a_test_that_fails_without_a_mutant_too_does_not_count() -> None:
    assert [outcome.fate for outcome in honest(outcomes(2), {"t1"})] == [Fate.SURVIVED, Fate.KILLED]


def test_a_journal_knows_what_was_run_until_the_source_changes(tmp_path: Path) -> None:
    module = tmp_path / "harness/thing.py"
    module.parent.mkdir()
    module.write_text("x = 1")
    journal = Journal(tmp_path / "kept.jsonl", tmp_path)
    assert journal.read() == {}
    kept = [Outcome(n, "", "harness/thing.py", f) for n, f in [("k", Fate.KILLED), ("s", Fate.SURVIVED)]]
    for outcome in [*kept, Outcome("n", "", "harness/thing.py", Fate.NOT_RUN)]:
        journal.add(outcome)
    assert journal.read() == {"k": kept[0], "s": kept[1]}
    assert journal.read(again=True) == {"k": kept[0]}
    journal.add(Outcome("k", "", "harness/thing.py", Fate.KILLED, "tests/test_thing.py::test_k"))
    module.write_text("x = 2")
    assert journal.read() == {}
    assert journal.killers() == {"k": "tests/test_thing.py::test_k"}


def test_the_tests_of_the_module_come_first_and_the_quick_ones_next() -> None:
    seconds = {"tests/engine/test_b.py::b": 9.0, "tests/test_z.py::z": 1.0, "tests/test_y.py::y": 30.0}
    reach = Reach(seconds=seconds, lines={"harness/engine/b.py": {1: {"tests/test_y.py::y"}, 2: set(seconds)}})
    assert reach.of("harness/engine/b.py", (1, 1)) == {"tests/test_y.py::y"}
    assert reach.of("harness/engine/b.py", None) == set(seconds)
    assert reach.of("harness/engine/c.py", None) == set()
    reach.imports["harness/engine/c.py"] = {"tests/test_z.py"}
    assert reach.of("harness/engine/c.py", None) == {"tests/test_z.py::z"}
    assert reach.of("harness/engine/c.py", (0, 9)) == set()
    batches = reach.batches("harness/engine/b.py", seconds)
    assert batches == [["tests/engine/test_b.py::b"], ["tests/test_z.py::z"], ["tests/test_y.py::y"]]


def test_what_the_tests_of_a_file_share_is_reached_by_all_of_them() -> None:
    """A fixture of a whole file, or an import, runs for its first test alone; the others judge what it made."""
    files = {"tests/test_b.py": ("first", "second", "third"), "tests/test_y.py": ("y", "z")}
    first, second, third, y, z = (f"{file}::{name}" for file, names in files.items() for name in names)
    lines = {1: {first}, 2: {first, second}, 3: {third, y}, 4: {second, z}, 5: set()}
    reach = Reach(seconds=dict.fromkeys((first, second, third, y, z), 1.0), lines={"harness/m.py": lines})
    assert reach.of("harness/m.py", (1, 1)) == {first, second, third}
    assert reach.of("harness/m.py", (2, 2)) == {first, second}
    assert reach.of("harness/m.py", (3, 3)) == {first, second, third, y, z}
    assert reach.of("harness/m.py", (3, 4)) == {second, third, y, z}
    assert reach.of("harness/m.py", (5, 9)) == set()
    named = dict.fromkeys(("tests/test_c.py::a", "tests/test_c.py::b", "tests/test_c.py::c"), 1.0)
    own = Reach(seconds=named, lines={"harness/c.py": {1: {"tests/test_c.py::a", "tests/test_c.py::b"}}})
    assert own.of("harness/c.py", (1, 1)) == set(named)


def test_the_longest_tests_are_not_asked_unless_they_are_proofs() -> None:
    proof = "tests/parity/proofs/test_laws.py::l"
    seconds = {"tests/test_a.py::a": 1.0, "tests/test_b.py::b": reaching.MOST, proof: 2 * reaching.MOST}
    assert Reach(seconds=seconds).batches("harness/engine/b.py", seconds) == [["tests/test_a.py::a"], [proof]]
    assert Reach(seconds=seconds, quick=True).batches("harness/engine/b.py", seconds) == [["tests/test_a.py::a"]]


@pytest.mark.sabotage
def test_importers_are_found_however_an_import_is_written() -> None:
    found = reaching.importers(ROOT)
    assert "tests/engine/executors/tensorrt/test_api.py" in found["harness/engine/executors/tensorrt/api.py"]
    assert "tests/parity/baselines/test_contract.py" in found["harness/parity/baselines/contract.py"]
    assert "tests/engine/test_solver.py" not in found["harness/engine/executors/tensorrt/api.py"]


def test_a_test_that_did_not_pass_judges_nothing() -> None:
    reach = Reach()
    outcomes = {"a": "passed", "b": "failed", "c": "skipped"}
    ended = Ended(False, 0, 1, list("abcd"), outcomes, dict.fromkeys("abc", 1.0), 3.0, {"m.py": {"1": list("abc")}})
    reach.add(reaching.document(ended))
    assert reach.of("m.py", (1, 1)) == {"a"}
    assert reach.not_passed == {"b": "failed", "c": "skipped", "d": "did not run"}


def test_a_test_file_is_recorded_again_when_it_or_what_it_ran_has_changed(tmp_path: Path) -> None:
    for name in (
        "harness/a.py",
        "harness/b.py",
        "tests/test_a.py",
        "tests/test_b.py",
        "tests/helper.py",
        "conftest.py",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    asked = []

    def run(files: Sequence[str]) -> Iterator[tuple[str, Ended]]:
        asked.append(sorted(files))
        for file in files:
            module = file.replace("tests/test_", "harness/")
            yield file, Ended(False, 0, 0, ["t"], {"t": "passed"}, {"t": 1.0}, 1.0, {module: {"1": ["t"]}})

    for name in (None, None, "harness/a.py", "tests/test_b.py", "tests/helper.py"):
        if name is not None:
            (tmp_path / name).write_text("x = 1")
        reach = reaching.record(tmp_path, tmp_path / "kept", run)
        assert reach.of("harness/a.py", (1, 1)) == {"t"}
    both = ["tests/test_a.py", "tests/test_b.py"]
    assert asked == [both, [], both[:1], both[1:], both]


# The whole tool, on a made-up project.

THING = """
import subprocess
import sys

LIMIT = 3


def small(x):
    return x < LIMIT


def unseen(x):
    return x + 1


def weak(x):
    return x + 1


def waits(n):
    while n > 0:
        n = n - 1
    return n


def elsewhere():
    code = "from harness import thing; print(thing.told(1))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def told(x):
    return x * 10


def seen_in_bars(x):
    return x + 1
"""
TESTS = """
import pytest

from harness import thing

def test_small():
    assert thing.small(2) and not thing.small(3)

def test_small_again():
    assert not thing.small(3)

def test_weak():
    assert thing.weak(1) is not None

def test_waits():
    assert thing.waits(3) == 0

def test_elsewhere():
    assert thing.elsewhere() == "10\\n"

def test_red():
    assert not thing.small(0)

@pytest.mark.parametrize("way", ["a |b| c"])
def test_in_bars(way):
    assert thing.seen_in_bars(1) == 2
"""

EARLIER = {
    "thing.small: x < LIMIT -> x <= LIMIT": "test_small_again",
    "thing.told: x * 10 -> x / 10": "test_gone",
    "thing.weak: x + 1 -> x - 1": "test_weak",
}


@pytest.fixture
def made_up(tmp_path: Path) -> Iterator[Path]:
    for name, text in [("harness/__init__.py", ""), ("harness/thing.py", THING), ("tests/test_thing.py", TESTS)]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "tests/sabotage").mkdir()
    for name in ("__init__", "forks", "tracer"):
        source = (ROOT / f"tests/sabotage/{name}.py").read_text()
        (tmp_path / f"tests/sabotage/{name}.py").write_text(source.replace('"torch.fx", "torch.export",', ""))
    for name in ("tests/__init__.py", "conftest.py"):
        (tmp_path / name).write_text("")
    for command in (["git", "init", "-q"], ["git", "add", "."]):
        subprocess.run(command, cwd=tmp_path, check=True)
    yield tmp_path


@pytest.mark.sabotage
def test_a_made_up_project_has_every_fate(
    made_up: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "START", 5.0)
    found = {case.name: case for case in cases(made_up)}
    wanted = {
        "thing.small: x < LIMIT -> x <= LIMIT": (Fate.KILLED, "test_small"),
        "thing.module: 3 -> 4": (Fate.KILLED, "test_small"),
        "thing.told: x * 10 -> x / 10": (Fate.KILLED, "test_elsewhere"),
        "thing.seen_in_bars: x + 1 -> x - 1": (Fate.KILLED, "test_in_bars[a |b| c]"),
        "thing.weak: x + 1 -> x - 1": (Fate.SURVIVED, ""),
        "thing.unseen: x + 1 -> x - 1": (Fate.UNREACHED, ""),
        "thing.waits: n - 1 -> n + 1": (Fate.TIMED_OUT, ""),
    }
    chosen = [found[name] for name in wanted]
    broken = Case("no Python", "", "harness/thing.py", {"harness/thing.py": "("}, [("harness/thing.py", None)])
    with Workshop(made_up, 1).open() as workshop:
        reach = reaching.record(made_up, tmp_path_factory.mktemp("kept"), workshop.record)
        assert reach.not_passed == {"tests/test_thing.py::test_red": "failed"}
        made = list(workshop.fates([*chosen, broken], reach))
        late = list(workshop.fates(chosen[:1], reach, until=time.monotonic() - 1))
        passing = workshop.passing(sorted(reach.seconds), reach)
        earlier = {name: f"tests/test_thing.py::{test}" for name, test in EARLIER.items()}
        asked = list(workshop.fates([found[name] for name in EARLIER], reach, killers=earlier))
    wanted["no Python"] = (Fate.BROKEN, "")
    assert {o.name: (o.fate, o.killer.rpartition("::")[2]) for o in made} == wanted
    assert late[0].fate is Fate.NOT_RUN
    assert passing == set(reach.seconds)
    # What killed earlier is asked first, and decides alone where it kills again.
    assert [(outcome.fate, outcome.killer.rpartition("::")[2]) for outcome in asked] == [
        (Fate.KILLED, "test_small_again"),
        (Fate.KILLED, "test_elsewhere"),
        (Fate.SURVIVED, ""),
    ]
    assert (made_up / "harness/thing.py").read_text() == THING


@pytest.mark.sabotage
def test_the_mutants_that_this_commit_is_held_to_are_killed_by_the_tests_that_killed_them() -> None:
    """Names of mutants move with their code: those that are gone are left out, and may not be many."""
    kept = [entry for entry in tool.sampled() if entry["fate"] == Fate.KILLED]
    there = {case.name: case for case in cases()}
    assert sum(entry["name"] in there for entry in kept) >= 0.8 * len(kept)
    first = int(revision(ROOT), 16) % PARTS
    chosen = [entry for entry in kept if entry["name"] in there][first::PARTS]
    assert chosen
    killers = {entry["name"]: entry["killer"] for entry in chosen}
    reach = Reach(seconds=dict.fromkeys(killers.values(), 30.0))
    with Workshop(ROOT, 2).open() as workshop:
        assert workshop.passing(sorted(set(killers.values())), reach) == set(killers.values())
        made = list(workshop.against([(there[name], killer) for name, killer in killers.items()], reach))
    assert {outcome.name: outcome.killer for outcome in made} == killers
