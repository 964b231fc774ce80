"""Print the bits and the time of one call of the affine decoder, by number of rows and length of the latents.

Run by `compare` in revisions that lack this file, which therefore lies on Python's path:

    PYTHONPATH="$PWD/docs/examples/compare" python -m harness compare BASE HEAD -- python -m decoder_rows

A metric is the smallest time of many calls, in ms of one thread's processor time: other work on the machine makes calls
slower, never faster.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from collections.abc import Iterator
from time import thread_time

import torch
from torch import Tensor

from harness.engine.decoders import AffineDecoder

FRAMES_A_SECOND = 25
CALLS = {2: 300, 30: 60, 240: 20}
"""Number of timed calls by the seconds of a latent."""


def inputs(seconds: int, rows: int) -> dict[str, Tensor]:
    """Draw the arguments of a call: `rows` latents of so many seconds."""
    draw = torch.Generator().manual_seed(0)
    frames = FRAMES_A_SECOND * seconds
    return {
        "hidden_states": torch.randn(rows, frames, 64, generator=draw),
        "timestep": torch.rand(rows, generator=draw),
        "encoder_hidden_states": torch.randn(rows, 8, 16, generator=draw),
        "encoder_mask": torch.ones(rows, 8, dtype=torch.bool),
        "context_latents": torch.randn(rows, frames, 128, generator=draw),
    }


def lines() -> Iterator[dict[str, str | float]]:
    """Make an output and a metric of every load."""
    decoder = AffineDecoder()
    for seconds, rows in itertools.product(CALLS, (1, 8)):
        given = inputs(seconds, rows)
        load = f"{rows} row{'s' * (rows != 1)} of {seconds} s"
        velocity, times = decoder(**given), []
        for _ in range(CALLS[seconds]):
            began = thread_time()
            decoder(**given)
            times.append(1000 * (thread_time() - began))
        yield {"output": load, "sha256": hashlib.sha256(velocity.numpy().tobytes()).hexdigest()}
        yield {"metric": load, "value": min(times)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.inference_mode():
        sys.stdout.writelines(json.dumps(line) + "\n" for line in lines())
