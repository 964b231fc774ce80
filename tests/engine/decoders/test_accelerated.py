"""The accelerated decoder: the bits of diffusers where nothing is rounded elsewhere, and never weights out of date."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName, attention_backend
from torch import Tensor, nn

from harness.engine.decoders import AceStepDecoder
from harness.engine.decoders.accelerated import AcceleratedDecoder, accelerated
from harness.engine.decoders.decoder_switches import ACCELERATIONS, ALL, PLAIN, DecoderSwitches
from harness.engine.errors import InvalidInput
from harness.engine.executors import CudaGraphExecutor, Shape
from harness.engine.executors.compiled import compiled
from harness.parity.compare import assert_identical
from tests.engine.executors.test_compiled import Traced, layered

CPU = torch.device("cpu")
ROUNDED = ("patch_products", "kept_time")
"""Accelerations whose sums have another order than those of diffusers on a CPU."""
EXACT = [name for name in ACCELERATIONS if name not in ROUNDED]
DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(name="traced")
def _traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[Traced]:
    torch._dynamo.reset()
    yield Traced(monkeypatch)
    torch._dynamo.reset()


def tiny(dtype: torch.dtype = torch.float32, seed: int = 0) -> AceStepDecoder:
    return AceStepDecoder.preset("tiny", seed, dtype=dtype)


def given(rows: int = 2, frames: int = 26, tokens: int = 7) -> dict[str, Tensor]:
    return Shape(frames, tokens, 8, 32).example(rows, CPU).tensors()


def kept(decoder: AcceleratedDecoder, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inputs with what `condition` makes of the encoder states, where the decoder keeps conditions."""
    if not decoder.switches.kept_condition:
        return inputs
    return inputs | {"encoder_hidden_states": decoder.condition(inputs["encoder_hidden_states"])}


def error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


# Bits.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "frames", "tokens"), [(1, 26, 7), (3, 13, 16), (4, 1, 1), (8, 64, 5)])
def test_the_forward_itself_has_the_bits_of_diffusers(dtype: torch.dtype, rows: int, frames: int, tokens: int) -> None:
    decoder, inputs = tiny(dtype), given(rows, frames, tokens)
    assert_identical(AcceleratedDecoder(decoder, PLAIN)(**inputs), decoder(**inputs))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", EXACT)
def test_an_acceleration_has_the_bits_of_diffusers_on_a_cpu(name: str, dtype: torch.dtype) -> None:
    decoder = tiny(dtype)
    fast = AcceleratedDecoder(decoder, PLAIN.turned_on(name))
    for rows, frames, tokens in ((1, 26, 7), (3, 13, 16), (4, 1, 1), (8, 64, 5)):
        inputs = given(rows, frames, tokens)
        assert_identical(fast(**kept(fast, inputs)), decoder(**inputs), f"{name} {rows} {frames} {tokens}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_norms_in_the_form_for_a_compiler_have_the_bits_of_diffusers(dtype: torch.dtype) -> None:
    decoder = tiny(dtype)
    for fused in (False, True):
        fast = AcceleratedDecoder(decoder, DecoderSwitches(fused_norms=True, norms="compiler", fused_products=fused))
        for rows, frames, tokens in ((1, 26, 7), (3, 13, 16), (8, 64, 5)):
            assert_identical(fast(**given(rows, frames, tokens)), decoder(**given(rows, frames, tokens)))


@pytest.mark.parametrize("name", EXACT)
def test_an_acceleration_has_the_bits_of_all_without_it(name: str) -> None:
    decoder, inputs = tiny(torch.bfloat16), given(3)
    on, off = (AcceleratedDecoder(decoder, switches) for switches in (ALL, ALL.turned_off(name)))
    assert_identical(on(**kept(on, inputs)), off(**kept(off, inputs)), name)


@pytest.mark.parametrize("name", ROUNDED)
def test_another_order_of_sums_changes_rounding_only(name: str) -> None:
    decoder = tiny()
    fast = AcceleratedDecoder(decoder, PLAIN.turned_on(name))
    for rows, frames in ((1, 26), (3, 13), (8, 64)):
        assert error(fast(**given(rows, frames)), decoder(**given(rows, frames))) < 1e-6


def test_a_float64_decoder_stays_one() -> None:
    decoder = tiny().double()
    fast = AcceleratedDecoder(decoder, ALL)
    assert fast(**kept(fast, given())).dtype == torch.float64
    # Norms and rotation are computed in float32, whatever the model is in.
    assert error(fast(**kept(fast, given())), decoder(**given())) < 1e-6


@pytest.mark.parametrize("name", [*ACCELERATIONS, "nothing"])
def test_the_plain_decoder_keeps_its_bits(name: str) -> None:
    decoder, inputs = tiny(torch.bfloat16), given()
    expected, states = decoder(**inputs), copy.deepcopy(decoder.state_dict())
    fast = AcceleratedDecoder(decoder, PLAIN.turned_on(name) if name != "nothing" else PLAIN)
    fast(**kept(fast, inputs))
    assert_identical(decoder(**inputs), expected)
    assert_identical(dict(decoder.state_dict()), dict(states))


def test_all_off_is_the_decoder_itself() -> None:
    decoder = tiny()
    assert accelerated(decoder, PLAIN) is decoder
    assert isinstance(accelerated(decoder, ALL), AcceleratedDecoder)
    with pytest.raises(InvalidInput, match="decoder"):
        accelerated(nn.Linear(2, 2), ALL)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["hidden_states", "timestep", "encoder_hidden_states", "context_latents"])
