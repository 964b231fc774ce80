"""Checkpoints, plans, profiles and exported files that nobody vouches for are refused by file and by name."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from safetensors.torch import save_file

from harness.engine.aot import layers, onnx_file, runtime, sidecar
from harness.engine.decoders import AceStepDecoder
from harness.engine.errors import EngineError, ExportRefused, InvalidInput, PlanCorrupt, SidecarMissing
from harness.rails.profile import files
from harness.rails.profile.report import NotAProfile

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def tiny() -> AceStepDecoder:
    return AceStepDecoder.preset("tiny")


@pytest.fixture
def checkpoint(tiny: AceStepDecoder, tmp_path: Path) -> Path:
    """A checkpoint's folder, with files that no index may reach beside it."""
    folder = tmp_path / "model"
    tiny.transformer.save_pretrained(folder, max_shard_size="200KB")
    whole = {name: value.clone() for name, value in tiny.transformer.state_dict().items()}
    save_file(whole, tmp_path / "outside.safetensors")
    return folder


@pytest.mark.parametrize(
    "where", ["../outside.safetensors", "{folder}/outside.safetensors", "a/../../outside.safetensors"]
)
def test_an_index_that_leads_out_of_its_folder_is_refused_and_not_followed(where: str, checkpoint: Path) -> None:
    index = checkpoint / f"{WEIGHTS}.index.json"
    document = json.loads(index.read_text())
    there = where.format(folder=checkpoint.parent)
    index.write_text(json.dumps({**document, "weight_map": dict.fromkeys(document["weight_map"], there)}))
    with pytest.raises(InvalidInput, match="index.json.*outside.safetensors'"):
        AceStepDecoder.from_pretrained(checkpoint)


@pytest.mark.parametrize("name", ["\x1b[31m", "norm_out.bias"])
def test_an_index_of_other_tensors_than_the_files_have_is_refused(name: str, checkpoint: Path) -> None:
    """diffusers would print the names as they are."""
    index = checkpoint / f"{WEIGHTS}.index.json"
    document = json.loads(index.read_text())
    file = document["weight_map"].pop("norm_out.weight")
    index.write_text(json.dumps(document))
    with pytest.raises(InvalidInput, match="weight_map: got no 'norm_out.weight' in"):
        AceStepDecoder.from_pretrained(checkpoint)
    index.write_text(json.dumps({"weight_map": {**document["weight_map"], "norm_out.weight": file, name: file}}))
    with pytest.raises(InvalidInput, match="weight_map: got '.*', expected tensors of the files"):
        AceStepDecoder.from_pretrained(checkpoint)


def rewritten(folder: Path, change: Callable[[dict[str, torch.Tensor]], object], tiny: AceStepDecoder) -> None:
    """The same checkpoint in one file, with other weights."""
    state = {name: value.clone() for name, value in tiny.transformer.state_dict().items()}
    change(state)
    for each in folder.glob("*.safetensors*"):
        each.unlink()
    save_file(state, folder / WEIGHTS)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused_by_name(value: float, tiny: AceStepDecoder, checkpoint: Path) -> None:
    rewritten(checkpoint, lambda state: state["norm_out.weight"].fill_(value), tiny)
    with pytest.raises(InvalidInput, match="values of norm_out.weight that are not finite"):
        AceStepDecoder.from_pretrained(checkpoint)


def test_weights_that_are_finite_only_in_another_dtype_are_refused(tiny: AceStepDecoder, checkpoint: Path) -> None:
    rewritten(checkpoint, lambda state: state["norm_out.weight"].fill_(1e6), tiny)
    AceStepDecoder.from_pretrained(checkpoint)
    with pytest.raises(InvalidInput, match="norm_out.weight that are not finite, expected finite torch.float16"):
        AceStepDecoder.from_pretrained(checkpoint, dtype=torch.float16)


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.float8_e4m3fn])
def test_weights_of_another_kind_of_number_are_refused_by_name(
    dtype: torch.dtype, tiny: AceStepDecoder, checkpoint: Path
) -> None:
    rewritten(checkpoint, lambda state: state.update({"norm_out.weight": state["norm_out.weight"].to(dtype)}), tiny)
    with pytest.raises(InvalidInput, match="norm_out.weight.*got the dtype"):
        AceStepDecoder.from_pretrained(checkpoint)


CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"num_hidden_layers": 10**9}, "num_hidden_layers: got 1000000000, expected an integer from 1 to 1024"),
    ({"num_hidden_layers": 1000}, "tensors for 1000 layers"),
    ({"hidden_size": 2**24}, "mismatched_keys"),
    ({"hidden_size": "64"}, "hidden_size: got '64', expected an integer"),
    ({"hidden_size": 0}, "hidden_size: got 0"),
    ({"rope_theta": None}, "rope_theta: got None"),
    ({"rope_theta": float("nan")}, "rope_theta: got NaN"),
    ({"quantization_config": {"quant_method": "other"}}, "quantization_config: got an unknown field"),
    ({"layer_types": ["\x1b[31m"]}, "config.json"),
    ({"_class_name": ["a"]}, "of a a list of 1"),
]


