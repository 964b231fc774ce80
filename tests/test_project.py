"""Claims about the project as a whole: its layout, who imports whom, what an import changes, what is pinned."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import harness
from tests.makefile import without_make

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TOP_LEVEL = {
    "harness", "captures", "tests", "conftest.py", "pyproject.toml", "README.md", "LICENSE", "Makefile",
    "constraints.txt", "CHANGELOG.md", "docs", ".ci", ".github", ".gitignore", ".gitattributes",
}  # fmt: skip
NUMERICS = ("schedule", "noise", "guidance", "blend", "solver", "wavelet", "serially")
RING = ("pipeline", "plan", "slot", "advance", "execute", "conditioning", "session", "StreamPipeline")
# Each room and those that it may import, besides itself. The plugin imports the others inside functions alone.
ROOMS = {
    "files": (),
    "extras": (),
    "checkout": ("files",),
    "completion": ("extras", "files"),
    "engine": ("files",),
    "registry": ("engine",),
    "parity": ("checkout", "engine", "files", "registry"),
    "rails": ("checkout", "engine", "files", "registry", "parity"),
    "report": ("engine", "files", "registry", "parity", "rails"),
    "plugin": ("extras", "engine", "registry", "parity", "rails", "report"),
    "commands": ("completion", "engine", "files", "registry", "parity", "rails", "report"),
    "cli": ("commands", "parity"),
    "__main__": ("commands", "completion", "extras", "cli"),
    "script": ("checkout", "completion", "__main__"),
}

# Prints a JSON object of torch's process-wide state before and after importing every module of the package. A module
# that needs an extra which is not installed cannot be imported at all, and so changes nothing.
IMPORT_EVERYTHING = """
import importlib, json, pkgutil, sys
import torch

def state():
    return {
        "grad": torch.is_grad_enabled(), "inference": torch.is_inference_mode_enabled(),
        "threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "precision": torch.get_float32_matmul_precision(),
        "tf32": [torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32],
        "cudnn": [torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, torch.backends.cudnn.enabled],
        "dtype": str(torch.get_default_dtype()), "device": str(torch.get_default_device()),
        "deterministic": torch.get_deterministic_debug_mode(),
        "autocast": [torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")],
        "flush_denormal": (torch.tensor([1e-39]) * 1).item(),
        "rng": torch.random.get_rng_state().tolist(), "seed": torch.initial_seed(),
    }

before = state()
import harness
imported = []
for module in pkgutil.walk_packages(harness.__path__, "harness."):
    try:
        importlib.import_module(module.name)
        imported.append(module.name)
    except ModuleNotFoundError as missing:
        if missing.name.split(".")[0] not in sys.argv[1:]:
            raise
json.dump({"before": before, "after": state(), "imported": imported}, sys.stdout)
"""

# Imports each module of the package as the first one, in a process of its own, and prints those that cannot be.
IMPORT_EACH_FIRST = """
import importlib, json, os, pkgutil, sys
import torch, numpy, diffusers, pytest  # once for all, for time
import harness

found = {}
for name in sys.argv[1:]:
    read, write = os.pipe()
    if not os.fork():
        try:
            importlib.import_module(name)
        except BaseException as error:
            os.write(write, f"{type(error).__name__}: {error}".encode()[:500])
        os._exit(0)
    os.close(write)
    said = os.fdopen(read).read()
    os.wait()
    if said:
        found[name] = said
json.dump(found, sys.stdout)
"""
OPTIONAL = (
    "onnx", "onnxscript", "onnx_ir", "onnxruntime", "tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings", "polygraphy",
    "triton", "jinja2", "PIL",
)  # fmt: skip


def project_files() -> list[Path]:
    """Every file that git tracks or would offer to track, so that a new file is judged before it is committed."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def imports(path: Path) -> set[str]:
    """Absolute dotted names that the file imports; `from a import b` counts as `a` and as `a.b`."""
    package = path.relative_to(ROOT).parent.parts
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def among(names: set[str], forbidden: tuple[str, ...]) -> list[str]:
    """Those of `names` that are one of `forbidden` or lie inside one."""
    return sorted(name for name in names if any(name == f or name.startswith(f + ".") for f in forbidden))


def pins() -> dict[str, str]:
    """Package to version, as constraints.txt has them; anything but `name==version` is an error."""
    found = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            match = re.fullmatch(r"([\w.-]+)==([\w.]+)", line)
            assert match, f"not an exact pin: {line!r}"
            found[canonicalize_name(match[1])] = match[2]
    return found


def declared() -> list[Requirement]:
    """Every requirement in pyproject.toml, the extras' too."""
    table = PROJECT["project"]
    lists = [table["dependencies"], *table["optional-dependencies"].values()]
    return [Requirement(text) for one in lists for text in one]


def test_no_module_has_more_than_400_lines() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in (ROOT / "harness").rglob("*.py")}
    assert {str(path.relative_to(ROOT)): length for path, length in lengths.items() if length > 400} == {}


