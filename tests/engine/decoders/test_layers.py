"""A decoder whose layers are changed without a change of the decoder itself, and the block in which it is traced."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName, attention_backend
from diffusers.models.transformers import ace_step_transformer
from torch import Tensor, nn

from harness.engine.decoders import AceStepDecoder
from harness.engine.executors import Shape
from harness.parity.compare import assert_identical

DIFFUSERS = ace_step_transformer._get_current_attention_backend


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(name="tiny")
def _tiny() -> AceStepDecoder:
    return AceStepDecoder.preset("tiny", 0)


def inputs(rows: int = 2, tokens: int = 6) -> dict[str, Tensor]:
    return Shape(10, tokens, 8, 32).example(rows, torch.device("cpu")).tensors()


def unchanged(_layer: nn.Module) -> None:
    """Change nothing."""


# Layers.


def test_each_layer_is_given_as_a_copy_once_and_in_order(tiny: AceStepDecoder) -> None:
    given: list[nn.Module] = []
    twin = tiny.with_layers(given.append)
    layers = list(tiny.transformer.layers)
    assert len(given) == len(layers) == 2
    assert [each is not layer for each, layer in zip(given, layers, strict=True)] == [True, True]
    assert [type(each) for each in given] == [type(layer) for layer in layers]
    assert list(twin.transformer.layers) == given
    assert twin is not tiny and twin.transformer is not tiny.transformer
    assert list(tiny.transformer.layers) == layers


def test_the_copies_make_the_bits_of_the_decoder_with_every_mask(tiny: AceStepDecoder) -> None:
    twin = tiny.with_layers(unchanged)
    for rows, tokens in ((1, 6), (3, 12)):
        given = inputs(rows, tokens)
        assert_identical(twin(**given), tiny(**given))
        other = given | {"encoder_mask": given["encoder_mask"].roll(1, 1)}
        assert_identical(twin(**other), tiny(**other))
        assert rows == 1 or not torch.equal(twin(**other), twin(**given)), "the mask acts"


def test_on_a_gpu_the_hidden_states_of_every_layer_are_contiguous(
    tiny: AceStepDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def watch(layer: nn.Module) -> None:
        layer._forward_pre_hooks = OrderedDict(layer._forward_pre_hooks)
        layer.register_forward_pre_hook(
            lambda _layer, _args, kwargs: seen.append(kwargs["hidden_states"].is_contiguous()), with_kwargs=True
        )

    convolution = tiny.transformer.proj_in_conv
    tiny.with_layers(watch)(**inputs())
    assert seen == [False, False], "as diffusers leaves them"
    seen.clear()
    with monkeypatch.context() as patch:
        patch.setattr(AceStepDecoder, "device", property(lambda _self: torch.device("cuda")))
        twin = tiny.with_layers(watch)
    assert torch.allclose(twin(**inputs()), tiny(**inputs()), atol=1e-5)
    assert seen == [True, True]
    assert tiny.transformer.proj_in_conv is convolution and not convolution._forward_hooks
    assert list(twin.state_dict()) == list(tiny.state_dict())
    assert all(a is b for a, b in zip(twin.parameters(), tiny.parameters(), strict=True))


def test_every_weight_and_buffer_is_the_same_tensor_and_has_the_same_name(tiny: AceStepDecoder) -> None:
    twin = tiny.with_layers(unchanged)
    for there, here in (
        (tiny.named_parameters(), twin.named_parameters()),
        (tiny.named_buffers(), twin.named_buffers()),
    ):
        expected, found = dict(there), dict(here)
        assert list(expected) == list(found) and expected
        assert [name for name in expected if expected[name] is not found[name]] == []
    assert list(tiny.state_dict()) == list(twin.state_dict())
    assert twin.null_embedding is tiny.null_embedding
    assert (twin.channels, twin.encoder_dim, twin.dtype, twin.takes_mask) == (8, 32, torch.float32, True)


def test_weights_that_are_exchanged_or_loaded_are_those_of_the_copies(tiny: AceStepDecoder) -> None:
    twin, given = tiny.with_layers(unchanged), inputs()
    other = AceStepDecoder.preset("tiny", 1)
    for assigned in (False, True):
        tiny.load_state_dict(other.state_dict(), assign=assigned)
        assert_identical(twin(**given), other(**given))
    layer = tiny.transformer.layers[0]
    layer.scale_shift_table = nn.Parameter(layer.scale_shift_table * 2, requires_grad=False)
    assert_identical(twin(**given), tiny(**given))
    assert not torch.equal(twin(**given), other(**given))


def test_what_is_changed_on_a_copy_does_not_act_on_the_decoder(tiny: AceStepDecoder) -> None:
    given = inputs()
    expected, names = tiny(**given), [name for name, _ in tiny.named_modules()]

    def change(layer: nn.Module) -> None:
        layer.mark = "changed"
        layer.mlp = nn.Identity()
        layer.forward = lambda hidden_states, *_args, **_kwargs: hidden_states

    twin = tiny.with_layers(change)
    assert not torch.equal(twin(**given), expected)
    assert_identical(tiny(**given), expected)
    assert [hasattr(layer, "mark") for layer in tiny.transformer.layers] == [False, False]
    assert [name for name, _ in tiny.named_modules()] == names


def test_a_change_that_raises_leaves_the_decoder_as_it_was(tiny: AceStepDecoder) -> None:
    given = inputs()
    expected, layers = tiny(**given), list(tiny.transformer.layers)

    def change(_layer: nn.Module) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        tiny.with_layers(change)
    assert list(tiny.transformer.layers) == layers
    assert_identical(tiny(**given), expected)


def test_a_deep_copy_of_a_decoder_and_its_layers_are_apart(tiny: AceStepDecoder) -> None:
    apart, given = copy.deepcopy(tiny.with_layers(unchanged)), inputs()
    expected = tiny(**given)
    apart.transformer.layers[0].scale_shift_table.mul_(3)
    assert not torch.equal(apart(**given), expected)
    assert_identical(tiny(**given), expected)


# The block.


def test_inside_the_block_another_function_names_the_same_backend() -> None:
    for processor in (None, SimpleNamespace(), *(SimpleNamespace(_attention_backend=b) for b in AttentionBackendName)):
        expected = DIFFUSERS(processor)  # type: ignore[arg-type]
        with AceStepDecoder.traceable():
            inside = ace_step_transformer._get_current_attention_backend
            assert inside is not DIFFUSERS
            assert inside(processor) is expected  # type: ignore[arg-type]
        assert ace_step_transformer._get_current_attention_backend is DIFFUSERS


def test_inside_the_block_the_backend_is_the_one_that_is_active_at_the_call() -> None:
    with AceStepDecoder.traceable():
        inside = ace_step_transformer._get_current_attention_backend
        for name in (AttentionBackendName._NATIVE_MATH, AttentionBackendName.NATIVE):
            with attention_backend(name):
                assert inside() is name is DIFFUSERS()


def test_a_decoder_makes_the_same_bits_inside_the_block(tiny: AceStepDecoder) -> None:
    expected = tiny(**inputs())
    with tiny.traceable():
        assert_identical(tiny(**inputs()), expected)


def test_diffusers_function_is_back_even_where_the_block_raises() -> None:
    with pytest.raises(MemoryError), AceStepDecoder.traceable():
        assert ace_step_transformer._get_current_attention_backend is not DIFFUSERS
        raise MemoryError
    assert ace_step_transformer._get_current_attention_backend is DIFFUSERS


def test_of_two_blocks_the_outer_one_brings_diffusers_function_back() -> None:
    with AceStepDecoder.traceable():
        with AceStepDecoder.traceable():
            pass
        assert ace_step_transformer._get_current_attention_backend is not DIFFUSERS
    assert ace_step_transformer._get_current_attention_backend is DIFFUSERS
