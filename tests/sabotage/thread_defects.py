"""Defects of threads and of failures, and for each the test that must notice it; a seed switches the threads."""

from __future__ import annotations

from tests.sabotage.runner import Defect

ENGINE = "harness/engine"
PIPELINE, STATE, TURNS = f"{ENGINE}/pipeline.py", f"{ENGINE}/state.py", f"{ENGINE}/turns.py"
INSIDE, SHARING = "tests/engine/test_threads.py", "tests/engine/test_threads_sharing.py"
FAILURES, VELOCITIES = "tests/engine/test_failures.py", "tests/engine/test_velocities.py"
ENDINGS = "tests/commands/test_endings.py"
SWITCHED = f"{INSIDE}::test_eight_threads_that_a_seed_switches_lose_no_request_and_no_bit"

THREADS = [
    Defect(
        "a change of the queue takes no lock",
        f"{ENGINE}/keeping.py",
        "        with self._lock:\n            self._check_open()\n",
        "        if parcel:\n            self._check_open()\n",
        SWITCHED,
    ),
    Defect(
        "a tick commits without a lock",
        PIPELINE,
        "        with self._lock:\n            counted = plan.counted(",
        "        if plan:\n            counted = plan.counted(",
        SWITCHED,
    ),
    Defect(
        "what a running tick admits still fills the queue",
        STATE,
        "max(len(state.queue) - state.depth, 0)",
        "max(len(state.queue) + len(state.taken) - state.depth, 0)",
        f"{INSIDE}::test_a_submission_inside_a_run_finds_the_queue_without_what_the_tick_admits",
    ),
    Defect(
        "what a running tick holds is dropped in silence",
        STATE,
        "        gone=(*state.gone, *gone),\n",
        "        gone=state.gone,\n",
        f"{INSIDE}::test_another_length_inside_a_run_drops_what_waits_at_once_and_what_runs_at_the_next_tick",
    ),
    Defect(
        "what a failed tick took is lost",
        STATE,
        "(*back, *self.queue)",
        "self.queue",
        f"{INSIDE}::test_a_tick_that_fails_puts_back_what_it_took_before_what_came_meanwhile",
    ),
    Defect(
        "a failed tick takes back what others have changed",
        STATE,
        "replace(self, before=None, stats=counted",
        "replace(self, stats=counted",
        f"{INSIDE}::test_a_tick_that_fails_puts_back_what_it_took_before_what_came_meanwhile",
    ),
    Defect(
        "pipelines take no turns on the executor that they share",
        TURNS,
        "        with self._lock:\n            self._inside =",
        "        if self._what:\n            self._inside =",
        f"{SHARING}::test_threads_that_a_seed_switches_inside_ticks_share_an_executor",
    ),
    Defect(
        "every pipeline has a turn of its own",
        TURNS,
        "            if known is None:\n",
        "            if known is None or executor.max_rows:\n",
        f"{SHARING}::test_pipelines_of_an_executor_have_one_turn_which_goes_with_the_executor",
    ),
    Defect(
        "threads share the mask of a decoder",
        f"{ENGINE}/decoders/ace_step.py",
        "nullcontext() if torch.compiler.is_compiling() else self._lock",
        "nullcontext()",
        f"{SHARING}::test_threads_that_a_seed_switches_inside_runs_share_a_decoder",
    ),
    Defect(
        "a tick forgets what was marked while it ran",
        f"{ENGINE}/pace.py",
        "        self._marks.clear()\n",
        "        self._marks.clear()\n        self._fresh.clear()\n",
        "tests/engine/test_pace.py::test_what_is_marked_while_a_tick_runs_is_waited_for_by_the_next_one",
    ),
    Defect(
        "a drain that fails loses what had finished",
        STATE,
        "kept=self.kept.joined(outcomes, ",
        "kept=Outcomes().joined(outcomes, ",
        f"{FAILURES}::test_a_drain_whose_tick_fails_keeps_what_it_has_for_the_next_call",
    ),
]

