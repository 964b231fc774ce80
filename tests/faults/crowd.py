"""Calls of one pipeline from many threads as they come, and what became of every request."""

from __future__ import annotations

import random
import threading
from collections import Counter
from typing import Any

from harness.engine import Outcomes, PipelineConfig, StreamPipeline
from harness.engine.decoders import AffineDecoder
from harness.engine.executors import EagerExecutor
from harness.parity.compare import identical
from tests.faults.script import KINDS, LENGTH, LENGTHS, ROWS, SEEDS, E, Told, alone, asked

STEPS = 3
CALLS = ("submit", "submit", "tick", "tick", "tick", "drain", "cancel", "depth", "stats", "collect")


class Crowd:
    """Threads that submit, tick and tell as they come; any of them may tick.

    Args:
        seed: decides what each thread calls, but not in which order the calls of two threads come.
        calls: number of calls, of all threads together.
        threads: number of threads.
    """

    def __init__(self, seed: int, calls: int, threads: int = 8) -> None:
        self.calls = 0
        self.errors: list[BaseException] = []
        config = PipelineConfig(depth=ROWS, steps=STEPS, encoder_length=LENGTH)
        self._pipeline = StreamPipeline(EagerExecutor(AffineDecoder(E), ROWS), config)
        self._made: list[Any] = []
        self._asked: dict[tuple[int, int], tuple[int, int, int]] = {}
        share, left = divmod(calls, threads)
        self._works = [(random.Random(f"{seed}/{each}"), each, share + (each < left)) for each in range(threads)]

    def run(self) -> Told:
        """Make all calls, then drain and count.

        Raises:
            BaseException: the first error of a thread.
        """
        threads = [threading.Thread(target=self._guarded, args=work) for work in self._works]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        if self.errors:
            raise self.errors[0]
        self._made.append(self._pipeline.drain())
        self.calls = sum(count for _drawn, _number, count in self._works)
        return self._counted()

    def _guarded(self, drawn: random.Random, thread: int, calls: int) -> None:
        try:
            for number in range(calls):
                self._call(drawn, (thread, number))
        except BaseException as error:  # noqa: BLE001 - raised by `run`
            self.errors.append(error)

    def _call(self, drawn: random.Random, name: tuple[int, int]) -> None:
        pipeline, kind = self._pipeline, drawn.choice(CALLS)
        if kind == "submit":
            spec = drawn.randrange(KINDS), drawn.randrange(SEEDS), LENGTHS[drawn.random() < 0.02]
            self._asked[name] = spec
            self._made.append(pipeline.submit(asked(*spec, id="{}-{}".format(*name))))
        elif kind == "cancel":
            self._made.append(pipeline.cancel(f"{drawn.randrange(8)}-{drawn.randrange(name[1] + 1)}"))
        elif kind == "depth":
            self._made.append(pipeline.set_depth(drawn.randint(1, ROWS)))
        else:
            self._made.append(getattr(pipeline, kind)())

    def _counted(self) -> Told:
        told, ended = Told(submitted=len(self._asked)), Counter[Any]()
        for each in self._made:
            if isinstance(each, Outcomes):
                for made in each:
                    thread, number = map(int, str(made.id).split("-"))
                    wanted = alone(*self._asked[thread, number], STEPS)
                    told.finished += 1
                    told.wrong += not identical(made.latent, wanted)
                ended.update(one.id for one in (*each, *each.failed, *each.dropped))
            else:
                dropped = each if isinstance(each, tuple) else getattr(each, "dropped", ())
                ended.update(one.id for one in (() if isinstance(dropped, int) else dropped))
        told.lost = told.submitted - len(ended)
        told.twice = sum(count - 1 for count in ended.values())
        return told
