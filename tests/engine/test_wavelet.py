from __future__ import annotations

import numpy as np
import pytest
import pywt
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from harness.engine import wavelet
from harness.engine.wavelet import DCWMode
from tests.transcription import Case, assert_bits, assert_rounds_to, cases, differ, drawn, f64, numerics64

WAVELETS = ["haar", "db4", "sym5", "bior2.2"]
names = st.sampled_from(WAVELETS)


def scalar(value: float) -> Tensor:
    return torch.full((1, 1, 1), value, dtype=torch.float32)


def reach(name: str, inverse: bool = False) -> float:
    """The most a filter of this wavelet can make of a signal of magnitude 1, for both bands together in the inverse."""
    _, _, low, high = filters = pywt.Wavelet(name).filter_bank
    if inverse:
        return float(np.abs(low).sum() + np.abs(high).sum())
    return max(float(np.abs(taps).sum()) for taps in filters[:2])


def there_and_back(name: str) -> float:
    return reach(name) * reach(name, inverse=True)


def roundings(name: str) -> float:
    """One rounding a tap, and one for the tap itself, which is float32 here and float64 there."""
    return pywt.Wavelet(name).dec_len + 4


@drawn
@given(case=cases, name=names)
def test_the_transform_is_that_of_pywavelets_with_zeros_outside(case: Case, name: str) -> None:
    x = case.latent()
    for got, want in zip(wavelet.dwt(x, name), numerics64.dwt(f64(x), name), strict=True):
        assert_rounds_to(got, want, reach(name) * x, roundings=roundings(name))


@pytest.mark.parametrize("name", WAVELETS)
@pytest.mark.parametrize("frames", [1, 2, 3, 16, 17])
def test_a_band_has_one_value_for_two_frames_and_the_filters_overhang(name: str, frames: int) -> None:
    length = (frames + pywt.Wavelet(name).dec_len - 1) // 2
    low, high = wavelet.dwt(Case(frames, 3, 0).latent(), name)
    assert tuple(low.shape) == tuple(high.shape) == (1, length, 3)


@drawn
@given(case=cases, name=names)
def test_the_inverse_is_that_of_pywavelets(case: Case, name: str) -> None:
    length = (case.frames + pywt.Wavelet(name).dec_len - 1) // 2
    bands = Case(length, case.channels, case.seed)
    low, high = bands.latent(), bands.latent()
    got = wavelet.idwt(low, high, name, case.frames)
    want = numerics64.idwt(f64(low), f64(high), name, case.frames)
    largest = max(float(low.abs().max()), float(high.abs().max()))
    assert_rounds_to(got, want, reach(name, inverse=True) * largest, roundings=roundings(name))
    assert got.is_contiguous()


@drawn
@given(case=cases, name=names)
def test_transform_and_inverse_give_the_signal_back(case: Case, name: str) -> None:
    x = case.latent()
    got = wavelet.idwt(*wavelet.dwt(x, name), name, case.frames)
    assert_rounds_to(got, f64(x), there_and_back(name) * x, roundings=2 * roundings(name))


def corrected(mode: DCWMode, case: Case, t: float, a: Tensor | None, b: Tensor | None, name: str) -> Tensor:
    stepped, x, v = case.latent(), case.latent(), case.latent()
    return wavelet.correct(mode, stepped, x - t * v, t, a, b, name)


@drawn
@given(case=cases, name=names, mode=st.sampled_from(DCWMode), per_frame=st.booleans())
def test_the_correction_follows_its_formula(case: Case, name: str, mode: DCWMode, per_frame: bool) -> None:
    t, _ = case.times()
    frames = case.frames if per_frame else 1
    a, b = (torch.from_numpy(case.rng.uniform(0.1, 1.0, (1, frames, 1)).astype(np.float32)) for _ in range(2))
    twin = Case(case.frames, case.channels, case.seed)
    stepped, x, v = (twin.latent() for _ in range(3))
    want = numerics64.dcw(f64(stepped), f64(x), f64(v), t, mode=mode.value, a=f64(a), b=f64(b), wavelet=name)
    got = wavelet.correct(mode, stepped, x - t * v, t, a, b, name)
    # Two transforms, a gain of at most 1 on their difference, and the way back.
    size = 1.0 if mode is DCWMode.PIX else there_and_back(name)
    assert_rounds_to(got, want, 3 * size * stepped, size * x, size * v, roundings=2 * roundings(name))


def test_the_modes_differ_from_each_other() -> None:
    made = [corrected(mode, Case(16, 3, 1), 0.3, scalar(0.5), scalar(0.5), "db4") for mode in DCWMode]
    assert all(differ(one, other) for i, one in enumerate(made) for other in made[:i])


