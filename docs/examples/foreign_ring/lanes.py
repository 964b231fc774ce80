"""A small streaming sampler of somebody else's, with three optimizations; `lazy` is wrong."""

from __future__ import annotations

import random
from collections import deque
from typing import NamedTuple

import torch

WIDTH, LANES, STEPS, SCALE, CHURN = 48, 3, 4, 2.5, 0.05
DICE = random.Random(7)


class Request(NamedTuple):
    """A prompt and its options; without a seed the numbers are drawn from the global generator and from DICE."""

    prompt: str
    seed: int | None = None
    scale: float = SCALE
    length: int = WIDTH
    smooth: float = 0.0
    name: str = ""


def encode(prompt, length=WIDTH):
    """Return the text vector [WIDTH] of a prompt, 0 from `length` on."""
    letters = torch.tensor([float(ord(letter) % 17) for letter in prompt])
    text = letters.repeat(WIDTH // len(prompt) + 1)[:WIDTH] / 17
    text[length:] = 0
    return text


class Net:
    """A decoder. Every call overwrites the buffer that the last call returned."""

    def __init__(self, rough=False):
        self.rough, self.weight = rough, torch.linspace(0.2, 0.9, WIDTH)
        self.mix = torch.linspace(-0.2, 0.2, WIDTH * WIDTH).sin().reshape(WIDTH, WIDTH) / 3
        self.out = torch.empty(2 * LANES, WIDTH)

    def __call__(self, x, text, time):
        """Return the velocity [rows, WIDTH] of rows x and text [rows, WIDTH] at time [rows]."""
        out = self.out[: len(x)]
        torch.mul(x, self.weight, out=out)
        out += text * time[:, None]
        if self.rough:  # a matrix product rounds a row differently in a batch of another size
            out += x @ self.mix
        return out


class Lanes:
    """A ring: feed prompts, advance; every lane takes STEPS ticks from noise to a finished latent."""

    def __init__(self, fused=False, cached=False, lazy=False, rough=False):
        self.fused, self.cached, self.lazy = fused, cached, lazy
        self.net, self.count, self.queue, self.tap = Net(rough), 0, deque(), None
        self.x, self.held, self.at = torch.zeros(LANES, WIDTH), [None] * LANES, [0] * LANES
        self.mean, self.churn, self.depth = torch.zeros(LANES, WIDTH), CHURN, LANES
        self.texts, self.kept = {}, {}

    def feed(self, request):
        """Put a request, or a prompt, into the queue."""
        self.queue.append(Request(request) if isinstance(request, str) else request)

    def cancel(self, name):
        """Drop a request that waits or is in a lane."""
        self.queue = deque(request for request in self.queue if request.name != name)
        for lane, request in enumerate(self.held):
            if request is not None and request.name == name:
                self.held[lane], self.at[lane] = None, 0

    def set_churn(self, churn):
        """Set the amount of noise from the next tick on."""
        self.churn = churn

    def set_depth(self, depth):
        """Set how many lanes take requests; what is in the others goes on to its end."""
        self.depth = depth

    def advance(self):
        """Move every busy lane one step; return the finished latents by lane."""
        for lane in range(self.depth):
            if self.held[lane] is None and self.queue:
                self._admit(lane, self.queue.popleft())
        busy = [lane for lane in range(LANES) if self.held[lane] is not None]
        done = self._advance(busy) if busy else {}
        self.count += 1
        return done

    def _advance(self, busy):
        time = torch.tensor([1 - self.at[lane] / STEPS for lane in busy])
        text = torch.stack([self._told("condition", lane, "text", self._text(lane)) for lane in busy])
        rows = torch.stack([self._told("gather", lane, "row", self.x[lane].clone()) for lane in busy])
        positive, negative = self._decode(rows, text, time)
        done = {}
        for row, lane in enumerate(busy):
            yes = self._told("decode", lane, "positive", positive[row])
            no = self._told("decode", lane, "negative", negative[row])
            scale = self.held[lane].scale
            velocity = self._told("guidance", lane, "velocity", no + scale * (yes - no))
            if self.held[lane].smooth:
                velocity = self._smoothed(lane, velocity)
            noise = self._told("noise", lane, "noise", self._noise(lane))
            moved = rows[row] - velocity / STEPS + self.churn * noise
            self.x[lane] = self._told("step", lane, "latent", moved)
            self.at[lane] += 1
            if self.at[lane] == STEPS:
                name = self.held[lane].name or f"lane{lane}"
                done[name] = self.x[lane].clone()
                self.held[lane], self.at[lane] = None, 0
        return done

    def _admit(self, lane, request):
        if request.seed is None:
            self.x[lane] = torch.randn(WIDTH)
        else:
            self.x[lane] = torch.randn(WIDTH, generator=torch.Generator().manual_seed(request.seed))
        self.held[lane], self.at[lane] = request, 0
        self.mean[lane] = 0

    def _smoothed(self, lane, velocity):
        smooth = self.held[lane].smooth
        self.mean[lane] = smooth * self.mean[lane] + (1 - smooth) * velocity
        return self._told("smooth", lane, "velocity", self.mean[lane].clone())

    def _decode(self, rows, text, time):
        if self.fused:
            both = self.net(torch.cat([rows, rows]), torch.cat([text, text * 0]), torch.cat([time, time]))
            return both[: len(rows)], both[len(rows) :]
        positive = self.net(rows, text, time).clone()
        return positive, self.net(rows, text * 0, time)

    def _noise(self, lane):
        last = self.at[lane] == STEPS - 1
        seed = self.held[lane].seed
        dice = DICE if seed is None else random.Random(seed * STEPS + self.at[lane])
        return torch.zeros(WIDTH) if last else torch.full((WIDTH,), dice.gauss(0, 1))

    def _text(self, lane):
        prompt, length = self.held[lane].prompt, self.held[lane].length
        if self.lazy:  # wrong: the next request in this lane gets the text of the last one
            return self.kept.setdefault(lane, encode(prompt, length))
        if self.cached:
            key = prompt, length
            if key not in self.texts:
                self.texts[key] = encode(prompt, length)
            return self.texts[key]
        return encode(prompt, length)

    def _told(self, stage, lane, name, tensor):
        return tensor if self.tap is None else self.tap(stage, lane, name, tensor)
