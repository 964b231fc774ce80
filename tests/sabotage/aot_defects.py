"""The defects of ahead-of-time engines: files, plans, the executors that run them, layer profiles."""

from __future__ import annotations

from tests.sabotage.runner import Defect

_AOT, _EXECUTORS, _RAILS = "harness/engine/aot", "harness/engine/executors", "harness/rails"
_T_AOT, _T_EXECUTORS, _T_RAILS = "tests/engine/aot", "tests/engine/executors", "tests/rails"

FILES = [
    Defect(
        "folded constants keep NumPy's bits",
        f"{_AOT}/constants.py",
        "        value.const_value = onnx_ir",
        "        _ = onnx_ir",
        f"{_T_AOT}/test_constants.py"
        "::test_folded_frequencies_have_torchs_bits_and_numpys_would_be_twice_as_far_from_float64",
    ),
    Defect(
        "an exported file may be as far from float64 as a NaN",
        f"{_AOT}/closeness.py",
        "        return self.file <= FACTOR * self.torch\n",
        "        return not self.file > FACTOR * self.torch\n",
        f"{_T_AOT}/test_closeness.py::test_the_bound_is_twice_torchs_own_distance[nan-False]",
    ),
    Defect(
        "a file with a frozen batch is taken",
        f"{_AOT}/onnx_file.py",
        "    if rows != (Span(1), 1):\n",
        "    if rows[0] is None:\n",
        f"{_T_AOT}/test_onnx_file.py::test_a_file_is_read_and_a_frozen_batch_in_it_refused",
    ),
    Defect(
        "a plan for another driver is used again",
        f"{_AOT}/sidecar.py",
        'if f.name not in ("plan_sha256", "layers"))',
        'if f.name not in ("plan_sha256", "layers", "driver"))',
        f"{_T_AOT}/test_build.py::test_a_plan_that_differs_in_a_field_is_built_anew_and_the_field_is_named[driver]",
    ),
    Defect(
        "a truncated plan is read",
        f"{_AOT}/sidecar.py",
        "    if hashlib.sha256(data).hexdigest() != sidecar.plan_sha256:\n",
        "    if not data:\n",
        f"{_T_AOT}/test_sidecar.py::test_a_truncated_or_altered_plan_is_refused[cut]",
    ),
    Defect(
        "an engine's inputs and outputs are taken for layers",
        f"{_AOT}/layers.py",
        ' and ", LayerType: " in line:\n',
        ":\n",
        f"{_T_AOT}/test_layers.py::test_a_builders_printout_gives_the_final_layers_and_no_tensors",
    ),
]

ONNX = [
    Defect(
        "an output of ONNX Runtime that the next run overwrites is not poisoned",
        f"{_EXECUTORS}/onnx.py",
        "            for each in self._buffers.values():\n                _poison(each)\n",
        "",
        f"{_T_EXECUTORS}/test_onnx.py"
        "::test_a_velocity_that_was_not_copied_is_poisoned_by_the_next_run_of_another_shape[kept]",
    ),
    Defect(
        "a batch outside the profile is let through",
        f"{_EXECUTORS}/onnx.py",
        "        self.signature.check(batch, self.max_rows)\n",
        "",
        f"{_T_EXECUTORS}/test_onnx.py::test_what_is_outside_the_profile_is_refused_before_anything_is_allocated",
    ),
    Defect(
        "ONNX Runtime may reassociate divisions",
        f"{_AOT}/runtime.py",
        "disabled_optimizers=list(REASSOCIATING)",
        "disabled_optimizers=[]",
        "tests/parity/proofs/test_float64.py"
        "::test_with_the_affine_decoder_every_tick_has_the_eager_executor_s_bits[ode_plain]",
    ),
    Defect(
        "an engine may be as far from float64 as a NaN",
        "harness/parity/proofs/float64.py",
        "distance <= bound else Verdict",
        "not distance > bound else Verdict",
        "tests/parity/proofs/test_float64.py::test_the_bound_is_twice_the_eager_executor_s_distance",
    ),
    Defect(
        "a check of an engine that compared nothing passes",
        "harness/commands/check_report.py",
        "played = self.captures is not None and self.captures.compared",
        "played = self.captures is not None",
        "tests/commands/test_on_engine.py::test_check_that_compares_nothing_could_not_run",
    ),
]

