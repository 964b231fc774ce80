"""A profile as a whole: every field of its document, every cell of its tables, every category of the table of rules."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from harness.engine.aot import sidecar
from harness.engine.aot.layers import Layer
from harness.engine.aot.sidecar import Sidecar
from harness.engine.errors import InvalidInput
from harness.engine.noise import Purpose, noise
from harness.rails.profile import files, onnx, operators, rules, sources
from harness.rails.profile.report import Breakdown, NotAProfile, Profile, Timed
from harness.rails.profile.rules import Category, Facts, categorise
from harness.rails.profile.tables import tables
from tests.commands.test_tables import cells

BLOB = "{ForeignNode[a...b]}"
LAYERS = (
    Timed(Facts(Layer("s", "signal", "", 2)), 1.0, 2.0),
    Timed(Facts(Layer("a/MatMul_1", "gemm", "sm80_kernel", 1, ("a/MatMul_1", "a/Add_2"))), 4.0, 1.5),
    Timed(Facts(Layer("b/Exp_2"), "Exp"), 1.0),
    Timed(Facts(Layer("entry^bb^wait^1_myl0_2")), 2.0),
    Timed(Facts(Layer(BLOB)), 20.0),
    Timed(Facts(Layer("what_is_this")), 4.0),
)
OPAQUE = (
    "62.5% is in opaque Myelin layers: build the plan again with detailed profiling verbosity, and profile with the "
    "plan's list of layers, which names the ONNX nodes of each layer"
)
WAITS = "copy-reformat contains 2 layers in which streams wait for each other (9.4%)"
OVER = "the sum of the layers exceeds the wall time by 2.000 ms: the layers of 3 streams overlap"
PROFILE = Profile("tensorrt", LAYERS, 5, (29.0, 30.0, 40.0, 10.0), True, {"device": "cuda", "none": None, "list": []})


def part(layers, ms):
    return {"layers": layers, "ms": ms, "share": ms / 32}


def row(name, ms, category, rule, **more):
    plain = {"kind": "", "operator": None, "tactic": "", "stream": 0, "nodes": [], "calls": 1.0}
    return {"name": name, **plain, "ms": ms, "share": ms / 32, "category": category, "rule": rule, **more}


DOCUMENT = {
    "rules": 1,
    "source": "tensorrt",
    "provenance": {"device": "cuda", "none": None, "list": []},
    "resolved": True,
    "runs": 5,
    "wall": {"ms": 29.5, "samples_ms": [29.0, 30.0, 40.0, 10.0]},
    "sum_ms": 32.0,
    "residual": {"ms": -2.5, "share": -2.5 / 29.5},
    "gaps": None,
    "streams": 3,
    "shares_by": "time",
    "categories": {
        "attention": part(0, 0),
        "gemm": part(1, 4.0),
        "norm": part(0, 0),
        "pointwise": part(1, 1.0),
        "myelin-opaque": part(1, 20.0),
        "copy-reformat": part(2, 3.0),
        "other": part(1, 4.0),
    },
    "unattributed": part(2, 24.0),
    "opaque": part(1, 20.0),
    "waits": part(2, 3.0),
    "notes": [OVER.replace("2.000", "2.500"), WAITS, OPAQUE],
    "layers": [
        row(BLOB, 20.0, "myelin-opaque", "foreign-node"),
        row("a/MatMul_1", 4.0, "gemm", "product", kind="gemm", tactic="sm80_kernel", stream=1,
            nodes=["a/MatMul_1", "a/Add_2"], calls=1.5),
        row("what_is_this", 4.0, "other", ""),
        row("entry^bb^wait^1_myl0_2", 2.0, "copy-reformat", "stream-order-name"),
        row("s", 1.0, "copy-reformat", "stream-order", kind="signal", stream=2, calls=2.0),
        row("b/Exp_2", 1.0, "pointwise", "elementwise", operator="Exp"),
    ],
}  # fmt: skip


def test_the_document_has_every_field_of_every_layer_and_those_that_took_as_long_stay_in_order():
    assert json.loads(json.dumps(Breakdown(PROFILE).document())) == DOCUMENT


def test_the_document_of_a_list_without_times_has_shares_of_layers_and_no_sum():
    found = Breakdown(Profile("plan", [Timed(each.facts) for each in LAYERS])).document()
    assert [layer["name"] for layer in found["layers"]] == [each.facts.layer.name for each in LAYERS]
    assert {layer["share"] for layer in found["layers"]} == {1 / 6}
    assert (found["sum_ms"], found["wall"], found["residual"]) == (
        None, {"ms": None, "samples_ms": []}, {"ms": None, "share": None},
    )  # fmt: skip
    assert found["categories"]["copy-reformat"] == {"layers": 2, "ms": 0.0, "share": 2 / 6}
    assert found["notes"] == [WAITS.replace("9.4%", "33.3%")], "streams of layers without times overlap with nothing"


@pytest.mark.parametrize(("wall", "notes"), [
    ((30.0,), [OVER, WAITS, OPAQUE]),
    ((32.0,), ["the layers of 3 streams overlap: the sum of the layers is not the wall time", WAITS, OPAQUE]),
    ((), ["the layers of 3 streams overlap: the sum of the layers is not the wall time", WAITS, OPAQUE]),
])  # fmt: skip
def test_notes_are_said_in_full(wall, notes):
    assert list(Breakdown(Profile("tensorrt", LAYERS, 5, wall)).notes()) == notes


def test_a_residual_of_a_run_that_took_no_time_has_no_share():
    found = Breakdown(Profile("torch", [Timed(Facts(Layer("Conv_1")), 0.0)], 1, (0.0,)))
    assert (found.wall, found.residual, found.residual_share) == (0.0, 0.0, None)


def test_of_layers_that_take_no_time_on_one_stream_nothing_is_noted():
    assert list(Breakdown(Profile("torch", [Timed(Facts(Layer("Conv_1")), 1.0)], 1, (1.0,))).notes()) == []


def test_a_person_reads_the_facts_the_categories_the_layers_and_the_notes():
    facts, categories, layers, *lines = tables(Breakdown(PROFILE), 3)
    assert [found for found in cells(facts) if any(found)] == [
        ["device", "cuda"],
        ["source", "tensorrt"],
        ["profiled runs", "5"],
        ["wall time, ms per run", "29.500 (median; 10.000 to 40.000)"],
        ["sum of layers, ms per run", "32.000"],
        ["residual, ms per run", "-2.500 (-8.5% of the wall time)"],
    ]
    assert cells(categories) == [
        ["category", "layers", "ms", "share"],
        ["attention", "0", "0.000", "0.0%"],
        ["gemm", "1", "4.000", "12.5%"],
        ["norm", "0", "0.000", "0.0%"],
        ["pointwise", "1", "1.000", "3.1%"],
        ["myelin-opaque", "1", "20.000", "62.5%"],
        ["copy-reformat", "2", "3.000", "9.4%"],
        ["other", "1", "4.000", "12.5%"],
    ]
    assert cells(layers) == [
        ["layer", "category", "ms", "share", "calls"],
        [BLOB, "myelin-opaque", "20.000", "62.5%", "1"],
        ["a/MatMul_1", "gemm", "4.000", "12.5%", "1.5"],
        ["what_is_this", "other", "4.000", "12.5%", "1"],
    ]
    unattributed = "unattributed: 75.00% of the time, 2 of 6 layers (rules 1)"
    assert lines == [OVER.replace("2.000", "2.500"), WAITS, OPAQUE, unattributed]


def test_a_person_reads_of_a_list_without_times_its_rules_and_no_figure_of_time():
    found = Breakdown(Profile("plan", [Timed(each.facts) for each in LAYERS], provenance={"none": {}, "zero": 0}))
    facts, categories, layers, *lines = tables(found, 10)
    assert [each for each in cells(facts) if any(each)] == [["zero", "0"], ["source", "plan"]]
    assert cells(categories)[0] == ["category", "layers", "share"]
    assert cells(categories)[2] == ["gemm", "1", "16.7%"]
    assert cells(layers) == [
        ["layer", "category", "rule"],
        ["s", "copy-reformat", "stream-order"],
        ["a/MatMul_1", "gemm", "product"],
        ["b/Exp_2", "pointwise", "elementwise"],
        ["entry^bb^wait^1_myl0_2", "copy-reformat", "stream-order-name"],
        [BLOB, "myelin-opaque", "foreign-node"],
        ["what_is_this", "other", "none"],
    ]
    assert lines[-1] == "unattributed: 33.33% of the layers, 2 of 6 layers (rules 1)"


# The table of rules.

MODULES = ("", "mlp", "layers.0.self_attn", "cross_attention2", "attn", "norm_q", "group_norm", "LN_1", "normal")
PIECES = (
    "Fc Gemm Conv Dot Bmm Mm Exp Maxr Mean Sqrt Rsqr Div Resh Slic Cast Tran Conc Repl Move Gath Pad Mul Add Sub Neg "
    "Abs Sin Cos Silu Sele Iota Isna Or And Not Lt Le Gt Ge Eql Pow Max Min Sigm Tanh Relu Gelu Sum Scat Etc"
)
KINDS = (
    "signal wait shape_call gemm CaskConvolution caskgemmconvolution convolution scale PointWise pointwisev2 kgen "
    "runtime_fusion Myelin Reformat NoOp"
)
NODES = ("self_attn/Softmax_1", "self_attn/MatMul_1", "to_q/MatMul_2", "norm/ReduceMean_3", "norm_q/Mul_4",
         "a/ReduceMax_1", "b/Add_4", "b/Cast_5", "b/Unheard_6")  # fmt: skip


def everything():
    """Layers of every known operator in several modules, of every abbreviation with every node, and of every kind."""
    for op in sorted({*operators.KNOWN, "unheard"}):
        for module in MODULES:
            name = f"{module}/{op}_1"
            yield Facts(Layer(name), op)
            yield Facts(Layer(name))
    for piece in PIECES.split():
        for spelled in (piece, f"Add{piece}", f"{piece}Etc", f"Resh{piece}"):
            for node in (None, *NODES):
                yield Facts(Layer(f"__myl_{spelled}_myl0_3", nodes=() if node is None else (node,)))
    for kind in KINDS.split():
        yield Facts(Layer("some layer", kind))


def test_every_layer_keeps_its_category_and_rule_while_the_table_keeps_its_version():
    """Whoever moves a layer to another category raises the version, and puts the digest that is printed here."""
    said = [
        " ".join((facts.layer.name, facts.layer.kind, *facts.layer.nodes, str(facts.op), *map(str, categorise(facts))))
        for facts in everything()
    ]
    digest = hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]
    assert (rules.RULES_VERSION, len(said), digest) == (1, 5921, "ecc923d751084ebc")


@pytest.mark.parametrize("piece", ["Mul", "Add"])
def test_a_spelling_that_is_cut_off_is_never_read_as_all_of_it(piece):
    assert categorise(Facts(Layer(f"__myl_{piece}_myl0_3")))[0] is Category.POINTWISE
    assert categorise(Facts(Layer(f"__myl_{piece}Etc_myl0_3"))) == (Category.OTHER, "")


# Runs.


def test_a_batch_is_drawn_by_seeds_of_its_rows():
    made = sources.batch((2, 6, 3), channels=4, encoder_dim=16)

    def drawn(seed, length, width):
        return noise(seed, Purpose.INITIAL, 0, (1, length, width), torch.device("cpu"))

    assert torch.equal(made.hidden_states, torch.cat([drawn(0, 6, 4), drawn(1, 6, 4)]))
    assert torch.equal(made.encoder_hidden_states, torch.cat([drawn(2, 3, 16), drawn(3, 3, 16)]))
    context = torch.cat([drawn(4, 6, 4), drawn(5, 6, 4)])
    assert torch.equal(made.context_latents, torch.cat([context, torch.ones(2, 6, 4)], dim=2))
    assert made.timestep.tolist() == [1.0, 0.5]


def test_an_engine_s_provenance_is_that_of_its_metadata_by_name():
    names = ("flavour", "version", "compute_capability", "gpu", "driver", "dtypes", "verbosity")
    metadata = SimpleNamespace(layers=(), profile={}, **{name: f"the {name}" for name in names})
    subject = sources.EngineSubject(SimpleNamespace(sidecar=metadata), None)
    assert subject.provenance == {name: f"the {name}" for name in names}
    assert subject.source == "tensorrt"


def test_torch_s_subject_on_a_gpu_is_waited_for_on_its_device(monkeypatch):
    log = []
    monkeypatch.setattr(sources, "run_to_end", lambda executor, batch: log.append((executor, batch)))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: log.append(device))
    for kind, waits in (("cpu", []), ("cuda", ["waits"])):
        device = SimpleNamespace(type=kind)
        batch = SimpleNamespace(hidden_states=SimpleNamespace(device=device))
        log.clear()
        subject = sources.TorchSubject("executor", None, batch)
        subject.run()
        assert log == [("executor", batch), *[device for _ in waits]]
    assert (subject.source, subject.provenance) == ("torch", {})


def test_torch_s_subject_warms_up_outside_the_profile_and_inside_the_scopes(monkeypatch):
    log = []

    @contextmanager
    def entering(name, found=None):
        log.append(f"{name} on")
        yield found
        log.append(f"{name} off")

    event = SimpleNamespace(
        name="aten::mm", cpu_parent=None, device_type=SimpleNamespace(name="CPU"), self_cpu_time_total=3000.0
    )
    seen = SimpleNamespace(events=lambda: [event] * 4)
    monkeypatch.setattr(sources, "scopes", lambda decoder: entering(f"scopes of {decoder}"))
    monkeypatch.setattr(torch.profiler, "profile", lambda **_: entering("profile", seen))
    monkeypatch.setattr(sources.TorchSubject, "on_gpu", False)
    monkeypatch.setattr(sources.TorchSubject, "run", lambda _self: log.append("run"))
    found, resolved = sources.TorchSubject(None, "it", None).layers(2, 3)
    assert log == ["scopes of it on", *["run"] * 3, "profile on", *["run"] * 2, "profile off", "scopes of it off"]
    assert (found, resolved) == ([Timed(Facts(Layer("aten::mm"), "aten::mm"), 6.0, 2.0)], False)


def test_every_module_but_the_outermost_is_a_scope_and_no_hook_is_left():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU()))
    names = []

    class Recorded:
        def __init__(self, name):
            self.name = name

        def __enter__(self):
            names.append(f"in {self.name}")

        def __exit__(self, *_error):
            names.append(f"out {self.name}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.profiler, "record_function", Recorded)
        with pytest.raises(KeyError), sources.scopes(model):
            for _ in range(2):
                model(torch.zeros(1, 2))
            raise KeyError
        model(torch.zeros(1, 2))
    once = ["in 0", "out 0", "in 1", "in 1.0", "out 1.0", "out 1"]
    assert names == [name.replace(" ", " module: ") for name in once * 2]
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in model.modules())


def test_an_operator_s_facts_are_its_own_name_and_its_innermost_module():
    def event(name, parent=None, device="CPU"):
        kind = SimpleNamespace(name=device)
        return SimpleNamespace(name=name, cpu_parent=parent, device_type=kind, self_cpu_time_total=1000.0)

    inner = event("module: a.b", event("module: a"))
    found = sources.operators([event("aten::mm", event("aten::linear", inner)), event("x::y")], 1, on_gpu=False)
    assert [each.facts for each in found] == [Facts(Layer("a.b/aten::mm"), "aten::mm"), Facts(Layer("x::y"), "x::y")]


# ONNX Runtime.

TYPES = {"hidden_states": "tensor(float)", "timestep": "tensor(double)", "encoder_hidden_states": "tensor(float16)",
         "context_latents": "tensor(float)", "encoder_mask": "tensor(bool)"}  # fmt: skip
SHAPES = {"hidden_states": ["n", "2*half", 4], "encoder_hidden_states": ["n", "l", 16]}


def given():
    return [SimpleNamespace(name=name, type=kind, shape=SHAPES.get(name, [])) for name, kind in TYPES.items()]


def test_a_session_is_fed_with_a_batch_s_numbers():
    fed = onnx.feed(given(), (2, 6, 3))
    wanted = sources.batch((2, 6, 3), 4, 16).tensors()
    assert [*fed] == [*TYPES]
    for name, array in fed.items():
        assert np.array_equal(array, wanted[name].numpy().astype(array.dtype)), name
    assert fed["timestep"].dtype == np.float64


def test_what_a_session_cannot_be_fed_with_is_named():
    with pytest.raises(InvalidInput, match=r"seq-len: got 7, expected an even number: the model takes patches of two"):
        onnx.feed(given(), (2, 7, 3))
    with pytest.raises(InvalidInput, match=r"engine: got inputs \['timestep'\], expected those of an exported decoder"):
        onnx.feed(given()[1:2], (2, 6, 3))


def test_only_kernels_of_the_last_runs_count_wherever_they_stand_in_the_file():
    def event(name, ts, us=0, op=None):
        return {"name": name, "ts": ts, "dur": us, "args": {"op_name": op}}

    events = [
        event("b_kernel_time", 30, 500, "Cast"),
        event("model_run", 30),
        event("model_run", 10),
        event("a_kernel_time", 31, 1000, "MatMul"),
        event("a_fence_before", 31, 9000, "MatMul"),
        event("a_kernel_time_", 31, 9000, "MatMul"),
        event("SequentialExecutor::Execute", 31, 9000),
        event("a_kernel_time", 29, 9000, "MatMul"),
        event("a_kernel_time", 41, 3000, "FusedMatMul"),
        event("model_run", 40),
        event("model_run", 20),
    ]
    assert onnx.nodes(events, 2, 2) == [
        Timed(Facts(Layer("b"), "Cast"), 0.25, 0.5),
        Timed(Facts(Layer("a"), "FusedMatMul"), 2.0, 1.0),
    ]


class Runtime:
    """Sessions that say how they were made and what they ran, and write the events of one kernel."""

    def __init__(self):
        self.log = []

    def session(self, path, threads, profile=None):
        self.log.append(("session", path.name, threads, profile is not None))
        runs = []

        def run(outputs, fed):
            assert outputs is None
            self.log.append(("run", [*fed]))
            runs.append({"name": "model_run", "ts": 10 * len(runs)})

        def end():
            kernels = [
                {"name": "a_kernel_time", "ts": each["ts"] + 1, "dur": each["ts"], "args": {"op_name": "MatMul"}}
                for each in runs
            ]
            profile.with_suffix(".json").write_text(json.dumps([*runs, *kernels]))
            self.folder = profile.parent
            return str(profile.with_suffix(".json"))

        return SimpleNamespace(get_inputs=given, run=run, end_profiling=end)


def test_a_file_is_profiled_in_a_session_of_its_own_with_the_same_threads(monkeypatch, tmp_path):
    runtime = Runtime()
    monkeypatch.setattr(onnx, "session", runtime.session)
    monkeypatch.setattr(onnx, "import_module", lambda name: SimpleNamespace(__version__=f"version of {name}"))
    subject = onnx.OnnxSubject(tmp_path / "a.onnx", (2, 6, 3), 5)
    subject.run()
    found = subject.layers(2, 3)
    assert found == ([Timed(Facts(Layer("a"), "MatMul"), 0.035, 1.0)], False)
    run = ("run", [*TYPES])
    assert runtime.log == [("session", "a.onnx", 5, False), run, ("session", "a.onnx", 5, True), *[run] * 5]
    assert (subject.source, subject.provenance) == ("onnxruntime", {"onnxruntime": "version of onnxruntime"})
    assert not runtime.folder.exists()


# Files.


def test_what_a_profile_is_from_is_named_by_its_files(tmp_path):
    profile, listed = tmp_path / "the profile.json", tmp_path / "the layers.json"
    profile.write_text(json.dumps([{"name": "ü", "averageMs": 1.5}, {"count": 2}, {"count": 3.0}]), encoding="utf-8")
    tensors = [{"Name": "in"}, "out"]
    listed.write_text(json.dumps({"Layers": [{"Name": "ü", "LayerType": "gemm"}], "I/O Tensors": tensors}))
    alone, both = files.trtexec(profile), files.trtexec(profile, listed)
    timed = [Timed(Facts(Layer("ü")), 1.5)]
    assert alone == Profile(
        "trtexec", timed, 5, (), False, {"profile": "the profile.json", "inspector": None, "tensors": []}
    )
    names = {"profile": "the profile.json", "inspector": "the layers.json", "tensors": ["in", "out"]}
    assert both == Profile("trtexec", [Timed(Facts(Layer("ü", "gemm")), 1.5)], 5, (), True, names)


@pytest.mark.parametrize("counts", [[], [{"count": 0}], [{"count": 0.5}]])
def test_a_profile_that_says_no_number_of_runs_is_of_one(tmp_path, counts):
    (tmp_path / "p.json").write_text(json.dumps([*counts, {"name": "a", "averageMs": 1.0}]))
    found = files.trtexec(tmp_path / "p.json")
    assert (found.runs, Breakdown(found).timed) == (1, True)


@pytest.mark.parametrize(("key", "value", "fits"), [
    ("averageMs", 1e15, True),
    ("averageMs", 0, True),
    ("averageMs", 1.0000001e15, False),
    ("count", 10**15, True),
    ("count", 10**15 + 1, False),
    ("count", True, False),
    ("count", None, False),
    ("averageMs", "1", False),
])  # fmt: skip
def test_a_number_that_is_not_plausible_is_refused_by_name(tmp_path, key, value, fits):
    entry = {"count": 1, "name": "a", "averageMs": 1.0, key: value}
    entries = [{"count": entry.pop("count")}, entry]
    path = tmp_path / "p.json"
    path.write_text(json.dumps(entries))
    if fits:
        files.trtexec(path)
        return
    with pytest.raises(NotAProfile, match=rf"p\.json: {key} is .*expected a number from 0 to 1e\+15$"):
        files.trtexec(path)


def test_a_plan_s_profile_names_the_plan_and_its_metadata(tmp_path):
    path = tmp_path / "the.plan"
    path.write_bytes(b"plan")
    digest = hashlib.sha256(b"plan").hexdigest()
    layers = (Layer("a", "gemm", "kernel", 3, ("a/MatMul_1",)), Layer("b"))
    known = Sidecar(digest, "0", "tensorrt-rtx", "1.7", "8.9", "L4", "555", {}, {"x": "float16"}, 2, "detailed", layers)
    sidecar.write(path, known)
    assert files.plan(path) == Profile("plan", [Timed(Facts(each)) for each in layers], 0, (), True, {
        "plan": "the.plan",
        "flavour": "tensorrt-rtx",
        "version": "1.7",
        "compute_capability": "8.9",
        "dtypes": {"x": "float16"},
        "verbosity": "detailed",
    })  # fmt: skip
