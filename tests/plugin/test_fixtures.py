"""What each fixture asks for, and what it writes down of a comparison, beside a run that is made up."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import harness.plugin
from harness.parity.baselines import blessed as captures
from harness.parity.baselines import platform, store
from harness.parity.baselines.verdicts import Result, Verdict
from harness.parity.compare import NothingCompared, ParityError
from harness.parity.proofs import generic
from harness.parity.proofs.bounds import Bound
from harness.parity.proofs.generic import EnginesParted, OutputChanged
from harness.plugin.fixtures import FIXTURES, Blessed, CostRail, Lockstep
from harness.plugin.ledger import LEDGER, NOTES, Ledger, Notes
from harness.rails.costs import block
from tests.parity.proofs.rings import Slots
from tests.plugin.test_hooks import made_up

pytestmark = pytest.mark.no_cover


class Run:
    """A run of made-up options, and a test of it with a fixture."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.root, self.config, self.own = root, made_up(root, **options), root / "captures" / platform.name()
        self.ledger = self.config.stash[LEDGER]
        self.node = SimpleNamespace(nodeid="tests/test_a.py::test_a", stash=pytest.Stash())
        self.request: Any = SimpleNamespace(config=self.config, node=self.node)

    @property
    def notes(self) -> Notes:
        return self.node.stash[NOTES]


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_the_command_that_blesses_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.node.nodeid = "tests/test_a.py::test_a[two words]"
    with pytest.raises(store.CaptureMissing) as caught:
        Blessed(run.request)("tree", lambda: torch.ones(1))
    (note,) = caught.value.__notes__
    assert shlex.split(note.removeprefix("to bless it: ")) == ["pytest", "--harness-bless", "why", run.node.nodeid]


def counted(make: Callable[[], Any]) -> tuple[Callable[[], Any], list[int]]:
    """A function and, by the length of a list, how often it was called."""
    calls: list[int] = []

    def call() -> Any:
        calls.append(1)
        return make()

    return call, calls


# All of them.


@pytest.mark.parametrize("name", FIXTURES)
def test_inside_a_fixture_there_is_one_thread_and_afterwards_as_many_as_before(run: Run, name: str) -> None:
    function = inspect.unwrap(getattr(harness.plugin, name))
    with platform.threads(3):
        around: Iterator[Any] = function(run.request)
        made = next(around)
        assert (type(made).__name__, torch.get_num_threads()) == (
            {
                "blessed": "Blessed",
                "lockstep": "Lockstep",
                "cost_rail": "CostRail",
                "time_rail": "TimeRail",
                "scripts": "Scripts",
            }[name],
            1,
        )
        with pytest.raises(StopIteration):
            next(around)
        assert torch.get_num_threads() == 3


def test_fixtures_of_one_test_share_its_notes_and_those_of_another_have_their_own(tmp_path: Path) -> None:
    run = Run(tmp_path)
    Blessed(run.request)
    notes = run.notes
    Lockstep(run.request)
    CostRail(run.request)
    assert run.notes is notes == Notes()
    other = SimpleNamespace(nodeid="tests/test_a.py::test_b", stash=pytest.Stash())
    Blessed(SimpleNamespace(config=run.config, node=other))  # type: ignore[arg-type]
    assert other.stash[NOTES] is not notes


# Trees.


def test_a_tree_is_blessed_once_and_compared_from_then_on_and_all_of_it_is_written_down(tmp_path: Path) -> None:
    first = Run(tmp_path, bless="the first")
    make, calls = counted(lambda: {"x": torch.ones(2)})
    Blessed(first.request)("tree", make, k=2.5)
    assert len(calls) == 3
    Blessed(first.request)("tree", make, k=2.5)
    assert len(calls) == 4
    entry = str(first.own / "blessed" / "tree")
    assert first.ledger == Ledger(rewritten=["tree new"], blessed=[entry], asked=[entry, entry])
    assert first.notes == Notes(blessed=["tree", "tree"])
    kept = store.read_manifest(Path(entry)).scenarios["tree"]
    assert (kept.reason, kept.k) == ("the first", 2.5)

    second = Run(tmp_path)
    Blessed(second.request)("tree", make, k=2.5)
    assert len(calls) == 5
    assert (second.ledger, second.notes) == (Ledger(exact=["capture: tree"], asked=[entry]), Notes())

    third = Run(tmp_path, bless="again")
    Blessed(third.request)("tree", make, k=2.5)
    assert (third.ledger, third.notes) == (Ledger(exact=["capture: tree"], asked=[entry]), Notes())
    assert store.read_manifest(Path(entry)).scenarios["tree"].reason == "the first"


