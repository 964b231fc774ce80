from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from harness import registry
from harness.engine.aot import closeness, runtime
from harness.engine.aot.closeness import Closeness, Distance, measure
from harness.engine.decoders import AceStepDecoder
from harness.engine.errors import ExportRefused, PackageMissing
from harness.parity.compare import digest_tree
from tests.engine.aot.exports import single, tiny


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_an_exported_file_is_no_farther_from_float64_than_twice_torch_itself(dtype: str) -> None:
    found = measure(registry.onnx_file("tiny", dtype=dtype), tiny(dtype))
    found.check()
    assert [d.shape for d in found.distances] == list(closeness.SHAPES)
    eps = torch.finfo(getattr(torch, dtype)).eps
    assert eps / 10 < found.torch < 100 * eps  # so the bound is a bound


def test_the_decoder_has_its_dtype_and_its_values_back_afterwards() -> None:
    decoder = tiny("bfloat16")
    before = digest_tree(dict(decoder.state_dict()))
    measure(registry.onnx_file("tiny", dtype="bfloat16"), decoder, [(1, 2, 1)])
    assert decoder.dtype is torch.bfloat16
    assert digest_tree(dict(decoder.state_dict())) == before


def test_torch_computes_float32_in_float32_meanwhile_whatever_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = tiny()
    forward, seen = decoder.transformer.forward, []

    def sees(*args: object, **kwargs: object) -> object:
        seen.append((torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()))
        return forward(*args, **kwargs)

    monkeypatch.setattr(decoder.transformer, "forward", sees)
    try:
        torch.set_float32_matmul_precision("high")
        measure(registry.onnx_file("tiny"), decoder, [(1, 2, 1)])
        after = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    finally:
        torch.set_float32_matmul_precision("highest")
    assert set(seen) == {(False, "highest")}
    assert after == (True, "high")


def test_it_has_them_back_where_the_comparison_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = tiny()
    forward = decoder.transformer.forward

    def fails_in_double(*args: object, **kwargs: torch.Tensor) -> object:
        if kwargs["hidden_states"].dtype is torch.float64:
            raise MemoryError
        return forward(*args, **kwargs)

    monkeypatch.setattr(decoder.transformer, "forward", fails_in_double)
    with pytest.raises(MemoryError):
        measure(registry.onnx_file("tiny"), decoder, [(1, 2, 1)])
    assert decoder.dtype is torch.float32


def dtypes(decoder: AceStepDecoder) -> list[torch.dtype]:
    return [each.dtype for each in (*decoder.parameters(), *decoder.buffers())]


def test_it_has_them_back_where_the_memory_for_float64_ends_half_way(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = single()
    before = dtypes(decoder)

    def out_of_memory(*_args: object, **_kwargs: object) -> None:
        raise MemoryError

    *_, last = decoder.transformer.children()
    monkeypatch.setattr(last, "_apply", out_of_memory)
    with pytest.raises(MemoryError):
        list(closeness._in_double(decoder, []))
    monkeypatch.undo()
    assert dtypes(decoder) == before


def test_a_decoder_of_several_dtypes_has_each_of_them_back() -> None:
    decoder = single(torch.bfloat16)
    decoder.transformer.norm_out.float()
    before, values = dtypes(decoder), digest_tree(dict(decoder.state_dict()))
    assert set(before) == {torch.bfloat16, torch.float32}
    assert list(closeness._in_double(decoder, [])) == []
    assert dtypes(decoder) == before
    assert digest_tree(dict(decoder.state_dict())) == values


def test_buffers_of_a_module_have_their_dtype_back_too() -> None:
    decoder = single()
    decoder.transformer.norm_out.register_buffer("kept", torch.ones(2, dtype=torch.bfloat16))
    before = dtypes(decoder)
    assert torch.bfloat16 in before
    assert list(closeness._in_double(decoder, [])) == []
    assert dtypes(decoder) == before


@pytest.mark.parametrize("change", [1.0001, 0.0, np.nan])
def test_a_file_with_another_weight_is_refused(tmp_path: Path, change: float) -> None:
    model = onnx.load(registry.onnx_file("tiny"))
    (table,) = (each for each in model.graph.initializer if each.name.endswith("transformer.scale_shift_table"))
    altered = onnx.numpy_helper.to_array(table) * np.float32(change)
    table.CopyFrom(onnx.numpy_helper.from_array(altered, table.name))
    onnx.save(model, tmp_path / "altered.onnx")
    with pytest.raises(ExportRefused, match="from float64"):
        measure(tmp_path / "altered.onnx", tiny()).check()


def test_a_defect_in_the_smallest_shape_alone_is_refused() -> None:
    exact = Distance((3, 40, 12), 960, 1.0, 2e-7, 2e-7, 1e-6)
    Closeness((exact,)).check()
    with pytest.raises(ExportRefused, match="worst 0.01"):
        Closeness((Distance((1, 2, 1), 16, 1.0, 1e-3, 2e-7, 1e-2), exact)).check()


def test_shapes_are_pooled_by_their_elements() -> None:
    found = Closeness((Distance((1, 2, 1), 1, 1.0, 5.0, 3.0, 9.0), Distance((3, 40, 12), 3, 1.0, 1.0, 1.0, 2.0)))
    assert (found.file, found.torch, found.worst) == (7**0.5, 3**0.5, 9.0)


@pytest.mark.parametrize(("file", "passes"), [(1.99, True), (2.01, False), (float("nan"), False)])
def test_the_bound_is_twice_torchs_own_distance(file: float, passes: bool) -> None:
    assert Closeness((Distance((1, 2, 1), 16, 1.0, file, 1.0, file),)).passes is passes


def test_without_onnx_runtime_there_is_an_error_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "find_spec", lambda _name: None)
    with pytest.raises(PackageMissing, match=r"onnxruntime is not installed: pip install 'stream-harness\[onnx\]'"):
        measure(registry.onnx_file("tiny"), tiny())


