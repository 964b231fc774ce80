"""A target that cannot be written is said before the work whose result would go there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from harness import registry
from harness.cli import main
from harness.engine.aot import onnx_file
from harness.parity.baselines.bless import Battery
from harness.rails.compare import revisions
from harness.rails.costs import rails as costs


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the work that a command began with, of which none gets far."""
    began: list[str] = []

    def work(name: str) -> Any:
        def begin(*_args: Any, **_options: Any) -> Any:
            began.append(name)
            raise RuntimeError(name)

        return begin

    for module, name in (
        (registry, "decoder"),
        (onnx_file, "read"),
        (revisions, "compare"),
        (costs, "bless"),
        (costs, "check"),
    ):
        monkeypatch.setattr(module, name, work(f"{module.__name__}.{name}"))
    return began


@pytest.mark.parametrize("words", [
    ["export", "FILE/a.onnx"],
    ["export", "a.onnx", "--json", "FILE/r.json"],
    ["build", "a.onnx", "FILE/a.plan"],
    ["build", "a.onnx", "a.plan", "--json", "FILE/r.json"],
    ["bench", "--json", "FILE/deep/r.json"],
    ["check", "--json", "FILE/r.json"],
    ["check", "--costs", "--json", "FILE/r.json"],
    ["check", "--executor", "onnx", "--json", "FILE/r.json"],
    ["bless", "--captures", "none", "--reason", "some", "--json", "FILE/r.json"],
    ["bless", "--captures", "none", "--costs", "--reason", "some", "--json", "FILE/r.json"],
    ["probe", "--json", "FILE/r.json"],
    ["profile", "--json", "FILE/r.json"],
    ["compare", "--json", "FILE/r.json", "HEAD"],
])  # fmt: skip
def test_a_target_that_cannot_be_written_is_said_before_any_work(
    words: list[str], worked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("no folder")
    played: list[Any] = []
    battery = Battery({"ode_plain": SimpleNamespace(name="ode_plain")}, played.append, played.append, played.append)
    words = [word.replace("FILE", "file") for word in words]
    result = CliRunner().invoke(main, words, obj=battery)
    assert (result.exit_code, worked, played) == (125, [], []), result.output
    assert "cannot " in result.stderr and "file" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
