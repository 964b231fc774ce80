from __future__ import annotations

from typing import Any

import pytest

from harness.engine.errors import InvalidInput
from harness.parity.foreign import records
from harness.parity.foreign.records import Cancel, Depth, Drain, Features, Live, Script, Submit, Tick, scripted
from tests.parity.foreign.pool import Pool

EVERY = Script(
    (
        Submit(0, {"seed": 1, "mask": (0.5, None), "prompt": "rain's"}),
        Tick(2),
        Live("bias", -0.0),
        Cancel(0),
        Depth(3),
        Drain(),
    ),
    seed=7,
)


@pytest.mark.parametrize("shown", [repr, str])
def test_a_script_prints_as_python_that_makes_it_again(shown: Any) -> None:
    again = eval(shown(EVERY), {name: getattr(records, name) for name in records.__all__})
    assert again == EVERY and repr(again) == repr(EVERY)


@pytest.mark.parametrize(
    ("declared", "got"),
    [
        ({"request": {}}, "no feature"),
        ({"request": {"prompt": ()}}, r"\(\)"),
        ({"request": {"prompt": "rain"}}, "'rain'"),
        ({"request": {"seed": (1, 1)}}, r"\(1, 1\)"),
        ({"request": {"seed": (1, object)}}, "class 'object'"),
        ({"request": {"seed": (1, float("nan"))}}, "nan"),
        ({"request": {"seed": (1,)}, "live": {"bias": ()}}, r"\(\)"),
        ({"request": {"seed": (1,)}, "depths": (2, 0)}, r"\(2, 0\)"),
        ({"request": {"seed": (1,)}, "depths": (True,)}, r"\(True,\)"),
        ({"request": {"seed": (1,)}, "depths": (2, 2)}, r"\(2, 2\)"),
    ],
)
def test_features_that_no_script_can_use_are_refused(declared: dict[str, Any], got: str) -> None:
    with pytest.raises(InvalidInput, match=got):
        Features(**declared)


def test_values_that_are_equal_and_have_other_reprs_are_different_values() -> None:
    assert len(Features({"on": (False, 0, 0.0, -0.0)}).request["on"]) == 4


def test_an_adapter_without_a_method_is_refused_and_the_method_is_named() -> None:
    class Without(Pool):
        waiting = None  # type: ignore[assignment]

    assert scripted(pool := Pool()) is pool
    with pytest.raises(InvalidInput, match="Without without waiting"):
        scripted(Without())