def test_every_input_moves_the_velocity(name: str) -> None:
    fast, inputs = AcceleratedDecoder(tiny(), ALL), given()
    moved = inputs | {name: inputs[name] * 0.5}
    assert error(fast(**kept(fast, moved)), fast(**kept(fast, inputs))) > 0.005


@pytest.mark.parametrize("raw", [False, True])
def test_a_token_that_is_masked_has_no_say_and_another_one_has(raw: bool) -> None:
    fast, inputs = AcceleratedDecoder(tiny(), ALL), given()
    inputs["encoder_mask"][:, 3] = False
    inputs["encoder_mask"][:, 1] = True

    def velocity(token: int | None) -> Tensor:
        states = inputs["encoder_hidden_states"].clone()
        if token is not None:
            states[:, token] += 5
        changed = inputs | {"encoder_hidden_states": states}
        return fast(**(changed if raw else kept(fast, changed)))

    assert_identical(velocity(3), velocity(None))
    assert error(velocity(1), velocity(None)) > 0.01


def test_a_row_does_not_depend_on_the_content_of_others() -> None:
    fast, inputs = (
        AcceleratedDecoder(tiny(torch.bfloat16), ALL),
        kept(AcceleratedDecoder(tiny(torch.bfloat16), ALL), given(4)),
    )
    other = {name: value.clone() for name, value in inputs.items()}
    for name, value in other.items():
        value[1:] = value[1:].logical_not() if name == "encoder_mask" else value[1:] * 0.5 + 0.25
    other["encoder_mask"][1:, 0] = True
    assert_identical(fast(**other)[:1], fast(**inputs)[:1])


# Weights.


def scaled(decoder: AceStepDecoder) -> None:
    for parameter in decoder.transformer.parameters():
        parameter.mul_(1.25)


def lora(decoder: AceStepDecoder) -> None:
    """Adapters fused in place, as peft fuses them: through `data`."""
    for layer in decoder.transformer.layers:
        for attn in (layer.self_attn, layer.cross_attn):
            for each in (attn.to_q, attn.to_k, attn.to_v):
                each.weight.data += torch.linspace(-0.2, 0.2, each.weight.shape[1])
        layer.mlp.up_proj.weight.data += 0.05


def replaced(decoder: AceStepDecoder) -> None:
    for module in decoder.transformer.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(parameter * 1.25, requires_grad=False))


def modules(decoder: AceStepDecoder) -> None:
    """Every module that an acceleration reads past is exchanged for another one of its class."""
    other, own = tiny(seed=5).transformer, decoder.transformer
    own.layers[0].self_attn.to_k = other.layers[0].self_attn.to_k
    own.layers[1].mlp.up_proj = other.layers[1].mlp.up_proj
    own.layers[1].cross_attn = other.layers[1].cross_attn
    own.time_embed_r = other.time_embed_r
    own.proj_in_conv, own.proj_out_conv = other.proj_in_conv, other.proj_out_conv


