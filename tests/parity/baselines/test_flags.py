"""What differs from a fresh process is named where it changes bits, and loosens nothing where it changes none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from harness.parity.baselines import captures, flags, platform
from harness.parity.baselines.verdicts import Verdict
from harness.parity.battery.scenarios import Scenario, play

ONE = "ode_plain"


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """Settings of torch are set back."""
    kept = torch.backends.mkldnn.enabled, torch.backends.cuda.flash_sdp_enabled()  # type: ignore[no-untyped-call]
    yield
    torch.backends.mkldnn.enabled = kept[0]
    torch.backends.cuda.enable_flash_sdp(kept[1])  # type: ignore[no-untyped-call]
    torch.backends.fp32_precision = "none"
    torch.set_default_device(None)


def in_a_process(setting: str, variables: dict[str, str]) -> dict[str, str]:
    """The flags that count in a process with variables, after a line of Python."""
    code = f"import torch; {setting}; import json; from harness.parity.baselines import flags; "
    code += "print(json.dumps(flags.unlike_fresh()))"
    given = {**os.environ, **variables, "PYTHONPATH": str(platform.ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=given, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_a_fresh_process_has_no_flag_and_the_probe_is_the_same_in_another_one() -> None:
    assert flags.unlike_fresh() == {}
    assert flags.probe() == flags.fresh_probe() == flags.probe()


def test_a_variable_or_setting_that_changes_no_bit_is_in_no_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = platform.fingerprint()
    monkeypatch.setenv("MKL_DEBUG_CPU_TYPE", "5")
    monkeypatch.setenv("MKL_NOT_A_VARIABLE", "5")
    assert platform.fingerprint() == before


def test_a_drifted_engine_is_no_tolerance_because_of_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    def drifted(scenario: Scenario) -> Any:
        made = play(scenario)
        moved = {name: torch.nextafter(each, each + 1) for name, each in made.finished.items()}
        return replace(made, finished=moved)

    before = captures.check(play=drifted, only=[ONE])
    monkeypatch.setenv("MKL_DEBUG_CPU_TYPE", "5")
    after = captures.check(play=drifted, only=[ONE])
    assert (after.results, after.compared_with) == (before.results, before.compared_with)
    if before.blessed_here:
        assert [each.verdict for each in after.results] == [Verdict.MOVED]


@pytest.mark.parametrize("variable", ["MKL_CBWR=COMPATIBLE", "ONEDNN_MAX_CPU_ISA=SSE41"])
def test_a_variable_that_changes_bits_is_named_in_its_process(variable: str) -> None:
    name, value = variable.split("=")
    assert in_a_process("pass", {name: value}) == {"environment": variable}
    assert in_a_process("pass", {"MKL_DEBUG_CPU_TYPE": "5"}) == {}


def mkldnn() -> None:
    torch.backends.mkldnn.enabled = False


def sdp() -> None:
    torch.backends.cuda.enable_flash_sdp(False)  # type: ignore[no-untyped-call]


def device() -> None:
    torch.set_default_device("meta")


def precision() -> None:
    torch.backends.fp32_precision = "ieee"


SETTINGS: dict[str, Callable[[], None]] = {"mkldnn_enabled": mkldnn, "attention": sdp, "default_device": device}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_changes_bits_is_named_by_check(name: str) -> None:
    SETTINGS[name]()
    report = captures.check(only=[ONE])
    assert all(name in differs for differs in report.compared_with.values())
    assert name in report.summary() or platform.name() not in report.compared_with


def test_a_precision_that_torch_refuses_to_say_is_no_traceback() -> None:
    precision()
    assert set(platform.fingerprint()) >= {"matmul_precision", "tf32"}


def test_the_attention_of_diffusers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUSERS_ATTN_BACKEND", "_native_math")
    assert flags.unlike_fresh() == {"diffusers_attention": "_native_math"}
