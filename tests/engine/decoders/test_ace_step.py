"""The real transformer behind the decoder's contract."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AceStepTransformer1DModel
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import pad

from harness.engine.decoders import AceStepDecoder
from harness.engine.decoders.ace_step import PRESETS, _seeded
from harness.engine.decoders.checkpoint import null_embedding
from harness.engine.errors import InvalidInput

# Float32 rounding made a difference of 7e-7 here, on velocities of up to 4; another CPU's kernels
# add up in another order, and dropping any one token moves the velocity by more than 0.2.
ROUNDING = 2e-5

pytestmark = pytest.mark.usefixtures("without_gradients")


@pytest.fixture
def without_gradients() -> object:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def tiny() -> AceStepDecoder:
    return AceStepDecoder.preset("tiny")


def rows(n: int = 3, frames: int = 24, length: int = 12) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(5)
    return {
        "hidden_states": torch.randn(n, frames, 8, generator=draw),
        "timestep": torch.rand(n, generator=draw),
        "encoder_hidden_states": torch.randn(n, length, 32, generator=draw),
        "encoder_mask": torch.ones(n, length, dtype=torch.bool),
        "context_latents": torch.randn(n, frames, 16, generator=draw),
    }


def padded(batch: dict[str, Tensor], length: int) -> dict[str, Tensor]:
    more = length - batch["encoder_mask"].shape[1]
    return batch | {
        "encoder_hidden_states": pad(batch["encoder_hidden_states"], (0, 0, 0, more)),
        "encoder_mask": pad(batch["encoder_mask"], (0, more)),
    }


def plain(decoder: AceStepDecoder, batch: dict[str, Tensor]) -> Tensor:
    """diffusers' own forward, which attends every token."""
    inputs = {name: value for name, value in batch.items() if name != "encoder_mask"}
    velocity: Tensor = decoder.transformer(timestep_r=batch["timestep"], return_dict=False, **inputs)[0]
    return velocity


def bits(value: Tensor) -> tuple[torch.dtype, torch.Size, bytes]:
    return value.dtype, value.shape, value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()


def weights(decoder: AceStepDecoder) -> dict[str, tuple[torch.dtype, torch.Size, bytes]]:
    tensors = {name: bits(value) for name, value in decoder.state_dict().items()}
    if decoder.null_embedding is not None:
        tensors["null_embedding"] = bits(decoder.null_embedding)
    return tensors


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def test_an_unpadded_batch_is_what_diffusers_computes(tiny: AceStepDecoder) -> None:
    assert distance(tiny(**rows()), plain(tiny, rows())) < ROUNDING


def test_masked_padding_changes_rounding_only(tiny: AceStepDecoder) -> None:
    assert distance(tiny(**padded(rows(), 64)), tiny(**rows())) < ROUNDING


def test_attended_padding_changes_the_velocity(tiny: AceStepDecoder) -> None:
    assert distance(plain(tiny, padded(rows(), 64)), plain(tiny, rows())) > 0.05


def test_every_block_gets_the_mask(tiny: AceStepDecoder) -> None:
    batch, seen = rows() | {"encoder_mask": torch.arange(12).expand(3, 12) < 7}, []
    hooks = [
        block.cross_attn.register_forward_pre_hook(
            lambda _module, _args, kwargs: seen.append(kwargs["attention_mask"]), with_kwargs=True
        )
        for block in tiny.transformer.layers
    ]
    tiny(**batch)
    tiny(**rows())
    for hook in hooks:
        hook.remove()
    assert [mask.shape for mask in seen] == [(3, 1, 1, 12)] * 4
    assert [int(mask.sum()) for mask in seen] == [21, 21, 36, 36]  # passed where it is all True, too


