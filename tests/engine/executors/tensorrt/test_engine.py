from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.engine.aot.sidecar import read
from harness.engine.aot.signature import Signature, Span
from harness.engine.errors import EngineError, InvalidInput, PlanCorrupt
from harness.engine.executors.tensorrt.engine import RowLimits, _width, row_limits, signature
from tests.engine.executors.tensorrt.fake_tensorrt import FakeEngine, FakeRuntime, Made, plan


def read_from(folder: Path, made: Made, recorded: Made | None = None, **fields: Any) -> Signature:
    file = plan(folder, recorded or made)
    return signature(FakeEngine(FakeRuntime(), made), replace(read(file), **fields))


def test_the_signature_is_the_engine_s(tmp_path: Path) -> None:
    found = read_from(tmp_path, Made(rows=(1, 4, 6), frames=(2, 8, 30), tokens=(3, 4, 5)))
    assert (found.rows, found.frames, found.tokens) == (Span(1, 6), Span(2, 30), Span(3, 5))
    assert (found.channels, found.context_channels, found.encoder_dim, found.frames_multiple) == (8, 16, 32, 2)
    assert found.takes_mask


@pytest.mark.parametrize("name", ["hidden_states", "timestep", "encoder_hidden_states", "context_latents"])
def test_the_most_rows_are_the_fewest_that_any_input_allows(tmp_path: Path, name: str) -> None:
    assert read_from(tmp_path, Made(most_rows={name: 3})).rows == Span(1, 3)


def test_fixed_sizes_need_no_profile(tmp_path: Path) -> None:
    found = read_from(tmp_path, Made(rows=(4, 4, 4), frames=(10, 10, 10), static=True))
    assert (found.rows, found.frames, found.tokens) == (Span(4, 4), Span(10, 10), Span(1, 64))


def test_an_engine_without_a_mask_says_so(tmp_path: Path) -> None:
    assert not read_from(tmp_path, Made(masked=False)).takes_mask


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("FLOAT", torch.float32), ("HALF", torch.float16), ("BF16", torch.bfloat16), ("INT32", torch.int32),
     ("INT64", torch.int64), ("INT8", torch.int8), ("UINT8", torch.uint8), ("BOOL", torch.bool)],
)  # fmt: skip
def test_every_tensor_has_the_dtype_that_the_engine_says(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    found = read_from(tmp_path, Made(dtypes={"timestep": kind}))
    assert found.dtypes["timestep"] is dtype
    assert found.dtypes["velocity"] is torch.float32


def test_a_dtype_that_no_buffer_can_have_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="timestep has TensorRT's dtype FP4"):
        read_from(tmp_path, Made(dtypes={"timestep": "FP4"}))


@pytest.mark.parametrize(
    ("recorded", "says"),
    [
        (Made(dtypes={"timestep": "HALF"}), "dtypes of timestep: float16 in the metadata, float32 in the plan"),
        (Made(rows=(1, 4, 16)), r"profile of hidden_states: .*16.* in the metadata, .*8.* in the plan"),
        (Made(rows=(1, 5, 8)), "profile of hidden_states"),
        (Made(masked=False), "dtypes of encoder_mask: None in the metadata, bool in the plan"),
    ],
    ids=["dtype", "maximum", "optimum", "mask"],
)
def test_an_engine_that_its_metadata_does_not_describe_is_refused(tmp_path: Path, recorded: Made, says: str) -> None:
    with pytest.raises(PlanCorrupt, match=says):
        read_from(tmp_path, Made(), recorded)


def test_an_engine_that_lacks_what_its_metadata_lists_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanCorrupt, match="dtypes of encoder_mask: bool in the metadata, None in the plan"):
        read_from(tmp_path, Made(masked=False), Made())


class Lacking(FakeEngine):
    """An engine without one of its tensors."""

    def __init__(self, name: str) -> None:
        super().__init__(FakeRuntime(), Made())
        self._lacks = name

    @property
    def num_io_tensors(self) -> int:
        return len(self._names())

    def get_tensor_name(self, index: int) -> str:
        return self._names()[index]

    def _names(self) -> list[str]:
        return [name for name in self._made.names() if name != self._lacks]


