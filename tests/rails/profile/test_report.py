"""The report of a profile: averages, shares, residual and what is not attributed."""

from __future__ import annotations

import json

import pytest

from harness.engine.aot.layers import Layer
from harness.engine.errors import EngineError
from harness.rails.profile.report import (
    Breakdown,
    NamelessLayers,
    NoLayers,
    NotAProfile,
    OtherEngine,
    Profile,
    ProfileRefused,
    Timed,
    joined,
)
from harness.rails.profile.rules import RULES_VERSION, Category, Facts

BLOB = "{ForeignNode[ReduceMean_4492...Mul_4557]}"


def timed(name, ms, stream=0):
    return Timed(Facts(Layer(name, stream=stream)), ms)


def report(*layers, wall=(10.0,), runs=3):
    return Breakdown(Profile("tensorrt", layers, runs, wall))


MIXED = (timed("a/MatMul_1", 4.0), timed("b/Add_2", 1.0), timed(BLOB, 2.0), timed("what_is_this", 1.0))


def test_shares_are_of_the_layers_sum():
    found = report(*MIXED)
    assert found.sum_ms == 8.0
    assert found.categories[Category.GEMM].share == 0.5
    assert found.categories[Category.GEMM].ms == 4.0
    assert found.categories[Category.POINTWISE].layers == 1
    assert sum(part.share for part in found.categories.values()) == 1.0


def test_every_category_is_in_the_rollup_also_an_empty_one():
    assert list(report(*MIXED).categories) == list(Category)
    assert report(*MIXED).categories[Category.ATTENTION].layers == 0


def test_unattributed_is_what_is_opaque_and_what_no_rule_matches():
    found = report(*MIXED)
    assert (found.opaque.share, found.categories[Category.OTHER].share) == (0.25, 0.125)
    assert (found.unattributed.share, found.unattributed.layers) == (0.375, 2)


def test_the_layer_that_takes_most_comes_first():
    assert [row.timed.ms for row in report(timed("b/Add_2", 1.0), timed("a/MatMul_1", 4.0)).rows] == [4.0, 1.0]


def test_the_residual_is_the_wall_time_without_the_layers_with_its_sign():
    over, under = report(*MIXED, wall=(10.0,)), report(*MIXED, wall=(5.0,))
    assert (over.residual, over.residual_share) == (2.0, 0.2)
    assert (under.residual, under.residual_share) == (-3.0, -0.6)


def test_the_wall_time_is_the_median_of_its_samples():
    assert report(*MIXED, wall=(1.0, 9.0, 2.0)).wall == 2.0


def test_without_a_wall_time_there_is_no_residual():
    found = report(*MIXED, wall=())
    assert (found.wall, found.residual, found.residual_share) == (None, None, None)


def test_a_sum_beyond_the_wall_time_is_said_and_so_is_the_reason():
    single = report(timed("a/MatMul_1", 12.5))
    assert list(single.notes()) == [
        "the sum of the layers exceeds the wall time by 2.500 ms: profiling makes each layer slower, or layers overlap"
    ]
    several = report(timed("a/MatMul_1", 6.5), timed("b/MatMul_1", 6.0, stream=1))
    assert list(several.notes()) == [
        "the sum of the layers exceeds the wall time by 2.500 ms: the layers of 2 streams overlap"
    ]


def test_layers_of_several_streams_are_said_to_overlap_also_where_their_sum_is_less_than_the_wall_time():
    (note,) = report(timed("a/MatMul_1", 1.0), timed("b/MatMul_1", 1.0, stream=1)).notes()
    assert note.startswith("the layers of 2 streams overlap: the sum")


def test_waits_between_streams_are_told_apart_from_copies():
    found = report(timed("a/MatMul_1", 3.0), timed("entry^bb^wait^1_myl0_2", 1.0))
    assert (found.waits.layers, found.waits.share) == (1, 0.25)
    assert list(found.notes()) == ["copy-reformat contains 1 layers in which streams wait for each other (25.0%)"]


