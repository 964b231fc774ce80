"""Sessions of ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from onnx import TensorProto, helper, save

from harness.engine.aot.runtime import session
from harness.engine.errors import ExportRefused, InvalidInput


def written(path: Path, factor: float) -> Path:
    """A file whose output is its input times a factor."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy")
    by = helper.make_tensor("by", TensorProto.FLOAT, [1], [factor])
    graph = helper.make_graph([helper.make_node("Mul", ["x", "by"], ["y"])], "g", [x], [y], [by])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_session_is_of_the_file_as_it_is_now(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    ones = torch.ones(2).numpy()
    made = [session(written(path, factor)) for factor in (2.0, 3.0)]
    assert [float(each.run(None, {"x": ones})[0][0]) for each in made] == [2.0, 3.0]
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ExportRefused, match="a.onnx: ONNX Runtime cannot run it on a CPU"):
        session(path)
    path.unlink()
    with pytest.raises(InvalidInput, match="an existing ONNX file"):
        session(path)
