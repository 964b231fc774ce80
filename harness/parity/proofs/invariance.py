"""Measurement of the properties that an executor guarantees about the bits of its rows.

The mathematics of a row is the same in a batch of any size, but libraries choose kernels by the number of rows, and
kernels round differently. Two facts therefore depend on decoder, executor, dtype, length and machine, and are measured:
whether a fused run equals two passes, and whether a request has the same bits in another place of the ring.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from harness import registry
from harness.engine.aot.export import digest
from harness.engine.errors import OutsideProfile
from harness.engine.executors import Batch, Executor
from harness.engine.executors.stream import run_to_end
from harness.engine.noise import Purpose, noise
from harness.parity.compare import identical

TOKENS, LENGTH, MORE_PADDING = 40, 64, 17
"""Tokens of the longest condition, encoder length that conditions are padded to, and tokens that `PADDING` adds."""

RERUNS = 20


class Property(StrEnum):
    """Property of a run of N rows. Every property is one of bits.

    `fused`: one run of N positive and N negative rows equals a run of the N positive and one of the N negative rows.
    `rows_alone`: each row equals its result in a run of one row.
    `permutation`: rows in another order give the same results in that order.
    `neighbours`: a row's result does not depend on the content of the other rows.
    `duplicates`: equal rows give equal results.
    `padding`: more masked zero tokens after every condition change no result.
    `rerun`: twenty more runs give the same results.
    """

    FUSED = "fused"
    ROWS_ALONE = "rows_alone"
    PERMUTATION = "permutation"
    NEIGHBOURS = "neighbours"
    DUPLICATES = "duplicates"
    PADDING = "padding"
    RERUN = "rerun"


RING = (Property.FUSED, Property.ROWS_ALONE, Property.PERMUTATION, Property.NEIGHBOURS, Property.DUPLICATES,
        Property.RERUN)  # fmt: skip
"""Properties with which a request's bits depend on the request alone; a ring has a fixed encoder length."""


@dataclass(frozen=True)
class Subject:
    """Subject of a measurement: a decoder on an executor.

    Attributes:
        decoder: name of the decoder; see `registry.decoder`.
        executor: kind of the executor.
        dtype: name of the dtype in which the decoder computes, such as `"float32"`.
        frames: number of frames T.
        pin_rows: number of rows to which the executor pads every run, or None.
        max_rows: limit of rows in one run of the executor.
        device: device of the decoder.
        engine: file of the compiled decoder, for a kind that runs one; None is the default of `registry.engine_for`.
    """

    decoder: str
    executor: registry.ExecutorKind | str
    dtype: str
    frames: int
    pin_rows: int | None = None
    max_rows: int = 8
    device: str = "cpu"
    engine: Path | None = None

    @property
    def name(self) -> str:
        """Name of the subject without its device, such as `tiny/eager/float32/T16/pinned8`.

        A given file adds the digest of its content, `.../pinned8/0a1b2c3d4e5f`: another build is another subject.
        """
        rows = f"max{self.max_rows}" if self.pin_rows is None else f"pinned{self.pin_rows}"
        file = "" if self.engine is None else f"/{_content(self.engine)}"
        return f"{self.decoder}/{self.executor}/{self.dtype}/T{self.frames}/{rows}{file}"

    def make(self) -> tuple[Executor, Rows]:
        """Make the executor, and the rows to run on the executor."""
        dtype = getattr(torch, self.dtype)
        decoder = registry.decoder(self.decoder, dtype=dtype, device=self.device)
        engine = self.engine or registry.engine_for(self.executor, self.decoder, dtype=self.dtype, tokens=LENGTH)
        executor = registry.executor(self.executor, decoder, self.max_rows, self.pin_rows, self.device, engine)
        return executor, Rows(*registry.widths(decoder), self.frames, torch.device(self.device))


@lru_cache(maxsize=8)
def _content(file: Path) -> str:
    return digest(file)[:12]


Held = dict[Property, dict[int, bool]]
"""Result by property and number of rows: True where the property held."""