def test_a_callers_mask_drops_exactly_its_tokens(tiny: AceStepDecoder) -> None:
    batch, keep = rows(), torch.tensor([0, 2, 3, 7, 11])
    mask = torch.zeros(3, 12, dtype=torch.bool)
    mask[:, keep] = True
    kept = batch | {
        "encoder_hidden_states": batch["encoder_hidden_states"][:, keep],
        "encoder_mask": batch["encoder_mask"][:, keep],
    }
    assert distance(tiny(**batch | {"encoder_mask": mask}), tiny(**kept)) < ROUNDING
    assert bits(tiny(**batch | {"encoder_mask": mask.long()})) == bits(tiny(**batch | {"encoder_mask": mask}))


def test_each_row_has_its_own_mask(tiny: AceStepDecoder) -> None:
    batch = rows()
    batch["encoder_mask"] = torch.arange(12) < torch.tensor([[12], [5], [9]])
    together = tiny(**batch)
    for i in range(3):
        alone = tiny(**{name: value[i : i + 1] for name, value in batch.items()})
        assert distance(together[i : i + 1], alone) < ROUNDING


@pytest.mark.parametrize("name", ["hidden_states", "timestep", "encoder_hidden_states", "context_latents"])
def test_every_input_moves_the_velocity(tiny: AceStepDecoder, name: str) -> None:
    moved = rows() | {name: rows()[name] * 0.5}
    assert distance(tiny(**moved), tiny(**rows())) > 0.01


@pytest.mark.parametrize("half", [slice(0, 8), slice(8, 16)])
def test_each_half_of_the_context_moves_the_velocity(tiny: AceStepDecoder, half: slice) -> None:
    context = rows()["context_latents"]
    context[..., half] *= 0.5
    assert distance(tiny(**rows() | {"context_latents": context}), tiny(**rows())) > 0.01


@pytest.mark.parametrize("frames", [1, 7, 23])
def test_an_odd_number_of_frames_works(tiny: AceStepDecoder, frames: int) -> None:
    velocity = tiny(**rows(frames=frames))
    assert velocity.shape == (3, frames, 8)
    assert distance(velocity, plain(tiny, rows(frames=frames))) < ROUNDING


def test_a_failed_call_leaves_no_mask_behind(tiny: AceStepDecoder) -> None:
    masked = rows() | {"encoder_mask": torch.arange(12).expand(3, 12) < 7}
    before = bits(plain(tiny, rows()))
    with pytest.raises(RuntimeError):
        tiny(**masked | {"context_latents": masked["context_latents"][..., :5]})
    assert bits(plain(tiny, rows())) == before


def test_the_transformer_alone_stays_what_it_was(tiny: AceStepDecoder) -> None:
    transformer = copy.deepcopy(tiny.transformer)
    for block in transformer.layers:
        block._forward_pre_hooks.clear()
    untouched = bits(transformer(timestep_r=rows()["timestep"], return_dict=False, **_without_mask())[0])
    tiny(**rows() | {"encoder_mask": torch.arange(12).expand(3, 12) < 7})
    assert bits(plain(tiny, rows())) == untouched


def _without_mask() -> dict[str, Tensor]:
    return {name: value for name, value in rows().items() if name != "encoder_mask"}


def test_two_decoders_can_share_a_transformer() -> None:
    first = AceStepDecoder.preset("tiny")
    masked = rows() | {"encoder_mask": torch.arange(12).expand(3, 12) < 7}
    alone = bits(first(**masked))
    second = AceStepDecoder(first.transformer)
    assert bits(first(**masked)) == bits(second(**masked)) == alone


def test_a_deep_copy_masks_too(tiny: AceStepDecoder) -> None:
    masked = rows() | {"encoder_mask": torch.arange(12).expand(3, 12) < 7}
    assert bits(copy.deepcopy(tiny)(**masked)) == bits(tiny(**masked))


def test_inputs_are_cast_to_the_transformers_dtype() -> None:
    half = AceStepDecoder.preset("tiny", dtype=torch.bfloat16)
    batch = rows() | {"timestep": torch.tensor([0.123, 0.5, 1.0])}
    cast = {name: value if value.dtype == torch.bool else value.bfloat16() for name, value in batch.items()}
    assert half.dtype == torch.bfloat16
    assert half.null_embedding is not None
    assert half.null_embedding.dtype == torch.bfloat16
    assert half(**batch).dtype == torch.bfloat16
    assert bits(half(**batch)) == bits(half(**cast))


