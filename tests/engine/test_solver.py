from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from hypothesis import given

from harness.engine import solver
from harness.engine.schedule import timesteps
from tests.transcription import EPS, Case, assert_bits, assert_rounds_to, cases, differ, drawn, f64, numerics64

ONE = np.float32(1)
T, S = 0.8333333134651184, 0.75
"""Two neighbouring times of the turbo schedule."""


@drawn
@given(case=cases)
def test_euler_follows_its_formula(case: Case) -> None:
    x, v, vs, (t, s) = case.latent(), case.latent(), case.curve(0.5, 1.5), case.times()
    want = numerics64.euler(f64(x), f64(v), t, s, f64(vs))
    assert_rounds_to(solver.euler(x, v * vs, t, s), want, x, 1.5 * v)


def test_euler_is_two_roundings() -> None:
    case = Case(40, 64, 0)
    x, v = case.latent(), case.latent()
    got = solver.euler(x, v, T, S)
    assert_bits(got, torch.from_numpy(x.numpy() + np.float32(S - T) * v.numpy()))
    assert_bits(got, torch._foreach_add([x], torch._foreach_mul([v], S - T))[0])
    fused = (x.double() + (S - T) * v.double()).float()
    assert differ(got, fused)  # this data tells a contraction


def test_euler_differs_from_an_addition_with_alpha() -> None:
    """Where `add` with `alpha` contracts, as it does on the vector units this runs on, its bits are others."""
    case = Case(40, 64, 0)
    x, v = case.latent(), case.latent()
    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("without vector units `alpha=` may round twice")
    assert differ(solver.euler(x, v, T, S), torch.add(x, v, alpha=S - T))


@drawn
@given(case=cases)
def test_the_estimate_follows_its_formula(case: Case) -> None:
    x, v, vs, (t, _) = case.latent(), case.latent(), case.curve(0.5, 1.5), case.times()
    want = numerics64.clean_estimate(f64(x), f64(v), t, f64(vs))
    assert_rounds_to(solver.denoised(x, v * vs, t), want, x, 1.5 * v)


def test_the_estimate_is_two_roundings() -> None:
    case = Case(40, 64, 1)
    x, v = case.latent(), case.latent()
    got = solver.denoised(x, v, T)
    assert_bits(got, torch.from_numpy(x.numpy() - np.float32(T) * v.numpy()))
    assert differ(got, (x.double() - T * v.double()).float())


def test_the_estimate_of_a_flow_matching_state_is_where_it_came_from() -> None:
    case = Case(9, 4, 2)
    noise, clean = case.latent(), case.latent()
    x, v = T * noise + (1 - T) * clean, noise - clean
    assert_rounds_to(solver.denoised(x, v, T), f64(clean), noise, clean)


@drawn
@given(case=cases)
def test_a_step_through_an_edited_estimate_follows_its_formula(case: Case) -> None:
    x, x0, (t, s) = case.latent(), case.latent(), case.times()
    want = numerics64.edited_step(f64(x), f64(x0), t, s)
    assert_rounds_to(solver.euler_through(x, x0, t, s), want, x, x, x0)


def test_a_step_through_an_edited_estimate_has_its_factor_from_the_host() -> None:
    case = Case(40, 64, 3)
    x, x0 = case.latent(), case.latent()
    want = x.numpy() + np.float32((S - T) / T) * (x.numpy() - x0.numpy())
    assert_bits(solver.euler_through(x, x0, T, S), torch.from_numpy(want))
    late = x.numpy() + np.float32(S - T) * ((x.numpy() - x0.numpy()) / np.float32(T))
    assert differ(torch.from_numpy(want), torch.from_numpy(late))


def test_a_step_through_an_unedited_estimate_is_eulers() -> None:
    case = Case(40, 4, 4)
    x, v = case.latent(), case.latent()
    got = solver.euler_through(x, solver.denoised(x, v, T), T, S)
    assert_rounds_to(got, f64(solver.euler(x, v, T, S)), x, v)


@pytest.mark.parametrize("t", [0.3, 0.0])
def test_the_last_step_through_an_estimate_ends_on_it(t: float) -> None:
    case = Case(5, 3, 5)
    x, x0 = case.latent(), case.latent()
    assert solver.euler_through(x, x0, t, 0.0) is x0


@drawn
@given(case=cases)
def test_injection_follows_its_formula(case: Case) -> None:
    x, z, on, (_, s) = case.latent(), case.latent(), case.curve(), case.times()
    want = numerics64.inject(f64(x), f64(z), f64(on), s)
    assert_rounds_to(solver.inject(x, z, on, s), want, x, z)


def test_injection_multiplies_by_the_curve_then_by_the_time() -> None:
    case = Case(40, 64, 6)
    x, z, on = case.latent(), case.latent(), torch.full((1, 1, 1), 0.37)
    nx, nz, non = x.numpy(), z.numpy(), on.numpy()
    want = torch.from_numpy(nx + nz * non * np.float32(T))
    assert_bits(solver.inject(x, z, on, T), want)
    assert differ(want, torch.from_numpy(nx + nz * (non * np.float32(T))))