@dataclass(frozen=True)
class Rows:
    """Fixed rows, each with a latent, time, condition and context of its own.

    Attributes:
        channels: number of latent channels D.
        encoder_dim: encoder width E.
        frames: number of frames T.
        device: device of the rows' tensors.
    """

    channels: int
    encoder_dim: int
    frames: int
    device: torch.device

    def batch(self, numbers: Sequence[int], length: int = LENGTH) -> Batch:
        """Make a batch of the rows with these numbers, 0 to 63, in this order.

        Args:
            numbers: numbers of the rows; the condition of a row has 1 to `TOKENS` tokens.
            length: number of tokens that conditions are padded to, at least `LENGTH`.
        """
        tokens = torch.tensor([1 + (number * 7) % TOKENS for number in numbers])
        mask = (torch.arange(LENGTH)[None] < tokens[:, None]).to(self.device)
        states = self._drawn(100, numbers, LENGTH, self.encoder_dim) * mask[:, :, None]
        return Batch(
            hidden_states=self._drawn(0, numbers, self.frames, self.channels),
            timestep=torch.tensor([(1 + number) / 65 for number in numbers]).to(self.device),
            encoder_hidden_states=functional.pad(states, (0, 0, 0, length - LENGTH)),
            encoder_mask=functional.pad(mask, (0, length - LENGTH), value=False),
            context_latents=self._drawn(200, numbers, self.frames, 2 * self.channels),
        )

    def _drawn(self, offset: int, numbers: Sequence[int], length: int, width: int) -> Tensor:
        return torch.cat([_drawn(offset + number, length, width, self.device) for number in numbers])


def measure(executor: Executor, rows: Rows, max_rows: int | None = None) -> Held:
    """Measure every property at 1 to `max_rows` rows; None is the executor's own `max_rows`.

    `fused` is measured at N only where 2N rows fit. `padding` is not measured where a compiled decoder has a single
    encoder length.
    """
    probe = _Probe(executor, rows)
    held: Held = {asked: {} for asked in Property}
    one_length = not probe.takes(LENGTH + MORE_PADDING)
    for count in range(1, (max_rows or executor.max_rows) + 1):
        if 2 * count <= executor.max_rows:
            held[Property.FUSED][count] = probe.fused(count)
        for asked in Property:
            if asked is not Property.FUSED and not (asked is Property.PADDING and one_length):
                held[asked][count] = getattr(probe, asked.value)(count)
    return held


class _Probe:
    """Measurement of the properties: one method each, named after the property, True if it holds at `count` rows."""

    def __init__(self, executor: Executor, rows: Rows) -> None:
        self._executor, self._rows = executor, rows

    def takes(self, length: int) -> bool:
        """Say whether the executor takes this encoder length; only a compiled decoder has limits."""
        try:
            self._run([0], length)
        except OutsideProfile:
            return False
        return True

    def fused(self, count: int) -> bool:
        positive, negative = range(count), range(count, 2 * count)
        together = self._run([*positive, *negative])
        return identical(torch.cat([self._run(positive), self._run(negative)]), together)

    def rows_alone(self, count: int) -> bool:
        together = self._run(range(count))
        return all(identical(self._run([number])[0], together[number]) for number in range(count))

    def permutation(self, count: int) -> bool:
        together = self._run(range(count))
        return all(identical(self._run(order), together[list(order)]) for order in _orders(count))

    def neighbours(self, count: int) -> bool:
        together = self._run(range(count))
        others = range(32, 32 + count)
        return all(
            identical(self._run([*others[:place], place, *others[place + 1 :]])[place], together[place])
            for place in range(count)
        )

    def duplicates(self, count: int) -> bool:
        out = self._run([0] * count)
        return all(identical(out[place], out[0]) for place in range(count))

    def padding(self, count: int) -> bool:
        return identical(self._run(range(count), LENGTH + MORE_PADDING), self._run(range(count)))

    def rerun(self, count: int) -> bool:
        first = self._run(range(count))
        return all(identical(self._run(range(count)), first) for _ in range(RERUNS))

    def _run(self, numbers: Sequence[int], length: int = LENGTH) -> Tensor:
        """Run rows; return a copy of the output, because the next run may overwrite the output's buffer.

        Raises:
            ArithmeticError: the output is not finite: two NaNs are equal and would prove nothing.
        """
        out = run_to_end(self._executor, self._rows.batch(numbers, length)).clone()
        if not bool(torch.isfinite(out).all()):
            raise ArithmeticError(f"the decoder's output for rows {list(numbers)} is not finite: nothing to compare")
        return out


@lru_cache(maxsize=256)
def _drawn(seed: int, length: int, width: int, device: torch.device) -> Tensor:
    return noise(seed, Purpose.INITIAL, 0, (1, length, width), device)


def _orders(count: int) -> Iterator[list[int]]:
    """Orders of `count` rows: reversed, every rotation, and even numbers before odd ones."""
    numbers = list(range(count))
    yield numbers[::-1]
    yield from (numbers[turn:] + numbers[:turn] for turn in range(1, count))
    yield numbers[::2] + numbers[1::2]
