"""The defects, and for each the test that must notice it.

Every optimization has at least three. Each name is a claim of its own: take the defect out of the list, and nothing
shows any more that the test could fail.
"""

from __future__ import annotations

from tests.sabotage.anybody_defects import ANYBODY
from tests.sabotage.aot_defects import AHEAD_OF_TIME
from tests.sabotage.fault_defects import FAULTY
from tests.sabotage.file_defects import FILE_DEFECTS
from tests.sabotage.judge_defects import JUDGE
from tests.sabotage.record_defects import RECORDS
from tests.sabotage.ring_defects import RINGS
from tests.sabotage.runner import Defect
from tests.sabotage.script_defects import SCRIPTS
from tests.sabotage.terminal_defects import TERMINAL
from tests.sabotage.thread_defects import FAILING, THREADS
from tests.sabotage.trace_defects import TRACE_DEFECTS

ENGINE, PARITY = "harness/engine", "harness/parity"
EXECUTE, PLAN, PIPELINE = f"{ENGINE}/execute.py", f"{ENGINE}/plan.py", f"{ENGINE}/pipeline.py"
STATE = f"{ENGINE}/state.py"
ADVANCE, CONDITIONING, SLOT = f"{ENGINE}/advance.py", f"{ENGINE}/conditioning.py", f"{ENGINE}/slot.py"
STREAM, STATIC, NOISE = f"{ENGINE}/executors/stream.py", f"{ENGINE}/executors/static.py", f"{ENGINE}/noise.py"
LOCKSTEP, COMPARE = f"{PARITY}/proofs/lockstep.py", f"{PARITY}/compare.py"

SWITCHES = "tests/parity/proofs/test_switches.py::test_off_equals_on_whatever_happens"
LAWS, STEADY = "tests/parity/proofs/test_laws.py", "tests/engine/test_steady_tick.py"
ORACLE = "tests/parity/proofs/test_oracle.py::test_every_request_of_the_battery_ends_with_the_bits_it_has_alone"
READS = f"{STEADY}::test_a_tick_reads_no_tensor_on_the_host"
T_EXECUTE, T_PIPELINE, T_PLAN = (
    "tests/engine/test_execute.py",
    "tests/engine/test_pipeline.py",
    "tests/engine/test_plan.py",
)
T_CACHE, T_NOISE = "tests/engine/test_conditioning.py", "tests/engine/test_noise.py"
T_STREAM, T_STATIC = "tests/engine/executors/test_stream.py", "tests/engine/executors/test_static.py"
T_LOCKSTEP = "tests/parity/proofs/test_lockstep.py"

FUSED = [
    Defect(
        "the copy of a shared output buffer is dropped",
        EXECUTE,
        "copy=number + 1 < len(plan.runs)",
        "copy=False",
        f"{T_EXECUTE}::test_two_passes_over_one_output_buffer_guide_with_two_velocities",
        "fused_cfg",
        "guidance was computed from equal velocities",
    ),
    Defect(
        "the halves of the fused batch are swapped",
        EXECUTE,
        "            v = velocity[position : position + 1]\n",
        "            place = (position + len(rows) // 2) % len(rows)\n            v = velocity[place : place + 1]\n",
        f"{SWITCHES}[fused_cfg-eager]",
        "fused_cfg",
    ),
    Defect(
        "negative rows run at the time of the slot before",
        PLAN,
        "negatives = [Row(p.index, n, c, True, p.t) for p in slots for n, c in enumerate(p.negatives)]",
        "negatives = [Row(p.index, n, c, True, q.t) for q, p in zip(slots[-1:] + slots, slots) "
        "for n, c in enumerate(p.negatives)]",
        f"{ORACLE}[cfg_full-eager]",
        "fused_cfg",
    ),
    Defect(
        "a run that just fits is split",
        f"{ENGINE}/rows.py",
        "len(positives) + len(negatives) <= max_rows:",
        "len(positives) + len(negatives) < max_rows:",
        f"{STEADY}::test_a_guided_tick_is_one_run_fused_and_two_in_passes",
        "fused_cfg",
    ),
    Defect(
        "a longer neighbour changes the padding",
        EXECUTE,
        "contexts, machinery.encoder_length)",
        "contexts, max(row.condition.length for row in rows))",
        f"{LAWS}::test_neighbours_change_no_bit_of_a_request",
        "fused_cfg",
    ),
    Defect(
        "the kept negative velocity is a view of the executor's buffer",
        ADVANCE,
        "v_neg.clone() if guided.keeps else None",
        "v_neg if guided.keeps else None",
        f"{T_EXECUTE}::test_a_buffer_that_every_run_overwrites_gives_the_same_bits",
        "fused_cfg",
    ),
    Defect(
        "fused rows beyond the executor's ceiling",
        f"{ENGINE}/rows.py",
        "if fused and len(positives) + len(negatives) <= max_rows:",
        "if fused:",
        f"{T_PLAN}::test_rows_are_split_where_they_do_not_fit",
        "fused_cfg",
    ),
]