def block(decoder: AceStepDecoder) -> None:
    other = tiny(seed=6).transformer.layers[1]
    decoder.transformer.layers[1] = other
    other._forward_pre_hooks.clear()
    other.register_forward_pre_hook(decoder._cross_mask, with_kwargs=True)


CHANGES: dict[str, Callable[[AceStepDecoder], object]] = {
    "in place": scaled,
    "lora": lora,
    "replaced": replaced,
    "modules": modules,
    "block": block,
    "loaded": lambda decoder: decoder.load_state_dict(tiny(seed=1).state_dict()),
    "assigned": lambda decoder: decoder.load_state_dict(tiny(seed=1).state_dict(), assign=True),
    "there and back": lambda decoder: decoder.to(torch.bfloat16).to(torch.float32),
    "transformer there and back": lambda decoder: decoder.transformer.to(torch.bfloat16).to(torch.float32),
}


def fresh(decoder: AceStepDecoder, inputs: dict[str, Tensor], switches: DecoderSwitches = ALL) -> Tensor:
    """What a decoder makes that is accelerated now, from a copy of the weights as they are."""
    made = AcceleratedDecoder(copy.deepcopy(decoder), switches)
    return made(**kept(made, inputs))


@pytest.mark.parametrize("dtype", [torch.float32])
@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changed_in_the_weights_is_followed(change: str, dtype: torch.dtype) -> None:
    decoder, inputs = tiny(dtype), given()
    fast = AcceleratedDecoder(decoder, ALL)
    before = fast(**kept(fast, inputs))
    CHANGES[change](decoder)
    made = fast(**kept(fast, inputs))
    assert_identical(made, fresh(decoder, inputs), change)
    assert error(made, decoder(**inputs)) < 2e-6
    assert not torch.equal(made, before)


@pytest.mark.parametrize("change", CHANGES)
def test_a_decoder_with_other_layers_follows_too(change: str) -> None:
    decoder, inputs, seen = tiny(), given(), []
    fast = AcceleratedDecoder(decoder, ALL)
    twin = fast.with_layers(seen.append)
    assert len(seen) == 4, "the input, two layers, the output"
    assert_identical(twin(**kept(twin, inputs)), fast(**kept(fast, inputs)))
    CHANGES[change](decoder)
    assert_identical(twin(**kept(twin, inputs)), fresh(decoder, inputs), change)


def test_the_second_time_is_followed_past_the_version_counter_where_that_is_said() -> None:
    decoder, inputs = tiny(), given()
    fast = AcceleratedDecoder(decoder, PLAIN.turned_on("kept_time"))
    before = fast(**inputs)
    decoder.transformer.time_embed_r.linear_2.weight.data.mul_(2)
    assert_identical(fast(**inputs), before)
    fast.weights_changed()
    assert_identical(fast(**inputs), fresh(decoder, inputs, fast.switches))
    assert not torch.equal(fast(**inputs), before)


def test_a_deep_copy_is_apart_and_follows_its_own_weights() -> None:
    decoder, inputs = tiny(), given()
    fast = AcceleratedDecoder(decoder, ALL)
    expected = fast(**kept(fast, inputs))
    twin = copy.deepcopy(fast)
    for parameter in twin.transformer.parameters():
        parameter.mul_(1.25)
    assert_identical(fast(**kept(fast, inputs)), expected)
    scaled(decoder)
    assert_identical(twin(**kept(twin, inputs)), fast(**kept(fast, inputs)))
    assert not torch.equal(twin(**kept(twin, inputs)), expected)


def test_it_has_the_plain_decoder_s_parameters_and_state_dict() -> None:
    decoder = tiny()
    fast = AcceleratedDecoder(decoder, ALL)
    assert list(fast.state_dict()) == list(decoder.state_dict())
    assert [name for name, _ in fast.named_parameters()] == [name for name, _ in decoder.named_parameters()]
    assert all(a is b for a, b in zip(fast.parameters(), decoder.parameters(), strict=True))
    assert (fast.channels, fast.encoder_dim, fast.dtype, fast.device) == (8, 32, torch.float32, CPU)
    assert fast.null_embedding is decoder.null_embedding


