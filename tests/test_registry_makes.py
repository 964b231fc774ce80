"""What the registry makes of a name: decoders, exported files and executors, with every option that was asked for."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness import registry
from harness.engine.decoders import AceStepDecoder, AffineDecoder
from harness.engine.errors import InvalidInput
from harness.engine.executors import CudaGraphExecutor, EagerExecutor, StaticExecutor
from harness.registry import COMPARED, LIVE, DeferredStream, ExecutorKind, compared, live


@pytest.fixture(name="fresh")
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module as a new process has it: nothing is cached, and no test has put anything in the place of a part."""
    spec = importlib.util.spec_from_file_location("harness_registry_of_a_new_process", registry.__file__)
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, made)
    spec.loader.exec_module(made)
    return made


# Decoders.


@pytest.fixture(name="made")
def _made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The decoders that were made, each as the arguments that it was made of."""
    made: list[Any] = []

    def maker(how: str) -> Callable[..., Any]:
        def make(*asked: Any, **options: Any) -> Any:
            made.append((how, *asked, options))
            return made[-1]

        return make

    monkeypatch.setattr(AceStepDecoder, "preset", maker("preset"))
    monkeypatch.setattr(AceStepDecoder, "from_pretrained", maker("from_pretrained"))
    return made


def test_a_decoder_is_made_of_its_name_dtype_and_device_and_of_the_first_weights(
    fresh: Any, made: list[Any], tmp_path: Path
) -> None:
    half, usual = {"dtype": torch.float16, "device": "meta"}, {"dtype": torch.float32, "device": "cpu"}
    for name in ("tiny", "mid", "2b"):
        assert fresh.decoder(name, **half) == ("preset", name, 0, half)
        assert fresh.decoder(name) == ("preset", name, 0, usual)
    assert fresh.decoder(str(tmp_path), **half) == ("from_pretrained", str(tmp_path), half)
    assert fresh.decoder(str(tmp_path), encoder_dim=3) == ("from_pretrained", str(tmp_path), usual)
    for width in (1, 7, 16):
        affine = fresh.decoder("affine", encoder_dim=width, **half)
        assert isinstance(affine, AffineDecoder) and affine.encoder_dim == width
    assert fresh.decoder("affine").encoder_dim == 16


def test_the_same_arguments_give_the_same_decoder_and_any_other_one_gives_another(fresh: Any, made: list[Any]) -> None:
    first = fresh.decoder("tiny")
    others = [
        fresh.decoder("mid"),
        fresh.decoder("tiny", device="meta"),
        fresh.decoder("tiny", dtype=torch.float16),
    ]
    assert fresh.decoder("tiny") is first
    assert [fresh.decoder("mid"), fresh.decoder("tiny", device="meta")] == others[:2]
    assert len(made) == 4 and all(other is not first for other in others)


def test_a_name_is_refused_before_a_device_and_both_before_anything_is_made(fresh: Any, made: list[Any]) -> None:
    with pytest.raises(InvalidInput, match="decoder: got 'none'"):
        fresh.decoder("none", device="none")
    for name in ("affine", "tiny"):
        with pytest.raises(InvalidInput, match="device: got 'none'"):
            fresh.decoder(name, device="none")
    assert made == []


@pytest.mark.parametrize("kind", [AssertionError, NotImplementedError, RuntimeError])
def test_a_device_that_is_not_there_is_refused_with_the_first_line_of_the_reason(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    def empty(*_size: int, device: str) -> None:
        raise kind(f"no {device} here\nsecond line")

    monkeypatch.setattr(torch, "empty", empty)
    with pytest.raises(InvalidInput) as refused:
        registry.check_here("cuda:3")
    assert str(refused.value) == "device: got 'cuda:3', expected an available device (no cuda:3 here)"
    assert isinstance(refused.value.__cause__, kind)


def test_a_decoder_of_the_registry_says_its_widths_and_another_one_has_none(tmp_path: Path) -> None:
    assert registry.widths(AffineDecoder(7)) == (4, 7)
    assert registry.widths(AffineDecoder()) == (4, 16)
    assert registry.widths(registry.decoder("tiny")) == (8, 32)
    with pytest.raises(TypeError) as refused:
        registry.widths(SimpleNamespace(channels=8, encoder_dim=32))  # type: ignore[arg-type]
    assert str(refused.value) == "a SimpleNamespace is no decoder of the registry: its widths are unknown"


def test_a_file_of_that_name_is_no_checkpoint(tmp_path: Path) -> None:
    registry.check_name(str(tmp_path))
    (tmp_path / "file").touch()
    words = f"decoder: got '{tmp_path / 'file'}', expected affine, tiny, mid, 2b or a checkpoint's directory"
    with pytest.raises(InvalidInput) as refused:
        registry.check_name(str(tmp_path / "file"))
    assert str(refused.value) == words


# Exported files.


@pytest.fixture(name="exported")
def _exported(fresh: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What was exported by a new process; a file holds the number of its export."""
    exported: list[Any] = []

    def export(decoder: Any, path: Path, *, tokens: int | None) -> Any:
        exported.append((decoder, tokens))
        path.write_text(str(len(exported)))
        return SimpleNamespace(path=path)

    monkeypatch.setattr(fresh, "export", export)
    monkeypatch.setattr(fresh, "decoder", lambda name, **options: (name, options))
    yield exported
    fresh._exports().cleanup()


