"""Plans that do not fit: a named error each, before TensorRT is asked and before anything is allocated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.engine.aot import here, sidecar
from harness.engine.errors import EngineError, PackageMissing, PlanCorrupt, PlanMismatch, SidecarMissing
from harness.engine.executors import TensorRTExecutor
from harness.engine.executors.tensorrt.runtime import CudaRuntime
from tests.engine.executors.tensorrt.fake_tensorrt import HERE, FakeRuntime, Made, plan


@pytest.fixture(name="runtime")
def _runtime() -> FakeRuntime:
    return FakeRuntime()


@pytest.fixture(name="refuses")
def _refuses(runtime: FakeRuntime) -> Callable[..., None]:
    def refuses(file: Path, kind: type[Exception], says: str) -> None:
        """Nothing was asked of TensorRT, and nothing allocated."""
        with pytest.raises(kind, match=says):
            TensorRTExecutor(file, runtime=runtime)
        assert (runtime.tape, runtime.allocations) == ([], 0)

    return refuses


Refuses = Callable[..., None]


@pytest.mark.parametrize(
    ("field", "here"),
    [("version", HERE.version), ("compute_capability", "9.0"), ("gpu", "NVIDIA H100"), ("driver", "580.1")],
)
def test_a_plan_for_something_else_is_refused_by_the_field_that_differs(
    tmp_path: Path, refuses: Refuses, field: str, here: str
) -> None:
    refuses(
        plan(tmp_path, **{field: "another"}),
        PlanMismatch,
        f"{field}: the plan was built for another, here it is {here}",
    )


def test_a_plan_of_the_other_flavour_is_refused(tmp_path: Path, refuses: Refuses) -> None:
    refuses(plan(tmp_path, flavour="tensorrt"), PlanMismatch, "flavour: the plan was built for tensorrt, here it is")


def test_a_plan_without_its_metadata_is_refused(tmp_path: Path, refuses: Refuses) -> None:
    file = plan(tmp_path)
    sidecar.path(file).unlink()
    refuses(file, SidecarMissing, "tiny.plan.json is missing")


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: b"", lambda data: data[:-1] + b"x"])
def test_a_plan_that_was_truncated_or_altered_is_refused(
    tmp_path: Path, refuses: Refuses, change: Callable[[bytes], bytes]
) -> None:
    file = plan(tmp_path)
    file.write_bytes(change(file.read_bytes()))
    refuses(file, PlanCorrupt, "is not the one in tiny.plan.json")


def test_a_plan_that_is_not_there_is_refused(tmp_path: Path, refuses: Refuses) -> None:
    file = plan(tmp_path)
    file.unlink()
    refuses(file, PlanCorrupt, "tiny.plan is missing")


def test_a_plan_that_was_built_without_a_gpu_runs_on_any_of_its_capability(tmp_path: Path) -> None:
    assert TensorRTExecutor(plan(tmp_path, gpu=None, driver=None), runtime=FakeRuntime()).max_rows == 8


@pytest.mark.parametrize(
    ("recorded", "kind", "says"),
    [
        (Made(rows=(1, 4, 16)), PlanCorrupt, "profile of hidden_states"),
        (Made(masked=False), PlanCorrupt, "dtypes of encoder_mask"),
    ],
)
def test_an_engine_that_its_metadata_does_not_describe_is_refused_before_anything_is_allocated(
    tmp_path: Path, runtime: FakeRuntime, recorded: Made, kind: type[Exception], says: str
) -> None:
    file, other = plan(tmp_path), sidecar.read(plan(tmp_path, recorded, "other.plan"))
    sidecar.write(file, replace(sidecar.read(file), profile=other.profile, dtypes=other.dtypes))
    with pytest.raises(kind, match=says):
        TensorRTExecutor(file, runtime=runtime)
    assert (runtime.configs, runtime.allocations) == ([], 0)


def test_a_plan_that_tensorrt_cannot_load_is_refused(tmp_path: Path, runtime: FakeRuntime) -> None:
    runtime.broken["engine"] = EngineError("TensorRT cannot load the plan here")
    with pytest.raises(EngineError, match="cannot load"):
        TensorRTExecutor(plan(tmp_path), runtime=runtime)
    assert (runtime.configs, runtime.allocations) == ([], 0)


@pytest.mark.parametrize(("flavour", "extra"), [("tensorrt", "trt"), ("tensorrt-rtx", "trt-rtx")])
def test_without_tensorrt_the_pip_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flavour: str, extra: str
) -> None:
    monkeypatch.setattr(here, "installed", lambda: ())
    monkeypatch.setattr("harness.engine.aot.bindings._module_name", lambda flavour: None)
    with pytest.raises(PackageMissing, match=rf"pip install 'stream-harness\[{extra}\]'"):
        TensorRTExecutor(plan(tmp_path, flavour=flavour))


def test_the_metadata_is_read_before_tensorrt_is_looked_for(tmp_path: Path) -> None:
    class Nothing(CudaRuntime):
        def binding(self, flavour: str) -> Any:
            raise AssertionError("TensorRT was looked for")

    with pytest.raises(PlanCorrupt, match="none.plan is missing"):
        TensorRTExecutor(str(tmp_path / "none.plan"), runtime=Nothing())
    (tmp_path / "bare.plan").write_bytes(b"a plan")
    with pytest.raises(SidecarMissing):
        TensorRTExecutor(tmp_path / "bare.plan", runtime=Nothing())
