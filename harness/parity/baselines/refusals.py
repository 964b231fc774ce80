"""Refusals to bless: blessing is an explicit act of one process, on captures that git says are clean."""

from __future__ import annotations

import inspect
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from harness.engine import atomic
from harness.parity.compare import LISTED

P = ParamSpec("P")
T = TypeVar("T")


class BlessRefused(RuntimeError):
    """Blessing would not be an explicit, reproducible act here; the message says why."""


def alone(act: Callable[P, T]) -> Callable[P, T]:
    """Let one process at a time do an act that writes to its argument `captures`; a second one is refused at once.

    The folder around the captures is held while the act runs, so that nothing is left of it where a process dies.

    Raises:
        BlessRefused: another process is writing captures there.
    """
    signature = inspect.signature(act)

    @wraps(act)
    def by_one(*args: P.args, **kwargs: P.kwargs) -> T:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        with held(bound.arguments["captures"]):
            return act(*args, **kwargs)

    return by_one


@contextmanager
def held(captures: Path) -> Iterator[None]:
    """Hold the folder around the captures for one process, inside the block.

    Raises:
        BlessRefused: another process is writing captures there.
    """
    whole = captures.resolve()
    with ExitStack() as stack:
        try:
            stack.enter_context(atomic.locked(next(each for each in whole.parents if each.is_dir())))
        except BlockingIOError as error:
            raise BlessRefused(f"{whole} is being written by another process: try again when it ended") from error
        yield


def refuse_unless_explicit(reason: str, captures: Path) -> None:
    """Refuse under continuous integration, without a reason, and where git does not say that captures are clean.

    Git says nothing of an edit to a file that it ignores or was told not to look at, so such captures are refused too.

    Raises:
        BlessRefused: one of these.
    """
    if os.environ.get("CI", "").strip().lower() not in ("", "0", "false"):
        raise BlessRefused(
            "CI is set: blessing is for a person to do, not for continuous integration; unset CI to do it"
        )
    if not reason.strip():
        raise BlessRefused("no reason given: say why the captures may change")
    top = captures.resolve()
    # Untracked files are asked for explicitly, because a user's configuration can hide them.
    listed = _git(top, "status", "--porcelain", "--untracked-files=all", "--ignored").splitlines()
    # The letter is small for a file with --assume-unchanged, and S for one with --skip-worktree.
    marked = [line for line in _git(top, "ls-files", "-v").splitlines() if line[0] == "S" or line[0].islower()]
    unseen = [line for line in listed if line.startswith("!!")] + marked
    uncommitted = [line for line in listed if not line.startswith("!!")]
    if uncommitted:
        raise BlessRefused(_refusal(f"{top} has uncommitted changes, commit or drop them first", uncommitted))
    if unseen:
        raise BlessRefused(
            _refusal(f"{top} has files that are ignored by git, so an edit would be lost: add or drop them", unseen)
        )


def _git(top: Path, *command: str) -> str:
    """What git prints about the folder `top`."""
    try:
        done = subprocess.run(
            ["git", *command, "--", top.name], cwd=top.parent, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise BlessRefused(f"cannot ask git about {top}: {error}") from error
    if done.returncode != 0:
        raise BlessRefused(f"{top} is in no git checkout: {done.stderr.strip()}")
    return done.stdout


def _refusal(why: str, lines: Sequence[str]) -> str:
    """The reason and the first files, one a line."""
    more = [f"and {len(lines) - LISTED} more"] if len(lines) > LISTED else []
    return "\n".join([f"{why}:", *lines[:LISTED], *more])
