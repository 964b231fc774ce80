"""The battery against its captures, and the act of blessing them."""

from __future__ import annotations

import hashlib
import json
import locale
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from harness.engine.errors import InvalidInput
from harness.parity.baselines import platform, store
from harness.parity.baselines.bless import Battery, bless, bound_factor, digests
from harness.parity.baselines.captures import check, select
from harness.parity.baselines.refusals import BlessRefused
from harness.parity.baselines.verdicts import EPS, Verdict, within_bound
from tests.git import commit, git

FILES = ("alpha", "beta")


class Engine:
    """Plays what it was told to; a test changes `latents` or `ticks` to move a scenario."""

    def __init__(self):
        self.scenarios = {name: SimpleNamespace(name=name) for name in FILES}
        self.latents = {name: torch.linspace(-1, 1, 12).reshape(1, 4, 3) + i for i, name in enumerate(FILES)}
        self.ticks = {name: ("aa", "bb", "cc") for name in FILES}
        self.fresh_shift = self.plain_shift = 0.0
        self.threads = []

    def play(self, scenario):
        self.threads.append(torch.get_num_threads())
        return SimpleNamespace(finished={"r0": self.latents[scenario.name].clone()}, ticks=self.ticks[scenario.name])

    def fresh(self, names):
        played = {name: self.play(self.scenarios[name]) for name in names}
        return {name: digests(replace_latent(each, self.fresh_shift)) for name, each in played.items()}

    def plain(self, names):
        return {name: {"r0": self.latents[name] + self.plain_shift} for name in names}

    def battery(self):
        return Battery(self.scenarios, self.play, self.fresh, self.plain)


def replace_latent(played, shift):
    return SimpleNamespace(finished={name: x + shift for name, x in played.finished.items()}, ticks=played.ticks)


@pytest.fixture
def engine(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    return Engine()


@pytest.fixture
def captures(engine, tmp_path):
    git(tmp_path, "init", "-q")
    engine.plain_shift = 1e-6
    bless("the first", engine.battery(), tmp_path / "captures")
    commit(tmp_path)
    return tmp_path / "captures"


def folder(captures):
    return captures / platform.name() / "scenarios"


def run(engine, captures, only=()):
    return check(engine.scenarios, engine.play, captures, only)


def verdict(engine, captures, name="alpha"):
    return {result.name: result for result in run(engine, captures).results}[name]


def elsewhere(captures):
    """Make the captures those of another machine of this platform's name."""
    manifest = store.read_manifest(folder(captures))
    store.write_manifest(folder(captures), replace(manifest, fingerprint={**manifest.fingerprint, "cpu_name": "other"}))


def test_what_was_blessed_here_checks_as_exact(engine, captures):
    report = run(engine, captures)
    assert [result.verdict for result in report.results] == [Verdict.EXACT, Verdict.EXACT]
    assert report.summary() == f"2 scenarios: 2 exact ({platform.name()}, the platform that blessed them)"


def test_one_flipped_bit_in_a_capture_is_named_as_altered(engine, captures):
    path = folder(captures) / "alpha.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
    found = verdict(engine, captures)
    assert found.verdict is Verdict.CORRUPT and f"{path}: altered" in found.detail


def test_a_truncated_capture_is_named_as_truncated(engine, captures):
    path = folder(captures) / "alpha.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    found = verdict(engine, captures)
    assert found.verdict is Verdict.CORRUPT and f"{path}: truncated" in found.detail


def test_a_deleted_capture_is_missing_by_name(engine, captures):
    path = folder(captures) / "alpha.safetensors"
    path.unlink()
    found = verdict(engine, captures)
    assert found.verdict is Verdict.MISSING and str(path) in found.detail


def test_a_scenario_that_was_never_blessed_is_missing(engine, captures):
    engine.scenarios["gamma"] = SimpleNamespace(name="gamma")
    assert verdict(engine, captures, "gamma").verdict is Verdict.MISSING


def test_a_stray_file_is_an_orphan_by_name(engine, captures):
    (folder(captures) / "stray.safetensors").write_bytes(b"")
    assert verdict(engine, captures, "stray.safetensors").verdict is Verdict.ORPHAN


def test_a_capture_without_its_scenario_is_an_orphan(engine, captures):
    del engine.scenarios["beta"]
    found = verdict(engine, captures, "beta")
    assert found.verdict is Verdict.ORPHAN and "beta.safetensors" in found.detail


def test_a_missing_manifest_fails_every_scenario(engine, captures):
    (folder(captures) / store.MANIFEST).unlink()
    report = run(engine, captures)
    assert {result.verdict for result in report.results} == {Verdict.MISSING} and not report.passes


@pytest.mark.parametrize(
    ("edit", "error", "words"),
    [
        ({"torch": "0"}, store.ManifestAltered, "its own digest"),
        ({"format": 99}, store.ManifestFormat, "format version 99"),
        ({"digest": None}, store.ManifestAltered, "its own digest"),
    ],
)
def test_an_edited_manifest_is_refused(engine, captures, edit, error, words):
    path = folder(captures) / store.MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **edit}))
    with pytest.raises(error, match=words):
        store.read_manifest(folder(captures))
    assert verdict(engine, captures).verdict is Verdict.CORRUPT


