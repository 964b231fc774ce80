from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from harness.engine.aot import sidecar
from harness.engine.aot.layers import Layer
from harness.engine.aot.sidecar import Sidecar
from harness.engine.errors import PlanCorrupt, SidecarMissing

PLAN = b"a plan's bytes"
RECORD = Sidecar(
    plan_sha256=hashlib.sha256(PLAN).hexdigest(),
    onnx_sha256="b" * 64,
    flavour="tensorrt-rtx",
    version="1.7.1",
    compute_capability="8.9",
    gpu=None,
    driver=None,
    profile={"timestep": ((1,), (4,), (8,))},
    dtypes={"timestep": "float32", "velocity": "float16"},
    frames_multiple=2,
    verbosity="detailed",
    layers=(Layer("a", "gemm", "t", 1, ("x/MatMul_1",)),),
)
OTHER = {"frames_multiple": 1, "profile": {"timestep": ((1,), (4,), (9,))}, "dtypes": {}, "gpu": "a GPU", "driver": "1"}


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.plan"
    path.write_bytes(PLAN)
    sidecar.write(path, RECORD)
    return path


def test_what_was_written_is_read_back(plan: Path) -> None:
    assert sidecar.read_plan(plan) == (PLAN, RECORD)
    assert sorted(file.name for file in plan.parent.iterdir()) == ["tiny.plan", "tiny.plan.json"]


@pytest.mark.parametrize("name", [field.name for field in fields(Sidecar)])
def test_every_field_but_the_plans_own_decides_whether_it_fits(name: str) -> None:
    differing = list(sidecar.differing(RECORD, replace(RECORD, **{name: OTHER.get(name, "other")})))
    assert differing == ([] if name in ("plan_sha256", "layers") else [name])


def test_a_plan_without_metadata_is_refused(plan: Path) -> None:
    sidecar.path(plan).unlink()
    with pytest.raises(SidecarMissing, match="is missing.*build the plan again"):
        sidecar.read_plan(plan)


def _without(name: str) -> str:
    document = {"format": sidecar.FORMAT, **json.loads(json.dumps(RECORD.__dict__, default=lambda x: x.__dict__))}
    del document[name]
    return json.dumps(document)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", _without("profile"), _without("driver"), _without("layers")],
    ids=["empty", "a list", "an object", "no profile", "no driver", "no layers"],
)
def test_metadata_that_cannot_be_read_is_refused(plan: Path, text: str) -> None:
    sidecar.path(plan).write_text(text)
    with pytest.raises(SidecarMissing, match="build the plan again"):
        sidecar.read_plan(plan)


@pytest.mark.parametrize("version", [2, 0, -1])
def test_metadata_of_another_format_is_refused_and_not_guessed_at(plan: Path, version: int) -> None:
    document = json.loads(sidecar.path(plan).read_text())
    sidecar.path(plan).write_text(json.dumps({**document, "format": version}))
    with pytest.raises(SidecarMissing, match=f"format {version}, this version reads 1"):
        sidecar.read(plan)


def test_a_profile_without_its_three_shapes_is_refused(plan: Path) -> None:
    document = json.loads(sidecar.path(plan).read_text())
    document["profile"]["timestep"].pop()
    sidecar.path(plan).write_text(json.dumps(document))
    with pytest.raises(SidecarMissing, match="profile.timestep: got a list of 2, expected a list of 3"):
        sidecar.read(plan)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("flavour", ["tensorrt"]),
        ("plan_sha256", 5),
        ("onnx_sha256", 5),
        ("version", 1.7),
        ("driver", 580),
        ("compute_capability", None),
        ("gpu", 5),
        ("verbosity", {}),
        ("dtypes", 5),
        ("dtypes", {"velocity": 5}),
        ("frames_multiple", "2"),
        ("frames_multiple", 0),
        ("frames_multiple", True),
        ("profile", {"timestep": [["x"], [4], [8]]}),
        ("layers", [{"name": 5, "kind": "", "tactic": "", "stream": 0, "nodes": []}]),
        ("layers", [{"name": "a", "kind": "", "tactic": "", "stream": "0", "nodes": []}]),
        ("layers", [{"name": "a", "kind": "", "tactic": "", "stream": 0, "nodes": [5]}]),
    ],
)
def test_metadata_with_a_field_of_another_type_is_refused(plan: Path, name: str, value: object) -> None:
    document = json.loads(sidecar.path(plan).read_text())
    sidecar.path(plan).write_text(json.dumps({**document, name: value}))
    with pytest.raises(SidecarMissing, match="not a plan's metadata.*build the plan again"):
        sidecar.read(plan)