def test_in_a_run_that_blesses_a_later_test_is_compared_with_what_the_first_one_blessed(tmp_path: Path) -> None:
    run = Run(tmp_path, bless="why")
    Blessed(run.request)("tree", lambda: torch.ones(2))
    with pytest.raises(ParityError):
        Blessed(run.request)("tree", lambda: torch.zeros(2))
    Blessed(run.request)("other", lambda: torch.zeros(2))
    folder = run.own / "blessed"
    assert run.ledger.asked == [str(folder / name) for name in ("tree", "tree", "other")]
    assert run.ledger.blessed == [str(folder / name) for name in ("tree", "other")]
    assert run.ledger.rewritten == ["tree new", "other new"]


def test_a_tree_that_differs_is_asked_for_and_is_no_comparison_that_passed(tmp_path: Path) -> None:
    Blessed(Run(tmp_path, bless="why").request)("tree", lambda: torch.ones(2))
    run = Run(tmp_path)
    with pytest.raises(ParityError):
        Blessed(run.request)("tree", torch.zeros(2))
    assert run.ledger == Ledger(asked=[str(run.own / "blessed" / "tree")])


def test_a_tree_that_is_blessed_beside_one_that_stands_in_asks_for_both(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.harness]\nreference-platform = "board"\n')
    board = tmp_path / "captures" / "board" / "blessed"
    Blessed(Run(tmp_path, bless="why").request)("tree", lambda: torch.ones(2))
    board.parent.mkdir()
    (tmp_path / "captures" / platform.name() / "blessed").rename(board)
    run = Run(tmp_path, bless="mine too")
    Blessed(run.request)("tree", lambda: torch.zeros(2))
    here = str(run.own / "blessed" / "tree")
    assert (run.ledger.asked, run.ledger.blessed) == ([str(board / "tree"), here], [here])
    compares = Run(tmp_path, platform="board")
    Blessed(compares.request)("tree", torch.ones(2))
    assert compares.ledger == Ledger(exact=["capture: tree"], asked=[str(board / "tree")])


@pytest.mark.parametrize(("k", "shown"), [(8.0, "8"), (0.125, "0.125"), (1e6, "1e+06")])
def test_a_tree_within_its_tolerance_is_none_that_is_exact_and_its_line_says_how_far_and_why(
    run: Run, monkeypatch: pytest.MonkeyPatch, k: float, shown: str
) -> None:
    def check(*asked: Any) -> Result:
        assert asked == ("tree", 1, captures.Place(run.root / "captures", run.root), k, "all")
        return Result("tree", Verdict.TOLERANCE, 0.5, 1.0, "x: max |Δ| 0.5")

    monkeypatch.setattr(captures, "device_of", lambda tree: torch.device("cpu"))
    monkeypatch.setattr(captures, "check", check)
    Blessed(run.request)("tree", 1, k=k)
    line = f"capture tree: x: max |Δ| 0.5, k = {shown}, blessed on another machine"
    assert run.ledger == Ledger(tolerance=[line], asked=[str(run.own / "blessed" / "tree")])


# Lockstep.


def test_two_engines_are_compared_and_the_events_and_tensors_are_counted_apart(run: Run) -> None:
    agreed = Lockstep(run.request)(lambda x: [x, x + 1, None], lambda x: [x, x + 1, None], [torch.ones(1)] * 3)
    assert (agreed.events, agreed.tensors) == (3, 6)
    assert run.ledger == Ledger(
        exact=["lockstep: tests/test_a.py::test_a, 6 tensors after 3 events, state not compared"]
    )


def test_every_option_of_lockstep_reaches_the_comparison(run: Run) -> None:
    buffer, compare = torch.zeros(1), Lockstep(run.request)
    compare(lambda x: buffer.fill_(x), lambda x: torch.full((1,), x), [1.0, 2.0], remember=0)
    with pytest.raises(OutputChanged):
        compare(lambda x: buffer.fill_(x), lambda x: torch.full((1,), x), [1.0, 2.0])
    compare(lambda x: torch.rand(2), lambda x: torch.rand(2), [1])
    with pytest.raises(EnginesParted):
        compare(lambda x: torch.rand(2), lambda x: torch.rand(2), [1], isolate=False)
    with pytest.raises(NothingCompared, match="no ring reported nothing"):
        compare(Slots(), Slots(), [1.0], where_both=["nothing"])


def test_the_fixture_has_the_options_and_defaults_of_the_comparison() -> None:
    own, asked = (inspect.signature(each).parameters for each in (Lockstep.__call__, generic.run))
    defaults = {name: parameter.default for name, parameter in asked.items()}
    assert {name: parameter.default for name, parameter in own.items() if name != "self"} == defaults


def test_a_comparison_within_a_bound_is_none_that_is_exact(run: Run) -> None:
    agreed = Lockstep(run.request)(Slots(), Slots(), [1.0], bounds={"decode": Bound(1.0, 2, "free", 4)})
    line = f"lockstep: tests/test_a.py::test_a, {agreed}"
    assert run.ledger == Ledger(tolerance=[line])
    assert "; decode within k = 1, measured on 4 free rows in batches of up to 2; largest seen 0 in 2 tensors" in line


