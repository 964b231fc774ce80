"""Profiles from files: trtexec's, with the inspector's JSON of both generations, and a plan's own list of layers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from harness.engine.aot import sidecar
from harness.engine.aot.layers import Layer
from harness.engine.aot.sidecar import Sidecar
from harness.engine.errors import PlanCorrupt, SidecarMissing
from harness.rails.profile.files import plan, trtexec
from harness.rails.profile.report import Breakdown, NamelessLayers, NoLayers, NotAProfile, OtherEngine
from harness.rails.profile.rules import Category

BLOB = "{ForeignNode[ReduceMean_4492...Mul_4557]}"
PROFILE = [
    {"count": 102},
    {"name": BLOB, "timeMs": 3802.94, "averageMs": 37.2837, "medianMs": 37.2818, "percentage": 30.5601},
    {"name": "__myl_Add_myl0_92", "timeMs": 51.0, "averageMs": 0.5, "medianMs": 0.5, "percentage": 0.4},
    {"name": "Conv_26 + Relu_27", "timeMs": 308.86, "averageMs": 28.0779, "percentage": 4.9},
]
LAYERS = [
    {"Name": BLOB, "LayerType": "Myelin", "TacticValue": "0x0000000000000000"},
    {
        "Name": "__myl_Add_myl0_92",
        "LayerType": "kgen",
        "StreamId": 1,
        "Metadata": "[ONNX Layer: proj_out_conv/Add_428]\x1f[ONNX Layer: proj_out_conv/MatMul_427]",
    },
]


@pytest.fixture
def written(tmp_path):
    """A file of that name with that JSON in it, or with that text."""

    def write(name, content):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def test_trtexecs_averages_are_a_profile_without_a_wall_time(written):
    found = trtexec(written("profile.json", PROFILE))
    assert (found.source, found.runs, found.wall_ms, found.resolved) == ("trtexec", 102, (), False)
    assert [(each.facts.layer.name, each.ms) for each in found.layers] == [
        (BLOB, 37.2837),
        ("__myl_Add_myl0_92", 0.5),
        ("Conv_26 + Relu_27", 28.0779),
    ]
    assert Breakdown(found).categories[Category.OPAQUE].ms == 37.2837
    assert found.provenance == {"profile": "profile.json", "inspector": None, "tensors": []}


def test_a_file_is_read_as_utf_8_whatever_this_machine_writes(written, monkeypatch):
    def as_here(self, encoding="latin-1", errors="strict"):
        return self.read_bytes().decode(encoding, errors)

    path = written("profile.json", "[]")
    path.write_bytes('[{"name": "Schicht·é", "averageMs": 1.0}]'.encode())
    monkeypatch.setattr(Path, "read_text", as_here)
    (layer,) = trtexec(path).layers
    assert layer.facts.layer.name == "Schicht·é"


def test_a_name_that_is_listed_twice_is_one_layer(written):
    twice = [{"name": "Conv_1", "averageMs": 1.0}, {"name": "Conv_1", "averageMs": 2.5}]
    (layer,) = trtexec(written("profile.json", twice)).layers
    assert layer.ms == 3.5


@pytest.mark.parametrize(
    ("key", "tensors"),
    [("Bindings", ["hidden_states", "velocity"]), ("I/O Tensors", [{"Name": "hidden_states"}, {"Name": "velocity"}])],
)
def test_the_inspectors_json_of_either_generation_describes_the_layers(written, key, tensors):
    inspector = written("layers.json", {"Layers": LAYERS, key: tensors})
    found = trtexec(written("profile.json", PROFILE), inspector)
    assert found.resolved
    tensors = ["hidden_states", "velocity"]
    assert found.provenance == {"profile": "profile.json", "inspector": "layers.json", "tensors": tensors}
    add = found.layers[1].facts.layer
    assert (add.kind, add.stream, add.nodes) == ("kgen", 1, ("proj_out_conv/Add_428", "proj_out_conv/MatMul_427"))
    assert found.layers[2].facts.layer == Layer("Conv_26 + Relu_27")


def test_an_inspectors_json_of_bare_names_is_a_list_too(written):
    inspector = written("layers.json", {"Layers": [BLOB, "Conv_26 + Relu_27"], "Bindings": []})
    assert trtexec(written("profile.json", PROFILE), inspector).layers[0].facts.layer == Layer(BLOB)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("", NotAProfile),
        ("{}", NotAProfile),
        ("[1]", NotAProfile),
        ('[{"count": "many"}, {"name": "a", "averageMs": 1.0}]', NotAProfile),
        ('[{"name": "a"}]', NotAProfile),
        ('[{"name": "a", "averageMs": -1.0}]', NotAProfile),
        ('[{"name": "a", "averageMs": NaN}]', NotAProfile),
        ('[{"name": "a", "averageMs": true}]', NotAProfile),
        ('[{"name": "a", "averageMs": 1e308}, {"name": "b", "averageMs": 1e308}]', NotAProfile),
        (f'[{{"name": "a", "averageMs": {"9" * 400}}}]', NotAProfile),
        (f'[{{"name": "a", "averageMs": {"9" * 5000}}}]', NotAProfile),
        ('[{"count": 1e308}, {"count": 1e308}, {"name": "a", "averageMs": 1.0}]', NotAProfile),
        ("[" * 100_000, NotAProfile),
        ("[]", NoLayers),
        ('[{"count": 3}]', NoLayers),
        ('[{"count": 3}, {"name": "0", "averageMs": 1.0}]', NamelessLayers),
    ],
)
def test_what_is_no_profile_is_refused_by_name(written, content, error):
    with pytest.raises(error):
        trtexec(written("profile.json", content))


def test_a_missing_profile_is_refused_by_name(tmp_path):
    with pytest.raises(NotAProfile, match=r"profile\.json: not a JSON file"):
        trtexec(tmp_path / "profile.json")


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("[]", NotAProfile),
        ('{"Layers": 3}', NotAProfile),
        ('{"Layers": [{"LayerType": "kgen"}]}', NotAProfile),
        ('{"Layers": [3]}', NotAProfile),
        ('{"Layers": [{"Name": "a", "StreamId": 1e400}]}', NotAProfile),
        ('{"Layers": []}', NoLayers),
        ('{"Layers": ["Conv_1"]}', OtherEngine),
    ],
)
def test_what_is_no_list_of_this_engines_layers_is_refused_by_name(written, content, error):
    with pytest.raises(error):
        trtexec(written("profile.json", PROFILE), written("layers.json", content))


def built(folder, *layers):
    """A plan with its metadata."""
    path = folder / "tiny.plan"
    path.write_bytes(b"plan")
    shapes = {"hidden_states": ((1, 2, 8), (4, 750, 8), (8, 1500, 8))}
    known = Sidecar(
        plan_sha256=hashlib.sha256(b"plan").hexdigest(),
        onnx_sha256="0",
        flavour="tensorrt-rtx",
        version="1.7",
        compute_capability="8.9",
        gpu=None,
        driver=None,
        profile=shapes,
        dtypes={"hidden_states": "float16"},
        frames_multiple=2,
        verbosity="detailed",
        layers=layers,
    )
    sidecar.write(path, known)
    return path


def test_a_built_plans_layers_are_a_list_without_times(tmp_path):
    layers = (Layer("__myl_Fc_myl0_3"), Layer("x", "gemm", nodes=("a/MatMul_1",)))
    found = plan(built(tmp_path, *layers))
    assert (found.source, found.runs, found.resolved) == ("plan", 0, True)
    assert [each.facts.layer for each in found.layers] == list(layers)
    assert (found.provenance["flavour"], found.provenance["verbosity"]) == ("tensorrt-rtx", "detailed")
    assert found.provenance["plan"] == "tiny.plan"


def test_a_plan_without_a_list_of_layers_is_refused(tmp_path):
    with pytest.raises(NoLayers):
        plan(built(tmp_path))


def test_a_plan_without_its_metadata_is_refused(tmp_path):
    path = built(tmp_path, Layer("a"))
    sidecar.path(path).unlink()
    with pytest.raises(SidecarMissing):
        plan(path)


def test_an_altered_plan_is_refused(tmp_path):
    path = built(tmp_path, Layer("a"))
    path.write_bytes(b"other")
    with pytest.raises(PlanCorrupt):
        plan(path)
