from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.engine import blend
from tests.transcription import Case, assert_bits, assert_rounds_to, cases, differ, drawn, f64, numerics64

ONE = np.float32(1)


@drawn
@given(case=cases, count=st.integers(1, 4))
def test_the_weighted_mean_follows_its_formula(case: Case, count: int) -> None:
    velocities = [case.latent() for _ in range(count)]
    weights = [case.curve(0.1, 2.0) for _ in range(count)]
    want = numerics64.weighted_mean([f64(v) for v in velocities], [f64(w) for w in weights])
    # A mean is no larger than what it is made of; each of the products and sums rounds once.
    largest = max(float(v.abs().max()) for v in velocities)
    assert_rounds_to(blend.weighted_mean(velocities, weights), want, largest, roundings=2 + 2 * count)


def test_the_weighted_mean_sums_in_order_from_the_first_product() -> None:
    case = Case(40, 6, 0)
    velocities, weights = [case.latent() for _ in range(3)], [case.curve(0.1, 2.0) for _ in range(3)]
    (p0, p1, p2), (w0, w1, w2) = [v.numpy() * w.numpy() for v, w in zip(velocities, weights, strict=True)], weights
    want = torch.from_numpy((p0 + p1 + p2) / (w0 + w1 + w2).numpy())
    assert_bits(blend.weighted_mean(velocities, weights), want)
    assert differ(want, torch.from_numpy((p0 + (p1 + p2)) / (w0 + w1 + w2).numpy()))


@pytest.mark.parametrize("frames", [1, 40])
def test_the_weighted_mean_divides_truly(frames: int) -> None:
    case = Case(40, 6, 1)
    velocities, w = [case.latent(), case.latent()], torch.full((1, frames, 1), 0.35)
    products = sum(v.numpy() * w.numpy() for v in velocities)
    total = w.numpy() + w.numpy()
    assert_bits(blend.weighted_mean(velocities, [w, w]), torch.from_numpy(products / total))
    assert differ(torch.from_numpy(products / total), torch.from_numpy(products * (ONE / total)))


def test_a_single_velocity_comes_back_whatever_its_weight() -> None:
    v = Case(7, 3, 2).latent()
    for weight in (0.0, 0.3, 2.0):
        assert blend.weighted_mean([v], [torch.full((1, 1, 1), weight)]) is v


@pytest.mark.parametrize("weight", [0.0, 1e-12])
def test_weights_of_next_to_nothing_are_not_divided_by(weight: float) -> None:
    case, w = Case(7, 3, 3), torch.full((1, 1, 1), weight)
    velocities = [case.latent(), case.latent()]
    want = numerics64.weighted_mean([f64(v) for v in velocities], [f64(w), f64(w)])
    assert_rounds_to(blend.weighted_mean(velocities, [w, w]), want, weight / 1e-8 * 5)


def test_as_many_weights_as_velocities_are_needed() -> None:
    v, w = Case(3, 2, 4).latent(), torch.ones(1, 1, 1)
    with pytest.raises(ValueError, match="zip"):
        blend.weighted_mean([v, v], [w])


@drawn
@given(case=cases)
def test_the_latent_mask_blends_by_its_formula(case: Case) -> None:
    x, original, z, mask, (t, _) = case.latent(), case.latent(), case.latent(), case.curve(), case.times()
    want = numerics64.preblend(f64(x), f64(mask), f64(original), f64(z), t)
    assert_rounds_to(blend.mask_state(x, mask, original, z, t), want, x, original, z)


def test_the_latent_mask_rounds_operation_by_operation() -> None:
    case, t = Case(40, 6, 5), 0.3
    x, original, z, mask = (case.latent() for _ in range(4))
    noised = np.float32(t) * z.numpy() + np.float32(1 - t) * original.numpy()
    want = mask.numpy() * x.numpy() + (ONE - mask.numpy()) * noised
    assert_bits(blend.mask_state(x, mask, original, z, t), torch.from_numpy(want))
    lerp = torch.lerp(torch.from_numpy(noised), x, mask)
    assert differ(torch.from_numpy(want), lerp)


