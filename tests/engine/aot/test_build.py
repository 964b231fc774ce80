from __future__ import annotations

import hashlib
import logging
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from onnx import load

from harness import registry
from harness.engine.aot import build as module
from harness.engine.aot import sidecar
from harness.engine.aot.bindings import Binding, Flavour, binding
from harness.engine.aot.build import Asked, Built, Sizes, build, profile
from harness.engine.aot.export import digest
from harness.engine.aot.here import Here
from harness.engine.aot.onnx_file import read
from harness.engine.aot.signature import Span
from harness.engine.errors import BuildFailed, ExportRefused, InvalidInput, PackageMissing
from harness.rails.profile import files
from harness.rails.profile.report import Breakdown
from tests.engine.aot.test_onnx_file import written

ASKED = Asked(max_rows=4, frames=Sizes(2, 16, 100), tokens=Sizes(1, 64, 128), compute_capability="8.9")
SHAPES = {
    "hidden_states": ((1, 2, 8), (4, 16, 8), (4, 100, 8)),
    "timestep": ((1,), (4,), (4,)),
    "encoder_hidden_states": ((1, 1, 32), (4, 64, 32), (4, 128, 32)),
    "context_latents": ((1, 2, 16), (4, 16, 16), (4, 100, 16)),
    "encoder_mask": ((1, 1), (4, 64), (4, 128)),
}


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Built]:
    """Real TensorRT-RTX plans of the tiny decoder, built on the CPU."""
    folder = tmp_path_factory.mktemp("plans")
    dtypes = ("float32", "float16", "bfloat16")
    return {d: build(registry.onnx_file("tiny", dtype=d), folder / d / "tiny.plan", ASKED) for d in dtypes}


DTYPES = pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])


@DTYPES
def test_a_real_plan_is_built_on_the_cpu_with_its_metadata_beside_it(plans: dict[str, Built], dtype: str) -> None:
    built, file = plans[dtype], registry.onnx_file("tiny", dtype=dtype)
    data, recorded = sidecar.read_plan(built.plan)
    assert not built.reused
    assert built.differs == ()
    assert recorded == built.sidecar
    assert len(data) > 10**6
    assert recorded.onnx_sha256 == digest(file)
    assert (recorded.flavour, recorded.version) == ("tensorrt-rtx", binding(Flavour.RTX).version)
    assert (recorded.compute_capability, recorded.gpu, recorded.driver) == ("8.9", None, None)
    assert recorded.profile == SHAPES
    expected = {**dict.fromkeys([*SHAPES, "velocity"], dtype), "timestep": "float32", "encoder_mask": "bool"}
    assert (recorded.dtypes, recorded.frames_multiple, recorded.verbosity) == (expected, 2, "detailed")


@DTYPES
def test_its_layers_are_the_builders_with_the_nodes_that_they_compute(plans: dict[str, Built], dtype: str) -> None:
    layers = plans[dtype].sidecar.layers
    nodes = {node.name for node in load(registry.onnx_file("tiny", dtype=dtype)).graph.node}
    assert len(layers) > 50
    assert all(layer.name and layer.kind for layer in layers)
    assert not {layer.name for layer in layers} & {*SHAPES, "velocity"}
    computing = [layer for layer in layers if layer.kind not in ("signal", "wait", "shape_call")]
    named = [layer for layer in computing if layer.nodes]
    assert len(named) > 0.9 * len(computing)
    told = {node for layer in layers for node in layer.nodes}
    assert len(told & nodes) > 0.9 * len(told)
    assert any(node.startswith("layers.1.mlp.down_proj/MatMul") for node in told)


@DTYPES
def test_fewer_than_one_layer_in_twenty_cannot_be_attributed(plans: dict[str, Built], dtype: str) -> None:
    report = Breakdown(files.plan(plans[dtype].plan))
    assert len(report.rows) == len(plans[dtype].sidecar.layers) > 50
    assert report.unattributed.share < 0.05


def test_a_plan_that_matches_is_used_again(plans: dict[str, Built]) -> None:
    before = plans["float32"].plan.read_bytes()
    again = build(registry.onnx_file("tiny"), plans["float32"].plan, ASKED)
    assert again.reused
    assert again.sidecar == plans["float32"].sidecar
    assert plans["float32"].plan.read_bytes() == before


