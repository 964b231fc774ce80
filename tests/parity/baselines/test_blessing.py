"""The act of blessing: in what order it refuses, plays and writes, and what it leaves as it is."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.checkout import PACKAGE
from harness.engine import atomic
from harness.engine.errors import InvalidInput
from harness.parity.baselines import bless as module
from harness.parity.baselines import platform, refusals, store
from harness.parity.baselines.bless import bless, fresh_digests, plain_tensors
from harness.parity.baselines.captures import check
from harness.parity.baselines.refusals import BlessRefused, refuse_unless_explicit
from harness.parity.compare import digest_tree
from tests.git import commit, git
from tests.parity.baselines.test_captures import Engine


class Checkout:
    """Captures of `alpha` and `beta`, committed; git is asked where a test is about it, and nowhere else."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root, self.captures, self.engine, self.patch = root, root / "my captures", Engine(), patch
        self.folder = self.captures / platform.name() / "scenarios"
        self.engine.plain_shift = 1e-6
        patch.setattr(platform, "reference_platform", platform.name)
        patch.setattr(module, "refuse_unless_explicit", lambda *_: None)
        self.bless("the first")
        self.engine.threads.clear()

    def bless(self, reason: str = "why", only: tuple[str, ...] = (), engine: Path = PACKAGE / "engine") -> str:
        return bless(reason, self.engine.battery(), self.captures, only, engine).summary()

    @property
    def manifest(self) -> store.Manifest:
        return store.read_manifest(self.folder)

    def edit(self, **fields: Any) -> None:
        store.write_manifest(self.folder, replace(self.manifest, **fields))

    def elsewhere(self) -> None:
        self.edit(fingerprint={**self.manifest.fingerprint, "cpu_name": "other"})

    def inodes(self) -> dict[str, int]:
        """A file that is written again is another one."""
        return {path.name: path.stat().st_ino for path in self.folder.iterdir()}

    def verdicts(self) -> list[str]:
        return [str(result.verdict) for result in check(self.engine.scenarios, self.engine.play, self.captures).results]


@pytest.fixture(name="made")
def _made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    return Checkout(tmp_path, monkeypatch)


# What is written.


def test_a_manifest_describes_every_capture_and_where_it_was_made(made: Checkout, tmp_path: Path) -> None:
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "a.py").write_text("1")
    made.engine.latents["alpha"] += 1
    made.bless("moved", engine=tmp_path / "sources")
    found = made.manifest
    with platform.one_thread():
        assert found.fingerprint == platform.fingerprint()
    assert found.engine == store.engine_digest(tmp_path / "sources")
    assert found.torch == str(torch.__version__)
    for name, reason in (("alpha", "moved"), ("beta", "the first")):
        tensors = {"r0": made.engine.latents[name]}
        entry = store.entry(name, tensors, ("aa", "bb", "cc"), found.scenarios[name].k, reason)
        assert found.scenarios[name] == entry
        assert (made.folder / entry.file).read_bytes() == store.serialize(tensors)
    assert sorted(path.name for path in made.folder.iterdir()) == [
        "alpha.safetensors", "beta.safetensors", "manifest.json",
    ]  # fmt: skip


def test_the_engine_whose_sources_are_kept_is_this_package_s(made: Checkout) -> None:
    assert module.ENGINE == PACKAGE / "engine"
    assert made.manifest.engine == store.engine_digest(PACKAGE / "engine")


def test_on_another_machine_the_same_bits_are_not_written_again_and_keep_their_reason(made: Checkout) -> None:
    made.elsewhere()
    before = made.inodes()
    made.engine.latents["beta"] += 1
    made.engine.plain_shift = 1e-5
    assert made.bless("here").startswith("manifest.json fingerprint changed: cpu_name other -> ")
    changed = {name for name, inode in made.inodes().items() if inode != before[name]}
    assert changed == {"beta.safetensors", "manifest.json"}
    assert {name: entry.reason for name, entry in made.manifest.scenarios.items()} == {
        "alpha": "the first", "beta": "here",
    }  # fmt: skip


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"x")])
def test_a_restored_file_of_the_same_bits_keeps_its_reason_and_the_other_file_is_left(
    damage: Callable[[Path], Any], made: Checkout
) -> None:
    before, manifest = made.inodes(), made.manifest
    damage(made.folder / "alpha.safetensors")
    assert made.bless("again").startswith("alpha restored, its file was ")
    assert made.inodes()["beta.safetensors"] == before["beta.safetensors"]
    assert made.manifest == manifest
    assert made.verdicts() == ["exact", "exact"]


