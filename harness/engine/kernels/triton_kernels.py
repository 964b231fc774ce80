"""The kernels. Every product and sum rounds by itself: they are compiled without fused multiply-adds.

A launch gets a table, int64 `[slots, FIELDS]` in pinned memory of the host, with the addresses of each slot's tensors,
the strides of its curves (0 for a scalar, 1 for a curve) and its numbers, as the bits of a float32 or a float64.
"""

from __future__ import annotations

import triton
import triton.language as tl

GUIDE_FIELDS = tl.constexpr(12)
CORRECT_FIELDS = tl.constexpr(12)


@triton.jit
def _at(address):  # type: ignore[no-untyped-def]
    return address.to(tl.pointer_type(tl.float32))


@triton.jit
def _float32(bits):  # type: ignore[no-untyped-def]
    return bits.to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def _total(sums, ROWS: tl.constexpr, COLUMNS: tl.constexpr, LEVELS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Add the upper half of the rows to the lower half, until one is left: sums of two, which have one order."""
    for level in tl.static_range(LEVELS):
        sums = tl.sum(tl.reshape(sums, (2, ROWS >> (level + 1), COLUMNS)), 0)
    return sums


@triton.jit(do_not_specialize=["frames"])
def guide(  # type: ignore[no-untyped-def]  # noqa: PLR0915 - one kernel: Triton inlines whatever is called
    table,
    velocities,
    averages,
    frames,
    channels: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    LEVELS: tl.constexpr,
):
    """Guide one slot's block of channels; the formulas are those of `harness.engine.guidance`.

    Sums over frames are float64, in the order of `plain.total`. `LEVELS` is the logarithm of `BLOCK_T` to base 2.
    """
    slot = tl.program_id(0).to(tl.int64)
    row = table + slot * GUIDE_FIELDS
    v_pos, v_neg, old = _at(tl.load(row)), _at(tl.load(row + 1)), _at(tl.load(row + 2))
    scale, scale_stride = _at(tl.load(row + 3)), tl.load(row + 4)
    momentum, momentum_stride = _at(tl.load(row + 5)), tl.load(row + 6)
    rescale_address, rescale_stride = tl.load(row + 7), tl.load(row + 8)
    rescale = _at(rescale_address)
    limited, threshold = tl.load(row + 9) != 0, _float32(tl.load(row + 10))
    eta = tl.load(row + 11).to(tl.float64, bitcast=True)

    channel = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)[None, :]
    block = tl.arange(0, BLOCK_T)[:, None]
    own = slot * frames * channels

    norms = tl.zeros((BLOCK_T, BLOCK_D), tl.float64)
    wanted = tl.zeros((BLOCK_T, BLOCK_D), tl.float64)
    for start in range(0, frames, BLOCK_T):
        frame = start + block
        inside = (frame < frames) & (channel < channels)
        place = frame * channels + channel
        vp = tl.load(v_pos + place, inside, 0.0)
        m = tl.load(momentum + frame * momentum_stride, frame < frames, 0.0)
        average = (vp - tl.load(v_neg + place, inside, 0.0)) + m * tl.load(old + place, inside, 0.0)
        tl.store(averages + own + place, average, inside)
        average = tl.where(inside, average, 0.0).to(tl.float64)
        norms += average * average
        wanted += vp.to(tl.float64) * vp.to(tl.float64)
    norm = tl.sqrt(_total(norms, BLOCK_T, BLOCK_D, LEVELS)).to(tl.float32)
    v_norm = tl.sqrt(_total(wanted, BLOCK_T, BLOCK_D, LEVELS))
    share = tl.div_rn(tl.full((1, BLOCK_D), 1.0, tl.float32) * threshold, norm)
    # Not a minimum: a NaN stays one.
    share = tl.where((share > 1.0) | (limited == 0), 1.0, share)
    floor = tl.where(v_norm < 1e-12, 1e-12, v_norm)

    tl.debug_barrier()
    dots = tl.zeros((BLOCK_T, BLOCK_D), tl.float64)
    for start in range(0, frames, BLOCK_T):
        frame = start + block
        inside = (frame < frames) & (channel < channels)
        place = frame * channels + channel
        unit = tl.load(v_pos + place, inside, 0.0).to(tl.float64) / floor
        direction = tl.load(averages + own + place, inside, 0.0) * share
        dots += tl.where(inside, direction.to(tl.float64) * unit, 0.0)
    dot = _total(dots, BLOCK_T, BLOCK_D, LEVELS)

    squares = tl.zeros((BLOCK_T, BLOCK_D), tl.float64)
    for start in range(0, frames, BLOCK_T):
        frame = start + block
        inside = (frame < frames) & (channel < channels)
        place = frame * channels + channel
        vp = tl.load(v_pos + place, inside, 0.0)
        direction = (tl.load(averages + own + place, inside, 0.0) * share).to(tl.float64)
        parallel = dot * (vp.to(tl.float64) / floor)
        update = (direction - parallel).to(tl.float32)
        if eta != 0.0:
            update = update + (eta * parallel).to(tl.float32)
        g = tl.load(scale + frame * scale_stride, frame < frames, 0.0)
        v = vp + (g - 1.0) * update
        tl.store(velocities + own + place, v, inside)
        v = tl.where(inside, v, 0.0).to(tl.float64)
        squares += v * v

    if rescale_address != 0:
        tl.debug_barrier()
        norm = tl.sqrt(_total(squares, BLOCK_T, BLOCK_D, LEVELS)).to(tl.float32)
        norm = tl.where(norm < 1e-12, 1e-12, norm)
        ratio = tl.div_rn(v_norm.to(tl.float32), norm)
        for start in range(0, frames, BLOCK_T):
            frame = start + block
            inside = (frame < frames) & (channel < channels)
            place = own + frame * channels + channel
            v = tl.load(velocities + place, inside, 0.0)
            k = tl.load(rescale + frame * rescale_stride, frame < frames, 0.0)
            tl.store(velocities + place, k * (v * ratio) + (1.0 - k) * v, inside)


@triton.jit(do_not_specialize=["frames"])
def correct(  # type: ignore[no-untyped-def]
    table, states, frames, channels: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr
):
    """Correct one slot's block of pairs of frames; the formulas are those of `harness.engine.wavelet`.

    With the sum `l = g*((x0 + x1) - (y0 + y1))` and the difference `h = k*((x0 - x1) - (y0 - y1))` of a pair of frames,
    `g` and `k` the gains of the bands, the pair becomes `x0 + (l + h)/2` and `x1 + (l - h)/2`: the transform and its
    inverse without their roots of two. It is computed in float64 and rounded once. Behind an odd number of frames there
    is one of zeros.
    """
    slot = tl.program_id(0).to(tl.int64)
    row = table + slot * CORRECT_FIELDS
    stepped, before, velocity = _at(tl.load(row)), _at(tl.load(row + 1)), _at(tl.load(row + 2))
    low_address, low_stride, low_factor = tl.load(row + 3), tl.load(row + 4), _float32(tl.load(row + 5))
    high_address, high_stride, high_factor = tl.load(row + 6), tl.load(row + 7), _float32(tl.load(row + 8))
    pix_address, pix_stride = tl.load(row + 9), tl.load(row + 10)
    t = _float32(tl.load(row + 11))

    channel = tl.arange(0, BLOCK_D)[None, :]
    pair = tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)[:, None]
    first, second = 2 * pair, 2 * pair + 1
    has_first, has_second = (first < frames) & (channel < channels), (second < frames) & (channel < channels)
    at_first, at_second = first * channels + channel, second * channels + channel
    x0, x1 = tl.load(stepped + at_first, has_first, 0.0), tl.load(stepped + at_second, has_second, 0.0)
    y0 = tl.load(before + at_first, has_first, 0.0) - t * tl.load(velocity + at_first, has_first, 0.0)
    y1 = tl.load(before + at_second, has_second, 0.0) - t * tl.load(velocity + at_second, has_second, 0.0)

    if pix_address != 0:
        a0 = tl.load(_at(pix_address) + first * pix_stride, first < frames, 0.0)
        a1 = tl.load(_at(pix_address) + second * pix_stride, second < frames, 0.0)
        r0, r1 = x0 + a0 * (x0 - y0), x1 + a1 * (x1 - y1)
    else:
        wide0, wide1 = x0.to(tl.float64), x1.to(tl.float64)
        clean0, clean1 = y0.to(tl.float64), y1.to(tl.float64)
        low, high = tl.zeros_like(wide0), tl.zeros_like(wide0)
        if low_address != 0:
            gain = low_factor * tl.load(_at(low_address) + pair * low_stride, first < frames, 0.0)
            low = gain.to(tl.float64) * ((wide0 + wide1) - (clean0 + clean1))
        if high_address != 0:
            gain = high_factor * tl.load(_at(high_address) + pair * high_stride, first < frames, 0.0)
            high = gain.to(tl.float64) * ((wide0 - wide1) - (clean0 - clean1))
        r0, r1 = (wide0 + 0.5 * (low + high)).to(tl.float32), (wide1 + 0.5 * (low - high)).to(tl.float32)
    own = slot * frames * channels
    tl.store(states + own + at_first, r0, has_first)
    tl.store(states + own + at_second, r1, has_second)


@triton.jit(do_not_specialize=["size"], do_not_specialize_on_alignment=["source", "made", "spoilt"])
def widen(source, made, spoilt, size, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Cast a block of one row's values to float32, and note whether one of them is not finite.

    A program of row r and block b writes `spoilt[r, b]`, and no other does, so nothing is added up.
    """
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    place = block * BLOCK + tl.arange(0, BLOCK)
    inside = place < size
    value = tl.load(source + row * size + place, inside, 0.0).to(tl.float32)
    tl.store(made + row * size + place, value, inside)
    # Infinity minus itself is NaN, and NaN equals nothing.
    bad = (value - value) != 0.0
    tl.store(spoilt + row * tl.num_programs(1) + block, tl.max(bad.to(tl.int32), 0))
