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


def test_of_several_fields_that_differ_the_first_is_named() -> None:
    names = ["flavour", "version", "compute_capability", "gpu", "driver"]
    for place, name in enumerate(names):
        with pytest.raises(PlanMismatch) as refused:
            check(replace(BUILT, **dict.fromkeys(names[place:], "another")), HERE)
        assert refused.value.field == name


def test_a_flavour_that_is_there_is_the_one_that_is_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "installed", lambda: (Flavour.TENSORRT, Flavour.RTX))
    monkeypatch.setattr(machine, "binding", lambda flavour: flavour)
    assert [binding_for(flavour) for flavour in ("tensorrt", "tensorrt-rtx")] == ["tensorrt", "tensorrt-rtx"]
    with pytest.raises(PlanMismatch, match="here it is tensorrt and tensorrt-rtx$"):
        binding_for("other")


def test_it_is_the_gpu_of_the_device_that_is_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = torch.device("cuda:1")
    capabilities, names = {asked: (12, 0)}, {asked: "second"}
    fake = SimpleNamespace(is_available=lambda: True, get_device_capability=capabilities.get, get_device_name=names.get)
    monkeypatch.setattr(torch, "cuda", fake)
    monkeypatch.setattr(machine, "driver", lambda: None)
    found = machine.here(Binding(Flavour.TENSORRT, "11.4", None), asked)
    assert found == Here("tensorrt", "11.4", "12.0", "second", None)


def test_the_driver_is_asked_of_nvidia_smi_and_whatever_fails_there_is_no_driver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []

    def run(command: Any, **options: Any) -> Any:
        asked.append((command, options))
        if len(asked) > 1:
            raise errors[len(asked) - 2]
        return SimpleNamespace(stdout="580.1\n570.2\n")

    errors = [
        subprocess.CalledProcessError(9, "nvidia-smi"),
        subprocess.TimeoutExpired("nvidia-smi", 60),
        PermissionError("nvidia-smi"),
    ]
    monkeypatch.setattr(subprocess, "run", run)
    assert [driver() for _ in range(4)] == ["580.1", None, None, None]
    command, options = asked[0]
    assert command == ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    assert options == {"capture_output": True, "text": True, "timeout": 60, "check": True}
