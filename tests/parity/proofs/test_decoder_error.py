"""Contracts of accelerations: exact is bits, and the other ratios have an interval that must stay below a bound."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine.decoders import AceStepDecoder
from harness.engine.decoders.accelerated import AcceleratedDecoder
from harness.engine.decoders.decoder_switches import PLAIN
from harness.parity.proofs.decoder_error import BOUND, Case, Lengths, Verdict, drawn, judge, ratio, yardstick
from harness.parity.proofs.decoder_reference import ReferenceDecoder

CASE = Case(rows=2, frames=13, tokens=5, lengths=Lengths.MIXED)


def tiny(dtype: torch.dtype = torch.bfloat16) -> AceStepDecoder:
    return AceStepDecoder.preset("tiny", 0, dtype=dtype)


class Wrong:
    """A decoder whose velocity has noise of some size, drawn of what it is given, in the plain decoder's dtype."""

    def __init__(self, plain: AceStepDecoder, size: float) -> None:
        self._plain, self._size = plain, size

    def __call__(self, **inputs: Tensor) -> Tensor:
        velocity = self._plain(**inputs)
        draw = torch.Generator().manual_seed(int(inputs["hidden_states"].double().sum() * 1e6) % 2**31)
        return velocity + self._size * torch.randn(velocity.shape, generator=draw).to(velocity.dtype)


def found(decoder: Any, plain: AceStepDecoder, inputs: int = 6, case: Case = CASE) -> Any:
    return judge(decoder, yardstick(plain, case, inputs, steps=2))


def test_equal_bits_are_exact() -> None:
    plain = tiny()
    finding = found(AcceleratedDecoder(plain, PLAIN.turned_on("fused_products")), plain)
    assert (finding.verdict, finding.apart, finding.inputs) == (Verdict.EXACT, True, 6)
    assert finding.velocity.ratio == finding.velocity.high == finding.latent.ratio == 1


def test_the_plain_decoder_and_the_reference_run_for_the_yardstick_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, runs, reference = tiny(), list[str](), ReferenceDecoder.__call__
    plain.register_forward_hook(lambda *_: runs.append("plain"))
    monkeypatch.setattr(
        ReferenceDecoder, "__call__", lambda self, **given: runs.append("reference") or reference(self, **given)
    )
    by = yardstick(plain, CASE, inputs=3, steps=2)
    assert Counter(runs) == {"plain": 9, "reference": 9}, "a velocity and two steps for each of the inputs"
    fast = AcceleratedDecoder(plain, PLAIN.turned_on("fused_products"))
    assert [judge(fast, by).inputs for _variant in range(2)] == [3, 3]
    assert len(runs) == 18


@pytest.mark.parametrize(("size", "verdict"), [(1e-4, Verdict.WITHIN), (0.3, Verdict.EXCEEDS)])
def test_what_is_not_exact_is_judged_by_its_error(size: float, verdict: Verdict) -> None:
    plain = tiny()
    finding = found(Wrong(plain, size), plain)
    assert finding.verdict is verdict
    assert (finding.velocity.high > BOUND) == (verdict is Verdict.EXCEEDS)


def test_a_velocity_within_its_bound_makes_up_for_no_latent_beyond_it() -> None:
    plain = tiny()

    def wrong_at_the_end(**given: Tensor) -> Tensor:
        last = torch.equal(given["timestep"], torch.full((2,), 0.5))
        return plain(**given) * (1.1 if last else 1)

    finding = found(wrong_at_the_end, plain)
    assert (finding.verdict, finding.velocity.ratio) == (Verdict.EXCEEDS, 1) and finding.latent.low > BOUND


def test_one_other_bit_for_one_of_the_inputs_is_not_exact() -> None:
    plain = tiny()
    odd = drawn(CASE, 2, plain)["hidden_states"]

    def one_bit(**given: Tensor) -> Tensor:
        velocity = plain(**given)
        if torch.equal(given["hidden_states"], odd):
            velocity.view(torch.int16)[1, 12, 7] ^= 1
        return velocity

    assert found(one_bit, plain, inputs=2).verdict is Verdict.EXACT
    assert found(one_bit, plain, inputs=4).verdict is Verdict.WITHIN


def test_a_sign_of_zero_is_no_equal_bit() -> None:
    plain = tiny()

    def zeros(sign: float) -> Any:
        return lambda **given: torch.full_like(given["hidden_states"], sign * 0.0)

    assert found(zeros(-1.0), plain).verdict is Verdict.EXCEEDS, "and far from the reference"


def test_a_row_that_depends_on_others_is_named() -> None:
    plain = tiny()
    finding = found(lambda **given: plain(**given) + given["hidden_states"].mean().to(torch.bfloat16) * 0, plain)
    assert finding.apart
    finding = found(lambda **given: plain(**given) * (1 + given["hidden_states"][1:].sum().sin() / 4), plain)
    assert not finding.apart


def test_nan_passes_nothing() -> None:
    plain = tiny()
    assert found(lambda **given: plain(**given) * torch.nan, plain).verdict is Verdict.EXCEEDS


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_inputs_are_exact_in_the_dtype_and_other_for_every_seed_and_row(dtype: torch.dtype) -> None:
    first, second = (drawn(CASE, seed, tiny(dtype)) for seed in (0, 1))
    for name, value in first.items():
        if name != "encoder_mask":
            assert torch.equal(value, value.to(dtype).float())
            assert not torch.equal(value, second[name]) and not torch.equal(value[0], value[1])
    times = first["timestep"] * 1000
    assert torch.equal(times, times.to(dtype).float()), "nor does the model's own factor round"
    assert first["encoder_mask"].any(1).all()
    assert not torch.equal(first["encoder_mask"][0], first["encoder_mask"][1])


def test_a_ratio_s_interval_holds_the_ratio_and_narrows_with_more_inputs() -> None:
    draw = random.Random(1)
    widths = []
    for count in (16, 256):
        plain = [1 + draw.random() for _ in range(count)]
        made = ratio([each * (1.05 + 0.2 * draw.random()) for each in plain], plain)
        assert 1.05 < made.low < made.ratio < made.high < 1.25
        widths.append(made.high - made.low)
    assert widths[1] < widths[0] / 2
    assert ratio([3.0] * 4, [2.0] * 4).ratio == 1.5
