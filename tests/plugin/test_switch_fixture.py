"""What `lockstep.switch` asks of the engine, and what it writes down, beside a run that is made up."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.engine.decoders import AffineDecoder
from harness.engine.errors import InvalidInput
from harness.engine.executors import EagerExecutor
from harness.parity.battery.scripts import Drain, Script, Submit
from harness.parity.compare import NothingCompared
from harness.parity.proofs import lockstep as switches
from harness.plugin.fixtures import Lockstep
from harness.plugin.ledger import Ledger, Notes
from tests.plugin.test_fixtures import Run, _run  # noqa: F401 - a fixture

pytestmark = [pytest.mark.no_cover, pytest.mark.engine]

SCRIPT = Script((Submit(1), Drain()))


@pytest.fixture(name="ran")
def _ran(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the comparison of a switch was asked for; it compares as many tensors as it was asked often."""
    ran: list[Any] = []

    def compare(*asked: Any, **options: Any) -> Any:
        ran.append((*asked, options))
        first, second = (SimpleNamespace(stats=lambda which=which: which) for which in ("on", "off"))
        return SimpleNamespace(first=first, second=second, compared=len(ran))

    def acted(switch: str, on: object, off: object) -> bool:
        assert (on, off) == ("on", "off")
        return switch != "idle"

    monkeypatch.setattr(switches, "run", compare)
    monkeypatch.setattr(switches, "acted", acted)
    return ran


EXACT = "lockstep: tests/test_a.py::test_a, {} on and off, {} tensors"


def test_a_switch_is_compared_on_eager_with_the_affine_decoder_where_nothing_else_is_asked_for(
    run: Run, ran: list[Any]
) -> None:
    Lockstep(run.request).switch("fused_cfg", script=SCRIPT)
    assert ran == [(SCRIPT, "fused_cfg", "affine", "eager", {})]
    assert run.ledger == Ledger(exact=[EXACT.format("fused_cfg", 1)])


def test_a_switch_is_compared_on_each_kind_in_order_with_every_option(tmp_path: Path, ran: list[Any]) -> None:
    run = Run(tmp_path, executor=["static", "deferred", "eager"])
    options = {"others": object(), "max_rows": 3, "pin_rows": 2, "device": "cuda"}
    Lockstep(run.request).switch("fused_cfg", script=SCRIPT, decoder="tiny", **options)
    assert ran == [(SCRIPT, "fused_cfg", "tiny", kind, options) for kind in ("static", "deferred", "eager")]
    assert run.ledger == Ledger(exact=[EXACT.format("fused_cfg", number) for number in (1, 2, 3)])
    assert run.notes == Notes()


@pytest.mark.parametrize(("kinds", "device", "able"), [
    (["eager", "deferred", "static"], None, ["deferred"]),
    (["eager", "deferred", "static"], "cpu", ["deferred"]),
    (["eager", "deferred", "static"], "cuda", ["static"]),
    (["static"], "cuda:1", ["static"]),
])  # fmt: skip
def test_a_switch_of_streams_is_compared_on_the_kinds_that_have_one_there_and_is_then_gated(
    tmp_path: Path, ran: list[Any], kinds: list[str], device: str | None, able: list[str]
) -> None:
    run = Run(tmp_path, executor=kinds)
    options = {} if device is None else {"device": device}
    Lockstep(run.request).switch("joined_stream", script=SCRIPT, **options)
    assert ran == [(SCRIPT, "joined_stream", "affine", kind, options) for kind in able]
    assert (run.ledger, run.notes) == (Ledger(exact=[EXACT.format("joined_stream", 1)]), Notes())


@pytest.mark.parametrize(("kinds", "device", "named"), [
    (None, "cuda", "eager"),
    (["eager", "static"], "cpu", "eager, static"),
    (["deferred"], "cuda", "deferred"),
])  # fmt: skip
def test_a_switch_of_streams_that_no_kind_can_show_is_not_gated_and_the_kinds_are_named(
    tmp_path: Path, ran: list[Any], kinds: list[str] | None, device: str, named: str
) -> None:
    run = Run(tmp_path, executor=kinds)
    Lockstep(run.request).switch("joined_stream", script=SCRIPT, device=device)
    why = f"joined_stream acts on executors with a stream of their own, and {named} has none"
    line = f"lockstep tests/test_a.py::test_a: {why} (--harness-executor deferred)"
    assert (ran, run.ledger, run.notes) == ([], Ledger(not_gated=[line]), Notes(not_gated=[why]))


@pytest.mark.parametrize("switch", ["fused_cfg", "joined_stream"])
def test_an_executor_of_ones_own_is_compared_alone_whatever_kinds_are_asked_for(
    tmp_path: Path, ran: list[Any], switch: str
) -> None:
    run = Run(tmp_path, executor=["eager", "static"])

    def make() -> EagerExecutor:
        return EagerExecutor(AffineDecoder(8))

    Lockstep(run.request).switch(switch, script=SCRIPT, executor=make)
    assert ran == [(SCRIPT, switch, "affine", make, {})]
    assert run.ledger == Ledger(exact=[EXACT.format(switch, 1)])


def test_a_switch_that_did_not_act_is_no_comparison(run: Run, ran: list[Any]) -> None:
    with pytest.raises(NothingCompared) as refused:
        Lockstep(run.request).switch("idle", script=SCRIPT)
    assert str(refused.value) == "idle did not act in the script: equal results prove nothing"
    assert run.ledger == Ledger()


def test_an_unknown_switch_is_refused_by_name(run: Run) -> None:
    with pytest.raises(InvalidInput, match="switch: got 'turbo', expected one of 'fused_cfg'"):
        Lockstep(run.request).switch("turbo", script=SCRIPT)
    assert run.ledger == Ledger()


# Cost rails.
