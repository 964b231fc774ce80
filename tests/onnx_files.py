"""Small ONNX files with an exported decoder's inputs and output, made by hand, and what they compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor

from harness.engine.executors import Batch

D, E = 8, 32
DIMS: Mapping[str, Sequence[Any]] = {
    "hidden_states": ("batch", "2*half", D),
    "timestep": ("batch",),
    "encoder_hidden_states": ("batch", "tokens", E),
    "context_latents": ("batch", "2*half", 2 * D),
    "encoder_mask": ("batch", "tokens"),
    "velocity": ("batch", "2*half", D),
}


def velocity(batch: Batch, *, mask: bool = True) -> Tensor:
    """What the file computes: every input moves it, and so does every frame there is."""
    states = batch.encoder_hidden_states * (batch.encoder_mask[:, :, None] if mask else 1.0)
    return (
        batch.hidden_states * batch.timestep.view(-1, 1, 1)
        + batch.hidden_states.sum(1, keepdim=True)
        + batch.context_latents[:, :, :D]
        + states.sum((1, 2), keepdim=True)
    )


def whole(rows: int, frames: int = 10, tokens: int = 6, seed: int = 1) -> Batch:
    """Rows of small whole numbers, whose sums are exact in any order and in float16 as well."""
    drawn = torch.Generator().manual_seed(seed)

    def numbers(*shape: int) -> Tensor:
        return torch.randint(-4, 5, shape, generator=drawn).float()

    return Batch(
        hidden_states=numbers(rows, frames, D),
        timestep=torch.randint(1, 5, (rows,), generator=drawn) / 4,
        encoder_hidden_states=numbers(rows, tokens, E),
        encoder_mask=torch.arange(tokens) < torch.arange(1, rows + 1)[:, None],
        context_latents=numbers(rows, frames, 2 * D),
    )


def written(
    path: Path,
    *,
    dtypes: Mapping[str, int] | None = None,
    without: Sequence[str] = (),
    extra: Sequence[str] = (),
    **dims: Sequence[Any],
) -> Path:
    """Write a file that computes `velocity`.

    Args:
        path: of the file.
        dtypes: `TensorProto`'s, by name; else float, the mask bool. The sums are in the velocity's.
        without: the inputs that it lacks.
        extra: inputs that it has besides and does not read.
        dims: other dimensions than `DIMS`, by name.
    """
    kinds = {name: TensorProto.FLOAT for name in [*DIMS, *extra]} | {"encoder_mask": TensorProto.BOOL} | (dtypes or {})
    shapes = {**DIMS, **{name: ("batch",) for name in extra}, **dims}
    values = {
        name: helper.make_tensor_value_info(name, kinds[name], list(shapes[name]))
        for name in shapes
        if name not in without
    }
    made = helper.make_graph(
        _nodes(kinds["velocity"], mask="encoder_mask" not in without),
        "by_hand",
        [value for name, value in values.items() if name != "velocity"],
        [values["velocity"]],
        [_numbers(name, numbers) for name, numbers in _CONSTANTS.items()],
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


_CONSTANTS = {"flat": [-1, 1, 1], "zero": [0], "depth": [D], "one": [1], "two": [2], "both": [1, 2]}


def _numbers(name: str, numbers: Sequence[int]) -> Any:
    return helper.make_tensor(name, TensorProto.INT64, [len(numbers)], numbers)


def _nodes(dtype: int, *, mask: bool) -> list[Any]:
    def cast(source: str, target: str) -> Any:
        return helper.make_node("Cast", [source], [target], to=dtype)

    masked = [
        cast("encoder_mask", "mask"),
        helper.make_node("Unsqueeze", ["mask", "two"], ["m"]),
        helper.make_node("Mul", ["e", "m"], ["attended"]),
    ]
    return [
        cast("hidden_states", "h"),
        cast("timestep", "time"),
        cast("encoder_hidden_states", "e"),
        cast("context_latents", "context"),
        helper.make_node("Reshape", ["time", "flat"], ["t"]),
        helper.make_node("Mul", ["h", "t"], ["moved"]),
        helper.make_node("ReduceSum", ["h", "one"], ["over_frames"], keepdims=1),
        helper.make_node("Slice", ["context", "zero", "depth", "two"], ["source"]),
        *(masked if mask else [helper.make_node("Identity", ["e"], ["attended"])]),
        helper.make_node("ReduceSum", ["attended", "both"], ["over_tokens"], keepdims=1),
        helper.make_node("Sum", ["moved", "over_frames", "source", "over_tokens"], ["velocity"]),
    ]
