"""Every formula's bits once more, operation by operation, at signed zeros, bounds and values far apart.

The twins are NumPy's float32, where each operation rounds once. Norms and sums over frames are torch's own.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from harness.engine import blend, guidance, solver, wavelet
from harness.engine.noise import MAX_SEED, Purpose, generator_seed, noise
from harness.engine.schedule import known_timesteps, timesteps
from harness.engine.wavelet import DCWMode
from tests.transcription import assert_bits

Array = NDArray[np.float32]
F, ONE = np.float32, np.float32(1)
EDGES = [0.0, -0.0, 1.0, -1.0, 0.5, 1e-42, -1e-42, 1e-13, -1e-20, 3e10, -7e5]
AMOUNTS = [0.0, -0.0, 1.0, -1.0, 0.5, 0.37, 1e-42, 10.0, -10.0]
WEIGHTS = [0.0, -0.0, 1.0, 0.3, 1e-12, 1e-8, 3e-8, 1e6]
TIMES = [
    (1.0, 0.9375),
    (0.75, 0.30000001192092896),
    (0.30000001192092896, 1e-6),
    (1e-6, 1e-9),
    (1.0, 0.0),
    (0.5, 0.0),
    (1.0, 1.0),
]


class Draw:
    """Arrays of one drawn shape: every second value is an edge, and one in eight latents is of one edge alone."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.frames, self.channels = int(self.rng.choice([1, 2, 7, 40])), int(self.rng.integers(1, 9))

    def latent(self) -> Array:
        shape = (1, self.frames, self.channels)
        if self.rng.random() < 1 / 8:
            return np.full(shape, self.rng.choice(EDGES), F)
        edges = self.rng.choice(EDGES, shape)
        return np.where(self.rng.random(shape) < 0.5, edges, self.rng.standard_normal(shape)).astype(F)

    def curve(self, values: list[float]) -> Array:
        """One value for all frames, as a scalar or in each frame, or one for each frame."""
        shape = (1, self.frames if self.rng.random() < 0.7 else 1, 1)
        return np.broadcast_to(self.rng.choice(values, shape if self.rng.random() < 0.5 else ()), shape).astype(F)


def draws(count: int = 80) -> Iterator[Draw]:
    return map(Draw, range(count))


def tensors(*arrays: Array) -> list[Tensor]:
    return [torch.from_numpy(each.copy()) for each in arrays]


def assert_made(got: Tensor, want: Array) -> None:
    assert_bits(got, torch.from_numpy(np.ascontiguousarray(want)))


def mixed(w: Array, one: Array, other: Array) -> Array:
    return w * one + (ONE - w) * other


def noised(s: float, z: Array, clean: Array) -> Array:
    return F(s) * z + F(1 - s) * clean


# Blends.


def test_a_weighted_mean_adds_from_the_first_product_on_however_many_there_are() -> None:
    for draw in draws():
        count = int(draw.rng.integers(2, 13))
        v, w = [draw.latent() for _ in range(count)], [draw.curve(WEIGHTS) for _ in range(count)]
        total = reduce(add, (a * b for a, b in zip(v, w, strict=True)))
        got = blend.weighted_mean(tensors(*v), tensors(*w))
        assert_made(got, total / np.maximum(reduce(add, w), F(1e-8)))


def test_blends_and_edits_have_their_bits_at_every_edge() -> None:
    for draw in draws():
        x, y, z, w = draw.latent(), draw.latent(), draw.latent(), draw.curve(AMOUNTS)
        tx, ty, tz, tw = tensors(x, y, z, w)
        assert_made(blend.mix(tw, tx, ty), mixed(w, x, y))
        assert_made(blend.toward(tx, ty, tw), (ONE - w) * x + w * y)
        for t in (0.0, 1.0, *sum(TIMES, ())):
            assert_made(blend.mask_state(tx, tw, ty, tz, t), mixed(w, x, noised(t, z, y)))


GATES = [0.0, 5e-324, 0.1, 1 / 3, 0.5, 0.7, 1 - 2e-6, 1 - 1e-6, 1 - 1e-7, math.nextafter(1.0, 0.0), 1.0]


@pytest.mark.parametrize("total", [1, 2, 3, 8, 99, 1000])
def test_a_gate_opens_by_its_formula_at_every_step(total: int) -> None:
    for gate in GATES:
        progress = [step / (total - 1) if total > 1 else 0.0 for step in range(total)]
        want = [(p - gate if p > gate else 0.0) / (1 - gate if 1 - gate > 1e-6 else 1e-6) for p in progress]
        assert [blend.gate_ramp(step, total, gate) for step in range(total)] == want


# Steps.


