"""One denoising step of flow matching: `x = t*noise + (1-t)*x0`, velocity `v = noise - x0`, times from 1 to 0."""

from __future__ import annotations

from torch import Tensor


def euler(x: Tensor, v: Tensor, t: float, s: float) -> Tensor:
    """Euler's step along the velocity: `x + (s-t)*v`, two roundings, never a fused multiply-add."""
    return x + (s - t) * v


def denoised(x: Tensor, v: Tensor, t: float) -> Tensor:
    """The clean estimate `x0 = x - t*v` at time `t`."""
    return x - t * v


def euler_through(x: Tensor, x0: Tensor, t: float, s: float) -> Tensor:
    """Euler's step along the velocity of an edited clean estimate: `x + ((s-t)/t)*(x - x0)`; `x0` at `s = 0`."""
    if s == 0.0:
        return x0
    return x + ((s - t) / t) * (x - x0)


def inject(x: Tensor, noise: Tensor, amount: Tensor, s: float) -> Tensor:
    """Fresh noise on the stepped state: `x + noise*amount*s`."""
    return x + noise * amount * s


def renoised(x0: Tensor, noise: Tensor, s: float) -> Tensor:
    """The clean estimate at noise level `s`: `s*noise + (1-s)*x0`."""
    return s * noise + (1.0 - s) * x0


def sde(x0: Tensor, noise: Tensor | None, s: float) -> Tensor:
    """The SDE step: denoise fully, then noise again to `s`; `noise` is None exactly at `s = 0`."""
    if noise is None:
        return x0
    return renoised(x0, noise, s)


def sde_curve(x0: Tensor, source: Tensor, noise: Tensor | None, amount: Tensor, s: float) -> Tensor:
    """The SDE step between the clean estimate and a source.

    `q*(s*z + (1-s)*x0) + (1-q)*(s*z + (1-s)*source)` with `q` = `amount`; without the `z` terms at `s = 0`, where
    `noise` is None.
    """
    if noise is None:
        return amount * x0 + (1 - amount) * source
    return amount * renoised(x0, noise, s) + (1 - amount) * renoised(source, noise, s)
