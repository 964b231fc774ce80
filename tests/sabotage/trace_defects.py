"""Defects of traces: what is recorded, how the file is read, what a replay compares; each with its test."""

from __future__ import annotations

from tests.sabotage.runner import Defect

TRACES, TESTS = "harness/parity/traces", "tests/parity/traces"
FRAMES, T_FRAMES = "harness/files/frames.py", "tests/files/test_frames.py"

TRACE_DEFECTS = [
    Defect(
        "the bytes of a blessed trace are not looked at",
        f"{TRACES}/kept.py",
        "        if hashlib.sha256(data).hexdigest() != entry.sha256:\n",
        "        if not data:\n",
        f"{TESTS}/test_kept.py::test_a_blessed_trace_that_is_not_what_was_blessed_fails",
    ),
    Defect(
        "a trace is blessed without a replay",
        f"{TRACES}/kept.py",
        "    play(source)\n",
        "",
        f"{TESTS}/test_kept.py::test_a_digest_that_moved_is_named_with_the_blessed_trace",
    ),
    Defect(
        "a call waits for every copy from a GPU",
        f"{TRACES}/writer.py",
        "        while self._waiting and (len(self._waiting) > behind or",
        "        while self._waiting and (len(self._waiting) > 0 * behind or",
        f"{TESTS}/test_writer.py::test_a_call_waits_for_a_copy_only_where_too_many_are_on_their_way",
    ),
    Defect(
        "a record says nothing of those before it",
        FRAMES,
        "        self._last = hasher.digest()\n        return self._last\n",
        "        return hasher.digest()\n",
        f"{T_FRAMES}::test_frames_that_were_moved_left_out_or_doubled_are_refused",
    ),
    Defect(
        "a wrong length is taken for the end of the file",
        FRAMES,
        "if len(head) == _HEAD and head != chain.head(",
        "if head[:1] == b'' and head != chain.head(",
        f"{T_FRAMES}::test_any_byte_that_was_altered_is_refused",
    ),
    Defect(
        "the digest behind a record is not looked at",
        FRAMES,
        "if self._read(at + _HEAD + length, _DIGEST) != chain.digest(head, payload):",
        "if chain.digest(head, payload) == b'':",
        f"{T_FRAMES}::test_any_byte_that_was_altered_is_refused",
    ),
    Defect(
        "a file that ends inside a record is taken for a whole one",
        FRAMES,
        '                self.cut = f"the file ends at byte {self._size}, inside',
        '                _ = f"the file ends at byte {self._size}, inside',
        f"{T_FRAMES}::test_a_file_that_was_cut_off_anywhere_is_read_up_to_its_last_whole_frame",
    ),
    Defect(
        "a trace without an end is taken for a whole one",
        f"{TRACES}/reading.py",
        "        if not ended:\n",
        "        if not ended and self._frames.cut:\n",
        f"{TESTS}/test_reading.py::test_a_trace_that_was_cut_off_at_any_byte_has_its_whole_events_or_is_refused",
    ),
    Defect(
        "the platform of a trace is not asked for",
        f"{TRACES}/replay.py",
        "        if differing and not any_platform:\n",
        "        if any_platform and not differing:\n",
        f"{TESTS}/test_reading.py::test_a_trace_of_another_platform_is_not_compared_unless_it_is_asked_for",
    ),
    Defect(
        "what the replay did not make is not missed",
        f"{TRACES}/replay.py",
        "    if len(made) < len(event.made):\n",
        "    if len(made) > len(event.made):\n",
        f"{TESTS}/test_replay.py::test_a_value_that_is_recorded_and_not_made_is_a_difference",
    ),
    Defect(
        "digests are not compared",
        f"{TRACES}/replay.py",
        "        if found != recorded:\n",
        "        if found != recorded and not isinstance(what, Tensor):\n",
        f"{TESTS}/test_foreign.py::test_one_ulp_in_the_state_is_named_at_its_tick",
    ),
    Defect(
        "a step that no longer raises passes",
        f"{TRACES}/replay.py",
        "    if raised != event.raised:\n",
        "    if raised and raised != event.raised:\n",
        f"{TESTS}/test_foreign.py::test_a_tick_that_no_longer_raises_is_a_difference",
    ),
    Defect(
        "a replay draws other random numbers than the recorded ring",
        f"{TRACES}/replay.py",
        "                source.write(state)\n",
        "                pass\n",
        f"{TESTS}/test_foreign.py::test_a_replay_draws_the_numbers_that_the_recorded_ring_drew",
    ),
    Defect(
        "slots are not recorded",
        f"{TRACES}/pipeline.py",
        '(_slots(pipeline) if call == "tick" else [])',
        '(_slots(pipeline) if call == "drain" else [])',
        f"{TESTS}/test_pipeline.py::test_one_ulp_in_a_decoder_run_is_named_at_its_tick",
    ),
    Defect(
        "the latents of a drain are not recorded",
        f"{TRACES}/pipeline.py",
        'made += [(f"{name}: counts", counts), (f"{name}: latent", each.latent)]',
        'made += [(f"{name}: counts", counts)]',
        f"{TESTS}/test_pipeline.py::test_one_ulp_within_a_drain_is_named_by_the_latent",
    ),
    Defect(
        "an event is stored as the ring has left it",
        f"{TRACES}/host.py",
        "else copied(tensor, name)",
        "else tensor",
        f"{TESTS}/test_foreign.py::test_an_event_is_stored_as_it_was_given_also_where_the_ring_writes_to_it",
    ),
    Defect(
        "an event that cannot be stored fails the ring",
        f"{TRACES}/recording.py",
        "        except Exception as error:  # noqa: BLE001 - what fails in a recording",
        "        except OSError as error:  # noqa: BLE001 - what fails in a recording",
        f"{TESTS}/test_foreign.py::test_an_event_that_cannot_be_stored_stops_the_recording_and_not_the_ring",
    ),
    Defect(
        "the digests of all tensors are remembered",
        f"{TRACES}/writer.py",
        "        if len(self._known) >= self._remember:\n",
        "        if len(self._known) > 10 * self._remember:\n",
        f"{TESTS}/test_recording.py::test_tensors_that_were_forgotten_are_stored_again_and_read",
    ),
    Defect(
        "a tensor is stored each time that it comes",
        f"{TRACES}/writer.py",
        "        if key not in self._known:\n",
        "        if key:\n",
        f"{TESTS}/test_recording.py::test_a_tensor_is_stored_once_however_often_it_comes",
    ),
    Defect(
        "two recordings share a ring",
        f"{TRACES}/recording.py",
        "            if id(ring) in _RECORDED:\n",
        "            if ring in ():\n",
        f"{TESTS}/test_recording.py::test_two_recordings_of_one_ring_are_refused",
    ),
    Defect(
        "the ticks of a drain that raised are not played",
        f"{TRACES}/engine_replay.py",
        "        for _ in range(missing):\n",
        "        for _ in range(0 * missing):\n",
        f"{TESTS}/test_pipeline.py::test_the_ticks_of_a_drain_that_raised_are_played_and_its_latents_come_next",
    ),
]
