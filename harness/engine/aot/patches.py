"""The form of ACE-Step's decoder that is exported: the patch convolutions are written as matrix products.

Kernel size and stride equal the patch size, so each convolution is a linear map of one patch: the same sums in another
order. There are two reasons. TensorRT has no bfloat16 kernel for the transposed convolution. And the bits of ONNX
Runtime's convolutions depend on the number of rows.
"""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import Tensor, nn
from torch.nn import functional

from harness.engine.decoders import AceStepDecoder

M = TypeVar("M", bound=nn.Module)


class PatchIn(nn.Module):
    """A `Conv1d` whose stride equals its kernel size p, as a matrix product: `[N, C, T]` to `[N, H, T/p]`.

    Args:
        convolution: the module to replace; its parameters are shared.
    """

    def __init__(self, convolution: nn.Conv1d) -> None:
        super().__init__()
        self.patch = convolution.kernel_size[0]
        out, width, patch = convolution.weight.shape
        self.weight = convolution.weight.detach().reshape(out, width * patch)
        self.bias = convolution.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, C, T]` to `[N, H, T/p]`."""
        rows, width, frames = x.shape
        patches = x.reshape(rows, width, frames // self.patch, self.patch).transpose(1, 2).flatten(2)
        return functional.linear(patches, self.weight, self.bias).transpose(1, 2)


class PatchOut(nn.Module):
    """A `ConvTranspose1d` whose stride equals its kernel size p, as a matrix product: `[N, H, T/p]` to `[N, D, T]`.

    Args:
        convolution: the module to replace; its parameters are copied in another layout.
    """

    def __init__(self, convolution: nn.ConvTranspose1d) -> None:
        super().__init__()
        self.patch = convolution.kernel_size[0]
        width, out, patch = convolution.weight.shape
        self.out = out
        self.weight = convolution.weight.detach().permute(2, 1, 0).reshape(patch * out, width)
        self.bias = None if convolution.bias is None else convolution.bias.detach().repeat(patch)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, H, T/p]` to `[N, D, T]`."""
        rows, _width, patches = x.shape
        frames = functional.linear(x.transpose(1, 2), self.weight, self.bias)
        return frames.reshape(rows, patches * self.patch, self.out).transpose(1, 2)


def with_linear_patches(decoder: AceStepDecoder) -> AceStepDecoder:
    """A shallow copy of the decoder with its patch convolutions as matrix products.

    Args:
        decoder: the original, which is not changed. Original and copy share all other modules and the mask hook, so
            only one of them may run at a time.
    """
    transformer = _shallow(decoder.transformer)
    for name, make in (("proj_in_conv", PatchIn), ("proj_out_conv", PatchOut)):
        transformer._modules[name] = make(getattr(decoder.transformer, name)).eval()  # noqa: SLF001 - a Module's own dict
    linear = _shallow(decoder)
    linear._modules["transformer"] = transformer  # noqa: SLF001 - a Module's own dict
    return linear


def _shallow(module: M) -> M:
    """A copy of a module that shares the submodules, but not the dictionary that holds them."""
    copied = copy.copy(module)
    copied._modules = dict(module._modules)  # noqa: SLF001 - a Module's own dict
    return copied
