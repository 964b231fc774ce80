"""Defects that only a GPU shows, and for each the test there that must notice it.

Each was seen red on an H100 or H200.

`python -m tests.sabotage --gpu` plants them, on a machine that has one.
"""

from __future__ import annotations

from tests.sabotage.runner import Defect

PIPELINE, TRANSFER = "harness/engine/pipeline.py", "harness/engine/transfer.py"
PACE, SESSION = "harness/engine/pace.py", "harness/engine/session.py"
SUBMIT, KEPT = "tests/gpu/test_submit.py", "tests/gpu/test_kept.py"

ON_STREAMS = [
    Defect(
        "a tick does not wait for what another stream submitted",
        PIPELINE,
        "        ordered.mark(records.tensors((queued, controls)))\n",
        "",
        f"{SUBMIT}::test_submissions_and_ticks_may_run_on_any_stream",
    ),
    Defect(
        "a tick does not wait for the submissions of other streams",
        PACE,
        "        before = [event for stream, event in self._marks.items() if stream != current]\n",
        "        before = []\n",
        f"{SUBMIT}::test_submissions_and_ticks_may_run_on_any_stream",
    ),
    Defect(
        "a tick does not wait for the last one on another stream",
        PACE,
        "        before += [event for event, stream in list(self._ends)[-1:] if stream != current]\n",
        "",
        f"{KEPT}::test_a_tick_waits_for_the_last_one_on_another_stream",
    ),
    Defect(
        "a value is read before its copy has ended",
        TRANSFER,
        "                self._block.event.synchronize()\n",
        "",
        f"{SUBMIT}::test_a_request_that_ends_early_is_waited_for_before_its_latent_is_handed_out",
    ),
    Defect(
        "a host block is written to while its copy is in flight",
        TRANSFER,
        "                if block.event.query():\n",
        "                if True:\n",
        f"{SUBMIT}::test_a_gpu_that_lies_behind_gets_the_bits_that_were_meant[from a source]",
    ),
    Defect(
        "a stream does not wait for the copies of other streams",
        TRANSFER,
        'launched on the device\'s other streams."""\n',
        'launched on the device\'s other streams."""\n    return\n',
        f"{KEPT}::test_a_curve_that_a_record_copied_on_another_stream_is_there_when_the_tick_reads_it",
    ),
    Defect(
        "nobody learns of a copy that was launched",
        TRANSFER,
        'makes a tensor that a ring on any stream may read."""\n',
        'makes a tensor that a ring on any stream may read."""\n    return\n',
        f"{KEPT}::test_a_curve_that_a_record_copied_on_another_stream_is_there_when_the_tick_reads_it",
    ),
    Defect(
        "the null condition is read before another stream has made it",
        SESSION,
        "            note(states.device)\n",
        "",
        f"{KEPT}::test_a_session_s_null_condition_made_on_another_stream_is_there_when_the_tick_reads_it",
    ),
    Defect(
        "memory of a request is reused while the submitting stream reads it",
        PACE,
        "                tensor.record_stream(stream)\n",
        "                pass\n",
        f"{KEPT}::test_what_a_tick_reads_is_kept_until_the_tick_s_stream_is_done",
    ),
    Defect(
        "memory of a request is reused while the ticking stream reads it",
        PACE,
        "                tensor.record_stream(current)\n",
        "                pass\n",
        f"{KEPT}::test_what_a_tick_reads_is_kept_until_the_tick_s_stream_is_done",
    ),
    Defect(
        "memory of a failed tick is reused while its work still runs",
        PIPELINE,
        "                self._pace.mark(())\n",
        "                pass\n",
        f"{KEPT}::test_what_a_failed_tick_left_in_the_cache_is_kept_until_the_next_tick_s_stream_is_done",
    ),
    Defect(
        "memory of a control is reused while a tick reads it",
        PIPELINE,
        "        self._pace.mark(records.tensors(controls))\n",
        "",
        f"{KEPT}::test_a_control_that_was_replaced_is_kept_until_the_tick_s_stream_is_done",
    ),
    Defect(
        "the host runs ahead without a bound",
        PACE,
        "            self._ends[0][0].synchronize()\n",
        "",
        f"{SUBMIT}::test_the_host_is_never_further_ahead_than_asked",
    ),
    Defect(
        "a small host input is copied from pageable memory",
        TRANSFER,
        "    block, staged = _staged(host, device)\n    moved",
        "    moved = host.to(device)\n    note(device)\n    return moved\n    moved",
        f"{SUBMIT}::test_neither_record_nor_submission_nor_tick_waits_whatever_is_new",
    ),
    Defect(
        "what a kernel reads is written to while the kernel waits to run",
        TRANSFER,
        "    launch(staged)\n    block.mark()\n",
        "    launch(staged)\n",
        "tests/gpu/test_kernels.py::test_slots_of_launches_that_wait_for_the_gpu_keep_their_addresses",
    ),
]
"""Waits, order and memory of streams."""

RECORDED, GRAPH_EXECUTOR = "harness/engine/executors/recorded.py", "harness/engine/executors/cuda_graph.py"
PREPARED, WEIGHTS = "harness/engine/executors/prepared.py", "harness/engine/executors/weights.py"
STREAM, COMPILED = "harness/engine/executors/stream.py", "harness/engine/executors/compiled.py"
DECODER, TRITON = "harness/engine/decoders/ace_step.py", "harness/engine/kernels/triton_kernels.py"
LAUNCHES = "harness/engine/kernels/launches.py"
GRAPHS = "tests/gpu/test_graphs.py"
MEMORY, KERNELS = "tests/gpu/test_graph_memory.py", "tests/gpu/test_kernels.py"
SLOW = f"{GRAPHS}::test_a_slow_replay_is_never_read_too_early_nor_fed_too_late"
GUIDED = f"{KERNELS}::test_guidance_has_the_bits_of_its_plain_twin"

