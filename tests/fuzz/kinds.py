"""Kinds of files: how a whole one is made, how it is read and used, and which errors name what is wrong with it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from harness import checkout
from harness.engine.aot import code_record, onnx_file, sidecar
from harness.engine.aot.layers import Layer
from harness.engine.decoders import AceStepDecoder
from harness.engine.errors import EngineError, InvalidInput
from harness.files import FileRefused, archive
from harness.parity.baselines import contract, platform, store
from harness.parity.baselines.captures import CAPTURES
from harness.parity.compare import digest_tree
from harness.parity.traces import reading as traces
from harness.parity.traces import records as trace_records
from harness.rails.compare import revisions
from harness.rails.compare.worktrees import CannotCompare
from harness.rails.costs import rails
from harness.rails.profile import files, tables
from harness.rails.profile.report import Breakdown
from tests import onnx_files
from tests.parity.traces import rings

NAMED = (
    CannotCompare, EngineError, FileRefused, InvalidInput, platform.NoReferencePlatform, store.CapturesError,
)  # fmt: skip
SCENARIOS = CAPTURES / "cpu-x86_64-avx2/scenarios"


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: what it is.
        make: writes the whole file, and those beside it that reading needs, into a folder; returns its path.
        read: reads and uses it; returns what it means, as something that can be compared.
        digest: a digest is in it or beside it, so that nothing of another meaning may be read.
        seals: the digest is in it, and can be renewed.
    """

    name: str
    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    digest: bool = False
    seals: bool = False


def copied(source: Path, folder: Path) -> Path:
    return Path(shutil.copy(source, folder))


def read_manifest(path: Path) -> Any:
    return store.read_manifest(path.parent)


def read_contract(path: Path) -> Any:
    with patch.object(contract, "path", lambda *_: path):
        found = contract.read()
    assert found is not None
    return found, [contract.ranges(rows) for each in found.entries.values() for rows in each.holds.values()]


def read_costs(path: Path) -> Any:
    found = rails.read(path)
    return found, [rails.table(rail, counts, {}) for each in found.values() for rail, counts in each.items()]


def make_capture(folder: Path) -> Path:
    return copied(SCENARIOS / "cfg_full.safetensors", folder)


def read_capture(path: Path) -> Any:
    entry = store.read_manifest(SCENARIOS).scenarios["cfg_full"]
    return digest_tree(store.read_capture(path.parent, entry))


def read_unsigned_capture(path: Path) -> Any:
    """A capture whose manifest was written for the file, as of somebody who wants it to be read."""
    data = path.read_bytes()
    return sorted(store.deserialize(data, path))


def make_plan(folder: Path) -> Path:
    plan = folder / "a.plan"
    plan.write_bytes(b"a plan" * 100)
    names = ("attn/MatMul_1", "norm/Mul_2")
    listed = tuple(Layer(f"{name}_myl0_{n}", "gemm", "t", n, names) for n, name in enumerate(names * 5))
    sizes = {"timestep": ((1,), (4,), (8,))}
    digest = hashlib.sha256(plan.read_bytes()).hexdigest()
    record = sidecar.Sidecar(
        digest, "b" * 64, "tensorrt", "1", "8.9", "g", "1", sizes, {"x": "f"}, 2, "detailed", listed
    )
    sidecar.write(plan, record)
    return sidecar.path(plan)


def read_sidecar(path: Path) -> Any:
    found = files.plan(path.with_suffix(""))
    return shown(found)


def shown(profile: Any) -> Any:
    report = Breakdown(profile)
    return str(report.document()), len(list(tables.tables(report, 15)))


def make_profile(folder: Path) -> Path:
    document = [{"count": 10}, *({"name": f"a/MatMul_{n}", "averageMs": n / 7, "percentage": 1.0} for n in range(30))]
    (folder / "p.json").write_text(json.dumps(document))
    return folder / "p.json"


def make_inspector(folder: Path) -> Path:
    make_profile(folder)
    listed = [
        {"Name": f"a/MatMul_{n}", "LayerType": "gemm", "TacticName": "t", "StreamId": 0,
         "Metadata": f"[ONNX Layer: a/MatMul_{n}]", "Inputs": [{"Name": "x", "Dimensions": [1, 2]}]}
        for n in range(30)
    ]  # fmt: skip
    (folder / "i.json").write_text(json.dumps({"Layers": listed, "Bindings": ["x", "y"]}))
    return folder / "i.json"