CACHED = [
    Defect(
        "a stale cache entry is kept when a source was written to",
        CONDITIONING,
        "version(tensor) or 0",
        "0",
        f"{T_CACHE}::test_a_source_that_was_written_to_is_built_again",
        "cached_conditioning",
    ),
    Defect(
        "a stale cache entry, as a stream meets it",
        CONDITIONING,
        "version(tensor) or 0",
        "0",
        f"{SWITCHES}[cached_conditioning-eager]",
        "cached_conditioning",
    ),
    Defect(
        "an entry does not hold its sources",
        CONDITIONING,
        "self._entries[key] = (_sources(conditions, contexts), made)",
        "self._entries[key] = ((), made)",
        f"{T_CACHE}::test_sources_live_as_long_as_their_entry_so_that_no_identity_is_used_again",
        "cached_conditioning",
    ),
    Defect(
        "the length is no part of the key",
        CONDITIONING,
        "key = (length, tuple(",
        "key = (0, tuple(",
        f"{T_CACHE}::test_rows_length_and_order_are_part_of_the_key",
        "cached_conditioning",
    ),
    Defect(
        "the context is no part of the key",
        CONDITIONING,
        "None if mask is None else source_key(mask), source_key(context)",
        "None if mask is None else source_key(mask), (0, 0)",
        f"{SWITCHES}[cached_conditioning-static]",
        "cached_conditioning",
    ),
    Defect(
        "the cache grows without bound",
        CONDITIONING,
        "full = len(self._entries) >= self.capacity",
        "full = len(self._entries) >= 1000 * self.capacity",
        f"{T_CACHE}::test_the_least_recently_used_entry_goes_first",
        "cached_conditioning",
    ),
    Defect(
        "conditions are rebuilt at every tick",
        CONDITIONING,
        "if key in self._entries:",
        "if key in self._entries and hits < 0:",
        f"{STEADY}::test_conditions_are_not_rebuilt_unless_a_slot_with_others_is_admitted",
        "cached_conditioning",
    ),
    Defect(
        "the decoder attends the ring's padding",
        CONDITIONING,
        "return functional.pad(own, (0, length - condition.length), value=False)",
        "return functional.pad(own, (0, length - condition.length), value=True)",
        f"{ORACLE}[multi_cond_padded-eager]",
        "cached_conditioning",
    ),
]

INTEGRATOR = [
    Defect(
        "states are integrated with alpha, a fused multiply-add",
        EXECUTE,
        "    moved = torch._foreach_add([states[p.index] for p in plans], moves)",
        "    moved = [torch.add(states[p.index], v, alpha=p.s - p.t) for p, v in zip(plans, scaled)]",
        f"{SWITCHES}[integrator-eager]",
        "integrator",
    ),
    Defect(
        "every slot moves by the first one's step",
        EXECUTE,
        "torch._foreach_mul(scaled, [p.s - p.t for p in plans])",
        "torch._foreach_mul(scaled, plans[0].s - plans[0].t)",
        f"{SWITCHES}[integrator-static]",
        "integrator",
    ),
    Defect(
        "states are integrated in place",
        EXECUTE,
        "    moved = torch._foreach_add([states[p.index] for p in plans], moves)",
        "    moved = [states[p.index].add_(v) for p, v in zip(plans, moves)]",
        f"{T_PIPELINE}::test_no_tick_writes_into_a_tensor_of_the_ring_or_of_a_request",
        "integrator",
    ),
    Defect(
        "the multi-tensor path forgets injected noise",
        EXECUTE,
        "{p.index: advance.injected(p, x) for p, x in zip(plans, moved, strict=True)}",
        "{p.index: x for p, x in zip(plans, moved, strict=True)}",
        f"{ORACLE}[noise_injection-eager]",
        "integrator",
    ),
    Defect(
        "the multi-tensor path forgets the velocity scale",
        EXECUTE,
        "scaled = [advance.scaled(p, velocities[p.index]) for p in plans]",
        "scaled = [velocities[p.index] for p in plans]",
        f"{SWITCHES}[integrator-static]",
        "integrator",
    ),
]

