"""The sizes, dtypes and device of a ring: the first request of a pipeline fixes them, later requests must match."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from harness.engine import checks, kernels
from harness.engine.config import Padding, PipelineConfig
from harness.engine.errors import InvalidInput, NeedsMask
from harness.engine.executors.base import Executor, declared
from harness.engine.executors.shapes import PreparesShapes, Shape
from harness.engine.request import Condition, Request

LENGTH_MULTIPLE = 64
"""The default encoder length is the length of the longest condition, rounded up to a multiple of this number."""


@dataclass(frozen=True)
class Geometry:
    """The sizes, dtypes and device that all rows of a ring share.

    Attributes:
        encoder_length: the length L in tokens to which every condition is padded.
        encoder_dim: the width E of the encoder states.
        encoder_dtype: the dtype of the encoder states.
        channels: latent channels D.
        context_dtype: the dtype of the context latents.
        device: the device of all tensors.
        equal_lengths: True if conditions must have exactly `encoder_length` tokens and no mask, because the executor
            would attend the padding.
    """

    encoder_length: int
    encoder_dim: int
    encoder_dtype: torch.dtype
    channels: int
    context_dtype: torch.dtype
    device: torch.device
    equal_lengths: bool

    def check(self, request: Request) -> None:
        """Check that `request` matches.

        Raises:
            InvalidInput: device, dtype, width or channels differ from the ring's, or a condition is too long.
            NeedsMask: a condition has another length than `encoder_length`, or a mask, and the executor takes no mask.
        """
        context = request.context_latents
        if request.device != self.device:
            raise InvalidInput("context_latents", f"a tensor on {request.device}", f"{self.device}, the ring's device")
        if context.dtype != self.context_dtype or request.channels != self.channels:
            expected = f"{self.context_dtype} of {2 * self.channels} channels, as the pipeline's first request has"
            raise InvalidInput("context_latents", checks.describe(context), expected)
        for index, condition in enumerate(request.conditions):
            self._check_condition(f"conditions[{index}]", condition)
        for index, condition in enumerate(request.negatives):
            self._check_condition(f"guidance.negatives[{index}]", condition)

    def check_prepared(self, executor: Executor, frames: int) -> None:
        """Check that an executor that runs prepared shapes only has prepared the one of requests of `frames` frames.

        Raises:
            NotPrepared: it has not.
        """
        if isinstance(executor, PreparesShapes):
            sizes = (frames, self.encoder_length, self.channels, self.encoder_dim)
            executor.check_shape(Shape(*sizes, self.encoder_dtype, self.context_dtype))

    def accept(self, request: Request, executor: Executor) -> None:
        """Check that `request` matches, and that the executor can run it.

        Raises:
            InvalidInput: see `check`, `check_widths` and `check_prepared`.
        """
        self.check(request)
        self.check_widths(executor)
        self.check_prepared(executor, request.frames)

    def check_widths(self, executor: Executor) -> None:
        """Check that the widths are those of the executor's decoder, as far as it declares them.

        Raises:
            InvalidInput: they are not.
        """
        widths = declared(executor)
        if widths.channels not in (None, self.channels):
            expected = f"{widths.channels} latent channels, as the decoder has"
            raise InvalidInput("context_latents", f"{self.channels} latent channels", expected)
        if widths.encoder_dim not in (None, self.encoder_dim):
            expected = f"width {widths.encoder_dim}, as the decoder has"
            raise InvalidInput("conditions[0].encoder_hidden_states", f"width {self.encoder_dim}", expected)

    def _check_condition(self, name: str, condition: Condition) -> None:
        field, states = f"{name}.encoder_hidden_states", condition.encoder_hidden_states
        if states.dtype != self.encoder_dtype or states.shape[2] != self.encoder_dim:
            expected = f"{self.encoder_dtype} of width {self.encoder_dim}, as the pipeline's first request has"
            raise InvalidInput(field, checks.describe(states), expected)
        if condition.length > self.encoder_length:
            expected = f"at most encoder_length = {self.encoder_length}, fixed for the pipeline's life"
            raise InvalidInput(field, f"{condition.length} tokens", expected)
        if not self.equal_lengths:
            return
        if condition.length != self.encoder_length:
            expected = (
                f"{self.encoder_length} tokens: the executor takes no mask and would attend the padding "
                "(PipelineConfig(padding='zeros') allows it)"
            )
            raise NeedsMask(field, f"{condition.length} tokens", expected)
        if condition.encoder_mask is not None:
            raise NeedsMask(f"{name}.encoder_mask", "a mask", "None: the executor takes no mask")


def fix(request: Request, config: PipelineConfig, *, takes_mask: bool) -> Geometry:
    """The geometry that the first request of a pipeline fixes. On a GPU, kernels that are not there yet are compiled.

    Args:
        request: the first request.
        config: the pipeline's configuration, whose `encoder_length` has precedence.
        takes_mask: True if the executor takes a mask. If not, and the padding is not `Padding.ZEROS`, the
            encoder length is that of the longest condition, without rounding, and later conditions must have it.
    """
    equal_lengths = not takes_mask and config.padding != Padding.ZEROS
    longest = max(c.length for c in (*request.conditions, *request.negatives))
    rounded = longest if equal_lengths else -(-longest // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
    states = request.conditions[0].encoder_hidden_states
    kernels.prepare(request.device, request.channels)
    return Geometry(
        encoder_length=rounded if config.encoder_length is None else config.encoder_length,
        encoder_dim=states.shape[2],
        encoder_dtype=states.dtype,
        channels=request.channels,
        context_dtype=request.context_latents.dtype,
        device=request.device,
        equal_lengths=equal_lengths,
    )