def test_weights_of_another_seed_are_loaded_into_it() -> None:
    fast, inputs = AcceleratedDecoder(tiny(), ALL), given()
    fast.load_state_dict(tiny(seed=2).state_dict())
    assert_identical(fast(**kept(fast, inputs)), fresh(tiny(seed=2), inputs))


def test_fused_weights_take_no_memory_of_their_own() -> None:
    decoder = tiny()

    def nbytes() -> int:
        storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in decoder.parameters()}
        return sum(storages.values())

    before = nbytes()
    AcceleratedDecoder(decoder, ALL)
    assert nbytes() == before


# An executor.


@pytest.mark.parametrize("change", CHANGES)
def test_an_executor_s_update_reaches_recorded_runs(change: str) -> None:
    decoder = tiny()
    fast = AcceleratedDecoder(decoder, ALL.turned_off("kept_condition"))
    shape = Shape(26, 7, 8, 32)
    executor = CudaGraphExecutor(fast, row_buckets=(2,), device="cpu")
    executor.prepare([shape])
    executor.update(lambda: CHANGES[change](decoder))
    assert_identical(executor.run(shape.example(2, CPU)), fresh(decoder, given(), fast.switches), change)


def test_an_update_follows_writes_past_the_version_counter() -> None:
    decoder = tiny()
    fast = AcceleratedDecoder(decoder, PLAIN.turned_on("kept_time"))
    shape = Shape(26, 7, 8, 32)
    executor = CudaGraphExecutor(fast, row_buckets=(2,), device="cpu")
    executor.prepare([shape])
    executor.update(lambda: decoder.transformer.time_embed_r.linear_2.weight.data.mul_(2))
    assert_identical(executor.run(shape.example(2, CPU)), fresh(decoder, given(), fast.switches))


def test_an_update_that_is_refused_leaves_no_graphs_of_the_old_weights() -> None:
    decoder = tiny()
    fast = AcceleratedDecoder(decoder, ALL.turned_off("kept_condition"))
    executor = CudaGraphExecutor(fast, row_buckets=(2,), device="cpu")
    executor.prepare([Shape(26, 7, 8, 32)])

    def change() -> None:
        decoder.transformer.layers[1].mlp.up_proj = nn.Identity()

    with pytest.raises(InvalidInput, match=r"transformer\.layers\.1\.mlp\.up_proj"):
        executor.update(change)
    with pytest.raises(InvalidInput, match="prepare"):
        executor.check_shape(Shape(26, 7, 8, 32))


def test_a_recorded_run_keeps_the_memory_of_what_is_kept_of_the_time() -> None:
    fast = AcceleratedDecoder(tiny(), PLAIN.turned_on("kept_time"))
    names = {name for name, _ in fast.named_buffers()}
    assert {"zero.embedding", "zero.projection"} <= names
    before = fast.get_buffer("zero.embedding").data_ptr()
    scaled_r = fast.transformer.time_embed_r.linear_2.weight
    scaled_r.mul_(2)
    fast.tie()
    assert fast.get_buffer("zero.embedding").data_ptr() == before, "a recorded run reads the new values"


# Refusals.


def adapter(path: str) -> Callable[[AceStepDecoder], object]:
    def change(decoder: AceStepDecoder) -> None:
        parent, _, name = path.rpartition(".")
        owner = decoder.get_submodule(parent)
        setattr(owner, name, nn.Sequential(getattr(owner, name)))

    return change


def hook(path: str) -> Callable[[AceStepDecoder], object]:
    return lambda decoder: decoder.get_submodule(path).register_forward_hook(lambda _module, _inputs, made: made)


REFUSED = {
    "transformer.layers.0.self_attn.to_q": "fused_products",
    "transformer.layers.1.cross_attn.to_v": "fused_products",
    "transformer.layers.1.mlp.gate_proj": "fused_products",
    "transformer.layers.0.self_attn": "banded_attention",
    "transformer.layers.0.cross_attn.norm_k": "banded_attention",
    "transformer.layers.0.mlp": "fused_norms",
    "transformer.layers.0.mlp_norm": "fused_norms",
    "transformer.layers.1.self_attn_norm": "fused_norms",
    "transformer.layers.1": "fused_norms",
    "transformer.proj_in_conv": "patch_products",
    "transformer.proj_out_conv": "patch_products",
}