def test_it_exports_with_dynamic_sizes_and_a_mask(tiny: AceStepDecoder) -> None:
    n, length, patches = (torch.export.Dim(name, min=2, max=512) for name in ("n", "length", "patches"))
    shapes = {
        "hidden_states": {0: n, 1: 2 * patches},
        "timestep": {0: n},
        "encoder_hidden_states": {0: n, 1: length},
        "encoder_mask": {0: n, 1: length},
        "context_latents": {0: n, 1: 2 * patches},
    }
    program = torch.export.export(tiny, (), kwargs=rows(), dynamic_shapes=shapes, strict=False).module()
    batch = padded(rows(n=5, frames=10, length=9), 30)
    unmasked = batch | {"encoder_mask": torch.ones_like(batch["encoder_mask"])}
    assert distance(program(**batch), tiny(**batch)) < ROUNDING
    assert distance(program(**unmasked), tiny(**batch)) > 0.05


def test_a_preset_is_a_function_of_its_seed() -> None:
    first, same, other = (weights(AceStepDecoder.preset("tiny", seed)) for seed in (7, 7, 8))
    assert first == same
    assert all(first[name] != other[name] for name in ("null_embedding", "transformer.proj_in_conv.weight"))


def test_a_preset_leaves_torchs_state_alone_and_ignores_it() -> None:
    expected = weights(AceStepDecoder.preset("tiny"))
    torch.set_default_dtype(torch.float64)
    try:
        torch.rand(1)  # so that the generator does not already stand where the preset's own draws would leave it
        before = torch.get_rng_state()
        assert weights(AceStepDecoder.preset("tiny")) == expected
        assert bits(torch.get_rng_state()) == bits(before)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_preset_is_frozen_and_says_its_sizes(tiny: AceStepDecoder) -> None:
    assert not tiny.training
    assert not tiny.transformer.training
    assert not any(parameter.requires_grad for parameter in tiny.parameters())
    assert (tiny.channels, tiny.encoder_dim, tiny.dtype, tiny.device.type) == (8, 32, torch.float32, "cpu")
    assert tiny.null_embedding is not None
    assert tiny.null_embedding.shape == (1, 1, 32)


def test_the_mid_preset_has_the_real_models_interface() -> None:
    mid = AceStepDecoder.preset("mid", dtype=torch.bfloat16)
    assert (mid.channels, mid.encoder_dim, len(mid.transformer.layers)) == (64, 2048, 8)
    assert mid.transformer.config.sliding_window == 128


SIZES = {
    "tiny": (2, 64, 4, 2, 16, 128, 32, 8, 4),
    "mid": (8, 512, 8, 4, 64, 1536, 2048, 64, 128),
    "2b": (24, 2048, 16, 8, 128, 6144, 2048, 64, 128),
}
"""By preset: layers, width, heads, key-value heads, width of a head, inner width, E, D and sliding window."""


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_its_sizes(name: str) -> None:
    layers, width, heads, pairs, head, inner, encoder, latent, window = SIZES[name]
    with torch.device("meta"):  # shapes only: no weight is drawn
        made = AceStepTransformer1DModel(**PRESETS[name])
    shapes = {key: tuple(value.shape) for key, value in made.layers[0].state_dict().items()}
    assert (len(made.layers), made.config.sliding_window) == (layers, window)
    assert shapes["cross_attn.to_q.weight"] == (heads * head, width)
    assert shapes["cross_attn.to_k.weight"] == (pairs * head, width)
    assert shapes["cross_attn.norm_q.weight"] == (head,)
    assert shapes["mlp.gate_proj.weight"] == (inner, width)
    assert tuple(made.condition_embedder.weight.shape) == (width, encoder)
    assert tuple(made.proj_in_conv.weight.shape[:2]) == (width, 3 * latent)
    assert tuple(made.proj_out_conv.weight.shape[:2]) == (width, latent)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0])