@pytest.mark.parametrize(("change", "message"), CONFIGS, ids=lambda each: str(each)[:40])
def test_a_configuration_that_is_none_of_this_model_is_refused_by_field(
    change: dict[str, Any], message: str, checkpoint: Path
) -> None:
    path = checkpoint / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    started = time.monotonic()
    with pytest.raises(InvalidInput) as refused:
        AceStepDecoder.from_pretrained(checkpoint)
    assert message in str(refused.value)
    assert str(refused.value).isprintable()
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "name", ["config.json", f"{WEIGHTS}.index.json", "diffusion_pytorch_model-00001-of-00002.safetensors"]
)
@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "nothing", "bytes"])
def test_a_file_of_a_checkpoint_that_is_no_such_file_is_refused(name: str, kind: str, checkpoint: Path) -> None:
    found = next(iter(checkpoint.glob(name.replace("00002", "*"))))
    found.unlink()
    if kind == "fifo":
        os.mkfifo(found)
    elif kind == "device":
        found.symlink_to("/dev/zero")
    elif kind == "folder":
        found.mkdir()
    else:
        found.write_bytes(b"" if kind == "nothing" else b"\xff" * 64)
    with pytest.raises(InvalidInput, match="path: got"):
        AceStepDecoder.from_pretrained(checkpoint)


def test_layers_are_found_in_linear_time() -> None:
    """A regular expression looked for the end of each of these anew: minutes for a megabyte."""
    started = time.monotonic()
    (found,) = layers.from_inspector({"Layers": [{"Name": "a", "Metadata": "[ONNX Layer: " * 200_000}]})
    assert (found.nodes, time.monotonic() - started < 5) == ((), True)
    (found,) = layers.from_inspector(
        {"Layers": [{"Name": "a", "Metadata": "[ONNX Layer: [ONNX Layer: x]]y[ONNX Layer: z"}]}
    )
    assert found.nodes == ("[ONNX Layer: x",)


PROFILES: list[tuple[Any, Any, str]] = [
    ([{"name": 5, "averageMs": 1.0}], {"Layers": ["a"]}, r"\[0\]\.name: got 5, expected a text"),
    ([{"name": "a", "averageMs": 1.0}], {"Layers": [{"Name": 5}]}, r"Layers\[0\]\.Name: got 5, expected a text"),
    (
        [{"name": "a", "averageMs": 1.0}],
        {"Layers": [{"Name": "a", "StreamId": 1.5}]},
        r"Layers\[0\]\.StreamId: got 1.5",
    ),
    ([{"name": "a", "averageMs": 1.0}], {"Layers": [{"Name": "a", "StreamId": "1e9"}]}, r"Layers\[0\]\.StreamId"),
    ([{"name": "a", "averageMs": 1.0}], {"Layers": ["a"], "Bindings": 5}, "Bindings: got 5, expected a list"),
    (
        [{"name": "a", "averageMs": 1.0}],
        {"Layers": ["a"], "Bindings": [{}]},
        r"Bindings\[0\]: got None, expected a text",
    ),
]


@pytest.mark.parametrize(("profile", "inspector", "message"), PROFILES)
def test_a_profile_that_does_not_fit_is_refused_by_field(
    profile: Any, inspector: Any, message: str, tmp_path: Path
) -> None:
    (tmp_path / "p.json").write_text(json.dumps(profile))
    (tmp_path / "i.json").write_text(json.dumps(inspector))
    with pytest.raises(NotAProfile, match=message):
        files.trtexec(tmp_path / "p.json", tmp_path / "i.json")


def special(path: Path, kind: str) -> Path:
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    return path


READERS: dict[str, tuple[Callable[[Path], object], type[Exception]]] = {
    "profile": (files.trtexec, NotAProfile),
    "plan": (sidecar.read_plan, PlanCorrupt),
    "exported file": (onnx_file.read, InvalidInput),
    "session": (runtime.session, InvalidInput),
}


@pytest.mark.parametrize("kind", ["fifo", "device"])
@pytest.mark.parametrize("name", READERS)
def test_a_fifo_and_a_device_are_refused_at_once(name: str, kind: str, tmp_path: Path) -> None:
    read, error = READERS[name]
    with pytest.raises(error, match="expected a regular file"):
        read(special(tmp_path / "file", kind))


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_metadata_that_is_a_fifo_or_a_device_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    special(tmp_path / "a.plan.json", kind)
    with pytest.raises(SidecarMissing, match="expected a regular file"):
        sidecar.read(tmp_path / "a.plan")


def test_a_link_beside_a_plan_is_not_followed_when_metadata_is_written(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    for name in (".partial", ".tmp"):
        (tmp_path / f"a.plan.json{name}").symlink_to(tmp_path / "victim")
    (tmp_path / "a.plan").write_bytes(b"")
    record = sidecar.Sidecar("0" * 64, "0" * 64, "tensorrt", "1", "8.9", None, None, {}, {}, 1, "none")
    sidecar.write(tmp_path / "a.plan", record)
    assert (tmp_path / "victim").read_text() == "mine"
    assert sidecar.read(tmp_path / "a.plan") == record


def test_a_plan_of_weights_elsewhere_is_refused_wherever_the_file_says_so(tmp_path: Path) -> None:
    outside = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [1], [0.0])
    outside.ClearField("float_data")
    outside.data_location = onnx.TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="../../etc/passwd")
    node = onnx.helper.make_node("Constant", [], ["c"], value=outside)
    graph = onnx.helper.make_graph([node], "g", [], [])
    (tmp_path / "a.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with pytest.raises(ExportRefused, match=r"weights are in ../../etc/passwd, expected a\.onnx\.data"):
        onnx_file.read(tmp_path / "a.onnx")


@pytest.mark.parametrize("data", [b"", b"\xff" * 100, b"\x08" * 1000, bytes(range(256))])
def test_bytes_that_are_no_exported_file_are_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(data)
    with pytest.raises(EngineError, match="a.onnx"):
        onnx_file.read(tmp_path / "a.onnx")
