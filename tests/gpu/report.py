"""The figures of `docs/gpu.md`: `python -m tests.gpu.report SECTION... --out FOLDER`, on a machine with a GPU.

Every section writes a JSON file of its name. `start` needs about five minutes, the others about two to six.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from harness import registry
from harness.engine import StreamPipeline
from harness.engine.decoders.decoder_switches import ALL, BandForm
from harness.engine.executors import CudaGraphExecutor, EagerExecutor, Shape
from harness.engine.executors.compiled import compiled
from harness.engine.executors.stream import run_to_end
from harness.engine.noise import Purpose, noise
from harness.engine.switches import SWITCHES
from harness.parity.baselines import kernels_digest, platform
from harness.parity.battery.scripts import Drain, Guided, Script, Submit, Text, Tick, Wavelets
from harness.parity.compare import digest_tree
from harness.parity.proofs import lockstep
from harness.rails.bench.ablation import ablate
from harness.rails.bench.bare import bare
from harness.rails.bench.clocks import EventClock
from harness.rails.bench.steady import check_replays, steady
from harness.rails.bench.throughput import Driver, Load

BASE = Load(decoder="2b", executor="compiled_graph", dtype="bfloat16", device="cuda", warmup=16, dcw=False)
LOADS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dcw": {"dcw": True},
    "cfg": {"cfg": "full"},
    "both": {"dcw": True, "cfg": "full"},
}
PINNED = 8
FAST = replace(ALL, band=BandForm.FLEX)

RING = Script(
    (
        Submit(1, texts=(Text(1, 150),), guided=Guided(3.0)),
        Tick(),
        Submit(2, texts=(Text(2, 200),), velocity_scale=0.9),
        Tick(),
        Submit(3, texts=(Text(1, 150),), guided=Guided(2.0, mode="initialize", momentum=-0.75, threshold=2.5)),
        Tick(2),
        Submit(4, texts=(Text(2, 200), Text(3, 120)), guided=Guided(4.0, rescale=0.5, eta=0.3)),
        Drain(),
    ),
    depth=3,
    steps=4,
    encoder_length=200,
    dcw=Wavelets(),
    frames=750,
    channels=64,
    encoder_dim=2048,
)
"""Requests that enter and leave at different ticks, guided and not, corrected, with one prompt and with two."""

Said = Callable[[str], None]


def measured(load: Load, groups: int = 4) -> dict[str, Any]:
    """A ring, its ratio and its figures, with a check that every run was replayed."""
    started = time.perf_counter()
    driver = Driver(load)
    with driver.session:
        driver.warm_up()
        made = time.perf_counter() - started
        found = steady(driver, groups)
        executor = driver.tap.inner
        assert isinstance(executor, CudaGraphExecutor)
        stats = executor.stats()
        check_replays(stats)
        waits = driver.stream.pipeline.stats().waits
    kept = {name: _short(value) for name, value in asdict(found).items()}
    return {**kept, "ready_s": round(made, 1), "runs": stats.runs, "replays": stats.replays, "waits": waits}


def section_steady(say: Said) -> Iterator[dict[str, Any]]:
    """The ratio of tick and decoder, for every load, T and sharing of prompts."""
    return ratios(say, BASE)


def section_fast(say: Said) -> Iterator[dict[str, Any]]:
    """The same with all accelerations of the decoder."""
    return ratios(say, replace(BASE, decoder_switches=FAST))


def ratios(say: Said, base: Load) -> Iterator[dict[str, Any]]:
    """Ratios of all loads over a decoder: first those whose requests share a prompt."""
    for fresh in (False, True):
        for frames in (750, 1500):
            for name, fields in LOADS.items():
                found = measured(replace(base, duration=frames / 25, fresh=fresh, **fields))
                say(f"T {frames} {name}{' fresh' if fresh else ''}: {line(found)}")
                yield {"frames": frames, "load": name, "fresh": fresh, **found}


def section_depth(say: Said) -> Iterator[dict[str, Any]]:
    """The same at other depths, T = 750, with correction and with both."""
    for depth in (1, 2, 8):
        for name in ("dcw", "both"):
            found = measured(replace(BASE, depth=depth, **LOADS[name]), 4)
            say(f"depth {depth} {name}: {line(found)}")
            yield {"depth": depth, "load": name, **found}


def section_latency(say: Said) -> Iterator[dict[str, Any]]:
    """From a shared control to a latent, with one and with two ticks ahead."""
    for ahead in (1, 2):
        for name in ("plain", "both"):
            driver = Driver(replace(BASE, max_ticks_ahead=ahead, **LOADS[name]))
            with driver.session:
                driver.warm_up()
                found = {key: _short(value) for key, value in asdict(driver.latency()).items()}
                window = driver.window(48)
                tick = sum(window.tick_ms) / len(window.tick_ms)
            say(f"ahead {ahead} {name}: {found}, tick {tick:.3f} ms")
            yield {"max_ticks_ahead": ahead, "load": name, "tick_ms": _short(tick), **found}


def section_pinned(say: Said) -> Iterator[dict[str, Any]]:
    """A bucket for each number of rows against eight pinned rows: the recorded decoder alone, T = 750."""
    decoder = registry.decoder("2b", dtype=torch.bfloat16, device="cuda")
    shape = Shape(750, 200, 64, 2048)
    for pin_rows in (None, PINNED):
        executor = CudaGraphExecutor(decoder, pin_rows=pin_rows, compiled=True, device="cuda")
        executor.prepare([shape])
        for rows in (1, 2, 4, 8):
            launch = executor.bare([shape.example(rows, torch.device("cuda"))])
            launch(4)
            clock = EventClock()
            clock.mark()
            launch(24)
            clock.mark()
            (ms,) = clock.between()
            say(f"{'buckets' if pin_rows is None else 'pinned'} {rows} rows: {ms / 24:.3f} ms")
            yield {"pin_rows": pin_rows, "rows": rows, "ms": _short(ms / 24)}
        executor.close()


def section_bare(say: Said) -> Iterator[dict[str, Any]]:
    """The recorded decoder that `steady` compares with, beside every other form of it: compiled as a whole, eager."""
    decoder = registry.decoder("2b", dtype=torch.bfloat16, device="cuda")
    shape = Shape(750, 200, 64, 2048)
    for rows in (4, 8):
        executor = CudaGraphExecutor(decoder, row_buckets=(rows,), compiled=True, device="cuda")
        executor.prepare([shape])
        batch = shape.example(rows, torch.device("cuda"))
        launch = executor.bare([batch])
        forms = {
            name: _short(ms) for name, ms in bare(decoder, batch, on_gpu=True, engine=partial(launch, 1)).forms.items()
        }
        executor.close()
        say(f"{rows} rows: {forms}")
        yield {"rows": rows, "ms": forms}


def section_ablate(say: Said) -> Iterator[dict[str, Any]]:
    """What each switch saves in the load with guidance and correction, T = 750."""
    for saving in ablate(replace(BASE, ticks=48, **LOADS["both"]), lambda _what: None):
        found = {key: _short(value) for key, value in asdict(saving).items()}
        say(str(found))
        yield found


def section_lockstep(say: Said) -> Iterator[dict[str, Any]]:
    """Every switch, and recorded against unrecorded, to the bit: the 2B decoder in bfloat16, eight pinned rows."""
    decoder = registry.decoder("2b", dtype=torch.bfloat16, device="cuda")
    for compile_it in (True, False):
        form = "compiled" if compile_it else "eager"

        def recorded(compile_it: bool = compile_it) -> CudaGraphExecutor:
            return CudaGraphExecutor(decoder, pin_rows=PINNED, compiled=compile_it, on_demand=True, device="cuda")

        for switch in SWITCHES:
            started = time.perf_counter()
            done = lockstep.run(RING, switch, executor=recorded, device="cuda")
            acted = lockstep.acted(switch, done.first.stats(), done.second.stats())
            digest = digest_tree({str(n): each.latent.cpu() for n, each in enumerate(done.finished)})
            say(f"{form} {switch}: exact, acted {acted}, {time.perf_counter() - started:.0f} s, {digest[:12]}")
            yield {
                "decoder": form,
                "compared": f"{switch} on and off",
                "verdict": "exact",
                "acted": acted,
                "ticks": done.first.stats().ticks,
                "latents": len(done.finished),
                "digest": digest,
            }
        latents = []
        unrecorded = EagerExecutor(compiled(decoder) if compile_it else decoder, pin_rows=PINNED)
        for executor in (recorded(), unrecorded):
            with StreamPipeline(executor, RING.config()) as pipeline:
                made = RING.play(pipeline, "cuda")
                latents.append(digest_tree({str(n): each.latent.cpu() for n, each in enumerate(made)}))  # type: ignore[union-attr]
        verdict = "exact" if latents[0] == latents[1] else "differs"
        say(f"{form} recorded against unrecorded: {verdict} {latents[0][:12]} {latents[1][:12]}")
        yield {"decoder": form, "compared": "recorded and unrecorded", "verdict": verdict, "digest": latents[0]}


def section_two(say: Said) -> Iterator[dict[str, Any]]:
    """Whether the second GPU of a host makes the bits of the first: recorded runs of the 2B decoder, shape by shape."""
    return on_two(say, compile_it=False)


def section_two_compiled(say: Said) -> Iterator[dict[str, Any]]:
    """The same with the compiled decoder."""
    return on_two(say, compile_it=True)


def on_two(say: Said, *, compile_it: bool) -> Iterator[dict[str, Any]]:
    """Digests of the velocities of both GPUs."""
    for frames in (750, 1500, 40):
        shape, digests = Shape(frames, 200, 64, 2048), []
        fixed = [kernels_digest.digest(torch.device("cuda", index)) for index in range(2)]
        for index in range(2):
            device = torch.device("cuda", index)
            with torch.cuda.device(device):
                decoder = registry.decoder("2b", dtype=torch.bfloat16, device=str(device))
                executor = CudaGraphExecutor(decoder, compiled=compile_it, device=device)
                executor.prepare([shape])
                made = {}
                for rows in executor.row_buckets:
                    batch = shape.example(rows, device)
                    drawn = [noise(7 + row, Purpose.INITIAL, 0, (1, frames, 64), device) for row in range(rows)]
                    velocity = run_to_end(executor, replace(batch, hidden_states=torch.cat(drawn)))
                    made[rows] = digest_tree({"velocity": velocity.cpu()})
                executor.close()
            digests.append(made)
        equal = {rows: digests[0][rows] == digests[1][rows] for rows in digests[0]}
        form = "compiled" if compile_it else "eager"
        say(f"{form} T {frames}: equal bits by rows {equal}")
        yield {"decoder": form, "frames": frames, "equal": equal, "digests": digests, "fixed": fixed}


START = """
import json, sys, time
begun = float(sys.argv[1])
import torch
from harness import registry
from harness.engine.decoders.decoder_switches import PLAIN
from harness.rails.bench.throughput import Driver, Load
from tests.gpu.report import FAST
imported = time.time()
switches = FAST if sys.argv[2] == "fast" else PLAIN
registry.decoder("2b", dtype=torch.bfloat16, device="cuda", switches=switches)
torch.cuda.synchronize()
loaded = time.time()
driver = Driver(Load(decoder="2b", executor="compiled_graph", dtype="bfloat16", device="cuda", warmup=16, dcw=True,
                     cfg="full", decoder_switches=switches, code=sys.argv[3] or None))