class Builder:
    """Takes the place of TensorRT: remembers what it was asked for, and gives a plan of its number."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.built: list[sidecar.Sidecar] = []
        monkeypatch.setattr(module, "_serialized", self)

    def __call__(self, _onnx: Path, _found: object, wanted: sidecar.Sidecar) -> tuple[bytes, list[str]]:
        self.built.append(wanted)
        return f"plan {len(self.built)}".encode(), ["Layers:", "Name: a, LayerType: gemm, StreamId: 0, Metadata: "]


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> Builder:
    return Builder(monkeypatch)


INSPECTED = '{"Layers": [{"Name": "inspected", "LayerType": "kgen"}]}'


CHANGES = {
    "onnx_sha256": "0" * 64,
    "flavour": "tensorrt",
    "version": "0.0",
    "compute_capability": "8.6",
    "gpu": "another GPU",
    "driver": "1.2",
    "profile": {**SHAPES, "timestep": ((1,), (4,), (3,))},
    "dtypes": {"velocity": "int8"},
    "frames_multiple": 1,
    "verbosity": "none",
}


@pytest.mark.parametrize("field", CHANGES)
def test_a_plan_that_differs_in_a_field_is_built_anew_and_the_field_is_named(
    builder: Builder, tmp_path: Path, field: str
) -> None:
    file, plan = registry.onnx_file("tiny"), tmp_path / "tiny.plan"
    first = build(file, plan, ASKED)
    assert build(file, plan, ASKED).reused
    sidecar.write(plan, replace(first.sidecar, **{field: CHANGES[field]}))
    second = build(file, plan, ASKED)
    assert (second.reused, second.differs) == (False, (field,))
    assert len(builder.built) == 2
    assert sidecar.read_plan(plan) == (b"plan 2", replace(first.sidecar, plan_sha256=_sha256(b"plan 2")))


def test_every_field_that_a_plan_is_built_for_is_among_them() -> None:
    assert set(CHANGES) == set(sidecar.BUILT_FOR)


def test_a_truncated_plan_and_one_without_metadata_are_built_anew(builder: Builder, tmp_path: Path) -> None:
    file, plan = registry.onnx_file("tiny"), tmp_path / "tiny.plan"
    build(file, plan, ASKED)
    plan.write_bytes(b"pla")
    (said,) = build(file, plan, ASKED).differs
    assert "its 3 bytes is not the one in" in said
    sidecar.path(plan).unlink()
    (said,) = build(file, plan, ASKED).differs
    assert "is missing" in said
    assert build(file, plan, ASKED).reused
    assert len(builder.built) == 3


def test_a_profile_goes_from_one_row_to_the_ceiling_and_is_best_at_it() -> None:
    assert profile(read(registry.onnx_file("tiny")), ASKED) == SHAPES


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"frames": Sizes(1, 16, 100)}, "frames: got 1, expected at least 2, a multiple of 2"),
        ({"frames": Sizes(2, 15, 100)}, "frames: got 15, expected at least 2, a multiple of 2"),
        ({"frames": Sizes(2, 16, 101)}, "frames: got 101"),
    ],
)
def test_frames_that_the_file_does_not_take_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        profile(read(registry.onnx_file("tiny")), replace(ASKED, **change))


def test_tokens_that_the_file_does_not_take_are_refused() -> None:
    with pytest.raises(InvalidInput, match="tokens: got 1, expected 64"):
        profile(read(registry.onnx_file("affine")), replace(ASKED, frames=Sizes(1, 3, 5)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_rows": 0}, "max_rows: got 0"),
        ({"frames": Sizes(4, 2, 8)}, "frames: got .*expected 1 <= low <= opt <= high"),
        ({"tokens": Sizes(0, 2, 8)}, "tokens: got"),
        ({"compute_capability": "sm89"}, "compute_capability: got 'sm89'"),
    ],
)
def test_what_no_engine_can_be_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        replace(ASKED, **change)


def test_a_compute_capability_that_rtx_does_not_build_for_is_refused(builder: Builder, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"got 9.0, expected one that TensorRT-RTX builds for: 7.5, 8.0, 8.6, 8.9"):
        build(registry.onnx_file("tiny"), tmp_path / "a.plan", replace(ASKED, compute_capability="9.0"))
    assert not builder.built


def test_without_a_gpu_the_compute_capability_must_be_named(
    monkeypatch: pytest.MonkeyPatch, builder: Builder, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "here", lambda found, _device: Here(str(found.flavour), found.version))
    with pytest.raises(InvalidInput, match="none, and there is no GPU here"):
        build(registry.onnx_file("tiny"), tmp_path / "a.plan", replace(ASKED, compute_capability=None))


def test_with_a_gpu_a_plan_is_for_it_unless_another_one_is_named(
    monkeypatch: pytest.MonkeyPatch, builder: Builder, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        module, "here", lambda found, _device: Here(str(found.flavour), found.version, "8.6", "a GPU", "570.1")
    )
    monkeypatch.setattr(module.runtime, "engine_from", lambda data, _found: data)
    monkeypatch.setattr(module.runtime, "information_of", lambda engine, _found: INSPECTED)
    file = registry.onnx_file("tiny")
    own = build(file, tmp_path / "a.plan", replace(ASKED, compute_capability=None)).sidecar
    other = build(file, tmp_path / "b.plan", ASKED).sidecar
    assert (own.compute_capability, own.gpu, own.driver) == ("8.6", "a GPU", "570.1")
    assert (other.compute_capability, other.gpu, other.driver) == ("8.9", None, None)
    # Its inspector says more than any builder's log, and only an engine that can be loaded here has one.
    assert [layer.name for layer in own.layers] == ["inspected"]
    assert [layer.name for layer in other.layers] == ["a"]


def test_the_full_tensorrt_is_not_put_in_the_place_of_rtx(tmp_path: Path) -> None:
    with pytest.raises(PackageMissing, match=r"pip install 'stream-harness\[trt\]'"):
        build(registry.onnx_file("tiny"), tmp_path / "a.plan", replace(ASKED, flavour="tensorrt"))
    assert not list(tmp_path.iterdir())


def test_what_tensorrt_refuses_is_a_named_error_and_leaves_the_old_plan(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module.onnx_file, "read", lambda _path: read(registry.onnx_file("tiny")))
    file, plan = tmp_path / "a.onnx", tmp_path / "a.plan"
    file.write_bytes(b"no network")
    plan.write_bytes(b"old")
    # The last errors of the builder's log tell why, after what Polygraphy says.
    logged = ["Error: first", "Error: second", "fine", "an error: third", "[E] Error: last", "done"]
    monkeypatch.setattr(module, "_log", lambda: nullcontext(logged))
    with pytest.raises(BuildFailed, match=r"parse.*correctly Error: second an error: third \[E\] Error: last$"):
        build(file, plan, ASKED)
    assert plan.read_bytes() == b"old"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.onnx", "a.plan"]


class RefusedByTensorRT(Exception):
    """Takes the place of Polygraphy's error."""