@pytest.mark.parametrize(("blob", "hints"), [(3.0, 0), (3.01, 1)])
def test_more_than_half_opaque_brings_the_hint_to_rebuild(blob, hints):
    notes = list(report(timed(BLOB, blob), timed("a/MatMul_1", 3.0)).notes())
    assert len(notes) == hints
    assert all("build the plan again with detailed profiling verbosity" in note for note in notes)


def test_a_list_without_times_is_counted_by_layers_in_its_order():
    layers = [timed("b/Add_2", 0.0), timed("a/MatMul_1", 0.0), timed(BLOB, 0.0), timed("?", 0.0)]
    found = Breakdown(Profile("plan", layers))
    assert not found.timed
    assert [row.share for row in found.rows] == [0.25] * 4
    assert [row.timed.facts.layer.name for row in found.rows] == ["b/Add_2", "a/MatMul_1", BLOB, "?"]
    assert found.unattributed.share == 0.5
    assert found.document()["shares_by"] == "layers"


def test_a_profile_in_which_nothing_took_time_has_shares_of_zero():
    assert report(timed("a/MatMul_1", 0.0)).rows[0].share == 0.0


def test_the_document_is_complete_and_json():
    found = Breakdown(Profile("tensorrt", MIXED, 3, (9.0, 11.0), True, {"device": "cuda"}))
    document = json.loads(json.dumps(found.document(), allow_nan=False))
    assert document["rules"] == RULES_VERSION
    assert (document["source"], document["provenance"], document["resolved"]) == ("tensorrt", {"device": "cuda"}, True)
    assert document["wall"] == {"ms": 10.0, "samples_ms": [9.0, 11.0]}
    assert (document["sum_ms"], document["runs"]) == (8.0, 3)
    assert document["residual"] == {"ms": 2.0, "share": 0.2}
    assert document["categories"]["myelin-opaque"] == {"layers": 1, "ms": 2.0, "share": 0.25}
    assert document["unattributed"] == {"layers": 2, "ms": 3.0, "share": 0.375}
    assert document["shares_by"] == "time"
    assert [layer["name"] for layer in document["layers"]] == ["a/MatMul_1", BLOB, "b/Add_2", "what_is_this"]
    assert document["layers"][0] == {
        "name": "a/MatMul_1",
        "kind": "",
        "operator": None,
        "tactic": "",
        "stream": 0,
        "nodes": [],
        "ms": 4.0,
        "calls": 1.0,
        "share": 0.5,
        "category": "gemm",
        "rule": "product",
    }


def test_a_profile_without_layers_is_refused():
    with pytest.raises(NoLayers, match="tensorrt: no layer was reported"):
        Profile("tensorrt", [])


def test_a_profile_whose_layers_are_called_by_their_indices_is_refused():
    with pytest.raises(NamelessLayers, match="detailed verbosity"):
        Profile("tensorrt", [timed("0", 1.0), timed("17", 1.0)], 3)
    Profile("tensorrt", [timed("0", 1.0), timed("Conv_0", 1.0)], 3)


def test_a_profiles_layers_are_described_by_the_engines_list():
    engine = [Layer("a", "gemm", nodes=("x/MatMul_1",)), Layer("b")]
    assert joined(["a", "new"], engine) == {"a": engine[0], "new": Layer("new")}
    assert joined(["a"], ()) == {"a": Layer("a")}


def test_a_list_of_another_engine_is_refused():
    with pytest.raises(
        OtherEngine, match="none of the profile's 1 layers is one of the plan's 2 layers, for example 'c'"
    ):
        joined(["c"], [Layer("a"), Layer("b")])


@pytest.mark.parametrize("error", [NoLayers, NamelessLayers, NotAProfile, OtherEngine])
def test_what_cannot_be_attributed_is_an_engines_error_by_name(error):
    assert issubclass(error, ProfileRefused)
    assert issubclass(ProfileRefused, EngineError)


def test_a_profile_that_says_no_more_has_no_runs_no_wall_time_and_names_alone():
    found = Profile("plan", MIXED)
    assert (found.runs, found.wall_ms, found.resolved, found.provenance) == (0, (), False, {})
