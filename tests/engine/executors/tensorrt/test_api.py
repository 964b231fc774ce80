"""The names of TensorRT's API that the executor uses exist, it uses no others, and the fake is held to them."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import harness.engine.executors
from harness.engine.executors.tensorrt.api import API, RTX_API
from tests.engine.executors.tensorrt import binding_signatures
from tests.engine.executors.tensorrt.binding_signatures import Held, Overload, fits, overloads
from tests.engine.executors.tensorrt.fake_tensorrt import FakeConfig, FakeContext, FakeEngine, FakeRuntime, Made

FOLDER = Path(harness.engine.executors.__file__).parent
# By what a module calls it; in `executor.py` a context is ours, and an engine is passed on and never asked.
CALLED = {
    "tensorrt/executor.py": {"engine": "ICudaEngine"},
    "tensorrt/context.py": {"context": "IExecutionContext", "_context": "IExecutionContext"},
    "tensorrt/engine.py": {
        "engine": "ICudaEngine", "get_tensor_dtype": "DataType", "get_tensor_mode": "TensorIOMode"
    },
    "tensorrt/runtime.py": {
        "inspector": "EngineInspector", "formats": "LayerInformationFormat",
        "engine": "ICudaEngine", "config": "IRuntimeConfig", "strategies": "DynamicShapesKernelSpecializationStrategy"
    },
    "tensorrt/profiling.py": {"IProfiler": "IProfiler"},
}  # fmt: skip


def module() -> Any:
    found = binding_signatures.installed()
    if found is None:
        pytest.skip("neither TensorRT nor TensorRT-RTX is installed: nothing to hold the names against")
    return found


def last_name(node: ast.expr) -> str:
    """Of `a.b.c` the `c`, of `a.b(d)` the `b`."""
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case ast.Call(func=function):
            return last_name(function)
    return ""


def asked(file: str, owners: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What a module asks of TensorRT's objects: class and attribute."""
    tree = ast.parse((FOLDER / file).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and last_name(node.value) in owners:
            yield owners[last_name(node.value)], node.attr
        if isinstance(node, ast.ClassDef) and any(last_name(base) == "IProfiler" for base in node.bases):
            yield from (("IProfiler", made.name) for made in node.body if isinstance(made, ast.FunctionDef))


@pytest.mark.parametrize("table", [API, RTX_API], ids=["both", "rtx"])
def test_every_name_exists_in_the_binding(table: Mapping[str, tuple[str, ...]]) -> None:
    found = module()
    if table is RTX_API and "rtx" not in found.__name__:
        pytest.skip("TensorRT-RTX is not installed")
    absent = [f"{owner}.{name}" for owner in table for name in table[owner] if not hasattr(getattr(found, owner), name)]
    assert absent == []


def test_no_other_name_is_used_and_every_name_is() -> None:
    used = {pair for file, owners in CALLED.items() for pair in asked(file, owners)}
    known = {(owner, name) for table in (API, RTX_API) for owner, names in table.items() for name in names}
    assert used == known


def test_no_other_module_is_given_tensorrt_s_objects() -> None:
    others = {file.relative_to(FOLDER).as_posix() for file in FOLDER.rglob("*.py")} - CALLED.keys()
    assert others >= {"tensorrt/buffers.py", "tensorrt/api.py"}
    anybody = CALLED["tensorrt/context.py"] | CALLED["tensorrt/runtime.py"]
    assert {file: list(asked(file, anybody)) for file in others} == {file: [] for file in others}


def test_names_are_not_looked_up_by_text() -> None:
    for file in CALLED:
        calls = [n for n in ast.walk(ast.parse((FOLDER / file).read_text())) if isinstance(n, ast.Call)]
        texts = [ast.unparse(call) for call in calls if last_name(call.func) in ("getattr", "setattr", "import_module")]
        allowed = ("getattr(recorded, field)", "getattr(new.signature, fact)", "getattr(old.signature, fact)")
        assert [t for t in texts if t not in allowed and "polygraphy" not in t] == []


@pytest.mark.parametrize("owner", ["ICudaEngine", "IExecutionContext", "IRuntimeConfig"])
def test_the_fake_has_every_method_that_the_executor_uses(owner: str) -> None:
    fakes = {fake.stands_for: fake for fake in (FakeEngine, FakeContext, FakeConfig)}
    public = {name for name in vars(fakes[owner]) if not name.startswith("_") and name != "stands_for"}
    assert public == {*API.get(owner, ()), *RTX_API.get(owner, ())}


def test_the_binding_s_signatures_are_read() -> None:
    context, engine = module().IExecutionContext, module().ICudaEngine
    (address,) = overloads(context, "set_tensor_address")
    assert [name for name, _, _ in address.parameters] == ["name", "memory"]
    assert (address.takes(("x", 1), {}), address.takes(("x",), {"memory": 1})) == (True, True)
    assert not any(
        address.takes(*wrong) for wrong in ((("x",), {}), (("x", 1.0), {}), ((1, "x"), {}), (("x", 1, 1), {}))
    )
    assert fits(True, address.returns)
    assert not fits(1, address.returns)
    assert any(way.takes(("x", (1, 2)), {}) for way in overloads(context, "set_input_shape"))
    assert any(way.takes((), {}) for way in overloads(engine, "create_execution_context"))
    (profile,) = overloads(engine, "get_tensor_profile_shape")
    assert fits([module().Dims((1, 2))], profile.returns)
    assert not fits([(1, 2)], profile.returns)


def test_a_default_with_brackets_is_one_parameter() -> None:
    class Owner:
        def make(self) -> None:
            """make(self: a.Owner, how: a.How = <How.A: 0>, what: list[tuple[int, str]] = None, n: int) -> list[str]"""

    assert overloads(Owner, "make") == [
        Overload((("how", "a.How", True), ("what", "list[tuple[int, str]]", True), ("n", "int", False)), "list[str]")
    ]


def test_a_call_that_the_binding_does_not_take_is_refused_by_the_fake() -> None:
    module()
    context = FakeContext(FakeRuntime(), Made())
    with pytest.raises(TypeError, match=r"IExecutionContext.set_tensor_address\(\): incompatible"):
        context.set_tensor_address("velocity", 256.0)
    with pytest.raises(TypeError, match=r"IExecutionContext.execute_async_v3\(\): incompatible"):
        context.execute_async_v3(None)


def test_a_fake_with_a_method_that_the_binding_lacks_cannot_be_made() -> None:
    module()
    with pytest.raises(KeyError, match="execute_async_v4"):

        class Wrong(Held):
            stands_for = "IExecutionContext"

            def execute_async_v4(self) -> None: ...


def test_a_fake_that_returns_what_the_binding_does_not_is_refused() -> None:
    module()

    class Wrong(Held):
        stands_for = "IExecutionContext"

        def infer_shapes(self) -> Any:
            return 3

    with pytest.raises(AssertionError, match="infer_shapes returned 3"):
        Wrong().infer_shapes()
