"""Trial of a foreign ring: random scripts, the plain ring against the fast one, each request against itself alone.

A script that fails is made small, and printed as Python together with the seed that drew it. At the end everything that
the ring can do must have occurred; see `coverage`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from harness.engine.errors import InvalidInput
from harness.parity.compare import NothingCompared
from harness.parity.foreign import coverage
from harness.parity.foreign.alone import REFERENCE, Alone, Make
from harness.parity.foreign.draws import SIZE, script
from harness.parity.foreign.journal import Journal, play, undisturbed
from harness.parity.foreign.records import Features, Script, scripted
from harness.parity.foreign.shrinking import shrink
from harness.parity.proofs import generic
from harness.parity.proofs.bounds import Bound
from harness.parity.proofs.parted import Agreed

RUNS = 200
"""Largest number of scripts that are played to make one that fails small."""


@dataclass(frozen=True)
class Options:
    """Options of a trial.

    Attributes:
        bounds: bounds of stages that need not be exact, and under `"reference"` one of the reference.
        where_both: stages that the fast ring may skip: they are compared only where both rings report them.
        not_alone: the reason why requests are not compared with themselves alone; empty compares them.
        waived: goals of the coverage that need not be met, each with the reason.
        runs: largest number of scripts that are played to make one that fails small.
    """

    bounds: Mapping[str, Bound] = field(default_factory=dict)
    where_both: tuple[str, ...] = ()
    not_alone: str = ""
    waived: Mapping[str, str] = field(default_factory=dict)
    runs: int = RUNS


class ScriptFailed(AssertionError):
    """A script makes rings part, lose a request, or end a request with other bits than it has alone.

    Attributes:
        seed: the seed that drew the script; None for a script that was given.
        script: the script, made small.
        error: what the small script raises.
    """

    def __init__(self, drawn: Script, small: Script, runs: int, error: Exception) -> None:
        """Name the seed, what fails, and the script as Python."""
        self.seed, self.script, self.error = drawn.seed, small, error
        given = "the script" if drawn.seed is None else f"the script of seed {drawn.seed}"
        sizes = f"{len(drawn.operations)} to {len(small.operations)} operations in {runs} runs"
        what = f"{type(error).__name__}: {error}"
        super().__init__(f"{given} fails with {what}\nshrunk from {sizes}; to play it again:\n{small}")


@dataclass
class Proved:
    """Counts of a trial in which everything agreed.

    Attributes:
        scripts: number of scripts.
        events: number of events.
        alone: number of requests that were compared with themselves alone.
        referred: number of requests that were compared with the adapter's reference.
        lockstep: counts of each script in lockstep; empty without a fast ring.
        goals: number of things that the coverage asked for; 0 where a single script was played.
        waived: goals that were waived, with the reason.
        bounds: bounds in force and the largest distance, in words.
        not_alone: the reason why requests were not compared with themselves alone, or nothing.
    """

    scripts: int = 0
    events: int = 0
    alone: int = 0
    referred: int = 0
    lockstep: list[Agreed] = field(default_factory=list)
    goals: int = 0
    waived: tuple[str, ...] = ()
    bounds: tuple[str, ...] = ()
    not_alone: str = ""

    def __str__(self) -> str:
        """The counts in words, with every bound that was in force."""
        parts = [f"{self.scripts} scripts", f"{self.events} events", f"{self.alone} requests as alone"]
        if self.not_alone:
            parts[-1] = f"not compared with requests alone: {self.not_alone}"
        if self.referred:
            parts.append(f"{self.referred} as the reference")
        if self.lockstep:
            compared = sum(each.tensors + each.states + each.stages for each in self.lockstep)
            parts.append(f"{compared} tensors in lockstep")
        if self.goals:
            parts.append(f"{self.goals - len(self.waived)} of {self.goals} features and overlaps")
        return "; ".join([", ".join(parts), *(f"waived: {each}" for each in self.waived), *self.bounds])


def run(
    plain: Make, fast: Make | None, count: int, seed: int, size: int = SIZE, options: Options | None = None
) -> Proved:
    """Play `count` random scripts; return what was compared.

    Args:
        plain: makes the reference ring, an adapter of `harness.parity.foreign.records.Scripted`, new at every call.
        fast: makes the ring that must make the same bytes; None compares requests with themselves alone only.
        count: number of scripts, at least 1; their seeds follow each other.
        seed: seed of the first script.
        size: number of operations of a script.
        options: bounds, waivers and the like.

    Raises:
        ScriptFailed: a script fails; the message names the seed and a small script.
        NotCovered: something that the ring can do did not occur in any script.
        NothingCompared: nothing was compared, or nothing within a bound.
        InvalidInput: the adapter lacks a method, or an option is out of range.
    """
    __tracebackhide__ = True
    if count < 1:
        raise InvalidInput("count", count, "a number of scripts, at least 1")
    features = _features(plain)
    drawn = (script(features, seed + number, size) for number in range(count))
    trial = _Trial(plain, fast, features, options or Options())
    proved = trial.play(drawn)
    missing = coverage.missing(features, trial.seen, trial.options.waived)
    if missing:
        raise coverage.NotCovered(missing, len(coverage.goals(features)), count, size)
    proved.goals = len(coverage.goals(features))
    proved.waived = tuple(f"{goal}: {why}" for goal, why in trial.options.waived.items())
    return proved


def replay(plain: Make, fast: Make | None, given: Script, options: Options | None = None) -> Proved:
    """Play one script, such as one that failed; arguments and errors as in `run`, without the coverage."""
    __tracebackhide__ = True
    return _Trial(plain, fast, _features(plain), options or Options()).play([given])


class _Trial:
    def __init__(self, plain: Make, fast: Make | None, features: Features, options: Options) -> None:
        self.plain, self.fast, self.features, self.options = plain, fast, features, options
        self.seen: set[str] = set()
        self.reported: set[str] = set()
        self._alone = Alone(plain, options.bounds)
        self._proved = Proved()

    def play(self, scripts: Iterable[Script]) -> Proved:
        __tracebackhide__ = True
        for each in scripts:
            error = self._error(each, self._alone, self._proved)
            if error is not None:
                raise self._failed(each, error) from error
        if not self.options.not_alone:
            self._alone.refuse_unused()
        unused = sorted({*self.options.where_both, *self.options.bounds} - {*self.reported, REFERENCE})
        if unused and self.fast is not None:
            raise NothingCompared(f"the plain ring reported no {', '.join(unused)}, which where_both or bounds names")
        self._proved.alone, self._proved.referred = self._alone.compared, self._alone.referred
        self._proved.not_alone = self.options.not_alone
        bounds = dict.fromkeys(text for agreed in self._proved.lockstep[-1:] for text in agreed.bounds)
        self._proved.bounds = (*bounds, *(f"alone: {each}" for each in self._alone.bounded.values() if each.compared))
        return self._proved

    def _failed(self, drawn: Script, error: Exception) -> ScriptFailed:
        found = {repr(drawn): error}

        def fails(smaller: Script) -> bool:
            raised = self._error(smaller, Alone(self.plain, self.options.bounds), Proved())
            if raised is None or type(raised) is not type(error):
                return False
            found[repr(smaller)] = raised
            return True

        small, runs = shrink(drawn, self.features, fails, self.options.runs)
        return ScriptFailed(drawn, small, runs, found[repr(small)])

    def _error(self, each: Script, alone: Alone, proved: Proved) -> Exception | None:
        """Play one script; return what it raises."""
        try:
            with undisturbed():
                self._play(each, alone, proved)
        except Exception as error:  # noqa: BLE001 - whatever a ring raises in a script makes the script fail
            return error
        return None

    def _play(self, each: Script, alone: Alone, proved: Proved) -> None:
        with undisturbed():
            journal = play(self.plain(), each.operations)
        self.seen |= coverage.happened(journal)
        proved.scripts += 1
        proved.events += len(journal.moments)
        if self.fast is not None and journal.ends():
            proved.lockstep.append(self._lockstep(journal))
        if not self.options.not_alone:
            alone.check(journal)

    def _lockstep(self, journal: Journal) -> Agreed:
        assert self.fast is not None
        options = self.options
        self.reported |= journal.reported
        bounds = {stage: each for stage, each in options.bounds.items() if stage in journal.reported}
        both = [name for name in options.where_both if name in journal.reported]
        with undisturbed():
            plain, fast = self.plain(), self.fast()
            events = [plain.event(operation) for operation in journal.operations]
            return generic.run(plain, fast, events, where_both=both, bounds=bounds)


def _features(make: Make) -> Features:
    with undisturbed():
        features = scripted(make()).features()
    if not isinstance(features, Features):
        raise InvalidInput("features()", type(features).__name__, "a Features of harness.parity.foreign.records")
    return features
