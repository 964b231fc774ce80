from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from onnx import TensorProto, helper, load, save

from harness.engine.aot import onnx_file
from harness.engine.aot.onnx_file import read, signature
from harness.engine.aot.signature import Span
from harness.engine.errors import ExportRefused, InvalidInput, PackageMissing

HERE = Path("x.onnx")
FLOAT = torch.float32
TENSORS: dict[str, tuple[torch.dtype | str, list[int | str | None]]] = {
    "hidden_states": (FLOAT, ["batch", "2*half", 8]),
    "timestep": (FLOAT, ["batch"]),
    "encoder_hidden_states": (FLOAT, ["batch", "tokens", 32]),
    "context_latents": (FLOAT, ["batch", "2*half", 16]),
    "encoder_mask": (torch.bool, ["batch", "tokens"]),
    "velocity": (FLOAT, ["batch", "2*half", 8]),
}


def with_dim(
    axis: int, dim: int | str | None, *names: str
) -> dict[str, tuple[torch.dtype | str, list[int | str | None]]]:
    """The tensors with one dimension of these replaced."""
    changed = {name: (TENSORS[name][0], [*TENSORS[name][1]]) for name in TENSORS}
    for name in names:
        changed[name][1][axis] = dim
    return changed


def test_a_patch_size_is_read_from_the_dimensions_name() -> None:
    found = signature(HERE, TENSORS)
    assert (found.rows, found.frames, found.tokens, found.frames_multiple) == (Span(1), Span(2), Span(1), 2)
    single = signature(HERE, with_dim(1, "frames", "hidden_states", "context_latents", "velocity"))
    assert (single.frames, single.frames_multiple) == (Span(1), 1)


def test_fixed_frames_and_tokens_are_what_they_are() -> None:
    assert signature(HERE, with_dim(1, 40, "hidden_states", "context_latents", "velocity")).frames == Span(40, 40)
    assert signature(HERE, with_dim(1, 64, "encoder_hidden_states", "encoder_mask")).tokens == Span(64, 64)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (with_dim(0, 1, *TENSORS), "the batch is frozen to 1"),
        (with_dim(0, "2*pairs", *TENSORS), r"the batch is frozen to 2\*pairs"),
        (with_dim(0, None, *TENSORS), "the dynamic dimension of rows is None"),
        (with_dim(1, "half + half", "hidden_states", "context_latents", "velocity"), "of frames is 'half \\+ half'"),
        (with_dim(0, "other", "velocity"), "rows is other in velocity and batch in another tensor"),
        (with_dim(1, "2*t", "encoder_hidden_states", "encoder_mask"), r"the dimension of tokens is 2\*t"),
        (with_dim(2, "wide", "context_latents"), "context_channels is dynamic"),
        (
            {**TENSORS, "encoder_mask": (FLOAT, ["batch", "tokens"])},
            "encoder_mask has the unsupported dtype torch.float32",
        ),
        ({**TENSORS, "timestep": ("INT64", ["batch"])}, "timestep has the unsupported dtype INT64"),
        ({**TENSORS, "timestep": (FLOAT, ["batch", 1])}, r"timestep has dimensions \['batch', 1\]"),
        ({**TENSORS, "other": (FLOAT, ["batch"])}, r"missing tensors \[\], unknown tensors \['other'\]"),
        ({name: TENSORS[name] for name in TENSORS if name != "timestep"}, r"missing tensors \['timestep'\]"),
    ],
)
def test_what_is_no_exported_decoder_is_refused_by_name(
    tensors: dict[str, tuple[torch.dtype | str, list[int | str | None]]], words: str
) -> None:
    with pytest.raises(ExportRefused, match=words):
        signature(HERE, tensors)


def written(path: Path, batch: int | str) -> Path:
    """A file with an exported decoder's tensors, which gives its input back."""
    values = {
        name: helper.make_tensor_value_info(
            name,
            TensorProto.BOOL if dtype is torch.bool else TensorProto.FLOAT,
            [batch if dim == "batch" else dim for dim in dims],
        )
        for name, (dtype, dims) in TENSORS.items()
    }
    output = values.pop("velocity")
    node = helper.make_node("Identity", ["hidden_states"], ["velocity"])
    save(helper.make_model(helper.make_graph([node], "g", [*values.values()], [output])), path)
    return path