@pytest.mark.parametrize("t", [0.9, 0.3])
def test_low_bands_are_weighted_by_the_time_and_high_bands_by_the_rest_of_it(t: float) -> None:
    stepped, clean, gain = Case(16, 3, 2).latent(), Case(16, 3, 3).latent(), scalar(0.37)
    (xl, xh), (yl, yh) = wavelet.dwt(stepped, "db4"), wavelet.dwt(clean, "db4")
    low, high = xl + t * gain * (xl - yl), xh + (1 - t) * gain * (xh - yh)
    for mode, want in ((DCWMode.LOW, (low, xh)), (DCWMode.HIGH, (xl, high)), (DCWMode.DOUBLE, (low, high))):
        got = wavelet.correct(mode, stepped, clean, t, gain, gain, "db4")
        assert_bits(got, wavelet.idwt(*want, "db4", 16))


def test_the_gain_meets_the_time_before_it_meets_the_difference() -> None:
    case, t, gain = Case(40, 8, 4), 0.3, scalar(0.37)
    stepped, clean = case.latent(), case.latent()
    (xl, xh), (yl, _) = wavelet.dwt(stepped, "haar"), wavelet.dwt(clean, "haar")
    factor = np.float32(t) * gain.numpy()
    got = wavelet.correct(DCWMode.LOW, stepped, clean, t, gain, None, "haar")
    want = torch.from_numpy(xl.numpy() + factor * (xl.numpy() - yl.numpy()))
    assert_bits(got, wavelet.idwt(want, xh, "haar", 40))
    other = torch.from_numpy(xl.numpy() + np.float32(t) * (gain.numpy() * (xl.numpy() - yl.numpy())))
    assert differ(got, wavelet.idwt(other, xh, "haar", 40))


def test_pix_corrects_without_a_transform_or_the_time() -> None:
    case, gain = Case(40, 8, 5), scalar(0.37)
    stepped, clean = case.latent(), case.latent()
    want = torch.from_numpy(stepped.numpy() + gain.numpy() * (stepped.numpy() - clean.numpy()))
    for t in (0.9, 0.3):
        assert_bits(wavelet.correct(DCWMode.PIX, stepped, clean, t, gain, None, "haar"), want)


@pytest.mark.parametrize("mode", DCWMode)
def test_without_a_gain_the_state_comes_back_untransformed(mode: DCWMode) -> None:
    stepped = Case(16, 3, 6).latent()
    assert wavelet.correct(mode, stepped, torch.zeros_like(stepped), 0.3, None, None, "db4") is stepped


def test_a_band_without_a_gain_is_left_alone() -> None:
    args = (Case(16, 3, 7).latent(), Case(16, 3, 8).latent(), 0.3)
    gain = scalar(0.5)
    low = wavelet.correct(DCWMode.LOW, *args, gain, None, "db4")
    high = wavelet.correct(DCWMode.HIGH, *args, gain, None, "db4")
    assert_bits(wavelet.correct(DCWMode.DOUBLE, *args, gain, None, "db4"), low)
    assert_bits(wavelet.correct(DCWMode.DOUBLE, *args, None, gain, "db4"), high)


@pytest.mark.parametrize("mode", [DCWMode.LOW, DCWMode.HIGH, DCWMode.PIX])
def test_only_double_uses_the_second_scaler(mode: DCWMode) -> None:
    case = Case(16, 3, 9)
    args = (case.latent(), case.latent(), 0.3, scalar(0.5))
    assert_bits(wavelet.correct(mode, *args, scalar(9.0), "db4"), wavelet.correct(mode, *args, None, "db4"))


@drawn
@given(case=cases, length=st.integers(2, 50))
def test_a_curve_is_resampled_in_a_line_between_cell_centres(case: Case, length: int) -> None:
    curve = Case(case.frames, 1, case.seed).latent()
    got = wavelet.resample(curve, length)
    if case.frames == 1:
        assert got is curve
        return
    want = numerics64.resampled(f64(curve), length)
    # A place on the curve is itself float32: up to T of them, and a slope of at most twice the magnitude.
    assert_rounds_to(got, want, curve, roundings=4 + 2 * case.frames)
    centres = (np.arange(length) + 0.5) * case.frames / length - 0.5
    assert np.allclose(want[0, :, 0], np.interp(centres, np.arange(case.frames), f64(curve)[0, :, 0]), atol=1e-12)


@drawn
@given(case=cases, length=st.integers(1, 50))
def test_resampling_is_torchs_linear_interpolation(case: Case, length: int) -> None:
    curve = Case(case.frames + 1, 1, case.seed).latent()
    want = functional.interpolate(curve[:, :, 0][None], size=length, mode="linear", align_corners=False)
    assert_bits(wavelet.resample(curve, length), want[0, :, :, None])


def test_a_curve_has_the_length_that_is_asked_for_also_where_the_ratio_of_lengths_is_rounded() -> None:
    asked = [(n, length) for n in range(2, 100) for length in (1, 5, 50, 375)]
    assert sum(int(n * (length / n)) != length for n, length in asked) > 3, "a ratio alone would miss these"
    for n, length in asked:
        assert wavelet.resample(torch.linspace(0, 1, n).reshape(1, n, 1), length).shape == (1, length, 1), (n, length)


