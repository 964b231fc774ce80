"""Products that are joined: one memory for several weights, whatever happens to the weights."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.testing._internal.two_tensor import TwoTensor

from harness.engine.decoders.joined import Joined
from harness.engine.errors import InvalidInput
from harness.parity.compare import assert_identical


class Three(nn.Module):
    """Three layers of unequal widths with one input, as queries, keys and values are."""

    def __init__(self, bias: bool = False) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(16, width, bias=bias) for width in (32, 8, 8))
        self.requires_grad_(False)

    def layers(self) -> list[tuple[str, nn.Module]]:
        return list(self.named_children())

    def plain(self, x: Tensor) -> Tensor:
        """The product with a fresh copy of the weights as they are."""
        biases = [each.bias for each in (self.a, self.b, self.c) if each.bias is not None]
        weight = torch.cat([self.a.weight, self.b.weight, self.c.weight])
        return functional.linear(x, weight, torch.cat(biases) if biases else None)


def drawn(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(5, 16, generator=torch.Generator().manual_seed(1)).to(dtype)


def tied(bias: bool = False) -> tuple[Three, Joined]:
    torch.manual_seed(0)
    three, joined = Three(bias), Joined()
    joined.tie(three.layers())
    return three, joined


@pytest.mark.parametrize("bias", [False, True])
def test_joining_changes_neither_values_nor_parameters(bias: bool) -> None:
    torch.manual_seed(0)
    three = Three(bias)
    before, kept = copy.deepcopy(three.state_dict()), list(three.parameters())
    joined = Joined()
    joined.tie(three.layers())
    assert_identical(dict(three.state_dict()), dict(before), "values")
    assert all(a is b for a, b in zip(three.parameters(), kept, strict=True))
    assert_identical(joined(drawn()), three.plain(drawn()))


def test_there_is_one_memory() -> None:
    three, joined = tied(bias=True)
    assert joined.weight is not None and joined.bias is not None
    assert {each.weight.untyped_storage().data_ptr() for each in three.children()} == {
        joined.weight.untyped_storage().data_ptr()
    }
    assert joined.weight.untyped_storage().nbytes() == sum(each.weight.nbytes for each in three.children())
    assert list(joined.state_dict()) == []


def test_a_second_tie_changes_nothing_and_a_second_product_takes_the_same_memory() -> None:
    three, joined = tied()
    weight = joined.weight
    joined.tie(three.layers())
    assert joined.weight is weight
    other = Joined()
    other.tie(three.layers())
    assert other.weight is not None and weight is not None
    assert other.weight.data_ptr() == weight.data_ptr()


def lora(three: Three) -> None:
    three.b.weight.data += 0.5


def swapped(three: Three) -> None:
    """Two weights of one shape exchange their memory, which stays the same as a whole."""
    three.b.weight.data, three.c.weight.data = three.c.weight.data, three.b.weight.data


CHANGES: dict[str, Callable[[Three], object]] = {
    "written in place": lambda three: three.a.weight.mul_(2),
    "written through data": lora,
    "loaded": lambda three: three.load_state_dict(Three().state_dict()),
    "loaded by assignment": lambda three: three.load_state_dict(Three().state_dict(), assign=True),
    "cast": lambda three: three.to(torch.float64),
    "cast there and back": lambda three: three.to(torch.bfloat16).to(torch.float32),
    "another parameter": lambda three: setattr(
        three.b, "weight", nn.Parameter(three.b.weight * 3, requires_grad=False)
    ),
    "another layer": lambda three: setattr(three, "c", nn.Linear(16, 8, bias=False).requires_grad_(False)),
    "memory exchanged": swapped,
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changed_the_product_is_that_of_the_weights_as_they_are(change: str) -> None:
    three, joined = tied()
    before = joined(drawn())
    CHANGES[change](three)
    joined.tie(three.layers())
    x = drawn(three.a.weight.dtype)
    assert_identical(joined(x), three.plain(x), change)
    assert not torch.equal(joined(x), before.to(x.dtype))


@pytest.mark.parametrize("change", ["written in place", "written through data", "loaded"])
def test_what_is_written_to_a_weight_needs_no_tie(change: str) -> None:
    three, joined = tied()
    CHANGES[change](three)
    assert_identical(joined(drawn()), three.plain(drawn()), change)


def test_a_deep_copy_is_apart() -> None:
    both = nn.ModuleList(tied())
    three, joined = copy.deepcopy(both)
    assert isinstance(three, Three) and isinstance(joined, Joined)
    three.a.weight.mul_(2)
    joined.tie(three.layers())
    assert_identical(joined(drawn()), three.plain(drawn()))
    own, product = both
    assert_identical(product(drawn()), own.plain(drawn()))


def test_a_bias_that_is_taken_away_is_not_added() -> None:
    three, joined = tied(bias=True)
    for each in three.children():
        each.bias = None
    joined.tie(three.layers())
    assert_identical(joined(drawn()), three.plain(drawn()))


def test_weights_joined_in_inference_mode_can_be_written_outside_of_it() -> None:
    three, joined = Three(), Joined()
    with torch.inference_mode():
        joined.tie(three.layers())
    three.a.weight.mul_(2)
    assert_identical(joined(drawn()), three.plain(drawn()))


def test_weights_that_lie_side_by_side_in_another_order_are_joined_anew() -> None:
    three, joined = tied()
    turned = [*three.layers()[::-1]]
    joined.tie(turned)
    assert_identical(joined(drawn()), functional.linear(drawn(), torch.cat([each.weight for _name, each in turned])))


class Adapter(nn.Linear):
    """A layer that computes something else than its weight says."""


def hooked(three: Three) -> None:
    three.b.register_forward_hook(lambda _module, _inputs, made: made * 2)


def before(three: Three) -> None:
    three.b.register_forward_pre_hook(lambda _module, _inputs: None)


def overridden(three: Three) -> None:
    three.b.forward = lambda x: x


def quantized(three: Three) -> None:
    weight = three.b.weight
    three.b.weight = nn.Parameter(TwoTensor(weight.detach(), weight.detach()), requires_grad=False)


@pytest.mark.parametrize(
    "change",
    [lambda three: setattr(three, "b", Adapter(16, 8)), hooked, before, overridden, quantized],
    ids=["subclass", "hook", "hook before", "forward", "quantized"],
)
def test_a_layer_that_is_not_its_weight_is_refused_by_name(change: Callable[[Three], object]) -> None:
    three, joined = tied()
    change(three)
    with pytest.raises(InvalidInput, match=r"^b"):
        joined.tie(three.layers())


@pytest.mark.parametrize(
    "other", [nn.Linear(16, 8), nn.Linear(8, 8, bias=False), nn.Linear(16, 8, bias=False).to(torch.bfloat16)]
)
def test_layers_that_do_not_fit_are_refused(other: nn.Linear) -> None:
    three, joined = tied()
    three.c = other
    with pytest.raises(InvalidInput, match=r"^a"):
        joined.tie(three.layers())


def test_a_product_without_layers_is_no_product() -> None:
    with pytest.raises(RuntimeError, match="not tied"):
        Joined()(drawn())
