"""Captures of a GPU, with a made-up GPU: what decides whether they are compared, and with what."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import registry
from harness.engine.errors import InvalidInput
from harness.parity.baselines import platform, store
from harness.parity.baselines.bless import Battery, Blessed, bless, digests
from harness.parity.baselines.captures import Report, check
from harness.parity.baselines.verdicts import Verdict
from harness.parity.battery.player import Played

GPU = "cuda:1"
NAME = "cuda-board"


@dataclass(frozen=True)
class Made:
    """Stands for a scenario."""

    name: str
    device: str = "cpu"


class Board:
    """A GPU whose fingerprint and results a test can change, and the captures that were blessed on it."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.captures = root / "captures"
        self.kernels = "aa"
        self.moved = 0.0
        self.devices: list[str] = []
        self.asked: list[tuple[str, ...]] = []
        names = platform.name
        patch.delenv("CI", raising=False)
        patch.setattr(platform, "name", lambda device="cpu": NAME if device == GPU else names(device))
        patch.setattr(platform, "gpu_fingerprint", lambda device: {"gpu": str(device), "kernels": self.kernels})
        patch.setattr(registry, "check_here", lambda _device: None)
        self.battery = Battery({name: Made(name) for name in ("a", "b")}, self.play, self.fresh, self.plain)  # type: ignore[arg-type, dict-item]

    def play(self, scenario: Any) -> Played:
        self.devices.append(scenario.device)
        return Played({"r": torch.arange(4.0) + self.moved}, ("t",))

    def fresh(self, names: Any, device: str) -> Any:
        self.asked.append((*names, device))
        return {name: digests(Played({"r": torch.arange(4.0) + self.moved}, ("t",))) for name in names}

    @staticmethod
    def plain(names: Any) -> Any:
        raise AssertionError(f"a GPU has no plain kernels to play {names} with")

    def bless(self, reason: str = "why") -> Blessed:
        return bless(reason, self.battery.on(GPU), self.captures)

    def check(self, **more: Any) -> Report:
        there = self.battery.on(GPU)
        return check(there.scenarios, there.play, self.captures, device=GPU, **more)

    def commit(self) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        for words in (["add", "-A"], [*identity, "commit", "-qm", "captures"]):
            subprocess.run(["git", *words], cwd=self.captures.parent, check=True, capture_output=True)


@pytest.fixture(name="board")
def _board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    made = Board(tmp_path, monkeypatch)
    made.bless()
    made.commit()
    return made


def test_captures_of_a_gpu_have_a_folder_and_a_fingerprint_of_their_own_and_no_tolerance(board: Board) -> None:
    manifest = store.read_manifest(board.captures / NAME / "scenarios")
    assert manifest.fingerprint == {"gpu": GPU, "kernels": "aa", "executor": "eager", "dtype": "float32"}
    assert {name: entry.k for name, entry in manifest.scenarios.items()} == {"a": 0.0, "b": 0.0}
    assert set(board.devices) == {GPU} and board.asked == [("a", "b", GPU)]
    assert sorted(path.name for path in board.captures.iterdir()) == [NAME]


def test_on_the_gpu_that_blessed_them_captures_are_compared_byte_for_byte(board: Board) -> None:
    report = board.check()
    assert [result.verdict for result in report.results] == [Verdict.EXACT] * 2
    assert (report.passes, report.compared, report.platform, report.blessed_here) == (True, True, NAME, True)
    board.moved = 2.0**-20
    report = board.check()
    assert [(r.verdict, r.bound) for r in report.results] == [(Verdict.MOVED, 0.0)] * 2 and not report.passes


@pytest.mark.parametrize("only", [(), ("b",)])
def test_under_another_fingerprint_nothing_is_played_or_compared_and_that_is_no_verdict(
    only: tuple[str, ...], board: Board
) -> None:
    board.kernels, board.moved = "bb", 1.0
    board.devices.clear()
    (board.captures / NAME / "scenarios" / "stray").touch()
    report = board.check(only=only)
    assert [(r.name, r.verdict) for r in report.results] == [(name, Verdict.NOT_GATED) for name in only or ("a", "b")]
    assert (report.passes, report.compared, report.blessed_here, board.devices) == (False, False, False, [])
    assert report.elsewhere == ("kernels",) and report.document()["platform"]["elsewhere"] == ["kernels"]
    count = "1 scenario: 1" if only else "2 scenarios: 2"
    differs = "not compared: differs in kernels from where they were blessed"
    assert report.summary() == f"{count} not_gated ({NAME}, {differs})"


def test_a_damaged_capture_of_a_gpu_is_a_verdict(board: Board) -> None:
    (board.captures / NAME / "scenarios" / "a.safetensors").unlink()
    (board.captures / NAME / "scenarios" / "stray").touch()
    report = board.check()
    assert [r.verdict for r in report.results] == [Verdict.MISSING, Verdict.EXACT, Verdict.ORPHAN]
    assert report.compared and not report.passes
    board.kernels = "bb"
    manifest = board.captures / NAME / "scenarios" / store.MANIFEST
    manifest.write_text(manifest.read_text().replace("why", "who"))
    assert {r.verdict for r in board.check().results} == {Verdict.CORRUPT}


def test_no_platform_stands_in_for_a_gpu_without_captures(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpu = replace(board.battery, fresh=lambda names: board.fresh(names, "cpu"), plain=lambda names: {
        name: {"r": torch.arange(4.0)} for name in names
    })  # fmt: skip
    bless("why", on_cpu, board.captures)
    monkeypatch.setattr(platform, "reference_platform", lambda: platform.name())
    assert check(board.battery.scenarios, board.play, board.captures).passes
    for path in (board.captures / NAME / "scenarios").iterdir():
        path.unlink()
    with pytest.raises(store.NoCaptures, match=f"{NAME}/scenarios: no captures"):
        board.check()


def test_blessing_again_on_another_gpu_replaces_all_captures_and_says_so(board: Board) -> None:
    assert board.bless("again").changes == ()
    board.kernels, board.moved = "bb", 1.0
    changes = {change.name: change.what for change in board.bless("another board").changes}
    assert changes == {"a": "moved", "b": "moved", store.MANIFEST: "fingerprint changed: kernels aa -> bb"}
    board.commit()
    assert board.check().passes


def test_a_battery_on_its_own_device_is_itself() -> None:
    battery = Battery({}, lambda _: Played({}, ()), lambda names: {}, lambda names: {})
    assert battery.on("cpu") is battery and battery.on_cpu
    there = battery.on("cuda")
    assert (there.device, there.on_cpu, there.on("cuda")) == ("cuda", False, there)


def test_other_devices_than_the_cpu_and_cuda_have_no_captures(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="device: got 'meta', expected the CPU or a CUDA device"):
        check(play=lambda _: Played({}, ()), captures=tmp_path, device="meta")
    assert platform.of_captures() == platform.of_captures("cpu") == platform.fingerprint()
