"""Copies in pieces that torch does not split among its threads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from harness.engine import serially, transfer
from harness.engine.noise import Purpose, noise


class Copies(TorchDispatchMode):
    """Remembers the number of elements of each copy."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.copy_.default, torch.ops.aten.clone.default):
            self.sizes.append(args[0].numel())
        return func(*args, **(kwargs or {}))


SOURCES = {
    "a scalar": torch.tensor(3.0),
    "nothing": torch.ones(0, 4),
    "one less than torch splits": torch.arange(32767),
    "as many as torch splits": torch.arange(32768),
    "a latent": torch.arange(48000.0).view(1, 750, 64),
    "transposed": torch.arange(48000.0).view(1, 64, 750).transpose(1, 2),
    "of bfloat16": torch.arange(96000).to(torch.bfloat16).view(2, 750, 64),
    "of bool": (torch.arange(40000) % 3 == 0).view(200, 200),
    "no dimension is long": torch.arange(3.0**11).view(*[3] * 11),
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_copy_has_every_element_and_no_piece_is_split_among_threads(name: str) -> None:
    source = SOURCES[name]
    to = torch.empty(source.shape, dtype=source.dtype)
    with Copies() as copies:
        serially.copy(to, source)
    assert torch.equal(to, source)
    assert sum(copies.sizes) == source.numel()
    assert max(copies.sizes) < serially.GRAIN


def test_pieces_are_as_large_as_they_may_be() -> None:
    with Copies() as copies:
        serially.copy(torch.empty(1, 750, 64), torch.ones(1, 750, 64))
    assert copies.sizes == [511 * 64, 239 * 64]


def test_noise_is_drawn_without_a_copy_that_is_split() -> None:
    with Copies() as copies:
        made = noise(1, Purpose.INITIAL, 0, (1, 1500, 64))
    assert max(copies.sizes) < serially.GRAIN
    drawn = torch.randn(1, 64, 1500, generator=torch.Generator().manual_seed(1))
    assert torch.equal(made, drawn.transpose(1, 2))
    assert made.is_contiguous()


def test_what_goes_to_a_gpu_is_staged_without_a_copy_that_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    staged: list[Tensor] = []

    class Memory:
        def holding(self, like: Tensor) -> Tensor:
            staged.append(torch.empty(like.shape, dtype=like.dtype))
            return staged[0]

        def mark(self) -> None:
            raise StopIteration

    monkeypatch.setattr(transfer.BLOCKS, "take", lambda _nbytes, _device: Memory())
    host = torch.arange(48000.0).view(1, 750, 64).requires_grad_()
    with Copies() as copies, pytest.raises((AssertionError, RuntimeError, StopIteration)):
        transfer.to_device(host, torch.device("cuda", 0))
    assert torch.equal(staged[0], host)
    assert max(size for size in copies.sizes if size) < serially.GRAIN
