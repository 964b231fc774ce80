"""A small streaming sampler of somebody else's, with three optimizations; `lazy` is wrong."""

from __future__ import annotations

import random
from collections import deque

import torch

WIDTH, LANES, STEPS, SCALE, CHURN = 48, 3, 4, 2.5, 0.05
DICE = random.Random(7)


def encode(prompt):
    """Return the text vector [WIDTH] of a prompt."""
    letters = torch.tensor([float(ord(letter) % 17) for letter in prompt])
    return letters.repeat(WIDTH // len(prompt) + 1)[:WIDTH] / 17


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
        self.x, self.prompt, self.at = torch.zeros(LANES, WIDTH), [None] * LANES, [0] * LANES
        self.texts, self.kept = {}, {}

    def feed(self, prompt):
        """Put a prompt into the queue."""
        self.queue.append(prompt)

    def advance(self):
        """Move every busy lane one step; return the finished latents by lane."""
        for lane in range(LANES):
            if self.prompt[lane] is None and self.queue:
                self._admit(lane, self.queue.popleft())
        busy = [lane for lane in range(LANES) if self.prompt[lane] is not None]
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
            velocity = self._told("guidance", lane, "velocity", no + SCALE * (yes - no))
            noise = self._told("noise", lane, "noise", self._noise(lane))
            moved = rows[row] - velocity / STEPS + CHURN * noise
            self.x[lane] = self._told("step", lane, "latent", moved)
            self.at[lane] += 1
            if self.at[lane] == STEPS:
                done[f"lane{lane}"] = self.x[lane].clone()
                self.prompt[lane], self.at[lane] = None, 0
        return done

    def _admit(self, lane, prompt):
        self.x[lane] = torch.randn(WIDTH)
        self.prompt[lane], self.at[lane] = prompt, 0

    def _decode(self, rows, text, time):
        if self.fused:
            both = self.net(torch.cat([rows, rows]), torch.cat([text, text * 0]), torch.cat([time, time]))
            return both[: len(rows)], both[len(rows) :]
        positive = self.net(rows, text, time).clone()
        return positive, self.net(rows, text * 0, time)

    def _noise(self, lane):
        last = self.at[lane] == STEPS - 1
        return torch.zeros(WIDTH) if last else torch.full((WIDTH,), DICE.gauss(0, 1))

    def _text(self, lane):
        prompt = self.prompt[lane]
        if self.lazy:  # wrong: the next request in this lane gets the text of the last one
            return self.kept.setdefault(lane, encode(prompt))
        if self.cached:
            if prompt not in self.texts:
                self.texts[prompt] = encode(prompt)
            return self.texts[prompt]
        return encode(prompt)

    def _told(self, stage, lane, name, tensor):
        return tensor if self.tap is None else self.tap(stage, lane, name, tensor)
