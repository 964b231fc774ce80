"""Linear layers with the same input, joined to one product whose weight is the memory of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.engine.errors import InvalidInput


class Joined(nn.Module):
    """One product for several linear layers.

    The weights of the layers lie one behind the other in one memory, and the weight of the product is this memory. So
    there is no copy that could be out of date: what is written to a layer's weight is written to the product's. Where a
    weight was replaced or moved, the next `tie` joins the weights anew.

    Attributes:
        weight: `[sum of outputs, inputs]`, or None before the first `tie`.
        bias: `[sum of outputs]`, or None.
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", None, persistent=False)
        self.register_buffer("bias", None, persistent=False)

    def tie(self, layers: Sequence[tuple[str, nn.Module]]) -> None:
        """Make the product that of `layers`; nothing happens where it is already.

        The parameters stay the same objects with the same values. Their memory moves where it was not joined yet.

        Args:
            layers: names and layers, in the order of the outputs.

        Raises:
            InvalidInput: a module is no plain `nn.Linear`, or the layers do not fit each other.
        """
        for name, layer in layers:
            check_plain(name, layer, nn.Linear)
        weights, biases = (_parameters(part, layers) for part in ("weight", "bias"))
        self.weight = _joined(layers[0][0], self.weight, weights)
        if biases and len(biases) != len(layers):
            raise InvalidInput(layers[0][0], "a bias on some of the layers", "a bias on all or on none")
        self.bias = _joined(layers[0][0], self.bias, biases) if biases else None

    def forward(self, x: Tensor) -> Tensor:
        """The product `[..., sum of outputs]`, for inputs `[..., inputs]`."""
        if self.weight is None:
            raise RuntimeError("the product is not tied to layers")
        return functional.linear(x, self.weight, self.bias)


def check_plain(name: str, module: object, kind: type[nn.Module], hooks: tuple[type, ...] = ()) -> None:
    """Check that nothing changes what a module of `kind` computes, so that its weights alone say it.

    Args:
        name: path of the module, for the message.
        module: the module.
        kind: the class that the module must have; a subclass is another class.
        hooks: classes of hooks before the forward that are allowed.

    Raises:
        InvalidInput: another class, a hook, or a forward of its own.
    """
    expected = f"a plain {kind.__name__}: an acceleration reads its weights (fuse an adapter, or turn the switch off)"
    if not isinstance(module, kind) or type(module) is not kind:
        raise InvalidInput(name, f"a {type(module).__name__}", expected)
    before = [hook for hook in module._forward_pre_hooks.values() if not isinstance(hook, hooks)]  # noqa: SLF001 no public name
    if before or module._forward_hooks or "forward" in vars(module):  # noqa: SLF001 as above
        raise InvalidInput(name, "hooks, or a forward of its own", expected)


def _parameters(part: str, layers: Sequence[tuple[str, nn.Module]]) -> list[Tensor]:
    """The parameters of one name of the layers that have one; quantized ones are refused."""
    found = [(f"{name}.{part}", getattr(layer, part)) for name, layer in layers]
    for name, tensor in found:
        if tensor is not None and type(tensor) not in (nn.Parameter, Tensor):
            raise InvalidInput(name, f"a {type(tensor).__name__}", "a plain tensor")
    return [tensor for _name, tensor in found if tensor is not None]


def _joined(name: str, held: Tensor | None, parts: Sequence[Tensor]) -> Tensor:
    """The memory of all parts, `[sum of rows, ...]`: `held` where it is that, else a new view, else new memory."""
    if held is not None and _is_memory_of(held, parts):
        return held
    first = parts[0]
    if any(each.dtype != first.dtype or each.device != first.device for each in parts):
        raise InvalidInput(name, "weights of several dtypes or devices", "the same for all that are joined")
    if any(each.shape[1:] != first.shape[1:] for each in parts):
        raise InvalidInput(name, "weights of several widths", "the same for all that are joined")
    # Outside inference mode: weights made inside it could not be written to outside of it.
    with torch.inference_mode(False), torch.no_grad():
        shape = (sum(each.shape[0] for each in parts), *first.shape[1:])
        if _is_one_storage(parts):
            whole = first.detach().as_strided(shape, first.stride(), first.storage_offset())
            if _is_memory_of(whole, parts):
                return whole
        whole = torch.cat([each.detach() for each in parts])
        for each, own in zip(parts, torch.split(whole, [each.shape[0] for each in parts]), strict=True):
            each.data = own
    return whole


def _is_one_storage(parts: Sequence[Tensor]) -> bool:
    storages = {each.untyped_storage()._cdata for each in parts}  # noqa: SLF001 torch has no public identity
    storage = parts[0].untyped_storage()
    room = storage.data_ptr() + storage.nbytes() - parts[0].data_ptr()
    return len(storages) == 1 and sum(each.nbytes for each in parts) <= room


def _is_memory_of(whole: Tensor, parts: Sequence[Tensor]) -> bool:
    """Say whether `whole` is exactly the memory of the parts, in their order. `whole` keeps it from being reused."""
    starts = accumulate((each.nbytes for each in parts), initial=whole.data_ptr())
    return whole.shape[0] == sum(each.shape[0] for each in parts) and all(
        each.data_ptr() == start and each.dtype == whole.dtype and each.is_contiguous()
        and each.shape[1:] == whole.shape[1:] and each.device == whole.device
        for each, start in zip(parts, starts, strict=False)
    )  # fmt: skip
