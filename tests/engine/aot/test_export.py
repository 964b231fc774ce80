from __future__ import annotations

import hashlib
import logging
import re
import warnings
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from diffusers import AceStepTransformer1DModel

from harness import registry
from harness.engine.aot import export as module
from harness.engine.aot import graph
from harness.engine.aot.export import digest, export
from harness.engine.aot.onnx_file import read
from harness.engine.aot.signature import INPUTS, MASK, Span
from harness.engine.decoders import AceStepDecoder, AffineDecoder
from harness.engine.decoders.ace_step import PRESETS
from harness.engine.errors import ExportRefused, InvalidInput, PackageMissing
from harness.parity.compare import assert_identical
from tests.engine.aot.exports import inputs, run, single, tiny

DTYPES = ["float32", "float16", "bfloat16"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_have_the_files_dtype_but_time_and_mask(dtype: str) -> None:
    found = read(registry.onnx_file("tiny", dtype=dtype))
    wide = getattr(torch, dtype)
    assert tuple(found.dtypes) == (*INPUTS, "velocity")
    assert found.dtypes == {**dict.fromkeys(found.dtypes, wide), "timestep": torch.float32, MASK: torch.bool}


def test_batch_even_frames_and_encoder_length_are_dynamic() -> None:
    found = read(registry.onnx_file("tiny"))
    assert (found.rows, found.frames, found.tokens, found.frames_multiple) == (Span(1), Span(2), Span(1), 2)
    assert (found.channels, found.context_channels, found.encoder_dim) == (8, 16, 32)


def test_an_odd_number_of_frames_is_an_error_and_loses_no_frame_in_silence() -> None:
    with pytest.raises(Exception, match="[Rr]eshape"):
        run(registry.onnx_file("tiny"), inputs(tiny(), 2, 7, 5))


def test_every_node_is_named_by_its_module_and_only_once() -> None:
    model = onnx.load(registry.onnx_file("tiny"))
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    modules = {name for name, _ in tiny().transformer.named_modules()}
    of_modules = [name for name in names if not name.startswith("graph/")]
    assert len(of_modules) > 0.9 * len(names)
    assert {name.rsplit("/", 1)[0] for name in of_modules} <= modules | {"decoder", "decoder.transformer"}
    assert all(re.fullmatch(rf".*/{node.op_type}_\d+", node.name) for node in model.graph.node)
    layer = [name for name in names if name.startswith("layers.0.self_attn.to_q/")]
    assert any("MatMul" in name for name in layer)


def test_no_note_of_the_exporter_and_no_place_of_this_machine_is_in_the_file() -> None:
    data = registry.onnx_file("tiny").read_bytes()
    model = onnx.load_from_string(data)
    assert not any([*model.metadata_props, *(p for node in model.graph.node for p in node.metadata_props)])
    for text in (
        b"stack_trace",
        b"site-packages",
        b".py",
        str(Path.home()).encode(),
        str(Path(__file__).parent).encode(),
    ):
        assert text not in data


def test_there_is_no_convolution_in_it_which_bfloat16_has_no_kernel_for() -> None:
    operators = {node.op_type for node in onnx.load(registry.onnx_file("tiny", dtype="bfloat16")).graph.node}
    assert "MatMul" in operators
    assert not operators & {"Conv", "ConvTranspose"}


def test_the_affine_decoders_file_gives_its_very_bytes() -> None:
    decoder = AffineDecoder(16)
    found = read(registry.onnx_file("affine"))
    assert (found.frames_multiple, found.tokens) == (1, Span(64, 64))
    for rows, frames in ((1, 1), (3, 7), (8, 75)):
        draw = torch.Generator().manual_seed(frames)
        given = {
            "hidden_states": torch.randn(rows, frames, 4, generator=draw),
            "timestep": torch.rand(rows, generator=draw),
            "encoder_hidden_states": torch.randn(rows, 64, 16, generator=draw),
            "context_latents": torch.randn(rows, frames, 8, generator=draw),
            MASK: torch.rand(rows, 64, generator=draw) < 0.5,
        }
        assert_identical(run(registry.onnx_file("affine"), given), decoder(**given))


def test_tracing_leaves_nothing_behind_in_the_affine_decoder(tmp_path: Path) -> None:
    decoder = AffineDecoder(4)
    export(decoder, tmp_path / "a.onnx", tokens=3)
    given = {
        "hidden_states": torch.ones(1, 40, 4),
        "timestep": torch.ones(1),
        "encoder_hidden_states": torch.ones(1, 3, 4),
        "context_latents": torch.ones(1, 40, 8),
        MASK: torch.ones(1, 3, dtype=torch.bool),
    }
    assert type(decoder(**given)) is torch.Tensor
    assert_identical(run(tmp_path / "a.onnx", given), decoder(**given))


@pytest.fixture(scope="module")
def unmasked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file without the mask, its weights beside it."""
    path = tmp_path_factory.mktemp("unmasked") / "tiny.onnx"
    made = export(single(), path, mask=False, external_over=0)
    assert (made.mask, made.data, made.path) == (False, path.with_name("tiny.onnx.data"), path)
    assert made.size == path.stat().st_size + path.with_name("tiny.onnx.data").stat().st_size
    return path


def test_a_file_without_the_mask_attends_every_token(unmasked: Path) -> None:
    assert not read(unmasked).takes_mask
    decoder = single()
    given = inputs(decoder, 3, 12, 9)
    given[MASK] = torch.ones_like(given[MASK])
    velocity = run(unmasked, {name: tensor for name, tensor in given.items() if name != MASK})
    torch.testing.assert_close(velocity, decoder(**given), rtol=0, atol=1e-5)


def test_weights_beyond_the_limit_go_to_a_file_beside_it(unmasked: Path) -> None:
    assert sorted(file.name for file in unmasked.parent.iterdir()) == ["tiny.onnx", "tiny.onnx.data"]
    assert unmasked.stat().st_size < unmasked.with_name("tiny.onnx.data").stat().st_size
    before = digest(unmasked)
    data = unmasked.with_name("tiny.onnx.data")
    content = data.read_bytes()
    data.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert digest(unmasked) != before
    data.write_bytes(content)
    assert digest(unmasked) == before


def test_weights_that_went_to_a_file_beside_it_are_gone_with_the_file_they_were_of(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(b"old")
    (tmp_path / "a.onnx.data").write_bytes(b"old weights")
    made = export(AffineDecoder(4), path, tokens=2)
    assert [file.name for file in tmp_path.iterdir()] == ["a.onnx"]
    nodes = len(onnx.load(path).graph.node)
    assert made == module.Exported(path, torch.float32, nodes, path.stat().st_size, None, True)
    found = read(path)
    assert (found.channels, found.context_channels, found.encoder_dim) == (4, 8, 4)
    assert (found.rows, found.frames, found.tokens) == (Span(1), Span(1), Span(2, 2))


class Saved:
    """Takes the place of an exported program: writes a file, and its weights beside it where it is asked to."""

    def save(self, path: str, *, external_data: bool) -> None:
        Path(path).write_bytes(b"new")
        if external_data:
            Path(f"{path}.data").write_bytes(b"new weights")


@pytest.mark.parametrize(
    ("weights", "external", "left"),
    [
        (True, True, {"a.onnx.data": b"new weights"}),
        (False, True, {"a.onnx.data": b"new weights"}),
        (True, False, {}),
        (False, False, {"a.onnx": b"old"}),
    ],
)
def test_an_export_that_ends_amid_writing_leaves_no_file_beside_weights_of_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, weights: bool, external: bool, left: dict[str, bytes]
) -> None:
    def replace(source: Path, target: Path) -> None:
        if target == path:
            raise OSError("no space left")
        source.rename(target)

    path = tmp_path / "a.onnx"
    path.write_bytes(b"old")
    if weights:
        (tmp_path / "a.onnx.data").write_bytes(b"old weights")
    monkeypatch.setattr(module.os, "replace", replace)
    with pytest.raises(OSError, match="no space"):
        module._save(Saved(), path, lambda _file: None, external=external)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == left


def test_weights_go_to_a_file_beside_it_from_16_mib_below_the_limit_of_protobuf_on() -> None:
    assert module.EXTERNAL_OVER == 2_130_706_432


def test_a_node_s_module_is_that_of_the_transformer_without_what_is_around_it(unmasked: Path) -> None:
    nodes = onnx.load(unmasked, load_external_data=False).graph.node
    places = {node.name.split("/")[0].split(".")[0] for node in nodes}
    assert "layers" in places
    assert "transformer" not in places


def test_a_file_that_is_not_accepted_is_not_kept_and_the_old_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(b"old")

    def refuse(file: Path) -> None:
        assert file.is_file()
        raise ExportRefused("too far")

    with pytest.raises(ExportRefused, match="too far"):
        export(AffineDecoder(4), path, tokens=2, accept=refuse)
    assert [file.name for file in tmp_path.iterdir()] == ["a.onnx"]
    assert path.read_bytes() == b"old"


def test_a_dimension_that_the_exporter_froze_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dynamic = module._Subject.dynamic

    def frozen(subject: module._Subject, *, mask: bool) -> dict[str, dict[int, object]]:
        return {
            name: {axis: dim for axis, dim in axes.items() if axis}
            for name, axes in dynamic(subject, mask=mask).items()
        }

    monkeypatch.setattr(module._Subject, "dynamic", frozen)
    with pytest.raises(ExportRefused, match="rows is 2, expected batch: the export froze"):
        export(AffineDecoder(4), tmp_path / "a.onnx", tokens=2)
    assert not list(tmp_path.iterdir())


def test_a_place_that_the_exporter_left_in_the_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(graph, "tidy", lambda model, _prefix: model.graph.metadata_props.update({"at": str(tmp_path)}))
    monkeypatch.setattr(graph, "check_names", lambda _names: None)
    with pytest.raises(ExportRefused, match="a path of this machine"):
        export(AffineDecoder(4), tmp_path / "a.onnx", tokens=2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", [0, -1])
def test_a_node_without_a_name_is_refused_wherever_it_stands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: int
) -> None:
    tidy = graph.tidy

    def forgets(model: Any, prefix: str) -> None:
        tidy(model, prefix)
        list(model.graph)[place].name = ""

    monkeypatch.setattr(graph, "tidy", forgets)
    with pytest.raises(ExportRefused, match="node '' has an empty name"):
        export(AffineDecoder(4), tmp_path / "a.onnx", tokens=2)


def test_an_export_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    export(AffineDecoder(4), tmp_path / "a.onnx", tokens=2)
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_exported_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="decoder: got Traced, expected an AceStepDecoder or an AffineDecoder"):
        export(module.Traced(None), tmp_path / "a.onnx")
    with pytest.raises(InvalidInput, match="tokens: got 64"):
        export(tiny(), tmp_path / "a.onnx", tokens=64)
    with pytest.raises(InvalidInput, match="float64, expected one of"):
        export(AceStepDecoder.preset("tiny", dtype=torch.float64), tmp_path / "a.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_an_exporter_that_is_not_installed_is_an_error_with_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == package else object())
    with pytest.raises(PackageMissing, match=rf"{package} is not installed: pip install 'stream-harness\[onnx\]'"):
        export(AffineDecoder(4), tmp_path / "a.onnx")


class Program:
    """Takes the place of an exporter's program: writes a file and, where it is asked to, its weights."""

    def __init__(self, text: bytes) -> None:
        self.text = text

    def save(self, path: str, *, external_data: bool) -> None:
        Path(path).write_bytes(self.text)
        if external_data:
            Path(f"{path}.data").write_bytes(self.text + b" weights")


@pytest.mark.parametrize("before", [False, True], ids=["within", "beside"])
@pytest.mark.parametrize("after", [False, True], ids=["within", "beside"])
@pytest.mark.parametrize("fails", [None, "data", "file"])
def test_a_file_never_stands_beside_the_weights_of_another_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, before: bool, after: bool, fails: str | None
) -> None:
    path, data = module.parts(tmp_path / "new" / "a.onnx")
    assert module._save(Program(b"old"), path, lambda _file: None, external=before) == (data if before else None)
    replace = module.os.replace

    def failing(source: Any, target: Any) -> None:
        if fails is not None and Path(target) == {"data": data, "file": path}[fails]:
            raise OSError("full disk")
        replace(source, target)

    monkeypatch.setattr(module.os, "replace", failing)
    try:
        assert module._save(Program(b"new"), path, lambda _file: None, external=after) == (data if after else None)
    except OSError:
        assert not path.is_file() or (path.read_bytes(), before or after) == (b"old", False)
    else:
        assert path.read_bytes() == b"new"
        assert data.is_file() is after
        assert not after or data.read_bytes() == b"new weights"
    assert {each.name for each in path.parent.iterdir()} <= {"a.onnx", "a.onnx.data"}


