"""Tensors of a request that the pipelines of a lockstep share, and the writes to them."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from harness.engine.request import Request
from harness.engine.versions import version
from harness.parity.compare import digest_tree


def inputs_of(name: str, request: Request) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a request that the engine does not copy, with a name that starts with `name`."""
    yield f"{name}'s context_latents", request.context_latents
    for number, condition in enumerate((*request.conditions, *request.negatives)):
        yield f"{name}'s condition {number}", condition.encoder_hidden_states
    if request.source is not None:
        yield f"{name}'s source", request.source
    if request.x0_target is not None:
        yield f"{name}'s x0_target", request.x0_target.latent
    if request.latent_mask is not None:
        yield f"{name}'s latent_mask", request.latent_mask.original


def writes(tensor: Tensor) -> int | str:
    """Something that every write to a tensor changes: the number of writes.

    Torch does not count the writes to an inference tensor, so the digest of its content stands for the number.
    """
    counted = version(tensor)
    return digest_tree({"": tensor}) if counted is None else counted