def test_a_file_is_read_and_a_frozen_batch_in_it_refused(tmp_path: Path) -> None:
    assert read(written(tmp_path / "a.onnx", "batch")) == signature(HERE, TENSORS)
    with pytest.raises(ExportRefused, match="the batch is frozen to 1"):
        read(written(tmp_path / "b.onnx", 1))


def test_what_is_no_file_or_no_onnx_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="expected an existing ONNX file"):
        read(tmp_path / "a.onnx")
    (tmp_path / "b.onnx").write_bytes(written(tmp_path / "a.onnx", "batch").read_bytes()[:-7])
    with pytest.raises(ExportRefused, match="not a whole ONNX file"):
        read(tmp_path / "b.onnx")


def test_weights_in_a_file_of_another_name_are_refused_since_no_digest_has_them(tmp_path: Path) -> None:
    model = load(written(tmp_path / "a.onnx", "batch"))
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="b.bin")
    model.graph.initializer.append(weight)
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ExportRefused, match=r"the weights are in b.bin, expected a.onnx.data"):
        read(tmp_path / "a.onnx")


def test_without_onnx_there_is_an_error_with_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(onnx_file, "find_spec", lambda _name: None)
    with pytest.raises(PackageMissing, match=r"onnx is not installed: pip install 'stream-harness\[onnx\]'"):
        read(written(tmp_path / "a.onnx", "batch"))


@pytest.mark.parametrize("place", ["other.data", "sub/tiny.onnx.data", "./tiny.onnx.data", "../tiny.onnx.data"])
def test_weights_in_any_other_place_than_beside_the_file_are_refused(tmp_path: Path, place: str) -> None:
    def saved(where: str) -> Path:
        weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
        weight.external_data.add(key="location", value=where)
        shapes = {name: dims for name, (_, dims) in TENSORS.items() if name != "encoder_mask"}
        made = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in shapes.items()}
        velocity = made.pop("velocity")
        node = helper.make_node("Identity", ["hidden_states"], ["velocity"])
        path = tmp_path / "tiny.onnx"
        save(helper.make_model(helper.make_graph([node], "g", [*made.values()], [velocity], [weight])), path)
        return path

    assert read(saved("tiny.onnx.data")).rows == Span(1)
    with pytest.raises(ExportRefused, match=re.escape(f"the weights are in {place}, expected tiny.onnx.data")):
        read(saved(place))


def test_weights_in_several_files_are_refused_by_all_their_names(tmp_path: Path) -> None:
    model = load(written(tmp_path / "a.onnx", "batch"))
    for place in ("z.bin", "a.onnx.data", "b.bin"):
        weight = helper.make_tensor(place, TensorProto.FLOAT, [1], [1.0])
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=place)
        model.graph.initializer.append(weight)
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ExportRefused) as refused:
        read(tmp_path / "a.onnx")
    told = f"{tmp_path / 'a.onnx'}: the weights are in a.onnx.data, b.bin, z.bin, expected a.onnx.data"
    assert str(refused.value) == told


@pytest.mark.parametrize(
    "name", ["0*half", "00*half", "02*half", "٢*half", "2*", "2", "*half", "2*3", "2**half", "2 * half"]
)
def test_a_name_that_is_neither_a_symbol_nor_a_multiple_of_one_is_refused(name: str) -> None:
    with pytest.raises(ExportRefused, match="of frames is .*, expected a symbol or a multiple$"):
        signature(HERE, with_dim(1, name, "hidden_states", "context_latents", "velocity"))


@pytest.mark.parametrize(
    ("name", "multiple"), [("half", 1), ("1*half", 1), ("3*_s0", 3), ("10*half", 10), ("16*T_2", 16)]
)
def test_a_multiple_of_any_number_is_read_from_the_name(name: str, multiple: int) -> None:
    found = signature(HERE, with_dim(1, name, "hidden_states", "context_latents", "velocity"))
    assert (found.frames, found.frames_multiple) == (Span(multiple), multiple)
