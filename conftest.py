"""Set-up shared by every test of the whole suite; `tests/shared.py` has what needs no engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests import laws
from tests.bench import rails
from tests.parity import pairs

pytest_plugins = ["pytester", "tests.shared"]


@pytest.fixture(autouse=True, scope="session")
def _exports_are_shared(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[None]:
    """A decoder is exported once for all processes of this run, and anew for the next one."""
    from tests import shared_exports  # noqa: PLC0415 - coverage starts after this file is imported

    base = tmp_path_factory.getbasetemp()
    # Of one of several processes the base is a folder in that of the run. Asked of pytest, and not of the environment,
    # which a run that a test starts inherits.
    with shared_exports.within((base.parent if hasattr(request.config, "workerinput") else base) / "shared-exports"):
        yield


def pytest_report_header() -> list[str]:
    """Which contracts this run can hold the engine to, and which it cannot."""
    import torch  # noqa: PLC0415 - coverage starts after this file is imported

    from tests.tensorrt import ledger  # noqa: PLC0415 - coverage starts after this file is imported

    gpu = _held_to("cuda") if torch.cuda.is_available() else "contracts of GPUs: not tested here, they need the GPU"
    return [_held_to("cpu"), gpu, ledger.header(ledger.absent())]


def _held_to(device: str) -> str:
    from harness.parity.baselines import contract, platform  # noqa: PLC0415 - coverage starts after this file is imported

    with platform.one_thread():
        known, here = contract.read(device=device), platform.of_device(device)
    differs = () if known is None else platform.differing(here, known.fingerprint)
    state = "held to the letter" if known else "none is recorded: only what a ring relies on is tested"
    if differs:
        state = f"not gated, this machine differs in {', '.join(differs)}: only what a ring relies on is tested"
    return f"contract of {platform.name(device)}: {state}"


def pytest_deselected(items: list[pytest.Item]) -> None:
    """A run that leaves rails out on purpose measures what it was asked for."""
    if any("time_rail" in getattr(item, "fixturenames", ()) for item in items):
        items[0].config.stash[rails.PARTIAL] = True


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what one of pytest-xdist's workers says; one that says nothing of rails has measured none."""
    told = getattr(node, "workeroutput", {})
    rails.merge(node.config, told.get("rails"))
    laws.merge(told.get("laws"))
    if told.get("pairs"):
        node.config.stash[pairs.SAID] = told["pairs"]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A time rail that was renamed, deleted, skipped or disabled is a failure, as nothing else would notice it."""
    if hasattr(session.config, "workerinput"):
        session.config.workeroutput["rails"] = rails.found(session.config)
        session.config.workeroutput["laws"] = dict(laws.DRAWN)
        session.config.workeroutput["pairs"] = session.config.stash.get(pairs.SAID, "")
        return
    if session.shouldstop or session.shouldfail:
        return
    if rails.unmeasured(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Count the cases of laws; name the tests that had no TensorRT, and the time rails that were not measured."""
    from tests.tensorrt import ledger  # noqa: PLC0415 - coverage starts after this file is imported

    for line in laws.lines():
        terminalreporter.line(line)
    not_run = ledger.not_run(terminalreporter.stats.get("skipped", []))
    if not_run:
        terminalreporter.section("tests of TensorRT engines that did not run here")
        for line in ledger.lines(not_run):
            terminalreporter.line(line)
    if pairs.SAID in config.stash:
        terminalreporter.line(config.stash[pairs.SAID])
    missing = rails.unmeasured(config)
    if missing:
        terminalreporter.section("time rails that were not measured", red=True)
        for name in missing:
            terminalreporter.line(name, red=True)
