"""What a time rail lets pass and what not, and that none can go missing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.bench import rails
from tests.bench.rails import RAILS, TURNS, Rail, Side, draw, gate
from tests.fakes import StillClock

ROOT = Path(__file__).parent.parent.parent
RAIL = Rail("some: first / other", 1.0)


class Benchmark:
    """Does what pytest-benchmark's fixture does."""

    disabled = False

    def __init__(self) -> None:
        self.extra_info: dict[str, Any] = {}

    def pedantic(self, target: Side, setup: Side, rounds: int, warmup_rounds: int) -> None:
        for _ in range(rounds + warmup_rounds):
            setup()
            target()


Lasting = Callable[..., Side]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StillClock:
    """The clock of a draw."""
    still = StillClock()
    monkeypatch.setattr(rails, "perf_counter", still.perf_counter)
    return still


@pytest.fixture
def lasting(clock: StillClock) -> Lasting:
    """`lasting(ms, late)`: a side of `ms`, or of `late` from the second draw on."""

    def made(ms: float, late: float | None = None) -> Side:
        called: list[float] = []

        def side() -> None:
            called.append(ms)
            clock.sleep((ms if late is None or len(called) <= TURNS + 2 else late) / 1e3)

        return side

    return made


def test_a_ratio_is_that_of_the_two_sides_and_the_floor_that_of_the_twins(lasting: Lasting) -> None:
    found = draw(lasting(4), lasting(6), lasting(2), Benchmark())
    assert (found.ratio, found.floor) == pytest.approx((2.0, 0.5))


def test_a_slow_moment_falls_on_both_sides(clock: StillClock) -> None:
    started = clock.perf_counter()

    def slowing() -> None:
        clock.sleep(2e-3 if clock.perf_counter() - started < 0.05 else 8e-3)

    assert draw(slowing, slowing, slowing).ratio == pytest.approx(1.0)


def test_what_is_slower_than_the_bound_twice_is_red(lasting: Lasting) -> None:
    with pytest.raises(AssertionError, match=r"some: first / other: 4\.00 and again 4\.00, usually"):
        gate(RAIL, lasting(8), lasting(8), lasting(2), Benchmark())


def test_what_was_slow_once_is_not(lasting: Lasting) -> None:
    gate(RAIL, lasting(6, late=1), lasting(6), lasting(3), Benchmark())


def test_what_is_faster_is_green_and_the_report_has_ratio_bound_and_floor(lasting: Lasting) -> None:
    benchmark = Benchmark()
    gate(RAIL, lasting(1), lasting(1), lasting(4), benchmark)
    assert benchmark.extra_info.keys() == {"name", "usual", "bound", "ratio", "floor"}


def test_a_disabled_benchmark_is_red(lasting: Lasting) -> None:
    benchmark = Benchmark()
    benchmark.disabled = True
    with pytest.raises(AssertionError, match="nothing was measured"):
        gate(RAIL, lasting(1), lasting(1), lasting(4), benchmark)


# A project with the same rails, each measured in a test of its own that takes no time, and without torch.

MEASURING = """
import pytest, time
from tests.bench.rails import RAILS
@pytest.fixture(autouse=True)
def _one_thread(): pass
@pytest.fixture(autouse=True, scope="session")
def _exports_are_shared(): pass
def quick(): pass
def slow(): time.sleep(1e-4)
@pytest.mark.alone
@pytest.mark.parametrize("name", {names!r})
def test_rail(name, time_rail): time_rail(name, quick, quick, slow)
def test_other(): pass
"""


@pytest.fixture(name="measure")
def _measure(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., pytest.RunResult]:
    # Where it is set, pytest-benchmark takes itself for one of several processes.
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    folder = pytester.path / "tests" / "bench"
    wanted = [f"tests/bench/{file}" for file in ("__init__.py", "rails.py", "conftest.py")]
    wanted += ["tests/laws.py", "tests/parity/__init__.py", "tests/parity/pairs.py"]
    for file in ("conftest.py", "pyproject.toml", "tests/__init__.py", "tests/shared.py", *wanted):
        (pytester.path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, pytester.path / file)
    ledger = pytester.path / "tests" / "tensorrt" / "ledger.py"
    ledger.parent.mkdir()
    ledger.write_text("def not_run(skipped): return {}")

    def run(*options: str, names: list[str] | None = None) -> pytest.RunResult:
        (folder / "test_some.py").write_text(MEASURING.format(names=list(RAILS) if names is None else names))
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:cov", "--no-header", *options)

    return run


def test_all_rails_measured_are_green(measure: Callable[..., pytest.RunResult]) -> None:
    assert measure().ret == 0


@pytest.mark.parametrize("options", [(), ("tests/bench",), ("-m", "alone")])
def test_a_rail_that_nothing_measures_is_red_and_named(
    measure: Callable[..., pytest.RunResult], options: tuple[str, ...]
) -> None:
    gone, *rest = RAILS
    result = measure(*options, names=rest)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*time rails that were not measured*", gone])


@pytest.mark.parametrize("option", ["--benchmark-disable", "--benchmark-skip"])
def test_disabled_and_skipped_rails_are_red(measure: Callable[..., pytest.RunResult], option: str) -> None:
    assert measure(option).ret == 1


@pytest.mark.parametrize("options", [(), ("-m", "alone")])
def test_rails_beside_other_tests_are_red_and_named(
    measure: Callable[..., pytest.RunResult], options: tuple[str, ...]
) -> None:
    result = measure("-n", "2", *options)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*time rails that were not measured*", min(RAILS)])


def test_a_rail_that_no_process_of_several_has_is_red_and_named(measure: Callable[..., pytest.RunResult]) -> None:
    result = measure("-n", "2", names=[])
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*time rails that were not measured*", min(RAILS)])


@pytest.mark.parametrize("partial", [(True, False), (False, True)])
def test_rails_that_one_process_of_several_left_out_on_purpose_are_left_out(partial: tuple[bool, bool]) -> None:
    config: Any = SimpleNamespace(stash={})
    for each in partial:
        rails.merge(config, (["a rail"], each))
    assert rails.found(config) == (["a rail"], True)


@pytest.mark.parametrize(
    "options",
    [
        ("-k", "other"),
        ("tests/bench/test_some.py::test_other",),
        ("-n", "2", "-m", "not alone"),
        ("-n", "2", "-k", "other"),
    ],
)
def test_who_asks_for_some_tests_gets_these(measure: Callable[..., pytest.RunResult], options: tuple[str, ...]) -> None:
    assert measure(*options).ret == 0