prepared = time.time()
driver.tick()
torch.cuda.synchronize()
ticked = time.time()
print(json.dumps({"import_s": imported - begun, "weights_s": loaded - imported, "prepare_s": prepared - loaded,
                  "first_tick_s": ticked - prepared}))
"""


BUILD = """
import sys
from pathlib import Path
import torch
from harness import registry
from harness.engine.aot.code_build import build_code
from harness.engine.decoders.decoder_switches import PLAIN
from harness.engine.executors import Shape
from tests.gpu.report import FAST
switches = FAST if sys.argv[2] == "fast" else PLAIN
decoder = registry.decoder("2b", dtype=torch.bfloat16, device="cuda", switches=switches)
build_code(decoder, Path(sys.argv[3]), [Shape(750, 200, 64, 2048)], (1, 2, 4, 8))
"""


def section_start(say: Said) -> Iterator[dict[str, Any]]:
    """From the start of a process to the end of its first tick: buckets 1, 2, 4, 8, T = 750, cache cold and warm."""
    return started(say, "plain")


def section_start_fast(say: Said) -> Iterator[dict[str, Any]]:
    """The same with all accelerations of the decoder."""
    return started(say, "fast")


def started(say: Said, decoder: str) -> Iterator[dict[str, Any]]:
    """Seconds of a process: with empty caches of compiled code; with those of the first; with a file of code alone."""
    with tempfile.TemporaryDirectory() as folder:
        code = f"{folder}/2b.code"
        for cache, file in (("cold", ""), ("warm", ""), ("file of code", code)):
            if file:
                _alone(BUILD, decoder, file, f"{folder}/building")
            ran = _alone(START, decoder, file, f"{folder}/{'other' if file else 'caches'}")
            found = {key: _short(value) for key, value in json.loads(ran.splitlines()[-1]).items()}
            found["without_weights_s"] = _short(sum(found.values()) - found["weights_s"])
            say(f"{cache}: {found}")
            yield {"cache": cache, **found}


def _alone(program: str, decoder: str, file: str, caches: str) -> str:
    """Run a program in a process of its own, whose compiler keeps its code in a folder; return what it prints."""
    kept = {"TORCHINDUCTOR_CACHE_DIR": f"{caches}/inductor", "TRITON_CACHE_DIR": f"{caches}/triton"}
    command = [sys.executable, "-c", program, str(time.time()), decoder, file]
    ran = subprocess.run(command, env={**os.environ, **kept}, capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(ran.stderr[-4000:])
    return ran.stdout


SECTIONS = {name.removeprefix("section_"): each for name, each in dict(globals()).items() if name[:8] == "section_"}


def line(found: dict[str, Any]) -> str:
    interval = f"[{found['low']:.4f}, {found['high']:.4f}]"
    host = f"host {found['host_ms']:.2f}, admitting {found['host_admitting_ms']:.2f}"
    return (
        f"tick {found['tick_ms']:.3f} decoder {found['bare_ms']:.3f} ratio {found['ratio']:.4f} {interval} {host} "
        f"launches {found['launches']:.2f}, ready in {found['ready_s']} s"
    )


def _say(name: str, words: str) -> None:
    sys.stdout.write(f"{name}: {words}\n")
    sys.stdout.flush()


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m tests.gpu.report")
    made.add_argument("sections", nargs="+", choices=sorted(SECTIONS))
    made.add_argument("--out", type=Path, required=True)
    return made


def main() -> int:
    asked = parser().parse_args()
    where = {"name": platform.name("cuda"), "fingerprint": platform.of_device("cuda")}
    where["measured"] = time.strftime("%Y-%m-%d")
    for name in asked.sections:
        found: list[dict[str, Any]] = []
        for each in SECTIONS[name](partial(_say, name)):
            found.append(each)
            document = {"platform": where, "section": name, "ring": _ring(), "found": found}
            (asked.out / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    return 0


def _ring() -> dict[str, Any]:
    return {"decoder": "2b", "dtype": "bfloat16", "executor": "compiled_graph", "steps": 8, "tokens": 200}


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _short(each) for key, each in value.items()}
    return [_short(each) for each in value] if isinstance(value, list | tuple) else value


if __name__ == "__main__":
    sys.exit(main())
