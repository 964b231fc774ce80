"""The hidden commands, as another process calls them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file

from harness.cli import main
from harness.parity.baselines.bless import BATTERY, Battery, digests
from harness.rails.costs import rails as costs

NAMES = ("gamma", "alpha", "beta")


class Played:
    """A battery of three scenarios whose tensors tell which they are; notes what was played, with how many threads."""

    def __init__(self) -> None:
        self.played: list[tuple[str, int]] = []
        scenarios: Any = {name: SimpleNamespace(name=name) for name in NAMES}
        self.battery = Battery(scenarios, self.play, BATTERY.fresh, BATTERY.plain)

    def play(self, scenario: Any) -> Any:
        self.played.append((scenario.name, torch.get_num_threads()))
        return made(scenario.name)

    def invoke(self, *words: str) -> Result:
        torch.set_num_threads(2)
        result = CliRunner().invoke(main, words, obj=self.battery)
        assert (result.exit_code, torch.get_num_threads()) == (0, 2), result.output
        return result


def made(name: str) -> Any:
    first = float(NAMES.index(name) + 1)
    tensors = {"r1": torch.full((2, 1), first), "r0": torch.full((3,), -first)}
    return SimpleNamespace(finished=tensors, ticks=(name, f"{name} again", name))


@pytest.mark.parametrize(("asked", "names"), [
    ([], NAMES), (["beta"], ("beta",)), (["beta", "alpha"], ("alpha", "beta")), (["beta", "beta"], ("beta",)),
])  # fmt: skip
def test_digests_are_of_the_named_scenarios_alone_or_of_all(asked: list[str], names: tuple[str, ...]) -> None:
    made_up = Played()
    found = json.loads(made_up.invoke("_digests", *asked).stdout)
    assert made_up.played == [(name, 1) for name in names], "each once"
    assert found == {
        name: {"content": digests(made(name)).content, "ticks": [name, f"{name} again", name]} for name in names
    }
    assert len({each["content"] for each in found.values()}) == len(names)


@pytest.mark.parametrize(
    ("asked", "names"), [([], NAMES), (["beta"], ("beta",)), (["beta", "gamma"], ("gamma", "beta"))]
)
def test_tensors_are_written_of_the_named_scenarios_alone_or_of_all(
    asked: list[str], names: tuple[str, ...], tmp_path: Path
) -> None:
    made_up, folder = Played(), tmp_path / "not made yet"
    assert made_up.invoke("_tensors", str(folder), *asked).output == ""
    assert made_up.played == [(name, 1) for name in names]
    assert {path.name for path in folder.iterdir()} == {f"{name}.safetensors" for name in names}
    for name in names:
        written, wanted = load_file(folder / f"{name}.safetensors"), made(name).finished
        assert written.keys() == wanted.keys()
        assert all(torch.equal(written[each], wanted[each]) for each in wanted)


def test_costs_are_printed_as_they_were_counted_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"plain/4": {"ticks": 8, "operator aten::add": 3}, "cfg/1": {"ticks": 0}}
    monkeypatch.setattr(costs, "counted", lambda: counts)
    assert CliRunner().invoke(main, ["_costs"]).stdout == json.dumps(counts) + "\n"


@pytest.mark.parametrize("words", [["_costs"], ["_digests"], ["_tensors", "folder"]])
def test_a_hidden_command_is_not_listed_and_takes_help(words: list[str]) -> None:
    assert words[0] not in CliRunner().invoke(main, ["--help"]).stdout
    assert CliRunner().invoke(main, [words[0], "--help"]).exit_code == 0
