"""How far a decoder is from float64, against how far another one is: the contract of an acceleration.

A velocity's error is its root mean square distance from the reference, relative to the reference's root mean square;
so is the error of a latent after a loop of Euler steps. Over several inputs, the ratio of two decoders' errors is that
of the root mean squares of their errors, with a 95 % interval by bootstrap over the inputs.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from harness.engine.decoders import AceStepDecoder, Decoder
from harness.engine.noise import Purpose, noise
from harness.parity.compare import identical
from harness.parity.proofs.decoder_reference import ReferenceDecoder, euler

BOUND = 1.1
"""Most that the upper end of a ratio's interval may be."""

STEPS = 8
INPUTS = 16
RESAMPLES = 2000


class Lengths(StrEnum):
    """Attended tokens of the rows: all tokens in every row, or other numbers from row to row."""

    FULL = "full"
    MIXED = "mixed"


@dataclass(frozen=True)
class Case:
    """What decoders are run on.

    Attributes:
        rows: number of rows N.
        frames: latent frames T.
        tokens: tokens L.
        lengths: attended tokens.
    """

    rows: int
    frames: int
    tokens: int
    lengths: Lengths


class Verdict(StrEnum):
    """Result of a comparison; `exceeds` is the only failure."""

    EXACT = "exact"
    WITHIN = "within"
    EXCEEDS = "exceeds"


@dataclass(frozen=True)
class Ratio:
    """A ratio of two errors.

    Attributes:
        error: of the decoder that is judged, over all inputs.
        plain: of the decoder that it is compared with.
        ratio: `error / plain`.
        low: lower end of the ratio's 95 % interval.
        high: upper end.
    """

    error: float
    plain: float
    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Finding:
    """The result for one decoder.

    Attributes:
        verdict: `exact` where every velocity and latent has the plain decoder's bits.
        velocity: ratio of the velocities' errors.
        latent: ratio of the latents' errors.
        apart: whether a row kept its bits where the other rows' content changed.
        inputs: number of inputs.
    """

    verdict: Verdict
    velocity: Ratio
    latent: Ratio
    apart: bool
    inputs: int


def drawn(case: Case, seed: int, decoder: AceStepDecoder) -> dict[str, Tensor]:
    """Seeded inputs that the decoder's dtype holds exactly, so that the errors are those of the computation alone.

    The times are powers of two. The model multiplies a time by 1000 and rounds: in bfloat16 this error would be several
    times all others together for other times, and equal for both decoders. In the loop's latents it is contained.
    """

    def values(first: int, length: int, width: int) -> Tensor:
        each = [noise(1000 * seed + first + row, Purpose.INITIAL, 0, (1, length, width)) for row in range(case.rows)]
        return torch.cat(each).to(decoder.dtype).float().to(decoder.device)

    row, token = torch.arange(case.rows), torch.arange(case.tokens)
    shortened = (row * 7 + seed * 3) % case.tokens if case.lengths is Lengths.MIXED else torch.zeros_like(row)
    return {
        "hidden_states": values(0, case.frames, decoder.channels),
        "timestep": (0.5 ** ((row + seed) % 6).float()).to(decoder.device),
        "encoder_hidden_states": values(100, case.tokens, decoder.encoder_dim),
        "encoder_mask": (token < (case.tokens - shortened)[:, None]).to(decoder.device),
        "context_latents": values(200, case.frames, 2 * decoder.channels),
    }


@dataclass(frozen=True)
class Yardstick:
    """Results of the reference and of the plain decoder, to which any number of decoders are compared.

    Attributes:
        case: what decoders are run on.
        times: times of the loop, from 1 to 0.
        inputs: seeded inputs.
        expected: velocity and latent of the reference for each of the inputs.
        own: velocity and latent of the plain decoder.
        errors: errors of the plain decoder's velocities, and of its latents.
    """

    case: Case
    times: Sequence[float]
    inputs: Sequence[dict[str, Tensor]]
    expected: Sequence[tuple[Tensor, Tensor]]
    own: Sequence[tuple[Tensor, Tensor]]
    errors: tuple[list[float], list[float]]


