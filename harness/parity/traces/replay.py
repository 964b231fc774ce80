"""Plays a trace again on a newly made ring, and compares everything that the recorded ring made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from harness.engine.errors import InvalidInput
from harness.files import FileRefused
from harness.parity.baselines import platform
from harness.parity.bits import digest
from harness.parity.compare import NothingCompared
from harness.parity.proofs import randomness
from harness.parity.proofs.ring import alone
from harness.parity.traces import foreign
from harness.parity.traces.reading import RING, Event, Header, Trace, opened, verified
from harness.parity.traces.recording import Made

_MOST_THREADS = 1024


class TraceParted(AssertionError):
    """A replay made something else than the recorded ring.

    Attributes:
        event: number of the first event that differs.
        call: its call.
        tick: number of ticks that the recorded ring had completed behind it, or None.
        what: the name of what differs, such as `slot 0, request 'a', step 3: x`.
    """

    def __init__(self, event: Event, what: str, detail: str) -> None:
        """Make the message of the first difference in `event`: the name `what`, and the `detail`."""
        self.event, self.call, self.tick, self.what = event.n, event.call, event.ticks, what
        tick = "" if event.ticks is None else f", tick {event.ticks}"
        super().__init__(f"the replay differs at event {event.n} ({event.call}){tick}: {what}: {detail}")


class OtherPlatform(RuntimeError):
    """A trace was recorded where other bits may be made, and is not compared.

    Attributes:
        fields: the fields of the fingerprint that differ.
    """

    def __init__(self, header: Header, fields: tuple[str, ...]) -> None:
        """Name the `header`'s platform and the differing `fields`."""
        self.fields = fields
        super().__init__(f"recorded on {header.platform}, which differs here in {', '.join(fields)}: not compared")


@dataclass(frozen=True)
class Replayed:
    """Result of a replay in which nothing differed.

    Attributes:
        header: the header of the trace.
        events: number of events that were played.
        ticks: number of ticks of the recorded ring until then, or None.
        values: number of digests and texts that were compared.
        raised: number of calls that raised in the recording and have changed nothing, and so were not played.
        cut: reason for which the trace ends early, or empty; see `Trace.cut` and `Trace.stopped`.
        differing: fields of the fingerprint that differ here, where they were to be ignored.
    """

    header: Header
    events: int
    ticks: int | None
    values: int
    raised: int
    cut: str
    differing: tuple[str, ...]

    def __str__(self) -> str:
        """For people, in one line."""
        ticks = "" if self.ticks is None else f", {self.ticks} ticks"
        notes = [f"{self.raised} calls that raised were not played"] * bool(self.raised)
        notes += [f"the trace is not whole: {self.cut}"] * bool(self.cut)
        notes += [f"recorded on {self.header.platform}, other in {', '.join(self.differing)}"] * bool(self.differing)
        return "; ".join([f"{self.events} events{ticks}: all {self.values} values the same", *notes])


class Player(Protocol):
    """A ring that plays events."""

    def play(self, event: Event) -> Made | None:
        """Play one event; return what it made, or None where the event is one that is not played.

        Raises:
            TraceParted: the call raises and the recorded one did not, or the other way round.
            FileRefused: the event is none of this kind of ring.
        """
        ...

    def ticks(self) -> int | None:
        """Number of ticks that the ring has completed."""
        ...


def replayed(
    path: Path | str, factory: Callable[[], Any], *, until: int | None = None, any_platform: bool = False
) -> Replayed:
    """Play a trace of a ring with `step` and `state` on a ring that `factory` makes, and compare every digest.

    The ring draws the random numbers that the recorded ring drew; the caller's random state is restored.

    Args:
        path: the trace.
        factory: makes a ring as new as the recorded one was.
        until: number of ticks after which the replay ends, or None; for a ring that counts its ticks.
        any_platform: True compares also where the fingerprint of the platform differs.

    Raises:
        TraceParted: something differs; the message names the first event, tick and path.
        OtherPlatform: the trace is of another platform.
        NothingCompared: the trace holds nothing to compare.
        FileMissing: there is no such file.
        FileRefused: the file is no trace of such a ring, or a byte was altered.
    """
    return play(Path(path), RING, lambda trace: RingPlayer(trace, factory), until=until, any_platform=any_platform)


def play(
    path: Path, subject: str, player: Callable[[Trace], Player], *, until: int | None = None, any_platform: bool = False
) -> Replayed:
    """Play a trace of a subject on the ring of a player; see `replayed`."""
    whole = verified(path)
    if whole.header.subject != subject:
        raise FileRefused(path, "subject", repr(whole.header.subject), f"a trace of a {subject}")
    with opened(path) as trace, _threads(path, trace.header):
        differing = _differing(trace.header)
        if differing and not any_platform:
            raise OtherPlatform(trace.header, differing)
        values, raised, ticks, count = 0, 0, None, 0
        ring: Player | None = None
        for event in trace:
            ring = ring or player(trace)
            made = ring.play(event)
            raised += made is None
            values += 0 if made is None else _compared(event, made, ring.ticks())
            ticks, count = event.ticks, event.n + 1
            if until is not None and ticks is not None and ticks >= until:
                break
    if not values:
        raise NothingCompared(f"{path}: none of {count} events has made anything")
    return Replayed(trace.header, count, ticks, values, raised, whole.cut or whole.stopped, differing)


