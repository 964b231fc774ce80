"""Executors by their kind: what an ahead-of-time kind needs, and what the others will not have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from harness import registry
from harness.engine import executors
from harness.engine.decoders.accelerated import AcceleratedDecoder
from harness.engine.decoders.decoder_switches import ALL, PLAIN, DecoderSwitches
from harness.engine.errors import InvalidInput
from harness.engine.executors import OnnxExecutor
from harness.registry import LIVE, DeferredStream, ExecutorKind
from tests.onnx_files import written


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> Path:
    return written(tmp_path / "a.onnx")


def test_kinds_that_run_a_decoder_are_those_that_run_no_file() -> None:
    assert LIVE == (ExecutorKind.EAGER, ExecutorKind.STATIC, ExecutorKind.DEFERRED, ExecutorKind.CUDA_GRAPH)
    assert [kind for kind in ExecutorKind if kind.ahead_of_time] == [ExecutorKind.ONNX, ExecutorKind.TENSORRT]


@pytest.mark.parametrize("threads", [1, 3])
def test_an_onnx_executor_runs_the_file_with_torch_s_threads(file: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    made = registry.executor("onnx", registry.decoder("affine"), 6, 4, engine=file)
    assert isinstance(made, OnnxExecutor)
    assert (made.max_rows, made.pin_rows) == (4, 4)
    assert made._session.get_session_options().intra_op_num_threads == threads


def test_a_plan_goes_to_the_executor_that_runs_it_with_rows_and_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "TensorRTExecutor", lambda plan, **options: (plan, options), raising=False)
    found = registry.executor("tensorrt", registry.decoder("affine"), 6, 4, "cuda:1", Path("a.plan"))
    assert found == (Path("a.plan"), {"max_rows": 6, "pin_rows": 4, "device": "cuda:1"})


@pytest.mark.parametrize(("kind", "words"), [("onnx", "an ONNX file"), ("tensorrt", "a built plan")])
def test_an_ahead_of_time_kind_needs_a_file(kind: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=f"engine: got none, expected the path of {words}"):
        registry.executor(kind, registry.decoder("affine"))


@pytest.mark.parametrize("kind", LIVE)
def test_a_kind_that_runs_the_decoder_takes_no_file(kind: str, file: Path) -> None:
    with pytest.raises(InvalidInput, match="engine: got .*a.onnx, expected none"):
        registry.executor(kind, registry.decoder("affine"), engine=file)


@pytest.mark.parametrize(("kind", "device", "where"), [("onnx", "cuda", "cpu"), ("tensorrt", "cpu", "cuda")])
def test_an_ahead_of_time_kind_is_on_one_type_of_device(kind: str, device: str, where: str, file: Path) -> None:
    with pytest.raises(InvalidInput, match=f"device: got '{device}', expected '{where}'"):
        registry.executor(kind, registry.decoder("affine"), device=device, engine=file)


def test_only_onnx_has_a_file_where_none_is_named() -> None:
    assert [registry.engine_for(kind, "none") for kind in ExecutorKind if kind is not ExecutorKind.ONNX] == [None] * 6
    assert registry.engine_for("onnx", "affine") == registry.onnx_file("affine")
    assert registry.engine_for("onnx", "affine", dtype="float16", tokens=64) == registry.onnx_file("affine")
    assert registry.engine_for("onnx", "affine") != registry.engine_for("onnx", "affine", tokens=200)


def test_on_a_gpu_a_plan_has_a_stream_of_its_own_and_no_file_has_one_on_a_cpu() -> None:
    assert ExecutorKind.TENSORRT.has_own_stream("cuda")
    assert not ExecutorKind.ONNX.has_own_stream() and not ExecutorKind.TENSORRT.has_own_stream()


def test_bfloat16_is_refused_for_onnx_runtime_before_anything_is_exported() -> None:
    with pytest.raises(InvalidInput, match="ONNX Runtime has no bfloat16 on a CPU"):
        registry.engine_for("onnx", "tiny", dtype="bfloat16")


def test_a_deferred_stream_runs_what_was_launched_when_somebody_waits_and_in_that_order() -> None:
    stream, ran = DeferredStream(), list[int]()
    for number in range(3):
        stream.launch(lambda number=number: ran.append(number))
    assert (ran, stream.pending) == ([], 3)
    stream.join()
    assert (ran, stream.pending) == ([0, 1, 2], 0)


def test_every_named_decoder_is_a_name_and_an_unknown_one_is_told_them() -> None:
    for name in ("affine", "tiny", "mid", "2b"):
        registry.check_name(name)
    with pytest.raises(InvalidInput, match="got 'none', expected affine, tiny, mid, 2b or a checkpoint's directory"):
        registry.check_name("none")


def test_a_decoder_with_accelerations_shares_the_weights_of_the_one_without_and_has_its_widths() -> None:
    plain, fast = (registry.decoder("tiny", switches=switches) for switches in (PLAIN, ALL))
    assert isinstance(fast, AcceleratedDecoder)
    assert fast.switches == ALL
    assert fast.transformer is plain.transformer  # type: ignore[attr-defined]
    assert registry.widths(fast) == registry.widths(plain) == (8, 32)
    assert registry.decoder("tiny", switches=ALL) is fast


def test_accelerations_of_the_affine_decoder_are_refused() -> None:
    with pytest.raises(InvalidInput, match="decoder_switches: got kept_time, expected none on"):
        registry.decoder("affine", switches=PLAIN.turned_on("kept_time"))


@pytest.mark.parametrize("name", ["affine", "tiny"])
def test_a_form_of_an_acceleration_that_is_off_makes_no_other_decoder(name: str) -> None:
    switches = DecoderSwitches(band="repeated", full="cudnn", norms="compiler")
    assert registry.decoder(name, switches=switches) is registry.decoder(name)


@pytest.mark.parametrize("device", ["nonsense", "", "cpu:-1", "hpu", "privateuseone"])
def test_a_device_that_torch_does_not_know_or_lacks_a_package_or_kernels_for_is_refused(device: str) -> None:
    with pytest.raises(InvalidInput, match=f"device: got '{device}', expected an available device"):
        registry.check_here(device)


@pytest.mark.parametrize("device", ["nonsense", "", "cpu:-1"])
def test_what_is_no_device_s_name_is_refused(device: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        registry.check_device("eager", device)
    assert str(refused.value) == f"device: got '{device}', expected the name of a device"


@pytest.mark.parametrize(
    ("name", "check"), [("empty", registry.check_here), ("device", lambda name: registry.check_device("eager", name))]
)
def test_an_error_of_another_kind_is_not_said_to_be_the_device_s(
    monkeypatch: pytest.MonkeyPatch, name: str, check: Callable[[str], None]
) -> None:
    def broken(*_args: object, **_options: object) -> None:
        raise MemoryError("out of memory")

    monkeypatch.setattr(registry, "torch", SimpleNamespace(**{name: broken}))
    with pytest.raises(MemoryError):
        check("cpu")


def test_a_file_of_code_goes_to_the_executor_that_compiles_and_to_no_other_kind(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    monkeypatch.setattr(registry, "CodeFile", lambda path: seen.append(path) or True)
    made = registry.executor("compiled_graph", registry.decoder("affine"), code=file)
    assert (seen, type(made)) == ([file], registry.CudaGraphExecutor)
    for kind in ("eager", "cuda_graph"):
        with pytest.raises(InvalidInput, match=f"code: .* executors of the kind {kind} compile nothing"):
            registry.executor(kind, registry.decoder("affine"), code=file)


@pytest.mark.parametrize(("rows", "expected"), [(1, (1,)), (2, (1, 2)), (6, (1, 2, 4, 6)), (8, (1, 2, 4, 8))])
def test_buckets_are_powers_of_two_and_the_largest_number(rows: int, expected: tuple[int, ...]) -> None:
    assert registry.buckets(rows) == expected
