"""What a deserialized engine takes and gives, read from the engine and compared with what its sidecar says."""

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
"""By the name of TensorRT's `DataType`. Its own map goes through numpy, which has no bfloat16."""

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Port:
    """One of an engine's inputs or outputs.

    Attributes:
        dtype: torch's.
        is_input: or an output.
        shape: with -1 for dynamic sizes.
        profile: minimal, optimal and maximal shape of an input; empty for an output.
    """

    dtype: torch.dtype
    is_input: bool
    shape: Shape
    profile: tuple[Shape, ...] = ()


@dataclass(frozen=True)
class RowLimits:
    """How many rows a run has.

    Attributes:
        most: rows that a batch may have.
        pinned: rows that every run has; None where it has the batch's.
    """

    most: int
    pinned: int | None = None


def signature(engine: Any, recorded: Sidecar) -> Signature:
    """An engine's signature.

    Args:
        engine: an `ICudaEngine`.
        recorded: the plan's metadata, which also gives the multiple of T.

    Raises:
        PlanCorrupt: the engine has other tensors, dtypes or ranges than its metadata says.
        EngineError: it is no decoder, or has a dtype that no buffer can have.
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
    """How many rows runs of an engine have.

    Args:
        takes: the rows that the engine takes. One that takes one number alone always runs that many.
        max_rows: the caller's ceiling, None where the engine's is enough.
        pin_rows: rows that every run shall have, or None.

    Raises:
        InvalidInput: the engine does not take so many or so few.
    """
    high = takes.low if takes.high is None else takes.high
    if pin_rows is None and takes.low == high:
        pin_rows = high
    most = high if max_rows is None else min(high, checks.integer("max_rows", max_rows, 1))
    if pin_rows is not None:
        return RowLimits(min(most, checks.integer("pin_rows", pin_rows, takes.low, high)), pin_rows)
    if most < takes.low:
        raise InvalidInput("max_rows", most, f"at least {takes.low}, the fewest rows that the engine takes")
    return RowLimits(most)


def _ports(engine: Any) -> Iterable[tuple[str, Port]]:
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        kind = engine.get_tensor_dtype(name).name
        if kind not in DTYPES:
            raise EngineError(f"the engine's {name} is of TensorRT's dtype {kind}, expected one of {', '.join(DTYPES)}")
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
                    f"{field} of {name}: the metadata says {says.get(name)}, the engine {has.get(name)}; "
                    "build the plan again"
                )


def _check_decoder(ports: Mapping[str, Port]) -> None:
    inputs = {name for name, port in ports.items() if port.is_input}
    outputs = set(ports) - inputs
    if inputs | {MASK} != set(INPUTS) or outputs != {VELOCITY}:
        raise EngineError(
            f"the engine takes {', '.join(sorted(inputs))} and gives {', '.join(sorted(outputs))}; "
            f"a decoder takes {', '.join(INPUTS)}, the last one or not, and gives {VELOCITY}"
        )
    for name, port in ports.items():
        if len(port.shape) != len(AXES[name]):
            raise EngineError(f"the engine's {name} has shape {port.shape}, expected [{', '.join(AXES[name])}]")


def _spans(ports: Mapping[str, Port]) -> dict[str, Span]:
    """What every input allows: TensorRT accepts a profile whose inputs have different ranges for one dimension."""
    spans: dict[str, Span] = {}
    for name, port in ports.items():
        for place, axis in enumerate(AXES[name]):
            span = _span(port, place)
            spans[axis] = span = span if axis not in spans else spans[axis].met(span)
            if span.high is not None and span.low > span.high:
                raise EngineError(f"no number of {axis} is one that all of the engine's tensors have")
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
        raise EngineError(f"the engine's {axis} is {span}, expected one fixed number")
    return span.low