def test_a_truncated_manifest_is_corrupt(engine, captures):
    path = folder(captures) / store.MANIFEST
    path.write_bytes(path.read_bytes()[:40])
    assert verdict(engine, captures).verdict is Verdict.CORRUPT


def test_a_scenario_that_moved_names_its_first_tick_and_distance(engine, captures):
    engine.latents["alpha"][0, 2, 1] += 0.5
    engine.ticks["alpha"] = ("aa", "xx", "yy")
    found = verdict(engine, captures)
    assert found.verdict is Verdict.MOVED and found.max_abs == pytest.approx(0.5, rel=1e-6)
    assert (
        "first tick that moved: 1 of 0 to 2; finished latents: " in found.detail
        and "frame 2, channel 1" in found.detail
    )


def test_one_ulp_is_moved_on_the_platform_that_blessed(engine, captures):
    engine.latents["alpha"] = torch.nextafter(engine.latents["alpha"], torch.tensor(9.0))
    assert verdict(engine, captures).verdict is Verdict.MOVED


def test_a_state_that_moved_under_identical_results_is_reported(engine, captures):
    engine.ticks["alpha"] = ("aa", "bb")
    found = verdict(engine, captures)
    assert found.verdict is Verdict.DIGEST_DIFFERS and "2, after 2 ticks where 3" in found.detail


def test_another_machine_passes_within_the_bound_and_fails_beyond(engine, captures):
    elsewhere(captures)
    blessed = engine.latents["alpha"].clone()
    assert verdict(engine, captures).verdict is Verdict.EXACT
    engine.latents["alpha"] = blessed + 3e-6
    found = verdict(engine, captures)
    assert found.verdict is Verdict.TOLERANCE and 3e-6 < found.bound < 5e-6
    assert "differs in cpu_name" in run(engine, captures).summary()
    engine.latents["alpha"] = blessed + 6e-6
    assert verdict(engine, captures).verdict is Verdict.MOVED


def test_the_tensor_furthest_out_of_its_own_bound_speaks_and_not_the_one_that_moved_most():
    blessed = {"large": torch.full((4,), 1e3), "small": torch.full((4,), 1e-3)}
    found = within_bound("s", {"large": blessed["large"] + 1e-3, "small": blessed["small"] + 1e-5}, blessed, 100.0)
    assert found.verdict is Verdict.MOVED and found.detail.startswith("small: ")
    found = within_bound("s", {"large": blessed["large"] + 1.0, "small": blessed["small"] + 1e-9}, blessed, 100.0)
    assert found.verdict is Verdict.MOVED and found.detail.startswith("large: ")


@pytest.mark.parametrize("name", ["/a", "//a", "/", "", "a/b"])
def test_a_tensor_of_any_name_gets_a_verdict(name):
    blessed = {"a": torch.ones(4), name: torch.ones(4)}
    for moved, verdict in ((0.0, Verdict.EXACT), (1e-6, Verdict.TOLERANCE), (1.0, Verdict.MOVED)):
        found = within_bound("s", {**blessed, name: blessed[name] + moved}, blessed, 100.0)
        assert found.verdict is verdict and found.detail.startswith(f"{name}: " if moved else "")


@pytest.mark.parametrize("spoil", [lambda x: x.double(), lambda x: x[0], lambda x: x * float("nan")])
def test_no_bound_lets_another_dtype_shape_or_nan_pass(engine, captures, spoil):
    elsewhere(captures)
    engine.latents["alpha"] = spoil(engine.latents["alpha"])
    found = verdict(engine, captures)
    assert found.verdict is Verdict.MOVED and found.max_abs is None


