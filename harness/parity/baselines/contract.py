"""The contract of a platform, `captures/<platform>/contract.json`: guarantees of executors, as they were measured.

A property that the contract records and that does not hold any more is lost, and that is a failure. One that holds
where the contract says it does not is gained: to be recorded, so that it can be lost again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from harness.engine.errors import InvalidInput
from harness.files.refused import described
from harness.parity.baselines import platform, store
from harness.parity.baselines.captures import CAPTURES
from harness.parity.baselines.refusals import BlessRefused, alone, refuse_unless_explicit
from harness.parity.proofs.invariance import Held, Property, Subject, measure
from harness.registry import AFFINE, compared

CONTRACT = "contract.json"
MOST_NUMBERS = 1_000_000
"""The most numbers of rows in a contract, those of all subjects and properties together."""
_RANGE = re.compile(r"([1-9][0-9]{0,3})(?:-([1-9][0-9]{0,3}))?")

Rows = dict[str, list[int]]
"""Numbers of rows by property."""


class Standing(StrEnum):
    """How what was measured stands to what is recorded; `kept` and `gained` pass."""

    KEPT = "kept"
    GAINED = "gained"
    LOST = "lost"
    MISSING = "missing"
    NOT_GATED = "not_gated"


@dataclass(frozen=True)
class Recorded:
    """The entry of one subject in a contract.

    Attributes:
        holds: the numbers of rows at which each property held.
        fails: those at which it did not.
        reason: why it was recorded.
    """

    holds: Rows
    fails: Rows
    reason: str


@dataclass(frozen=True)
class _Written:
    """A `Recorded` as it is in the file, the numbers of rows as text."""

    holds: Mapping[str, str]
    fails: Mapping[str, str]
    reason: str


@dataclass(frozen=True)
class _Document:
    """A contract as it is in the file."""

    fingerprint: Mapping[str, str]
    subjects: Mapping[str, _Written]


@dataclass(frozen=True)
class Contract:
    """A platform's contract: where it was measured, and a `Recorded` for each subject by name."""

    fingerprint: Mapping[str, str]
    entries: Mapping[str, Recorded] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """The result of measuring one subject.

    Attributes:
        subject: its name.
        holds: as of `Recorded`, measured now.
        fails: likewise.
        standing: against the contract.
        detail: what was lost or gained, in words.
    """

    subject: str
    holds: Rows
    fails: Rows
    standing: Standing
    detail: str = ""


@dataclass(frozen=True)
class Findings:
    """A whole probe.

    Attributes:
        findings: one a subject.
        platform: this platform's name.
        differs: fields of the fingerprint in which this machine differs from where the contract was measured.
        fingerprint: this platform's.
        recorded: whether there is a contract of this platform.
        unmeasured: subjects of it that were not measured.
    """

    findings: tuple[Finding, ...]
    platform: str
    differs: tuple[str, ...]
    fingerprint: Mapping[str, str]
    recorded: bool = True
    unmeasured: tuple[str, ...] = ()

    @property
    def lost(self) -> bool:
        """True where a recorded property does not hold any more."""
        return any(finding.standing is Standing.LOST for finding in self.findings)

    @property
    def gated(self) -> bool:
        """True where everything was compared with a contract of this very platform."""
        standings = {finding.standing for finding in self.findings}
        return bool(self.findings) and not standings & {Standing.MISSING, Standing.NOT_GATED}

    def summary(self) -> str:
        """The findings counted, in one line."""
        counts = [f"{sum(f.standing is s for f in self.findings)} {s}" for s in Standing]
        counted = ", ".join(count for count in counts if not count.startswith("0 "))
        left = len(self.unmeasured)
        more = f"; {left} recorded subject{'s were' if left > 1 else ' was'} not measured" if left else ""
        return f"{len(self.findings)} subjects: {counted} ({self._where()}){more}"

    def document(self) -> dict[str, Any]:
        """The findings as plain JSON values."""
        where = {"name": self.platform, "differs": list(self.differs), "fingerprint": dict(self.fingerprint)}
        summary = {"lost": self.lost, "gated": self.gated, "text": self.summary()}
        return {"findings": [asdict(finding) for finding in self.findings], "platform": where, "summary": summary}

    def _where(self) -> str:
        if not self.recorded:
            return f"there is no contract of {self.platform}"
        if self.differs:
            return f"{self.platform}: contract of another machine, this one differs in {', '.join(self.differs)}"
        return f"contract of {self.platform}"


