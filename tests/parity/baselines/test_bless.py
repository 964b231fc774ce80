"""What bless says is what it writes, and what it refuses stays as it was, to the byte."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from harness.cli import main
from harness.engine import atomic
from harness.parity.baselines import bless as blessing
from harness.parity.baselines import platform, store
from harness.parity.baselines.bless import bless, fresh_digests, plain_tensors
from harness.parity.baselines.refusals import BlessRefused
from harness.parity.compare import LISTED
from tests.git import commit, git
from tests.parity.baselines.test_captures import Engine, elsewhere, folder


def contents(captures: Path) -> dict[str, bytes]:
    """Every file's bytes, by its path."""
    return {str(path): path.read_bytes() for path in captures.rglob("*") if path.is_file()}


@pytest.fixture(name="engine")
def _engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.delenv("CI", raising=False)
    return Engine()


@pytest.fixture(name="captures")
def _captures(engine: Engine, tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    engine.plain_shift = 1e-6
    bless("the first", engine.battery(), tmp_path / "captures")
    commit(tmp_path)
    return tmp_path / "captures"


def invoke(engine: Engine, captures: Path, *more: str) -> Result:
    words = ["bless", "--reason", "why", "--captures", str(captures), *more]
    return CliRunner().invoke(main, words, obj=engine.battery())


def entries(captures: Path) -> dict[str, store.Entry]:
    return dict(store.read_manifest(folder(captures)).scenarios)


# What is written is said.


def test_a_new_fingerprint_and_every_new_tolerance_are_named_in_the_output_and_in_the_json(
    engine: Engine, captures: Path, tmp_path: Path
) -> None:
    elsewhere(captures)
    commit(captures.parent)
    engine.plain_shift = 1e-5
    was = {name: entry.k for name, entry in entries(captures).items()}
    result = invoke(engine, captures, "--json", str(tmp_path / "b.json"))
    now = {name: entry.k for name, entry in entries(captures).items()}
    assert result.exit_code == 0 and "nothing written" not in result.stdout
    changes = {change["name"]: change for change in json.loads((tmp_path / "b.json").read_text())["changes"]}
    for name in was:
        assert f"{name} tolerance, k {was[name]:g} -> {now[name]:g}" in result.stdout
        assert changes[name]["k"] == [was[name], now[name]]
    here = platform.fingerprint()["cpu_name"]
    assert f"fingerprint changed: cpu_name other -> {here}" in result.stdout
    assert changes[store.MANIFEST]["what"] == f"fingerprint changed: cpu_name other -> {here}"


def test_the_same_tolerance_of_another_machine_is_no_change_of_the_scenario(
    engine: Engine, captures: Path, tmp_path: Path
) -> None:
    elsewhere(captures)
    commit(captures.parent)
    result = invoke(engine, captures, "--json", str(tmp_path / "b.json"))
    document = json.loads((tmp_path / "b.json").read_text())
    assert [change["name"] for change in document["changes"]] == [store.MANIFEST]
    assert document["identical"] == 2
    assert result.stdout.rstrip().endswith("; the others identical (2)")


def test_a_scenario_that_moved_says_its_new_tolerance_too(engine: Engine, captures: Path, tmp_path: Path) -> None:
    was = entries(captures)["alpha"].k
    engine.latents["alpha"] += 1
    engine.plain_shift = 1e-5
    result = invoke(engine, captures, "--json", str(tmp_path / "b.json"))
    now = entries(captures)["alpha"].k
    assert f"alpha moved, max |Δ| 1.0e0, k {was:g} -> {now:g}; the others identical (1)" in result.stdout
    (change,) = json.loads((tmp_path / "b.json").read_text())["changes"]
    assert (change["name"], change["k"]) == ("alpha", [was, now])


def test_another_engine_digest_and_torch_are_named_where_they_are_written(
    engine: Engine, captures: Path, tmp_path: Path
) -> None:
    manifest = store.read_manifest(folder(captures))
    store.write_manifest(folder(captures), replace(manifest, torch="1.0"))
    commit(captures.parent)
    engine.latents["alpha"] += 1
    (tmp_path / "engine").mkdir()
    blessed = bless("why", engine.battery(), captures, engine=tmp_path / "engine")
    said = [change.what for change in blessed.changes if change.name == store.MANIFEST]
    now = store.read_manifest(folder(captures))
    assert said == [
        f"engine changed: {manifest.engine[:12]} -> {now.engine[:12]}",
        f"torch changed: 1.0 -> {now.torch}",
    ]


def test_where_nothing_is_written_no_byte_changes_and_where_a_byte_changes_it_is_said(
    engine: Engine, captures: Path, tmp_path: Path
) -> None:
    before = contents(captures)
    result = invoke(engine, captures, "--json", str(tmp_path / "b.json"))
    assert result.stdout == "all 2 identical, nothing written\n"
    assert json.loads((tmp_path / "b.json").read_text()) == {"changes": [], "identical": 2}
    assert contents(captures) == before
    elsewhere(captures)
    commit(captures.parent)
    before = contents(captures)
    result = invoke(engine, captures, "--json", str(tmp_path / "b.json"))
    assert contents(captures) != before
    assert json.loads((tmp_path / "b.json").read_text())["changes"]


# Fresh processes.


@pytest.mark.parametrize("caller", [None, "", "avx2", "avx512", "default"])
@pytest.mark.parametrize(("replay", "plain"), [(lambda: plain_tensors([]), True), (lambda: fresh_digests([]), False)])
def test_the_plain_replay_differs_from_the_caller_s_environment_in_its_kernels_alone_whatever_that_asks_for(
    replay: Callable[[], Any], plain: bool, caller: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The other replay has the very environment of the caller."""
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    if caller is not None:
        monkeypatch.setenv("ATEN_CPU_CAPABILITY", caller)
    script, dumped = tmp_path / "python", tmp_path / "environment.json"
    dump = f"import json, os; json.dump(dict(os.environ), open({str(dumped)!r}, 'w')); print({{}})"
    script.write_text(f"#!/bin/sh\nexec {sys.executable} -S -E -c {shlex.quote(dump)}\n")
    script.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(script))
    assert replay() == {}
    of_the_shell = {"PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE"}
    seen, wanted = (
        json.loads(dumped.read_text()),
        {**os.environ, **({"ATEN_CPU_CAPABILITY": "default"} if plain else {})},
    )
    assert {n: v for n, v in seen.items() if n not in of_the_shell} == {
        n: v for n, v in wanted.items() if n not in of_the_shell
    }


# What git does not see.


@pytest.mark.parametrize("pattern", ["captures/", "*.safetensors", "alpha.*"])
def test_captures_that_git_ignores_are_refused_by_name(engine: Engine, tmp_path: Path, pattern: str) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text(f"{pattern}\n")
    commit(tmp_path)
    captures = tmp_path / "captures"
    bless("the first", engine.battery(), captures)
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "captures", "--allow-empty")
    edited = folder(captures) / "alpha.safetensors"
    edited.write_bytes(b"edited by hand")
    before = contents(captures)
    result = invoke(engine, captures)
    assert result.exit_code == 2
    assert "ignored by git" in result.stderr and "alpha.safetensors" in result.stderr
    assert contents(captures) == before


def test_a_capture_that_is_tracked_although_a_pattern_ignores_it_is_not_refused(engine: Engine, captures: Path) -> None:
    (captures.parent / ".gitignore").write_text("*.safetensors\n")
    commit(captures.parent)
    assert invoke(engine, captures).exit_code == 0


@pytest.mark.parametrize("mark", ["--assume-unchanged", "--skip-worktree"])
def test_an_edit_that_git_was_told_not_to_see_is_refused_by_name(engine: Engine, captures: Path, mark: str) -> None:
    path = folder(captures) / "alpha.safetensors"
    git(captures.parent, "update-index", mark, str(path))
    path.write_bytes(b"edited by hand")
    result = invoke(engine, captures)
    assert result.exit_code == 2 and "alpha.safetensors" in result.stderr
    assert path.read_bytes() == b"edited by hand"


# A manifest that cannot be used.


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def no_object(path: Path) -> None:
    path.write_text("[]")


def no_fingerprint(path: Path) -> None:
    document = store.read_document(path)
    store.write_document(path, {**document, "fingerprint": None})


def no_entries(path: Path) -> None:
    document = store.read_document(path)
    store.write_document(path, {**document, "scenarios": ["alpha"]})


def other_format(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))


DAMAGE = [cut, no_object, no_fingerprint, no_entries, other_format, Path.unlink]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_only_some_are_not_blessed_over_a_manifest_that_cannot_be_used(
    engine: Engine, captures: Path, damage: Callable[[Path], Any]
) -> None:
    damage(folder(captures) / store.MANIFEST)
    commit(captures.parent)
    before = contents(captures)
    result = invoke(engine, captures, "--only", "alpha")
    assert result.exit_code == 2, result.output
    assert "would forget the others" in result.stderr and "new" not in result.stdout
    assert contents(captures) == before


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_all_are_blessed_over_a_manifest_that_cannot_be_used_and_that_is_said(
    engine: Engine, captures: Path, damage: Callable[[Path], Any]
) -> None:
    damage(folder(captures) / store.MANIFEST)
    commit(captures.parent)
    result = invoke(engine, captures)
    assert result.exit_code == 0, result.output
    assert "manifest.json restored, it was " in result.stdout
    assert set(entries(captures)) == {"alpha", "beta"}
    assert "new" not in result.stdout
    assert "alpha restored, its file was in no manifest and is the same" in result.stdout


def test_over_a_manifest_that_was_tampered_with_every_distance_is_said(engine: Engine, captures: Path) -> None:
    cut(folder(captures) / store.MANIFEST)
    (folder(captures) / "beta.safetensors").write_bytes(b"x")
    commit(captures.parent)
    engine.latents["alpha"] += 2
    result = invoke(engine, captures)
    assert "alpha moved from a file that was in no manifest, max |Δ| 2.0e0" in result.stdout
    assert "beta restored, its file was corrupt and in no manifest" in result.stdout


def test_of_two_that_bless_at_once_one_wins_and_the_other_is_refused(engine: Engine, captures: Path) -> None:
    before = contents(captures)
    with atomic.locked(captures.parent):
        result = invoke(engine, captures)
        costs = invoke(engine, captures, "--costs")
    for refused in (result, costs):
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert f"refused: {captures} is being written by another process" in refused.stderr
    assert contents(captures) == before
    assert invoke(engine, captures).exit_code == 0


# A crash is no verdict.


@pytest.mark.parametrize("options", [(), ("--costs",)])
def test_a_crash_exits_with_125_and_writes_nothing(
    engine: Engine, captures: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("engine broke")

    monkeypatch.setattr(engine, "play", broken)
    monkeypatch.setattr("harness.rails.costs.rails.counted", broken)
    before = contents(captures)
    result = invoke(engine, captures, *options)
    assert result.exit_code == 125 and "engine broke" in result.stderr
    assert contents(captures) == before


def test_costs_are_not_blessed_over_a_file_that_cannot_be_used(engine: Engine, captures: Path) -> None:
    (captures / platform.name() / "costs.json").write_text("{}")
    commit(captures.parent)
    result = invoke(engine, captures, "--costs")
    assert result.exit_code == 2 and "costs.json" in result.stderr


def test_bless_of_some_where_there_are_none_is_new_and_forgets_nothing(engine: Engine, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    blessed = bless("first", engine.battery(), tmp_path / "captures", ["alpha"])
    assert blessed.summary() == "alpha new"
    commit(tmp_path)
    bless("second", engine.battery(), tmp_path / "captures", ["beta"])
    assert set(entries(tmp_path / "captures")) == {"alpha", "beta"}


@pytest.mark.parametrize(("count", "more"), [(LISTED, []), (LISTED + 1, ["and 1 more"])])
def test_a_refusal_names_the_first_files_and_counts_the_others_where_there_are_others(
    engine: Engine, captures: Path, count: int, more: list[str]
) -> None:
    for number in range(count):
        (captures / f"stray{number:02}").write_text("")
    said = invoke(engine, captures).stderr.splitlines()
    files = [f"?? captures/stray{number:02}" for number in range(LISTED)]
    assert said[1:] == [*files, *more]


def test_plain_tensors_are_asked_for_by_name_and_read_for_every_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(arguments: list[str], environment: dict[str, str]) -> str:
        command, where, *names = arguments
        asked.append((command, names, environment))
        for number, name in enumerate(names):
            (Path(where) / store.file_name(name)).write_bytes(store.serialize({"r0": torch.full((2,), float(number))}))
        return ""

    monkeypatch.setattr(blessing, "_harness", answer)
    found = plain_tensors(["b", "a", "c"])
    assert {name: tensors["r0"].tolist() for name, tensors in found.items()} == {
        "b": [0.0, 0.0],
        "a": [1.0, 1.0],
        "c": [2.0, 2.0],
    }
    assert asked == [("_tensors", ["b", "a", "c"], blessing._PLAIN)]


def test_captures_in_a_folder_whose_name_looks_like_an_option_are_guarded_too(engine: Engine, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    captures = tmp_path / "-z"
    bless("first", engine.battery(), captures)
    with pytest.raises(BlessRefused, match="uncommitted changes"):
        bless("second", engine.battery(), captures)
