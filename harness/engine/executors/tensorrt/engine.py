"""The signature of a loaded plan (TensorRT's `ICudaEngine`), read from TensorRT and compared with the sidecar."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from harness.engine import checks
from harness.engine.aot.sidecar import Sidecar
from harness.engine.aot.signature import AXES, INPUTS, MASK, VELOCITY, Signature, Span
from harness.engine.errors import EngineError, InvalidInput, PlanCorrupt

DTYPES: Mapping[str, torch.dtype] = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "BOOL": torch.bool,
    "UINT8": torch.uint8,
    "INT8": torch.int8,
    "INT32": torch.int32,
    "INT64": torch.int64,
}
"""torch dtypes by the name of TensorRT's `DataType`. TensorRT's own conversion uses NumPy, which lacks bfloat16."""

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Port:
    """One input or output of a plan.

    Attributes:
        dtype: the torch dtype.
        is_input: True for an input, False for an output.
        shape: the shape, with -1 for dynamic sizes.
        profile: minimum, optimum and maximum shape of an input; empty for an output.
    """

    dtype: torch.dtype
    is_input: bool
    shape: Shape
    profile: tuple[Shape, ...] = ()


@dataclass(frozen=True)
class RowLimits:
    """The number of rows of batches and runs.

    Attributes:
        most: the largest number of rows of a batch.
        pinned: the number of rows of every run; None if a run has the rows of its batch.
    """

    most: int
    pinned: int | None = None


def signature(engine: Any, recorded: Sidecar) -> Signature:
    """Read the signature of a loaded plan.

    Args:
        engine: an `ICudaEngine`.
        recorded: the plan's metadata. `frames_multiple` comes from here, because TensorRT does not know this number.

    Raises:
        PlanCorrupt: tensors, dtypes or ranges of the plan differ from its metadata.
        EngineError: the plan is no decoder, or has a dtype without a torch dtype in `DTYPES`.
    """
    ports = dict(_ports(engine))
    _check_recorded(ports, recorded)
    _check_decoder(ports)
    spans = _spans(ports)
    return Signature(
        dtypes={name: port.dtype for name, port in ports.items()},
        rows=spans["rows"],
        frames=spans["frames"],
        tokens=spans["tokens"],
        channels=_width(spans, "channels"),
        context_channels=_width(spans, "context_channels"),
        encoder_dim=_width(spans, "encoder_dim"),
        frames_multiple=recorded.frames_multiple,
    )


def row_limits(takes: Span, max_rows: int | None, pin_rows: int | None) -> RowLimits:
    """The number of rows of batches and runs of a plan.

    Args:
        takes: the range of rows of the plan. If the range is one number, every run has this number of rows.
        max_rows: the caller's limit for batches; None is the plan's limit.
        pin_rows: the number of rows of every run; None is the number of rows of the batch.

    Raises:
        InvalidInput: `max_rows` or `pin_rows` is outside the plan's range.
    """
    high = takes.low if takes.high is None else takes.high
    if pin_rows is None and takes.low == high:
        pin_rows = high
    most = high if max_rows is None else min(high, checks.integer("max_rows", max_rows, 1))
    if pin_rows is not None:
        return RowLimits(min(most, checks.integer("pin_rows", pin_rows, takes.low, high)), pin_rows)
    if most < takes.low:
        raise InvalidInput("max_rows", most, f"at least {takes.low}, the plan's smallest number of rows")
    return RowLimits(most)


def _ports(engine: Any) -> Iterable[tuple[str, Port]]:
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        kind = engine.get_tensor_dtype(name).name
        if kind not in DTYPES:
            raise EngineError(f"the plan's {name} has TensorRT's dtype {kind}, expected one of {', '.join(DTYPES)}")
        is_input = engine.get_tensor_mode(name).name == "INPUT"
        shape = tuple(engine.get_tensor_shape(name))
        profile = _profile(engine, name, shape) if is_input else ()
        yield name, Port(DTYPES[kind], is_input, shape, profile)


def _profile(engine: Any, name: str, shape: Shape) -> tuple[Shape, ...]:
    if all(size >= 0 for size in shape):
        return (shape, shape, shape)
    return tuple(tuple(dims) for dims in engine.get_tensor_profile_shape(name, 0))


def _check_recorded(ports: Mapping[str, Port], recorded: Sidecar) -> None:
    found: dict[str, dict[str, Any]] = {
        "dtypes": {name: str(port.dtype).removeprefix("torch.") for name, port in ports.items()},
        "profile": {name: port.profile for name, port in ports.items() if port.is_input},
    }
    for field, has in found.items():
        says = dict(getattr(recorded, field))
        for name in (*has, *says):
            if has.get(name) != says.get(name):
                raise PlanCorrupt(
                    f"{field} of {name}: {says.get(name)} in the metadata, {has.get(name)} in the plan; "
                    "build the plan again"
                )


def _check_decoder(ports: Mapping[str, Port]) -> None:
    inputs = {name for name, port in ports.items() if port.is_input}
    outputs = set(ports) - inputs
    if inputs | {MASK} != set(INPUTS) or outputs != {VELOCITY}:
        raise EngineError(
            f"the plan has the inputs {', '.join(sorted(inputs))} and the outputs {', '.join(sorted(outputs))}; "
            f"a decoder has the inputs {', '.join(INPUTS)} (the last one is optional) and the output {VELOCITY}"
        )
    for name, port in ports.items():
        if len(port.shape) != len(AXES[name]):
            raise EngineError(f"the plan's {name} has shape {port.shape}, expected [{', '.join(AXES[name])}]")


def _spans(ports: Mapping[str, Port]) -> dict[str, Span]:
    """The range of each dimension that all tensors allow; a TensorRT profile may give inputs different ranges."""
    spans: dict[str, Span] = {}
    for name, port in ports.items():
        for place, axis in enumerate(AXES[name]):
            span = _span(port, place)
            spans[axis] = span = span if axis not in spans else spans[axis].met(span)
            if span.high is not None and span.low > span.high:
                raise EngineError(f"the plan's tensors have no common size of {axis}")
    return spans


def _span(port: Port, place: int) -> Span:
    if port.is_input:
        low, _, high = port.profile
        return Span(low[place], high[place])
    size = port.shape[place]
    return Span(0) if size < 0 else Span(size, size)


def _width(spans: Mapping[str, Span], axis: str) -> int:
    span = spans[axis]
    if span.low != span.high:
        raise EngineError(f"the plan's {axis} is {span}, expected one fixed number")
    return span.low
