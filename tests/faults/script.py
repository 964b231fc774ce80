"""Scripts of calls with faults in them, all drawn from a seed, and what became of every request.

Whatever faults, every request that was submitted ends once: finished, with the bits that it has alone, failed, or
dropped. A call that raises may have done its work or not; what it did not hand out a later call hands out.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from torch import Tensor

from harness.engine import (
    Condition,
    Guidance,
    Outcomes,
    PipelineConfig,
    Request,
    StreamPipeline,
)
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import Batch, EagerExecutor, StaticExecutor
from harness.engine.noise import Purpose, noise
from harness.parity.compare import identical
from harness.parity.proofs import oracle
from tests.faults.interrupts import Interrupt

D, E, LENGTH, ROWS = 4, 8, 8, 3
KINDS, SEEDS, LENGTHS = 4, 3, (6, 7)
ERRORS: tuple[type[BaseException], ...] = (KeyboardInterrupt, MemoryError)


def drawn(seed: int, frames: int, width: int) -> Tensor:
    return noise(seed, Purpose.INITIAL, 0, (1, frames, width))


CONDITIONS = tuple(Condition(drawn(10 + tokens, tokens, E)) for tokens in (3, 5))
CONTEXTS = {frames: drawn(20, frames, 2 * D) for frames in LENGTHS}
SOURCES = {frames: drawn(30, frames, D) for frames in LENGTHS}


def asked(kind: int, seed: int, frames: int, **fields: Any) -> Request:
    """A request of one of a few kinds: plain, guided, from a source, or with injected noise."""
    given: dict[str, Any] = (
        {},
        {"guidance": Guidance(2.0, CONDITIONS[1:])},
        {"source": SOURCES[frames], "denoise": 0.6},
        {"noise_injection": 0.25, "velocity_scale": 0.5},
    )[kind]
    return Request(CONDITIONS[:1], CONTEXTS[frames], seed, **given, **fields)


@cache
def alone(kind: int, seed: int, frames: int, steps: int) -> Tensor:
    """The latent of a request that nothing disturbs and that runs alone."""
    config = PipelineConfig(steps=steps, encoder_length=LENGTH)
    return oracle.run(EagerExecutor(AffineDecoder(E)), asked(kind, seed, frames), config, LENGTH)


class Faulty:
    """An executor that may fail before a run, or after it.

    Attributes:
        fault: called before and after each run.
    """

    def __init__(self, executor: EagerExecutor | StaticExecutor) -> None:
        self._executor = executor
        self.max_rows, self.takes_mask, self.stream = executor.max_rows, executor.takes_mask, executor.stream
        self.fault: Callable[[], None] = lambda: None

    def run(self, batch: Batch) -> Tensor:
        self.fault()
        made = self._executor.run(batch)
        self.fault()
        return made

    def close(self) -> None:
        self._executor.close()


@dataclass
class Told:
    """What was counted.

    Attributes:
        faults: errors that were injected.
        by_place: those by the line at which they were raised.
        submitted: requests that were submitted.
        finished: latents that were handed out.
        lost: requests that never ended.
        twice: ends of requests that had ended before.
        wrong: latents whose bits are not those of their undisturbed twin.
    """

    faults: int = 0
    by_place: Counter[str] = field(default_factory=Counter)
    submitted: int = 0
    finished: int = 0
    lost: int = 0
    twice: int = 0
    wrong: int = 0

    @property
    def passes(self) -> bool:
        """Say whether nothing was lost, and nothing came twice or wrong."""
        return not (self.lost or self.twice or self.wrong)

    def add(self, other: Told) -> None:
        """Add the counts of another script."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def __str__(self) -> str:
        """The counts, a line each."""
        lines = {
            "faults injected": self.faults,
            "requests submitted": self.submitted,
            "latents handed out": self.finished,
            "requests lost": self.lost,
            "results handed out twice": self.twice,
            "latents with wrong bits": self.wrong,
        }
        return "\n".join(f"{name + ':':26}{count:>8,}" for name, count in lines.items())