GATES = [
    Defect(
        "a curve is called neutral by its first frame",
        f"{ENGINE}/curve.py",
        "uniform=first if smallest == largest else None",
        "uniform=first",
        f"{SWITCHES}[host_gates-eager]",
        "host_gates",
    ),
    Defect(
        "any uniform curve is called neutral",
        f"{ENGINE}/curve.py",
        "        return self.uniform == value\n",
        "        return self.uniform is not None\n",
        f"{SWITCHES}[host_gates-static]",
        "host_gates",
    ),
    Defect(
        "the gates ask the tensor in the tick",
        PLAN,
        "CountedGate(ask_host if config.switches.host_gates else ask_tensor)",
        "CountedGate(ask_tensor)",
        READS,
        "host_gates",
    ),
    Defect(
        "the strength is read with a host sync",
        ADVANCE,
        "        amount = plan.target.amount.values\n",
        "        amount = plan.target.amount.values\n"
        "        if float(amount.abs().max()) == 0.0:\n            return x0\n",
        READS,
        "host_gates",
    ),
    Defect(
        "a tick calls tolist, which a dispatch mode does not see",
        ADVANCE,
        "    v = scaled(plan, velocity)\n",
        "    v = scaled(plan, velocity)\n    plan.request.context_latents[0, 0, :1].tolist()\n",
        READS,
        "host_gates",
        "torch.Tensor.tolist",
    ),
    Defect(
        "a tick calls item",
        EXECUTE,
        "    hidden_states = torch.cat([inputs[row.index] for row in rows])\n",
        "    hidden_states = torch.cat([inputs[row.index] for row in rows])\n    hidden_states.sum().item()\n",
        READS,
        "host_gates",
        "torch.Tensor.item",
    ),
    Defect(
        "guidance is skipped where its scale is 1",
        PLAN,
        "    own = request.guidance\n    if own is None:\n        return None\n",
        "    own = request.guidance\n"
        "    if own is None or required(own.scale).is_everywhere(1.0):\n        return None\n",
        f"{LAWS}::test_guidance_1_runs_its_negative_rows_and_advances_the_average",
        "host_gates",
    ),
]

STREAMS = [
    Defect(
        "nobody waits for the executor's stream",
        EXECUTE,
        "        machinery.join()\n",
        "",
        f"{T_STREAM}::test_a_pipeline_joins_or_waits_as_its_switch_says_after_every_run",
        "joined_stream",
    ),
    Defect(
        "joining does nothing",
        STREAM,
        "    return executor.stream.join if joined else executor.stream.wait\n",
        "    return _nothing if joined else executor.stream.wait\n",
        f"{SWITCHES}[joined_stream-deferred]",
        "joined_stream",
    ),
    Defect(
        "a run does not wait for its inputs",
        STREAM,
        "for stream in (self._current(), *self._readers):",
        "for stream in self._readers:",
        f"{T_STREAM}::test_a_run_starts_after_what_the_current_stream_holds",
        "joined_stream",
    ),
    Defect(
        "a run does not wait for whoever reads the last one on another stream",
        STREAM,
        "for stream in (self._current(), *self._readers):",
        "for stream in (self._current(),):",
        f"{T_STREAM}::test_a_run_starts_after_whoever_read_the_last_one_even_on_another_stream",
        "joined_stream",
    ),
    Defect(
        "joining makes the host wait",
        STREAM,
        "        self._current().wait_event(self._done)\n",
        "        self._own.synchronize()\n",
        f"{T_STREAM}::test_joining_makes_the_current_stream_wait_by_an_event_and_never_the_host",
        "joined_stream",
    ),
    Defect(
        "the plain twin joins too",
        STREAM,
        "return executor.stream.join if joined else executor.stream.wait",
        "return executor.stream.join",
        f"{T_STREAM}::test_a_pipeline_joins_or_waits_as_its_switch_says_after_every_run",
        "joined_stream",
    ),
    Defect(
        "buffers are freed while a run uses them",
        STATIC,
        "        if key not in self._buffers:\n            self._drain()\n",
        "        if key not in self._buffers:\n",
        f"{T_STATIC}::test_buffers_are_made_and_freed_only_when_no_run_uses_them",
        "joined_stream",
    ),
]