def test_every_decoder_is_exported_once_to_a_file_of_its_own_with_all_that_it_reads(
    fresh: Any, exported: list[Any], tmp_path: Path
) -> None:
    asked: list[tuple[str, dict[str, Any]]] = [
        ("affine", {}),
        ("affine", {"encoder_dim": 8}),
        ("affine", {"tokens": 3}),
        ("tiny", {}),
        ("tiny", {"dtype": "float16"}),
        ("mid", {}),
        (str(tmp_path), {"dtype": "bfloat16"}),
    ]
    files = [fresh.onnx_file(name, **options) for name, options in asked]
    single, half, brain = torch.float32, torch.float16, torch.bfloat16
    assert exported == [
        (("affine", {"encoder_dim": 16, "dtype": single}), registry.TOKENS),
        (("affine", {"encoder_dim": 8, "dtype": single}), registry.TOKENS),
        (("affine", {"encoder_dim": 16, "dtype": single}), 3),
        (("tiny", {"encoder_dim": 0, "dtype": single}), None),
        (("tiny", {"encoder_dim": 0, "dtype": half}), None),
        (("mid", {"encoder_dim": 0, "dtype": single}), None),
        ((str(tmp_path), {"encoder_dim": 0, "dtype": brain}), None),
    ]
    assert [file.read_text() for file in files] == list("1234567")
    assert {file.suffix for file in files} == {".onnx"}
    assert {file.parent for file in files} == {Path(fresh._exports().name)}
    assert [fresh.onnx_file(name, **options) for name, options in asked] == files
    assert fresh.onnx_file("affine", dtype="float16") == files[0]
    assert fresh.onnx_file("tiny", encoder_dim=8, tokens=3) == files[3]
    assert len(exported) == len(files)


def test_the_file_of_an_onnx_executor_is_exported_with_every_option_and_only_its_dtype_is_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "onnx_file", lambda *asked, **options: (*asked, options))
    options = {"encoder_dim": 8, "dtype": "float16", "tokens": 3}
    usual = {"encoder_dim": 16, "dtype": "float32", "tokens": registry.TOKENS}
    for kind, name in product(("onnx", ExecutorKind.ONNX), ("affine", "tiny")):
        assert registry.engine_for(kind, name, **options) == (name, options)  # type: ignore[arg-type]
        assert registry.engine_for(kind, name) == (name, usual)
    assert registry.engine_for("onnx", "affine", dtype="bfloat16") == ("affine", {**usual, "dtype": "bfloat16"})
    for kind, name in product(("eager", "static", "deferred", "tensorrt"), ("affine", "tiny")):
        assert registry.engine_for(kind, name, dtype="bfloat16") is None


# Executors.

LIVE_ALONE = {"file": "", "exports": False, "stand_in": False}
BOTH = ("cpu", "cuda")
KINDS = {
    "eager": {**LIVE_ALONE, "devices": BOTH, "streams": (), "measured": BOTH},
    "static": {**LIVE_ALONE, "devices": BOTH, "streams": ("cuda",), "measured": BOTH},
    "deferred": {**LIVE_ALONE, "devices": ("cpu",), "streams": ("cpu",), "stand_in": True, "measured": ()},
    "cuda_graph": {**LIVE_ALONE, "devices": BOTH, "streams": ("cuda",), "measured": ("cuda",)},
    "compiled_graph": {**LIVE_ALONE, "devices": ("cuda",), "streams": ("cuda",), "measured": ("cuda",)},
    "onnx": {
        "devices": ("cpu",),
        "streams": (),
        "file": "an ONNX file",
        "exports": True,
        "stand_in": False,
        "measured": BOTH,
    },
    "tensorrt": {
        "devices": ("cuda",),
        "streams": ("cuda",),
        "file": "a built plan",
        "exports": False,
        "stand_in": False,
        "measured": BOTH,
    },
}


def test_every_kind_has_this_record() -> None:
    found = {str(kind): asdict(kind.record) for kind in ExecutorKind}
    for each in found.values():
        del each["make"]
    assert found == KINDS
    on_gpu = ["eager", "static", "cuda_graph", "compiled_graph"]
    assert [str(kind) for kind in LIVE] == ["eager", "static", "deferred", "cuda_graph"]
    assert [str(kind) for kind in COMPARED] == ["eager", "static"]
    assert [str(kind) for kind in live("cuda:1")] == [str(kind) for kind in compared("cuda:1")] == on_gpu


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1"])
def test_a_kind_has_a_stream_of_its_own_on_each_device_of_the_types_that_its_record_names(device: str) -> None:
    for kind in ExecutorKind:
        expected = device.split(":")[0] in KINDS[kind]["streams"]  # type: ignore[operator]
        assert kind.has_own_stream(device) is kind.has_own_stream(torch.device(device)) is expected
        assert kind.has_own_stream() is ("cpu" in KINDS[kind]["streams"])  # type: ignore[operator]