class Polygraphy:
    """Takes the place of Polygraphy's modules: remembers what is built, and logs lines as TensorRT does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.built: list[Any] = []
        self.lines: list[str] = []
        self.error: Exception | None = None
        log = SimpleNamespace(use_python_logging_system=False, colors=True, EXTRA_VERBOSE=0)
        log.verbosity = lambda _level: nullcontext()
        modules = {
            "polygraphy.logger": SimpleNamespace(G_LOGGER=log),
            "polygraphy.exception": SimpleNamespace(PolygraphyException=RefusedByTensorRT),
            "polygraphy.backend.tensorrt_rtx": SimpleNamespace(CreateConfigRTX=lambda **options: ("rtx", options)),
            "polygraphy.backend.trt": SimpleNamespace(
                Profile=Shapes,
                CreateConfig=lambda **options: ("full", options),
                NetworkFromOnnxPath=lambda path, **options: (path, options),
                EngineBytesFromNetwork=self.engine,
            ),
        }
        monkeypatch.setattr(module, "import_module", modules.__getitem__)
        monkeypatch.setattr(module, "use_polygraphy", lambda _found: None)

    def engine(self, network: object, *, config: object) -> Any:
        def run() -> bytes:
            for line in self.lines:
                logging.getLogger("Polygraphy").info(line)
            if self.error:
                raise self.error
            return b"plan"

        self.built.append((network, config))
        return run


class Shapes(list[Any]):
    """A profile of Polygraphy's."""

    def add(self, name: str, *, min: object, opt: object, max: object) -> None:
        self.append((name, min, opt, max))