RING = [
    Defect(
        "a tensor that was overwritten between requests passes as checked",
        f"{ENGINE}/once.py",
        "        if known is not None and known[0] == version:\n",
        "        if known is not None:\n",
        "tests/engine/test_session.py::"
        "test_a_tensor_that_was_overwritten_between_ticks_is_refused_and_nothing_is_submitted",
    ),
    Defect(
        "a checked tensor is known by its address alone",
        f"{ENGINE}/once.py",
        "WeakIdKeyDictionary()\n",
        "type('Ids', (dict,), {'get': lambda s, t: dict.get(s, id(t)), "
        "'__setitem__': lambda s, t, v: dict.__setitem__(s, id(t), v)})()\n",
        "tests/engine/test_once.py::test_a_tensor_is_not_held_and_another_one_in_its_place_is_read",
    ),
    Defect(
        "an inference tensor is read once",
        f"{ENGINE}/once.py",
        "        version = None if value.is_inference() else (",
        "        version = (0, value.shape) if value.is_inference() else (",
        "tests/engine/test_once.py::test_an_inference_tensor_has_no_counter_and_is_read_every_time",
    ),
    Defect(
        "a slot's guidance average outlives its request",
        PIPELINE,
        "        moved = self._moved(plan, slots, state.geometry, looks)",
        "        past = self.__dict__.setdefault('past', {})\n"
        "        for a in plan.admissions:\n"
        "            old, new = past.get(a.index), slots[a.index]\n"
        "            reuse = old is not None and new.average is not None and old.x.shape == new.x.shape\n"
        "            slots[a.index] = replace(new, average=old.average) if reuse else new\n"
        "        past.update({i: s for i, s in slots.items() if s.average is not None})\n"
        "        moved = self._moved(plan, slots, state.geometry, looks)",
        "tests/parity/proofs/test_machine.py::test_whatever_happens_every_latent_is_the_oracle_s[eager]",
    ),
    Defect(
        "a latent that was handed out is a buffer that later ticks use",
        f"{ENGINE}/slot.py",
        "            latent=self.x,\n",
        "            latent=admit.__dict__.setdefault(self.x.shape, torch.empty_like(self.x)).copy_(self.x),\n",
        f"{LAWS}::test_a_latent_handed_out_never_changes",
    ),
    Defect(
        "noise is keyed by the number of draws",
        NOISE,
        '    digest = hashlib.sha256(f"{seed}/{purpose.value}/{step}".encode()).digest()\n',
        "    step = generator_seed.__dict__['n'] = generator_seed.__dict__.get('n', -1) + 1\n"
        '    digest = hashlib.sha256(f"{seed}/{purpose.value}/{step}".encode()).digest()\n',
        f"{LAWS}::test_duplicate_requests_give_equal_bytes",
    ),
    Defect(
        "noise is drawn from the global generator",
        NOISE,
        "torch.randn(1, channels, frames, generator=generator, ",
        "torch.randn(1, channels, frames, ",
        f"{T_NOISE}::test_the_global_generator_is_neither_used_nor_moved",
    ),
    Defect(
        "a drain stops one tick early",
        STATE,
        "any(slot is not None for slot in self.ring)\n",
        "any(slot is not None and slot.step + 1 < slot.total for slot in self.ring)\n",
        f"{T_PIPELINE}::test_what_is_finished_names_its_request",
    ),
    Defect(
        "a slot ends one step early",
        PLAN,
        "        return self.step + 1 == self.total\n",
        "        return self.step + 2 >= self.total\n",
        f"{ORACLE}[ode_plain-eager]",
    ),
    Defect(
        "norms are taken over a transposed layout",
        f"{ENGINE}/finite.py",
        "output.to(torch.float32, copy=copy).contiguous()",
        "output.to(torch.float32, copy=copy)",
        f"{T_EXECUTE}::test_bits_do_not_depend_on_the_layout_a_decoder_returns",
    ),
    Defect(
        "the correction takes the scaled velocity",
        EXECUTE,
        "    stepped = _step(plan, slots, states, velocities, machinery)\n",
        "    stepped = _step(plan, slots, states, velocities, machinery)\n"
        "    velocities = {p.index: advance.scaled(p, velocities[p.index]) for p in plan.slots}\n",
        f"{ORACLE}[mixed_ring-eager]",
    ),
    Defect(
        "the channel gain enters the state",
        EXECUTE,
        "    inputs = {index: _decoder_input(x, plan.channel_gain) for index, x in states.items()}\n",
        "    states.update({index: _decoder_input(x, plan.channel_gain) for index, x in states.items()})\n"
        "    inputs = dict(states)\n",
        f"{ORACLE}[channel_gain-eager]",
    ),
    Defect(
        "a failed tick has already taken from the queue",
        STATE,
        "            return self.before\n",
        "            return replace(self.before, queue=self.queue)\n",
        f"{T_PIPELINE}::test_a_failed_tick_changes_nothing_and_can_be_run_again",
    ),
    Defect(
        "a smaller depth throws slots away",
        STATE,
        "    size = max(depth, last + 1)\n",
        "    size = depth + 0 * last\n",
        f"{T_PIPELINE}::test_slots_beyond_a_smaller_depth_finish",
    ),
    Defect(
        "a neutral noise curve still draws and rounds",
        PLAN,
        "        noise_injection = controls.in_force(SharedControl.NOISE_INJECTION, request, gate)\n",
        "        noise_injection = controls.in_force(SharedControl.NOISE_INJECTION, request, lambda *_: False)\n",
        f"{T_PLAN}::test_neutral_values_are_planned_as_if_they_were_not_set",
    ),
    Defect(
        "the SDE step of a masked slot takes fresh noise",
        PLAN,
        "        return Purpose.MASK if masked else Purpose.STEP\n",
        "        return Purpose.STEP\n",
        f"{ORACLE}[latent_mask_sde-eager]",
    ),
]

