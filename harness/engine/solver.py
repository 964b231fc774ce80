"""One denoising step of flow matching: `x = t*noise + (1-t)*x0`, velocity `v = noise - x0`, times from 1 to 0."""

from __future__ import annotations

from torch import Tensor


def euler(x: Tensor, v: Tensor, t: float, s: float) -> Tensor:
    """Euler's step along the velocity from `t` to `s`: `x + (s-t)*v`, with two roundings, not a fused multiply-add."""
    return x + (s - t) * v


def denoised(x: Tensor, v: Tensor, t: float) -> Tensor:
    """The clean estimate `x0 = x - t*v` at time `t`."""
    return x - t * v


def euler_through(x: Tensor, x0: Tensor, t: float, s: float) -> Tensor:
    """Euler's step from `t` to `s` with an edited clean estimate: `x + ((s-t)/t)*(x - x0)`; `x0` itself at `s = 0`."""
    if s == 0.0:
        return x0
    return x + ((s - t) / t) * (x - x0)


def inject(x: Tensor, noise: Tensor, amount: Tensor, s: float) -> Tensor:
    """The stepped state with added noise: `x + noise*amount*s`."""
    return x + noise * amount * s


def renoised(x0: Tensor, noise: Tensor, s: float) -> Tensor:
    """The clean estimate at noise level `s`: `s*noise + (1-s)*x0`."""
    return s * noise + (1.0 - s) * x0


def sde(x0: Tensor, noise: Tensor | None, s: float) -> Tensor:
    """The SDE step: denoise completely, then add noise of level `s`. Pass None for `noise` exactly if `s = 0`."""
    if noise is None:
        return x0
    return renoised(x0, noise, s)


def sde_curve(x0: Tensor, source: Tensor, noise: Tensor | None, amount: Tensor, s: float) -> Tensor:
    """The SDE step to a mixture of the clean estimate and a source.

    The formula is `q*(s*z + (1-s)*x0) + (1-q)*(s*z + (1-s)*source)`, with `q` = `amount` and `z` = `noise`. At `s = 0`
    pass None for `noise`; the `z` terms are then omitted.

    Args:
        x0: the clean estimate `[1, T, D]`.
        source: the source latent `[1, T, D]`.
        noise: `[1, T, D]`, or None.
        amount: `[1, T, 1]` or `[1, 1, 1]`; 1 is the clean estimate, 0 the source.
        s: the time after the step, in [0, 1].
    """
    if noise is None:
        return amount * x0 + (1 - amount) * source
    return amount * renoised(x0, noise, s) + (1 - amount) * renoised(source, noise, s)
