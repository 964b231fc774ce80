"""Two processes take turns, and none is left behind."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.rails.compare import paced, processes
from harness.rails.compare.processes import Child, Lane, lane, started, take_turns
from harness.rails.compare.worktrees import CannotCompare, Revision, Tree


class FakeLane:
    """Writes down what it is told."""

    def __init__(self, name: str, seen: list[str]) -> None:
        self._name, self._seen = name, seen

    def release(self) -> None:
        self._seen.append(f"{self._name} runs")

    def listen(self) -> None:
        self._seen.append(f"{self._name} waits")

    def finish(self) -> None:
        self._seen.append(f"{self._name} ends")


def test_turns_are_taken_in_the_order_a_b_b_a_and_only_the_ends_run_together() -> None:
    seen: list[str] = []
    a, b = FakeLane("A", seen), FakeLane("B", seen)
    take_turns(a, b, turns=4)  # type: ignore[arg-type]
    assert seen[:2] == ["A waits", "B waits"]
    assert seen[2:-4] == [f"{name} {does}" for name in "ABBAABBA" for does in ("runs", "waits")]
    assert seen[-4:] == ["A runs", "B runs", "A ends", "B ends"]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A folder in which an interpreter can run."""
    return Tree(Revision("one"), tmp_path)


def test_a_child_runs_in_its_tree_with_the_tree_first_on_its_path(tree: Tree) -> None:
    script = "import os, sys; print(os.getcwd(), os.environ['PYTHONPATH'].split(os.pathsep)[0], os.environ['X'])"
    with started("it", ["-c", script], tree, {"X": "1"}) as child:
        assert child.output() == f"{tree.folder} {tree.folder} 1"


def test_what_a_child_complained_of_is_in_the_error(tree: Tree) -> None:
    script = "import sys; print('x' * 200_000); sys.exit('of this')"
    with (
        pytest.raises(CannotCompare, match="^it of one exited with 1:\nof this$"),
        started("it", ["-c", script], tree, {}) as child,
    ):
        child.output()


@pytest.mark.parametrize(("end", "code"), [
    ("sys.exit(3)", 3),
    ("os._exit(255)", 255),
    ("os.kill(os.getpid(), signal.SIGKILL)", -9),
    ("os.kill(os.getpid(), signal.SIGTERM)", -15),
    ("os.abort()", -6),
])  # fmt: skip
def test_what_a_child_wrote_before_it_failed_is_not_its_output(tree: Tree, end: str, code: int) -> None:
    script = f"import os, signal, sys; print('{{}}', flush=True); {end}"
    with (
        pytest.raises(CannotCompare, match=f"^it of one exited with {code}:"),
        started("it", ["-c", script], tree, {}) as child,
    ):
        child.output()


def test_a_child_does_not_outlive_its_block(tree: Tree) -> None:
    with started("it", ["-c", "import time; time.sleep(60)"], tree, {}) as child:
        process = child._process
        assert process.poll() is None
    assert process.poll() is not None


@pytest.mark.parametrize("before", ["", "/elsewhere"])
def test_python_s_path_stays_behind_the_tree(tree: Tree, monkeypatch: pytest.MonkeyPatch, before: str) -> None:
    monkeypatch.setenv("PYTHONPATH", before)
    with started("it", ["-c", "import os; print(os.environ['PYTHONPATH'])"], tree, {}) as child:
        assert child.output().split(os.pathsep) == [str(tree.folder), *filter(None, [before])]


@pytest.mark.parametrize("slowdown", [0.0, 0.03])
def test_both_sides_get_variables_of_the_same_names_and_their_ends_of_the_pipes(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, slowdown: float
) -> None:
    given = []

    @contextmanager
    def starting(
        _what: str, command: Sequence[str], _tree: Tree, environment: Mapping[str, str], pass_fds: Sequence[int] = ()
    ) -> Iterator[Child | None]:
        given.append((environment, list(map(str, pass_fds)) == list(command[4:6])))
        yield None

    monkeypatch.setattr(processes, "started", starting)
    with lane(tree, [], tree.folder / "control.py", tree.folder / "report", slowdown):
        pass
    assert given == [({paced.SLOWDOWN: f"{slowdown:.4f}", "PYTHONHASHSEED": "0"}, True)]


def test_a_turn_is_given_by_a_byte_and_a_process_that_is_gone_takes_none() -> None:
    (taken, go), (heard, say) = os.pipe(), os.pipe()
    os.set_blocking(taken, False)
    given = Lane(None, go, heard)  # type: ignore[arg-type]
    given.release()
    assert os.read(taken, 100) == b"."
    os.close(taken)
    given.release()
    for end in (go, heard, say):
        os.close(end)


def test_what_a_child_is_given_counts_before_what_the_caller_has(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    monkeypatch.setenv(paced.SLOWDOWN, "0.5")
    monkeypatch.setenv("OF_THE_CALLER", "kept")
    given = {**processes.ALIKE, paced.SLOWDOWN: "0.0000"}
    names = ["PYTHONHASHSEED", paced.SLOWDOWN, "OF_THE_CALLER"]
    script = f"import os, sys; print([os.environ[name] for name in {names}], repr(sys.stdin.read()))"
    with started("it", ["-c", script], tree, given) as child:
        assert child.output() == "['0', '0.0000', 'kept'] ''"


class Ended:
    """A process that ended, with its code and what it wrote."""

    def __init__(self, code: int) -> None:
        self.wait = lambda: code
        out, err = io.StringIO(" said \n"), io.StringIO(" complained \n")
        self.child = Child("bench of one", self, out, err)  # type: ignore[arg-type]


@pytest.mark.parametrize(("code", "words"), [
    (0, "^bench of one ended before its last turn$"),
    (1, "^bench of one exited with 1:\ncomplained$"),
])  # fmt: skip
@pytest.mark.parametrize("byte", [b"", b"x"])
def test_a_process_that_ends_in_place_of_a_turn_is_no_turn(code: int, words: str, byte: bytes) -> None:
    heard, say = os.pipe()
    os.write(say, paced.WAITING + byte)
    os.close(say)
    ended = Ended(code)
    given = Lane(ended.child, -1, heard)
    given.listen()
    with pytest.raises(CannotCompare, match=words):
        given.listen()
    os.close(heard)


def test_the_end_of_a_process_is_its_exit_code_and_its_output_is_stripped() -> None:
    assert (str(Ended(0).child), Ended(0).child.output()) == ("bench of one", "said")
    Lane(Ended(0).child, -1, -1).finish()
    with pytest.raises(CannotCompare, match="exited with 3"):
        Lane(Ended(3).child, -1, -1).finish()


def test_a_bench_is_started_with_the_script_its_files_its_pipes_and_then_its_options(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    @contextmanager
    def starting(what: str, command: Sequence[str], of: Tree, *_: object, **__: object) -> Iterator[Child | None]:
        given.append((what, [*command[:4], *command[6:]], of))
        yield None

    monkeypatch.setattr(processes, "started", starting)
    open_before = sorted(os.listdir("/proc/self/fd"))
    with lane(tree, ["--ticks", "8"], Path("control file"), Path("a report"), 0.0):
        pass
    script = Path(paced.__file__).read_text()
    assert given == [("bench", ["-c", script, "control file", "a report", "--ticks", "8"], tree)]
    assert sorted(os.listdir("/proc/self/fd")) == open_before, "all four ends of the pipes are closed"