PROOFS = [
    Defect(
        "lockstep does not look at what was handed out before",
        LOCKSTEP,
        "        self._compare_what_was_handed_out(first, second)\n",
        "",
        f"{T_LOCKSTEP}::test_a_latent_that_changes_after_it_was_handed_out_is_found",
    ),
    Defect(
        "lockstep compares states alone",
        LOCKSTEP,
        "        self._compare_stages()\n",
        "",
        f"{T_LOCKSTEP}::test_a_difference_that_no_state_shows_is_found",
    ),
    Defect(
        "lockstep lets one side write what the other reads",
        LOCKSTEP,
        '        return {(None, f"writes to {name}"): writes(tensor)',
        '        return {(None, f"writes to {name}"): 0',
        f"{T_LOCKSTEP}::test_a_side_that_writes_into_the_caller_s_tensor_is_found_before_the_other_reads_it",
    ),
    Defect(
        "lockstep calls two NaNs the same",
        LOCKSTEP,
        "            if not bool(torch.isfinite(tensor).all()):\n",
        "            if tensor is None:\n",
        f"{T_LOCKSTEP}::test_two_sides_that_are_not_finite_are_not_called_the_same",
    ),
    Defect(
        "bytes are compared as floats",
        f"{PARITY}/bits.py",
        "    return np.asarray(words(got) != words(expected))\n",
        "    return np.asarray(values_of(got) != values_of(expected))\n",
        "tests/traps/test_traps.py::test_the_defect_is_reported_with_its_kind_and_place",
    ),
    Defect(
        "the quick comparison compares floats",
        COMPARE,
        "    return torch.equal(got.view(words), wanted.view(words))",
        "    return torch.equal(got, wanted)",
        "tests/traps/test_traps.py::test_the_quick_verdict_is_that_of_the_slow_one",
    ),
    Defect(
        "a lost property is no loss",
        f"{PARITY}/baselines/contract.py",
        "        gone = sorted(set(counts) - set(now.get(name, [])))\n",
        "        gone = sorted(set(now.get(name, [])) - set(counts))\n",
        "tests/parity/baselines/test_contract.py::test_a_recorded_property_that_does_not_hold_is_lost",
    ),
    Defect(
        "the probe runs each row alone in pinned company",
        f"{PARITY}/proofs/invariance.py",
        "        return all(identical(self._run([number])[0], together[number]) for number in range(count))\n",
        "        return all(identical(self._run(range(count))[number], together[number]) for number in range(count))\n",
        "tests/parity/proofs/test_invariance.py::test_the_probe_names_what_does_not_hold",
    ),
    Defect(
        "host reads are counted by a dispatch mode alone",
        "harness/rails/costs/counters.py",
        "        if name in _READING_FUNCTIONS or any(reads(name, args, kwargs or {}) for reads in _READING_CALLS):\n",
        "        if not name:\n",
        "tests/rails/costs/test_counters.py::test_a_read_is_counted",
    ),
    Defect(
        "a capture that moved passes within a tolerance on its own platform",
        f"{PARITY}/baselines/captures.py",
        "    if exact:\n",
        "    if exact and not tensors:\n",
        "tests/parity/baselines/test_captures.py::test_a_scenario_that_moved_names_its_first_tick_and_distance",
    ),
]

_COSTS = "tests/rails/costs/test_rails.py::test_costs_are_as_blessed"
_INPUTS = "    inputs = {index: _decoder_input(x, plan.channel_gain) for index, x in states.items()}\n"

