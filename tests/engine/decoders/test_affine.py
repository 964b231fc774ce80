"""The closed-form decoder: pure rows, and no input that it ignores."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from harness.engine import decoders
from harness.engine.decoders import AffineDecoder
from harness.engine.decoders.affine import _fold
from harness.engine.errors import InvalidInput

DECODER = AffineDecoder()


def rows(n: int, frames: int = 10, channels: int = 4, length: int = 12, width: int = 16) -> dict[str, Tensor]:
    """A batch whose last quarter of tokens is masked padding."""
    draw = torch.Generator().manual_seed(5)
    mask = torch.ones(n, length, dtype=torch.bool)
    mask[:, length - length // 4 :] = False
    return {
        "hidden_states": torch.randn(n, frames, channels, generator=draw),
        "timestep": torch.rand(n, generator=draw),
        "encoder_hidden_states": torch.randn(n, length, width, generator=draw) * mask.unsqueeze(-1),
        "encoder_mask": mask,
        "context_latents": torch.randn(n, frames, 2 * channels, generator=draw),
    }


def bits(value: Tensor) -> tuple[torch.dtype, torch.Size, bytes]:
    return value.dtype, value.shape, value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_a_row_has_the_same_bits_in_a_batch_of_any_size() -> None:
    batch = rows(8, length=320, width=2048)
    alone = [bits(DECODER(**{name: value[i : i + 1] for name, value in batch.items()})[0]) for i in range(8)]
    for n in range(1, 9):
        together = DECODER(**{name: value[:n] for name, value in batch.items()})
        assert [bits(row) for row in together] == alone[:n]


@pytest.mark.usefixtures("two_threads")
def test_the_thread_count_does_not_change_a_bit() -> None:
    batch = rows(2, frames=750, channels=64, length=320, width=2048)
    two = bits(DECODER(**batch))
    torch.set_num_threads(1)
    assert bits(DECODER(**batch)) == two


def closed_form_digest() -> str:
    """The velocity's digest for inputs that no random generator drew: those too differ between CPU capabilities."""
    shapes = {name: value.shape for name, value in rows(2, frames=75, channels=8, length=60, width=128).items()}
    batch = {name: (torch.arange(shape.numel()) % 97 - 48).view(shape) / 64 for name, shape in shapes.items()}
    return hashlib.sha256(bits(DECODER(**batch))[2]).hexdigest()


def test_the_cpu_capability_does_not_change_a_bit() -> None:
    code = f"from {__name__} import closed_form_digest; print(closed_form_digest())"
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "default", "PYTHONPATH": os.pathsep.join(sys.path)}
    plain = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert plain.stdout.strip() == closed_form_digest()


def test_sums_add_the_second_half_to_the_first() -> None:
    big = 2.0**24  # float32 loses a 1 that is added to it
    values = torch.tensor([[big, 1, 1, 1, -big, 1, 1, 1], [big, -big, 1, 1, 1, 1, 1, 1]])
    assert _fold(values).tolist() == [6.0, 5.0]
    assert _fold(torch.tensor([big, -big, 1.0, 1.0, 1.0])).item() == 2.0


def formula(batch: dict[str, Tensor]) -> Tensor:
    """The class's formula in float64, read off its docstring."""
    h, t, e, m, context = (value.double() for value in batch.values())
    src, chunk = context.chunk(2, dim=-1)
    (frames, channels), (length, width) = h.shape[1:], e.shape[1:]
    i, j = torch.arange(frames).view(-1, 1), torch.arange(channels)
    ll, ee = torch.arange(length).double(), torch.arange(width).double()
    token = (8 / (8 + ee % 16) * e).sum(-1) / width**0.5
    p, q = (m * 8 / (8 + ll) * (token + 1 / 8) / 4).sum(-1), 4 * token.mean(-1)
    p, q, t = (z.view(-1, 1, 1) for z in (p / (1 + p.abs()), q / (1 + q.abs()), t))
    r = (i + 1).double() / frames - (j + 1).double() / channels
    context_part = (3 / 8 - t / 4 + p / 2) * src + (1 / 4 + t / 8 - 3 / 8 * p + q / 4) * chunk
    return (1 / 2 + t / 4 + p / 4 + q / 2) * h + context_part + (1 / 8 + p / 4 + q / 2) * r


