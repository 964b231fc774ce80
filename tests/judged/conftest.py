"""A battery that a test can spoil in any way, its captures, and commands run on it within this process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from harness.cli import main
from harness.parity.baselines import platform, store
from harness.parity.baselines.bless import Battery, bless, digests
from tests.git import commit, git

REFERENCE = "reference"
K = 8.0
UNIT = 2.0**-22
"""eps * rms of a tensor of twos: the rms is 2, exactly, and so is every bound below a number of float32."""


class Made:
    """Scenarios `alpha` and `beta` that finish what a test tells them to, and their blessed captures.

    Attributes:
        finished: finished tensors by scenario.
        ticks: digests of the ticks by scenario.
        plain: what plain kernels add, in `UNIT`s: `K / 4`, so that k is `K`.
        crashes: the scenarios that raise.
        calls: the threads that each replay had, by scenario.
        fresh_calls: the names that each fresh process was asked for.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.captures = root, root / "captures"
        self.scenarios: dict[str, Any] = {name: SimpleNamespace(name=name) for name in ("alpha", "beta")}
        self.finished = {name: {"r0": torch.full((3, 4), 2.0), "r1": torch.zeros(1)} for name in self.scenarios}
        self.ticks: dict[str, Any] = {name: ("aa", "bb", "cc") for name in self.scenarios}
        self.plain = K / 4
        self.crashes: set[str] = set()
        self.calls: dict[str, list[int]] = {}
        self.fresh_calls: list[list[str]] = []

    def play(self, scenario: Any) -> Any:
        self.calls.setdefault(scenario.name, []).append(torch.get_num_threads())
        if scenario.name in self.crashes:
            raise RuntimeError("engine broke")
        tensors = {name: tensor.clone() for name, tensor in self.finished[scenario.name].items()}
        return SimpleNamespace(finished=tensors, ticks=self.ticks[scenario.name])

    def _fresh(self, names: Any) -> Any:
        self.fresh_calls.append(list(names))
        return {
            name: digests(SimpleNamespace(finished=self.finished[name], ticks=self.ticks[name]))  # type: ignore[arg-type]
            for name in names
        }

    def _plain(self, names: Any) -> Any:
        return {
            name: {"r0": self.finished[name]["r0"] + self.plain * UNIT, "r1": self.finished[name]["r1"]}
            for name in names
        }

    def battery(self) -> Battery:
        return Battery(self.scenarios, self.play, self._fresh, self._plain)

    def invoke(self, command: str, *options: str) -> Result:
        words = [command, "--captures", str(self.captures), *options]
        return CliRunner().invoke(main, words, obj=self.battery())

    @property
    def own(self) -> Path:
        return self.captures / platform.name() / "scenarios"

    def file(self, name: str = "alpha") -> Path:
        return self.own / f"{name}.safetensors"

    @property
    def manifest(self) -> Path:
        return self.own / store.MANIFEST

    def r0(self, change: Callable[[Tensor], Tensor]) -> None:
        """Replace alpha's first tensor by what `change` makes of it."""
        self.finished["alpha"]["r0"] = change(self.finished["alpha"]["r0"])

    def nudge(self, *steps: float) -> None:
        """Add so many `UNIT`s to alpha's first elements."""
        self.finished["alpha"]["r0"].view(-1)[: len(steps)] += torch.tensor(steps) * UNIT

    def elsewhere(self, **fields: str) -> None:
        """Make the captures those of a machine that differs in these fields of its fingerprint."""
        manifest = store.read_manifest(self.own)
        fingerprint = {**manifest.fingerprint, **(fields or {"cpu_name": "another"})}
        store.write_manifest(self.own, replace(manifest, fingerprint=fingerprint))

    def with_reference(self) -> None:
        """Copy the captures to the reference platform's folder."""
        shutil.copytree(self.captures / platform.name(), self.captures / REFERENCE)

    def commit(self) -> None:
        commit(self.root)

    def contents(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in self.captures.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def _template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with blessed captures, made once."""
    root = tmp_path_factory.mktemp("made")
    git(root, "init", "-q")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CI", raising=False)
        patch.setattr(platform, "reference_platform", lambda: REFERENCE)
        bless("the first", Made(root).battery(), root / "captures")
    commit(root)
    return root


@pytest.fixture
def made(_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """A checkout with blessed captures of a made-up battery."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(platform, "reference_platform", lambda: REFERENCE)
    shutil.copytree(_template, tmp_path / "made")
    return Made(tmp_path / "made")


@pytest.fixture
def two_threads() -> Iterator[Callable[[], int]]:
    """Two torch threads; the value tells how many there are now."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield torch.get_num_threads
    torch.set_num_threads(before)


def report(path: Path) -> dict[str, Any]:
    """A JSON report; empty where none was written."""
    return dict(json.loads(path.read_text())) if path.is_file() else {}