RAILS = [
    Defect(
        "a stream reads its tensors anew at every request",
        f"{ENGINE}/once.py",
        "            self._made[value] = (version, made)\n",
        "            self._made[value] = ((-1, value.shape), made)\n",
        _COSTS,
        says="different: host_reads in 5, ",
    ),
    Defect(
        "a stream computes its times anew at every request",
        PIPELINE,
        "times = known_timesteps(",
        "times = known_timesteps.__wrapped__(",
        _COSTS,
        says="different: host_reads in 5, ",
    ),
    Defect(
        "one item more a tick",
        EXECUTE,
        _INPUTS,
        _INPUTS + "    next(iter(inputs.values())).sum().item()\n",
        _COSTS,
        says="different: host_reads in 31, ",
    ),
    Defect(
        "one tolist more a tick",
        EXECUTE,
        _INPUTS,
        _INPUTS + "    next(iter(inputs.values())).tolist()\n",
        _COSTS,
        says="different: host_reads in 31\n",
    ),
    Defect(
        "one allocation more a tick",
        EXECUTE,
        _INPUTS,
        _INPUTS + "    torch.empty(3)\n",
        _COSTS,
        says="different: allocations in 31, operators in 31, operator aten::empty in 31\n",
    ),
    Defect(
        "one decoder run more a tick",
        EXECUTE,
        "            made = machinery.executor.run(batch)\n",
        "            made = machinery.executor.run(batch) if number else "
        "[machinery.executor.run(batch), machinery.executor.run(batch)][1]\n",
        _COSTS,
        says="different: decoder_runs in 31, decoder_rows in 31, operators in 31, operator aten::slice in 31\n",
    ),
    Defect(
        "a cost that fell is no difference",
        "harness/rails/costs/counts.py",
        "        return self.blessed == self.now\n",
        "        return self.blessed is not None and self.now is not None and self.blessed >= self.now\n",
        "tests/rails/costs/test_rails.py::test_more_and_less_are_failures_alike_that_name_row_and_replacement",
    ),
    Defect(
        "a rail that nobody counted is not missed",
        "harness/rails/costs/rails.py",
        "for rail in in_order(now, blessed) for row in table(",
        "for rail in now for row in table(",
        "tests/rails/costs/test_rails.py::test_a_rail_or_count_that_only_one_side_has_is_a_failure",
    ),
]

_TEST_PLUGIN = "tests/plugin/test_plugin.py::test_"

PLUGIN = [
    Defect(
        "a test that blessed passes",
        "harness/plugin/hooks.py",
        "    if notes.blessed:\n",
        "    if notes.blessed and notes.not_gated:\n",
        f"{_TEST_PLUGIN}a_run_that_blessed_is_red_and_the_next_one_compares",
    ),
    Defect(
        "a test that failed passes when it is tried again",
        "harness/plugin/hooks.py",
        "    if item.nodeid in item.config.stash[LEDGER].failed:\n",
        "    if item.nodeid in item.config.stash[LEDGER].blessed:\n",
        f"{_TEST_PLUGIN}a_test_that_failed_does_not_pass_when_it_is_tried_again",
    ),
    Defect(
        "a capture that no test asks for is not missed",
        "harness/plugin/hooks.py",
        "    red = ledger.blessed or (config.stash[UNASKED] and not ledger.left_out)\n",
        "    red = ledger.blessed\n",
        f"{_TEST_PLUGIN}a_blessed_entry_that_no_test_asks_for_is_red_by_name",
    ),
    Defect(
        "on another machine a capture without a tolerance passes",
        f"{PARITY}/baselines/blessed.py",
        "    result = within_bound(name, tensors, {each: blessed[each] for each in tensors}, k, SIDES)\n",
        "    result = within_bound(name, tensors, {each: blessed[each] for each in tensors}, k or 100.0, SIDES)\n",
        f"{_TEST_PLUGIN}on_another_machine_a_difference_without_a_tolerance_is_red_and_says_what_to_do",
    ),
    Defect(
        "costs of another torch look like a pass",
        "harness/plugin/hooks.py",
        "    if notes.not_gated:\n",
        "    if notes.not_gated and notes.blessed:\n",
        f"{_TEST_PLUGIN}costs_of_another_torch_are_not_gated_and_never_look_like_a_pass",
    ),
    Defect(
        "what the first try said is lost",
        "harness/plugin/hooks.py",
        '        pytest.fail(before + item.stash.get(FIRST_TRY, ""), pytrace=False)\n',
        "        pytest.fail(before, pytrace=False)\n",
        "tests/plugin/test_reruns.py::test_the_difference_of_the_first_try_is_printed_where_the_second_one_would_pass",
    ),
    Defect(
        "an error in a set-up is forgotten",
        "harness/plugin/hooks.py",
        "    ours = NOTES in item.stash or not set(FIXTURES)",
        "    ours = NOTES in item.stash and not set(FIXTURES)",
        "tests/plugin/test_reruns.py::test_an_error_in_the_set_up_is_printed_and_not_forgotten",
    ),
    Defect(
        "a digest stands for no byte",
        f"{PARITY}/baselines/kept.py",
        "    if digest(got) == digested.sha256:\n",
        "    if digested.sha256:\n",
        "tests/parity/baselines/test_kept.py::test_every_bit_of_every_element_is_covered_whatever_is_kept",
    ),
    Defect(
        "a sample's place is that in the sample",
        f"{PARITY}/baselines/kept.py",
        "torch.tensor(found.index[0] * digested.stride)",
        "torch.tensor(found.index[0])",
        "tests/parity/baselines/test_kept.py::"
        "test_a_sample_shows_the_first_sampled_element_that_differs_by_its_place_in_the_whole_tensor",
    ),
    Defect(
        "another part than the blessed one is compared",
        f"{PARITY}/baselines/blessed.py",
        "    if entry.keep != kept:\n",
        "    if entry.keep not in list(Keep):\n",
        "tests/parity/baselines/test_kept.py::test_what_is_kept_is_recorded_and_must_be_asked_for_as_it_was_blessed",
    ),
    Defect(
        "the type of a number or a text is no part of it",
        f"{PARITY}/values.py",
        '    return f"{path} as {type(leaf).__name__}", ',
        '    return f"{path} as value", ',
        "tests/parity/test_values.py::test_ones_of_different_types_are_different_leaves",
    ),
    Defect(
        "an array is read in the order of its memory",
        f"{PARITY}/values.py",
        'np.array(leaf, order="C", copy=True)',
        'np.array(leaf.ravel("K").reshape(leaf.shape), order="C", copy=True)',
        "tests/parity/test_values.py::test_an_array_is_what_it_reads_whatever_its_order_in_memory",
    ),
    Defect(
        "a tolerance lets a count differ",
        f"{PARITY}/baselines/blessed.py",
        "    if any(each.kind is not DifferenceKind.BYTES for each in differences):\n",
        "    if any(each.kind is DifferenceKind.MISSING for each in differences):\n",
        "tests/parity/test_values.py::test_no_tolerance_lets_a_number_that_counts_or_a_text_differ",
    ),
    Defect(
        "the fast engine is called the plain one",
        f"{PARITY}/differences.py",
        'LOCKSTEP = Words("fast", "plain")\n',
        'LOCKSTEP = Words("plain", "fast")\n',
        "tests/parity/test_values.py::test_engines_that_return_other_values_are_told_apart_by_both_names",
    ),
    Defect(
        "a distance in ULP does not go through zero",
        f"{PARITY}/bits.py",
        "    return np.where(a_negative != b_negative, a + b, ",
        "    return np.where(a_negative != b_negative, np.maximum(a, b) | np.uint64(1 << 31), ",
        "tests/parity/test_compare.py::"
        "test_a_difference_counts_ulps_in_the_order_of_values_also_across_a_change_of_sign",
    ),
]

