"""Figures of kept reports: each number that is shown is the file's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.files import FileRefused
from harness.report.figures import Interval, read

ROOT = Path(__file__).resolve().parents[2]
KEPT = sorted((ROOT / "captures").glob("*/bench/*.json"))
COMPARED: dict[str, Any] = {
    "verdict": "slower", "why": "", "bench": ["--depth", "4"], "platform": {"name": "here"},
    "draws": [{"verdict": "slower", "why": "", "limit": 0.02,
               "ratio": {"value": 1.1, "low": 1.05, "high": 1.2, "floor": 0},
               "control": {"value": 1.0, "low": 0.99, "high": 1.01, "floor": 0}}],
}  # fmt: skip


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_every_kept_report_is_read(path: Path) -> None:
    found = read(path)
    document = json.loads(path.read_text())
    assert found.rows and found.where.endswith(path.name) and document["platform"]["name"] in found.where
    ratios = [row for row in document.get("found", ()) if "ratio" in row and "low" in row]
    assert [(each.value, each.low, each.high) for each in found.intervals if "found" in document] == [
        (row["ratio"], row["low"], row["high"]) for row in ratios
    ]


def test_a_bench_has_its_tick_its_bare_decoder_and_what_each_switch_saves() -> None:
    path = ROOT / "captures/cuda-nvidia-h200/bench/both.json"
    document, found = json.loads(path.read_text()), read(path)
    assert found.rows[0] == ("a tick, ms", *(f"{document['tick'][name]:.3f}" for name in ("median", "p95", "p99")))
    assert [each.value for each in found.intervals] == [row["saved_tick_ms"] for row in document["ablation"]]


def test_a_comparison_is_a_forest_of_its_draws_and_their_controls(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps(COMPARED))
    found = read(tmp_path / "c.json")
    assert found.title == "compare: slower (--depth 4)"
    assert (found.middle, found.band) == (1.0, 0.02)
    assert found.intervals[0] == Interval("draw 1", 1.1, 1.05, 1.2, "slower")
    assert found.intervals[1].label == "draw 1, control"


COMMANDED = ROOT / "captures/cpu-x86_64-avx2/compare/decoder_rows.json"


def test_a_comparison_of_commands_has_the_last_draw_of_each_metric_and_its_verdict() -> None:
    document, found = json.loads(COMMANDED.read_text()), read(COMMANDED)
    assert found.title == "compare: inconclusive (python -m decoder_rows), outputs: 6 the same, 0 moved, 0 on one side"
    assert [each.label for each in found.intervals] == list(document["metrics"])
    last = {name: metric["draws"][-1]["ratio"] for name, metric in document["metrics"].items()}
    assert [(each.value, each.low, each.high) for each in found.intervals] == [
        (ratio["value"], ratio["low"], ratio["high"]) for ratio in last.values()
    ]
    assert [each.note for each in found.intervals] == [metric["verdict"] for metric in document["metrics"].values()]
    assert [row[0] for row in found.rows] == list(document["metrics"]) and (found.middle, found.band) == (1.0, 0.0)


def test_outputs_that_moved_are_told_in_the_title(tmp_path: Path) -> None:
    document = json.loads(COMMANDED.read_text())
    document["outputs"] = {"moved": ["a"], "only_base": ["b", "c"], "only_head": ["d"], "same": 2}
    (tmp_path / "c.json").write_text(json.dumps(document))
    assert read(tmp_path / "c.json").title.endswith("outputs: 2 the same, 1 moved, 3 on one side")


@pytest.mark.parametrize(("metric", "said"), [
    ({"verdict": 3, "draws": []}, "metrics.8 rows of 2 s.verdict"),
    ({"verdict": "same", "draws": []}, "metrics.8 rows of 2 s.draws"),
    ({"verdict": "same", "draws": [{"verdict": "same"}]}, "metrics.8 rows of 2 s.draws[0]"),
    (3, "metrics.8 rows of 2 s"),
])  # fmt: skip
def test_a_metric_that_does_not_fit_is_refused_by_its_name(metric: Any, said: str, tmp_path: Path) -> None:
    document = json.loads(COMMANDED.read_text())
    document["metrics"]["8 rows of 2 s"] = metric
    (tmp_path / "c.json").write_text(json.dumps(document))
    with pytest.raises(FileRefused) as refused:
        read(tmp_path / "c.json")
    assert refused.value.field.startswith(said)


@pytest.mark.parametrize(("change", "said"), [
    ({"draws": [{}]}, "draws[0].verdict"),
    ({"draws": 3}, "draws"),
    ({"verdict": 3}, "verdict"),
    ({"platform": {"name": 3}}, "platform.name"),
])  # fmt: skip
def test_a_report_that_does_not_fit_is_refused_by_the_name_of_its_field(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    (tmp_path / "c.json").write_text(json.dumps({**COMPARED, **change}))
    with pytest.raises(FileRefused) as refused:
        read(tmp_path / "c.json")
    assert refused.value.field.startswith(said)


@pytest.mark.parametrize("text", ["[1]", "{}", "3", "not JSON"])
def test_another_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(FileRefused):
        read(tmp_path / "c.json")


def test_a_saving_says_whether_it_is_beyond_the_noise_and_a_load_keeps_its_zeros(tmp_path: Path) -> None:
    document = json.loads((ROOT / "captures/cuda-nvidia-h200/bench/both.json").read_text())
    document["ablation"][0] |= {"tick": "within_noise"}
    document["load"] |= {"frames": 0, "dcw": False, "cfg": None}
    (tmp_path / "b.json").write_text(json.dumps(document))
    found = read(tmp_path / "b.json")
    assert found.intervals[0].note == "within noise"
    assert "frames 0" in found.title and "dcw" not in found.title and "cfg" not in found.title


def test_the_band_is_the_limit_and_the_widest_one_of_several_draws(tmp_path: Path) -> None:
    draws = [{**COMPARED["draws"][0], "limit": limit} for limit in (0.02, 0.05, 0.03)]
    (tmp_path / "c.json").write_text(json.dumps({**COMPARED, "draws": draws}))
    assert read(tmp_path / "c.json").band == 0.05