FAILING = [
    Defect(
        "a callback that raises fails the tick",
        f"{ENGINE}/callbacks.py",
        "    except Exception as error:\n",
        "    except LookupError as error:\n",
        f"{FAILURES}::test_a_callback_that_misbehaves_fails_its_request_alone",
    ),
    Defect(
        "a request that fails before its first step was never admitted",
        f"{ENGINE}/plan.py",
        " + sum(each.step == 0 for each in self.failed)",
        "",
        f"{FAILURES}::test_a_request_that_fails_before_its_first_step_was_admitted_and_runs_no_row",
    ),
    Defect(
        "a stream submits again whatever failed",
        f"{ENGINE}/session.py",
        "        if not self._waits(asked):\n",
        "        if asked:\n",
        f"{FAILURES}::test_a_tick_of_a_stream_that_is_run_again_submits_once",
    ),
    Defect(
        "a stream never submits a request again",
        f"{ENGINE}/session.py",
        "            self.last_submission, self._pending = submission, None\n",
        "            self.last_submission = submission\n",
        f"{FAILURES}::test_a_request_of_a_stream_may_be_asked_for_in_every_tick",
    ),
    Defect(
        "the widths of a decoder are not looked at",
        f"{ENGINE}/geometry.py",
        "        self.check_widths(executor)\n",
        "",
        f"{FAILURES}::test_a_first_request_of_another_width_than_the_decoder_s_is_refused_by_name",
    ),
    Defect(
        "a request that no tick could run fixes the sizes",
        STATE,
        "self.geometry if self.proven or self.queue or self.held else None",
        "self.geometry",
        f"{FAILURES}::test_a_first_request_that_no_tick_can_run_fixes_no_sizes_once_it_is_cancelled",
    ),
    Defect(
        "a sum that is not finite is taken for a value that is not",
        f"{ENGINE}/finite.py",
        "    exact = torch.isfinite(velocity).all(dim=2).all(dim=1).tolist()\n",
        "    exact = [False] * len(rows)\n",
        f"{VELOCITIES}::test_a_velocity_whose_sum_is_not_finite_is_finite",
    ),
    Defect(
        "no run is looked at",
        f"{ENGINE}/execute.py",
        "        machinery.looks.append(seen)\n",
        "",
        f"{VELOCITIES}::test_a_velocity_that_is_not_finite_fails_its_request_by_name_at_its_first_bad_step",
    ),
    Defect(
        "the last bad step is named",
        f"{ENGINE}/verdicts.py",
        "failures([each.look], each.slots) | found",
        "found | failures([each.look], each.slots)",
        f"{VELOCITIES}::test_a_drain_names_the_first_bad_step",
    ),
    Defect(
        "a verdict is read before it is due",
        f"{ENGINE}/verdicts.py",
        "        return asked <= tick - self._ahead - 1\n",
        "        return asked <= tick - self._ahead\n",
        f"{VELOCITIES}::test_it_is_known_at_the_tick_itself_or_as_many_ticks_later_as_the_host_may_be_ahead",
    ),
    Defect(
        "a tick that fails forgets what it has read",
        STATE,
        "            return self.before\n",
        "            return replace(self.before, memory=Memory())\n",
        f"{VELOCITIES}::test_a_tick_that_fails_forgets_no_verdict_and_adds_none",
    ),
    Defect(
        "a request is named again after it was",
        f"{ENGINE}/verdicts.py",
        "if key not in due.late and not self._is_due(at, tick)",
        "if not self._is_due(at, tick)",
        f"{VELOCITIES}::test_as_on_a_gpu_a_latent_may_be_handed_out_before_its_request_is_named",
    ),
    Defect(
        "a velocity of another width than declared is taken",
        f"{ENGINE}/execute.py",
        "declared(machinery.executor).dtype)",
        "None)",
        f"{VELOCITIES}::test_a_velocity_of_another_width_than_the_model_s_from_a_run_under_autocast_is_refused",
    ),
    Defect(
        "what a running tick reads of its ring may have changed",
        PIPELINE,
        "            due = due.among(seen.ring, state.ring)\n",
        "",
        f"{INSIDE}::test_what_is_told_before_a_tick_takes_anything_is_done_at_once",
    ),
    Defect(
        "an interrupt ends with 1",
        "harness/commands/exits.py",
        "INTERRUPTED = 130\n",
        "INTERRUPTED = 1\n",
        f"{ENDINGS}::test_a_command_that_ends_this_way_has_this_code",
    ),
    Defect(
        "a crash ends with Python's own code",
        "harness/commands/endings.py",
        "    except Exception:  # noqa: BLE001 - a crash of any kind is no verdict\n",
        "    except LookupError:\n",
        f"{ENDINGS}::test_a_command_that_ends_this_way_has_this_code",
    ),
    Defect(
        "the output is written when it is too late for a code",
        "harness/commands/endings.py",
        "        except SystemExit:\n            _flush()\n",
        "        except SystemExit:\n",
        f"{ENDINGS}::test_a_verdict_whose_report_finds_no_room_is_none",
    ),
]