@pytest.fixture
def polygraphy(monkeypatch: pytest.MonkeyPatch) -> Polygraphy:
    return Polygraphy(monkeypatch)


WANTED = sidecar.Sidecar("", "0", "", "1", "8.9", None, None, {"x": ((1,), (2,), (3,))}, {}, 2, "detailed")
DETAILED: Any = SimpleNamespace(ProfilingVerbosity=SimpleNamespace(DETAILED="all"))


@pytest.mark.parametrize(
    ("flavour", "kind", "more"),
    [(Flavour.RTX, "rtx", {"compute_capabilities": [(8, 9)]}), (Flavour.TENSORRT, "full", {})],
)
def test_a_strongly_typed_network_is_built_with_its_profile_and_every_layer_s_name(
    polygraphy: Polygraphy, flavour: Flavour, kind: str, more: dict[str, Any]
) -> None:
    polygraphy.lines = ["[V] Layers:\n[V] Name: a", "  done"]
    found = module._serialized(Path("a.onnx"), Binding(flavour, "1", DETAILED), WANTED)
    assert found == (b"plan", ["Layers:", "Name: a", "done"])
    config = {"profiles": [[("x", (1,), (2,), (3,))]], "profiling_verbosity": "all", **more}
    assert polygraphy.built == [(("a.onnx", {"strongly_typed": True}), (kind, config))]


def test_a_build_that_is_refused_says_the_last_three_errors_of_its_log(polygraphy: Polygraphy) -> None:
    polygraphy.lines = ["[E] Error: 1", "[E] Error: 2", "fine", "[E] an error: 3", "[E] Error: 4", "done"]
    polygraphy.error = RefusedByTensorRT("Could not build.")
    with pytest.raises(BuildFailed) as failed:
        module._serialized(Path("a.onnx"), Binding(Flavour.TENSORRT, "1", DETAILED), WANTED)
    assert str(failed.value) == "Could not build. Error: 2 an error: 3 Error: 4"


def test_a_build_without_options_is_for_8_rows_and_up_to_60_seconds_tuned_for_30() -> None:
    assert Asked() == Asked(8, Sizes(2, 750, 1500), Sizes(1, 200, 512), None, None)


def test_the_full_tensorrt_builds_for_no_gpu_but_this_machine_s(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "here", lambda _found, _device: Here("tensorrt", "1", "9.0", "a GPU", "570.1"))
    full, signature = Binding(Flavour.TENSORRT, "1", SimpleNamespace()), read(written(tmp_path / "a.onnx", "batch"))
    with pytest.raises(InvalidInput) as refused:
        module._wanted(Path("a.onnx"), signature, full, ASKED)
    assert str(refused.value) == (
        "compute_capability: got 8.9, expected none: the full TensorRT builds for this machine's GPU"
    )
    own = module._wanted(Path("a.onnx"), signature, full, replace(ASKED, compute_capability="9.0"))
    assert (own.flavour, own.compute_capability, own.gpu, own.driver) == ("tensorrt", "9.0", "a GPU", "570.1")


def test_a_plan_of_the_full_tensorrt_is_built_used_again_and_built_anew_for_another_driver(
    monkeypatch: pytest.MonkeyPatch, builder: Builder, tmp_path: Path
) -> None:
    driver = ["570.1"]
    monkeypatch.setattr(module, "binding", lambda _flavour: Binding(Flavour.TENSORRT, "1", SimpleNamespace()))
    monkeypatch.setattr(module, "here", lambda _found, _device: Here("tensorrt", "1", "9.0", "a GPU", driver[0]))
    monkeypatch.setattr(module.runtime, "engine_from", lambda data, _found: data)
    monkeypatch.setattr(module.runtime, "information_of", lambda _engine, _found: INSPECTED)
    file, plan = written(tmp_path / "a.onnx", "batch"), tmp_path / "a.plan"
    found = [build(file, plan, replace(ASKED, compute_capability=None)) for _ in range(2)]
    driver[0] = "580.2"
    found.append(build(file, plan, replace(ASKED, compute_capability=None)))
    assert [(each.reused, each.differs) for each in found] == [(False, ()), (True, ()), (False, ("driver",))]
    assert found[0].sidecar == found[1].sidecar == replace(found[0].sidecar, plan_sha256=_sha256(b"plan 1"))
    assert found[2].sidecar == replace(found[0].sidecar, plan_sha256=_sha256(b"plan 2"), driver="580.2")