def test_without_own_captures_the_reference_platforms_are_compared(engine, captures, monkeypatch):
    elsewhere(captures)
    (captures / platform.name()).rename(captures / "reference")
    monkeypatch.setattr(platform, "reference_platform", lambda: "reference")
    assert "within the bound of the captures of reference" in run(engine, captures).summary()


def test_no_captures_at_all_is_no_verdict(engine, tmp_path):
    with pytest.raises(store.NoCaptures):
        run(engine, tmp_path / "captures")


def test_a_check_runs_with_one_thread_and_gives_the_others_back(engine, captures):
    engine.threads.clear()
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run(engine, captures)
        assert set(engine.threads) == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_only_leaves_other_scenarios_and_strays_alone(engine, captures):
    (folder(captures) / "stray").touch()
    assert [result.name for result in run(engine, captures, ["beta"]).results] == ["beta"]


# Blessing.


@pytest.mark.parametrize("value", ["true", "1", "yes"])
def test_bless_refuses_under_continuous_integration(engine, captures, monkeypatch, value):
    monkeypatch.setenv("CI", value)
    with pytest.raises(BlessRefused, match="CI"):
        bless("why", engine.battery(), captures)


def test_bless_refuses_without_a_reason(engine, captures):
    with pytest.raises(BlessRefused, match="reason"):
        bless("  ", engine.battery(), captures)


def test_bless_refuses_over_uncommitted_captures(engine, captures):
    (captures / "new").touch()
    with pytest.raises(BlessRefused, match="uncommitted"):
        bless("why", engine.battery(), captures)


def test_bless_refuses_over_untracked_captures_that_a_configuration_hides(engine, captures):
    git(captures.parent, "config", "status.showUntrackedFiles", "no")
    (captures / "new").touch()
    with pytest.raises(BlessRefused, match="uncommitted"):
        bless("why", engine.battery(), captures)


