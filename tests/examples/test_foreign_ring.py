"""The ring of somebody else's under docs/examples: what its own tests say, and which planted defects they notice."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness.rails.costs import block
from tests.examples.foreign_defects import (
    ALSO_WITH_A_BOUND,
    BLESSED,
    HARMLESS,
    IN_CAPTURES,
    IN_COSTS,
    IN_LOCKSTEP,
    LOCKSTEP,
    RAIL,
    WITHIN_A_BOUND,
    Planted,
)
from tests.examples.script_defects import HARMLESS as HARMLESS_IN_SCRIPTS
from tests.examples.script_defects import IN_BOTH_RINGS, IN_THE_FAST_RING, SCRIPTS
from tests.git import commit, git

pytestmark = pytest.mark.no_cover

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs/examples/foreign_ring"
PLUGIN = ("-p", "harness.plugin", "-p", "no:cacheprovider")
OWNERS = {
    "test_the_plain_ring_makes_the_blessed_bytes": BLESSED,
    "test_an_optimization_changes_no_bit": LOCKSTEP,
    "test_a_tick_costs_what_it_did": RAIL,
    "test_only_the_decoder_differs_and_within_twice_what_was_measured": LOCKSTEP,
    "test_whatever_a_script_does_no_bit_changes": SCRIPTS,
}
WRONG = "test_lanes.py::test_an_optimization_changes_no_bit[lazy]"


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """What torch imports when it is first counted: an inner run would forget it, and the next import it again."""
    with block.Block():
        torch.zeros(1).item()


def ran(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A run of pytest as in the project of the example."""
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("CI", None)
    command = [sys.executable, "-m", "pytest", *PLUGIN, *arguments]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(name="blessed_once", scope="module")
def _blessed_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("foreign") / "lanes"
    shutil.copytree(EXAMPLE, root, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["."]\n')
    git(root, "init", "-q")
    first = ran(root, "--harness-bless", "the first")
    assert "blessed: 6, run again without --harness-bless" in first.stdout, first.stdout + first.stderr
    commit(root)
    return root


def test_the_wrong_optimization_alone_is_red_and_tick_slot_and_stage_are_named(blessed_once: Path) -> None:
    result = ran(blessed_once)
    assert result.returncode == 1 and "1 failed, 9 passed" in result.stdout
    shown = re.findall(r"^(?:E  |exact:) .*$", (ROOT / "docs/foreign-ring.md").read_text(), re.MULTILINE)
    assert len(shown) == 2 and "tick 5, slot 0, stage condition:" in shown[0]
    printed = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert [line for line in shown if " ".join(line.split()) not in printed] == []
    assert "within tolerance: lockstep: test_bound.py::" in result.stdout


def test_the_file_of_the_outsider_with_its_adapter_is_short() -> None:
    text = (EXAMPLE / "test_lanes.py").read_text()
    assert len(text.splitlines()) <= 60 and "class Adapter" in text


@pytest.fixture(name="copy")
def _copy(blessed_once: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    for path in blessed_once.iterdir():
        if path.suffix in (".py", ".toml"):
            shutil.copy(path, pytester.path)
    shutil.copytree(blessed_once / "captures", pytester.path / "captures")
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return pytester


def reds(copy: pytest.Pytester, planted: Planted, *tests: str, file: str = "lanes.py") -> dict[str, str]:
    """The fixtures whose tests are red with the defect, and what these tests say."""
    changed = copy.path / file
    source = changed.read_text()
    assert source.count(planted.old) == 1
    changed.write_text(source.replace(planted.old, planted.new))
    asked = tests or ("test_lanes.py",)
    result = copy.runpytest_inprocess(*PLUGIN, "--deselect", WRONG, *asked, "--tb=short")
    printed = result.stdout.str()
    parts = re.split(r"^_+ (test_\w+)(?:\[\w+\])? _+$", printed, flags=re.MULTILINE)
    found: dict[str, str] = {}
    for name, text in zip(parts[1::2], parts[2::2], strict=True):
        found[OWNERS[name]] = found.get(OWNERS[name], "") + text
    assert bool(found) == bool(result.ret), printed
    return found


@pytest.mark.parametrize("planted", [*IN_LOCKSTEP, *IN_CAPTURES, *IN_COSTS], ids=lambda planted: planted.name)
def test_a_planted_defect_is_caught_by_its_owner_which_says_where(copy: pytest.Pytester, planted: Planted) -> None:
    found = reds(copy, planted)
    assert set(found) == set(planted.red)
    said = found[planted.red[0]]
    assert [words for words in planted.says if words not in said] == [], said


@pytest.mark.parametrize("planted", ALSO_WITH_A_BOUND, ids=lambda planted: planted.name)
def test_a_planted_defect_is_caught_where_the_decoder_has_a_bound_too(copy: pytest.Pytester, planted: Planted) -> None:
    said = reds(copy, planted, "test_bound.py")[LOCKSTEP]
    assert planted.says[0] in said and "not exact by request: decode within k = 2 x " in said, said


@pytest.mark.parametrize("planted", WITHIN_A_BOUND, ids=lambda planted: planted.name)
def test_what_a_bound_lets_pass_is_the_rounding_of_the_decoder(copy: pytest.Pytester, planted: Planted) -> None:
    assert reds(copy, planted, "test_bound.py") == {}


@pytest.mark.parametrize("planted", HARMLESS, ids=lambda planted: planted.name)
def test_a_harmless_change_stays_green(copy: pytest.Pytester, planted: Planted) -> None:
    assert reds(copy, planted) == {}


BOTH = ("test_lanes.py", "test_scripts.py")


@pytest.mark.parametrize("planted", [*IN_BOTH_RINGS, *IN_THE_FAST_RING], ids=lambda planted: planted.name)
def test_what_only_random_scripts_bring_about_is_named_with_its_seed_and_script(
    copy: pytest.Pytester, planted: Planted
) -> None:
    found = reds(copy, planted, *BOTH)
    assert set(found) == {SCRIPTS}
    assert [words for words in planted.says if words not in found[SCRIPTS]] == [], found[SCRIPTS]


@pytest.mark.parametrize("planted", HARMLESS_IN_SCRIPTS, ids=lambda planted: planted.name)
def test_a_harmless_change_stays_green_in_random_scripts_too(copy: pytest.Pytester, planted: Planted) -> None:
    assert reds(copy, planted, *BOTH) == {}


def test_too_few_scripts_are_red_although_no_ring_is_wrong(copy: pytest.Pytester) -> None:
    count = Planted("one script", "count=12", "count=1")
    said = reds(copy, count, "test_scripts.py", file="test_scripts.py")[SCRIPTS]
    assert "things did not occur in 1 scripts:" in said and "never: " in said and "count=2" in said


def test_the_file_of_the_outsider_with_its_scripts_is_short() -> None:
    assert len((EXAMPLE / "test_scripts.py").read_text().splitlines()) <= 40


def test_the_table_has_enough_defects_of_every_owner_and_each_says_where() -> None:
    table = [*IN_LOCKSTEP, *IN_CAPTURES, *IN_COSTS]
    of_scripts = [*IN_BOTH_RINGS, *IN_THE_FAST_RING]
    assert len(table) >= 24 and len(HARMLESS) >= 4
    assert len(IN_BOTH_RINGS) >= 12 and len(IN_THE_FAST_RING) >= 4
    assert {planted.red[0] for planted in table} == {LOCKSTEP, BLESSED, RAIL}
    assert all(planted.says for planted in (*table, *of_scripts))
    assert len({planted.name for planted in [*table, *HARMLESS]}) == len(table) + len(HARMLESS)
