from __future__ import annotations

import subprocess
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.engine.aot import here as machine
from harness.engine.aot.bindings import Binding, Flavour
from harness.engine.aot.here import Here, binding_for, check, driver
from harness.engine.aot.sidecar import Sidecar
from harness.engine.errors import PackageMissing, PlanMismatch

HERE = Here("tensorrt", "11.4", "9.0", "NVIDIA H100", "580.1")
BUILT = Sidecar(
    plan_sha256="", onnx_sha256="", flavour="tensorrt", version="11.4", compute_capability="9.0", gpu="NVIDIA H100",
    driver="580.1", profile={}, dtypes={}, frames_multiple=2, verbosity="detailed",
)  # fmt: skip


def test_a_plan_that_was_built_here_fits() -> None:
    check(BUILT, HERE)


def test_a_plan_that_was_built_without_a_gpu_fits_every_gpu_of_its_capability() -> None:
    check(replace(BUILT, gpu=None, driver=None), HERE)


@pytest.mark.parametrize("field", ["flavour", "version", "compute_capability", "gpu", "driver"])
def test_a_plan_for_something_else_is_refused_by_the_field_that_differs(field: str) -> None:
    with pytest.raises(
        PlanMismatch, match=f"{field}: the plan was built for another, here it is {getattr(HERE, field)}"
    ):
        check(replace(BUILT, **{field: "another"}), HERE)


def test_without_a_gpu_no_plan_fits() -> None:
    with pytest.raises(PlanMismatch, match=r"compute_capability: .* 9\.0, here it is no CUDA device"):
        check(replace(BUILT, gpu=None, driver=None), Here("tensorrt", "11.4"))


def test_a_driver_that_nobody_knows_is_not_the_one_it_was_built_for() -> None:
    with pytest.raises(PlanMismatch, match=r"driver: .* 580\.1, here it is not known"):
        check(BUILT, replace(HERE, driver=None))


def test_without_any_tensorrt_the_pip_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "installed", lambda: ())
    monkeypatch.setattr("harness.engine.aot.bindings._module_name", lambda flavour: None)
    for flavour, extra in (("tensorrt", "trt"), ("tensorrt-rtx", "trt-rtx")):
        with pytest.raises(PackageMissing, match=rf"pip install 'stream-harness\[{extra}\]'"):
            binding_for(flavour)


@pytest.mark.parametrize(("there", "here"), [((Flavour.RTX,), "tensorrt-rtx"), ((), "not known")])
def test_a_plan_of_a_flavour_that_is_not_installed_is_refused(
    monkeypatch: pytest.MonkeyPatch, there: tuple[Flavour, ...], here: str
) -> None:
    monkeypatch.setattr(machine, "installed", lambda: there)
    flavour = "tensorrt" if there else "tensorrt-for-toasters"
    with pytest.raises(PlanMismatch, match=f"flavour: the plan was built for {flavour}, here it is {here}"):
        binding_for(flavour)


def test_here_is_what_torch_and_the_binding_say(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = SimpleNamespace(
        is_available=lambda: True, get_device_capability=lambda device: (9, 0), get_device_name=lambda device: "H100"
    )
    monkeypatch.setattr(torch, "cuda", fake)
    monkeypatch.setattr(machine, "driver", lambda: "580.1")
    found = machine.here(Binding(Flavour.RTX, "1.7", None), torch.device("cuda:0"))
    assert found == Here("tensorrt-rtx", "1.7", "9.0", "H100", "580.1")
    fake.is_available = lambda: False
    assert machine.here(Binding(Flavour.RTX, "1.7", None), torch.device("cuda:0")) == Here("tensorrt-rtx", "1.7")


@pytest.mark.parametrize(("said", "expected"), [("580.1\n580.1\n", "580.1"), ("", None), (None, None)])
def test_the_driver_is_what_its_own_tool_says(
    monkeypatch: pytest.MonkeyPatch, said: str | None, expected: str | None
) -> None:
    def run(*_args: Any, **_options: Any) -> Any:
        if said is None:
            raise FileNotFoundError("nvidia-smi")
        return SimpleNamespace(stdout=said)

    monkeypatch.setattr(subprocess, "run", run)
    assert driver() == expected


@pytest.mark.parametrize("field", ["gpu", "driver"])
def test_an_empty_field_is_not_one_that_was_left_out(field: str) -> None:
    with pytest.raises(PlanMismatch, match=f"{field}: "):
        check(replace(BUILT, **{field: ""}), HERE)
