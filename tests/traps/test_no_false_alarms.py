"""What is the same passes: a comparator that cries wolf is switched off."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from harness.parity.compare import assert_identical, difference, digest, identical
from tests.traps.defects import NAN_WITH_PAYLOAD, bits, latent

EXPANDED = torch.arange(3.0).expand(4, 3)
SAME: dict[str, tuple[Tensor, Tensor]] = {
    "NaNs with one payload": (bits(NAN_WITH_PAYLOAD, 0), bits(NAN_WITH_PAYLOAD, 0)),
    "signalling NaNs": (bits(0x7F800001), bits(0x7F800001)),
    "negative zeros": (torch.tensor([-0.0]), torch.tensor([-0.0])),
    "infinities": (torch.tensor([torch.inf, -torch.inf]), torch.tensor([torch.inf, -torch.inf])),
    "a transposed copy": (latent().transpose(1, 2).contiguous().transpose(1, 2), latent()),
    "every second element": (torch.arange(8.0)[::2], torch.tensor([0.0, 2.0, 4.0, 6.0])),
    "an expanded tensor": (EXPANDED, EXPANDED.clone(memory_format=torch.contiguous_format)),
    "an offset into a buffer": (latent()[2:], latent()[2:].clone()),
    "one element with an odd stride": (torch.zeros(10)[::5][:1], torch.zeros(1)),
    "a scalar": (torch.tensor(1.5), torch.tensor(1.5)),
    "requires_grad": (latent().requires_grad_(), latent()),
    "a parameter": (torch.nn.Parameter(latent()), latent()),
    "the result of a graph": (latent().requires_grad_() * 1, latent()),
    "a resolved conjugation": (torch.tensor([1 + 2j]).conj(), torch.tensor([1 - 2j])),
    "bool": (torch.tensor([True, False]), torch.tensor([True, False])),
    "a transposed complex copy": (torch.tensor([[1j, 2], [3, 4]]).t(), torch.tensor([[1j, 3], [2, 4]])),
    "channels last": (torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last), torch.ones(2, 3, 4, 5)),
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_values_pass_whatever_holds_them(name: str) -> None:
    actual, expected = SAME[name]
    assert difference(actual, expected) is None
    assert difference(expected, actual) is None
    assert_identical(actual, expected)
    assert identical(actual, expected)
    assert digest(actual) == digest(expected)


def test_a_tensor_made_in_inference_mode_passes() -> None:
    with torch.inference_mode():
        made = latent()
    assert_identical(made, latent())


def test_an_empty_tensor_beside_a_full_one_passes() -> None:
    assert_identical({"x": latent(), "history": torch.zeros(0, 4)}, {"x": latent(), "history": torch.zeros(0, 4)})


def test_none_beside_a_tensor_passes() -> None:
    assert_identical({"x": latent(), "avg": None}, {"x": latent(), "avg": None})


def test_the_order_of_keys_is_not_compared() -> None:
    assert_identical({"a": latent(1), "b": latent(2)}, {"b": latent(2), "a": latent(1)})


def test_a_list_passes_for_a_tuple() -> None:
    assert_identical([latent(), (latent(),)], (latent(), [latent()]))


def test_a_flushing_processor_mode_does_not_blind_the_verdict() -> None:
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor has no such mode")
    try:
        assert difference(bits(0), bits(1)) is not None
        assert difference(bits(1), bits(1)) is None
    finally:
        torch.set_flush_denormal(False)