def test_a_seed_out_of_range_is_refused(seed: object) -> None:
    with pytest.raises(InvalidInput, match="seed"):
        AceStepDecoder.preset("tiny", seed)  # type: ignore[arg-type]


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(InvalidInput, match="'huge'.*'tiny', 'mid', '2b'"):
        AceStepDecoder.preset("huge")


def test_something_else_than_a_transformer_is_refused() -> None:
    with pytest.raises(InvalidInput, match="transformer"):
        AceStepDecoder(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("null", [torch.zeros(1, 1, 31), torch.zeros(32), torch.full((1, 1, 32), torch.nan)])
def test_a_null_embedding_that_does_not_fit_is_refused(tiny: AceStepDecoder, null: Tensor) -> None:
    with pytest.raises(InvalidInput, match="null_embedding"):
        AceStepDecoder(tiny.transformer, null_embedding=null)


def test_a_transformers_directory_round_trips(tiny: AceStepDecoder, tmp_path: Path) -> None:
    tiny.transformer.save_pretrained(tmp_path)
    before = torch.get_rng_state()
    loaded = AceStepDecoder.from_pretrained(tmp_path)
    assert bits(torch.get_rng_state()) == bits(before)
    assert loaded.null_embedding is None
    assert not loaded.transformer.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert weights(loaded) == {name: value for name, value in weights(tiny).items() if name != "null_embedding"}
    assert bits(loaded(**rows())) == bits(tiny(**rows()))


def save_pipeline(decoder: AceStepDecoder, root: Path, shard: str | None) -> None:
    """A pipeline's directory; the condition encoder in one file, or with the null embedding in the shard named."""
    decoder.transformer.save_pretrained(root / "transformer", max_shard_size="200KB")
    folder = root / "condition_encoder"
    folder.mkdir()
    null = {"null_condition_emb": decoder.null_embedding}
    if shard is None:
        save_file(null | {"other": torch.ones(3)}, folder / "diffusion_pytorch_model.safetensors")
        return
    save_file(null, folder / shard)
    save_file({"other": torch.ones(3)}, folder / "first.safetensors")
    index = {"weight_map": {"other": "first.safetensors", "null_condition_emb": shard}}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("shard", [None, "second.safetensors"])
def test_a_pipelines_directory_gives_the_null_embedding(
    tiny: AceStepDecoder, tmp_path: Path, shard: str | None
) -> None:
    save_pipeline(tiny, tmp_path, shard)
    assert len(list((tmp_path / "transformer").glob("*.safetensors"))) > 1
    assert weights(AceStepDecoder.from_pretrained(str(tmp_path))) == weights(tiny)


def test_a_pipeline_without_a_condition_encoder_has_no_null_embedding(tiny: AceStepDecoder, tmp_path: Path) -> None:
    tiny.transformer.save_pretrained(tmp_path / "transformer")
    assert AceStepDecoder.from_pretrained(tmp_path).null_embedding is None


def test_a_transformer_s_own_directory_has_no_null_embedding_whatever_stands_beside_it(
    tiny: AceStepDecoder, tmp_path: Path
) -> None:
    save_pipeline(tiny, tmp_path, None)
    assert AceStepDecoder.from_pretrained(tmp_path).null_embedding is not None
    assert AceStepDecoder.from_pretrained(tmp_path / "transformer").null_embedding is None


def test_a_checkpoint_loads_in_the_dtype_asked_for(tiny: AceStepDecoder, tmp_path: Path) -> None:
    save_pipeline(tiny, tmp_path, None)
    loaded = AceStepDecoder.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert weights(loaded) == weights(AceStepDecoder.preset("tiny", dtype=torch.bfloat16))
    assert torch.get_default_dtype() == torch.float32


def test_a_checkpoint_is_read_as_safetensors_from_local_files_and_asked_of_no_network(
    tiny: AceStepDecoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reads(folder: str, **options: Any) -> Any:
        seen.append((folder, options))
        return tiny.transformer, {}

    seen: list[Any] = []
    monkeypatch.setattr(AceStepTransformer1DModel, "from_pretrained", reads)
    tiny.transformer.save_pretrained(tmp_path)
    AceStepDecoder.from_pretrained(tmp_path)
    ((folder, options),) = seen
    assert folder == str(tmp_path)
    assert (options["local_files_only"], options["use_safetensors"]) == (True, True)


def test_a_missing_directory_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="nowhere"):
        AceStepDecoder.from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize("missing", ["config.json", "diffusion_pytorch_model.safetensors"])
def test_a_missing_file_is_refused_by_name(tiny: AceStepDecoder, tmp_path: Path, missing: str) -> None:
    tiny.transformer.save_pretrained(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(InvalidInput, match=missing):
        AceStepDecoder.from_pretrained(tmp_path)


def test_another_models_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"_class_name": "UNet1DModel"}')
    with pytest.raises(InvalidInput, match="UNet1DModel"):
        AceStepDecoder.from_pretrained(tmp_path)


@pytest.mark.parametrize("defect", ["missing", "mismatched", "unexpected"])
def test_weights_that_are_not_the_models_are_refused(tiny: AceStepDecoder, tmp_path: Path, defect: str) -> None:
    tiny.transformer.save_pretrained(tmp_path)
    state = {name: value.clone() for name, value in tiny.transformer.state_dict().items()}
    norm = state.pop("norm_out.weight")
    if defect == "mismatched":
        state["norm_out.weight"] = norm[:5].clone()
    if defect == "unexpected":
        state |= {"norm_out.weight": norm, "norm_in.weight": norm.clone()}
    save_file(state, tmp_path / "diffusion_pytorch_model.safetensors")
    with pytest.raises(InvalidInput, match=f"{defect}_keys.*norm_"):
        AceStepDecoder.from_pretrained(tmp_path)


def test_the_affine_decoder_imports_without_diffusers() -> None:
    code = "import sys; from harness.engine.decoders import AffineDecoder; sys.exit('diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_caller_may_write_into_a_null_embedding_that_was_given(tiny: AceStepDecoder) -> None:
    null = torch.full((1, 1, 32), 0.5)
    decoder = AceStepDecoder(tiny.transformer, null_embedding=null)
    null.zero_()
    assert decoder.null_embedding is not None
    assert decoder.null_embedding.tolist() == [[[0.5] * 32]]


def test_a_preset_is_drawn_on_the_cpu_whatever_the_default_device(tiny: AceStepDecoder) -> None:
    with torch.device("meta"):
        made = AceStepDecoder.preset("tiny")
    assert weights(made) == weights(tiny)


def test_torchs_state_is_as_before_where_drawing_fails() -> None:
    before = torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(MemoryError), _seeded(3):
            assert torch.get_default_dtype() == torch.float32
            torch.rand(5)
            raise MemoryError
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert bits(torch.get_rng_state()) == bits(before)


def test_a_condition_encoder_without_the_tensor_gives_no_null_embedding(tmp_path: Path) -> None:
    assert null_embedding(tmp_path / "none") is None
    save_file({"other": torch.ones(3)}, tmp_path / "diffusion_pytorch_model.safetensors")
    assert null_embedding(tmp_path) is None
    index = {"weight_map": {"other": "diffusion_pytorch_model.safetensors"}}
    (tmp_path / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    assert null_embedding(tmp_path) is None


def test_a_wrapped_transformer_stays_as_it_is_and_the_null_embedding_is_no_weight(tiny: AceStepDecoder) -> None:
    transformer = copy.deepcopy(tiny.transformer).train().requires_grad_(True)
    null = torch.ones(1, 1, 32, dtype=torch.float64)
    decoder = AceStepDecoder(transformer, null_embedding=null)
    assert decoder.transformer is transformer
    assert transformer.training
    assert all(parameter.requires_grad for parameter in transformer.parameters())
    assert decoder.null_embedding is not None
    assert decoder.null_embedding.dtype == torch.float32
    assert {name for name, _ in decoder.named_buffers()} >= {"null_embedding"}
    assert list(decoder.state_dict()) == [f"transformer.{name}" for name in transformer.state_dict()]