TENSORRT = [
    Defect(
        "an odd run sees a frame of the even one before it",
        f"{_EXECUTORS}/static_buffers.py",
        "        target[:, frames:].zero_()\n",
        "",
        f"{_T_EXECUTORS}/tensorrt/test_executor.py::test_an_odd_run_after_an_even_one_of_its_buffers_sees_no_frame_of_it",
    ),
    Defect(
        "what a refused call left is taken for bound",
        f"{_EXECUTORS}/tensorrt/context.py",
        "bound, self._bound = self._bound, None",
        "bound = self._bound",
        f"{_T_EXECUTORS}/tensorrt/test_context.py"
        "::test_what_it_refuses_is_named_and_the_next_run_binds_everything_anew[execute-no]",
    ),
    Defect(
        "a call that TensorRT refuses passes",
        f"{_EXECUTORS}/tensorrt/context.py",
        "    if answer is not True:",
        "    if answer is None:",
        f"{_T_EXECUTORS}/tensorrt/test_executor.py"
        "::test_a_call_that_is_refused_is_named_and_the_next_run_is_a_good_one[False-set_tensor_address]",
    ),
    Defect(
        "the ceiling is that of whichever input comes last",
        f"{_EXECUTORS}/tensorrt/engine.py",
        "spans[axis].met(span)",
        "spans[axis]",
        f"{_T_EXECUTORS}/tensorrt/test_engine.py::test_the_most_rows_are_the_fewest_that_any_input_allows[timestep]",
    ),
    Defect(
        "kernels are compiled behind the runs, which have other bits until then",
        f"{_EXECUTORS}/tensorrt/runtime.py",
        "strategies.EAGER",
        "strategies.LAZY",
        f"{_T_EXECUTORS}/tensorrt/test_runtime.py"
        "::test_rtx_compiles_a_shape_s_kernels_before_its_first_run_and_not_behind_the_runs",
    ),
    Defect(
        "buffers of a TensorRT engine are freed while a run uses them",
        f"{_EXECUTORS}/tensorrt/executor.py",
        "        self.stream.wait()\n        self.stream.launch(work)\n",
        "        self.stream.launch(work)\n",
        f"{_T_EXECUTORS}/tensorrt/test_executor.py::test_buffers_are_made_and_freed_only_when_no_run_uses_them[eviction]",
    ),
    Defect(
        "a batch is let go while its run reads it",
        f"{_EXECUTORS}/tensorrt/executor.py",
        "        self._running = batch\n",
        "        self._running = None\n",
        f"{_T_EXECUTORS}/tensorrt/test_executor.py::test_a_batch_is_kept_until_the_next_run_may_no_longer_read_it",
    ),
    Defect(
        "a plan for another driver is loaded",
        f"{_EXECUTORS}/tensorrt/executor.py",
        "        here.check(recorded, self._runtime.here(found))\n",
        "",
        f"{_T_EXECUTORS}/tensorrt/test_plans.py"
        "::test_a_plan_for_something_else_is_refused_by_the_field_that_differs[driver-580.1]",
    ),
]

_WALL = "wall = [_milliseconds(subject.run) for _ in range(iters)]"
_PROFILED = "layers, resolved = subject.layers(iters, warmup)"