def test_a_builder_that_prints_no_layers_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_serialized", lambda *_args: (b"plan", ["built"]))
    with pytest.raises(BuildFailed, match="lists no layers"):
        build(registry.onnx_file("tiny"), tmp_path / "a.plan", ASKED)
    assert not list(tmp_path.iterdir())


def test_a_file_with_a_frozen_batch_is_refused_before_anything_is_built(builder: Builder, tmp_path: Path) -> None:
    with pytest.raises(ExportRefused, match="the batch is frozen to 1"):
        build(written(tmp_path / "a.onnx", 1), tmp_path / "a.plan", ASKED)
    assert not builder.built


@pytest.mark.parametrize("plan", ["a.onnx", "./a.onnx", "link.onnx", "a.onnx.data"])
def test_a_plan_that_would_take_the_place_of_its_own_file_is_refused(
    builder: Builder, tmp_path: Path, plan: str
) -> None:
    file = written(tmp_path / "a.onnx", "batch")
    (tmp_path / "link.onnx").symlink_to(file)
    (tmp_path / "a.onnx.data").write_bytes(b"weights")
    before = file.read_bytes()
    with pytest.raises(InvalidInput, match="plan: got .*, expected a path that is not the ONNX file's"):
        build(file, tmp_path / plan, ASKED)
    assert not builder.built
    assert (file.read_bytes(), (tmp_path / "a.onnx.data").read_bytes()) == (before, b"weights")


def test_an_onnx_file_whose_name_is_that_of_a_plan_s_metadata_is_refused(builder: Builder, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="plan: got"):
        build(written(tmp_path / "a.plan.json", "batch"), tmp_path / "a.plan", ASKED)
    assert not builder.built


def test_nothing_of_the_builders_log_reaches_the_terminal(
    capfd: pytest.CaptureFixture[str], plans: dict[str, Built], tmp_path: Path
) -> None:
    capfd.readouterr()
    build(registry.onnx_file("tiny", dtype="bfloat16"), tmp_path / "a.plan", ASKED)
    assert capfd.readouterr() == ("", "")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_what_is_asked_by_default_is_what_the_documents_say() -> None:
    """8 rows, best at 30 s, at most 60 s, at 25 frames a second."""
    assert Asked() == Asked(8, Sizes(2, 750, 1500), Sizes(1, 200, 512), None, None)
    assert (module.SECONDS_30, module.SECONDS_60) == (30 * 25, 60 * 25)


@pytest.mark.parametrize(
    ("capability", "taken"),
    [("8.9", True), ("10.0", True), ("12.1", True), ("8", False), ("8.", False), (".9", False), ("8.10", False)]
    + [("", False), ("8.9 ", False), ("x8.9", False), ("8,9", False), ("8.9.0", False), ("٨.٩", False)],
)
def test_a_compute_capability_is_a_major_and_a_minor_number(capability: str, taken: bool) -> None:
    if taken:
        assert Asked(compute_capability=capability).compute_capability == capability
        return
    with pytest.raises(InvalidInput) as refused:
        Asked(compute_capability=capability)
    assert str(refused.value) == (f"compute_capability: got {capability!r}, expected major and minor, such as 8.9")


@pytest.mark.parametrize("field", ["frames", "tokens"])
@pytest.mark.parametrize("sizes", [(0, 1, 1), (2, 1, 3), (1, 3, 2), (3, 3, 2), (-1, 0, 1)])
def test_sizes_that_do_not_rise_from_one_are_refused(field: str, sizes: tuple[int, int, int]) -> None:
    assert Asked(**{field: Sizes(1, 1, 1)})  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=f"^{field}: got Sizes.*, expected 1 <= low <= opt <= high$"):
        Asked(**{field: Sizes(*sizes)})  # type: ignore[arg-type]


def wanted(monkeypatch: pytest.MonkeyPatch, flavour: Flavour, capability: str | None) -> sidecar.Sidecar:
    """The metadata of a plan where the GPU has 8.6 and RTX builds for a few."""
    names = SimpleNamespace(SM120=1, SM75=1, SM86=1, SM100=1, NONE=0, CURRENT=0)
    module_ = SimpleNamespace(**({"ComputeCapability": names} if flavour is Flavour.RTX else {}))
    found = Binding(flavour, "1.0", module_)
    monkeypatch.setattr(
        module, "here", lambda found, _device: Here(str(found.flavour), found.version, "8.6", "a GPU", "570.1")
    )
    file = registry.onnx_file("tiny")
    return module._wanted(file, read(file), found, replace(ASKED, compute_capability=capability))