@pytest.mark.parametrize(("length", "width"), [(12, 16), (13, 7), (1, 1), (5, 40)])
def test_it_is_the_formula_of_its_docstring(length: int, width: int) -> None:
    batch = rows(3, length=length, width=width)
    assert distance(DECODER(**batch).double(), formula(batch)) < 2e-6  # float32 roundings of values below 4


def test_permuting_rows_permutes_the_output() -> None:
    batch, order = rows(6), torch.tensor([3, 0, 5, 1, 4, 2])
    permuted = DECODER(**{name: value[order] for name, value in batch.items()})
    assert bits(permuted) == bits(DECODER(**batch)[order])


def test_it_is_affine_in_the_latent() -> None:
    batch = rows(2)
    x, y = batch.pop("hidden_states"), torch.randn(2, 10, 4, generator=torch.Generator().manual_seed(1))
    middle = DECODER(hidden_states=(x + y) / 2, **batch)
    ends = (DECODER(hidden_states=x, **batch) + DECODER(hidden_states=y, **batch)) / 2
    assert distance(middle, ends) < 1e-6  # a few roundings of values below 4


@pytest.mark.parametrize("name", ["hidden_states", "timestep", "encoder_hidden_states", "context_latents"])
def test_every_input_moves_the_velocity(name: str) -> None:
    batch = rows(2)
    moved = batch | {name: batch[name] + 0.25}
    assert (DECODER(**moved) != DECODER(**batch)).float().mean() > 0.9


def test_the_halves_of_the_context_count_differently() -> None:
    batch = rows(2)
    source, chunk = batch["context_latents"].chunk(2, dim=-1)
    swapped = batch | {"context_latents": torch.cat([chunk, source], dim=-1)}
    assert distance(DECODER(**swapped), DECODER(**batch)) > 0.01


def test_unmasking_zero_padding_shows() -> None:
    batch = rows(2)
    everything = batch | {"encoder_mask": torch.ones_like(batch["encoder_mask"])}
    assert distance(DECODER(**everything), DECODER(**batch)) > 0.01


def test_the_amount_of_masked_padding_shows() -> None:
    batch = rows(2)
    padded = batch | {
        "encoder_hidden_states": torch.nn.functional.pad(batch["encoder_hidden_states"], (0, 0, 0, 20)),
        "encoder_mask": torch.nn.functional.pad(batch["encoder_mask"], (0, 20)),
    }
    assert distance(DECODER(**padded), DECODER(**batch)) > 0.01


def test_the_order_of_tokens_shows() -> None:
    batch = rows(2)
    encoder = batch["encoder_hidden_states"].clone()
    encoder[:, [0, 5]] = encoder[:, [5, 0]]
    assert distance(DECODER(**batch | {"encoder_hidden_states": encoder}), DECODER(**batch)) > 0.001


def test_two_conditions_differ_by_no_constant_and_no_multiple() -> None:
    batch = rows(1)
    positive = DECODER(**batch)
    diff = positive - DECODER(**batch | {"encoder_hidden_states": -batch["encoder_hidden_states"]})
    cosine = torch.nn.functional.cosine_similarity(diff, positive, dim=1)
    assert diff.std(dim=1).min() > 0.05
    assert cosine.abs().max() < 0.99


def test_a_loop_of_eight_steps_stays_bounded() -> None:
    batch = rows(4) | {"encoder_hidden_states": 1000 * rows(4)["encoder_hidden_states"]}
    for step in range(8):
        velocity = DECODER(**batch | {"timestep": torch.full((4,), 1 - step / 8)})
        batch["hidden_states"] = batch["hidden_states"] - velocity / 8
    assert 0.01 < batch["hidden_states"].abs().max() < 20


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_inputs_are_cast_and_the_velocity_is_float32(dtype: torch.dtype) -> None:
    batch = {name: value if value.dtype == torch.bool else value.to(dtype) for name, value in rows(2).items()}
    wide = {name: value if value.dtype == torch.bool else value.float() for name, value in batch.items()}
    assert DECODER(**batch).dtype == torch.float32
    assert bits(DECODER(**batch)) == bits(DECODER(**wide))


