"""Every formula of the engine's numerics once more, in NumPy float64 and with nothing of the engine in it.

The engine and its oracle share their formula modules, so a wrong formula would be wrong in both; this file is what they
are held against. It favours the shape of the written formula over speed: one line a formula, arrays `[1, T, D]`, time
along axis 1, scalars as Python floats. Nothing here rounds to float32.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import pywt
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

TIME = 1
DIVISION_GUARD = 1e-12


def f64(values: ArrayLike) -> Array:
    """The values as a float64 array."""
    return np.asarray(values, dtype=np.float64)


# Schedule


def shifted(t: Array, shift: float) -> Array:
    """The time shift of flow matching models: 0 and 1 stay where they are."""
    return t if shift == 1 else shift * t / (1 + (shift - 1) * t)


def schedule(steps: int, shift: float, denoise: float = 1.0) -> Array:
    """The times of a request, `steps + 1` of them from noise to clean, or `[0, 0]` when there is nothing to denoise."""
    if denoise <= 1e-6:
        return np.zeros(2)
    start = 1.0 if denoise >= 1 else steps / int(steps / denoise)
    return shifted(start * (1 - np.arange(steps + 1) / steps), shift)


# Seeds


def purpose_seed(seed: int, purpose: str, step: int = 0) -> int:
    """The generator seed of a draw: the request's own for the initial noise, eight digest bytes for the others."""
    if purpose == "initial":
        return seed
    digest = hashlib.sha256(f"{seed}/{purpose}/{step}".encode()).digest()
    return sum(byte << (8 * place) for place, byte in enumerate(reversed(digest[:8])))


# Initial state


def initial_state(
    noise: Array,
    source: Array | None = None,
    curve: ArrayLike | None = None,
    denoise: float = 1.0,
    t_first: float = 1.0,
) -> Array:
    """The latent a slot starts from."""
    if curve is not None and source is not None:
        return f64(curve) * noise + (1 - f64(curve)) * source
    if source is not None and denoise < 1:
        return t_first * noise + (1 - t_first) * source
    return noise


# Decoder input and velocity


def preblend(x: Array, mask: Array, original: Array, mask_noise: Array, t: float) -> Array:
    """Outside the mask the state is the original, noised to the current time."""
    return mask * x + (1 - mask) * (t * mask_noise + (1 - t) * original)


def weighted_mean(velocities: Sequence[Array], weights: Sequence[ArrayLike | None]) -> Array:
    """The velocities of a slot's active conditions, mixed frame by frame; a single one is taken as it is."""
    if len(velocities) == 1:
        return velocities[0]
    full = [np.ones((1, 1, 1)) if weight is None else f64(weight) for weight in weights]
    total = sum(v * w for v, w in zip(velocities, full, strict=True))
    return total / np.maximum(sum(full), 1e-8)


# Guidance


def channel_norm(values: Array) -> Array:
    """Euclidean norm over the frames, one for each channel: `[1, 1, D]`."""
    return np.sqrt(np.sum(values * values, axis=TIME, keepdims=True))


def moving_average(v_pos: Array, v_neg: Array, avg: Array | float, momentum: float) -> Array:
    """The running guidance direction, starting at 0."""
    return (v_pos - v_neg) + momentum * avg


def clipped(avg: Array, threshold: float | None) -> Array:
    """The direction, no longer than the threshold in any channel."""
    if threshold is None:
        return avg
    norm = channel_norm(avg)
    inside = norm <= threshold
    return np.where(inside, avg, avg * (threshold / np.where(inside, 1.0, norm)))


def parallel_part(direction: Array, v_pos: Array) -> Array:
    """The share of the direction that lies along the positive velocity, per channel."""
    unit = v_pos / np.maximum(channel_norm(v_pos), DIVISION_GUARD)
    return np.sum(direction * unit, axis=TIME, keepdims=True) * unit


def guided(
    v_pos: Array,
    v_neg: Array,
    avg: Array | float,
    *,
    scale: float,
    momentum: float,
    threshold: float | None,
    eta: float,
) -> tuple[Array, Array]:
    """Adaptive projected guidance: the guided velocity and the running average to keep."""
    avg = moving_average(v_pos, v_neg, avg, momentum)
    direction = clipped(avg, threshold)
    par = parallel_part(direction, v_pos)
    return v_pos + (scale - 1) * ((direction - par) + eta * par), avg


def rescaled(v: Array, v_pos: Array, k: float) -> Array:
    """Pull the guided velocity's channel norms towards those of the positive one."""
    level = v * (channel_norm(v_pos) / np.maximum(channel_norm(v), DIVISION_GUARD))
    return k * level + (1 - k) * v


# Step


def euler(x: Array, v: Array, t: float, s: float, vs: ArrayLike = 1.0) -> Array:
    """One explicit step from time t to time s."""
    return x + (s - t) * (v * f64(vs))


def inject(x: Array, z: Array, on: ArrayLike, s: float) -> Array:
    """Fresh noise after a deterministic step, in proportion to the time left."""
    return x + z * f64(on) * s


