"""ONNX Runtime's profile: its events, and a real one of a small file."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from harness.engine.aot import runtime
from harness.engine.errors import EngineError, ExecutorError, ExportRefused, InvalidInput
from harness.rails.profile import sources
from harness.rails.profile.onnx import OnnxSubject, feed, nodes
from harness.rails.profile.report import Breakdown, NoLayers, NotAProfile
from harness.rails.profile.sources import profiled

INPUTS = {
    "hidden_states": ("tensor(float)", ["batch", "2*half", 4]),
    "timestep": ("tensor(float)", ["batch"]),
    "encoder_hidden_states": ("tensor(float16)", ["batch", "tokens", 16]),
    "context_latents": ("tensor(float)", ["batch", "2*half", 8]),
    "encoder_mask": ("tensor(bool)", ["batch", "tokens"]),
}


def inputs(**changed):
    return [SimpleNamespace(name=n, type=t, shape=s) for n, (t, s) in {**INPUTS, **changed}.items()]


def run(ts):
    return {"cat": "Session", "name": "model_run", "ts": ts, "dur": 90, "args": {}}


def kernel(name, op, ts, us):
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": us, "args": {"op_name": op}}


EVENTS = [
    {"cat": "Session", "name": "session_initialization", "ts": 1, "dur": 5, "args": {}},
    kernel("a/MatMul_1", "MatMul", 101, 9000),
    run(100),
    kernel("a/MatMul_1", "FusedMatMul", 201, 2000),
    kernel("Gather_token_3", "Gather", 202, 500),
    run(200),
    kernel("a/MatMul_1", "FusedMatMul", 301, 4000),
    kernel("Gather_token_3", "Gather", 302, 500),
    run(300),
]


def test_a_nodes_time_is_its_average_over_the_profiled_runs_and_not_over_those_that_warm_up():
    found = nodes(EVENTS, 2, 1)
    assert [(each.facts.layer.name, each.facts.op, each.ms, each.calls) for each in found] == [
        ("a/MatMul_1", "FusedMatMul", 3.0, 1.0),
        ("Gather_token_3", "Gather", 0.5, 1.0),
    ]


def test_a_profile_that_lacks_runs_is_refused():
    with pytest.raises(NotAProfile, match="has 3 runs, expected 4"):
        nodes(EVENTS, 2, 2)


@pytest.mark.parametrize("events", [[{"ts": 1}], [1], {"a": 1}, [run(1), {"name": "a_kernel_time", "ts": 2}]])
def test_what_is_no_profile_is_refused(events):
    with pytest.raises(NotAProfile):
        nodes(events, 1, 0)


def test_a_profile_without_nodes_is_refused():
    with pytest.raises(NoLayers):
        nodes([run(1)], 1, 0)


def test_a_session_is_fed_by_name_in_the_dtypes_that_it_says():
    arrays = feed(inputs(), (2, 6, 3))
    assert {name: (array.shape, array.dtype) for name, array in arrays.items()} == {
        "hidden_states": ((2, 6, 4), np.float32),
        "timestep": ((2,), np.float32),
        "encoder_hidden_states": ((2, 3, 16), np.float16),
        "context_latents": ((2, 6, 8), np.float32),
        "encoder_mask": ((2, 3), np.bool_),
    }


def test_a_file_without_a_mask_is_fed_without_one():
    assert "encoder_mask" not in feed(inputs()[:-1], (2, 6, 3))


@pytest.mark.parametrize(
    "changed",
    [
        {"pixels": ("tensor(float)", [1])},
        {"hidden_states": ("tensor(bfloat16)", ["batch", "2*half", 4])},
        {"hidden_states": ("tensor(float)", ["batch", "2*half", "channels"])},
        {"hidden_states": ("tensor(float)", ["batch"])},
    ],
)
def test_a_file_of_something_else_is_refused(changed):
    with pytest.raises(InvalidInput, match="those of an exported decoder"):
        feed(inputs(**changed), (2, 6, 3))


def test_an_error_that_says_nothing_of_the_file_is_passed_on(monkeypatch):
    def full(*_args):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(sources, "batch", full)
    with pytest.raises(RuntimeError, match="out of memory"):
        feed(inputs(), (2, 6, 3))


def test_an_odd_number_of_frames_is_refused_where_the_model_takes_patches():
    with pytest.raises(InvalidInput, match="seq-len"):
        feed(inputs(), (2, 7, 3))
    whole = {
        name: ("tensor(float)", ["batch", "frames", w]) for name, w in (("hidden_states", 4), ("context_latents", 8))
    }
    assert feed(inputs(**whole), (2, 7, 3))["hidden_states"].shape == (2, 7, 4)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A file with a decoder's inputs that sums its projected latents, one product and one softmax."""
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    shapes = {"hidden_states": ["n", "t", 4], "timestep": ["n"], "encoder_hidden_states": ["n", "l", 16],
              "context_latents": ["n", "t", 8], "encoder_mask": ["n", "l"]}  # fmt: skip
    given = [
        helper.make_tensor_value_info(name, kinds.BOOL if name == "encoder_mask" else kinds.FLOAT, shape)
        for name, shape in shapes.items()
    ]
    weight = helper.make_tensor("weight", kinds.FLOAT, [4, 4], [0.5] * 16)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["hidden_states", "weight"], ["p"], "layers.0.self_attn.to_q/MatMul_0"),
            helper.make_node("Softmax", ["p"], ["velocity"], "layers.0.self_attn/Softmax_1"),
        ],
        "small",
        given,
        [helper.make_tensor_value_info("velocity", kinds.FLOAT, ["n", "t", 4])],
        [weight],
    )
    path = tmp_path_factory.mktemp("small") / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def test_onnx_runtime_reports_the_nodes_of_a_file_and_leaves_no_profile_behind(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = Breakdown(profiled(OnnxSubject(small, (2, 6, 3)), 3, 2, {}))
    rows = {row.timed.facts.layer.name: row for row in found.rows}
    assert set(rows) == {"layers.0.self_attn.to_q/MatMul_0", "layers.0.self_attn/Softmax_1"}
    assert {str(row.category) for row in rows.values()} == {"gemm", "attention"}
    assert all(row.timed.calls == 1.0 for row in rows.values())
    assert found.profile.source == "onnxruntime"
    assert list(tmp_path.iterdir()) == []


def test_a_file_runs_on_one_thread_unless_more_are_asked_for(small):
    made = OnnxSubject(small, (2, 6, 3)), OnnxSubject(small, (2, 6, 3), 2)
    assert [each._session.get_session_options().intra_op_num_threads for each in made] == [1, 2]


def test_a_missing_file_is_refused_before_a_session_is_made(tmp_path):
    with pytest.raises(InvalidInput, match=r"gone\.onnx"):
        OnnxSubject(tmp_path / "gone.onnx", (2, 6, 3))


def test_what_is_no_onnx_file_is_refused(tmp_path):
    path = tmp_path / "a.onnx"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ExportRefused, match="cannot run it"):
        OnnxSubject(path, (2, 6, 3))


def test_a_run_that_onnx_runtime_refuses_is_an_executors_error(small):
    subject = OnnxSubject(small, (2, 6, 3))
    subject.feed = {**subject.feed, "hidden_states": np.zeros((2, 6, 5), np.float32)}
    with pytest.raises(ExecutorError, match="refused a run"):
        subject.run()


def test_onnx_runtime_that_is_not_installed_is_an_error_with_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(runtime, "find_spec", lambda _name: None)
    with pytest.raises(EngineError, match=r"pip install 'stream-harness\[onnx\]'"):
        OnnxSubject(tmp_path / "a.onnx", (2, 6, 3))
