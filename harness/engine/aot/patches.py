"""The decoder that is exported: ACE-Step's, its patch convolutions written as matrix products.

Kernel, stride and patch are one size, so each is a linear map of a patch: the same sums in another order. TensorRT has
no bfloat16 kernel for the transposed convolution, and ONNX Runtime's bits depend on the batch where it uses the others.
"""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import Tensor, nn
from torch.nn import functional

from harness.engine.decoders import AceStepDecoder

M = TypeVar("M", bound=nn.Module)


class PatchIn(nn.Module):
    """A `Conv1d` whose kernel is its stride: `[N, C, T]` to `[N, H, T/p]`.

    Args:
        convolution: the module it stands for; its parameters are shared.
    """

    def __init__(self, convolution: nn.Conv1d) -> None:
        """See the class."""
        super().__init__()
        self.patch = convolution.kernel_size[0]
        out, width, patch = convolution.weight.shape
        self.weight = convolution.weight.detach().reshape(out, width * patch)
        self.bias = convolution.bias

    def forward(self, x: Tensor) -> Tensor:
        """The convolution."""
        rows, width, frames = x.shape
        patches = x.reshape(rows, width, frames // self.patch, self.patch).transpose(1, 2).flatten(2)
        return functional.linear(patches, self.weight, self.bias).transpose(1, 2)


class PatchOut(nn.Module):
    """A `ConvTranspose1d` whose kernel is its stride: `[N, H, T/p]` to `[N, D, T]`.

    Args:
        convolution: the module it stands for.
    """

    def __init__(self, convolution: nn.ConvTranspose1d) -> None:
        """See the class."""
        super().__init__()
        self.patch = convolution.kernel_size[0]
        width, out, patch = convolution.weight.shape
        self.out = out
        self.weight = convolution.weight.detach().permute(2, 1, 0).reshape(patch * out, width)
        self.bias = None if convolution.bias is None else convolution.bias.detach().repeat(patch)

    def forward(self, x: Tensor) -> Tensor:
        """The transposed convolution."""
        rows, _width, patches = x.shape
        frames = functional.linear(x.transpose(1, 2), self.weight, self.bias)
        return frames.reshape(rows, patches * self.patch, self.out).transpose(1, 2)


def with_linear_patches(decoder: AceStepDecoder) -> AceStepDecoder:
    """The decoder with its patch convolutions as matrix products; it shares everything else and changes nothing of it.

    Args:
        decoder: left as it is. The two run one call at a time, as one decoder does.
    """
    transformer = _shallow(decoder.transformer)
    for name, make in (("proj_in_conv", PatchIn), ("proj_out_conv", PatchOut)):
        transformer._modules[name] = make(getattr(decoder.transformer, name)).eval()  # noqa: SLF001 - a Module's own dict
    linear = _shallow(decoder)
    linear._modules["transformer"] = transformer  # noqa: SLF001 - a Module's own dict
    return linear


def _shallow(module: M) -> M:
    """A copy with a dictionary of submodules of its own."""
    copied = copy.copy(module)
    copied._modules = dict(module._modules)  # noqa: SLF001 - a Module's own dict
    return copied