def test_a_digest_is_that_of_the_file_and_then_of_its_weights(tmp_path: Path) -> None:
    path, data = module.parts(tmp_path / "a.onnx")
    assert (path, data) == (tmp_path / "a.onnx", tmp_path / "a.onnx.data")
    assert digest(path) == hashlib.sha256().hexdigest()
    path.write_bytes(b"file" * 3)
    (tmp_path / "b.onnx.data").write_bytes(b"of another one")
    assert digest(path) == hashlib.sha256(b"file" * 3).hexdigest()
    data.write_bytes(b"weights")
    assert digest(path) == hashlib.sha256(b"file" * 3 + b"weights").hexdigest()


def test_what_an_export_takes_for_granted() -> None:
    assert (module.channels_of(AffineDecoder()), module.channels_of(tiny())) == (4, 8)
    assert (module.OPSET, module.TOKENS, module.EXTERNAL_OVER) == (20, 64, 2**31 - 2**24)


def test_a_decoder_of_other_patches_than_two_frames_is_refused(tmp_path: Path) -> None:
    transformer = AceStepTransformer1DModel(**{**PRESETS["tiny"], "num_hidden_layers": 1, "patch_size": 4})
    with pytest.raises(InvalidInput, match="^decoder: got patches of 4 frames, expected patches of 2 frames$"):
        export(AceStepDecoder(transformer), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("beside", [False, True])
def test_a_digest_is_of_every_byte_however_large_the_file_is(tmp_path: Path, beside: bool) -> None:
    path = tmp_path / "d.onnx"
    path.write_bytes(b"graph")
    large = tmp_path / "d.onnx.data" if beside else path
    content = bytearray(2**24 + 2)
    for place in (0, 2**24 - 1, 2**24, 2**24 + 1):
        content[place] += 1
        large.write_bytes(content)
        assert digest(path) == hashlib.sha256((b"graph" if beside else b"") + content).hexdigest()


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("before", [logging.NOTSET, logging.INFO, logging.CRITICAL])
def test_logs_and_warnings_are_off_inside_and_as_before_outside(before: int, fails: bool) -> None:
    disabled = logging.root.manager.disable
    logging.disable(before)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            filters = list(warnings.filters)
            try:
                with module._quiet():
                    warnings.warn("of the exporter", stacklevel=1)
                    assert logging.root.manager.disable == logging.WARNING
                    if fails:
                        raise MemoryError
            except MemoryError:
                assert fails
            assert list(warnings.filters) == filters
        assert logging.root.manager.disable == before
    finally:
        logging.disable(disabled)


@pytest.mark.parametrize("place", ["home", "here", "temporary", "export"])
def test_a_file_with_any_place_of_this_machine_is_neither_accepted_nor_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str
) -> None:
    folders = {name: tmp_path / name for name in ("home", "here", "temporary")}
    for folder in folders.values():
        folder.mkdir()
    monkeypatch.setattr(module.Path, "home", lambda: folders["home"])
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(folders["temporary"]))
    monkeypatch.chdir(folders["here"])
    path = tmp_path / "out" / "a.onnx"

    class Tells(Program):
        def save(self, path: str, *, external_data: bool) -> None:
            super().save(path, external_data=external_data)
            said = folders.get(place, Path(path).parent)
            Path(path).write_bytes(f"trace of {said}/model".encode())

    def accept(_file: Path) -> None:
        raise AssertionError("it was accepted")

    module._save(Program(b"old"), path, lambda _file: None, external=True)
    with pytest.raises(ExportRefused, match=r"^the file contains '.*', a path of this machine$"):
        module._save(Tells(b""), path, accept, external=True)
    left = {each.name: each.read_bytes() for each in path.parent.iterdir()}
    assert left == {"a.onnx": b"old", "a.onnx.data": b"old weights"}


def test_what_is_accepted_has_the_final_name_and_its_weights_and_the_old_file_is_still_there(tmp_path: Path) -> None:
    path, data = module.parts(tmp_path / "a.onnx")
    module._save(Program(b"old"), path, lambda _file: None, external=True)
    seen: list[Path] = []

    def accept(file: Path) -> None:
        seen.append(file)
        assert (file.name, file.read_bytes()) == ("a.onnx", b"new")
        assert file.with_name("a.onnx.data").read_bytes() == b"new weights"
        assert (path.read_bytes(), data.read_bytes()) == (b"old", b"old weights")

    module._save(Program(b"new"), path, accept, external=True)
    assert len(seen) == 1
    assert seen[0].parent.parent == tmp_path
    assert not seen[0].parent.exists()
    assert (path.read_bytes(), data.read_bytes()) == (b"new", b"new weights")
