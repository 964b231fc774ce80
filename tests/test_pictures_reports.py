"""The numbers of the pictures are those of the kept reports, read here a second time by their paths."""

from __future__ import annotations

import json
from typing import Any

from harness.parity.baselines.platform import ROOT
from tests.pictures import reports


def kept(path: str) -> Any:
    return json.loads((ROOT / "captures" / path).read_text())


def test_ticks_are_those_of_shared_prompts_at_30_s_on_the_machine_that_is_named() -> None:
    sources = {
        "H100": "cuda-nvidia-h100-80gb-hbm3/bench/steady.json",
        "H200": "cuda-nvidia-h200/bench/steady.json",
        "H200, fast decoder": "cuda-nvidia-h200/bench/fast.json",
    }
    found = {(each.where, each.load): (each.tick_ms, each.decoder_ms) for each in reports.ticks()}
    wanted = {}
    for where, path in sources.items():
        for row in kept(path)["found"]:
            if (row["frames"], row["fresh"]) == (750, False):
                load = "cfg and dcw" if row["load"] == "both" else row["load"]
                wanted[where, load] = (row["tick_ms"], row["bare_ms"])
    assert found == wanted and len(reports.ticks()) == len(wanted)


def test_savings_are_those_of_the_ablation_on_the_h200_a_tick_s_and_the_host_s() -> None:
    rows = kept("cuda-nvidia-h200/bench/ablate.json")["found"]
    for each, row in zip(reports.savings(), rows, strict=True):
        assert each.switch == row["switch"]
        assert each.tick == (row["saved_tick_ms"], *row["tick_interval"])
        assert each.host == (row["saved_host_ms"], *row["host_interval"])
        assert each.tick[1] <= each.tick[0] <= each.tick[2]


def test_operators_are_those_of_a_tick_of_each_kind_of_ring() -> None:
    (counts,) = kept("cpu-x86_64-avx512/costs.json")["torch"].values()
    kinds = {"plain": "plain", "full guidance": "cfg_full", "wavelet correction": "dcw"}
    found = reports.operators()
    assert list(found) == list(kinds)
    for title, points in found.items():
        assert [depth for depth, _count in points] == [1, 4, 8]
        for depth, count in points:
            rail = counts[f"{kinds[title]}/{depth}"]
            assert count * rail["ticks"] == rail["operators"]


def test_launches_are_those_of_the_h100_by_depth() -> None:
    folder = "cuda-nvidia-h100-80gb-hbm3/bench"
    steady = [row for row in kept(f"{folder}/steady.json")["found"] if (row["frames"], row["fresh"]) == (750, False)]
    rows = kept(f"{folder}/depth.json")["found"] + [{**row, "depth": 4} for row in steady]
    for load, name, depths in (("dcw", "dcw", [1, 2, 4, 8]), ("cfg and dcw", "both", [1, 2, 4])):
        wanted = sorted((row["depth"], row["launches"]) for row in rows if row["load"] == name)
        assert reports.launches()[load] == wanted and [depth for depth, _count in wanted] == depths


def test_a_guarantee_is_that_of_the_contract_of_its_machine() -> None:
    machines = {"CPU": "cpu-x86_64-avx512", "H100": "cuda-nvidia-h100-80gb-hbm3", "H200": "cuda-nvidia-h200"}
    lengths = {"CPU": "T75", "H100": "T750", "H200": "T750"}
    for each in reports.guarantees():
        decoder, executor, dtype, machine, freedom = each.subject.split(", ")
        rows = {"pinned to 8": "pinned8", "free rows": "max8"}[freedom]
        subjects = kept(f"{machines[machine]}/contract.json")["subjects"]
        entry = subjects["/".join((decoder, executor, dtype, lengths[machine], rows))]
        for name, said in zip(reports.PROPERTIES, each.said, strict=True):
            assert (bool(entry["holds"][name]), bool(entry["fails"][name])) in {
                "exact": [(True, False)], "some": [(True, True)], "no": [(False, True)],
            }[said]  # fmt: skip
    assert len({each.subject for each in reports.guarantees()}) == 12