def test_a_mask_of_integers_is_a_mask_of_bools() -> None:
    batch = rows(2)
    assert bits(DECODER(**batch | {"encoder_mask": batch["encoder_mask"].long()})) == bits(DECODER(**batch))


def test_a_context_of_another_width_is_refused() -> None:
    batch = rows(2)
    with pytest.raises(InvalidInput, match=r"context_latents.*\[N, 10, 8\]"):
        DECODER(**batch | {"context_latents": batch["context_latents"][..., :7]})


def test_the_null_embedding_needs_a_width_and_is_fixed() -> None:
    first, second = AffineDecoder(16).null_embedding, AffineDecoder(16).null_embedding
    assert AffineDecoder().null_embedding is None
    assert first is not None
    assert second is not None
    assert first.shape == (1, 1, 16)
    assert bits(first) == bits(second)
    assert first.unique().numel() == 8
    first.zero_()
    assert bits(second) == bits(AffineDecoder(16).null_embedding)  # type: ignore[arg-type]
    assert second.unique().numel() == 8, "each decoder has its own"


@pytest.mark.parametrize("width", [0, -1, 2.0, True])
def test_an_encoder_width_that_is_no_positive_integer_is_refused(width: object) -> None:
    with pytest.raises(InvalidInput, match="encoder_dim"):
        AffineDecoder(width)  # type: ignore[arg-type]


@pytest.mark.parametrize(("default", "size"), [(torch.float64, 101), (torch.float16, 103), (torch.bfloat16, 107)])
def test_the_default_dtype_has_no_say_now_or_later(default: torch.dtype, size: int) -> None:
    """What is kept between calls is made at the first call of these sizes, whatever the default is then."""
    batch = rows(2, frames=size, channels=3, length=size, width=size)
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        made = [AffineDecoder()(**batch), AffineDecoder(size).null_embedding]
    finally:
        torch.set_default_dtype(before)
    later = [AffineDecoder()(**batch), AffineDecoder(size).null_embedding]
    assert [bits(each) for each in made] == [bits(each) for each in later]
    assert {each.dtype for each in later} == {torch.float32}


def test_its_bits_are_these_on_every_machine() -> None:
    """The rounding of every operation is part of the formula: captures hold these bits."""
    batch = rows(96, frames=49, channels=7, length=13, width=7)
    # No random generator, whose numbers differ between CPU capabilities; every row has numbers of its own.
    for name, value in batch.items():
        batch[name] = (torch.arange(value.numel()) * 37 % 1009 - 500).view(value.shape) / 503
    batch["encoder_mask"] = torch.arange(96)[:, None] % 13 >= torch.arange(13)
    batch["timestep"] = torch.arange(96) / 97
    assert (
        hashlib.sha256(bits(DECODER(**batch))[2]).hexdigest()
        == "a0e487b1e60852d7044b91cb8b17937e343b5450dea56652f332717da5393a5c"
    )


def test_the_null_embedding_is_a_ramp_of_eighths() -> None:
    ramp = [-0.375, -0.25, -0.125, 0.0, 0.125, 0.25, 0.375, 0.5]
    made = AffineDecoder(11).null_embedding
    assert made is not None
    assert made.tolist() == [[[*ramp, *ramp[:3]]]]
    one = AffineDecoder(1).null_embedding
    assert one is not None
    assert (one.shape, one.item()) == ((1, 1, 1), -0.375)


def test_what_a_call_in_inference_mode_keeps_serves_a_gradient_later() -> None:
    batch = rows(2, frames=37, channels=5, length=41, width=43)
    with torch.inference_mode():
        first = bits(DECODER(**batch))
    names = ("hidden_states", "timestep", "encoder_hidden_states", "context_latents")
    leaves = {name: batch[name].clone().requires_grad_() for name in names}
    velocity = DECODER(**batch | leaves)
    velocity.sum().backward()
    assert bits(velocity) == first
    assert all(leaf.grad is not None and leaf.grad.abs().max() > 0 for leaf in leaves.values())


def test_a_decoder_that_there_is_not_is_named() -> None:
    with pytest.raises(AttributeError, match="^module 'harness.engine.decoders' has no attribute 'OtherDecoder'$"):
        _ = decoders.OtherDecoder
    assert decoders.__all__ == ["AceStepDecoder", "AffineDecoder", "Decoder"]