class Script:
    """Calls of one pipeline, drawn from a seed, with a fault in many of them.

    Args:
        seed: decides everything.
        calls: number of calls before the last drain.
        share: probability of a fault in a call.
    """

    def __init__(self, seed: int, calls: int = 40, share: float = 0.5) -> None:
        self.told = Told()
        self._drawn = random.Random(seed)
        self._calls, self._share = calls, share
        self._steps = self._drawn.randint(1, 4)
        maker = self._drawn.choice((EagerExecutor, StaticExecutor))
        self._executor = Faulty(maker(AffineDecoder(E), ROWS))
        config = PipelineConfig(depth=self._drawn.randint(1, ROWS), steps=self._steps, encoder_length=LENGTH)
        self._pipeline = StreamPipeline(self._executor, config)
        self._asked: dict[int, tuple[int, int, int]] = {}
        self._ended: Counter[int] = Counter()
        # Lines of the last call of each kind that ran to its end.
        self._lines: dict[str, int] = {}

    def run(self) -> Told:
        """Make the calls; then tick without faults until nothing is left, and count."""
        for _ in range(self._calls):
            self._call(self._drawn.choice(("submit", "submit", "tick", "tick", "tick", "drain", "cancel", "depth")))
        self._executor.fault = lambda: None
        self._keep(self._pipeline.drain())
        stats = self._pipeline.stats()
        self.told.submitted = stats.submitted
        self.told.lost = stats.submitted - len(self._ended)
        self.told.twice = sum(count - 1 for count in self._ended.values())
        assert stats.submitted == stats.finished + stats.failed + stats.dropped
        return self.told

    def _call(self, name: str) -> None:
        pipeline, works = self._pipeline, dict[str, Callable[[], Any]]()
        if name == "submit":
            number = len(self._asked)
            kind, seed = self._drawn.randrange(KINDS), self._drawn.randrange(SEEDS)
            frames = LENGTHS[self._drawn.random() < 0.05]
            self._asked[number] = kind, seed, frames
            request = asked(kind, seed, frames, id=number)
            works[name] = lambda: pipeline.submit(request)
        works |= {"tick": pipeline.tick, "drain": pipeline.drain}
        some, depth = self._drawn.randrange(len(self._asked) + 1), self._drawn.randint(1, ROWS)
        works |= {"cancel": lambda: pipeline.cancel(some), "depth": lambda: pipeline.set_depth(depth)}
        self._keep(self._disturbed(name, works[name]))

    def _disturbed(self, name: str, work: Callable[[], Any]) -> Any:
        """Call `work` with or without a fault in it; return what it returned, or None where it raised."""
        error = self._drawn.choice(ERRORS)("injected")
        if self._drawn.random() >= self._share:
            at, count = 0, 0
        elif name in ("tick", "drain") and self._drawn.random() < 0.2:
            at, count = 0, self._drawn.randint(1, 4)
        else:
            at, count = self._drawn.randint(1, self._lines.get(name, 300)), 0
        interrupt, around = Interrupt(at, error), AtCall(count, error)
        self._executor.fault = around
        try:
            made = interrupt.call(work)
        except ERRORS as found:
            if found is not error:
                raise
            made = None
        else:
            self._lines[name] = interrupt.lines
        if interrupt.where or around.raised:
            self.told.faults += 1
            self.told.by_place[" ".join(map(str, interrupt.where or ("executor",)))] += 1
        return made

    def _keep(self, made: Any) -> None:
        if isinstance(made, Outcomes):
            for each in made:
                self.told.finished += 1
                kind, seed, frames = self._asked[each.id]  # type: ignore[index]
                self.told.wrong += not identical(each.latent, alone(kind, seed, frames, self._steps))
            ends = [*made, *made.failed, *made.dropped]
        else:
            ends = list(getattr(made, "dropped", made or ()))
        self._ended.update(each.id for each in ends)


class AtCall:
    """Raises an error when it is called for a time that has a number, from 1; 0 never raises.

    Attributes:
        raised: it has.
    """

    def __init__(self, number: int, error: BaseException) -> None:
        self.raised = False
        self._number, self._error, self._calls = number, error, 0

    def __call__(self) -> None:
        self._calls += 1
        if self._calls == self._number:
            self.raised = True
            raise self._error