def add(run: Run, name: str = "tick", times: int = 1) -> None:
    x = torch.ones(2)
    with CostRail(run.request)(name):
        for _ in range(times):
            x + 1


def test_costs_are_blessed_once_and_compared_from_then_on_and_all_of_it_is_written_down(tmp_path: Path) -> None:
    first = Run(tmp_path, bless="the first")
    add(first)
    add(first)
    with pytest.raises(block.CostsMoved):
        add(first, times=2)
    entry = str(first.own / "costs" / "tick.json")
    assert first.ledger == Ledger(rewritten=["tick new"], blessed=[entry], asked=[entry] * 3)
    assert first.notes == Notes(blessed=["tick", "tick"])
    assert store.read_document(Path(entry))["reason"] == "the first"
    for second in (Run(tmp_path), Run(tmp_path, bless="again")):
        add(second)
        assert (second.ledger, second.notes) == (Ledger(exact=["cost rail: tick"], asked=[entry]), Notes())


def test_costs_of_another_torch_are_asked_for_and_not_gated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(Run(tmp_path, bless="the first"))
    monkeypatch.setattr(block, "version", lambda: "1.0")
    run = Run(tmp_path)
    add(run)
    entry = str(run.own / "costs" / "tick.json")
    (why,) = run.notes.not_gated
    assert why.startswith(f"{entry} has costs for torch ")
    assert run.ledger == Ledger(not_gated=[f"cost rail tick: {why}"], asked=[entry])
    assert run.notes == Notes(not_gated=[why])


def test_a_block_that_raises_is_neither_blessed_nor_judged_and_its_error_is_the_one_that_shows(tmp_path: Path) -> None:
    for run in (Run(tmp_path, bless="why"), Run(tmp_path)):
        with pytest.raises(KeyError, match="inside") as raised, CostRail(run.request)("tick"):
            torch.ones(2).add(1)
            raise KeyError("inside")
        assert raised.value.__context__ is None
        assert (run.ledger, run.notes) == (Ledger(), Notes())
    assert not (tmp_path / "captures").exists()


def test_a_block_can_be_asked_what_it_cost_so_far_and_what_follows_it_costs_nothing(run: Run) -> None:
    rail = CostRail(Run(run.root, bless="why").request)
    x = torch.ones(2)
    with rail("tick") as counter:
        assert counter.counts["operators"] == 0
        x + 1
        assert counter.counts["operators"] == 1
    x + 1
    assert counter.counts["operators"] == counter.counts["operator aten::add"] == 1


def quiet(x: torch.Tensor) -> torch.Tensor:
    return (x * 2).neg()


class Decoder:
    __call__ = staticmethod(quiet)


def test_a_decoder_is_left_out_of_a_rail_and_its_calls_are_blessed(tmp_path: Path) -> None:
    x, decoder = torch.ones(2), Decoder()
    for run, calls in ((Run(tmp_path, bless="why"), 1), (Run(tmp_path), 1)):
        with CostRail(run.request)("tick", without={"decoder": decoder}) as rail:
            decoder(x) + 1
        assert (rail.counts["operators"], rail.counts["calls decoder"]) == (1, calls)
    run = Run(tmp_path)
    wanted = "calls decoder: blessed 1, now 2"
    with pytest.raises(block.CostsMoved, match=wanted), CostRail(run.request)("tick", without={"decoder": decoder}):
        decoder(decoder(x)) + 1


def test_a_decoder_that_nothing_calls_is_not_left_out_and_neither_blessed_nor_judged(tmp_path: Path) -> None:
    for run in (Run(tmp_path, bless="why"), Run(tmp_path)):
        rail = CostRail(run.request)("tick", without={"decoder": Decoder()}, count={"sum": torch.nn.Identity()})
        with pytest.raises(NothingCompared, match="tick: nothing called decoder inside the block"), rail:
            quiet(torch.ones(2))
        assert (run.ledger, run.notes) == (Ledger(), Notes())


def test_a_rail_with_more_reads_names_the_line_that_reads(tmp_path: Path) -> None:
    x = torch.ones(2)
    with CostRail(Run(tmp_path, bless="why").request)("tick"):
        x.sum().item()
    run = Run(tmp_path)
    with pytest.raises(block.CostsMoved) as moved, CostRail(run.request)("tick"):
        [x.sum().item() for _ in range(2)]
    number = test_a_rail_with_more_reads_names_the_line_that_reads.__code__.co_firstlineno + 6
    assert f"{__file__}:{number} in test_a_rail" in str(moved.value)
    assert str(moved.value).endswith(": torch.Tensor.item, 2 times")
