"""Profiles of exported files by ONNX Runtime's profiler, which writes one event for each node and run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.engine.aot.layers import Layer
from harness.engine.aot.runtime import DTYPES, refusals, session
from harness.engine.errors import ExecutorError, InvalidInput
from harness.files import FileRefused, documents
from harness.rails.profile import sources
from harness.rails.profile.report import NotAProfile, Timed
from harness.rails.profile.rules import Facts
from harness.rails.profile.sources import Tally

_KERNEL = "_kernel_time"
_RUN = "model_run"
_EVENTS = (2**30, 100_000_000)
"""Limits in bytes and values of a profile, which this very process has just written."""


@dataclass
class OnnxSubject:
    """An exported file that ONNX Runtime runs on the CPU.

    Attributes:
        path: the exported file.
        shape: rows N, frames T and tokens L.
        threads: the number of threads that one operator may use.
        source: see `Subject`.
        provenance: see `Subject`.
        feed: the input arrays by name.

    Raises:
        PackageMissing: ONNX Runtime is not installed.
        InvalidInput: there is no such file, the file is no exported decoder, or the file does not take T.
        ExportRefused: ONNX Runtime cannot load the file: it is truncated, or has a dtype without CPU kernels.
    """

    path: Path
    shape: tuple[int, int, int]
    threads: int = 1
    source: str = "onnxruntime"
    provenance: Mapping[str, Any] = field(init=False)
    feed: Mapping[str, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Load the file and make its inputs."""
        self._session = session(self.path, self.threads)
        self.provenance = {"onnxruntime": str(import_module("onnxruntime").__version__)}
        self.feed = feed(self._session.get_inputs(), self.shape)

    def run(self) -> None:
        """Run the file once; see `Subject.run`.

        Raises:
            ExecutorError: ONNX Runtime refuses the run.
        """
        try:
            self._session.run(None, self.feed)
        except refusals() as error:
            raise ExecutorError(f"{self.path}: ONNX Runtime refused a run: {error}") from error

    def layers(self, runs: int, warmup: int) -> tuple[list[Timed], bool]:
        """Profile the nodes; see `Subject.layers`. ONNX Runtime writes its profile to a temporary folder."""
        self._session = None  # two sessions of a large file may not fit into memory
        with TemporaryDirectory(prefix="harness-profile-") as folder:
            self._session = session(self.path, self.threads, Path(folder) / "onnx")
            for _ in range(warmup + runs):
                self.run()
            try:
                events = documents.load(Path(self._session.end_profiling()), *_EVENTS)
            except FileRefused as error:
                raise NotAProfile(str(error)) from error
        return nodes(events, runs, warmup), False


def feed(inputs: Sequence[Any], shape: tuple[int, int, int]) -> dict[str, Any]:
    """Arrays for the inputs of a session, by name, in the session's dtypes.

    Args:
        inputs: the inputs of an ONNX Runtime session, each with name, type and shape.
        shape: rows N, frames T and tokens L.

    Raises:
        InvalidInput: the inputs are not those of an exported decoder, or T is odd and the model takes patches of two
            frames.
    """
    given = {each.name: each for each in inputs}
    try:
        hidden, encoder = given["hidden_states"].shape, given["encoder_hidden_states"].shape
        tensors = sources.batch(shape, int(hidden[2]), int(encoder[2])).tensors()
        arrays = {name: tensors[name].numpy().astype(DTYPES[each.type][1]) for name, each in given.items()}
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise InvalidInput("engine", f"inputs {sorted(given)}", "those of an exported decoder") from error
    if str(hidden[1]).startswith("2*") and shape[1] % 2:
        raise InvalidInput("seq-len", shape[1], "an even number: the model takes patches of two frames")
    return arrays


def nodes(events: Any, runs: int, warmup: int) -> list[Timed]:
    """Average the time of every node over the last `runs` runs.

    Args:
        events: the parsed JSON of ONNX Runtime's profiler, of `warmup + runs` runs.
        runs: the number of runs to average.
        warmup: the number of runs to skip.

    Raises:
        NotAProfile: the format is unknown, or the number of runs is not `warmup + runs`.
        NoLayers: there are no events of nodes.
    """
    try:
        started = sorted(event["ts"] for event in events if event["name"] == _RUN)
        if len(started) != warmup + runs:
            raise NotAProfile(f"ONNX Runtime's profile has {len(started)} runs, expected {warmup + runs}")
        tally, ops = Tally(), {}
        for event in events:
            if event["name"].endswith(_KERNEL) and event["ts"] >= started[warmup]:
                name = event["name"].removesuffix(_KERNEL)
                ops[name] = str(event["args"]["op_name"])
                tally.add(name, event["dur"] / 1e3)
    except (KeyError, TypeError) as error:
        raise NotAProfile(f"not in the format of ONNX Runtime's profiler ({error!r})") from error
    return tally.averages(runs, lambda name: Facts(Layer(name), ops[name]))