def test_a_hard_mask_keeps_the_state_inside_and_the_noised_original_outside() -> None:
    case = Case(4, 3, 6)
    x, original, z = case.latent(), case.latent(), case.latent()
    mask = torch.tensor([1.0, 1.0, 0.0, 0.0]).reshape(1, 4, 1)
    got = blend.mask_state(x, mask, original, z, 0.25)
    assert_bits(got[:, :2], x[:, :2])
    assert_bits(got[:, 2:], (0.25 * z + 0.75 * original)[:, 2:])


@drawn
@given(case=cases)
def test_edits_of_the_estimate_follow_their_formulas(case: Case) -> None:
    x0, original, target, mask, a = case.latent(), case.latent(), case.latent(), case.curve(), case.curve()
    masked = numerics64.masked_edit(f64(x0), f64(mask), f64(original))
    assert_rounds_to(blend.mix(mask, x0, original), masked, x0, original)
    moved = numerics64.target_edit(f64(x0), f64(a), f64(target))
    assert_rounds_to(blend.toward(x0, target, a), moved, x0, target)
    both = numerics64.edited_x0(f64(x0), (f64(mask), f64(original)), (f64(a), f64(target)))
    assert_rounds_to(blend.toward(blend.mix(mask, x0, original), target, a), both, x0, original, target)


def test_edits_are_two_products_and_a_sum() -> None:
    case = Case(40, 6, 7)
    x0, other, weight = case.latent(), case.latent(), torch.rand(1, 40, 1, generator=torch.Generator().manual_seed(0))
    n, o, w = x0.numpy(), other.numpy(), weight.numpy()
    want = torch.from_numpy(w * n + (ONE - w) * o)
    assert_bits(blend.mix(weight, x0, other), want)
    assert_bits(blend.toward(x0, other, weight), torch.from_numpy((ONE - w) * n + w * o))
    assert differ(want, torch.from_numpy(o + w * (n - o)))


@drawn
@given(case=cases)
def test_the_initial_state_mixes_noise_and_source_by_its_curve(case: Case) -> None:
    noise, source, curve = case.latent(), case.latent(), case.curve()
    want = numerics64.initial_state(f64(noise), f64(source), f64(curve))
    assert_rounds_to(blend.mix(curve, noise, source), want, noise, source)


@drawn
@given(step=st.integers(0, 50), more=st.integers(1, 50), gate=st.floats(0, 1))
def test_the_gate_ramp_follows_its_formula(step: int, more: int, gate: float) -> None:
    assert blend.gate_ramp(step, step + more, gate) == numerics64.gate_ramp(step, step + more, gate)


@pytest.mark.parametrize(
    ("step", "total", "gate", "ramp"),
    [
        (0, 8, 0.0, 0.0),
        (7, 8, 0.0, 1.0),
        (3, 9, 0.0, 0.375),
        (4, 9, 0.5, 0.0),
        (6, 9, 0.5, 0.5),
        (2, 9, 0.5, 0.0),
        (8, 9, 0.5, 1.0),
        (7, 8, 1.0, 0.0),
        (0, 1, 0.0, 0.0),
    ],
)
def test_the_gate_opens_in_a_line_to_one_at_the_last_step(step: int, total: int, gate: float, ramp: float) -> None:
    assert blend.gate_ramp(step, total, gate) == ramp


def test_a_gate_at_the_very_end_is_not_divided_by_zero() -> None:
    assert blend.gate_ramp(7, 8, 1.0 - 1e-9) == pytest.approx(1e-3)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 33])
@pytest.mark.parametrize("frames", [1, 40])
def test_any_number_of_velocities_is_summed_one_after_another(count: int, frames: int) -> None:
    case = Case(40, 6, count)
    velocities = [case.latent() for _ in range(count)]
    weights = [case.curve(0.1, 2.0)[:, :frames] for _ in range(count)]
    total, weight = velocities[0].numpy() * weights[0].numpy(), weights[0].numpy()
    for v, w in zip(velocities[1:], weights[1:], strict=True):
        total, weight = total + v.numpy() * w.numpy(), weight + w.numpy()
    assert_bits(blend.weighted_mean(velocities, weights), torch.from_numpy(total / weight))
