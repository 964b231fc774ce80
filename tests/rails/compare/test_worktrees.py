"""The files of a revision are in a folder of their own, and of that nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from harness.rails.compare import worktrees as module
from harness.rails.compare.worktrees import WORKING_TREE, CannotCompare, Revision, trees
from tests.rails.compare.fake_tree import commit, git


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two commits, of which the second says `new`, with temporary files beside it."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    root = tmp_path / "repository"
    package = root / "harness"
    package.mkdir(parents=True)
    (package / "__main__.py").write_text("old")
    commit(root, "first")
    (package / "__main__.py").write_text("new")
    commit(root, "second")
    return root


def assert_nothing_is_left(repository: Path) -> None:
    assert git(repository, "worktree", "list").count("\n") == 0
    assert list(Path(tempfile.gettempdir()).iterdir()) == []


def main_of(tree: module.Tree) -> str:
    return (tree.folder / "harness" / "__main__.py").read_text()


def test_a_revision_is_as_it_was_committed_whatever_the_working_tree_holds(repository: Path) -> None:
    (repository / "harness" / "__main__.py").write_text("edited")
    with trees("HEAD~1", "main", repository) as (base, head):
        assert (main_of(base), main_of(head)) == ("old", "new")
        assert base.revision == Revision("HEAD~1", git(repository, "rev-parse", "HEAD~1"))
        assert str(head.revision) == f"main ({git(repository, 'rev-parse', 'HEAD')[:10]})"
        assert git(repository, "worktree", "list").count("\n") == 2
    assert_nothing_is_left(repository)


def test_the_working_tree_is_taken_with_what_is_not_committed_and_that_is_named(repository: Path) -> None:
    (repository / "harness" / "__main__.py").write_text("edited")
    (repository / "harness" / "added file.py").write_text("new")
    (repository / "ignored").write_text("")
    git(repository, "config", "status.showUntrackedFiles", "no")
    with trees("HEAD", None, repository / "harness") as (_, head):
        assert main_of(head) == "edited"
        assert (head.folder / "harness" / "added file.py").read_text() == "new"
        assert not (head.folder / "ignored").exists()
        assert head.revision.asked == WORKING_TREE
        assert sorted(head.revision.uncommitted) == ["harness/__main__.py", "harness/added file.py"]
        assert str(head.revision).endswith(" with 2 uncommitted files)")
        (repository / "harness" / "__main__.py").write_text("edited meanwhile")
        assert main_of(head) == "edited"
    assert_nothing_is_left(repository)


def test_a_file_that_was_deleted_or_renamed_is_so_in_the_working_tree(repository: Path) -> None:
    (repository / "harness" / "other.py").write_text("x\n" * 50)
    commit(repository, "third")
    git(repository, "mv", "harness/other.py", "harness/renamed.py")
    with trees("HEAD", None, repository) as (base, head):
        assert (base.folder / "harness" / "other.py").exists()
        assert not (head.folder / "harness" / "other.py").exists()
        assert sorted(head.revision.uncommitted) == ["harness/other.py", "harness/renamed.py"]


def test_a_file_that_was_deleted_and_not_staged_is_none_of_the_working_tree_s(repository: Path) -> None:
    (repository / "harness" / "other.py").write_text("")
    commit(repository, "third")
    (repository / "harness" / "other.py").unlink()
    with trees("HEAD", None, repository) as (_, head):
        assert [file.name for file in (head.folder / "harness").iterdir()] == ["__main__.py"]
        assert head.revision.uncommitted == ("harness/other.py",)


def test_a_clean_working_tree_is_not_called_dirty(repository: Path) -> None:
    with trees("HEAD", None, repository) as (_, head):
        assert head.revision == Revision(WORKING_TREE, git(repository, "rev-parse", "HEAD"))
        assert "uncommitted" not in str(head.revision)


def test_both_may_be_the_same_revision_and_their_paths_are_equally_long(repository: Path) -> None:
    for base, head in (("main", "main"), ("main", None), (None, None)):
        with trees(base, head, repository) as (a, b):
            assert a.folder != b.folder
            assert len(str(a.folder)) == len(str(b.folder))


def test_a_plain_folder_needs_no_repository(repository: Path, tmp_path: Path) -> None:
    (repository / ".venv").mkdir()
    with trees("repository", str(repository), tmp_path) as (base, head):
        assert (main_of(base), main_of(head)) == ("new", "new")
        assert not (base.folder / ".venv").exists() and not (base.folder / ".git").exists()
        assert (base.revision, str(base.revision)) == (Revision("repository"), "repository")


@pytest.mark.parametrize("inside", [".", "harness"])
@pytest.mark.parametrize("kind", ["branch", "branch in a folder", "tag", "id", "short id", "HEAD", "HEAD~0"])
def test_a_name_of_a_revision_and_of_a_folder_is_the_revision_s_and_a_path_the_folder_s(
    repository: Path, kind: str, inside: str
) -> None:
    head = git(repository, "rev-parse", "HEAD")
    names = {"branch": "topic", "branch in a folder": "of/topic", "tag": "v1", "id": head, "short id": head[:8]}
    name = names.get(kind, kind)
    if "branch" in kind:
        git(repository, "branch", name)
    if kind == "tag":
        git(repository, "tag", "-a", name, "-m", "annotated")
    where = repository / inside
    package = where / name / "harness"
    package.mkdir(parents=True)
    (package / "__main__.py").write_text("of the folder")
    for base, other in ((name, f"./{name}"), (f"./{name}", name)):
        with trees(base, other, where) as found:
            said = {tree.revision.asked: (main_of(tree), tree.revision.commit) for tree in found}
        assert said == {name: ("new", head), f"./{name}": ("of the folder", None)}
    assert_nothing_is_left(repository)


@pytest.mark.parametrize(("base", "words"), [
    ("no-such-name", "'no-such-name' is neither a git revision"),
    ("HEAD~9", "'HEAD~9' is neither"),
    ("first:", "is neither"),
    (".git", "no package"),
])  # fmt: skip
def test_what_is_no_revision_is_named(repository: Path, base: str, words: str) -> None:
    with pytest.raises(CannotCompare, match=words), trees(base, None, repository):
        pass
    assert_nothing_is_left(repository)


def test_outside_a_checkout_there_is_no_working_tree(tmp_path: Path) -> None:
    with pytest.raises(CannotCompare, match="not a git repository"), trees(None, None, tmp_path):
        pass


def test_a_worktree_that_git_does_not_add_is_said(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = module._ran

    def refusing(where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 128, "", "no space") if "add" in arguments else run(where, *arguments)

    monkeypatch.setattr(module, "_ran", refusing)
    with pytest.raises(CannotCompare, match="worktree add .* failed in .*: no space"), trees("main", None, repository):
        pass
    assert_nothing_is_left(repository)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_whatever_ends_it(repository: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), trees("HEAD~1", "HEAD", repository):
        raise error
    assert_nothing_is_left(repository)


def test_a_sigterm_ends_it_like_an_interrupt(repository: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, trees("HEAD~1", "HEAD", repository):
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    assert_nothing_is_left(repository)


def test_worktrees_of_others_stay(repository: Path, tmp_path: Path) -> None:
    git(repository, "worktree", "add", "--detach", str(tmp_path / "mine"))
    with trees("HEAD~1", "HEAD", repository):
        pass
    assert str(tmp_path / "mine") in git(repository, "worktree", "list")


def test_no_hook_runs(repository: Path, tmp_path: Path) -> None:
    hook = repository / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch '{tmp_path / 'ran'}'\n")
    hook.chmod(0o755)
    with trees("HEAD~1", "HEAD", repository):
        pass
    assert not (tmp_path / "ran").exists()


def test_without_git_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: object, **options: object) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", missing)
    with pytest.raises(CannotCompare, match="cannot run git"), trees("main", None, tmp_path):
        pass


@pytest.mark.parametrize(("revision", "name"), [
    (Revision("main"), "main"),
    (Revision("main", "0123456789abcdef"), "main (0123456789)"),
    (Revision("x", "0123456789abcdef", ("a",)), "x (0123456789 with 1 uncommitted file)"),
    (Revision("x", "0123456789abcdef", ("a", "b")), "x (0123456789 with 2 uncommitted files)"),
])  # fmt: skip
def test_a_revision_s_name_has_its_commit_and_the_number_of_its_uncommitted_files(
    revision: Revision, name: str
) -> None:
    assert str(revision) == name


def test_of_a_plain_folder_what_is_hidden_or_made_by_python_is_left_out_at_every_depth(tmp_path: Path) -> None:
    kept = ("harness/__main__.py", "harness/engine/a.py", "data.egg/b", "pycache/c", "d.egg-info.txt")
    left = (".git/a", "harness/.hidden", "harness/__pycache__/a.pyc", "it.egg-info/a", "harness/of.egg-info")
    for name in (*kept, *left):
        (tmp_path / "of it" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "of it" / name).write_text(name)
    with trees("of it", "of it", tmp_path) as found:
        for tree in found:
            files = {str(file.relative_to(tree.folder)) for file in tree.folder.rglob("*") if file.is_file()}
            assert files == set(kept)
            assert all((tree.folder / name).read_text() == name for name in kept)


@pytest.mark.parametrize(("base", "head"), [("main", "bare"), ("bare", None)])
def test_a_revision_without_the_package_is_refused_by_name_wherever_it_stands(
    repository: Path, base: str, head: str | None
) -> None:
    git(repository, "switch", "-q", "-c", "bare")
    git(repository, "rm", "-q", "-r", "harness")
    (repository / "harness").mkdir()
    (repository / "harness" / "other.py").write_text("")
    commit(repository, "bare")
    with (
        pytest.raises(CannotCompare, match=r"^bare \(.* has no package `harness` in its"),
        trees(base, head, repository),
    ):
        pass
    assert_nothing_is_left(repository)


def test_the_copy_of_a_working_tree_has_every_file_as_it_is_and_its_mode(repository: Path) -> None:
    for name, text in (("a b/ü.txt", "new"), ("harness/run.sh", "x"), (".hidden", "h"), ("__pycache__/a.pyc", "")):
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_text(text)
    (repository / "harness" / "run.sh").chmod(0o755)
    wanted = {".gitignore", ".hidden", "a b/ü.txt", "harness/__main__.py", "harness/run.sh"}
    with trees(None, None, repository) as found:
        for tree in found:
            files = {str(file.relative_to(tree.folder)) for file in tree.folder.rglob("*") if file.is_file()}
            assert files == wanted
            assert (tree.folder / "a b" / "ü.txt").read_text() == "new"
            assert os.access(tree.folder / "harness" / "run.sh", os.X_OK)
            assert set(tree.revision.uncommitted) == wanted - {".gitignore", "harness/__main__.py"}


def test_trees_may_be_made_in_a_thread_which_leaves_the_signal_alone(repository: Path) -> None:
    seen: list[object] = []
    before = signal.getsignal(signal.SIGTERM)

    def make() -> None:
        with trees("main", "main", repository):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    assert seen == [before]
    assert_nothing_is_left(repository)
