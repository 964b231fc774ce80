"""The recorded runs of an executor, by shape and number of rows, and the memory that they take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from harness.engine.errors import InvalidInput
from harness.engine.executors.recorded import Pool, Recorded, Recorder
from harness.engine.executors.shapes import Shape

Progress = Callable[[str], object]
"""Function that is called with a few words before each recording."""


def silent(_what: str) -> None:
    """Show no progress."""


@dataclass(eq=False)
class Graphs:
    """The recorded runs of a shape.

    Attributes:
        pool: the memory that they share.
        evictable: they may be freed to make room.
        used: number of the last use; the most recently used shape has the largest.
        by_rows: each run by its number of rows.
    """

    pool: Pool
    evictable: bool
    used: int = 0
    by_rows: dict[int, Recorded] = field(default_factory=dict)


class Prepared:
    """The recorded runs of an executor.

    Args:
        recorder: records runs.
        make: function that records a run of a shape with a number of rows in a pool.
        max_bytes: most bytes of all runs, or None.

    Attributes:
        recorded: number of recordings so far.
        evicted: number of runs that were freed to make room.
        copied: number of inputs that were copied, by runs that are freed too.
        kept: number of inputs that were left as they were, by runs that are freed too.
    """

    def __init__(
        self, recorder: Recorder, make: Callable[[Shape, int, Pool], Recorded], max_bytes: int | None = None
    ) -> None:
        self.recorded = self.evicted = 0
        self._recorder = recorder
        self._make = make
        self._max_bytes = max_bytes
        # A use changes no key: other threads ask whether a shape is here.
        self._shapes: dict[Shape, Graphs] = {}
        self._uses = 0
        self._freed_copied = self._freed_kept = 0

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Every shape of which a run is recorded, the most recently used one last."""
        return tuple(shape for shape, _graphs in sorted(list(self._shapes.items()), key=lambda each: each[1].used))

    def __contains__(self, shape: Shape) -> bool:
        """Say whether a run of a shape is recorded; for any thread."""
        return shape in self._shapes

    @property
    def runs(self) -> list[Recorded]:
        """Every recorded run."""
        return [recorded for graphs in self._shapes.values() for recorded in graphs.by_rows.values()]

    @property
    def copied(self) -> int:
        """See the class."""
        return self._freed_copied + sum(each.copied for each in self.runs)

    @property
    def kept(self) -> int:
        """See the class."""
        return self._freed_kept + sum(each.kept for each in self.runs)

    @property
    def nbytes(self) -> int:
        """Bytes of all pools, inputs and outputs."""
        return self._bytes(self.shapes)

    def _bytes(self, shapes: Sequence[Shape]) -> int:
        held = [self._shapes[shape] for shape in shapes]
        pools = {id(graphs.pool): graphs.pool for graphs in held}
        runs = [recorded for graphs in held for recorded in graphs.by_rows.values()]
        return sum(each.nbytes for each in runs) + sum(pool.nbytes for pool in pools.values())

    def use(self, shape: Shape, rows: int) -> Recorded | None:
        """The recorded run, which is now the most recently used one; None where there is none."""
        graphs = self._shapes.get(shape)
        if graphs is None or rows not in graphs.by_rows:
            return None
        self._note_use(graphs)
        return graphs.by_rows[rows]

    def _note_use(self, graphs: Graphs) -> None:
        self._uses += 1
        graphs.used = self._uses

    def record(self, asked: Sequence[tuple[Shape, Sequence[int]]], progress: Progress, *, evictable: bool) -> None:
        """Record the runs that are missing; all new shapes share a pool. On an error no new run stays.

        Args:
            asked: shapes, each with its numbers of rows.
            progress: called before each recording.
            evictable: the shapes may be freed to make room. False holds for a shape that was evictable too.

        Raises:
            InvalidInput: the runs do not fit `max_bytes`.
            Exception: any exception of `make`.
        """
        pool = self._recorder.pool()
        made: list[tuple[Shape, int]] = []
        try:
            for shape, buckets in asked:
                # The largest first: the smaller ones then find room in its memory.
                for rows in sorted(buckets, reverse=True):
                    graphs = self._shapes.get(shape) or Graphs(pool, evictable)
                    if rows in graphs.by_rows:
                        continue
                    progress(f"{rows} rows of {shape}")
                    graphs.by_rows[rows] = self._make(shape, rows, graphs.pool)
                    self._note_use(graphs)
                    self._shapes[shape] = graphs
                    self.recorded += 1
                    made.append((shape, rows))
            self._fit([shape for shape, _buckets in asked])
        except BaseException:
            for shape, rows in made:
                self._free(self._shapes[shape].by_rows.pop(rows))
            self.drop([shape for shape, graphs in self._shapes.items() if not graphs.by_rows])
            raise
        if not evictable:
            for shape, _buckets in asked:
                self._shapes[shape].evictable = False

    def record_anew(self) -> None:
        """Free every run, and record every one again.

        Raises:
            Exception: any exception of `make`. Of a shape that may not be evicted, it leaves no shape at all.
        """
        known = [(shape, tuple(graphs.by_rows), graphs.evictable) for shape, graphs in self._shapes.items()]
        self.drop(self.shapes)
        self.record([(shape, rows) for shape, rows, evictable in known if not evictable], silent, evictable=False)
        for shape, rows, evictable in known:
            if evictable:
                self.record([(shape, rows)], silent, evictable=True)

    def drop(self, shapes: Sequence[Shape]) -> None:
        """Free every run of some shapes, and give their memory back."""
        for shape in shapes:
            for recorded in self._shapes.pop(shape).by_rows.values():
                self._free(recorded)
        with suppress(RuntimeError):  # of a GPU that is lost
            self._recorder.release()

    def drop_evictable(self) -> None:
        """Free every run that may be evicted."""
        victims = [shape for shape, graphs in self._shapes.items() if graphs.evictable]
        self.evicted += sum(len(self._shapes[shape].by_rows) for shape in victims)
        self.drop(victims)

    def _free(self, recorded: Recorded) -> None:
        self._freed_copied += recorded.copied
        self._freed_kept += recorded.kept
        recorded.free()

    def _fit(self, wanted: Sequence[Shape]) -> None:
        if self._max_bytes is None:
            return
        least = self._bytes([s for s, graphs in self._shapes.items() if s in wanted or not graphs.evictable])
        while (needed := self.nbytes) > self._max_bytes:
            victim = next((s for s in self.shapes if self._shapes[s].evictable and s not in wanted), None)
            # Nothing is freed for shapes that do not fit at all.
            if victim is None or least > self._max_bytes:
                held = "; ".join(map(str, self.shapes))
                raise InvalidInput("shapes", f"{needed} bytes for {held}", f"at most max_bytes = {self._max_bytes}")
            self.evicted += len(self._shapes[victim].by_rows)
            self.drop([victim])