@pytest.mark.parametrize("kind", ["eager", "static", "deferred"])
def test_an_executor_of_a_decoder_has_the_rows_that_were_asked_for_and_else_eight(kind: str) -> None:
    decoder = AffineDecoder(8)
    for options, most, pinned in (((), 8, None), ((3,), 3, None), ((6, 4), 4, 4), ((4, 6), 4, 6)):
        made = registry.executor(kind, decoder, *options)
        again = registry.executor(ExecutorKind(kind), decoder, *options)
        eager = made if isinstance(made, EagerExecutor) else made._eager  # type: ignore[attr-defined]
        assert type(made) is type(again) is (EagerExecutor if kind == "eager" else StaticExecutor)
        assert made is not again
        assert (made.max_rows, eager.pin_rows, eager.decoder) == (most, pinned, decoder)
        assert type(made.stream) is (DeferredStream if kind == "deferred" else type(None))
        assert made.stream is None or made.stream is not again.stream


def test_on_a_gpu_a_static_executor_has_a_stream_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "CudaStream", lambda device: ("stream", device))
    made = registry.executor("static", AffineDecoder(8), device="cuda:1")
    assert made.stream == ("stream", torch.device("cuda:1"))
    assert registry.executor("eager", AffineDecoder(8), device="cuda:1").stream is None


@pytest.mark.parametrize(("options", "buckets", "most"), [
    ((), (1, 2, 4, 8), 8),
    ((1,), (1,), 1),
    ((3,), (1, 2, 3), 3),
    ((4,), (1, 2, 4), 4),
    ((9,), (1, 2, 4, 8, 9), 9),
    ((6, 4), (4,), 4),
    ((4, 6), (6,), 4),
])  # fmt: skip
def test_an_executor_of_graphs_has_powers_of_two_as_buckets_and_records_on_demand(
    options: tuple[int, ...], buckets: tuple[int, ...], most: int
) -> None:
    decoder = AffineDecoder(8)
    made = registry.executor("cuda_graph", decoder, *options)
    assert isinstance(made, CudaGraphExecutor)
    assert (made.row_buckets, made.max_rows, made.on_demand, made.decoder) == (buckets, most, True, decoder)
    assert made._call is decoder
    compiled = registry.executor("compiled_graph", decoder, *options)
    assert isinstance(compiled, CudaGraphExecutor)
    assert (compiled.row_buckets, compiled.max_rows, compiled.on_demand) == (buckets, most, True)
    assert compiled._call is not decoder


def test_an_unknown_kind_is_refused() -> None:
    for make in (lambda: registry.executor("turbo", AffineDecoder()), lambda: registry.engine_for("turbo", "tiny")):
        with pytest.raises(ValueError, match="turbo"):
            make()


@pytest.mark.parametrize(("kind", "device", "said"), [
    *((kind, device, "") for kind in ("eager", "static", "deferred") for device in ("cpu", "cuda:1", "meta")),
    ("onnx", "cpu", ""),
    ("onnx", "cuda:1", "'cuda:1', expected 'cpu', where executors of the kind onnx run"),
    ("onnx", "meta", "'meta', expected 'cpu', where executors of the kind onnx run"),
    ("tensorrt", "cuda:1", ""),
    ("tensorrt", "cpu", "'cpu', expected 'cuda', where executors of the kind tensorrt run"),
    ("tensorrt", "none", "'none', expected the name of a device"),
    ("eager", "none", "'none', expected the name of a device"),
])  # fmt: skip
def test_only_a_kind_of_compiled_decoders_is_held_to_a_type_of_device(kind: str, device: str, said: str) -> None:
    if not said:
        registry.check_device(kind, device)
        return
    with pytest.raises(InvalidInput) as refused:
        registry.check_device(ExecutorKind(kind), device)
    assert str(refused.value) == f"device: got {said}"


@pytest.mark.parametrize("wait", [DeferredStream.join, DeferredStream.wait])
def test_what_is_launched_while_somebody_waits_is_waited_for_and_runs_once(
    wait: Callable[[DeferredStream], None],
) -> None:
    stream, ran = DeferredStream(), list[tuple[str, int]]()

    def first() -> None:
        ran.append(("first", stream.pending))
        stream.launch(lambda: ran.append(("third", stream.pending)))

    stream.launch(first)
    stream.launch(lambda: ran.append(("second", stream.pending)))
    assert (ran, stream.pending) == ([], 2)
    for _ in range(2):
        wait(stream)
        assert (ran, stream.pending) == ([("first", 1), ("second", 1), ("third", 0)], 0)