def yardstick(plain: AceStepDecoder, case: Case, inputs: int = INPUTS, steps: int = STEPS) -> Yardstick:
    """Run the reference and the plain decoder once for each of the inputs.

    Args:
        plain: the plain decoder; its weights are the reference's.
        case: what decoders are run on.
        inputs: number of inputs.
        steps: steps of the loop; a power of two, so that every time is exact in every dtype.
    """
    reference, times = ReferenceDecoder(plain), [1 - step / steps for step in range(steps + 1)]
    given = [drawn(case, seed, plain) for seed in range(inputs)]
    with torch.no_grad():
        expected = [_both(reference, each | {"hidden_states": each["hidden_states"].double()}, times) for each in given]
        own = [_both(plain, each, times) for each in given]
    return Yardstick(case, times, given, expected, own, _errors(own, expected))


def judge(decoder: Decoder, by: Yardstick) -> Finding:
    """Compare a decoder with the plain one and with the reference, for every input of a yardstick."""
    with torch.no_grad():
        made = [_both(decoder, each, by.times) for each in by.inputs]
        exact = all(
            identical(*pair) for found, own in zip(made, by.own, strict=True) for pair in zip(found, own, strict=True)
        )
        return _finding(_errors(made, by.expected), by.errors, exact, _is_apart(decoder, by.inputs[0]))


def ratio(errors: Sequence[float], plain: Sequence[float]) -> Ratio:
    """The ratio of two decoders' errors over the same inputs, with a 95 % interval by paired bootstrap."""
    draw, count = random.Random(0), len(errors)
    pairs = list(zip(errors, plain, strict=True))
    found = sorted(_of(draw.choices(pairs, k=count)) for _ in range(RESAMPLES))
    low, high = (found[round(share * (RESAMPLES - 1))] for share in (0.025, 0.975))
    return Ratio(_rms(errors), _rms(plain), _of(pairs), low, high)


def _finding(
    errors: tuple[list[float], list[float]], plain: tuple[list[float], list[float]], exact: bool, apart: bool
) -> Finding:
    velocity, latent = (ratio(*each) for each in zip(errors, plain, strict=True))
    # Not `>`: a ratio that is no number passes nothing.
    within = velocity.high <= BOUND and latent.high <= BOUND
    verdict = Verdict.EXACT if exact else Verdict.WITHIN if within else Verdict.EXCEEDS
    return Finding(verdict, velocity, latent, apart, len(errors[0]))


def _is_apart(decoder: Decoder, given: dict[str, Tensor]) -> bool:
    """Say whether the first row has the same bits where every other row has other content."""
    other = {name: torch.cat([value[:1], _other(value[1:])]) for name, value in given.items()}
    other["encoder_mask"][1:, 0] = True
    return identical(decoder(**other)[:1].contiguous(), decoder(**given)[:1].contiguous())


def _other(rows: Tensor) -> Tensor:
    turned = rows.flip(1) if rows.dim() > 1 else rows
    return turned if rows.dtype == torch.bool else 0.5 * turned


def _both(decoder: Decoder, given: dict[str, Tensor], times: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Velocity, and latent after a loop over `times`."""
    return decoder(**given), _last(decoder, given, times)


def _last(decoder: Decoder, given: dict[str, Tensor], times: Sequence[float]) -> Tensor:
    return list(euler(decoder, given, times))[-1]


def _errors(
    made: Sequence[tuple[Tensor, Tensor]], expected: Sequence[tuple[Tensor, Tensor]]
) -> tuple[list[float], list[float]]:
    """Errors of the velocities, and of the latents."""
    velocities, latents = (
        [_error(found, right) for found, right in zip(*each, strict=True)]
        for each in zip(zip(*made, strict=True), zip(*expected, strict=True), strict=True)
    )
    return velocities, latents


def _error(found: Tensor, right: Tensor) -> float:
    return math.sqrt(float((found.double() - right).square().mean() / right.square().mean()))


def _of(pairs: Sequence[tuple[float, float]]) -> float:
    plain = _rms([own for _error, own in pairs])
    return _rms([error for error, _own in pairs]) / plain if plain else math.inf


def _rms(values: Sequence[float]) -> float:
    return math.sqrt(sum(value * value for value in values) / len(values))
