"""Launches of the kernels: a table of every slot's addresses and numbers, in pinned memory, and a grid over slots."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import torch
import triton
from torch import Tensor

from harness.engine.kernels import triton_kernels
from harness.engine.kernels.slots import BLOCK_FRAMES, Corrected, Guided
from harness.engine.transfer import Fetched, lent, written

GUIDE_BLOCKS = {"BLOCK_T": BLOCK_FRAMES, "BLOCK_D": 8, "LEVELS": BLOCK_FRAMES.bit_length() - 1}
"""Frames and channels of a program of `guide`, and the number of times that its partial sums are halved."""

PAIRS = 16
"""Pairs of frames of a program of `correct`."""

WIDENED = 4096
"""Values of a program of `widen`."""

OPTIONS: dict[str, Any] = {"num_warps": 4, "enable_fp_fusion": False}


def guide(slots: Sequence[Guided]) -> list[tuple[Tensor, Tensor]]:
    """The guided velocity and the new running average of every slot, float32 `[1, T, D]`.

    Args:
        slots: at least one slot; all have the same T and D and are on the same device.
    """
    frames, channels = slots[0].v_pos.shape[1:]
    kept = [[_dense(each) for each in _guide_tensors(slot)] for slot in slots]
    rows = [_guide_row(slot, tensors) for slot, tensors in zip(slots, kept, strict=True)]
    velocities = torch.empty((len(slots), frames, channels), dtype=torch.float32, device=slots[0].v_pos.device)
    averages = torch.empty_like(velocities)
    grid = (len(slots), triton.cdiv(channels, GUIDE_BLOCKS["BLOCK_D"]))
    _launch(triton_kernels.guide, grid, rows, velocities, averages, frames, channels=channels, **GUIDE_BLOCKS)
    return list(zip(torch.split(velocities, 1), torch.split(averages, 1), strict=True))


def correct(slots: Sequence[Corrected]) -> list[Tensor]:
    """The corrected state of every slot, float32 `[1, T, D]`.

    Args:
        slots: at least one slot; all have the same T and D and are on the same device.
    """
    frames, channels = slots[0].stepped.shape[1:]
    kept = [[_dense(each) for each in _correct_tensors(slot)] for slot in slots]
    rows = [_correct_row(slot, tensors) for slot, tensors in zip(slots, kept, strict=True)]
    states = torch.empty((len(slots), frames, channels), dtype=torch.float32, device=slots[0].stepped.device)
    grid = (len(slots), triton.cdiv((frames + 1) // 2, PAIRS))
    width = triton.next_power_of_2(channels)
    _launch(triton_kernels.correct, grid, rows, states, frames, channels=channels, BLOCK_T=PAIRS, BLOCK_D=width)
    return list(torch.split(states, 1))


def widen(velocity: Tensor) -> tuple[Tensor, Fetched]:
    """A copy of `velocity` `[N, T, D]` in float32, and flags on their way to the host.

    Returns:
        The copy, contiguous; and int32 `[N, blocks]`, which is 1 where a block of a row holds a value that is not
        finite in float32. The kernel writes the flags straight into pinned memory, so that no copy follows it.
    """
    dense, size = velocity.contiguous(), velocity[0].numel()
    made = torch.empty(velocity.shape, dtype=torch.float32, device=velocity.device)
    blocks = (len(velocity), triton.cdiv(size, WIDENED))

    def launch(spoilt: Tensor) -> None:
        with torch.cuda.device(velocity.device) if velocity.is_cuda else nullcontext():
            triton_kernels.widen[blocks](dense, made, spoilt, size, BLOCK=WIDENED, **OPTIONS)

    return made, written(blocks, torch.int32, velocity.device, launch)


@lru_cache(maxsize=64)
def prepare(device: torch.device, channels: int) -> None:
    """Compile every kernel for so many channels, and load it."""
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        widen(torch.zeros(1, 2, channels, dtype=dtype, device=device))
    x, one = (torch.zeros(size, device=device) for size in ((1, 2, channels), (1, 1, 1)))
    guide([Guided(x, x, x, one, one, one, 1.0, 1.0)])
    correct([Corrected(x, x, x, 1.0, one, 1.0, one, 1.0, None)])


def _launch(
    kernel: Any, grid: tuple[int, int], rows: Sequence[Sequence[int]], made: Tensor, *arguments: Any, **constants: int
) -> None:
    """Launch a kernel on the device of `made`. It reads its table, one row a slot, from memory of the host."""

    def launch(table: Tensor) -> None:
        with torch.cuda.device(made.device) if made.is_cuda else nullcontext():
            kernel[grid](table, made, *arguments, **constants, **OPTIONS)

    lent(torch.tensor(rows, dtype=torch.int64, device="cpu"), made.device, launch)


def _guide_tensors(slot: Guided) -> list[Tensor | None]:
    return [slot.v_pos, slot.v_neg, slot.average, slot.scale, slot.momentum, slot.rescale]


def _guide_row(slot: Guided, tensors: Sequence[Tensor | None]) -> list[int]:
    v_pos, v_neg, average, scale, momentum, rescale = tensors
    limit = slot.norm_threshold
    return [
        *map(_address, (v_pos, v_neg, average)),
        *_curve(scale),
        *_curve(momentum),
        *_curve(rescale),
        int(limit is not None),
        _bits32(0.0 if limit is None else limit),
        _bits64(slot.eta),
    ]


def _correct_tensors(slot: Corrected) -> list[Tensor | None]:
    return [slot.stepped, slot.x, slot.velocity, slot.low, slot.high, slot.pix]


def _correct_row(slot: Corrected, tensors: Sequence[Tensor | None]) -> list[int]:
    stepped, x, velocity, low, high, pix = tensors
    return [
        *map(_address, (stepped, x, velocity)),
        *_curve(low),
        _bits32(slot.low_factor),
        *_curve(high),
        _bits32(slot.high_factor),
        *_curve(pix),
        _bits32(slot.t),
    ]


def _dense(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _curve(curve: Tensor | None) -> tuple[int, int]:
    """Address and stride of a curve."""
    return _address(curve), int(curve is not None and curve.shape[1] > 1)


def _bits(form: str, whole: str) -> Callable[[float], int]:
    def bits(value: float) -> int:
        number: int = struct.unpack(whole, struct.pack(form, value))[0]
        return number

    return bits


_bits32 = _bits("<f", "<i")
_bits64 = _bits("<d", "<q")