@pytest.mark.parametrize("change", [adapter, hook])
@pytest.mark.parametrize("path", REFUSED)
def test_a_module_that_an_acceleration_reads_past_is_refused_by_name(
    path: str, change: Callable[[str], Callable[[AceStepDecoder], object]]
) -> None:
    decoder = tiny()
    fast = AcceleratedDecoder(decoder, PLAIN.turned_on(REFUSED[path]))
    change(path)(decoder)
    with pytest.raises(InvalidInput, match=f"^{path}: "):
        fast(**given())
    with pytest.raises(InvalidInput, match=f"^{path}: "):
        AcceleratedDecoder(decoder, fast.switches)


@pytest.mark.parametrize(
    "path", ["layers.0.self_attn.to_out.0", "layers.1.mlp.down_proj", "time_embed", "norm_out", "condition_embedder"]
)
def test_a_module_that_is_called_may_be_any(path: str) -> None:
    decoder, inputs = tiny(), given()
    fast = AcceleratedDecoder(decoder, PLAIN.turned_on(*EXACT).turned_off("kept_condition"))

    class Doubled(nn.Module):
        def __init__(self, base: nn.Module) -> None:
            super().__init__()
            self.base = base
            self.in_features = getattr(base, "in_features", None)

        def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
            made = self.base(x)
            return tuple(each * 2 for each in made) if isinstance(made, tuple) else made * 2

    parent, _, name = f"transformer.{path}".rpartition(".")
    owner = decoder.get_submodule(parent)
    setattr(owner, name, Doubled(getattr(owner, name)))
    assert_identical(fast(**inputs), decoder(**inputs))


def test_another_attention_backend_is_refused() -> None:
    fast = AcceleratedDecoder(tiny(), ALL)
    with attention_backend(AttentionBackendName._NATIVE_MATH), pytest.raises(InvalidInput, match="backend"):
        fast(**given())
    fast.transformer.layers[1].self_attn.processor._attention_backend = AttentionBackendName._NATIVE_MATH
    with pytest.raises(InvalidInput, match=r"layers\.1\.self_attn\.processor"):
        fast(**given())


def test_encoder_states_of_another_width_are_refused() -> None:
    on, off = (AcceleratedDecoder(tiny(), switches) for switches in (ALL, ALL.turned_off("kept_condition")))
    made = on.condition(given()["encoder_hidden_states"])
    assert made.shape == (2, 7, on.kept_dim)
    for decoder, states in ((off, made), (on, made[..., :-1])):
        with pytest.raises(InvalidInput, match="encoder_hidden_states"):
            decoder(**given() | {"encoder_hidden_states": states})
    with pytest.raises(InvalidInput, match="kept_condition"):
        off.condition(given()["encoder_hidden_states"])


def test_no_gradient_is_recorded_for_weights_that_want_one() -> None:
    decoder = tiny()
    decoder.requires_grad_(True)
    fast = AcceleratedDecoder(decoder, ALL)
    with torch.enable_grad():
        assert not fast(**kept(fast, given())).requires_grad


# A compiler.


def test_a_trace_is_whole_and_the_code_of_one_layer_serves_all_of_its_kind(traced: Traced) -> None:
    decoder = layered(6)
    for switches in (ALL, PLAIN.turned_on("fused_products", "fused_norms")):
        before = len(traced.graphs)
        fast = AcceleratedDecoder(decoder, switches)
        made, inputs = compiled(fast), given()
        assert_identical(made(**kept(fast, inputs)), fast(**kept(fast, inputs)))
        # The input, the first layer, the other sliding layers, the full layers, the output.
        assert len(traced.graphs) - before == 5
        made(**kept(fast, inputs))
        assert len(traced.graphs) - before == 5


@pytest.mark.parametrize("change", ["in place", "lora", "loaded", "assigned", "replaced"])
def test_compiled_code_follows_the_weights(change: str, traced: Traced) -> None:
    decoder, inputs = tiny(), given()
    fast = AcceleratedDecoder(decoder, ALL)
    made = compiled(fast)
    before = made(**kept(fast, inputs))
    CHANGES[change](decoder)
    assert_identical(made(**kept(fast, inputs)), fresh(decoder, inputs), change)
    assert not torch.equal(made(**kept(fast, inputs)), before)
