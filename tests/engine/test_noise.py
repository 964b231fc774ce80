from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.engine.noise import MAX_SEED, Purpose, generator_seed, noise
from tests.transcription import assert_bits, differ, drawn, numerics64

SHAPE = (1, 13, 5)
STREAMS = [(Purpose.INITIAL, 0), (Purpose.MASK, 0), (Purpose.STEP, 0), (Purpose.STEP, 1), (Purpose.STEP, 10)]


def randn(seed: int, frames: int, channels: int) -> torch.Tensor:
    """Channels first, as the draw is specified, then frames first."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, channels, frames, generator=generator).transpose(1, 2).contiguous()


@drawn
@given(seed=st.integers(0, MAX_SEED), frames=st.integers(1, 40), channels=st.integers(1, 8))
def test_initial_noise_is_randn_of_the_seed_with_channels_first(seed: int, frames: int, channels: int) -> None:
    assert_bits(noise(seed, Purpose.INITIAL, 0, (1, frames, channels)), randn(seed, frames, channels))


def test_initial_noise_is_not_drawn_with_frames_first() -> None:
    generator = torch.Generator().manual_seed(3)
    assert differ(noise(3, Purpose.INITIAL, 0, SHAPE), torch.randn(SHAPE, generator=generator))


def test_initial_noise_does_not_depend_on_the_step() -> None:
    assert_bits(noise(3, Purpose.INITIAL, 4, SHAPE), noise(3, Purpose.INITIAL, 0, SHAPE))


@drawn
@given(seed=st.integers(0, MAX_SEED), purpose=st.sampled_from([Purpose.STEP, Purpose.MASK]), step=st.integers(0, 200))
def test_other_noise_is_randn_of_a_hashed_seed(seed: int, purpose: Purpose, step: int) -> None:
    hashed = numerics64.purpose_seed(seed, purpose.value, step)
    assert generator_seed(seed, purpose, step) == hashed
    assert_bits(noise(seed, purpose, step, SHAPE), randn(hashed, 13, 5))


@pytest.mark.parametrize(
    ("seed", "purpose", "step", "digest"),
    [  # the first 16 digits that sha256sum prints for "7/step/3" and so on
        (7, Purpose.STEP, 3, "32ae23f63be06b1c"),
        (0, Purpose.MASK, 0, "74eea728398b895a"),
        (MAX_SEED, Purpose.STEP, 0, "c9baeea725822b08"),
    ],
)
def test_the_hashed_seed_is_what_another_program_computes(seed: int, purpose: Purpose, step: int, digest: str) -> None:
    assert generator_seed(seed, purpose, step) == int(digest, 16)
    assert numerics64.purpose_seed(seed, purpose.value, step) == int(digest, 16)


def test_a_hashed_seed_whose_first_byte_is_high_uses_all_64_bits() -> None:
    assert generator_seed(MAX_SEED, Purpose.STEP, 0) >= 2**63


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**63, MAX_SEED])
@pytest.mark.parametrize(("purpose", "step"), STREAMS)
def test_every_seed_a_generator_takes_gives_normal_values(seed: int, purpose: Purpose, step: int) -> None:
    drawn_noise = noise(seed, purpose, step, (1, 500, 4))
    assert abs(float(drawn_noise.mean())) < 0.1  # four standard errors of 2000 values
    assert abs(float(drawn_noise.std()) - 1) < 0.1


def test_streams_and_seeds_differ_from_each_other() -> None:
    made = [noise(seed, purpose, step, SHAPE) for seed in (0, 1, MAX_SEED) for purpose, step in STREAMS]
    assert all(differ(one, other) for i, one in enumerate(made) for other in made[:i])


@pytest.mark.parametrize(("purpose", "step"), STREAMS)
def test_the_global_generator_is_neither_used_nor_moved(purpose: Purpose, step: int) -> None:
    state = torch.get_rng_state()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        before = torch.get_rng_state()
        first = noise(9, purpose, step, SHAPE)
        assert torch.equal(torch.get_rng_state(), before)
        torch.default_generator.manual_seed(2)
        assert_bits(noise(9, purpose, step, SHAPE), first)
    assert torch.equal(torch.get_rng_state(), state)


def test_draws_do_not_depend_on_the_draws_before_them() -> None:
    alone = noise(9, Purpose.STEP, 2, SHAPE)
    for purpose, step in STREAMS:
        noise(9, purpose, step, (1, 3, 2))
    assert_bits(noise(9, Purpose.STEP, 2, SHAPE), alone)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 8), (1, 8, 1), (1, 7, 64)])
def test_noise_has_the_shape_asked_for_and_is_contiguous(shape: tuple[int, int, int]) -> None:
    made = noise(0, Purpose.STEP, 0, shape)
    assert tuple(made.shape) == shape
    assert made.dtype == torch.float32
    assert made.is_contiguous()
    assert made.stride(1) == shape[2] or shape[1] == 1


def test_each_call_returns_a_tensor_of_its_own() -> None:
    first = noise(0, Purpose.STEP, 0, SHAPE)
    kept = first.clone()
    noise(0, Purpose.STEP, 0, SHAPE).zero_()
    assert_bits(first, kept)


def test_the_default_dtype_has_no_say() -> None:
    want, before = noise(4, Purpose.STEP, 1, SHAPE), torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert_bits(noise(4, Purpose.STEP, 1, SHAPE), want)
    finally:
        torch.set_default_dtype(before)


def test_the_purposes_are_the_three_that_are_specified() -> None:
    assert [purpose.value for purpose in Purpose] == ["initial", "step", "mask"]


def test_the_default_device_has_no_say() -> None:
    want = noise(4, Purpose.STEP, 1, SHAPE)
    with torch.device("meta"):
        assert_bits(noise(4, Purpose.STEP, 1, SHAPE), want)


def test_noise_for_another_device_goes_there() -> None:
    assert noise(4, Purpose.STEP, 1, SHAPE, "meta").is_meta


@pytest.mark.parametrize("seed", [0, 5, 2**32 - 1])
def test_seeds_that_are_equal_modulo_2_to_the_32_share_initial_noise_and_no_other(seed: int) -> None:
    for far in (seed + 2**32, seed + 2**63):
        assert_bits(noise(far, Purpose.INITIAL, 0, SHAPE), noise(seed, Purpose.INITIAL, 0, SHAPE))
        assert not torch.equal(noise(far, Purpose.STEP, 0, SHAPE), noise(seed, Purpose.STEP, 0, SHAPE))
    near = noise((seed + 2**31) % 2**32, Purpose.INITIAL, 0, SHAPE)
    assert not torch.equal(near, noise(seed, Purpose.INITIAL, 0, SHAPE))
