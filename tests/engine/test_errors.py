"""The engine's exceptions: what each is caught as, and what each says."""

from __future__ import annotations

import pytest

from harness.engine import errors

BASES: dict[str, tuple[type[Exception], ...]] = {
    "InvalidInput": (ValueError,),
    "CheckpointRefused": (errors.InvalidInput,),
    "BatchTooLarge": (ValueError,),
    "OutsideProfile": (ValueError,),
    "NeedsMask": (errors.InvalidInput, errors.OutsideProfile),
    "NotPrepared": (errors.InvalidInput, errors.OutsideProfile),
    "PipelineClosed": (RuntimeError,),
    "TickInside": (RuntimeError,),
    "CallbackFailed": (RuntimeError,),
    "RequestFailed": (RuntimeError,),
    "ExecutorError": (RuntimeError,),
    "RecordingFailed": (errors.ExecutorError,),
    "WrongVelocity": (errors.ExecutorError,),
    "KernelsDiffer": (errors.ExecutorError,),
    "EngineError": (RuntimeError,),
    **dict.fromkeys(["PackageMissing", "ExportRefused", "BuildFailed"], (errors.EngineError,)),
    "Inaccurate": (errors.ExportRefused,),
    **dict.fromkeys(["SidecarMissing", "PlanCorrupt", "PlanMismatch"], (errors.EngineError,)),
    **dict.fromkeys(["CodeCorrupt", "CodeMismatch"], (errors.EngineError,)),
}
"""By name, written down a second time: whoever catches a base catches these and no others."""


def test_every_exception_has_its_bases() -> None:
    found = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
    assert {name: kind.__bases__ for name, kind in found.items()} == BASES


@pytest.mark.parametrize("kind", [errors.InvalidInput, errors.NeedsMask, errors.NotPrepared])
def test_an_invalid_input_says_its_field_what_it_got_and_what_was_expected(kind: type[errors.InvalidInput]) -> None:
    made = kind("guidance.scale", 5, "another")
    assert (str(made), made.field) == ("guidance.scale: got 5, expected another", "guidance.scale")


def test_a_missing_package_is_named_with_the_extra_that_installs_it() -> None:
    made = errors.PackageMissing("tensorrt", "trt-rtx")
    assert made.package == "tensorrt"
    assert str(made) == ("tensorrt is not installed: pip install 'stream-harness[trt-rtx]', in a checkout '.[trt-rtx]'")


def test_a_mismatch_says_what_is_recorded_and_what_is_here() -> None:
    made = errors.PlanMismatch("driver", "1.0", None)
    assert (str(made), made.field) == ("driver: the plan was built for 1.0, here it is None", "driver")


def test_a_mismatch_of_code_says_what_is_recorded_and_what_is_here() -> None:
    made = errors.CodeMismatch("torch", "2.11.0", "2.13.0")
    assert (str(made), made.field) == ("torch: the code was made for 2.11.0, here it is 2.13.0", "torch")
