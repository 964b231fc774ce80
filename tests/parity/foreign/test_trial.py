from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest
import torch

from harness.engine.errors import InvalidInput
from harness.parity.compare import NothingCompared
from harness.parity.foreign import trial
from harness.parity.foreign.alone import NotAlone
from harness.parity.foreign.coverage import NotCovered
from harness.parity.foreign.journal import RequestLost
from harness.parity.foreign.records import Cancel, Drain, Script, Submit, Tick
from harness.parity.foreign.trial import Options, ScriptFailed
from harness.parity.proofs.bounds import Bound
from harness.parity.proofs.parted import EnginesParted
from tests.parity.foreign.pool import Pool

PLAIN = {"seed": 1, "gain": 1.0, "mean": False}
MEAN = {**PLAIN, "mean": True}
ROUGH = Bound(k=30.0, rows=3, how="free", samples=3)


def test_equal_rings_agree_and_the_words_say_how_much_was_compared() -> None:
    proved = trial.run(Pool, Pool, 8, 0)
    words = str(proved)
    assert words.startswith(f"8 scripts, {proved.events} events, {proved.alone} requests as alone, ")
    assert words.endswith("42 of 42 features and overlaps") and proved.alone > 40


@pytest.mark.parametrize(
    ("wrong", "plain", "error"),
    [
        ("depth reorders", True, RequestLost),
        ("depth reorders", False, EnginesParted),
        ("cancel frees another slot", True, RequestLost),
        ("mean leaks", True, NotAlone),
        ("mean leaks", False, EnginesParted),
        ("a neighbour is heard", True, NotAlone),
        ("bias acts in the first step alone", False, EnginesParted),
    ],
)
def test_a_defect_is_found_with_its_seed_and_a_script_that_fails_in_the_same_way(
    wrong: str, plain: bool, error: type[Exception]
) -> None:
    bad = partial(Pool, wrong)
    made = (bad, None) if plain else (Pool, bad)
    with pytest.raises(ScriptFailed) as caught:
        trial.run(*made, 8, 0)
    failed = caught.value
    assert type(failed.error) is error and len(failed.script.operations) <= 4
    assert f"the script of seed {failed.seed} fails with {error.__name__}" in str(failed)
    assert str(failed.script) in str(failed)
    with pytest.raises(ScriptFailed):
        trial.replay(*made, failed.script)


def test_a_shrunk_script_fails_as_the_drawn_one_did() -> None:
    class Touchy(Pool):
        def _cancel(self, number: int) -> None:
            if not self.slots and not self.queue:
                raise ValueError("nothing to cancel")  # without the second request the script fails in this way

    drawn = Script((Submit(0, MEAN), Drain(), Submit(1, MEAN), Cancel(0)))
    with pytest.raises(ScriptFailed) as caught:
        trial.replay(partial(Touchy, "mean leaks"), None, drawn)
    assert isinstance(caught.value.error, NotAlone)


def test_an_error_of_the_ring_itself_fails_its_script() -> None:
    class Broken(Pool):
        def _admit(self, slot: int, submit: Submit) -> None:
            assert slot < 2, "no third slot"
            super()._admit(slot, submit)

    with pytest.raises(ScriptFailed, match="fails with AssertionError: no third slot"):
        trial.run(Broken, None, 8, 0)


def test_an_input_that_the_ring_refuses_is_named_with_the_script_too() -> None:
    class Strict(Pool):
        def _admit(self, slot: int, submit: Submit) -> None:
            raise InvalidInput("gain", submit.values["gain"], "another one")

    with pytest.raises(ScriptFailed, match="fails with InvalidInput: gain"):
        trial.run(Strict, None, 8, 0)


def test_a_feature_that_no_script_used_is_red_although_everything_agrees() -> None:
    with pytest.raises(NotCovered, match="never: mean=True is in flight") as caught:
        trial.run(partial(Pool, request={**{n: (v,) for n, v in PLAIN.items()}, "mean": (False, True)}), Pool, 1, 0, 4)
    assert "count=2" in str(caught.value)


def test_a_waiver_stands_in_the_verdict() -> None:
    wide = partial(Pool, depths=(2,), cancel=False)
    goal = "a request enters a ring that has become empty"
    with pytest.raises(InvalidInput, match="it occurred"):
        trial.run(wide, None, 8, 0, options=Options(waived={goal: "rare"}))


def test_requests_are_not_compared_alone_only_for_a_reason_which_stands_in_the_verdict() -> None:
    drawing = partial(Pool, "draws from the global generator")
    with pytest.raises(ScriptFailed, match="draw from its own seed"):
        trial.run(drawing, drawing, 6, 0, options=Options(runs=0))
    proved = trial.run(drawing, drawing, 6, 0, options=Options(not_alone="one generator for all"))
    assert "not compared with requests alone: one generator for all" in str(proved) and proved.alone == 0


def test_a_bound_stands_in_the_verdict_and_one_in_vain_is_red() -> None:
    rough = partial(Pool, "rough")
    proved = trial.run(rough, Pool, 6, 0, options=Options(bounds={"decode": ROUGH}))
    assert "alone: decode within k = 30" in str(proved) and len(proved.bounds) == 2
    with pytest.raises(NothingCompared, match="bound of encode"):
        trial.run(rough, Pool, 6, 0, options=Options(bounds={"decode": ROUGH, "encode": ROUGH}))


def test_a_stage_that_the_fast_ring_may_skip_needs_to_be_reported_in_some_script_alone() -> None:
    class Quiet(Pool):
        def _told(self, stage: str, slot: int, tensor: Any) -> Any:
            return tensor if stage == "mean" else super()._told(stage, slot, tensor)

    assert trial.replay(Pool, Quiet, Script((Submit(0, MEAN),)), Options(where_both=("mean",))).alone == 1
    trial.run(Pool, Quiet, 6, 0, options=Options(where_both=("mean",)))
    with pytest.raises(NothingCompared, match="no means"):
        trial.run(Pool, Quiet, 6, 0, options=Options(where_both=("mean", "means")))


def test_the_shrinker_is_bounded() -> None:
    with pytest.raises(ScriptFailed, match=r"from 28 to \d+ operations in 5 runs"):
        trial.run(partial(Pool, "mean leaks"), None, 3, 0, options=Options(runs=5))


def test_a_given_script_has_no_seed() -> None:
    given = Script((Submit(0, MEAN), Tick(4), Submit(1, PLAIN), Submit(2, MEAN), Tick(), Submit(3, MEAN)))
    with pytest.raises(ScriptFailed, match="^the script fails with NotAlone"):
        trial.replay(partial(Pool, "mean leaks"), None, given)


def test_the_callers_random_state_is_what_it_was() -> None:
    before = torch.get_rng_state(), random.getstate()
    trial.replay(Pool, Pool, Script((Submit(0, PLAIN),)))
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == random.getstate()


def test_scripts_in_which_nothing_ends_prove_nothing() -> None:
    with pytest.raises(NothingCompared):
        trial.replay(Pool, Pool, Script((Tick(),)))


@pytest.mark.parametrize("count", [0, -1])
def test_no_script_is_refused(count: int) -> None:
    with pytest.raises(InvalidInput, match="count"):
        trial.run(Pool, Pool, count, 0)


def test_features_of_another_type_are_refused() -> None:
    class Loose(Pool):
        def features(self) -> Any:
            return {"seed": (1, 2)}

    with pytest.raises(InvalidInput, match="dict"):
        trial.run(Loose, None, 1, 0)