_TICK, _REVISIONS, _RATIOS = (
    f"harness/rails/{name}.py" for name in ("bench/throughput", "compare/revisions", "compare/statistics")
)
_T_TICK, _T_REVISIONS, _T_BENCH = (
    "tests/rails/bench/test_throughput.py",
    "tests/rails/compare/test_revisions.py",
    "tests/bench/test_rails.py",
)

TIMES = [
    Defect(
        "the bare decoder gets the rows of one run alone",
        "harness/rails/bench/bare.py",
        "torch.cat([batch.tensors()[name] for batch in batches])",
        "batches[0].tensors()[name]",
        f"{_T_TICK}::test_merged_rows_are_the_rows_of_both_runs_in_order",
    ),
    Defect(
        "an ablation switches nothing off",
        "harness/rails/bench/ablation.py",
        "replace(load, switches=load.switches.turned_off(switch))",
        "replace(load)",
        f"{_T_TICK}::test_what_a_switch_saves_is_found_beside_noise",
    ),
    Defect(
        "a revision is slower by one draw alone",
        _REVISIONS,
        "    if draws[0].judged.verdict in (TimeVerdict.FASTER, TimeVerdict.SLOWER):\n",
        "    if draws[0].judged.verdict is TimeVerdict.FASTER:\n",
        f"{_T_REVISIONS}::test_a_difference_must_recur_in_other_processes",
    ),
    Defect(
        "a revision that makes other bits passes where it takes no longer",
        _REVISIONS,
        "        return bool(self.same) and not self.moved and not self.only_base\n",
        "        return bool(self.same) and not self.only_base\n",
        f"{_T_REVISIONS}::test_what_moved_is_named_first_and_is_never_a_silent_0",
    ),
    Defect(
        "quads count whatever the machine did",
        _RATIOS,
        "    counted = [matched(one) for one in rounds]\n",
        "    counted = [matched(one) | True for one in rounds]\n",
        "tests/rails/compare/test_statistics.py::test_a_machine_that_changes_its_speed_at_once_moves_no_verdict",
    ),
    Defect(
        "a time rail that is disabled passes",
        "tests/bench/rails.py",
        "    assert not benchmark.disabled, ",
        "    assert benchmark, ",
        f"{_T_BENCH}::test_a_disabled_benchmark_is_red",
    ),
    Defect(
        "a time rail that nothing measured is not missed",
        "conftest.py",
        "        session.exitstatus = pytest.ExitCode.TESTS_FAILED\n",
        "        session.exitstatus = pytest.ExitCode.OK\n",
        f"{_T_BENCH}::test_a_rail_that_nothing_measures_is_red_and_named",
    ),
]

