"""Defects of the foreign ring that no test but the one with random scripts notices."""

from __future__ import annotations

from tests.examples.foreign_defects import MOVED, Planted, of_fused

SCRIPTS = "scripts"


def said(error: str, *more: str) -> tuple[str, ...]:
    """What the fixture says: the seed, the error and its place, and a script that can be pasted."""
    return (f"fails with {error}: ", "the script of seed ", "to play it again:", "Script((", *more)


ADVANCE = "        done = self._advance(busy) if busy else {}\n"
NOW = "        now, self.churn = self.churn, getattr(self, 'then', CHURN)\n"
THEN = "        self.then = self.churn = now\n"
FREED = "                self.held[lane], self.at[lane] = None, 0\n\n    def set_churn"
SET_DEPTH = "        self.depth = depth\n"
SCALE, LARGEST = "scale = self.held[lane].scale", "max(request.scale for request in self.held if request)"
MEAN = "smooth * self.mean[lane] + (1 - smooth) * velocity"
KEY = "key = prompt, length"
SEEDED = "random.Random(seed * STEPS + self.at[lane])"
FEED = "self.queue.append(Request(request) if isinstance(request, str) else request)"

IN_BOTH_RINGS = [
    Planted("the mean of a lane leaks into its next request", "        self.mean[lane] = 0\n", "",
            said("NotAlone", "stage smooth:", "'smooth': 0.5")),
    Planted("smoothing reads the mean of the lane before", "smooth * self.mean[lane]", "smooth * self.mean[lane - 1]",
            said("NotAlone", "stage smooth:", "'smooth': 0.5")),
    Planted("a live change acts one tick late", ADVANCE, f"{NOW}{ADVANCE}{THEN}",
            said("NotAlone", "stage step:", "Live(control='churn'")),
    Planted("all lanes have the largest scale", SCALE, f"scale = {LARGEST}",
            said("NotAlone", "stage guidance:", "'scale': 1.0")),
    Planted("noise depends on the tick", SEEDED, "random.Random(seed * STEPS + self.count)",
            said("NotAlone", "stage noise:")),
    Planted("noise depends on the lane", SEEDED, "random.Random(seed * STEPS + self.at[lane] + lane)",
            said("NotAlone", "stage noise:")),
    Planted("the first latent depends on the lane", "manual_seed(request.seed)", "manual_seed(request.seed + lane)",
            said("NotAlone", "stage gather:")),
    Planted("smooth requests draw from the generator of all", "DICE if seed is None else",
            "DICE if seed is None or self.held[lane].smooth else",
            said("NotAlone", "stage noise:", "let each request draw from its own seed")),
    Planted("a cancel frees the lane before", FREED, FREED.replace("self.held[lane]", "self.held[lane - 1]"),
            said("RequestLost", "Cancel(number=")),
    Planted("a cancel leaves the queue alone", "if request.name != name)", "if request)",
            said("RequestLost", "is still there a tick after it was cancelled")),
    Planted("a cancel empties the queue", "if request.name != name)", "if name is None)",
            said("RequestLost", "left the ring without a result, and nobody cancelled it")),
    Planted("a change of depth reorders the queue", SET_DEPTH, f"{SET_DEPTH}        self.queue.reverse()\n",
            said("RequestLost", "submitted later, entered", "Depth(depth=")),
    Planted("a change of depth empties the queue", SET_DEPTH, f"{SET_DEPTH}        self.queue.clear()\n",
            said("RequestLost", "left the ring without a result", "Depth(depth=")),
    Planted("a smaller depth drops what is in the other lanes", SET_DEPTH,
            f"{SET_DEPTH}        self.held[depth:] = [None] * (LANES - depth)\n",
            said("RequestLost", "left the ring without a result", "Depth(depth=")),
    Planted("a long queue loses its oldest request", FEED, f"{FEED}\n        self.queue = deque(self.queue, 4)",
            said("RequestLost", "left the ring without a result")),
    Planted("a short request is handed out as a view", "self.x[lane].clone()\n                self",
            "self.x[lane].clone() if self.held[lane].length == WIDTH else self.x[lane]\n                self",
            said("OutputChanged", "'length': 20")),
]  # fmt: skip

IN_THE_FAST_RING = [
    Planted("the key of the cache has no length", KEY, "key = prompt", said("EnginesParted", "stage condition:")),
    Planted("the mean leaks where lanes are fused", "        self.mean[lane] = 0\n",
            "        if not self.fused:\n            self.mean[lane] = 0\n",
            said("EnginesParted", "state/mean: bytes differ")),
    Planted("a live change acts in the first step alone", MOVED,
            MOVED.replace("self.churn", of_fused("self.churn", "(self.churn if self.at[lane] == 0 else CHURN)")),
            said("EnginesParted", "stage step:", "Live(control='churn'")),
    Planted("fused lanes have the largest scale", SCALE, f"scale = {of_fused(SCALE[8:], LARGEST)}",
            said("EnginesParted", "stage guidance:", "'scale': 1.0")),
    Planted("a change of depth turns the fused queue", SET_DEPTH,
            f"{SET_DEPTH}        if self.fused:\n            self.queue.rotate()\n",
            said("EnginesParted", "Depth(depth=")),
    Planted("smoothing in another order", MEAN, of_fused(MEAN, "self.mean[lane].lerp(velocity, 1 - smooth)"),
            said("EnginesParted", "stage smooth:", "'smooth': 0.5")),
]  # fmt: skip

HARMLESS = [
    Planted("the key of the cache in another order", KEY, "key = length, prompt"),
    Planted("a cancel that looks for the lane otherwise", "if request is not None and request.name == name:",
            "if request and name == request.name:"),
]  # fmt: skip