def test_steps_have_their_bits_at_every_edge() -> None:
    for draw in draws(50):
        x, y, z, w = draw.latent(), draw.latent(), draw.latent(), draw.curve(AMOUNTS)
        tx, ty, tz, tw = tensors(x, y, z, w)
        for t, s in TIMES:
            assert_made(solver.euler(tx, ty, t, s), x + F(s - t) * y)
            assert_made(solver.denoised(tx, ty, t), x - F(t) * y)
            through = y if s == 0.0 else x + F((s - t) / t) * (x - y)
            assert_made(solver.euler_through(tx, ty, t, s), through)
            assert_made(solver.inject(tx, tz, tw, s), x + z * w * F(s))
            assert_made(solver.renoised(tx, tz, s), noised(s, z, x))
            assert_made(solver.sde(tx, tz, s), noised(s, z, x))
            assert_made(solver.sde_curve(tx, ty, tz, tw, s), mixed(w, noised(s, z, x), noised(s, z, y)))
        assert_made(solver.sde_curve(tx, ty, None, tw, 0.0), mixed(w, x, y))


# Guidance.


def norm(x: Array) -> Array:
    return torch.linalg.vector_norm(torch.from_numpy(x), dim=1, keepdim=True).numpy()


def test_an_average_is_a_product_and_a_sum_also_where_the_product_is_nothing() -> None:
    for draw in draws():
        diff, average, momentum = draw.latent(), draw.latent(), draw.curve(AMOUNTS)
        assert_made(guidance.running_average(*tensors(diff, average, momentum)), diff + momentum * average)


def small(draw: Draw) -> Array:
    """A latent of one size: norms from below the smallest denominator to a million."""
    return (
        draw.rng.standard_normal((1, draw.frames, draw.channels)) * draw.rng.choice([1e-14, 1e-12, 1e-9, 1, 1e6])
    ).astype(F)


@pytest.mark.parametrize("eta", [0.0, -0.0, 1.0, -1.0, 0.3, 10.0, 1e-30])
def test_guidance_has_its_bits_for_norms_thresholds_and_shares_of_every_size(eta: float) -> None:
    thresholds = [None, 2.0**-126, 1.0, 2.5, float(np.finfo(F).max)]
    for draw in draws(60):
        v, average, scale = (draw.latent(), small(draw), draw.curve([0.0, 1.0, -0.0, 7.3, -50.0, 50.0]))
        v = small(draw) if draw.rng.random() < 0.7 else v
        threshold = thresholds[int(draw.rng.integers(5))]
        with np.errstate(all="ignore"):
            clipped = average if threshold is None else average * np.minimum(ONE, F(threshold) / norm(average))
        assert_made(guidance.clip(*tensors(average), threshold), clipped)
        along, d = torch.from_numpy(v.astype(np.float64)), torch.from_numpy(clipped.astype(np.float64))
        unit = along / torch.linalg.vector_norm(along, dim=1, keepdim=True).clamp(min=1e-12)
        parallel = (d * unit).sum(dim=1, keepdim=True) * unit
        orthogonal = d - parallel
        made = guidance.decompose(*tensors(clipped, v))
        assert [torch.equal(a, b) for a, b in zip(made, (orthogonal, parallel), strict=True)] == [True, True]
        update = orthogonal.numpy().astype(F)
        if eta:
            update = update + (eta * parallel.numpy()).astype(F)
        assert_made(guidance.guide(*tensors(v, average, scale), threshold, eta), v + (scale - ONE) * update)


def test_a_rescale_has_its_bits_for_norms_of_every_size_and_an_amount_of_each_frame() -> None:
    for draw in draws():
        v, v_pos, k = small(draw), small(draw), draw.curve(AMOUNTS)
        if draw.rng.random() < 0.2:
            v[...], v_pos = -0.0, draw.latent()
        level = v * (norm(v_pos) / np.maximum(norm(v), F(1e-12)))
        assert_made(guidance.rescale(*tensors(v, v_pos, k)), mixed(k, level, v))


# Wavelets.


def gain(factor: float, scaler: Array | None, length: int) -> Array | None:
    if scaler is None:
        return None
    (given,) = tensors(scaler)
    if scaler.shape[1] not in (1, length):
        given = functional.interpolate(given[..., 0][None], size=length, mode="linear", align_corners=False)[0, 0]
        given = given.reshape(1, length, 1)
    return F(factor) * given.numpy()


def moved(x: Array, y: Array, by: Array | None) -> Array:
    return x if by is None else x + by * (x - y)


@pytest.mark.parametrize("name", ["haar", "db4", "bior2.2"])
@pytest.mark.parametrize("mode", DCWMode)
def test_a_correction_has_its_bits_from_the_first_time_to_the_last(mode: DCWMode, name: str) -> None:
    """Also at time 1, where the high band has a gain of 0 and is still transformed, and for a scaler of zeros."""
    for draw in draws(5):
        stepped, clean = (draw.rng.standard_normal((1, draw.frames, draw.channels)).astype(F) for _ in range(2))
        a, b = draw.curve(AMOUNTS), draw.curve(AMOUNTS)
        args = tensors(stepped, clean)
        (xl, xh), (yl, yh) = ([band.numpy() for band in wavelet.dwt(x, name)] for x in args)
        for t in (1.0, 0.75, 0.30000001192092896, 1e-6):
            for one, two in ((a, b), (None, b), (a, None)):
                given = [None if each is None else tensors(each)[0] for each in (one, two)]
                got = wavelet.correct(mode, *args, t, *given, name)
                if mode is DCWMode.PIX:
                    assert_made(got, stepped if one is None else stepped + one * (stepped - clean))
                    continue
                length = xl.shape[1]
                low = gain(t, one, length) if mode is not DCWMode.HIGH else None
                high = gain(1 - t, two if mode is DCWMode.DOUBLE else one, length) if mode is not DCWMode.LOW else None
                if low is None and high is None:
                    assert got is args[0]
                    continue
                bands = tensors(moved(xl, yl, low), moved(xh, yh, high))
                assert_bits(got, wavelet.idwt(*bands, name, draw.frames))


