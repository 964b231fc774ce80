from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.engine.aot import bindings
from harness.engine.aot.bindings import Flavour
from harness.engine.errors import EngineError, PackageMissing


def only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Pretend that of all TensorRTs just these modules are installed."""
    monkeypatch.setattr(bindings, "find_spec", lambda name: SimpleNamespace(origin="here") if name in names else None)
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_the_full_one_is_taken_where_both_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "tensorrt", "tensorrt_rtx_bindings")
    assert bindings.installed() == (Flavour.TENSORRT, Flavour.RTX)
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="11.4"))
    assert (bindings.binding().flavour, bindings.binding().version) == (Flavour.TENSORRT, "11.4")


def test_a_mere_folder_of_the_name_is_no_tensorrt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tensorrt").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert Flavour.TENSORRT not in bindings.installed()


@pytest.mark.parametrize("name", ["tensorrt_rtx", "tensorrt_rtx_bindings"])
def test_rtx_is_found_by_either_of_its_names(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    only(monkeypatch, name)
    monkeypatch.setitem(sys.modules, name, SimpleNamespace(__version__="1.7"))
    assert bindings.binding().flavour is Flavour.RTX


@pytest.mark.parametrize(
    ("flavour", "command"),
    [
        (None, r"tensorrt is not installed: pip install 'stream-harness\[trt\]'"),
        (Flavour.TENSORRT, r"pip install 'stream-harness\[trt\]'"),
        ("tensorrt-rtx", r"tensorrt-rtx is not installed: pip install 'stream-harness\[trt-rtx\]'"),
    ],
)
def test_one_that_is_asked_for_and_not_installed_is_an_error_with_the_command(
    monkeypatch: pytest.MonkeyPatch, flavour: Flavour | str | None, command: str
) -> None:
    only(monkeypatch)
    with pytest.raises(PackageMissing, match=command):
        bindings.binding(flavour)


def test_another_flavour_than_the_one_that_is_installed_is_not_put_in_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only(monkeypatch, "tensorrt_rtx_bindings")
    with pytest.raises(PackageMissing, match="tensorrt is not installed"):
        bindings.binding("tensorrt")


def test_polygraphy_that_is_not_installed_is_an_error_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "tensorrt_rtx_bindings")
    found = bindings.Binding(Flavour.RTX, "1.7", SimpleNamespace())
    with pytest.raises(PackageMissing, match=r"polygraphy is not installed: pip install 'stream-harness\[trt-rtx\]'"):
        bindings.use_polygraphy(found)


def test_polygraphy_uses_the_flavour_of_the_process_and_no_other() -> None:
    bindings.use_polygraphy(bindings.binding(Flavour.RTX))
    with pytest.raises(EngineError, match="one process can use one flavour only"):
        bindings.use_polygraphy(bindings.Binding(Flavour.TENSORRT, "11.4", SimpleNamespace()))
    bindings.use_polygraphy(bindings.binding(Flavour.RTX))


@pytest.mark.parametrize("error", [ImportError("libnvinfer.so.10"), OSError("no libcudart")])
def test_a_binding_that_cannot_be_imported_is_a_named_error(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def broken(_name: str) -> None:
        raise error

    monkeypatch.setattr(bindings, "_module_name", lambda _flavour: "tensorrt")
    monkeypatch.setattr(bindings, "import_module", broken)
    with pytest.raises(EngineError, match=f"tensorrt is installed and cannot be imported: {error}"):
        bindings.binding()


class Polygraphy:
    """Takes the place of Polygraphy, which reads the environment at its first import."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[str, str | None]] = []
        monkeypatch.setattr(bindings, "find_spec", lambda _name: SimpleNamespace(origin="here"))
        monkeypatch.setattr(bindings, "import_module", self)
        monkeypatch.setenv("POLYGRAPHY_USE_TENSORRT_RTX", "unset")
        monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)  # so that the end of the test restores it
        monkeypatch.delitem(sys.modules, "tensorrt_rtx")

    def __call__(self, name: str) -> SimpleNamespace:
        self.asked.append((name, os.environ.get("POLYGRAPHY_USE_TENSORRT_RTX")))
        return SimpleNamespace(USE_TENSORRT_RTX=self.asked[-1][1] == "1")


def test_polygraphy_is_imported_after_it_was_told_the_flavour(monkeypatch: pytest.MonkeyPatch) -> None:
    polygraphy, first, second = Polygraphy(monkeypatch), SimpleNamespace(), SimpleNamespace()
    bindings.use_polygraphy(bindings.Binding(Flavour.TENSORRT, "11.4", first))
    assert "tensorrt_rtx" not in sys.modules
    bindings.use_polygraphy(bindings.Binding(Flavour.RTX, "1.7", first))
    assert sys.modules["tensorrt_rtx"] is first
    bindings.use_polygraphy(bindings.Binding(Flavour.RTX, "1.7", second))
    assert sys.modules["tensorrt_rtx"] is first  # a module that is there already stays
    assert polygraphy.asked == [("polygraphy.config", "0"), ("polygraphy.config", "1"), ("polygraphy.config", "1")]


def test_of_both_names_of_rtx_the_one_of_the_metapackage_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "tensorrt_rtx", "tensorrt_rtx_bindings")
    monkeypatch.setattr(bindings, "import_module", lambda name: SimpleNamespace(__version__=name))
    assert bindings.binding("tensorrt-rtx").version == "tensorrt_rtx"