@pytest.mark.parametrize("flavour", Flavour)
def test_a_plan_for_the_gpu_that_is_here_is_bound_to_it_also_where_its_capability_is_named(
    monkeypatch: pytest.MonkeyPatch, flavour: Flavour
) -> None:
    for capability in (None, "8.6"):
        made = wanted(monkeypatch, flavour, capability)
        assert (made.flavour, made.version) == (str(flavour), "1.0")
        assert (made.compute_capability, made.gpu, made.driver) == ("8.6", "a GPU", "570.1")
        assert (made.plan_sha256, made.layers) == ("", ())


def test_for_another_gpu_rtx_builds_and_the_full_tensorrt_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for capability in ("7.5", "10.0", "12.0"):
        made = wanted(monkeypatch, Flavour.RTX, capability)
        assert (made.compute_capability, made.gpu, made.driver) == (capability, None, None)
        with pytest.raises(InvalidInput) as refused:
            wanted(monkeypatch, Flavour.TENSORRT, capability)
        assert str(refused.value) == (
            f"compute_capability: got {capability}, expected none: the full TensorRT builds for this machine's GPU"
        )
    with pytest.raises(
        InvalidInput, match=r"got 9.0, expected one that TensorRT-RTX builds for: 7.5, 8.6, 10.0, 12.0$"
    ):
        wanted(monkeypatch, Flavour.RTX, "9.0")


@pytest.mark.parametrize("fails", [False, True])
def test_the_log_is_collected_inside_and_everything_of_it_is_as_before_outside(fails: bool) -> None:
    from polygraphy.logger import G_LOGGER  # noqa: PLC0415 - takes a second

    def state() -> tuple[Any, ...]:
        logger = logging.getLogger("Polygraphy")
        told = G_LOGGER.use_python_logging_system, G_LOGGER.colors, G_LOGGER.module_severity.get()
        return logger.level, logger.propagate, list(logger.handlers), told

    before = state()
    try:
        with module._log() as lines:
            logging.getLogger("Polygraphy").debug("[V] one\n [E] two\nthree")
            if fails:
                raise MemoryError
    except MemoryError:
        assert fails
    assert lines == ["one", "two", "three"]
    assert state() == before
    logging.getLogger("Polygraphy").debug("later")
    assert len(lines) == 3


@pytest.mark.parametrize("which", ["low", "opt", "high"])
@pytest.mark.parametrize("field", ["frames", "tokens"])
def test_each_of_the_three_sizes_is_held_to_the_file(tmp_path: Path, field: str, which: str) -> None:
    file = replace(read(written(tmp_path / "a.onnx", "batch")), frames=Span(4, 8), tokens=Span(4, 8))
    asked = Asked(max_rows=3, frames=Sizes(4, 6, 8), tokens=Sizes(4, 5, 8))
    assert profile(file, asked)["context_latents"] == ((1, 4, 16), (3, 6, 16), (3, 8, 16))
    assert profile(file, asked)["encoder_mask"] == ((1, 4), (3, 5), (3, 8))
    outside = {"low": Sizes(2, 6, 8), "opt": Sizes(4, 10, 10), "high": Sizes(4, 6, 10)}[which]
    with pytest.raises(InvalidInput) as refused:
        profile(file, replace(asked, **{field: outside}))
    more = ", a multiple of 2" if field == "frames" else ""
    assert str(refused.value) == f"{field}: got {2 if which == 'low' else 10}, expected 4 to 8{more}"


def test_a_plan_is_written_before_its_metadata(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    order: list[str] = []
    write = module.atomic.write

    def written_in_order(path: Path, data: bytes) -> None:
        order.append(path.name)
        write(path, data)

    monkeypatch.setattr(module.atomic, "write", written_in_order)
    module._write(tmp_path / "a.plan", b"plan", replace(WANTED, plan_sha256=_sha256(b"plan")))
    assert order == ["a.plan", "a.plan.json"]
    assert sidecar.read_plan(tmp_path / "a.plan")[0] == b"plan"
