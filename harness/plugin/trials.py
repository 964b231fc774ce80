"""The fixture `scripts`: random scripts for rings of any make."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from harness.plugin.fixtures import Fixture
from harness.plugin.places import one_thread

if TYPE_CHECKING:
    from harness.parity.foreign.records import Script as ForeignScript
    from harness.parity.foreign.trial import Proved


class Scripts(Fixture):
    """Random scripts for a ring of any make; see `harness.parity.foreign`."""

    def __call__(
        self,
        make: Callable[..., Any],
        *,
        plain: Mapping[str, Any] | None = None,
        fast: Mapping[str, Any] | None = None,
        count: int = 20,
        seed: int = 0,
        size: int = 28,
        **options: Any,
    ) -> Proved:
        """Pass if in random scripts both rings make the same bytes, each request those that it has alone.

        Args:
            make: function that makes a new adapter of `harness.parity.foreign.records.Scripted`, such as its class.
            plain: keyword arguments of `make` for the reference ring.
            fast: the same for the ring that must make the same bytes; None compares requests with themselves alone.
            count: number of scripts.
            seed: seed of the first script; the others follow.
            size: number of operations of a script.
            options: `bounds`, `where_both`, `not_alone`, `waived` and `runs` of `harness.parity.foreign.trial.Options`.

        Raises:
            ScriptFailed: a script fails; the message names its seed and a small script that fails in the same way.
            NotCovered: something that the ring can do occurred in no script.
            NothingCompared: nothing was compared, or nothing within a bound.
            InvalidInput: the adapter lacks a method, or an option is out of range.
        """
        __tracebackhide__ = True
        from harness.parity.foreign import trial  # noqa: PLC0415 - imports torch

        rings = _rings(make, plain, fast)
        return self._kept(trial.run(*rings, count, seed, size, trial.Options(**options)))

    def replay(
        self,
        make: Callable[..., Any],
        script: ForeignScript,
        *,
        plain: Mapping[str, Any] | None = None,
        fast: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Proved:
        """Pass if one script, such as one that failed, passes now; arguments and errors as for the fixture itself."""
        __tracebackhide__ = True
        from harness.parity.foreign import trial  # noqa: PLC0415 - imports torch

        return self._kept(trial.replay(*_rings(make, plain, fast), script, trial.Options(**options)))

    def _kept(self, proved: Proved) -> Proved:
        kept = self._ledger.tolerance if proved.bounds else self._ledger.exact
        kept.append(f"script proof: {self._test}, {proved}")
        return proved


def _rings(
    make: Callable[..., Any], plain: Mapping[str, Any] | None, fast: Mapping[str, Any] | None
) -> tuple[Callable[[], Any], Callable[[], Any] | None]:
    return partial(make, **(plain or {})), None if fast is None else partial(make, **fast)


@pytest.fixture
def scripts(request: pytest.FixtureRequest) -> Iterator[Scripts]:
    """`scripts(make, fast={...})`: play random scripts on rings of any make; one torch thread."""
    with one_thread():
        yield Scripts(request)
