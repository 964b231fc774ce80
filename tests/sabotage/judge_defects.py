"""Defects of what judges: checks, blessing, lockstep, the probe and the command line, each with its test."""

from __future__ import annotations

from tests.sabotage.runner import Defect

PROOFS, BASELINES, JUDGED = "harness/parity/proofs", "harness/parity/baselines", "tests/judged"
PARITY, DECODER = "tests/gpu/decoder_parity.py", "tests/test_gpu_decoder.py"

JUDGE = [
    Defect(
        "a small tensor beyond its bound hides behind one that moved more",
        f"{BASELINES}/verdicts.py",
        "key=lambda each: measured[each][0] - k * measured[each][1])",
        "key=lambda each: measured[each][0])",
        f"{JUDGED}/test_check.py::test_check",
    ),
    Defect(
        "the bound exactly reached is beyond it",
        f"{BASELINES}/verdicts.py",
        "    if moved <= k * unit:\n",
        "    if moved < k * unit:\n",
        f"{JUDGED}/test_check.py::test_check",
    ),
    Defect(
        "a fingerprint has no variables of the environment",
        f"{BASELINES}/platform.py",
        "        **flags.unlike_fresh(),\n",
        "",
        f"{JUDGED}/test_fingerprint.py::test_a_variable_that_chooses_other_bits_is_in_the_fingerprint",
    ),
    Defect(
        "tolerances of another machine are kept",
        f"{BASELINES}/bless.py",
        "    measured = [name for name, change in drifted.items() if change] if same_machine else list(chosen)\n",
        "    measured = [name for name, change in drifted.items() if change]\n",
        f"{JUDGED}/test_bless.py::test_a_tolerance_of_another_machine_is_never_kept",
    ),
    Defect(
        "bless does not say which tolerance it changed",
        f"{BASELINES}/changes.py",
        "    if name not in ks or name not in entries or ks[name] == entries[name].k:\n",
        "    if name not in ks or name not in entries or ks[name] >= entries[name].k:\n",
        "tests/parity/baselines/test_bless.py::"
        "test_a_new_fingerprint_and_every_new_tolerance_are_named_in_the_output_and_in_the_json",
    ),
    Defect(
        "bless overwrites an edited capture that git ignores",
        f"{BASELINES}/refusals.py",
        "    if unseen:\n",
        "    if unseen and uncommitted:\n",
        "tests/parity/baselines/test_bless.py::test_captures_that_git_ignores_are_refused_by_name",
    ),
    Defect(
        "a scenario is replayed once less before it is blessed",
        f"{BASELINES}/bless.py",
        "    if digests(battery.play(scenario)) != digests(first):\n",
        "    if digests(first) != digests(first):\n",
        f"{JUDGED}/test_repeats.py::test_bless_replays_a_scenario_three_times_one_of_them_in_a_fresh_process",
    ),
    Defect(
        "the probe reruns once",
        f"{PROOFS}/invariance.py",
        "RERUNS = 20\n",
        "RERUNS = 1\n",
        f"{JUDGED}/test_repeats.py::test_a_rerun_is_twenty_more_runs",
    ),
    Defect(
        "lockstep runs with the caller's threads",
        f"{PROOFS}/lockstep.py",
        "    with platform.one_thread(), Lockstep((first, on), (second, off), names, repro) as lockstep:\n",
        "    with Lockstep((first, on), (second, off), names, repro) as lockstep:\n",
        f"{JUDGED}/test_threads.py::test_every_run_of_a_decoder_has_one_thread_and_the_caller_its_own_number_after",
    ),
    Defect(
        "a condition that was written to in lockstep goes unseen",
        f"{PROOFS}/inputs.py",
        '        yield f"{name}\'s condition {number}", condition.encoder_hidden_states\n',
        '        yield f"{name}\'s condition {number}", condition.encoder_hidden_states.clone()\n',
        f"{JUDGED}/test_lockstep.py::test_a_side_that_writes_to_an_input_is_named_and_one_that_reads_it_is_not",
    ),
    Defect(
        "check --all passes where only the costs moved",
        "harness/commands/check_report.py",
        "        parts += [self.costs.passes] if self.costs is not None and self.costs.gated else []\n",
        "        parts += [self.costs.passes] if self.costs is not None and not parts else []\n",
        f"{JUDGED}/test_check_parts.py::test_check_all_swallows_no_verdict",
    ),
    Defect(
        "check --all passes where only captures moved",
        "harness/commands/check_report.py",
        "        return self.compared and not all(parts)\n",
        "        return self.compared and not all(parts[-1:])\n",
        f"{JUDGED}/test_check_parts.py::test_check_all_swallows_no_verdict",
    ),
    Defect(
        "switches of which none acted pass",
        "harness/commands/check_report.py",
        "any(result.acted or not result.verdict.passes for result in self._switched)",
        "bool(self._switched)",
        f"{JUDGED}/test_check_parts.py::test_check_switches",
    ),
    Defect(
        "a probe that cannot measure has lost something",
        "harness/commands/common.py",
        'f"cannot {what}: {advised(error)}", err=True)\n        sys.exit(COULD_NOT_RUN)\n    except Exception:',
        'f"cannot {what}: {advised(error)}", err=True)\n        sys.exit(DIFFERS)\n    except Exception:',
        f"{JUDGED}/test_probe.py::test_probe",
    ),
    Defect(
        "a bench draws other requests in every run",
        "harness/rails/bench/throughput.py",
        "self.stream.tick(seed=self.submitted, ",
        "self.stream.tick(seed=time.perf_counter_ns(), ",
        f"{JUDGED}/test_repeats.py::test_a_bench_makes_the_same_latents_in_every_run",
    ),
    Defect(
        "one tree that was blessed here hides the reference platform's others",
        f"{BASELINES}/blessed.py",
        "        with_it = [folder for folder in found if (folder / name).exists()]\n",
        "        with_it = found[:1]\n",
        "tests/plugin/test_plugin.py::"
        "test_a_tree_that_was_blessed_here_does_not_hide_the_reference_platforms_other_trees",
    ),
    Defect(
        "an acceleration is exact where one of its results is",
        f"{PROOFS}/decoder_error.py",
        "        exact = all(\n",
        "        exact = any(\n",
        "tests/parity/proofs/test_decoder_error.py::test_one_other_bit_for_one_of_the_inputs_is_not_exact",
    ),
    Defect(
        "an acceleration's errors are those of its velocities alone",
        f"{PROOFS}/decoder_error.py",
        "    within = velocity.high <= BOUND and latent.high <= BOUND\n",
        "    within = velocity.high <= BOUND or latent.high <= BOUND\n",
        "tests/parity/proofs/test_decoder_error.py::test_a_velocity_within_its_bound_makes_up_for_no_latent_beyond_it",
    ),
    Defect(
        "every variant is compared by a reference of its own",
        PARITY,
        "        by = by or yardstick(decoder, case, asked.inputs)\n",
        "        by = yardstick(decoder, case, asked.inputs)\n",
        f"{DECODER}::test_the_reference_is_computed_once_for_all_variants",
    ),
    Defect(
        "an interrupted comparison starts anew",
        PARITY,
        "        found = _kept(out / PARITY, head) if asked.resume else []\n",
        "        found: list[Any] = []\n",
        f"{DECODER}::test_an_interrupted_run_goes_on_where_it_stopped",
    ),
    Defect(
        "a comparison goes on with findings of another code",
        PARITY,
        "        if document.get(name) != value:\n",
        '        if name != "code" and document.get(name) != value:\n',
        f"{DECODER}::test_no_run_goes_on_with_findings_of_other_inputs_threads_or_code",
    ),
    Defect(
        "what failed in an interrupted comparison stays",
        PARITY,
        '    return [each for each in document["found"] if "verdict" in each]\n',
        '    return list(document["found"])\n',
        f"{DECODER}::test_what_was_left_out_or_failed_is_tried_again",
    ),
]