def test_a_curve_of_the_right_length_stays_as_it_is() -> None:
    curve = Case(9, 1, 10).latent()
    assert wavelet.resample(curve, 9) is curve


def test_the_correction_is_a_function_of_its_arguments_alone() -> None:
    case = Case(17, 4, 11)
    stepped, clean, a = case.latent(), case.latent(), Case(17, 1, 12).latent()
    kept = [tensor.clone() for tensor in (stepped, clean, a)]
    first = wavelet.correct(DCWMode.DOUBLE, stepped, clean, 0.3, a, a, "sym5")
    assert_bits(wavelet.correct(DCWMode.DOUBLE, stepped, clean, 0.3, a, a, "sym5"), first)
    for tensor, copy in zip((stepped, clean, a), kept, strict=True):
        assert_bits(tensor, copy)


@pytest.mark.parametrize("name", [*WAVELETS, "db1", "coif3", "rbio3.1", "db38"])
def test_a_wavelet_that_reconstructs_is_within_the_bound(name: str) -> None:
    assert wavelet.reconstruction_error(name) < wavelet.RECONSTRUCTION_BOUND


def test_every_discrete_wavelet_but_dmey_reconstructs() -> None:
    beyond = {
        name
        for name in pywt.wavelist(kind="discrete")
        if wavelet.reconstruction_error(name) > wavelet.RECONSTRUCTION_BOUND
    }
    assert beyond == {"dmey"}


def test_the_bound_is_a_hundred_thousandth() -> None:
    assert wavelet.RECONSTRUCTION_BOUND == 1e-5


@pytest.mark.parametrize("name", ["morl", "gaus1", "mexh", "cmor", "Haar", "daubechies", ""])
def test_a_wavelet_that_is_not_discrete_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name!r} is not among"):
        wavelet.reconstruction_error(name)


def test_the_modes_are_the_four_that_are_specified() -> None:
    assert [mode.value for mode in DCWMode] == ["low", "high", "double", "pix"]


def test_defaults_of_dtype_and_device_have_no_say() -> None:
    x = torch.linspace(-1, 1, 24).reshape(1, 12, 2)
    want = wavelet.dwt(x, "db2")
    for default in (torch.device("meta"), None):
        wavelet._FILTERS.clear()
        if default is None:
            torch.set_default_dtype(torch.float64)
        try:
            with default or torch.device("cpu"):
                got = wavelet.dwt(x, "db2")
        finally:
            torch.set_default_dtype(torch.float32)
        for a, b in zip(got, want, strict=True):
            assert_bits(a, b)


def test_filters_are_where_the_signal_is() -> None:
    low, high = wavelet.dwt(torch.ones(1, 12, 2, device="meta"), "db2")
    assert low.is_meta
    assert high.is_meta


def test_filters_made_in_inference_mode_serve_gradients_outside_it() -> None:
    wavelet._FILTERS.clear()
    with torch.inference_mode():
        wavelet.dwt(torch.ones(1, 6, 1), "haar")
    x = torch.ones(1, 6, 1, requires_grad=True)
    low, high = wavelet.dwt(x, "haar")
    wavelet.idwt(low, high, "haar", 6).sum().backward()
    assert x.grad is not None
    assert (x.grad - 1.0).abs().max() < 1e-6


def test_a_transform_by_the_same_filters_makes_them_once() -> None:
    wavelet._FILTERS.clear()
    moved = []

    def move(bank: Tensor, device: torch.device) -> Tensor:
        moved.append(device)
        return bank.to(device)

    for _ in range(3):
        wavelet.prepare("haar", torch.device("cpu"), move)
        wavelet.dwt(torch.ones(1, 6, 1), "haar")
    assert moved == [torch.device("cpu")] * 4, "a bank of four filters, once"


@pytest.mark.parametrize("before", ["tf32", "ieee"])
def test_convolutions_on_a_gpu_are_ieee_inside_and_as_before_outside(before: str) -> None:
    convolutions = torch.backends.cudnn.conv
    kept = convolutions.fp32_precision
    convolutions.fp32_precision = before
    try:
        with wavelet._ieee_convolutions(torch.device("cpu")):
            assert convolutions.fp32_precision == before
        with wavelet._ieee_convolutions(torch.device("cuda")):
            assert convolutions.fp32_precision == "ieee"
        assert convolutions.fp32_precision == before
    finally:
        convolutions.fp32_precision = kept


@pytest.mark.parametrize("error", [0.5, -0.5])
def test_a_transform_that_loses_something_is_measured_whatever_the_sign(
    error: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    inverse = wavelet.idwt
    monkeypatch.setattr(wavelet, "idwt", lambda *arguments: inverse(*arguments) + error)
    wavelet.reconstruction_error.cache_clear()
    try:
        assert abs(wavelet.reconstruction_error("haar") - 0.5) < 1e-5
    finally:
        wavelet.reconstruction_error.cache_clear()
