"""Decoders compiled by torch, with static shapes and without graph breaks."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from harness.engine.decoders.base import Decoder
from harness.engine.executors.compiler import Graphs

OPTIONS: dict[str, Any] = {"emulate_precision_casts": True, "deterministic": True}
"""Options of torch's compiler: every cast to a lower precision rounds where the decoder itself rounds, and no kernel is
chosen by a race of timings, so that the same code is made, with the same bits, in every process."""

LIMITS: dict[str, Any] = {"recompile_limit": 1024, "accumulated_recompile_limit": 8192}
"""How often torch may compile a function, and all together; its own limits are 8 and 256, after which it refuses."""


def compiled(decoder: Decoder, graphs: Graphs | None = None) -> Decoder:
    """The decoder, compiled at its first call with each shape.

    A decoder with a method `with_layers`, as `AceStepDecoder` has, is compiled layer by layer: the code of one layer
    serves all of its kind, so that a shape is compiled in seconds. Any other decoder is compiled as a whole. The
    weights stay those of `decoder`.

    The compiled code computes what the decoder computes, with other kernels, so its bits differ from the decoder's.

    Args:
        decoder: the decoder.
        graphs: counts the graphs that calls make code for, or None.
    """
    from torch._dynamo import config as dynamo  # noqa: PLC0415 - takes seconds to import

    counted = graphs or Graphs()
    with_layers = getattr(decoder, "with_layers", None)
    made = whole(decoder) if with_layers is None else with_layers(_compiled_layer)
    traceable = getattr(decoder, "traceable", nullcontext)

    def run(**inputs: Tensor) -> Tensor:
        with traceable(), dynamo.patch(LIMITS), counted.counting(), warnings.catch_warnings():
            # What torch's compiler imports and generates warns of itself.
            warnings.simplefilter("ignore")
            velocity: Tensor = made(**inputs)
        return velocity

    return run


def whole(decoder: Decoder) -> Decoder:
    """The decoder, compiled as a whole."""

    def call(**inputs: Tensor) -> Tensor:
        return decoder(**inputs)

    return torch.compile(call, fullgraph=True, dynamic=False, options=OPTIONS)


def _compiled_layer(layer: nn.Module) -> None:
    layer.compile(fullgraph=True, dynamic=False, options=OPTIONS)
