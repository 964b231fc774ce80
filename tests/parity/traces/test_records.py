"""Records of the engine: what is stored and made again is the same in every field."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine import DCW, PLAIN_PATH, LatentMask, PipelineConfig
from harness.files import FileRefused
from harness.parity.compare import digest
from harness.parity.traces import records
from harness.parity.traces.encoding import Decoder, Encoder, filled
from tests.parity.traces.rings import drawn, request, rich


def again(value: Any, change: Any = lambda document: document) -> Any:
    encoder = Encoder(records.encoders(3))
    document = encoder.encoded(value)
    held = {digest(tensor): tensor for _, tensor in encoder.tensors}
    document = change(filled(document, [digest(tensor) for _, tensor in encoder.tensors]))
    return Decoder(Path("a"), lambda named, _: held[named], records.decoders("cpu")).decoded(document)


def flat(value: Any) -> Any:
    """Every field, and a digest of every tensor."""
    if isinstance(value, Tensor):
        return digest(value)
    if is_dataclass(value):
        return {each.name: flat(getattr(value, each.name)) for each in fields(value)}
    if callable(value):
        return [value(step, 3) for step in range(3)]
    return [flat(each) for each in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize(
    "value",
    [rich(1), request(2), PipelineConfig(switches=PLAIN_PATH, dcw=DCW(a=torch.linspace(0, 1, 4))), DCW(wavelet="db2")],
)
def test_a_record_is_made_again_with_every_field(value: Any) -> None:
    made = again(value)
    assert type(made) is type(value)
    assert flat(made) == flat(value)


def test_a_strength_is_asked_at_the_steps_of_its_request_alone() -> None:
    made = again(LatentMask(1.0, drawn(1), lambda step, total: step / total))
    with pytest.raises(LookupError, match="at step 0 of 4"):
        made.strength_at(0, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: {"record": ["Session", {}]}, r"got 'Session', expected one of Request, "),
        (lambda d: {"record": ["Request", {**d["record"][1], "seed": -1}]}, "a Request that can be made .*seed"),
        (lambda d: {"record": ["Request", {**d["record"][1], "more": 1}]}, "a Request that can be made .*more"),
        (lambda d: {"record": ["Curve", {"values": d["record"][1]["context_latents"]}]}, r"float32 \[1, T, 1\]"),
    ],
)
def test_a_record_that_cannot_be_made_is_refused(change: Any, message: str) -> None:
    with pytest.raises(FileRefused, match=message):
        again(request(1), change)
