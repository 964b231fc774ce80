"""Examples of every command: the last lines of its help."""

from __future__ import annotations

from collections.abc import Mapping

PROGRAM = "python -m harness"

EXAMPLES: Mapping[str, Mapping[str, str]] = {
    "check": {
        "compare two scenarios with their captures": "check --only ode_plain --only sde_plain",
        "compare one optimization on and off": "check --switches --switch fused_cfg",
    },
    "bless": {"keep one scenario's present results": 'bless --only ode_plain --reason "why they may change"'},
    "probe": {"measure one executor with 16 frames": "probe --decoder affine --executor eager --frames 16"},
    "bench": {"time ticks with guidance, and what each switch saves": "bench --cfg full --ablate --json bench.json"},
    "compare": {"compare the working tree with the last commit": "compare HEAD --rounds 4 --depth 2"},
    "export": {"export the small decoder": "export --decoder tiny tiny.onnx"},
    "build": {"build a plan for at most four rows": "build --max-batch 4 tiny.onnx tiny.plan"},
    "profile": {"time the layers of the small decoder": "profile --decoder tiny --json profile.json"},
    "replay": {"play a recorded trace again, up to tick 100": "replay production.trace --until 100"},
}
"""For each command: what an example does, and its command line after the program's name."""


def epilog(command: str) -> str | None:
    """Return the last lines of a command's help; None for a command without examples."""
    if command not in EXAMPLES:
        return None
    lines = [f"  # {words}\n  {PROGRAM} {example}" for words, example in EXAMPLES[command].items()]
    return "\n".join(["\b", "Examples:", *lines])
