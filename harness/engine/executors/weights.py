"""The weights that recorded runs read: where they are, and a hold on their memory."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from harness.engine.decoders.base import Decoder


class Weights:
    """The weights and buffers of a decoder. One that is no module names none.

    Args:
        decoder: the decoder.

    Attributes:
        held: every tensor whose memory is held.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.held: list[Tensor] = []
        self._decoder = decoder

    def addresses(self) -> list[tuple[object, ...]] | None:
        """Name, address, dtype, shape and strides of each; None for a decoder that is no module."""
        if not isinstance(self._decoder, nn.Module):
            return None
        return [(name, t.data_ptr(), t.dtype, t.shape, t.stride()) for name, t in self._tensors()]

    def hold(self) -> None:
        """Hold the memory of the weights as they are now, beside what is held already."""
        held = {each.untyped_storage()._cdata for each in self.held}  # noqa: SLF001 torch has no public identity
        for _name, each in self._tensors():
            if each.untyped_storage()._cdata not in held:  # noqa: SLF001 as above
                self.held.append(each.detach())

    def let_go(self) -> None:
        """Hold nothing any more."""
        self.held.clear()

    def _tensors(self) -> list[tuple[str, Tensor]]:
        if not isinstance(self._decoder, nn.Module):
            return []
        named = [*self._decoder.named_parameters(), *self._decoder.named_buffers()]
        return [each for name, tensor in named for each in _plain(name, tensor)]


def _plain(name: str, tensor: Any) -> list[tuple[str, Tensor]]:
    """The tensors with memory of their own that a tensor is made of, as a quantized one is."""
    if not is_traceable_wrapper_subclass(tensor):
        return [(name, tensor)]
    inner, _context = tensor.__tensor_flatten__()
    return [each for part in inner for each in _plain(f"{name}.{part}", getattr(tensor, part))]
