"""ONNX Runtime on static buffers: a file is read, what it does not take is refused, and no view outlives a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from torch import Tensor

from harness.engine import Condition, PipelineConfig, Request, StreamPipeline
from harness.engine.aot import runtime
from harness.engine.aot.signature import Span
from harness.engine.errors import (
    BatchTooLarge,
    ExecutorError,
    ExportRefused,
    InvalidInput,
    OutsideProfile,
    PackageMissing,
    PipelineClosed,
)
from harness.engine.executors import Batch, Executor, OnnxExecutor
from harness.parity.compare import assert_identical
from tests.onnx_files import D, E, velocity, whole, written


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> Path:
    return written(tmp_path / "a.onnx")


def padded(batch: Batch) -> Batch:
    """With one frame of zeros more."""
    tensors = batch.tensors()
    for name in ("hidden_states", "context_latents"):
        tensors[name] = torch.nn.functional.pad(tensors[name], (0, 0, 0, 1))
    return Batch(**tensors)


# What is computed.


@pytest.mark.parametrize("pin_rows", [None, 8])
def test_it_computes_what_the_file_says(file: Path, pin_rows: int | None) -> None:
    executor = OnnxExecutor(file, pin_rows=pin_rows)
    for rows, frames, tokens in ((3, 10, 6), (8, 10, 6), (1, 4, 9), (3, 10, 6)):
        batch = whole(rows, frames, tokens)
        assert_identical(executor.run(batch), velocity(batch))


def test_it_is_an_executor(file: Path) -> None:
    executor = OnnxExecutor(file)
    assert isinstance(executor, Executor)
    assert (executor.max_rows, executor.takes_mask, executor.stream) == (8, True, None)


def test_what_a_file_takes_is_read_from_it(file: Path) -> None:
    found = OnnxExecutor(file).signature
    assert (found.channels, found.context_channels, found.encoder_dim, found.frames_multiple) == (D, 2 * D, E, 2)
    assert (found.rows, found.frames, found.tokens) == (Span(1), Span(2), Span(1))
    assert found.dtypes == {**dict.fromkeys(found.dtypes, torch.float32), "encoder_mask": torch.bool}


def test_frames_without_a_multiple_are_taken_as_they_are(tmp_path: Path) -> None:
    frames = {name: ("batch", "frames", width) for name, width in
              (("hidden_states", D), ("context_latents", 2 * D), ("velocity", D))}  # fmt: skip
    executor = OnnxExecutor(written(tmp_path / "a.onnx", **frames))
    assert executor.signature.frames_multiple == 1
    assert_identical(executor.run(whole(2, 5)), velocity(whole(2, 5)))


def test_an_odd_frame_is_padded_with_zeros_and_cut_again(file: Path) -> None:
    executor = OnnxExecutor(file)
    assert_identical(executor.run(whole(2, 9)), velocity(padded(whole(2, 9)))[:, :9])


def test_the_frame_that_pads_is_zero_after_a_longer_run_of_the_same_buffers(file: Path) -> None:
    executor = OnnxExecutor(file)
    executor.run(whole(2, 10, seed=2))
    assert_identical(executor.run(whole(2, 9)), velocity(padded(whole(2, 9)))[:, :9])
    assert executor.shapes == 1


def test_a_file_in_float16_gets_and_gives_float16(tmp_path: Path) -> None:
    half = {n: TensorProto.FLOAT16 for n in ("hidden_states", "encoder_hidden_states", "context_latents", "velocity")}
    executor = OnnxExecutor(written(tmp_path / "a.onnx", dtypes=half))
    assert executor.signature.dtypes["timestep"] is torch.float32
    assert executor.signature.dtypes["hidden_states"] is torch.float16
    assert_identical(executor.run(whole(3)), velocity(whole(3)).half())


def test_a_file_without_a_mask_attends_everything(tmp_path: Path) -> None:
    executor = OnnxExecutor(written(tmp_path / "a.onnx", without=["encoder_mask"]))
    assert not executor.takes_mask
    assert_identical(executor.run(whole(3)), velocity(whole(3), mask=False))


def test_pinned_rows_bound_the_rows_of_a_run_and_repeat_the_first(file: Path) -> None:
    executor = OnnxExecutor(file, pin_rows=4)
    assert executor.max_rows == 4
    for rows in (4, 1, 3):
        executor.run(whole(rows))
    (buffers,) = executor._buffers.values()
    for name, tensor in whole(3).tensors().items():
        assert_identical(buffers[name], torch.cat([tensor, tensor[:1]]))


def test_so_many_threads_as_were_asked_for_and_no_choice_of_order(file: Path) -> None:
    options = OnnxExecutor(file, threads=2)._session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert options.execution_mode == onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    assert options.use_deterministic_compute


# The buffers.


def test_a_velocity_that_was_not_copied_is_overwritten_by_the_next_run_of_its_shape(file: Path) -> None:
    executor = OnnxExecutor(file)
    first = executor.run(whole(2))
    kept = first.clone()
    second = executor.run(whole(2, seed=2))
    assert first.data_ptr() == second.data_ptr()
    assert_identical(first, second)
    assert not torch.equal(first, kept)


def test_a_velocity_may_be_the_input_of_the_next_run(file: Path) -> None:
    executor, given = OnnxExecutor(file), whole(2)
    fed = replace(given, hidden_states=executor.run(given).clone())
    expected = OnnxExecutor(file).run(fed).clone()
    assert_identical(executor.run(replace(given, hidden_states=executor.run(given))), expected)


@pytest.mark.parametrize("max_shapes", [8, 1], ids=["kept", "evicted"])
def test_a_velocity_that_was_not_copied_is_poisoned_by_the_next_run_of_another_shape(
    file: Path, max_shapes: int
) -> None:
    executor = OnnxExecutor(file, max_shapes=max_shapes)
    first = executor.run(whole(2))
    executor.run(whole(3))
    assert first.isnan().all()


def test_every_tensor_is_bound_by_its_address_and_exact_shape_at_every_run(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor, bound = OnnxExecutor(file), dict[str, Any]()
    for which in ("bind_input", "bind_output"):
        bind = getattr(executor._binding, which)

        def recorded(name: str, *more: Any, bind: Any = bind) -> None:
            bound[name] = more
            bind(name, *more)

        monkeypatch.setattr(executor._binding, which, recorded)
    for rows in (2, 3, 2):
        bound.clear()
        executor.run(whole(rows))
        buffers = executor._buffers[rows, 10, 6]
        kinds = {name: np.bool_ if name == "encoder_mask" else np.float32 for name in buffers}
        assert bound == {n: ("cpu", 0, kinds[n], list(t.shape), t.data_ptr()) for n, t in buffers.items()}


def test_buffers_never_move_and_the_shape_used_longest_ago_loses_them(file: Path) -> None:
    executor = OnnxExecutor(file, max_shapes=2)
    kept = executor.run(whole(1)).data_ptr()
    executor.run(whole(2))
    assert executor.run(whole(1)).data_ptr() == kept
    executor.run(whole(3))
    assert executor.shapes == 2
    assert set(executor._buffers) == {(1, 10, 6), (3, 10, 6)}


def test_rows_frames_and_tokens_are_a_shape_each(file: Path) -> None:
    executor = OnnxExecutor(file)
    for rows, frames, tokens in ((2, 10, 6), (2, 9, 6), (2, 12, 6), (2, 10, 7), (3, 10, 6)):
        executor.run(whole(rows, frames, tokens))
    assert list(executor._buffers) == [(2, 10, 6), (2, 12, 6), (2, 10, 7), (3, 10, 6)]


def test_inputs_are_never_written_to_and_never_kept(file: Path) -> None:
    given = whole(3)
    executor = OnnxExecutor(file, pin_rows=4)
    out = executor.run(given).clone()
    assert_identical(given.tensors(), whole(3).tensors())
    for tensor in given.tensors().values():
        tensor.zero_()
    assert_identical(executor.run(whole(3)), out)


def test_buffers_made_in_inference_mode_serve_outside_it(file: Path) -> None:
    executor = OnnxExecutor(file)
    with torch.inference_mode():
        executor.run(whole(2))
    assert_identical(executor.run(whole(2)), velocity(whole(2)))


def test_a_tick_of_two_runs_that_share_a_buffer_has_both_velocities(file: Path) -> None:
    """A pipeline copies what it keeps, so a view of a static buffer is as good as a tensor of its own."""

    class Copying(OnnxExecutor):
        def run(self, batch: Batch) -> Tensor:
            return super().run(batch).clone()

    shared, copied = (latents(kind(file, max_rows=1)) for kind in (OnnxExecutor, Copying))
    assert len(shared) == 1
    assert_identical(shared, copied)


def request(frames: int = 10, tokens: int = 6) -> Request:
    batch = whole(2, frames, tokens)
    prompts = [Condition(batch.encoder_hidden_states[row : row + 1]) for row in range(2)]
    return Request(prompts, batch.context_latents[:1] / 8, seed=1, id="r")


def latents(executor: Executor) -> dict[str, Tensor]:
    """Of a request with two conditions, so that a tick has two rows."""
    with StreamPipeline(executor, PipelineConfig(depth=1, steps=2, encoder_length=6)) as pipeline:
        pipeline.submit(request())
        return {str(finished.id): finished.latent for finished in pipeline.drain()}


# What is refused, before anything is allocated.


FROZEN = {
    "the batch is frozen to 2": {name: (2, *rest) for name, (_, *rest) in
                                 {"hidden_states": (0, "2*half", D), "timestep": (0,),
                                  "encoder_hidden_states": (0, "tokens", E), "context_latents": (0, "2*half", 2 * D),
                                  "encoder_mask": (0, "tokens"), "velocity": (0, "2*half", D)}.items()},
    "rows is 2 in timestep": {"timestep": (2,)},
    "frames is 2\\*half in velocity": {"hidden_states": ("batch", "half", D), "context_latents": ("batch", "half", 16)},
    "the dynamic dimension of frames is '2\\*half \\+ 1'": {
        name: ("batch", "2*half + 1", width) for name, width in
        (("hidden_states", D), ("context_latents", 2 * D), ("velocity", D))},
    "the dimension of tokens is 2\\*some": {
        "encoder_hidden_states": ("batch", "2*some", E), "encoder_mask": ("batch", "2*some")},
    "context_channels is dynamic": {"context_latents": ("batch", "2*half", "width")},
    "timestep has dimensions": {"timestep": ("batch", 1)},
}  # fmt: skip


@pytest.mark.parametrize(("words", "dims"), FROZEN.items(), ids=list(FROZEN))
def test_a_file_whose_dimensions_are_not_a_decoder_s_is_refused(
    tmp_path: Path, words: str, dims: Mapping[str, Any]
) -> None:
    with pytest.raises(ExportRefused, match=words):
        OnnxExecutor(written(tmp_path / "a.onnx", **dims))


@pytest.mark.parametrize(("name", "dtype"), [
    ("velocity", TensorProto.BFLOAT16), ("hidden_states", TensorProto.BFLOAT16),
    ("hidden_states", TensorProto.BOOL), ("hidden_states", TensorProto.INT64), ("encoder_mask", TensorProto.FLOAT),
])  # fmt: skip
def test_a_dtype_that_it_does_not_run_in_is_refused(tmp_path: Path, name: str, dtype: int) -> None:
    with pytest.raises(ExportRefused, match="ONNX Runtime cannot run it|the unsupported dtype"):
        OnnxExecutor(written(tmp_path / "a.onnx", dtypes={name: dtype}))


@pytest.mark.parametrize("content", ["truncated", "garbage", "empty"])
def test_a_file_that_is_not_whole_is_refused_and_nothing_is_printed(
    file: Path, content: str, capfd: pytest.CaptureFixture[str]
) -> None:
    whole_file = file.read_bytes()
    file.write_bytes(
        {"truncated": whole_file[: len(whole_file) // 2], "garbage": b"no file" * 99, "empty": b""}[content]
    )
    with pytest.raises(ExportRefused, match="a.onnx"):
        OnnxExecutor(file)
    assert capfd.readouterr() == ("", "")


def test_a_missing_file_and_numbers_below_1_are_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="an existing ONNX file"):
        OnnxExecutor(tmp_path / "none.onnx")
    for name in ("max_rows", "pin_rows", "threads", "max_shapes"):
        with pytest.raises(InvalidInput, match=name):
            OnnxExecutor(file, **{name: 0})


def test_without_onnx_runtime_the_message_says_how_to_get_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "find_spec", lambda _name: None)
    with pytest.raises(PackageMissing, match=r"pip install 'stream-harness\[onnx\]'"):
        OnnxExecutor(file)


def frozen(path: Path, *, frames: Any = "2*half", tokens: Any = "tokens") -> OnnxExecutor:
    latents = {"hidden_states": D, "context_latents": 2 * D, "velocity": D}
    dims: dict[str, Any] = {name: ("batch", frames, width) for name, width in latents.items()}
    dims |= {"encoder_hidden_states": ("batch", tokens, E), "encoder_mask": ("batch", tokens)}
    return OnnxExecutor(written(path, **dims), max_rows=3)


OUTSIDE = [
    ({"frames": 10}, whole(2, 12), "frames T: got 12, the compiled decoder takes 10"),
    ({"tokens": 6}, whole(2, 10, 7), "tokens L: got 7, the compiled decoder takes 6"),
    ({}, Batch(**{**whole(2).tensors(), "hidden_states": torch.zeros(2, 10, 4)}), "channels D: got 4"),
    ({}, Batch(**{**whole(2).tensors(), "encoder_hidden_states": torch.zeros(2, 6, 16)}), "encoder width E: got 16"),
    ({}, Batch(**{**whole(2).tensors(), "context_latents": torch.zeros(2, 10, 8)}), "context channels: got 8"),
]


@pytest.mark.parametrize(("dims", "batch", "words"), OUTSIDE)
def test_what_is_outside_the_profile_is_refused_before_anything_is_allocated(
    tmp_path: Path, dims: Mapping[str, Any], batch: Batch, words: str
) -> None:
    executor = frozen(tmp_path / "a.onnx", **dims)
    with pytest.raises(OutsideProfile, match=words):
        executor.run(batch)
    assert executor.shapes == 0
    assert_identical(executor.run(whole(2)), velocity(whole(2)))


def test_more_rows_than_the_ceiling_are_refused_before_anything_is_allocated(file: Path) -> None:
    executor = OnnxExecutor(file, max_rows=2)
    with pytest.raises(BatchTooLarge, match="3 rows"):
        executor.run(whole(3))
    assert executor.shapes == 0


def test_a_closed_executor_has_no_buffers_and_no_session_and_refuses_runs(file: Path) -> None:
    executor = OnnxExecutor(file)
    executor.run(whole(1))
    executor.close()
    executor.close()
    assert (executor.shapes, executor._session) == (0, None)
    with pytest.raises(PipelineClosed):
        executor.run(whole(1))


def test_a_run_that_is_refused_is_named_and_leaves_no_velocity_behind(tmp_path: Path) -> None:
    executor = OnnxExecutor(written(tmp_path / "a.onnx"))
    first = executor.run(whole(2))
    executor._numpy["velocity"] = np.float64
    with pytest.raises(ExecutorError, match="refused a run of 2 rows"):
        executor.run(whole(2))
    assert first.isnan().all()


@pytest.mark.parametrize("refused", ["outside", "rows", "run"])
def test_a_tick_that_is_refused_leaves_the_pipeline_as_it_was(tmp_path: Path, refused: str) -> None:
    executor = frozen(tmp_path / "a.onnx", frames=10)
    frames = 12 if refused == "outside" else 10
    with StreamPipeline(executor, PipelineConfig(depth=1, steps=2, encoder_length=6)) as pipeline:
        pipeline.submit(request(frames))
        if refused != "outside":
            pipeline.tick()
        before = (pipeline.stats(), pipeline.slots, executor.shapes)
        if refused == "rows":
            executor.max_rows, pipeline.executor = 1, Widened(executor)
        if refused == "run":
            right = dict(executor._numpy)
            executor._numpy["velocity"] = np.float64
        expected = {"outside": OutsideProfile, "rows": BatchTooLarge, "run": ExecutorError}[refused]
        with pytest.raises(expected):
            pipeline.tick()
        assert (pipeline.stats(), pipeline.slots, executor.shapes) == before
        if refused == "run":
            executor._numpy = right
            assert [str(finished.id) for finished in pipeline.drain()] == ["r"]


class Widened:
    """Says that it takes more rows than it does."""

    def __init__(self, inner: OnnxExecutor) -> None:
        self.inner, self.max_rows, self.takes_mask, self.stream = inner, 8, True, None

    def run(self, batch: Batch) -> Tensor:
        return self.inner.run(batch)

    def close(self) -> None:
        self.inner.close()


def test_a_plan_in_the_place_of_a_file_is_told_for_what_it_is(tmp_path: Path) -> None:
    for name, content in (("tiny.plan", b"a plan"), ("tiny.plan.json", b"{}")):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ExportRefused, match="a plan is run by TensorRT"):
        OnnxExecutor(tmp_path / "tiny.plan")


def test_pinned_rows_do_not_raise_the_rows_of_a_batch(file: Path) -> None:
    executor = OnnxExecutor(file, max_rows=2, pin_rows=4)
    assert (executor.max_rows, executor.pin_rows) == (2, 4)
    assert_identical(executor.run(whole(2)), velocity(whole(2)))
    assert set(executor._buffers) == {(4, 10, 6)}
    with pytest.raises(BatchTooLarge, match="^a batch of 3 rows: the compiled decoder takes at most 2$"):
        executor.run(whole(3))


def test_a_file_in_float64_gets_and_gives_float64(tmp_path: Path) -> None:
    names = ("hidden_states", "timestep", "encoder_hidden_states", "context_latents", "velocity")
    executor = OnnxExecutor(written(tmp_path / "a.onnx", dtypes=dict.fromkeys(names, TensorProto.DOUBLE)))
    assert {executor.signature.dtypes[name] for name in names} == {torch.float64}
    assert_identical(executor.run(whole(3)), velocity(whole(3)).double())


def test_frames_are_padded_to_whatever_multiple_the_file_names(tmp_path: Path) -> None:
    widths = {"hidden_states": D, "context_latents": 2 * D, "velocity": D}
    dims = {name: ("batch", "3*third", width) for name, width in widths.items()}
    executor = OnnxExecutor(written(tmp_path / "a.onnx", **dims))
    assert (executor.signature.frames, executor.signature.frames_multiple) == (Span(3), 3)
    assert_identical(executor.run(whole(2, 11)), velocity(padded(whole(2, 11)))[:, :11])
    assert_identical(executor.run(whole(2, 10)), velocity(padded(padded(whole(2, 10))))[:, :10])
    assert set(executor._buffers) == {(2, 12, 6)}


def test_frames_that_are_one_size_are_no_multiple_and_never_padded(tmp_path: Path) -> None:
    executor = frozen(tmp_path / "a.onnx", frames=10)
    assert (executor.signature.frames, executor.signature.frames_multiple) == (Span(10, 10), 1)
    with pytest.raises(OutsideProfile, match="^frames T: got 9, the compiled decoder takes 10$"):
        executor.run(whole(2, 9))


def test_every_exception_class_of_onnx_runtime_is_a_refusal() -> None:
    names = ("EPFail", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "ModelLoaded", "NoModel",
             "NoSuchFile", "NotImplemented", "RuntimeException")  # fmt: skip
    state = onnxruntime.capi.onnxruntime_pybind11_state
    assert set(runtime.refusals()) == {RuntimeError, *(getattr(state, name) for name in names)}


def test_a_dtype_that_onnx_runtime_lacks_is_refused_by_name() -> None:
    for name in ("float32", "float16", "float64", "bool"):
        runtime.check_dtype(name)
        assert runtime.computes_in(getattr(torch, name))
    for name in ("bfloat16", "int64"):
        assert not runtime.computes_in(getattr(torch, name))
        with pytest.raises(InvalidInput) as refused:
            runtime.check_dtype(name)
        assert str(refused.value) == (
            f"dtype: got {name}, expected float32 or float16: ONNX Runtime has no {name} on a CPU"
        )