def test_inputs_differ_from_each_other_and_every_row_hides_another_number_of_tokens() -> None:
    decoder = tiny()
    masked, open_ = (closeness._inputs(decoder, (3, 40, 12), 0, mask=mask) for mask in (True, False))
    assert [masked["encoder_mask"].sum(1).tolist(), open_["encoder_mask"].sum(1).tolist()] == [[1, 5, 9], [12] * 3]
    names = ("hidden_states", "encoder_hidden_states", "context_latents")
    drawn = [masked[name][0, :12, 0] for name in names]  # noise is drawn channel by channel
    drawn += [masked["hidden_states"][row, :12, 0] for row in (1, 2)]
    drawn.append(closeness._inputs(decoder, (3, 40, 12), 1, mask=True)["hidden_states"][0, :12, 0])
    assert len({tuple(each.tolist()) for each in drawn}) == len(drawn)


def test_what_is_measured_is_the_distance_of_each_from_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, shapes = single(), [(1, 2, 1), (2, 4, 3)]
    exact = copy.deepcopy(decoder).double()
    offsets: list[torch.Tensor] = []
    ran: list[tuple[torch.Tensor, torch.Tensor]] = []

    def runner(path: Path, dtype: torch.dtype) -> object:
        assert (path, dtype) == (Path("x.onnx"), torch.float32)

        def run(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
            wanted, own = exact(**inputs), decoder(**inputs)
            offset = torch.zeros_like(wanted)
            offset[-1, -1, -1], offset[0, 0, 0] = -0.5 - len(offsets), 0.25
            offsets.append(offset)
            ran.append((wanted, own))
            return (wanted + offset).float()

        return run

    monkeypatch.setattr(closeness, "_runner", runner)
    found = measure(Path("x.onnx"), decoder, shapes)
    for distance, shape, offset, (wanted, own) in zip(found.distances, shapes, offsets, ran, strict=True):
        file = (wanted + offset).float().double() - wanted

        def rms(values: torch.Tensor) -> float:
            return math.sqrt(sum(v * v for v in values.flatten().tolist()) / values.numel())

        told = [distance.scale, distance.file, distance.torch, distance.worst]
        assert told == pytest.approx(
            [rms(wanted), rms(file), rms(own.double() - wanted), -file.min().item()], rel=1e-12, abs=0
        )
        assert (distance.shape, distance.elements) == (shape, wanted.numel())
    assert found.worst == found.distances[1].worst > found.distances[0].worst


def test_a_refusal_tells_the_distances_and_the_bound_and_its_edge_is_within() -> None:
    pooled = (Distance((1, 2, 1), 16, 1.0, 3.0, 1.25, 0.5), Distance((1, 2, 1), 16, 1.0, 3.0, 1.25, 7.5))
    with pytest.raises(ExportRefused) as refused:
        Closeness(pooled).check()
    assert str(refused.value) == (
        "the file's distance from float64 is 3 (root mean square; worst 7.5), expected at most 2 times torch's own "
        "distance, 1.25"
    )
    for file, own, passes in ((2.0, 1.0, True), (0.0, 0.0, True), (1e-100, 0.0, False), (0.0, math.nan, False)):
        assert Closeness((Distance((1, 2, 1), 1, 1.0, file, own, file),)).passes is passes


def test_the_shapes_and_the_inputs_are_the_ones_that_are_written_here() -> None:
    assert (closeness.FACTOR, closeness.SHAPES) == (2.0, ((1, 2, 1), (3, 40, 12), (2, 76, 33)))
    for dtype in ("float32", "bfloat16"):
        made, wide = closeness._inputs(tiny(dtype), (3, 4, 7), 2, mask=True), getattr(torch, dtype)
        assert {name: (each.dtype, tuple(each.shape)) for name, each in made.items()} == {
            "hidden_states": (wide, (3, 4, 8)),
            "timestep": (torch.float32, (3,)),
            "encoder_hidden_states": (wide, (3, 7, 32)),
            "context_latents": (wide, (3, 4, 16)),
            "encoder_mask": (torch.bool, (3, 7)),
        }
        assert made["timestep"].tolist() == torch.linspace(1.0, 0.1, 3).tolist()
        again = closeness._inputs(tiny(dtype), (3, 4, 7), 2, mask=True)
        assert digest_tree(made) == digest_tree(again)


@pytest.mark.parametrize("mask", [True, False])
def test_a_file_without_a_mask_is_given_none_and_torch_attends_every_token(
    monkeypatch: pytest.MonkeyPatch, mask: bool
) -> None:
    decoder, given, masks = single(), list[list[str]](), list[torch.Tensor]()

    def runner(_path: Path, _dtype: torch.dtype) -> object:
        def run(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
            given.append(list(inputs))
            return torch.zeros_like(inputs["hidden_states"])

        return run

    forward = closeness._forward
    monkeypatch.setattr(closeness, "_runner", runner)
    monkeypatch.setattr(closeness, "_forward", lambda d, i: (masks.append(i["encoder_mask"]), forward(d, i))[1])
    measure(Path("x.onnx"), decoder, [(2, 4, 3)], mask=mask)
    names = ["hidden_states", "timestep", "encoder_hidden_states", "context_latents"]
    assert given == [[*names, "encoder_mask"] if mask else names]
    lengths = [[1, 2], [1, 2]] if mask else [[3, 3], [3, 3]]
    assert [each.sum(1).tolist() for each in masks] == lengths