@pytest.mark.parametrize("length", [7, 40, 41])
@pytest.mark.parametrize("place", [(0, 0), (0, 1), (-1, 0), (-1, 1)])
def test_an_error_of_reconstruction_counts_at_any_length_frame_and_signal(
    length: int, place: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    inverse, transform, signals = wavelet.idwt, wavelet.dwt, []

    def lossy(low: Tensor, high: Tensor, name: str, frames: int) -> Tensor:
        made = inverse(low, high, name, frames).clone()
        if frames == length:
            made[(0, *place)] -= 0.5
        return made

    def seen(x: Tensor, name: str) -> Any:
        signals.append(x)
        return transform(x, name)

    monkeypatch.setattr(wavelet, "idwt", lossy)
    monkeypatch.setattr(wavelet, "dwt", seen)
    assert abs(wavelet.reconstruction_error.__wrapped__("db2") - 0.5) < 1e-5
    for x, frames in zip(signals, (7, 40, 41), strict=True):
        f = torch.arange(frames, dtype=torch.float32)
        assert_bits(x, torch.stack([torch.sin(1.7 * f), torch.cos(0.3 * f * f)], dim=-1)[None])


def test_convolutions_are_as_before_where_a_transform_breaks_off() -> None:
    convolutions = torch.backends.cudnn.conv
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "tf32"
    try:
        with pytest.raises(KeyboardInterrupt), wavelet._ieee_convolutions(torch.device("cuda")):
            raise KeyboardInterrupt
        assert convolutions.fp32_precision == "tf32"
    finally:
        convolutions.fp32_precision = before


# Times and noise.


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 8, 27, 49, 100, 1000])
def test_times_have_their_bits_for_every_denoise_and_shift_and_are_remembered_with_them(steps: int) -> None:
    whole = [steps / n for n in (steps, steps + 1, 2 * steps, 3 * steps + 1, 1000 * steps) if n]
    near = [math.nextafter(d, to) for d in whole for to in (0.0, 2.0)]
    near += [d * (1 + e) for d in whole for e in (1e-13, -1e-13, 1e-10, -1e-10, 1e-7, -1e-7)]
    percents = [percent / 100 for percent in range(1, 121, 1 if steps < 50 else 23)]
    for denoise in [*whole, *near, *percents, 1.001e-6, math.nextafter(1e-6, 1.0), 1e300]:
        start = 1.0 if denoise >= 1.0 else steps / int(steps / denoise)
        even = torch.linspace(start, 0.0, steps + 1, dtype=torch.float32).numpy()
        for shift in (1.0, 3.0, 0.001, 1000.0, 0.7, math.nextafter(1.0, 0.0), math.nextafter(1.0, 2.0)):
            bent = np.minimum(ONE, F(shift) * even / (ONE + F(shift - 1.0) * even))
            want = tuple((even if shift == 1.0 else bent).tolist())
            assert timesteps(steps, denoise, shift) == want
            if denoise in near or shift == 3.0:
                assert known_timesteps(steps, denoise, shift) == want


SEEDS = [0, 1, 10, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**63 + 1, MAX_SEED - 1, MAX_SEED]


@pytest.mark.parametrize("seed", SEEDS)
def test_every_seed_and_step_has_a_noise_of_its_own(seed: int) -> None:
    for step in range(1001):
        assert generator_seed(seed, Purpose.INITIAL, step) == seed
        for purpose in (Purpose.STEP, Purpose.MASK):
            hashed = hashlib.sha256(f"{seed}/{purpose.value}/{step}".encode()).hexdigest()[:16]
            assert generator_seed(seed, purpose, step) == int(hashed, 16)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shape", [(1, 3, 4), (1, 4, 4), (1, 17, 1), (1, 1, 64), (1, 750, 8)])
def test_noise_of_every_seed_and_size_is_the_generator_s(seed: int, shape: tuple[int, int, int]) -> None:
    for purpose, step in ((Purpose.INITIAL, 0), (Purpose.MASK, 0), (Purpose.STEP, 0), (Purpose.STEP, 999)):
        generator = torch.Generator().manual_seed(generator_seed(seed, purpose, step))
        want = torch.randn(1, shape[2], shape[1], generator=generator).transpose(1, 2)
        assert_bits(noise(seed, purpose, step, shape), want.contiguous())