def test_the_top_level_is_the_fixed_layout() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in project_files()} == TOP_LEVEL


def test_every_module_is_in_a_room() -> None:
    found = {path.relative_to(ROOT / "harness").with_suffix("").parts[0] for path in (ROOT / "harness").rglob("*.py")}
    assert found - {"__init__"} == ROOMS.keys()


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_one_way(room: str) -> None:
    forbidden = tuple(f"harness.{other}" for other in ROOMS if other not in (room, *ROOMS[room]))
    files = sorted([*(ROOT / "harness" / room).rglob("*.py"), *(ROOT / "harness").glob(f"{room}.py")])
    assert files
    wrong = {str(path.relative_to(ROOT)): among(imports(path), forbidden) for path in files}
    assert {name: found for name, found in wrong.items() if found} == {}


def test_the_plugin_imports_neither_torch_nor_the_engine_before_a_fixture_needs_them() -> None:
    shown = "import sys, harness.plugin; print([m for m in sys.modules if m.startswith(('torch', 'harness.engine'))])"
    ran = subprocess.run([sys.executable, "-c", shown], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("short", "module"),
    [
        ("harness.parity.lockstep", "harness.parity.proofs.lockstep"),
        ("harness.parity.script", "harness.parity.battery.scripts"),
        ("harness.parity.reference", "harness.parity.proofs.oracle"),
        ("harness.rails.counters", "harness.rails.costs.counters"),
    ],
)
def test_a_short_name_is_the_module_itself(short: str, module: str) -> None:
    assert importlib.import_module(short) is importlib.import_module(module)


@pytest.mark.parametrize("module", NUMERICS)
def test_a_numerics_module_imports_nothing_of_the_engine(module: str) -> None:
    found = among(imports(ROOT / f"harness/engine/{module}.py"), ("harness",))
    assert [name for name in found if not name.startswith("harness.engine.serially")] == []


def test_the_oracle_shares_no_code_with_the_ring() -> None:
    ring = tuple(f"harness.engine.{name}" for name in RING)
    assert among(imports(ROOT / "harness/parity/proofs/oracle.py"), ring) == []


def test_importing_the_package_changes_no_torch_global() -> None:
    command = [sys.executable, "-c", IMPORT_EVERYTHING, *OPTIONAL]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert "harness.engine.pipeline" in result["imported"]
    assert result["after"] == result["before"]


def test_every_declared_dependency_is_pinned_within_its_range() -> None:
    pinned = pins()
    wrong = [str(req) for req in declared() if not req.specifier.contains(pinned.get(canonicalize_name(req.name), "0"))]
    assert wrong == []


