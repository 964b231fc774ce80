"""Each optimization, on against off, whatever happens: the same bytes after every tick."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness import registry
from harness.engine.executors import Batch, Executor
from harness.engine.switches import SWITCHES
from harness.parity.proofs.lockstep import acted, run
from harness.parity.proofs.switches import executors_of
from tests.parity.strategies import ALWAYS, CASES, Case

# Traced, these take twice as long; what they run is run by others too.
pytestmark = pytest.mark.no_cover

# Where a switch can act at all: without a stream of its own an executor has nothing to join.
PAIRS = [(switch, str(kind)) for switch in SWITCHES for kind in executors_of(switch)]


def examples(executor: str) -> int:
    """How many: all of them where nothing else runs the switch, and fewer where the executor alone is another one."""
    return 100 if executor in ("eager", "deferred") else 40


@pytest.mark.parametrize(("switch", "executor"), PAIRS)
def test_off_equals_on_whatever_happens(switch: str, executor: str) -> None:
    counted: Counter[str] = Counter()

    @settings(max_examples=examples(executor))
    @given(case=CASES)
    def off_equals_on(case: Case) -> None:
        rows = {"max_rows": case.max_rows, "pin_rows": case.pin_rows}
        done = run(case.script, switch, executor=executor, others=case.others, **rows)
        counted["acted"] += acted(switch, done.first.stats(), done.second.stats())
        counted["overlapped"] += done.overlapping > 0

    off_equals_on()
    least, drawn = min(counted["acted"], counted["overlapped"]), examples(executor)
    assert least >= drawn // 5, f"of {drawn} examples {dict(counted)}: that says little"


@pytest.mark.parametrize("switch", SWITCHES)
def test_the_kinds_a_switch_is_compared_on_can_be_read_more_than_once(switch: str) -> None:
    kinds = executors_of(switch)
    assert kinds and tuple(kinds) == kinds


class Kept:
    """An executor that a pipeline cannot close: a new session for each of a hundred examples takes longer than they."""

    def __init__(self, inner: Executor) -> None:
        self.inner, self.max_rows, self.takes_mask, self.stream = inner, inner.max_rows, inner.takes_mask, inner.stream

    def run(self, batch: Batch) -> Tensor:
        return self.inner.run(batch)

    def close(self) -> None:
        pass


@lru_cache(maxsize=2)
def engines(max_rows: int) -> tuple[Kept, Kept]:
    """Two sessions of the affine decoder as it is exported by default."""
    file, decoder = registry.onnx_file("affine"), registry.decoder("affine")
    first, second = (Kept(registry.executor("onnx", decoder, max_rows, engine=file)) for _ in range(2))
    return first, second


def fits(case: Case) -> bool:
    """Whether its conditions fit into that file's encoder length."""
    return case.script.encoder_length is not None and case.script.encoder_length <= 64


@settings(max_examples=40)
@given(case=CASES.filter(fits), switch=st.sampled_from(ALWAYS))
def test_off_equals_on_on_an_engine_whatever_happens(case: Case, switch: str) -> None:
    pair = iter(engines(8 + case.max_rows % 2))
    run(
        replace(case.script, encoder_length=64, encoder_dim=16), switch, executor=lambda: next(pair), others=case.others
    )
