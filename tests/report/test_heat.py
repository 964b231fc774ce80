"""Heat maps: which element has which colour."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from harness.parity.proofs.evidence import Picture
from harness.report.heat import LARGEST, Map, heat

INF, NAN = float("inf"), float("nan")
SAME_BITS = 1


def pixels(shown: Map) -> Any:
    """Indices of the colours, `[frames, channels]`; 0 is not finite, 1 is equal bits."""
    image = Image.open(io.BytesIO(base64.b64decode(shown.source.partition(",")[2])))
    return np.asarray(image)[::-1].T


def distance(got: Tensor, expected: Tensor) -> Any:
    return pixels(heat(Picture("x", got, expected)).maps[2])


def test_an_element_with_equal_bits_has_a_colour_of_its_own_and_frames_and_channels_are_not_mixed_up() -> None:
    expected = torch.zeros(6, 3)
    got = expected.clone()
    got[4, 2] = 1.0
    found = distance(got, expected)
    assert found.shape == (6, 3)
    assert np.argwhere(found != SAME_BITS).tolist() == [[4, 2]]
    made = heat(Picture("x", got, expected))
    assert (made.first, made.mark, made.differing, made.width, made.height) == ((4, 2), (4, 2), 1, 6, 3)


def test_a_larger_distance_is_brighter_over_many_orders_of_magnitude() -> None:
    expected = torch.zeros(1, 4)
    got = torch.tensor([[1e-30, 1e-20, 1e-10, 1.0]])
    found = distance(got, expected)[0].tolist()
    assert found == sorted(set(found)) and len(found) == 4


def test_zeros_of_two_signs_differ() -> None:
    found = distance(torch.tensor([[-0.0, 1.0]]), torch.tensor([[0.0, 1.0]]))
    assert found[0, 0] not in (0, SAME_BITS) and found[0, 1] == SAME_BITS


@pytest.mark.parametrize(("got", "expected"), [(NAN, 1.0), (1.0, NAN), (INF, 1.0), (1.0, -INF), (INF, -INF)])
def test_what_is_not_finite_on_one_side_is_no_distance(got: float, expected: float) -> None:
    found = distance(torch.tensor([[got, 2.0, 5.0]]), torch.tensor([[expected, 1.0, 5.0]]))
    assert found[0].tolist()[0] == 0
    assert found[0, 1] > SAME_BITS and found[0, 2] == SAME_BITS


def test_a_large_tensor_keeps_its_one_differing_element_and_says_where() -> None:
    expected = torch.zeros(1000, 200)
    got = expected.clone()
    got[999, 151] = 1.0
    made = heat(Picture("x", got, expected))
    assert made.width <= LARGEST[0] and made.height <= LARGEST[1]
    found = pixels(made.maps[2])
    assert np.argwhere(found != SAME_BITS).tolist() == [list(made.mark)]
    assert made.first == (999, 151)


def test_both_sides_share_one_scale() -> None:
    made = heat(Picture("x", torch.tensor([[0.0, 8.0]]), torch.tensor([[0.0, 4.0]])))
    expected, got = (pixels(each)[0] for each in made.maps[:2])
    assert expected[1] < got[1]
    assert made.maps[0].scale == made.maps[1].scale == "0 to 8"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_are_shown_too(dtype: torch.dtype) -> None:
    expected = torch.ones(3, 2, dtype=dtype)
    assert (distance(expected * 2, expected) > SAME_BITS).all()


def test_a_zero_of_another_sign_does_not_take_the_scale_of_the_other_distances() -> None:
    got, expected = torch.tensor([[-0.0, 1e-6, 1.0]]), torch.zeros(1, 3)
    alone, beside = distance(got[:, 1:], expected[:, 1:])[0], distance(got, expected)[0]
    assert beside[1:].tolist() == alone.tolist() and alone[1] - alone[0] > 10
    assert beside[0] == alone[0]


@pytest.mark.parametrize(("got", "scale"), [
    ([-0.0, 0.0], "0 (other bits); grey: same bits"),
    ([-0.0, 2.0], "0 (other bits) and 2 to 2, logarithmic; grey: same bits"),
    ([0.5, 2.0], "0.5 to 2, logarithmic; grey: same bits"),
    ([NAN, 0.0], "not finite"),
])  # fmt: skip
def test_the_scale_of_the_distance_names_no_distance_that_is_not_there(got: list[float], scale: str) -> None:
    assert heat(Picture("x", torch.tensor([got]), torch.zeros(1, 2))).maps[2].scale == scale
