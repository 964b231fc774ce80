from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from harness.engine import guidance
from tests.transcription import Case, assert_bits, assert_rounds_to, cases, differ, drawn, f64, numerics64

THRESHOLD = 2.5


def scalar(value: float) -> Tensor:
    return torch.full((1, 1, 1), value, dtype=torch.float32)


def roundings(case: Case) -> float:
    """A norm over T frames adds T roundings to the handful of a formula."""
    return 6 + case.frames


@dataclass(frozen=True)
class Settings:
    scale: Tensor
    momentum: float
    threshold: float | None
    eta: float


def walk(case: Case, s: Settings, steps: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Positive velocity, guided velocity and running average of some steps of one slot."""
    average, out = torch.zeros(1, case.frames, case.channels), []
    for _ in range(steps):
        v_pos, v_neg = case.latent(), case.latent()
        average = guidance.running_average(v_pos - v_neg, average, scalar(s.momentum))
        out.append((v_pos, guidance.guide(v_pos, average, s.scale, s.threshold, s.eta), average))
    return out


@drawn
@given(case=cases, momentum=st.floats(-1, 1, width=32))
def test_the_average_follows_its_formula(case: Case, momentum: float) -> None:
    diff, average = case.latent(), case.latent()
    got = guidance.running_average(diff, average, scalar(momentum))
    want = numerics64.moving_average(f64(diff), np.zeros(1), f64(average), momentum)
    assert_rounds_to(got, want, diff, average, roundings=2)


def test_the_average_is_a_product_then_a_sum() -> None:
    case = Case(40, 6, 0)
    diff, average, momentum = case.latent(), case.latent(), scalar(-0.75)
    got = guidance.running_average(diff, average, momentum)
    assert_bits(got, torch.from_numpy(diff.numpy() + np.float32(-0.75) * average.numpy()))
    # Somewhere one rounding instead of two shows, so this data can tell a contraction.
    fused = (diff.double() + -0.7 * average.double()).float()
    assert differ(guidance.running_average(diff, average, scalar(-0.7)), fused)


@drawn
@given(case=cases, threshold=st.sampled_from([0.1, 1.0, THRESHOLD, 100.0, None]))
def test_the_clip_follows_its_formula(case: Case, threshold: float | None) -> None:
    average = case.latent()
    got = guidance.clip(average, threshold)
    assert_rounds_to(got, numerics64.clipped(f64(average), threshold), average, roundings=roundings(case))


def test_the_clip_leaves_short_channels_their_bits_and_shortens_long_ones() -> None:
    long, short = Case(40, 3, 0).latent(), Case(40, 3, 1).latent() * 0.1
    got = guidance.clip(torch.cat([long, short], dim=-1), THRESHOLD)
    assert_bits(got[..., 3:], short)
    norms = torch.linalg.vector_norm(got[..., :3], dim=1)
    assert torch.allclose(norms, torch.tensor(THRESHOLD), rtol=1e-5)  # as many roundings as frames


def test_a_channel_of_zeros_survives_the_clip() -> None:
    assert_bits(guidance.clip(torch.zeros(1, 7, 2), THRESHOLD), torch.zeros(1, 7, 2))


def test_the_clip_divides_truly() -> None:
    average = Case(40, 500, 2).latent()
    norm = torch.linalg.vector_norm(average, dim=1, keepdim=True)
    factor = torch.from_numpy(np.minimum(np.float32(1), np.float32(THRESHOLD) / norm.numpy()))
    assert_bits(guidance.clip(average, THRESHOLD), average * factor)
    assert differ(average * factor, average * (THRESHOLD / norm).clamp(max=1.0))


@drawn
@given(case=cases)
def test_the_two_parts_are_parallel_orthogonal_and_whole(case: Case) -> None:
    direction, v_pos = case.latent(), case.latent()
    orthogonal, parallel = guidance.decompose(direction, v_pos)
    assert orthogonal.dtype == parallel.dtype == torch.float64
    want = numerics64.parallel_part(f64(direction), f64(v_pos))
    # Both sides are float64; a float32 anywhere, the norm included, is a million times off.
    assert np.abs(parallel.numpy() - want).max() < 1e-12
    assert np.abs((orthogonal + parallel).numpy() - f64(direction)).max() < 1e-12
    assert float((orthogonal * v_pos.double()).sum(dim=1).abs().max()) < 1e-12


@drawn
@given(
    case=cases,
    scale=st.floats(-2, 15, width=32),
    momentum=st.sampled_from([-0.75, 0.0, 0.5]),
    threshold=st.sampled_from([THRESHOLD, 0.3, None]),
    eta=st.sampled_from([0.0, 1.0, 0.3, -0.5]),
)
@example(case=Case(33, 4, 0), scale=7.0, momentum=-0.75, threshold=THRESHOLD, eta=0.0)
def test_guidance_follows_its_formula_over_steps(
    case: Case, scale: float, momentum: float, threshold: float | None, eta: float
) -> None:
    twin = Case(case.frames, case.channels, case.seed)
    average: numerics64.Array | float = 0.0
    for v_pos, got, _ in walk(case, Settings(scalar(scale), momentum, threshold, eta), 3):
        pos, neg = f64(twin.latent()), f64(twin.latent())
        want, average = numerics64.guided(
            pos, neg, average, scale=scale, momentum=momentum, threshold=threshold, eta=eta
        )
        update = (scale - 1) * (1 + abs(eta)) * np.abs(numerics64.clipped(average, threshold)).max()
        # The parts of a direction can each be as long as the direction's norm, sqrt(T) times its largest element.
        assert_rounds_to(got, want, v_pos, update * case.frames**0.5, roundings=roundings(case))


@drawn
@given(case=cases)
def test_a_scale_per_frame_acts_frame_by_frame(case: Case) -> None:
    v_pos, average = case.latent(), case.latent()
    scale = 1 + 6 * torch.rand(1, case.frames, 1, generator=torch.Generator().manual_seed(case.seed))
    whole = guidance.guide(v_pos, average, scale, THRESHOLD, 0.0)
    for frame in range(case.frames):
        at = guidance.guide(v_pos, average, scale[:, frame : frame + 1], THRESHOLD, 0.0)
        assert_bits(whole[:, frame], at[:, frame])


@pytest.mark.parametrize("eta", [0.0, 0.3])
def test_guidance_rounds_where_it_says(eta: float) -> None:
    case = Case(33, 6, 3)
    v_pos, average, scale = case.latent(), case.latent(), scalar(7.3)
    orthogonal, parallel = guidance.decompose(guidance.clip(average, THRESHOLD), v_pos)
    update = orthogonal.numpy().astype(np.float32)
    if eta:
        update = update + (eta * parallel.numpy()).astype(np.float32)
    want = v_pos.numpy() + (scale.numpy() - np.float32(1)) * update
    assert_bits(guidance.guide(v_pos, average, scale, THRESHOLD, eta), torch.from_numpy(want))
    late = (v_pos.double() + (scale.double() - 1) * (orthogonal + eta * parallel)).float()
    assert differ(torch.from_numpy(want), late)


def test_a_scale_of_one_gives_the_positive_velocity_back() -> None:
    v_pos, average = Case(7, 4, 5).latent(), Case(7, 4, 6).latent()
    assert_bits(guidance.guide(v_pos, average, scalar(1.0), THRESHOLD, 0.0), v_pos)


def test_a_positive_velocity_of_zero_has_no_direction_to_project_on() -> None:
    average = Case(3, 2, 7).latent() * 0.1
    got = guidance.guide(torch.zeros(1, 3, 2), average, scalar(2.0), THRESHOLD, 0.0)
    assert_bits(got, average)


@drawn
@given(case=cases)
def test_channels_do_not_see_each_other(case: Case) -> None:
    v_pos, average, v = case.latent(), case.latent(), case.latent()
    guided = guidance.guide(v_pos, average, scalar(7.0), THRESHOLD, 0.3)
    rescaled = guidance.rescale(v, v_pos, scalar(0.7))
    for d in range(case.channels):
        alone = [tensor[..., d : d + 1].contiguous() for tensor in (v_pos, average, v)]
        # One channel's norm is summed in another order than several channels' are.
        sizes = (guided[..., d], guided[..., d])
        one = guidance.guide(alone[0], alone[1], scalar(7.0), THRESHOLD, 0.3)
        assert_rounds_to(one, f64(guided[..., d : d + 1]), *sizes, 18.0, roundings=roundings(case))
        one = guidance.rescale(alone[2], alone[0], scalar(0.7))
        assert_rounds_to(one, f64(rescaled[..., d : d + 1]), rescaled[..., d], 1.0, roundings=roundings(case))


@drawn
@given(case=cases, amount=st.floats(0, 1, width=32))
def test_rescale_follows_its_formula(case: Case, amount: float) -> None:
    v, v_pos = 3 * case.latent(), case.latent()
    got = guidance.rescale(v, v_pos, scalar(amount))
    want = numerics64.rescaled(f64(v), f64(v_pos), amount)
    level = numerics64.rescaled(f64(v), f64(v_pos), 1.0)
    assert_rounds_to(got, want, v, level, roundings=roundings(case))


def test_rescale_divides_truly_and_rounds_each_product() -> None:
    case = Case(33, 300, 8)
    v, v_pos, k = 3 * case.latent(), case.latent(), np.float32(0.7)
    wanted, norm = (torch.linalg.vector_norm(each, dim=1, keepdim=True).numpy() for each in (v_pos, v))
    level = v.numpy() * (wanted / norm)
    want = torch.from_numpy(k * level + (np.float32(1) - k) * v.numpy())
    assert_bits(guidance.rescale(v, v_pos, scalar(0.7)), want)
    left_to_right = torch.from_numpy(k * (v.numpy() * wanted / norm) + (np.float32(1) - k) * v.numpy())
    assert differ(want, left_to_right)


def test_a_full_rescale_has_the_positive_norm() -> None:
    case = Case(33, 4, 9)
    v, v_pos = 5 * case.latent(), case.latent()
    got = torch.linalg.vector_norm(guidance.rescale(v, v_pos, scalar(1.0)), dim=1)
    assert torch.allclose(got, torch.linalg.vector_norm(v_pos, dim=1), rtol=1e-5)


def test_a_velocity_of_zero_is_not_divided_by() -> None:
    v_pos = Case(3, 2, 1).latent()
    assert_bits(guidance.rescale(torch.zeros(1, 3, 2), v_pos, scalar(0.5)), torch.zeros(1, 3, 2))


@pytest.mark.parametrize("threshold", [None, THRESHOLD, 0.5])
@pytest.mark.parametrize("eta", [0.0, 0.4])
@pytest.mark.parametrize("momentum", [-0.75, 0.0])
@pytest.mark.parametrize("frames", [1, 16, 33])
def test_diffusers_guides_the_same(threshold: float | None, eta: float, momentum: float, frames: int) -> None:
    """Its norms run over all but the batch, ours over T: the channels go in as a batch, where the two are one."""
    case, twin, scale, buffer = Case(frames, 5, 11), Case(frames, 5, 11), 7.0, MomentumBuffer(momentum)
    for _, got, average in walk(case, Settings(scalar(scale), momentum, threshold, eta), 4):
        pos, neg = (twin.latent()[0].T.contiguous() for _ in range(2))
        want = normalized_guidance(
            pos, neg, scale - 1, buffer, eta, 0.0 if threshold is None else threshold, use_original_formulation=True
        )
        # Float32 rounding of norms of up to 33 frames, in another order and with a reciprocal for the division; the
        # update is six times a direction of norms that are rarely above the square root of the frames.
        size = 6 * float(average.abs().max()) * frames**0.5
        assert_rounds_to(got, f64(want.T.unsqueeze(0)), pos, size, roundings=roundings(case))


def test_slots_in_one_tensor_do_not_see_each_other() -> None:
    draw = torch.Generator().manual_seed(3)
    v_pos, average = torch.randn(3, 6, 4, generator=draw), torch.randn(3, 6, 4, generator=draw)

    def guided(rows: slice) -> Tensor:
        v = guidance.guide(v_pos[rows], average[rows], scalar(3.0), 0.5, 0.3)
        return guidance.rescale(v, v_pos[rows], scalar(0.7))

    alone = torch.cat([guided(slice(row, row + 1)) for row in range(3)])
    assert guided(slice(0, 3)).shape == alone.shape
    assert (guided(slice(0, 3)) - alone).abs().max() < 1e-6