def test_metadata_that_is_nested_without_end_is_refused(plan: Path) -> None:
    sidecar.path(plan).write_text("[" * 100_000)
    with pytest.raises(SidecarMissing, match="not a plan's metadata"):
        sidecar.read(plan)


@pytest.mark.parametrize(
    "data", [PLAN[:-1], PLAN + b"x", b"", PLAN[:-1] + b"X"], ids=["cut", "longer", "empty", "altered"]
)
def test_a_truncated_or_altered_plan_is_refused(plan: Path, data: bytes) -> None:
    plan.write_bytes(data)
    with pytest.raises(PlanCorrupt, match=f"{len(data)} bytes"):
        sidecar.read_plan(plan)


def test_metadata_without_its_plan_is_refused(plan: Path) -> None:
    plan.unlink()
    with pytest.raises(PlanCorrupt, match="missing"):
        sidecar.read_plan(plan)


TEXT = """{
 "format": 1,
 "plan_sha256": "%s",
 "onnx_sha256": "%s",
 "flavour": "tensorrt-rtx",
 "version": "1.7.1",
 "compute_capability": "8.9",
 "gpu": null,
 "driver": null,
 "profile": {
  "timestep": [
   [
    1
   ],
   [
    4
   ],
   [
    8
   ]
  ]
 },
 "dtypes": {
  "timestep": "float32",
  "velocity": "float16"
 },
 "frames_multiple": 2,
 "verbosity": "detailed",
 "layers": [
  {
   "name": "a",
   "kind": "gemm",
   "tactic": "t",
   "stream": 1,
   "nodes": [
    "x/MatMul_1"
   ]
  }
 ]
}
"""


def test_metadata_is_this_text(plan: Path) -> None:
    assert sidecar.path(plan).read_text() == TEXT % (RECORD.plan_sha256, "b" * 64)
    assert sidecar.path(Path("a b/ü.v1.plan")) == Path("a b/ü.v1.plan.json")
    named = replace(RECORD, gpu="GPU ü", driver="580.1", layers=())
    sidecar.write(plan, named)
    assert sidecar.read(plan) == named


def test_fields_that_differ_are_named_in_the_order_of_the_record() -> None:
    other = replace(RECORD, **{field.name: OTHER.get(field.name, "other") for field in fields(Sidecar)})
    names = [field.name for field in fields(Sidecar) if field.name not in ("plan_sha256", "layers")]
    assert list(sidecar.differing(RECORD, other)) == names == list(sidecar.BUILT_FOR)
    assert list(sidecar.differing(RECORD, other, ("driver", "plan_sha256"))) == ["driver", "plan_sha256"]
    assert list(sidecar.differing(RECORD, RECORD)) == []


@pytest.mark.parametrize("field", ["name", "kind", "tactic"])
def test_a_layer_with_a_text_of_another_type_is_refused(plan: Path, field: str) -> None:
    document = json.loads(sidecar.path(plan).read_text())
    document["layers"][0][field] = 5
    sidecar.path(plan).write_text(json.dumps(document))
    with pytest.raises(SidecarMissing, match=rf"layers\[0\]\.{field}: got 5, expected a text"):
        sidecar.read(plan)


@pytest.mark.parametrize("text", ["5", "null", '"text"', "true"])
def test_metadata_that_is_no_object_is_refused(plan: Path, text: str) -> None:
    sidecar.path(plan).write_text(text)
    with pytest.raises(SidecarMissing, match="not a plan's metadata.*build the plan again"):
        sidecar.read(plan)


def test_metadata_with_an_endless_size_or_a_field_that_nobody_knows_or_other_bytes_is_refused(plan: Path) -> None:
    document = json.loads(sidecar.path(plan).read_text())
    endless = {**document, "profile": {"timestep": [[1], [4], [float("inf")]]}}
    layer = {**document["layers"][0], "more": 1}
    for other in (endless, {**document, "more": 1}, {**document, "layers": [layer]}):
        sidecar.path(plan).write_text(json.dumps(other))
        with pytest.raises(SidecarMissing, match="not a plan's metadata.*build the plan again"):
            sidecar.read(plan)
    sidecar.path(plan).write_bytes(b'{"gpu": "\xff"}')
    with pytest.raises(SidecarMissing, match="not a plan's metadata"):
        sidecar.read(plan)