ON_GRAPHS = [
    Defect(
        "a replay starts before its inputs are made",
        STREAM,
        "        for stream in (self._current(), *self._readers):\n",
        "        for stream in self._readers:\n",
        f"{MEMORY}::test_a_run_starts_when_the_current_stream_has_made_its_inputs",
    ),
    Defect(
        "a velocity is overwritten while another stream reads it",
        STREAM,
        "        for stream in (self._current(), *self._readers):\n",
        "        for stream in (self._current(),):\n",
        f"{MEMORY}::test_a_run_starts_when_every_stream_has_read_the_velocity_before",
    ),
    Defect(
        "a velocity is read before its replay has ended",
        STREAM,
        "        self._current().wait_event(self._done)\n",
        "",
        SLOW,
    ),
    Defect(
        "a replay is skipped where no condition changed",
        RECORDED,
        "        self.replay()\n\n    def refill",
        "        if set(changed) & set(STEADY):\n            self.replay()\n\n    def refill",
        f"{GRAPHS}::test_a_steady_ring_records_nothing_waits_for_nothing_and_replays_every_run",
    ),
    Defect(
        "a bucket's padding row is read",
        GRAPH_EXECUTOR,
        "        return recorded.output[: batch.rows]\n",
        "        return recorded.output[-batch.rows :]\n",
        f"{GRAPHS}::test_a_replay_has_the_bits_of_the_unrecorded_decoder_with_the_bucket_s_rows",
    ),
    Defect(
        "a condition of another ring is taken for unchanged",
        RECORDED,
        "held[0] is source and",
        "held[0].shape == source.shape and",
        f"{GRAPHS}::test_two_rings_that_take_turns_on_one_executor_each_keep_their_conditions",
    ),
    Defect(
        "a graph is replayed after its memory was given back",
        PREPARED,
        "            self.drop([victim])\n",
        "            for recorded in self._shapes[victim].by_rows.values():\n"
        "                self._free(recorded)\n"
        "            self._shapes[victim].evictable = False\n"
        "            return\n",
        f"{MEMORY}::test_shapes_that_come_back_after_an_eviction_make_their_bits_again",
    ),
    Defect(
        "weights that were replaced are freed while graphs read them",
        WEIGHTS,
        "                self.held.append(each.detach())\n",
        "                pass\n",
        f"{MEMORY}::test_weights_that_move_without_an_update_stay_in_memory_while_graphs_read_them",
    ),
    Defect(
        "a batch is freed while its run reads it",
        GRAPH_EXECUTOR,
        "        self._running = batch\n",
        "",
        f"{MEMORY}::test_a_batch_is_kept_until_its_run_has_read_it",
    ),
    Defect(
        "a recording forbids other threads the GPU",
        RECORDED,
        'capture_error_mode="thread_local"',
        'capture_error_mode="global"',
        f"{MEMORY}::test_another_thread_may_use_the_gpu_while_a_graph_is_recorded",
    ),
    Defect(
        "kernels are compiled in the first tick that needs them",
        GRAPH_EXECUTOR,
        "            kernels.prepare(self._device, shape.channels)\n",
        "            pass\n",
        f"{MEMORY}::test_no_tick_compiles_a_kernel",
    ),
    Defect(
        "the compiler chooses kernels by a race of timings",
        COMPILED,
        '"deterministic": True',
        '"deterministic": False',
        f"{GRAPHS}::test_compiled_code_makes_the_same_bits_when_it_is_compiled_again_under_other_conditions",
    ),
    Defect(
        "compiled layers keep the frames innermost",
        DECODER,
        '        if self.device.type == "cuda":\n            transformer.proj_in_conv',
        "        if False:\n            transformer.proj_in_conv",
        f"{GRAPHS}::test_compiled_layers_multiply_contiguous_rows",
    ),
    Defect(
        "a kernel fuses a product and a sum",
        LAUNCHES,
        '"enable_fp_fusion": False',
        '"enable_fp_fusion": True',
        GUIDED,
    ),
    Defect(
        "a kernel divides without rounding right",
        TRITON,
        "        ratio = tl.div_rn(v_norm.to(tl.float32), norm)\n",
        "        ratio = v_norm.to(tl.float32) / norm\n",
        GUIDED,
    ),
    Defect(
        "a kernel rounds squares before it adds them",
        TRITON,
        "        average = tl.where(inside, average, 0.0).to(tl.float64)\n",
        "        average = tl.where(inside, average, 0.0)\n",
        GUIDED,
    ),
    Defect(
        "a kernel takes an infinite velocity for a finite one",
        TRITON,
        "    bad = (value - value) != 0.0\n",
        "    bad = value != value\n",
        f"{KERNELS}::test_a_value_that_is_not_finite_is_found_in_its_row_wherever_it_is",
    ),
    Defect(
        "a kernel looks past the end of a row",
        TRITON,
        "    value = tl.load(source + row * size + place, inside, 0.0).to(tl.float32)\n",
        "    value = tl.load(source + row * size + place).to(tl.float32)\n",
        f"{KERNELS}::test_a_value_that_is_not_finite_is_found_in_its_row_wherever_it_is",
    ),
    Defect(
        "a look is read before its kernel has ended",
        TRANSFER,
        "    launch(held)\n    block.mark()\n",
        "    launch(held)\n",
        f"{KERNELS}::test_flags_are_read_when_their_kernel_has_ended",
    ),
]
"""Recorded runs, compiled code and kernels."""

ON_GPU = [*ON_STREAMS, *ON_GRAPHS]