def test_bless_refuses_outside_a_checkout(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(BlessRefused, match="no git checkout"):
        bless("why", engine.battery(), tmp_path / "captures")


def test_bless_rewrites_only_what_drifted(engine, captures):
    before = {path.name: path.stat().st_mtime_ns for path in folder(captures).iterdir()}
    engine.latents["alpha"][0, 0, 0] += 4.1e-3
    blessed = bless("alpha is better now", engine.battery(), captures)
    after = {path.name: path.stat().st_mtime_ns for path in folder(captures).iterdir()}
    assert {name for name in after if after[name] != before[name]} == {"alpha.safetensors", store.MANIFEST}
    assert [change.name for change in blessed.changes] == ["alpha"]
    assert blessed.summary().startswith("alpha moved, max |Δ| 4.1e-3, k ")
    assert blessed.summary().endswith("; the others identical (1)")
    entries = store.read_manifest(folder(captures)).scenarios
    assert (entries["alpha"].reason, entries["beta"].reason) == ("alpha is better now", "the first")
    assert run(engine, captures).passes


def test_bless_writes_nothing_where_nothing_drifted(engine, captures):
    before = {path: path.stat().st_mtime_ns for path in folder(captures).iterdir()}
    assert bless("why", engine.battery(), captures).changes == ()
    assert before == {path: path.stat().st_mtime_ns for path in folder(captures).iterdir()}


def test_on_another_machine_every_tolerance_is_measured_again(engine, captures):
    elsewhere(captures)
    commit(captures.parent)
    before = store.read_manifest(folder(captures)).scenarios["alpha"]
    engine.plain_shift = 1e-5
    blessed = bless("another machine", engine.battery(), captures)
    assert [change.name for change in blessed.changes] == [store.MANIFEST, "alpha", "beta"]
    after = store.read_manifest(folder(captures)).scenarios["alpha"]
    assert after.k > 5 * before.k and after.reason == before.reason


def test_a_scenario_that_moved_in_its_states_only_has_the_reason_of_that(engine, captures):
    engine.ticks["alpha"] = ("aa", "bb", "dd")
    assert "alpha moved in its states only" in bless("other states", engine.battery(), captures).summary()
    assert store.read_manifest(folder(captures)).scenarios["alpha"].reason == "other states"


def test_bless_restores_a_corrupt_capture(engine, captures):
    (folder(captures) / "alpha.safetensors").write_bytes(b"x")
    commit(captures.parent)
    bless("repair", engine.battery(), captures)
    assert run(engine, captures).passes


def test_bless_removes_the_captures_of_a_scenario_that_is_no_more(engine, captures):
    del engine.scenarios["beta"]
    assert bless("beta went", engine.battery(), captures).summary() == "beta removed; the others identical (1)"
    assert not (folder(captures) / "beta.safetensors").exists() and run(engine, captures).passes


def test_bless_removes_a_capture_that_no_manifest_and_no_scenario_knows(engine, captures):
    (folder(captures) / "gamma.safetensors").touch()
    commit(captures.parent)
    assert bless("gamma went", engine.battery(), captures).summary().startswith("gamma removed")
    assert not (folder(captures) / "gamma.safetensors").exists() and run(engine, captures).passes


def test_bless_refuses_a_scenario_that_a_fresh_process_does_not_reproduce(engine, captures):
    engine.latents["alpha"] += 1
    engine.fresh_shift = 1e-3
    before = {path: path.read_bytes() for path in folder(captures).iterdir()}
    with pytest.raises(BlessRefused, match="alpha is not reproducible: a fresh process"):
        bless("why", engine.battery(), captures)
    assert before == {path: path.read_bytes() for path in folder(captures).iterdir()}


def test_bless_refuses_a_scenario_that_differs_from_replay_to_replay(engine, captures):
    played = engine.play
    engine.play = lambda s: replace_latent(played(s), len(engine.threads) if s.name == "beta" else 0)
    with pytest.raises(BlessRefused, match="beta is not reproducible: two replays"):
        bless("why", engine.battery(), captures)


def test_bless_of_some_refuses_to_mix_two_machines(engine, captures):
    elsewhere(captures)
    commit(captures.parent)
    with pytest.raises(BlessRefused, match="two machines"):
        bless("why", engine.battery(), captures, only=["alpha"])


def test_the_tolerance_is_four_times_what_plain_kernels_move():
    blessed = {"r": torch.full((1, 2, 2), 2.0)}
    assert bound_factor("s", blessed, blessed) == 0.0
    # 2 + 2^-20 is exact in float32, and the rms of the capture is 2.
    assert bound_factor("s", blessed, {"r": blessed["r"] + 2.0**-20}) == 4 * 2.0**-20 / (EPS * 2.0)


def test_equal_tensors_are_serialized_to_equal_bytes():
    x, y = torch.arange(4.0), torch.ones(2, 2)
    assert store.serialize({"a": x, "b": y.T}) == store.serialize({"b": y.clone(), "a": x.clone()})


def test_the_engine_digest_sees_a_changed_byte_and_a_renamed_file(tmp_path):
    (tmp_path / "a.py").write_text("1")
    first = store.engine_digest(tmp_path)
    (tmp_path / "a.py").write_text("2")
    second = store.engine_digest(tmp_path)
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert len({first, second, store.engine_digest(tmp_path)}) == 3


def test_the_engine_digest_of_the_same_sources_is_the_same_in_every_version(tmp_path):
    """Manifests hold it: another way to compute it would call every engine another one."""
    (tmp_path / "a.py").write_text("1")
    assert (
        store.engine_digest(tmp_path)
        == hashlib.sha256(b"\4\0\0\0\0\0\0\0a.py" + b"\1\0\0\0\0\0\0\0" + b"1").hexdigest()
    )


def test_no_scenario_at_all_is_refused():
    with pytest.raises(InvalidInput, match="scenarios: got none, expected at least one"):
        select({}, ())


def test_settings_are_read_as_utf_8_whatever_the_locale(tmp_path):
    before = locale.setlocale(locale.LC_CTYPE)
    (tmp_path / "pyproject.toml").write_bytes('[tool.harness] # é\nreference-platform = "cpu-é"\n'.encode())
    locale.setlocale(locale.LC_CTYPE, "C")
    try:
        assert platform.reference_platform(tmp_path) == "cpu-é"
    finally:
        locale.setlocale(locale.LC_CTYPE, before)


def test_the_fingerprint_shows_a_changed_thread_count():
    with platform.one_thread():
        assert platform.fingerprint()["threads"] == "1"
        assert all(isinstance(value, str) for value in platform.fingerprint().values())


def test_a_missing_reference_platform_is_named(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.harness]\n")
    with pytest.raises(platform.NoReferencePlatform, match="reference-platform"):
        platform.reference_platform(tmp_path)
    assert platform.reference_platform().startswith("cpu-")