@pytest.mark.parametrize("drop", ["timestep", "velocity", "context_latents"])
def test_an_engine_that_is_no_decoder_is_refused(tmp_path: Path, drop: str) -> None:
    recorded = read(plan(tmp_path))
    dtypes = {name: kind for name, kind in recorded.dtypes.items() if name != drop}
    profile = {name: shapes for name, shapes in recorded.profile.items() if name != drop}
    with pytest.raises(EngineError, match="a decoder has the inputs hidden_states, timestep"):
        signature(Lacking(drop), replace(recorded, dtypes=dtypes, profile=profile))


def test_an_engine_whose_tensors_have_other_dimensions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"velocity has shape \(-1, -1\), expected \[rows, frames, channels\]"):
        read_from(tmp_path, Made(velocity=(-1, -1)))


def test_an_engine_whose_inputs_have_no_number_of_rows_in_common_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no common size of rows"):
        read_from(tmp_path, Made(rows=(4, 4, 8), most_rows={"timestep": 3}))


def test_an_engine_whose_output_is_as_wide_as_no_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no common size of channels"):
        read_from(tmp_path, Made(velocity=(-1, -1, 9)))


@pytest.mark.parametrize(
    ("takes", "max_rows", "pin_rows", "expected"),
    [
        (Span(1, 8), None, None, RowLimits(8)),
        (Span(1, 8), 4, None, RowLimits(4)),
        (Span(1, 8), 99, None, RowLimits(8)),
        (Span(1, 8), None, 4, RowLimits(4, 4)),
        (Span(1, 8), 3, 4, RowLimits(3, 4)),
        (Span(4, 4), None, None, RowLimits(4, 4)),
        (Span(4, 4), 2, None, RowLimits(2, 4)),
        (Span(1, 1), None, None, RowLimits(1, 1)),
        (Span(2, 8), None, None, RowLimits(8)),
        (Span(2, 8), None, 2, RowLimits(2, 2)),
    ],
)
def test_a_run_has_the_rows_that_engine_and_caller_allow(
    takes: Span, max_rows: int | None, pin_rows: int | None, expected: RowLimits
) -> None:
    assert row_limits(takes, max_rows, pin_rows) == expected


@pytest.mark.parametrize(
    ("takes", "max_rows", "pin_rows", "field"),
    [
        (Span(1, 8), 0, None, "max_rows"),
        (Span(4, 8), 3, None, "max_rows"),
        (Span(1, 8), None, 9, "pin_rows"),
        (Span(4, 8), None, 3, "pin_rows"),
        (Span(4, 4), None, 2, "pin_rows"),
    ],
)
def test_rows_that_the_engine_does_not_take_are_refused(
    takes: Span, max_rows: int | None, pin_rows: int | None, field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        row_limits(takes, max_rows, pin_rows)
    assert refused.value.field == field


@pytest.mark.parametrize("pin_rows", [2, 3, 8])
def test_rows_can_be_pinned_to_any_number_that_the_plan_takes_its_ends_included(pin_rows: int) -> None:
    assert row_limits(Span(2, 8), None, pin_rows) == RowLimits(pin_rows, pin_rows)
    assert row_limits(Span(2, 8), 1, pin_rows) == RowLimits(1, pin_rows)
    assert row_limits(Span(2, 8), 2, None) == RowLimits(2)


def test_a_width_of_several_sizes_is_refused() -> None:
    with pytest.raises(EngineError, match="^the plan's channels is 4 to 8, expected one fixed number$"):
        _width({"channels": Span(4, 8)}, "channels")
    with pytest.raises(EngineError, match="^the plan's channels is at least 4, expected one fixed number$"):
        _width({"channels": Span(4)}, "channels")
    assert _width({"channels": Span(8, 8)}, "channels") == 8


def test_an_output_of_fixed_frames_fixes_the_frames(tmp_path: Path) -> None:
    assert read_from(tmp_path, Made(velocity=(-1, 10, 8))).frames == Span(10, 10)
    assert read_from(tmp_path, Made(velocity=(3, -1, 8))).rows == Span(3, 3)