def make_report(folder: Path) -> Path:
    (folder / "r").write_text(json.dumps({"control_ms": [1.0] * 40, "waited_ms": [0.0] * 40}))
    (folder / "r.bench").write_text(json.dumps({"samples": {"tick_ms": [1.5] * 400}, "outputs": "abc"}))
    return folder / "r.bench"


def read_report(path: Path) -> Any:
    tree: Any = type("Tree", (), {"revision": "one"})()
    return revisions._process(tree, revisions.Asked(("--ticks", "40", "--warmup", "8")), path.with_suffix(""))


@cache
def weights() -> AceStepDecoder:
    return AceStepDecoder.preset("tiny")


def make_checkpoint(name: str, folder: Path) -> Path:
    weights().transformer.save_pretrained(folder, max_shard_size="200KB")
    return next(iter(folder.glob(name)))


def read_checkpoint(path: Path) -> Any:
    return digest_tree(dict(AceStepDecoder.from_pretrained(path.parent).state_dict()))


def make_settings(folder: Path) -> Path:
    (folder / "pyproject.toml").write_text('[tool.other]\na = [1, 2.5]\n[tool.harness]\nreference-platform = "cpu-a"\n')
    return folder / "pyproject.toml"


def read_settings(path: Path) -> Any:
    return checkout.is_checkout(path.parent), platform.reference_platform(path.parent)


def make_trace(folder: Path) -> Path:
    return rings.recorded(folder / "a.trace")


def read_trace(path: Path) -> Any:
    """All events, decoded; a trace that was cut off is refused, as it no longer means what it meant."""
    with traces.opened(path) as trace:
        decoder = trace.decoder(records=trace_records.decoders("cpu"))
        found = [(event.call, event.made, decoder.decoded(event.given) is None) for event in trace]
    if trace.cut:
        raise FileRefused(path, "", trace.cut, "a whole trace")
    return trace.header, found


def make_archive(folder: Path) -> Path:
    files = {f"inductor/{name}/{name}.py": f"# {name}\n".encode() * 40 for name in ("aa", "ab", "ba")}
    (folder / "a.code").write_bytes(archive.packed(files | {"triton/k/kernel.json": b'{"a": 1}'}))
    return folder / "a.code"


def make_code(folder: Path) -> Path:
    """The metadata of a file of code, as of another machine."""
    kernels = ("extern_kernels.mm", "cpp_fused_add_0")
    runs = tuple(code_record.Run("T=8", rows, kernels, code_record.digest(kernels)) for rows in (1, 2))
    record = code_record.Record(
        code_sha256=hashlib.sha256(make_archive(folder).read_bytes()).hexdigest(), torch="2.13.0", triton=None,
        python="cpython-311", device="cpu", processor="a", capability="AVX2", driver=None, threads=1,
        options={"a": True}, decoder="D", switches={}, structure="c" * 64, rows=(1, 2), shapes=("T=8",),
        graphs=2, runs=runs,
    )  # fmt: skip
    code_record.write(folder / "a.code", record)
    return code_record.path(folder / "a.code")


KINDS = (
    Kind("manifest", partial(copied, SCENARIOS / "manifest.json"), read_manifest, True, True),
    Kind("contract", partial(copied, CAPTURES / "cpu-x86_64-avx512/contract.json"), read_contract, True, True),
    Kind("costs", partial(copied, CAPTURES / "cpu-x86_64-avx512/costs.json"), read_costs, True, True),
    Kind("capture", make_capture, read_capture, True),
    Kind("capture of no manifest", make_capture, read_unsigned_capture),
    Kind("metadata of a plan", make_plan, read_sidecar),
    Kind("plan", lambda folder: make_plan(folder).with_suffix(""), lambda path: sidecar.read_plan(path)[0], True),
    Kind("profile of trtexec", make_profile, lambda path: shown(files.trtexec(path))),
    Kind("layers of trtexec", make_inspector, lambda path: shown(files.trtexec(path.with_name("p.json"), path))),
    Kind("bench report", make_report, read_report),
    Kind("archive of code", make_archive, lambda path: archive.unpacked(path.read_bytes(), path)),
    Kind("metadata of code", make_code, lambda path: code_record.read(path.with_suffix(""))),
    Kind("exported file", lambda folder: onnx_files.written(folder / "a.onnx"), onnx_file.read),
    Kind("configuration", partial(make_checkpoint, "config.json"), read_checkpoint),
    Kind("index of weights", partial(make_checkpoint, "*.index.json"), read_checkpoint),
    Kind("weights", partial(make_checkpoint, "*00001-of*.safetensors"), read_checkpoint),
    Kind("settings", make_settings, read_settings),
    Kind("trace", make_trace, read_trace, True),
)  # fmt: skip
