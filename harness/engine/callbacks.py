"""Calls of a request's callbacks, whose failures are the request's own."""

from __future__ import annotations

from harness.engine.errors import CallbackFailed, InvalidInput
from harness.engine.request import LatentMask


def strength(latent_mask: LatentMask, step: int, total: int) -> float:
    """Return the factor in [0, 1] of a latent mask at `step` of `total`.

    Raises:
        CallbackFailed: `strength_at` raised an exception, or returned anything but a number in [0, 1]. An interrupt and
            other exceptions that are no `Exception` are passed on.
    """
    try:
        return latent_mask.strength_in_force(step, total)
    except InvalidInput as error:
        raise CallbackFailed(str(error)) from error
    except Exception as error:
        raised = f"latent_mask.strength_at({step}, {total}): raised {type(error).__name__}: {error}"
        raise CallbackFailed(raised) from error