@drawn
@given(case=cases)
def test_the_sde_step_follows_its_formula(case: Case) -> None:
    x0, z, (_, s) = case.latent(), case.latent(), case.times()
    assert_rounds_to(solver.sde(x0, z, s), numerics64.sde_step(f64(x0), f64(z), s), x0, z)


def test_the_sde_step_is_two_products_and_a_sum() -> None:
    case = Case(40, 64, 7)
    x0, z = case.latent(), case.latent()
    want = torch.from_numpy(np.float32(T) * z.numpy() + np.float32(1 - T) * x0.numpy())
    assert_bits(solver.sde(x0, z, T), want)
    assert differ(want, x0 + T * (z - x0))


def test_the_last_sde_step_ends_on_the_estimate() -> None:
    x0 = Case(5, 3, 8).latent()
    assert solver.sde(x0, None, 0.0) is x0


@drawn
@given(case=cases)
def test_the_sde_curve_step_follows_its_formula(case: Case) -> None:
    x0, source, z, q, (_, s) = case.latent(), case.latent(), case.latent(), case.curve(), case.times()
    want = numerics64.sde_curve_step(f64(x0), f64(source), f64(z), s, f64(q))
    assert_rounds_to(solver.sde_curve(x0, source, z, q, s), want, x0, source, z)
    want = numerics64.sde_curve_step(f64(x0), f64(source), None, 0.0, f64(q))
    assert_rounds_to(solver.sde_curve(x0, source, None, q, 0.0), want, x0, source)


def test_the_sde_curve_step_noises_both_before_it_mixes() -> None:
    case, q = Case(40, 64, 9), torch.rand(1, 40, 1, generator=torch.Generator().manual_seed(1))
    x0, source, z = case.latent(), case.latent(), case.latent()
    n0, ns, nz, nq, s, rest = x0.numpy(), source.numpy(), z.numpy(), q.numpy(), np.float32(S), np.float32(1 - S)
    want = torch.from_numpy(nq * (s * nz + rest * n0) + (ONE - nq) * (s * nz + rest * ns))
    assert_bits(solver.sde_curve(x0, source, z, q, S), want)
    assert differ(want, torch.from_numpy(s * nz + rest * (nq * n0 + (ONE - nq) * ns)))


def test_an_sde_curve_of_zero_follows_the_source_and_of_one_the_estimate() -> None:
    case = Case(7, 3, 10)
    x0, source, z = case.latent(), case.latent(), case.latent()
    for value, end in ((0.0, source), (1.0, x0)):
        q = torch.full((1, 1, 1), value)
        assert_bits(solver.sde_curve(x0, source, None, q, 0.0), end)
        assert_bits(solver.sde_curve(x0, source, z, q, S), S * z + (1 - S) * end)


@drawn
@given(case=cases)
def test_the_initial_state_of_a_partial_run_is_the_source_at_its_first_time(case: Case) -> None:
    noise, source = case.latent(), case.latent()
    t_first = timesteps(8, 0.5, 3.0)[0]
    want = numerics64.initial_state(f64(noise), f64(source), denoise=0.5, t_first=t_first)
    assert_rounds_to(solver.renoised(source, noise, t_first), want, noise, source)


def test_no_step_writes_to_what_it_is_given() -> None:
    case = Case(6, 4, 11)
    inputs = [case.latent() for _ in range(3)]
    kept, (x, v, z), on = [tensor.clone() for tensor in inputs], inputs, torch.full((1, 1, 1), 0.5)
    solver.euler(x, v, T, S)
    solver.euler_through(x, v, T, S)
    solver.inject(x, z, on, S)
    solver.sde_curve(x, v, z, on, S)
    for tensor, copy in zip(inputs, kept, strict=True):
        assert_bits(tensor, copy)


def test_a_whole_run_of_eulers_steps_is_that_of_diffusers() -> None:
    case, steps = Case(31, 8, 12), 8
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=3.0)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.0, steps + 1)[:-1].tolist())
    times = timesteps(steps, 1.0, 3.0)
    x = case.latent()
    theirs = x.clone()
    for t, s, sigma in zip(times, times[1:], scheduler.timesteps, strict=False):
        v = case.latent()
        x = solver.euler(x, v, t, s)
        theirs = scheduler.step(v, sigma, theirs, return_dict=False)[0]
        # The same two roundings a step; the times may lie two roundings apart, so each step adds that much of `v`.
        assert_rounds_to(x, f64(theirs), 4.0, 4.0, roundings=steps)


def test_one_euler_step_has_the_bits_of_diffusers_at_its_own_times() -> None:
    case = Case(31, 8, 13)
    x, v = case.latent(), case.latent()
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=3.0)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.0, 9)[:-1].tolist())
    t, s = scheduler.sigmas[:2].tolist()
    assert_bits(solver.euler(x, v, t, s), scheduler.step(v, scheduler.timesteps[0], x, return_dict=False)[0])
    assert abs(t - 1) <= EPS