def declared(
    decoders: Sequence[str] = (AFFINE, "tiny"),
    executors: Sequence[str] = (),
    dtypes: Sequence[str] = ("float32",),
    frames: Sequence[int] = (16, 75),
    *,
    max_rows: int = 8,
    device: str = "cpu",
    engine: Path | None = None,
) -> list[Subject]:
    """Every combination, each with free and with pinned rows; by default what a CPU's contract covers.

    Without executors it is every kind whose bits are measured on the device.
    """
    return [
        Subject(decoder, executor, dtype, length, pin_rows, max_rows, device, engine)
        for decoder in decoders
        for executor in executors or compared(device)
        for dtype in dtypes
        for length in frames
        for pin_rows in (None, max_rows)
    ]


def probe(
    subjects: Sequence[Subject], captures: Path = CAPTURES, advance: Callable[[str], None] = lambda _name: None
) -> Findings:
    """Measure, and compare with the platform's contract where there is one.

    Args:
        subjects: what to measure, all on one device.
        captures: the folder that holds one folder a platform.
        advance: called with the name of each subject before it is measured.

    Raises:
        CapturesError: the contract is there and cannot be used.
    """
    device = subjects[0].device
    with platform.one_thread():
        here = platform.of_device(device)
        known = read(captures, device)
        differs = () if known is None else platform.differing(here, known.fingerprint)
        entries = {} if known is None else known.entries
        findings = []
        for subject in subjects:
            advance(subject.name)
            held = measured(subject)
            findings.append(_finding(subject.name, held, entries.get(subject.name), gated=not differs))
    unmeasured = tuple(sorted(entries.keys() - {subject.name for subject in subjects}))
    return Findings(tuple(findings), platform.name(device), differs, here, known is not None, unmeasured)


@alone
def record(
    reason: str,
    subjects: Sequence[Subject],
    captures: Path = CAPTURES,
    advance: Callable[[str], None] = lambda _name: None,
) -> Findings:
    """Make what is measured the platform's contract: the entries of `subjects`, and no other, are written anew.

    Returns:
        What was measured, against the contract as it was before.

    Raises:
        BlessRefused: under continuous integration, without a reason, with uncommitted captures or no checkout, where
            a second measurement says something else, or where it would mix the contracts of two machines.
    """
    refuse_unless_explicit(reason, captures)
    device = subjects[0].device
    known = read(captures, device)
    kept = {} if known is None else dict(known.entries)
    # Before anything is measured, which may take minutes.
    with platform.one_thread():
        differs = () if known is None else platform.differing(platform.of_device(device), known.fingerprint)
    if differs and kept.keys() - {subject.name for subject in subjects}:
        raise BlessRefused(f"it would mix contracts of two machines, which differ in {', '.join(differs)}")
    found = probe(subjects, captures, advance)
    with platform.one_thread():
        for subject, finding in zip(subjects, found.findings, strict=True):
            advance(subject.name)
            if _rows(measured(subject)) != (finding.holds, finding.fails):
                raise BlessRefused(f"{subject.name} is not reproducible: measured again, other properties hold")
            kept[subject.name] = Recorded(finding.holds, finding.fails, reason)
    document = {"fingerprint": found.fingerprint, "subjects": {n: _written(e) for n, e in sorted(kept.items())}}
    store.write_document(path(captures, device), document)
    return found


