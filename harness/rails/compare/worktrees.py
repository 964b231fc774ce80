"""Temporary folders with the files of the two revisions."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

WORKING_TREE = "the working tree"
TERMINATED = 128 + signal.SIGTERM

_LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info")


class CannotCompare(RuntimeError):
    """A revision cannot be checked out or does not run; the message names the revision and the reason."""


@dataclass(frozen=True)
class Revision:
    """One side of a comparison.

    Attributes:
        asked: the name on the command line: a git revision, a folder, or `WORKING_TREE`.
        commit: the id of the commit; None for a plain folder.
        uncommitted: the files of a working tree that differ from the commit, untracked files included.
    """

    asked: str
    commit: str | None = None
    uncommitted: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The name with the commit, such as `main (1a2b3c4d5e)`."""
        count = len(self.uncommitted)
        changed = f" with {count} uncommitted file{'s' * (count != 1)}" if count else ""
        return self.asked if self.commit is None else f"{self.asked} ({self.commit[:10]}{changed})"


@dataclass(frozen=True)
class Tree:
    """A revision and the folder that holds its files."""

    revision: Revision
    folder: Path


@contextmanager
def trees(base: str | None, head: str | None, where: Path, package: str = "harness") -> Iterator[tuple[Tree, Tree]]:
    """Put both revisions into temporary folders, which are removed at the end of the block.

    A commit is checked out as a git worktree. The working tree is copied with all files that git does not ignore, so
    that later edits change nothing. A plain folder is copied as well. The paths of both folders have the same length,
    because the size of a process's environment moves its stack, and so changes its speed.

    Args:
        base: a git revision, else the path of a folder; None is the working tree.
        head: as `base`.
        where: a folder in the checkout.
        package: a package with a `__main__.py` that each revision must have in its top folder; empty asks for none.

    Raises:
        CannotCompare: a name is neither a revision nor a folder, `where` is in no checkout, or a revision has no
            such package.
    """
    with ExitStack() as stack:
        stack.enter_context(_terminable())
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="harness-compare-"))).resolve()
        found = [stack.enter_context(_tree(asked, where, place / name)) for asked, name in ((base, "a"), (head, "b"))]
        for tree in found:
            _check(tree, package)
        yield found[0], found[1]


@contextmanager
def _tree(asked: str | None, where: Path, folder: Path) -> Iterator[Tree]:
    if asked is None:
        revision = _copied(where, folder)
    elif (commit := _commit(asked, where)) is not None:
        with _worktree(commit, where, folder):
            yield Tree(Revision(asked, commit), folder)
        return
    elif (where / asked).is_dir():
        shutil.copytree(where / asked, folder, ignore=_LEFT_OUT)
        revision = Revision(asked)
    else:
        raise CannotCompare(f"{asked!r} is neither a git revision nor a folder in {where}: name one that is there")
    yield Tree(revision, folder)


def _check(tree: Tree, package: str) -> None:
    if package and not (tree.folder / package / "__main__.py").is_file():
        raise CannotCompare(
            f"{tree.revision} has no package `{package}` in its top folder: name a revision that has it"
        )


def top_of(where: Path) -> Path | None:
    """Top folder of the checkout around a folder; None outside of one."""
    done = _ran(where, "rev-parse", "--show-toplevel")
    return Path(done.stdout.rstrip("\n")).resolve() if done.returncode == 0 else None


@contextmanager
def _worktree(commit: str, where: Path, folder: Path) -> Iterator[None]:
    try:
        # No hooks: a post-checkout hook of the user must not run for a temporary worktree.
        _git(where, "-c", "core.hooksPath=/dev/null", "worktree", "add", "--detach", str(folder), commit)
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _git(where, "worktree", "prune")


def _copied(where: Path, folder: Path) -> Revision:
    """Copy the current files of the working tree to `folder`."""
    top = Path(_git(where, "rev-parse", "--show-toplevel").rstrip("\n"))
    listed = _git(top, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        if (top / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(top / name, folder / name)
    # Without renames every entry is two letters, a space and one path.
    status = _git(top, "status", "--porcelain", "-z", "--untracked-files=all", "--no-renames")
    uncommitted = tuple(entry[3:] for entry in status.split("\0") if entry)
    return Revision(WORKING_TREE, _commit("HEAD", top), uncommitted)


def _commit(asked: str, where: Path) -> str | None:
    done = _ran(where, "rev-parse", "--verify", "--quiet", f"{asked}^{{commit}}")
    return done.stdout.strip() if done.returncode == 0 else None


def _git(where: Path, *arguments: str) -> str:
    done = _ran(where, *arguments)
    if done.returncode != 0:
        raise CannotCompare(f"git {' '.join(arguments)} failed in {where}: {done.stderr.strip()}")
    return done.stdout


def _ran(where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["git", *arguments], cwd=where, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise CannotCompare(f"cannot run git: {error}") from error


@contextmanager
def _terminable() -> Iterator[None]:
    """Make SIGTERM raise `SystemExit` inside the block, so that folders are removed; only in the main thread."""

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise SystemExit(TERMINATED)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