def test_new_states_of_the_same_bits_are_written_with_their_reason_into_the_manifest_alone(made: Checkout) -> None:
    before = made.inodes()
    made.engine.ticks["alpha"] = ("aa", "bb")
    assert made.bless("fewer ticks") == "alpha moved in its states only; the others identical (1)"
    assert {name for name, inode in made.inodes().items() if inode != before[name]} == {"manifest.json"}
    entry = made.manifest.scenarios["alpha"]
    assert (entry.ticks, entry.reason) == (("aa", "bb"), "fewer ticks")


def test_only_what_was_named_is_played_written_or_removed(made: Checkout) -> None:
    was = made.manifest
    made.engine.latents = {name: latent + 1 for name, latent in made.engine.latents.items()}
    (made.folder / "gamma.safetensors").touch()
    del made.engine.scenarios["beta"]
    made.engine.scenarios["delta"] = SimpleNamespace(name="delta")
    assert made.bless("alpha alone", ("alpha",)).startswith("alpha moved, max |Δ| 1.0e0")
    now = made.manifest
    assert now.scenarios["beta"] == was.scenarios["beta"]
    assert set(now.scenarios) == {"alpha", "beta"}
    assert now.scenarios["alpha"].content == digest_tree({"r0": made.engine.latents["alpha"]})
    assert sorted(made.inodes()) == ["alpha.safetensors", "beta.safetensors", "gamma.safetensors", "manifest.json"]


def test_what_is_no_more_is_removed_from_files_and_manifest_also_where_only_one_of_them_has_it(made: Checkout) -> None:
    entries = made.manifest.scenarios
    ghost = replace(entries["beta"], file="ghost.safetensors")
    made.edit(scenarios={**entries, "ghost": ghost})
    (made.folder / "gamma.safetensors").touch()
    (made.folder / "notes.txt").touch()
    del made.engine.scenarios["beta"]
    assert made.bless("less") == "beta removed; gamma removed; ghost removed; the others identical (1)"
    assert list(made.manifest.scenarios) == ["alpha"]
    assert sorted(made.inodes()) == ["alpha.safetensors", "manifest.json", "notes.txt"]


def test_the_changes_are_told_in_one_order_manifest_scenarios_removed(made: Checkout) -> None:
    made.edit(torch="1.0")
    made.engine.latents = {name: latent + 1 for name, latent in made.engine.latents.items()}
    made.engine.scenarios["aleph"] = SimpleNamespace(name="aleph")
    made.engine.latents["aleph"], made.engine.ticks["aleph"] = torch.ones(1, 2, 2), ("x",)
    (made.folder / "gamma.safetensors").touch()
    blessed = bless("why", made.engine.battery(), made.captures)
    assert [change.name for change in blessed.changes] == ["manifest.json", "alpha", "beta", "aleph", "gamma"]
    assert (blessed.folder, blessed.identical) == (made.folder, 0)


# Stopped in between.


@pytest.mark.parametrize("written", [0, 1, 2])
def test_stopped_between_two_files_the_next_check_fails_and_does_not_pass(written: int, made: Checkout) -> None:
    made.engine.latents = {name: latent + 1 for name, latent in made.engine.latents.items()}
    write, names = atomic.write, list[str]()

    def stopped(path: Path, data: bytes) -> None:
        if len(names) == written:
            raise KeyboardInterrupt
        names.append(path.name)
        write(path, data)

    made.patch.setattr(atomic, "write", stopped)
    with pytest.raises(KeyboardInterrupt):
        made.bless()
    assert names == ["alpha.safetensors", "beta.safetensors"][:written]
    assert made.verdicts() == ["corrupt"] * written + ["moved"] * (2 - written)


def test_files_are_removed_before_the_manifest_forgets_them(made: Checkout) -> None:
    del made.engine.scenarios["beta"]

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    made.patch.setattr(store, "write_manifest", stopped)
    with pytest.raises(KeyboardInterrupt):
        made.bless()
    assert not (made.folder / "beta.safetensors").exists()
    assert made.verdicts() == ["exact", "orphan"]


# What is refused, and when.


