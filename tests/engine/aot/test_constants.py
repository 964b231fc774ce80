from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
import torch

from harness.engine.aot import constants, export
from harness.parity.compare import identical
from tests.engine.aot.exports import inputs, run, single


def frequencies() -> torch.Tensor:
    """Of diffusers' time embedding, as torch computes them."""
    half = 128
    return torch.exp(-torch.log(torch.tensor(10000.0, dtype=torch.float64)).item() * torch.arange(half) / half)


def folded(path: Path) -> dict[str, torch.Tensor]:
    """The constants of a file by name."""
    return {each.name: torch.tensor(onnx.numpy_helper.to_array(each)) for each in onnx.load(path).graph.initializer}


def holds(path: Path, wanted: torch.Tensor) -> bool:
    """Whether one of a file's constants has these very bits."""
    found = [t.flatten() for t in folded(path).values() if t.dtype is torch.float32 and t.numel() == wanted.numel()]
    return any(identical(each, wanted) for each in found)


def test_folded_frequencies_have_torchs_bits_and_numpys_would_be_twice_as_far_from_float64(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain, restore = tmp_path / "plain.onnx", constants.restore

    def kept(model: Any, program: Any) -> Any:
        onnx_ir.save(model, plain)
        return restore(model, program)

    monkeypatch.setattr(constants, "restore", kept)
    made = export.export(single(), tmp_path / "restored.onnx").path
    assert not holds(plain, frequencies())
    assert holds(made, frequencies())
    given = inputs(single(), 8, 76, 33)
    exact = single(torch.float64)(**given)
    far, near = ((run(path, given) - exact).pow(2).mean().sqrt() for path in (plain, made))
    assert far > 2 * near


def test_a_constant_that_was_folded_to_another_shape_stays_as_it_is() -> None:
    traced = torch.fx.Graph()
    for made, name in ((torch.arange(3), "as_computed"), (torch.arange(4), "laid_out")):
        traced.create_node("call_function", torch.arange, (len(made),), name=name)
    shapes = {"as_computed": (3,), "laid_out": (1, 4), "a_weight": (2,)}
    values = {name: SimpleNamespace(const_value=onnx_ir.tensor(np.zeros(shape))) for name, shape in shapes.items()}
    before = {name: value.const_value for name, value in values.items()}
    model: Any = SimpleNamespace(graph=SimpleNamespace(initializers=values))
    program: Any = SimpleNamespace(graph=traced)
    assert constants.restore(model, program) == ("as_computed",)
    assert values["as_computed"].const_value.numpy().tolist() == [0, 1, 2]
    assert [name for name, value in values.items() if value.const_value is before[name]] == ["laid_out", "a_weight"]


def test_a_constant_is_computed_on_the_cpu_from_all_that_it_depends_on_and_nothing_else_is() -> None:
    traced = torch.fx.Graph()
    given = traced.placeholder("given")
    base = traced.call_function(torch.arange, (3,), {"device": torch.device("meta"), "dtype": torch.float64})
    total = traced.call_function(torch.add, (base, base), {"alpha": 2})
    traced.call_function(torch.mul, (total, given))
    names = [node.name for node in traced.nodes]
    shapes = [onnx_ir.tensor(np.full(3, 9.0)) for _ in names]
    values = {name: SimpleNamespace(const_value=each) for name, each in zip(names, shapes, strict=True)}
    model: Any = SimpleNamespace(graph=SimpleNamespace(initializers=values))
    program: Any = SimpleNamespace(graph=traced)
    assert constants.restore(model, program) == (base.name, total.name)
    told = {name: value.const_value.numpy().tolist() for name, value in values.items()}
    mixed = names[-1]
    assert told == {"given": [9.0] * 3, base.name: [0.0, 1.0, 2.0], total.name: [0.0, 3.0, 6.0], mixed: [9.0] * 3}
    assert values[total.name].const_value.name == total.name