def test_make_installs_what_the_tests_need_and_never_tensorrt() -> None:
    extras = re.search(r"^EXTRAS \?= (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert extras
    assert {"test", "engine", "cli", "rails"} <= set(extras[1].split(","))
    assert set(extras[1].split(",")) <= set(PROJECT["project"]["optional-dependencies"]) - {"trt"}


def recipe(target: str) -> str:
    """What make runs for a target."""
    found = re.search(
        rf"^{target}:.*\n((?:\t.*\n|(?:if|else|endif).*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    assert found, target
    return found[1]


@pytest.mark.parametrize("file", [".ci/run", ".github/workflows/ci.yml"])
def test_continuous_integration_runs_what_the_parallel_part_of_make_test_leaves_out(file: str) -> None:
    targets = re.findall(r"\bmake ([a-z-]+)$", (ROOT / file).read_text(), re.MULTILINE)
    assert {"lint", "test"} <= set(targets)
    marks = {mark for target in targets for mark in re.findall(r"pytest -m (\w+) ", recipe(target))}
    (left_out,) = re.findall(r" -m '(not .*)'$", recipe("test"), re.MULTILINE)
    assert left_out == " and ".join(f"not {mark}" for mark in sorted(marks))


@pytest.mark.parametrize(("target", "mark"), [("test", "alone"), ("sabotage-shard", "sabotage")])
def test_a_mark_is_asked_for_in_every_folder_that_has_such_a_test(target: str, mark: str) -> None:
    command = ["make", "-n", "--no-print-directory", target]
    printed = subprocess.run(command, cwd=ROOT, env=without_make(), capture_output=True, text=True, check=True).stdout
    (folders,) = re.findall(rf"pytest -m {mark} (.+)$", printed, re.MULTILINE)
    asked = [ROOT / folder for folder in folders.split()]
    marked = [path for path in (ROOT / "tests").rglob("test_*.py") if re.search(rf"mark\.{mark}\b", path.read_text())]
    assert all(folder.is_dir() for folder in asked) and marked
    assert [path for path in marked if not any(path.is_relative_to(folder) for folder in asked)] == []


def test_the_version_is_in_the_changelog() -> None:
    assert re.search(rf"\b{re.escape(harness.__version__)}\b", (ROOT / "CHANGELOG.md").read_text())


def test_no_file_names_a_path_of_one_machine() -> None:
    machine_path = re.compile(rb"(?<![\w.}])/(?:" + b"|".join([b"work", b"root"]) + rb")(?![\w-])")
    assert [str(path.relative_to(ROOT)) for path in project_files() if machine_path.search(path.read_bytes())] == []


def test_pytest_finds_the_plugin_by_itself() -> None:
    # By its own name, so that a project which also names it with -p or pytest_plugins loads it once.
    (point,) = PROJECT["project"]["entry-points"]["pytest11"].items()
    assert point == ("harness.plugin", "harness.plugin")
    assert EntryPoint(*point, "pytest11").load() is importlib.import_module("harness.plugin")


@pytest.mark.parametrize(("name", "target"), PROJECT["project"]["scripts"].items())
def test_a_console_script_resolves(name: str, target: str) -> None:
    assert callable(EntryPoint(name, target, "console_scripts").load())


def test_the_engine_imports_a_public_name_on_first_use_and_defines_them_all() -> None:
    from harness import engine  # noqa: PLC0415 - the other tests of this file read text alone

    public = [name for names in engine._MODULES.values() for name in names]
    assert sorted(public) == sorted(engine.__all__)
    wrong = [
        name
        for module, names in engine._MODULES.items()
        for name in names
        if getattr(engine, name) is not getattr(importlib.import_module(f"harness.engine.{module}"), name)
    ]
    assert wrong == []
    with pytest.raises(AttributeError, match=r"^module 'harness\.engine' has no attribute 'Nothing'$"):
        engine.Nothing  # noqa: B018


def test_outside_the_engine_no_module_names_the_parts_of_torch_that_change_between_versions() -> None:
    changing = ("torch.utils._python_dispatch", "torch.overrides", "torch.serialization", "torch.utils.dlpack")
    found = {str(path.relative_to(ROOT)): among(imports(path), changing) for path in (ROOT / "harness").rglob("*.py")}
    named = [path for path, names in found.items() if names]
    assert [path for path in named if not path.startswith("harness/engine/executors/")] == [
        "harness/engine/versions.py"
    ]


def test_the_plugin_requires_nothing_but_its_own_dependencies() -> None:
    needed = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
    assert sorted(each.name for each in needed) == ["numpy", "pytest", "safetensors", "torch"]
    (torch,) = (each for each in needed if each.name == "torch")
    assert all(torch.specifier.contains(version) for version in ("2.6.0", "2.9.1", "2.13.0"))


def test_a_module_can_be_imported_before_any_other() -> None:
    """One of each folder, and all of the two folders that import each other."""
    paths = [path for path in sorted(ROOT.glob("harness/**/*.py")) if path.name not in ("__init__.py", "__main__.py")]
    of_folder = {path.parent: path for path in paths}
    asked = {*of_folder.values(), *(path for path in paths if path.parent.name in ("aot", "executors"))}
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in sorted(asked)]
    assert len(names) > 35
    command = [sys.executable, "-c", IMPORT_EACH_FIRST, *names]
    found = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    assert {name: why for name, why in found.items() if why != "ModuleNotFoundError: No module named 'triton'"} == {}