def clean_estimate(x: Array, v: Array, t: float, vs: ArrayLike = 1.0) -> Array:
    """The clean latent that the velocity points at."""
    return x - t * (v * f64(vs))


def masked_edit(x0: Array, mask: Array, original: Array) -> Array:
    """Outside the mask the estimate is the original."""
    return mask * x0 + (1 - mask) * original


def target_edit(x0: Array, a: ArrayLike, target: Array) -> Array:
    """The estimate, pulled towards a target."""
    return (1 - f64(a)) * x0 + f64(a) * target


def edited_x0(
    x0: Array,
    mask: tuple[Array, Array] | None = None,
    target: tuple[ArrayLike, Array] | None = None,
) -> Array:
    """The estimate after the mask's edit `(mask, original)`, then the target's `(a, target)`."""
    if mask is not None:
        x0 = masked_edit(x0, *mask)
    if target is not None:
        x0 = target_edit(x0, *target)
    return x0


def edited_step(x: Array, x0: Array, t: float, s: float) -> Array:
    """A deterministic step along the line through the state and an edited estimate."""
    return x0 if s == 0 else x + ((s - t) / t) * (x - x0)


def sde_step(x0: Array, z: Array | None, s: float) -> Array:
    """Noise the estimate anew; at the last step it is the result."""
    return x0 if s == 0 else s * z + (1 - s) * x0


def sde_curve_step(x0: Array, source: Array, z: Array | None, s: float, q: ArrayLike) -> Array:
    """Noise the estimate and the source anew, and mix the two by the curve; the last step mixes them as they are."""
    q = f64(q)
    if s == 0:
        return q * x0 + (1 - q) * source
    return q * (s * z + (1 - s) * x0) + (1 - q) * (s * z + (1 - s) * source)


# When edits act


def strength_acts(step: int, total: int, t: float) -> bool:
    """A plain target strength acts in the second half, never at time 0."""
    return step >= total // 2 and t > 0


def gate_ramp(step: int, total: int, gate: float) -> float:
    """How open the gate of a target's curve is: 0 up to `gate` of the way, then rising in a line to 1."""
    progress = step / max(total - 1, 1)
    return max(0.0, progress - gate) / max(1 - gate, 1e-6)


# Wavelet correction


def resampled(curve: Array, length: int) -> Array:
    """A curve `[1, n, 1]` read at the centres of `length` equal cells, linear between its own cells' centres."""
    values = f64(curve)[0, :, 0]
    out = np.empty(length)
    for index in range(length):
        place = min(max((index + 0.5) * len(values) / length - 0.5, 0.0), len(values) - 1.0)
        left = int(np.floor(place))
        right = min(left + 1, len(values) - 1)
        out[index] = values[left] + (place - left) * (values[right] - values[left])
    return out.reshape(1, length, 1)


def band_scaler(scaler: ArrayLike, length: int) -> Array:
    """A scaler as it meets a band of that length: a number as it is, a curve resampled."""
    values = f64(scaler)
    return values if values.size == 1 else resampled(values, length)


def dwt(x: Array, wavelet: str) -> tuple[Array, Array]:
    """One level along the frames, zeros outside: the low and the high band, `[1, (T + taps - 1) // 2, D]` each."""
    low, high = pywt.dwt(x, wavelet, mode="zero", axis=TIME)
    return low, high


def idwt(low: Array, high: Array, wavelet: str, frames: int) -> Array:
    """The signal of the bands, cut to its frames."""
    return pywt.idwt(low, high, wavelet, mode="zero", axis=TIME)[:, :frames]


def _low_term(t: float, a: ArrayLike) -> Callable[[Array, Array], Array]:
    return lambda xb, yb: xb + t * band_scaler(a, xb.shape[TIME]) * (xb - yb)


def _high_term(t: float, a: ArrayLike) -> Callable[[Array, Array], Array]:
    return lambda xb, yb: xb + (1 - t) * band_scaler(a, xb.shape[TIME]) * (xb - yb)


def _keep(xb: Array, _: Array) -> Array:
    return xb


def dcw(
    stepped: Array, x: Array, v: Array, t: float, *, mode: str, a: ArrayLike, b: ArrayLike = 0.0, wavelet: str = "haar"
) -> Array:
    """Differential correction of a stepped state by the estimate `y = x - t*v` of the state it came from."""
    if t == 0:
        return stepped
    y = x - t * v
    if mode == "pix":
        return stepped + f64(a) * (stepped - y)
    low_term, high_term = {
        "low": (_low_term(t, a), _keep),
        "high": (_keep, _high_term(t, a)),
        "double": (_low_term(t, a), _high_term(t, b)),
    }[mode]
    (xl, xh), (yl, yh) = dwt(stepped, wavelet), dwt(y, wavelet)
    return idwt(low_term(xl, yl), high_term(xh, yh), wavelet, stepped.shape[TIME])
