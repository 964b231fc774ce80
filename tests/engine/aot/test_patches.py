from __future__ import annotations

import pytest
import torch
from torch import nn

from harness.engine.aot.patches import PatchIn, PatchOut, with_linear_patches
from harness.engine.decoders import AceStepDecoder
from tests.engine.aot.exports import inputs


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("patch", [2, 3])
def test_a_convolution_whose_kernel_is_its_stride_is_a_product_of_matrices(patch: int, bias: bool) -> None:
    torch.manual_seed(0)
    into = nn.Conv1d(5, 7, patch, stride=patch, bias=bias).double()
    out = nn.ConvTranspose1d(7, 5, patch, stride=patch, bias=bias).double()
    x, y = torch.randn(2, 5, 4 * patch).double(), torch.randn(2, 7, 4).double()
    torch.testing.assert_close(PatchIn(into)(x), into(x), rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(PatchOut(out)(y), out(y), rtol=1e-14, atol=1e-14)


def test_the_decoder_itself_is_left_as_it_was() -> None:
    decoder = AceStepDecoder.preset("tiny")
    before, keys = dict(decoder.transformer._modules), list(decoder.state_dict())
    linear = with_linear_patches(decoder)
    assert dict(decoder.transformer._modules) == before
    assert list(decoder.state_dict()) == keys
    assert linear.transformer.layers is decoder.transformer.layers
    assert isinstance(decoder.transformer.proj_in_conv, nn.Conv1d)
    assert isinstance(decoder.transformer.proj_out_conv, nn.ConvTranspose1d)
    assert isinstance(linear.transformer.proj_in_conv, PatchIn)
    assert isinstance(linear.transformer.proj_out_conv, PatchOut)


def test_both_decoders_give_the_same_velocity_within_the_rounding_of_rotary_embedding() -> None:
    decoder = AceStepDecoder.preset("tiny", dtype=torch.float64)
    given = {n: t.double() if t.is_floating_point() else t for n, t in inputs(decoder, 3, 12, 9).items()}
    # Which diffusers computes in float32 whatever the model's dtype.
    torch.testing.assert_close(with_linear_patches(decoder)(**given), decoder(**given), rtol=0, atol=2e-6)


def test_what_is_traced_asks_for_no_gradient() -> None:
    out = PatchOut(nn.ConvTranspose1d(7, 5, 2, stride=2))
    assert out.bias is not None
    assert not out.weight.requires_grad and not out.bias.requires_grad
