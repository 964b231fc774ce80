"""The sidecar of a file of code: what it says, what is refused, and what of a decoder it depends on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.engine.aot import code_record
from harness.engine.aot.code_record import HERE, Record, Run, digest, structure
from harness.engine.decoders import AceStepDecoder, AffineDecoder
from harness.engine.decoders.accelerated import accelerated
from harness.engine.decoders.decoder_switches import DecoderSwitches
from harness.engine.errors import CodeCorrupt, CodeMismatch, SidecarMissing

CPU = torch.device("cpu")
CODE = b"code"
RUN = Run("T=10", 2, ("aten::mm", "a kernel [4,1,1] [128,1,1]"), digest(("aten::mm", "a kernel [4,1,1] [128,1,1]")))
RECORD = Record(
    code_sha256=hashlib.sha256(CODE).hexdigest(),
    torch="2.13.0",
    triton=None,
    python="cpython-311",
    device="cuda",
    processor="NVIDIA H100",
    capability="9.0",
    driver="580.1",
    threads=None,
    options={"deterministic": True},
    decoder="AceStepDecoder",
    switches={"band": "flex"},
    structure="a" * 64,
    rows=(1, 2),
    shapes=("T=10",),
    graphs=4,
    runs=(RUN,),
)


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.code"
    path.write_bytes(CODE)
    code_record.write(path, RECORD)
    return path


def change(file: Path, **fields: Any) -> None:
    beside = code_record.path(file)
    beside.write_text(json.dumps({**json.loads(beside.read_text()), **fields}))


def test_what_was_written_is_read_back(file: Path) -> None:
    assert code_record.read_code(file) == (CODE, RECORD)
    assert sorted(each.name for each in file.parent.iterdir()) == ["tiny.code", "tiny.code.json"]


@pytest.mark.parametrize("name", HERE)
def test_a_field_that_differs_is_named_and_refused(name: str) -> None:
    found = {each: getattr(RECORD, each) for each in HERE}
    code_record.check(RECORD, found)
    with pytest.raises(CodeMismatch, match=f"^{name}: the code was made for .*, here it is another$") as refused:
        code_record.check(RECORD, {**found, name: "another"})
    assert refused.value.field == name


def test_every_field_is_of_the_file_or_asked_for_or_compared() -> None:
    others = {"code_sha256", "graphs", "runs", "rows", "shapes"}
    assert {*HERE, *others} == {each.name for each in fields(Record)}
    assert code_record.here(AffineDecoder(), CPU).keys() == set(HERE)


def test_code_without_metadata_is_refused(file: Path) -> None:
    code_record.path(file).unlink()
    with pytest.raises(SidecarMissing, match=r"tiny.code.json is missing.*build it again"):
        code_record.read_code(file)


@pytest.mark.parametrize("data", [CODE[:-1], CODE + b"x", b"", b"codE"], ids=["cut", "longer", "empty", "altered"])
def test_truncated_or_altered_code_is_refused(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    with pytest.raises(CodeCorrupt, match=f"of its {len(data)} bytes is not the one in tiny.code.json"):
        code_record.read_code(file)


def test_code_that_was_swapped_with_another_file_s_is_refused(file: Path) -> None:
    other = file.with_name("other.code")
    other.write_bytes(b"other code")
    code_record.write(other, replace(RECORD, code_sha256=hashlib.sha256(b"other code").hexdigest()))
    other.replace(file)
    with pytest.raises(CodeCorrupt, match="is not the one in"):
        code_record.read_code(file)


def test_metadata_without_its_code_and_a_folder_in_its_place_are_refused(file: Path) -> None:
    file.unlink()
    with pytest.raises(CodeCorrupt, match="is missing"):
        code_record.read_code(file)
    file.mkdir()
    with pytest.raises(CodeCorrupt, match="a folder, expected a regular file"):
        code_record.read_code(file)


def test_a_link_is_read_with_the_metadata_beside_the_link(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "link.code"
    link.parent.mkdir()
    link.symlink_to(file)
    with pytest.raises(SidecarMissing, match=r"link.code.json is missing"):
        code_record.read_code(link)
    code_record.write(link, RECORD)
    assert code_record.read_code(link) == (CODE, RECORD)


@pytest.mark.parametrize("text", ["", "[]", "{}", "5", "null", "[" * 100_000])
def test_metadata_that_cannot_be_read_is_refused(file: Path, text: str) -> None:
    code_record.path(file).write_text(text)
    with pytest.raises(SidecarMissing, match="build it again"):
        code_record.read(file)


@pytest.mark.parametrize("version", [2, 0, None])
def test_metadata_of_another_format_is_refused_and_not_guessed_at(file: Path, version: int | None) -> None:
    change(file, format=version)
    with pytest.raises(SidecarMissing, match=f"format {version}, this version reads 1"):
        code_record.read(file)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("code_sha256", "A" * 64), ("torch", 2.13), ("triton", 3), ("device", None), ("driver", 5), ("threads", "1"),
        ("threads", -1), ("options", {"deterministic": 1}), ("switches", {"band": True}), ("rows", [True]),
        ("rows", 1), ("shapes", "T=10"), ("graphs", -1), ("runs", None), ("more", 1),
        ("runs", [{**asdict(RUN), "kernels": [5]}]), ("runs", [{**asdict(RUN), "more": 1}]),
    ],
)  # fmt: skip
def test_metadata_with_a_field_of_another_type_is_refused(file: Path, name: str, value: object) -> None:
    change(file, **{name: value})
    with pytest.raises(SidecarMissing, match=f"not the metadata of code .*{name}"):
        code_record.read(file)


def test_metadata_without_a_field_is_refused(file: Path) -> None:
    whole = json.loads(code_record.path(file).read_text())
    for name in whole.keys() - {"format"}:
        code_record.path(file).write_text(json.dumps({each: whole[each] for each in whole if each != name}))
        with pytest.raises(SidecarMissing, match=name):
            code_record.read(file)


def test_kernels_that_were_altered_are_refused_by_their_run(file: Path) -> None:
    change(file, runs=[asdict(replace(RUN, kernels=("aten::addmm",)))])
    with pytest.raises(SidecarMissing, match="the kernels of 2 rows of T=10 were altered"):
        code_record.read(file)


# What a decoder is.


def test_another_checkpoint_of_the_same_model_has_the_same_structure() -> None:
    assert structure(AceStepDecoder.preset("tiny", 1)) == structure(AceStepDecoder.preset("tiny", 0))


def test_another_dtype_width_class_or_acceleration_is_another_structure() -> None:
    tiny = AceStepDecoder.preset("tiny", 0)
    half = AceStepDecoder.preset("tiny", 0, dtype=torch.bfloat16)
    fast = accelerated(AceStepDecoder.preset("tiny", 0), DecoderSwitches(fused_products=True))
    found = [structure(each) for each in (tiny, half, fast, AffineDecoder(), AffineDecoder(32))]
    assert len(set(found)) == len(found)


def test_a_digest_of_kernels_says_where_one_ends_and_the_next_begins() -> None:
    assert digest(("ab", "c")) != digest(("a", "bc"))


def test_a_buffer_of_another_shape_is_another_structure_and_one_of_other_values_is_not() -> None:
    def with_buffer(buffer: torch.Tensor) -> str:
        module = torch.nn.Module()
        module.register_buffer("angles", buffer)
        return structure(module)

    assert with_buffer(torch.zeros(2)) == with_buffer(torch.ones(2)) != with_buffer(torch.zeros(3))


def test_a_window_of_attention_is_a_part_of_the_structure() -> None:
    tiny = AceStepDecoder.preset("tiny", 0)
    before = structure(tiny)
    tiny.transformer.register_to_config(sliding_window=tiny.transformer.config.sliding_window + 1)
    assert structure(tiny) != before


def test_the_accelerations_and_their_forms_are_recorded_by_name() -> None:
    fast = accelerated(AceStepDecoder.preset("tiny", 0), DecoderSwitches(kept_time=True))
    switches = code_record.here(fast, CPU)["switches"]
    assert (switches["kept_time"], switches["fused_norms"], switches["band"]) == ("on", "off", "bias")
    assert code_record.here(AffineDecoder(), CPU)["switches"] == {}


def test_the_number_of_threads_is_recorded_on_a_cpu() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        assert code_record.here(AffineDecoder(), CPU)["threads"] == before + 1
    finally:
        torch.set_num_threads(before)