def test_nothing_is_played_before_blessing_is_allowed(made: Checkout) -> None:
    asked: list[Any] = []

    def refused(*arguments: Any) -> None:
        asked.append(arguments)
        raise BlessRefused("no")

    made.patch.setattr(module, "refuse_unless_explicit", refused)
    with pytest.raises(BlessRefused, match="^no$"):
        made.bless("my reason", ("nine",))
    assert asked == [("my reason", made.captures)]
    assert made.engine.threads == []


def test_nothing_is_played_where_only_some_cannot_be_blessed_or_none_is_known(made: Checkout) -> None:
    with pytest.raises(InvalidInput, match="only: got nine, expected some of alpha, beta"):
        made.bless("why", ("alpha", "nine"))
    made.elsewhere()
    with pytest.raises(BlessRefused) as error:
        made.bless("why", ("alpha",))
    assert str(error.value) == f"--only would mix captures of two machines in {made.folder}: bless all of them"
    (made.folder / store.MANIFEST).unlink()
    with pytest.raises(BlessRefused) as error:
        made.bless("why", ("alpha",))
    forget = f"--only would forget the others in {made.folder}, whose manifest cannot be used: bless all of them"
    assert str(error.value) == forget
    assert made.engine.threads == []


def test_some_may_be_blessed_into_an_empty_folder_of_this_machine(made: Checkout) -> None:
    shutil.rmtree(made.folder)
    made.folder.mkdir()
    assert made.bless("why", ("alpha",)) == "alpha new"
    assert list(made.manifest.scenarios) == ["alpha"]


@pytest.mark.parametrize(("name", "finished", "said"), [
    ("beta", {}, "beta finishes no tensor with an element: there is nothing to capture"),
    ("alpha", {"r": torch.empty(0), "s": torch.empty(2, 0)}, "alpha finishes no tensor with an element: "
     "there is nothing to capture"),
])  # fmt: skip
def test_a_scenario_that_finishes_nothing_is_refused_by_name(
    name: str, finished: dict[str, torch.Tensor], said: str, made: Checkout
) -> None:
    play = made.engine.play
    made.engine.play = lambda s: SimpleNamespace(finished=finished, ticks=()) if s.name == name else play(s)
    with pytest.raises(BlessRefused) as error:
        made.bless()
    assert str(error.value) == said


def test_tolerances_are_measured_of_what_is_written_and_of_nothing_else(made: Checkout) -> None:
    asked: list[list[str]] = []
    plain = made.engine.plain
    made.engine.plain = lambda names: (asked.append(list(names)), plain(names))[1]
    made.bless()
    made.engine.latents["beta"] += 1
    made.bless()
    (made.folder / "gamma.safetensors").touch()
    made.bless()
    made.elsewhere()
    made.bless()
    assert asked == [["beta"], ["alpha", "beta"]]


# Git.


