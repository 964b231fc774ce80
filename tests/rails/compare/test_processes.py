"""Two processes take turns, and none is left behind."""

from __future__ import annotations

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