def read(captures: Path = CAPTURES, device: str = "cpu") -> Contract | None:
    """The contract of the platform that `device` is; None where it has none.

    Raises:
        CapturesError: it is there and cannot be used.
    """
    file = path(captures, device)
    try:
        document = store.read_document(file)
    except store.ManifestMissing:
        return None
    found = store.fitted(_Document, document, file, "a contract")
    entries, left = {}, MOST_NUMBERS
    try:
        for name, written in found.subjects.items():
            entries[name] = _parsed(f"subjects.{name}", written, left)
            left -= sum(map(len, (*entries[name].holds.values(), *entries[name].fails.values())))
    except InvalidInput as error:
        raise store.ManifestAltered(f"{file}: altered, not a contract ({error})") from error
    return Contract(found.fingerprint, entries)


def path(captures: Path, device: str = "cpu") -> Path:
    """Where the contract of the platform that `device` is is kept."""
    return captures / platform.name(device) / CONTRACT


def measured(subject: Subject) -> Held:
    """Every property of one subject."""
    executor, rows = subject.make()
    try:
        return measure(executor, rows)
    finally:
        executor.close()


def compare(held: Held, expected: Recorded) -> tuple[list[str], list[str]]:
    """Lost and gained properties, in words. A recorded number of rows that was not measured is lost."""
    holds, fails = _rows(held)
    return list(_missing(expected.holds, holds)), list(_missing(expected.fails, fails))


def ranges(rows: Sequence[int]) -> str:
    """Numbers in ascending order, runs of them as ranges: `1-2, 4`; empty where there are none."""
    known = set(rows)
    starts = [row for row in rows if row - 1 not in known]
    ends = [row for row in rows if row + 1 not in known]
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))


def numbers(text: str) -> list[int]:
    """The numbers that `ranges` wrote.

    Raises:
        ValueError: it did not write this.
    """
    found: list[int] = []
    for part in text.split(", ") if text else ():
        match = _RANGE.fullmatch(part)
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        # Before a list is made of it, as a range of nine characters has millions of numbers.
        if low <= (found[-1] + 1 if found else 0) or low > high or (match and match[2] and low == high):
            raise ValueError(f"{described(text)} are no numbers of rows")
        found.extend(range(low, high + 1))
    return found


def _written(entry: Recorded) -> dict[str, Any]:
    split = {"holds": entry.holds, "fails": entry.fails}
    return {
        "reason": entry.reason,
        **{name: {asked: ranges(rows) for asked, rows in part.items()} for name, part in split.items()},
    }


def _parsed(field: str, written: _Written, left: int) -> Recorded:
    """An entry; `left` is how many numbers of rows it may have, as a short text stands for thousands."""
    parts: dict[str, Rows] = {"holds": {}, "fails": {}}
    for part, rows in parts.items():
        for asked, text in getattr(written, part).items():
            try:
                rows[asked] = numbers(text)
            except ValueError as error:
                raise InvalidInput(
                    f"{field}.{part}.{asked}", described(text), "numbers of rows, as `1-2, 4`"
                ) from error
            left -= len(rows[asked])
            if left < 0:
                raise InvalidInput(f"{field}.{part}.{asked}", "more rows than that", f"at most {MOST_NUMBERS} in all")
    return Recorded(**parts, reason=written.reason)


def _missing(recorded: Rows, now: Rows) -> Iterator[str]:
    for name, counts in recorded.items():
        gone = sorted(set(counts) - set(now.get(name, [])))
        if gone:
            yield f"{name} at {ranges(gone)} rows"


def _rows(held: Held) -> tuple[Rows, Rows]:
    """The numbers of rows at which each property holds, and at which it does not."""
    split = {truth: {asked.value: [n for n, v in held[asked].items() if v is truth] for asked in Property}
             for truth in (True, False)}  # fmt: skip
    return split[True], split[False]


def _finding(name: str, held: Held, expected: Recorded | None, *, gated: bool) -> Finding:
    holds, fails = _rows(held)
    if expected is None:
        return Finding(name, holds, fails, Standing.MISSING)
    lost, gained = compare(held, expected)
    if not gated:
        return Finding(name, holds, fails, Standing.NOT_GATED, "; ".join(f"not {words}" for words in lost))
    if lost:
        return Finding(name, holds, fails, Standing.LOST, "; ".join(lost))
    return Finding(name, holds, fails, Standing.GAINED if gained else Standing.KEPT, "; ".join(gained))