class RingPlayer:
    """A ring of any make that plays the events of a trace; see `replayed`."""

    def __init__(self, trace: Trace, factory: Callable[[], Any]) -> None:
        with randomness.Isolation([[]]).turn(0):
            self._side = alone(factory())
        if self._side.ring is None:
            raise InvalidInput("factory", f"a function that makes a {type(self._side.engine).__name__}", "a ring")
        generators = self._side.generators()
        self._path, self._decoder = trace.path, trace.decoder()
        self._sources, self._random = randomness.sources(generators), randomness.Isolation([generators])

    def play(self, event: Event) -> Made | None:
        """See `Player`."""
        (given,) = self._given(event)
        with self._random.turn(0):
            if event.call == foreign.BEGIN:
                self._begin(given)
                return foreign.state_of(self._side)
            tree = _called(event, lambda: self._side.engine.step(given))
            return foreign.made_by(self._side, tree) if not event.raised else []

    def ticks(self) -> int | None:
        """See `Player`."""
        return self._side.ticks()

    def _given(self, event: Event) -> list[Any]:
        given = self._decoder.decoded(event.given)
        first = event.n == 0
        if event.call != (foreign.BEGIN if first else foreign.STEP) or not isinstance(given, list) or len(given) != 1:
            expected = "the beginning" if first else "a step"
            raise FileRefused(self._path, f"event {event.n}", ascii(event.call)[:80], f"{expected}, with one value")
        return given

    def _begin(self, states: Any) -> None:
        if not isinstance(states, list) or len(states) != len(self._sources):
            raise FileRefused(self._path, "event 0", "other generators", f"states of {len(self._sources)} generators")
        for number, (source, state) in enumerate(zip(self._sources, states, strict=True)):
            try:
                source.write(state)
            except (TypeError, ValueError, RuntimeError, KeyError) as error:
                got = f"a state that cannot be set ({ascii(str(error))[1:80]})"
                raise FileRefused(self._path, f"event 0[{number}]", got, "the state of a generator") from error


def _called(event: Event, work: Callable[[], Any]) -> Any:
    """Call `work`, which must raise what the recorded call raised.

    Raises:
        TraceParted: it does not.
    """
    try:
        result, raised = work(), ""
    except Exception as error:  # noqa: BLE001 - a ring may raise anything; it is compared by its type
        result, raised = None, type(error).__name__
        reason: Exception | None = error
    else:
        reason = None
    if raised != event.raised:
        words = [f"raises {each}" if each else "returns" for each in (raised, event.raised)]
        raise TraceParted(event, "the call", f"{words[0]} ({reason}), the recorded one {words[1]}") from reason
    return result


def _compared(event: Event, made: Made, ticks: int | None) -> int:
    """Compare what the replay has made with the event; return the number of values.

    Raises:
        TraceParted: something differs.
    """
    if ticks != event.ticks:
        raise TraceParted(event, "completed ticks", f"{ticks}, recorded {event.ticks}")
    for number, (name, what) in enumerate(made):
        if number == len(event.made) or event.made[number][0] != name:
            recorded = event.made[number][0] if number < len(event.made) else "nothing more"
            raise TraceParted(event, name, f"made in place of {recorded}")
        found, recorded = digest(what) if isinstance(what, Tensor) else what, event.made[number][1]
        if found != recorded:
            pair = "other bits than recorded" if isinstance(what, Tensor) else f"{found}, recorded {recorded}"
            raise TraceParted(event, name, pair)
    if len(made) < len(event.made):
        raise TraceParted(event, event.made[len(made)][0], "recorded, not made")
    return len(made)


def _differing(header: Header) -> tuple[str, ...]:
    """Fields of the fingerprint that differ here, on a device of the recorded kind."""
    device = "cuda" if header.platform.startswith("cuda") else "cpu"
    try:
        return platform.differing(platform.of_device(device), header.fingerprint)
    except (AssertionError, RuntimeError):  # torch has no CUDA, or there is no GPU
        return ("device",)


@contextmanager
def _threads(path: Path, header: Header) -> Iterator[None]:
    """Run torch's operators on as many threads as the recorded process did."""
    said = header.fingerprint.get("threads", "1")
    if not said.isascii() or not said.isdigit() or not 1 <= int(said[:5]) <= _MOST_THREADS:
        raise FileRefused(path, "fingerprint.threads", ascii(said)[:80], f"1 to {_MOST_THREADS}")
    with platform.threads(int(said)):
        yield
