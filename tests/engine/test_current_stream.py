"""The lookup of a GPU's current stream, with stand-ins for torch's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from harness.engine import transfer


@pytest.fixture(name="raw")
def _raw(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """The current stream's handle by GPU."""
    raw = {0: 10, 1: 11}

    def made(device: torch.device) -> SimpleNamespace:
        index = 1 if device.index is None else device.index
        return SimpleNamespace(index=index, handle=raw[index])

    monkeypatch.setattr(transfer, "_RAW", raw.__getitem__)
    monkeypatch.setattr(transfer, "_STREAMS", {})
    monkeypatch.setattr(torch.cuda, "current_stream", made)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    return raw


def test_each_stream_of_each_gpu_has_one_object(raw: dict[int, int]) -> None:
    devices = [torch.device("cuda", 0), torch.device("cuda", 1)]
    first = [transfer.current_stream(device) for device in devices]
    assert [(each.index, each.handle) for each in first] == [(0, 10), (1, 11)]
    raw.update({0: 11, 1: 10})
    second = [transfer.current_stream(device) for device in devices]
    assert [(each.index, each.handle) for each in second] == [(0, 11), (1, 10)]
    raw.update({0: 10, 1: 11})
    assert [transfer.current_stream(device) is each for device, each in zip(devices, first, strict=True)] == [True] * 2


def test_a_gpu_without_a_number_is_the_current_one(raw: dict[int, int]) -> None:
    assert transfer.current_stream(torch.device("cuda")) is transfer.current_stream(torch.device("cuda", 1))
    assert raw


def test_without_torch_s_function_torch_is_asked_at_each_call(
    raw: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_RAW", None)
    device = torch.device("cuda", 0)
    assert transfer.current_stream(device) is not transfer.current_stream(device)
    assert transfer.current_stream(device).handle == raw[0]