LAYERS = [
    Defect(
        "an opaque blob counts as what its name holds",
        f"{_RAILS}/profile/rules.py",
        r'Named(r"\{ForeignNode\[")',
        r'Named(r"^\{ForeignNode\[[^/]*$")',
        f"{_T_RAILS}/profile/test_rules.py"
        "::test_nothing_inside_an_opaque_blob_is_read_whatever_its_name_and_metadata_say",
    ),
    Defect(
        "the residual loses its sign",
        f"{_RAILS}/profile/report.py",
        "else self.wall - self.sum_ms",
        "else abs(self.wall - self.sum_ms)",
        f"{_T_RAILS}/profile/test_report.py::test_the_residual_is_the_wall_time_without_the_layers_with_its_sign",
    ),
    Defect(
        "what no rule matches counts as attributed",
        f"{_RAILS}/profile/report.py",
        "return self._part(UNATTRIBUTED)",
        "return self._part((Category.OPAQUE,))",
        f"{_T_RAILS}/profile/test_report.py::test_unattributed_is_what_is_opaque_and_what_no_rule_matches",
    ),
    Defect(
        "the wall time is taken while a profiler is on",
        f"{_RAILS}/profile/sources.py",
        f"    {_WALL}\n    {_PROFILED}\n",
        f"    {_PROFILED}\n    {_WALL}\n",
        f"{_T_RAILS}/profile/test_sources.py::test_the_wall_time_is_taken_before_any_profiler_is_on",
    ),
    Defect(
        "runs that warm up count in a layer's average",
        f"{_RAILS}/profile/onnx.py",
        ' and event["ts"] >= started[warmup]',
        "",
        f"{_T_RAILS}/profile/test_onnx.py"
        "::test_a_nodes_time_is_its_average_over_the_profiled_runs_and_not_over_those_that_warm_up",
    ),
]

_EMBEDDED = "tests/engine/executors/test_embedded.py"
_RECORDED = f"{_EXECUTORS}/recorded.py"

KEPT_CONDITIONS = [
    Defect(
        "a condition is embedded at every run",
        _RECORDED,
        "if self._embedding is not None and ENCODER in names:",
        "if self._embedding is not None:",
        f"{_EMBEDDED}::test_a_condition_is_embedded_once_and_the_decoder_takes_it_in_place_of_the_states",
    ),
    Defect(
        "an update asks the recorded embedding whether it is current",
        f"{_EXECUTORS}/cuda_graph.py",
        "self._decode(embedded(recorded.given, self._embed))",
        "self._decode(recorded.inputs)",
        f"{_EMBEDDED}::test_after_an_update_a_recorded_embedding_that_reads_old_memory_is_recorded_anew",
    ),
    Defect(
        "an embedding is recorded unchecked",
        f"{_EXECUTORS}/embedded.py",
        "    if not torch.equal(target.view(torch.uint8), expected.contiguous().view(torch.uint8)):\n",
        "    if False:\n",
        f"{_EMBEDDED}::test_a_condition_that_changes_from_call_to_call_is_refused_where_it_is_recorded",
    ),
    Defect(
        "a condition of the old weights outlives an update",
        _RECORDED,
        "        self._held.clear()\n        self._fill(",
        "        self._fill(",
        f"{_EMBEDDED}::test_after_an_update_no_condition_of_the_old_weights_is_read",
    ),
    Defect(
        "autocast of the caller reaches a condition",
        f"{_EXECUTORS}/embedded.py",
        ", torch.autocast(states.device.type, enabled=False):",
        ":",
        f"{_EMBEDDED}::test_the_caller_s_modes_change_no_condition",
    ),
    Defect(
        "conditions that are kept count no bytes",
        _RECORDED,
        "for batch in (self.given, self.inputs) for each",
        "for batch in (self.given,) for each",
        f"{_EMBEDDED}::test_the_bytes_of_states_and_conditions_are_both_reported",
    ),
    Defect(
        "an ablation turns every acceleration off at once",
        f"{_RAILS}/bench/ablation.py",
        "load.decoder_switches.turned_off(name) for name in",
        "load.decoder_switches.turned_off(*load.decoder_switches.on) for name in",
        f"{_T_RAILS}/bench/test_ablation.py::test_the_one_acceleration_that_is_off_is_that_of_the_row",
    ),
]

