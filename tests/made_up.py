"""Facts about made-up variants, as JSON. `tests/test_variants.py` runs this in a copy of the project that has them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import click
from hypothesis import find, settings
from hypothesis import strategies as st

from harness import registry
from harness.cli import main
from harness.engine import PipelineConfig, StreamPipeline
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import EagerExecutor
from harness.engine.slot import Slot
from harness.engine.switches import PLAIN_PATH
from harness.parity.baselines import contract
from harness.parity.battery.props import Props
from harness.parity.battery.scenarios import SCENARIOS
from harness.parity.battery.scripts import Control, Drain, Event, Guided, Script, Submit
from harness.parity.compare import ParityError
from harness.parity.proofs.lockstep import acted, run
from harness.parity.proofs.switches import check_switches, pairs
from harness.rails.bench import ablation
from harness.rails.bench.throughput import Load
from harness.rails.costs.rails import rails
from harness.rails.costs.workload import KINDS, STREAMS
from tests.parity import strategies
from tests.parity.journal import JournaledPipeline
from tests.parity.proofs import test_laws, test_switches

NAME = "made_up"
SCRIPT = Script((Submit(1), Drain()))


def choices(command: str, option: str) -> list[str]:
    (found,) = [p for p in main.commands[command].params if option in p.opts]
    assert isinstance(found.type, click.Choice)
    return list(found.type.choices)


def drawn(strategy: st.SearchStrategy[Any], wanted: Callable[[Any], bool]) -> bool:
    """True: `find` raises where no example is found."""
    find(strategy, wanted, settings=settings(max_examples=2000, database=None, derandomize=True))
    return True


def verdicts(**asked: Any) -> list[list[Any]]:
    chosen = pairs({"plain_path": SCENARIOS["plain_path"]}, decoders=["affine"], **asked)
    return [[str(r.executor), str(r.verdict), r.acted] for r in check_switches(chosen, whole=False)]


def moved() -> str:
    """Parts two pipelines by the made-up switch: the verdict of a comparison that must see it."""
    plain = StreamPipeline._moved

    def shifted(self: StreamPipeline, *arguments: Any) -> dict[int, Slot]:
        after = plain(self, *arguments)
        if not getattr(self.config.switches, NAME):
            return after
        return {index: Slot(**{**vars(slot), "x": slot.x * 1.5}) for index, slot in after.items()}

    StreamPipeline._moved = shifted  # type: ignore[method-assign]
    try:
        return verdicts(switches=[NAME], executors=["eager"])[0][1]
    finally:
        StreamPipeline._moved = plain  # type: ignore[method-assign]


def oracle_says(*events: Event) -> str:
    """Whether the oracle, which is told of no variant, makes the same latents."""
    script = Script((*events, Submit(1), Drain()))
    with JournaledPipeline(EagerExecutor(AffineDecoder()), script.config()) as pipeline:
        for event in script.events:
            event.happen(pipeline, Props(script))
        try:
            pipeline.assert_oracle_agrees(EagerExecutor(AffineDecoder(), max_rows=1), pipeline.finished)
        except ParityError:
            return "differs"
    return "agrees"


def switch() -> dict[str, Any]:
    ran = run(SCRIPT, NAME)
    settable = main.commands["bench"].make_context("bench", ["--switch", f"{NAME}=off"]).params["switches"]
    return {
        "plain": getattr(PLAIN_PATH, NAME),
        "check": NAME in choices("check", "--switch"),
        "bench": getattr(settable, NAME),
        "ablated": ablation.ablated_ticks(Load(ticks=1, steps=1, warmup=1)) // 2 - 2,
        "rail": f"mixed, {NAME} off/4" in rails(),
        "drawn": [drawn(strategies.SETTINGS, lambda s, on=on: getattr(s, NAME) is on) for on in (True, False)],
        "properties": [kind for name, kind in test_switches.PAIRS if name == NAME],
        "acted": acted(NAME, ran.first.stats(), ran.second.stats()),
        "verdicts": verdicts(switches=[NAME]),
        "moved": moved(),
    }


def control() -> dict[str, Any]:
    run(Script((Control(NAME, 0.5), Submit(1), Drain())), "integrator")
    return {
        "drawn": drawn(strategies.CHANGES, lambda change: isinstance(change, Control) and change.name == NAME),
        "unset": oracle_says(),
        "set": oracle_says(Control(NAME, 0.5)),
    }


def mode() -> dict[str, Any]:
    guided = Submit(2, guided=Guided(mode=NAME))
    run(Script((guided, Drain())), "fused_cfg")
    return {
        "bench": NAME in choices("bench", "--cfg"),
        "drawn": drawn(strategies.GUIDED, lambda found: found.mode == NAME),
        "rail": f"rcfg_{NAME}" in KINDS and f"rcfg_{NAME}" in STREAMS,
        "oracle": oracle_says(guided),
    }


def kind() -> dict[str, Any]:
    executor = registry.executor(NAME, AffineDecoder())
    with StreamPipeline(executor, PipelineConfig()) as pipeline:
        depth = pipeline.max_depth
    return {
        "made": depth,
        "choices": [NAME in choices(command, "--executor") for command in ("check", "probe", "bench", "profile")],
        "plugin": NAME in registry.LIVE,
        "contract": NAME in {str(subject.executor) for subject in contract.declared()},
        "drawn": drawn(test_laws.KINDS, lambda found: found == NAME),
        "verdicts": verdicts(switches=["integrator"], executors=[NAME]),
    }


if __name__ == "__main__":
    json.dump({"switch": switch(), "control": control(), "mode": mode(), "kind": kind()}, sys.stdout)
