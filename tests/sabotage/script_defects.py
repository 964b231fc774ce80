"""Defects of the proofs on random scripts of foreign rings, each with its test."""

from __future__ import annotations

from tests.sabotage.runner import Defect

FOREIGN, TESTS = "harness/parity/foreign", "tests/parity/foreign"

SCRIPTS = [
    Defect(
        "a request that vanishes is not missed",
        f"{FOREIGN}/journal.py",
        "lost = sorted(known - {*here} - may_go)",
        "lost = sorted(known - {*here} - may_go - known)",
        f"{TESTS}/test_journal.py::test_a_lost_request_is_named",
    ),
    Defect(
        "a cancelled request may stay",
        f"{FOREIGN}/journal.py",
        "late = (number for number in here if number in self._cancelled)",
        "late = (number for number in here if number not in here)",
        f"{TESTS}/test_journal.py::test_a_lost_request_is_named",
    ),
    Defect(
        "requests may pass each other",
        f"{FOREIGN}/journal.py",
        "later = max(moment.admitted, default=-1)",
        "later = max(moment.admitted[:0], default=-1)",
        f"{TESTS}/test_trial.py::test_a_defect_is_found_with_its_seed_and_a_script_that_fails_in_the_same_way",
    ),
    Defect(
        "reports of a slot belong to the request that enters it in the same tick",
        f"{FOREIGN}/journal.py",
        "        if was is not None and was in moment.present:\n            return was\n",
        "",
        f"{TESTS}/test_journal.py::test_reports_of_the_tick_in_which_a_slot_changes_hands_belong_to_the_request_that_ends",
    ),
    Defect(
        "live changes are not replayed",
        f"{FOREIGN}/alone.py",
        "if isinstance(operation, Live) or operation is submit or at in own:",
        "if operation is submit or at in own:",
        f"{TESTS}/test_alone.py::test_a_request_meets_alone_the_live_changes_that_it_met_at_the_same_of_its_ticks",
    ),
    Defect(
        "a request's ticks are counted from its submission",
        f"{FOREIGN}/alone.py",
        "return ticks[len(ticks) - alone :]",
        "return ticks[:alone]",
        f"{TESTS}/test_alone.py::test_a_request_meets_alone_the_live_changes_that_it_met_at_the_same_of_its_ticks",
    ),
    Defect(
        "what a request ends with is not compared",
        f"{FOREIGN}/alone.py",
        "differences = named_differences(ended, moment.finished[number])",
        "differences = named_differences(ended, ended)",
        f"{TESTS}/test_alone.py::test_a_leak_is_named_with_request_tick_and_stage_and_with_the_script_of_the_request_alone",
    ),
    Defect(
        "a ring alone goes on with its own tensor",
        f"{FOREIGN}/alone.py",
        "return known.to(tensor.device)",
        "return tensor",
        f"{TESTS}/test_alone.py::test_a_stage_with_a_bound_may_differ_and_all_after_it_may_not",
    ),
    Defect(
        "a bound that is exceeded alone passes",
        f"{FOREIGN}/alone.py",
        "        if beyond and self.apart is None:\n",
        "        if not beyond and self.apart is None:\n",
        f"{TESTS}/test_alone.py::test_what_is_beyond_the_bound_is_named_with_its_tick",
    ),
    Defect(
        "the reference gets the controls of the tick after",
        f"{FOREIGN}/alone.py",
        "for each in journal.operations[:last] if",
        "for each in journal.operations[: last + 2] if",
        f"{TESTS}/test_alone.py::test_the_adapters_reference_gets_the_controls_of_each_tick_and_may_not_know",
    ),
    Defect(
        "the reference always has a bound",
        f"{FOREIGN}/alone.py",
        "if differences and (beyond or REFERENCE not in self.bounded):",
        "if differences and beyond:",
        f"{TESTS}/test_alone.py::test_the_reference_finds_what_is_wrong_alone_too",
    ),
    Defect(
        "a waiver without a reason is taken",
        f"{FOREIGN}/coverage.py",
        "or goal in seen or not reason.strip():",
        "or goal in seen:",
        f"{TESTS}/test_coverage.py::test_a_waiver_needs_a_goal_that_never_occurred_and_a_reason",
    ),
    Defect(
        "a request counts as beside itself",
        f"{FOREIGN}/coverage.py",
        "for one, other in combinations(flying, 2):",
        "for one, other in combinations(flying * 2, 2):",
        f"{TESTS}/test_coverage.py::test_a_goal_occurs_where_it_is_brought_about_and_not_in_the_nearest_other_script",
    ),
    Defect(
        "what never occurred is not asked for",
        f"{FOREIGN}/trial.py",
        "    if missing:\n",
        "    if missing and not features:\n",
        f"{TESTS}/test_trial.py::test_a_feature_that_no_script_used_is_red_although_everything_agrees",
    ),
    Defect(
        "scripts of the fast ring run on the plain one",
        f"{FOREIGN}/trial.py",
        "plain, fast = self.plain(), self.fast()",
        "plain, fast = self.plain(), self.plain()",
        f"{TESTS}/test_trial.py::test_a_defect_is_found_with_its_seed_and_a_script_that_fails_in_the_same_way",
    ),
    Defect(
        "a shrunk script may fail in another way",
        f"{FOREIGN}/trial.py",
        "if raised is None or type(raised) is not type(error):",
        "if raised is None:",
        f"{TESTS}/test_trial.py::test_a_shrunk_script_fails_as_the_drawn_one_did",
    ),
    Defect(
        "the shrinker is not bounded",
        f"{FOREIGN}/shrinking.py",
        "            if played >= runs:\n",
        "            if played > runs:\n",
        f"{TESTS}/test_shrinking.py::test_no_more_scripts_are_played_than_asked_for",
    ),
    Defect(
        "cancels of requests that are gone stay in the script",
        f"{FOREIGN}/shrinking.py",
        "if not isinstance(each, Cancel) or each.number in submitted]",
        "if submitted or each]",
        f"{TESTS}/test_shrinking.py::test_numbers_of_requests_stay_and_no_request_that_is_gone_is_cancelled",
    ),
]