_T_CODE = f"{_T_AOT}/test_code_file.py"
CODE = [
    Defect(
        "altered code is loaded",
        f"{_AOT}/code_record.py",
        "    if hashlib.sha256(data).hexdigest() != record.code_sha256:\n",
        "    if not data:\n",
        f"{_T_AOT}/test_code_record.py::test_truncated_or_altered_code_is_refused[cut]",
    ),
    Defect(
        "code of another machine is loaded",
        f"{_AOT}/code_file.py",
        "        code_record.check(record, code_record.here(decoder, device))\n",
        "",
        f"{_T_CODE}::test_code_of_something_else_is_refused_by_the_field_that_differs[processor]",
    ),
    Defect(
        "a decoder's structure is that of its class alone",
        f"{_AOT}/code_record.py",
        "    for line in _parts(decoder):\n",
        "    for line in [next(_parts(decoder))]:\n",
        f"{_T_AOT}/test_code_record.py::test_another_dtype_width_class_or_acceleration_is_another_structure",
    ),
    Defect(
        "shapes that the file of code has not are compiled",
        f"{_AOT}/code_file.py",
        "            if shape not in record.shapes:\n",
        "            if False:\n",
        f"{_T_CODE}::test_shapes_and_rows_that_the_file_has_not_are_refused_before_anything_is_compiled",
    ),
    Defect(
        "kernels are compared up to the end of the shorter list",
        f"{_AOT}/code_file.py",
        "    pairs = enumerate(zip_longest(recorded, kernels))\n",
        "    pairs = enumerate(zip(recorded, kernels))\n",
        f"{_T_CODE}::test_the_first_kernel_that_differs_is_named[found2-expected2]",
    ),
    Defect(
        "other kernels are reported where they are to be refused",
        f"{_AOT}/code_file.py",
        "        if self._mode is OtherKernels.REFUSE:\n",
        "        if False:\n",
        f"{_T_CODE}::test_prepare_refuses_other_kernels_or_reports_them_or_does_not_look",
    ),
    Defect(
        "Triton's lists name the folder of another process",
        f"{_AOT}/code_file.py",
        "    return data.replace(old, new) if file.name.startswith(_LISTS) else data\n",
        "    return data\n",
        f"{_T_CODE}::test_the_code_is_unpacked_where_nobody_else_can_write_and_is_gone_after_close",
    ),
    Defect(
        "graphs that no cache saw are not counted as compiled",
        f"{_EXECUTORS}/compiler.py",
        "            self.compiled += graphs - loaded\n",
        "            self.compiled += 0\n",
        f"{_T_EXECUTORS}/test_compiler.py::test_an_error_in_the_block_does_not_lose_the_count",
    ),
    Defect(
        "an archive's path leads out of its folder",
        "harness/files/archive.py",
        "        if not all(map(_PART.fullmatch, parts)) or ",
        "        if ",
        "tests/files/test_archive.py::test_a_path_that_may_lead_out_of_the_folder_is_refused[../a]",
    ),
    Defect(
        "a file of an archive is the folder of another one",
        "harness/files/archive.py",
        "        if following[: len(one)] == one:\n",
        "        if following == one:\n",
        "tests/files/test_archive.py::test_a_path_that_is_there_twice_is_refused[names2]",
    ),
    Defect(
        "what another stream does counts as a gap",
        f"{_RAILS}/profile/kernels.py",
        "        end = max(end, each.end)\n",
        "        end = each.end\n",
        f"{_T_RAILS}/profile/test_kernels.py::test_a_long_kernel_hides_the_ends_of_short_ones",
    ),
    Defect(
        "the time between two runs counts as a gap",
        f"{_RAILS}/profile/kernels.py",
        "        of_run[max(bisect_right(began, each.start), 1)].append(each)\n",
        "        of_run[1].append(each)\n",
        f"{_T_RAILS}/profile/test_kernels.py::test_a_gap_is_time_of_a_run_in_which_no_stream_works",
    ),
]

AHEAD_OF_TIME = [*FILES, *ONNX, *TENSORRT, *LAYERS, *KEPT_CONDITIONS, *CODE]