@pytest.mark.parametrize("value", ["", " ", "0", "false", "False", "FALSE", " false "])
def test_these_values_of_ci_are_none(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", value)
    monkeypatch.setattr(refusals, "_git", lambda *_: "")
    refuse_unless_explicit("why", tmp_path)


@pytest.mark.parametrize("value", ["1", "true", "True", "yes", "no", "00", "falsehood", "github"])
def test_every_other_value_of_ci_refuses_before_the_reason_is_read_or_git_is_asked(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", value)
    monkeypatch.setattr(refusals, "_git", lambda *_: pytest.fail("git was asked"))
    with pytest.raises(
        BlessRefused, match="^CI is set: blessing is for a person to do, not for continuous integration"
    ):
        refuse_unless_explicit("", tmp_path)


@pytest.mark.parametrize("reason", ["", " ", "\n\t "])
def test_a_reason_without_a_letter_is_none(reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(refusals, "_git", lambda *_: pytest.fail("git was asked"))
    with pytest.raises(BlessRefused, match="^no reason given: say why the captures may change$"):
        refuse_unless_explicit(reason, tmp_path)


@pytest.mark.parametrize(("status", "tracked", "said"), [
    ("", "H captures/a\n", None),
    ("", "h captures/a\nH captures/b\n", "ignored\nh captures/a"),
    ("", "H captures/a\nS captures/b\n", "ignored\nS captures/b"),
    ("", "s captures/a\n", "ignored\ns captures/a"),
    ("!! captures/x\n", "h captures/a\n", "ignored\n!! captures/x\nh captures/a"),
    ("?? captures/y\n!! captures/x\n", "h captures/a\n", "uncommitted\n?? captures/y"),
    (" M captures/a\nD  captures/b\n", "", "uncommitted\n M captures/a\nD  captures/b"),
])  # fmt: skip
def test_whatever_git_does_not_call_clean_is_refused_line_by_line(
    status: str, tracked: str, said: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    asked: list[tuple[Any, ...]] = []
    answers = {"status": status, "ls-files": tracked}
    monkeypatch.setattr(refusals, "_git", lambda *words: (asked.append(words), answers[words[1]])[1])
    top = (tmp_path / "captures").resolve()
    words = {"ignored": "has files that are ignored by git, so an edit would be lost: add or drop them",
             "uncommitted": "has uncommitted changes, commit or drop them first"}  # fmt: skip
    if said is None:
        refuse_unless_explicit("why", tmp_path / "captures")
    else:
        why, _, lines = said.partition("\n")
        with pytest.raises(BlessRefused) as error:
            refuse_unless_explicit("why", tmp_path / "captures")
        assert str(error.value) == f"{top} {words[why]}:\n{lines}"
    assert asked == [(top, "status", "--porcelain", "--untracked-files=all", "--ignored"), (top, "ls-files", "-v")]


def test_git_is_asked_about_the_folder_of_captures_wherever_it_is_and_whatever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a link leads to it: the checkout that has it is asked, and not the one that has the link."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    captures = tmp_path / "one" / "-é [x]*"
    captures.mkdir(parents=True)
    (captures / "a").touch()
    git(tmp_path / "one", "init", "-q")
    commit(tmp_path / "one")
    (tmp_path / "link").symlink_to(captures)
    (tmp_path / "one" / "beside").touch()
    for place in (captures, tmp_path / "link"):
        refuse_unless_explicit("why", place)
    (captures / "b").touch()
    for place in (captures, tmp_path / "link"):
        with pytest.raises(BlessRefused, match=r"uncommitted changes(?s:.*)/b"):
            refuse_unless_explicit("why", place)
    (tmp_path / "none").mkdir()
    with pytest.raises(BlessRefused, match=f"^{tmp_path / 'none'} is in no git checkout: fatal: "):
        refuse_unless_explicit("why", tmp_path / "none")


def test_without_git_blessing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BlessRefused, match=f"^cannot ask git about {tmp_path / 'captures'}: "):
        refuse_unless_explicit("why", tmp_path / "captures")


# Fresh processes.


@pytest.fixture(name="interpreter")
def _interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In place of Python: it notes where it runs and its arguments, and says what it is told to."""
    script = tmp_path / "python"
    script.write_text(
        f'#!/bin/sh\npwd >"{tmp_path}/ran"\nprintf "%s\\n" "$@" >>"{tmp_path}/ran"\ncat "{tmp_path}/said"\n'
    )
    script.chmod(0o755)
    (tmp_path / "said").write_text("{}")
    monkeypatch.setattr(sys, "executable", str(script))
    return tmp_path


@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
def test_a_fresh_process_runs_this_package_and_is_asked_for_every_name_on_the_device(
    device: str, interpreter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = '{"a": {"content": "c", "ticks": ["x", "y"]}, "b": {"content": "d", "ticks": []}}'
    (interpreter / "said").write_text(said)
    monkeypatch.chdir(interpreter)
    asked = [["b", "a"]] if device == "cpu" else [["b", "a"], device]
    assert fresh_digests(*asked) == {"a": module.Digests("c", ("x", "y")), "b": module.Digests("d", ())}
    ran = (interpreter / "ran").read_text().splitlines()
    assert ran == [str(PACKAGE.parent), "-m", "harness", "_digests", "--device", device, "b", "a"]


def test_plain_tensors_are_read_from_the_file_of_each_name_in_a_folder_that_is_gone_after(
    interpreter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = {name: {"r": torch.full((2,), number)} for number, name in enumerate(("a", "b"))}
    run = module._harness

    def filled(arguments: Any, environment: Any) -> str:
        for name, each in tensors.items():
            atomic.write(Path(arguments[1]) / f"{name}.safetensors", store.serialize(each))
        return run(arguments, environment)

    monkeypatch.setattr(module, "_harness", filled)
    found = plain_tensors(["b", "a"])
    assert {name: digest_tree(each) for name, each in found.items()} == {
        name: digest_tree(each) for name, each in tensors.items()
    }
    where, *words, folder, first, second = (interpreter / "ran").read_text().splitlines()
    assert (where, words, first, second) == (str(PACKAGE.parent), ["-m", "harness", "_tensors"], "b", "a")
    assert not Path(folder).exists()