_COUNTERS, _T_COUNTERS = "harness/rails/costs/counters.py", "tests/rails/costs/test_counters.py"
_T_PAIRS = "tests/parity/test_coverage.py"

_MASK = """\
    if mask is not None and latent_mask is not None:
        x0 = blend.mix(mask, x0, latent_mask.original.float())
"""
_TARGET = """\
    if plan.target is not None and plan.request.x0_target is not None:
        amount = plan.target.amount.values
        if plan.target.ramp is not None:
            amount = amount * plan.target.ramp
        x0 = blend.toward(x0, plan.request.x0_target.latent.float(), amount)
"""

BATTERY = [
    Defect(
        "an x0 target acts late at an odd number of steps",
        PLAN,
        "    if step < total // 2:\n",
        "    if step < (total + 1) // 2:\n",
        f"{ORACLE}[x0_target_odd_steps-eager]",
    ),
    Defect(
        "the x0 target acts before the latent mask",
        ADVANCE,
        _MASK + _TARGET + "    return x0\n",
        _TARGET + _MASK + "    return x0\n",
        f"{ORACLE}[x0_target_masked-eager]",
    ),
    Defect(
        "only the first of three runs is copied",
        EXECUTE,
        "copy=number + 1 < len(plan.runs)",
        "copy=number == 0 and len(plan.runs) > 1",
        f"{ORACLE}[many_runs-static]",
    ),
    Defect(
        "features of two requests of one ring count as together",
        f"{PARITY}/battery/features.py",
        "            seen = ring.union(self._of_slot(p), self._of_life(slots[p.index]))\n",
        "            seen = ring.union(*map(self._of_slot, plan.slots), self._of_life(slots[p.index]))\n",
        f"{_T_PAIRS}::test_features_of_two_requests_of_one_script_are_not_together",
    ),
    Defect(
        "most examples repeat the one before",
        "tests/parity/strategies.py",
        '        patch.setattr(ConjectureRunner, "generate_mutations_from", lambda runner, data: None)\n',
        "        assert patch\n",
        f"{_T_PAIRS}::test_the_examples_of_a_proof_differ",
    ),
    Defect(
        "a file that is saved is no host read",
        "harness/engine/versions.py",
        '    (torch.serialization, "_save", "torch.save"),\n',
        "",
        f"{_T_COUNTERS}::test_a_read_is_counted",
    ),
    Defect(
        "one element that a mask assigns is no host read",
        _COUNTERS,
        "_READING_CALLS = (_moves_to_host, _made_of_tensors, _assigned_by_mask)\n",
        "_READING_CALLS = (_moves_to_host, _made_of_tensors)\n",
        f"{_T_COUNTERS}::test_a_read_is_counted",
    ),
]

DEFECTS = [
    *FUSED, *CACHED, *INTEGRATOR, *GATES, *STREAMS, *RING, *RECORDS, *PROOFS, *BATTERY, *RAILS, *TIMES, *PLUGIN,
    *AHEAD_OF_TIME, *JUDGE, *THREADS, *FAILING, *FILE_DEFECTS, *FAULTY, *TERMINAL, *RINGS, *ANYBODY, *TRACE_DEFECTS,
    *SCRIPTS,
]  # fmt: skip

# Every defect that is known to have slipped through some comparison of some engine, by the name it has here.
NOTORIOUS = (
    "the copy of a shared output buffer is dropped",
    "the halves of the fused batch are swapped",
    "negative rows run at the time of the slot before",
    "a stale cache entry is kept when a source was written to",
    "a slot's guidance average outlives its request",
    "a latent that was handed out is a buffer that later ticks use",
    "guidance is skipped where its scale is 1",
    "a longer neighbour changes the padding",
    "noise is keyed by the number of draws",
    "a tick calls tolist, which a dispatch mode does not see",
    "states are integrated with alpha, a fused multiply-add",
    "noise is drawn from the global generator",
    "the strength is read with a host sync",
    "a drain stops one tick early",
)
