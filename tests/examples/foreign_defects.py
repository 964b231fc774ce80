"""Defects that are planted in a copy of the foreign ring, and the fixtures that must be red for each."""

from __future__ import annotations

from dataclasses import dataclass

LOCKSTEP, BLESSED, RAIL = "lockstep", "blessed", "cost_rail"


@dataclass(frozen=True)
class Planted:
    """A change of the ring's source.

    Attributes:
        name: what goes wrong, in a few words.
        old: text that occurs once in the source.
        new: the text in its place.
        says: what the fixture that owns the defect must say; empty for a harmless change.
        red: the fixtures that must be red, the owner first; all others must be green.
    """

    name: str
    old: str
    new: str
    says: tuple[str, ...] = ()
    red: tuple[str, ...] = ()


CAT = "both = self.net(torch.cat([rows, rows]), torch.cat([text, text * 0]), torch.cat([time, time]))"
GUIDE = "no + scale * (yes - no)"
MOVED = "moved = rows[row] - velocity / STEPS + self.churn * noise"
TOLD = f'self._told("guidance", lane, "velocity", {GUIDE})'
KEPT = "                self.texts[key] = encode(prompt, length)\n            return self.texts[key]"
MAKE = "self.texts[key] = encode(prompt, length)"
NOISE = "dice.gauss(0, 1))"


def of_fused(expression: str, wrong: str) -> str:
    """The wrong expression where lanes are fused."""
    return f"({wrong} if self.fused else {expression})"


def at(tick: int, slot: int, stage: str, *more: str) -> tuple[str, ...]:
    """What lockstep says of a stage."""
    return (f", tick {tick}, slot {slot}, stage {stage}:", *more)


IN_LOCKSTEP = [
    Planted("the halves of the fused batch are swapped",
            "return both[: len(rows)], both[len(rows) :]", "return both[len(rows) :], both[: len(rows)]",
            at(0, 0, "decode", "decode[0]/positive", "decode[0]/negative"), (LOCKSTEP,)),
    Planted("fused rows run at the times of each other", "torch.cat([time, time]))", "torch.cat([time.flip(0), time]))",
            at(1, 0, "decode", "decode[0]/positive"), (LOCKSTEP, RAIL)),
    Planted("negative rows are those of the lane before", "torch.cat([rows, rows])",
            "torch.cat([rows, torch.stack([rows[i - 1] for i in range(len(rows))])])",
            at(1, 0, "decode", "decode[0]/negative"), (LOCKSTEP, RAIL)),
    Planted("negative rows see the text", "torch.cat([text, text * 0])", "torch.cat([text, text])",
            at(0, 0, "decode", "decode[0]/negative"), (LOCKSTEP, RAIL)),
    Planted("the fused velocity is kept in half the bits", CAT, f"{CAT}.bfloat16().float()",
            at(0, 0, "decode"), (LOCKSTEP, RAIL)),
    Planted("the fused velocity is one ULP off", CAT, f"{CAT}\n            both = torch.nextafter(both, both + 1)",
            at(0, 0, "decode", "max 1 ULP"), (LOCKSTEP, RAIL)),
    Planted("the cache takes prompts of one length for one prompt",
            "key = prompt, length", "key = len(prompt), length",
            at(1, 1, "condition"), (LOCKSTEP,)),
    Planted("the cache returns its oldest entry", MAKE,
            "self.texts[key] = next(iter(self.texts.values()), encode(prompt, length))",
            at(1, 1, "condition"), (LOCKSTEP,)),
    Planted("a cached text is written to in a later tick", KEPT,
            f"{KEPT}.mul_(1.0 if self.count < 6 else 0.999)", at(6, 0, "condition"), (LOCKSTEP, RAIL)),
    Planted("the cache keeps half the bits", MAKE, f"{MAKE}.half().float()", at(0, 0, "condition"), (LOCKSTEP,)),
    Planted("the cache keeps another dtype", MAKE, f"{MAKE}.double()",
            at(0, 0, "condition", "dtype differs"), (LOCKSTEP,)),
    Planted("a row of another lane is gathered in one tick", "self.x[lane].clone()) for lane in busy",
            f"self.x[lane - {of_fused('0', 'int(self.count == 6)')}].clone()) for lane in busy",
            at(6, 0, "gather"), (LOCKSTEP,)),
    Planted("guidance is computed in another order", GUIDE, of_fused(GUIDE, "scale * yes + (1 - scale) * no"),
            at(0, 0, "guidance"), (LOCKSTEP, RAIL)),
    Planted("guidance is a fused operator", GUIDE, of_fused(GUIDE, "torch.lerp(no, yes, scale)"),
            at(0, 0, "guidance"), (LOCKSTEP, RAIL)),
    Planted("guidance is left out for one lane", GUIDE, of_fused(GUIDE, f"(yes if lane == 2 else {GUIDE})"),
            at(2, 2, "guidance"), (LOCKSTEP, RAIL)),
    Planted("the step adds in another order", MOVED,
            f"moved = {of_fused(MOVED[8:], 'rows[row] + self.churn * noise - velocity / STEPS')}",
            at(0, 0, "step"), (LOCKSTEP,)),
    Planted("a random number is drawn and thrown away", "last = self.at[lane] == STEPS - 1",
            "last = self.at[lane] == STEPS - 1\n        if last and self.fused:\n            DICE.random()",
            at(3, 1, "noise"), (LOCKSTEP,)),
    Planted("one lane has noise of its own", NOISE,
            of_fused("dice.gauss(0, 1)", "dice.gauss(0, 1) if lane != 1 else 0.5") + ")",
            at(1, 1, "noise"), (LOCKSTEP,)),
    Planted("the first latent is drawn at another size", "self.x[lane] = torch.randn(WIDTH)\n",
            f"self.x[lane] = {of_fused('torch.randn(WIDTH)', 'torch.randn(2, WIDTH)[1]')}\n",
            at(0, 0, "gather"), (LOCKSTEP,)),
    Planted("a finished latent is a view of the ring", "= self.x[lane].clone()\n",
            f"= {of_fused('self.x[lane].clone()', 'self.x[lane]')}\n",
            ("fast handed out lane0 at event 6, and fast changed it at event 10, None, tick 5",), (LOCKSTEP, RAIL)),
    Planted("a freed lane keeps its step", "= None, 0\n        return done",
            f"= None, {of_fused('0', '1')}\n        return done", (", tick 3:", "state/at: bytes differ"), (LOCKSTEP,)),
    Planted("the queue is served from its end", "self.queue.popleft()",
            of_fused("self.queue.popleft()", "self.queue.pop()"), at(5, 0, "condition"), (LOCKSTEP,)),
    Planted("guidance is not reported", TOLD, of_fused(TOLD, GUIDE),
            at(0, 0, "guidance", "only plain reports guidance[0]/velocity"), (LOCKSTEP,)),
    Planted("one tick is counted twice", "self.count += 1", f"self.count += {of_fused('1', '1 + (self.count == 4)')}",
            (", tick 5:", "plain has completed 5 ticks, fast 6"), (LOCKSTEP,)),
    Planted("the fused path fails in a full ring", CAT, f"assert len(busy_rows := rows) < 3, 'full'\n            {CAT}",
            ("tick 2", "plain returns, fast raises AssertionError: full (after gather[2]/row)"), (LOCKSTEP, RAIL)),
]  # fmt: skip

IN_CAPTURES = [
    Planted("the guidance scale is another one", "SCALE, CHURN = 48, 3, 4, 2.5,", "SCALE, CHURN = 48, 3, 4, 2.25,",
            ("event-1/tick-0/guidance/slot-0/velocity",), (BLESSED,)),
    Planted("the churn is another one", "2.5, 0.05", "2.5, 0.06", ("event-1/tick-0/step/slot-0/latent",), (BLESSED,)),
    Planted("time is that of the next step", "1 - self.at[lane] / STEPS", "1 - (self.at[lane] + 1) / STEPS",
            ("event-1/tick-0/decode/slot-0/positive",), (BLESSED,)),
    Planted("the encoder reads letters otherwise", "% 17)", "% 16)",
            ("event-1/tick-0/condition/slot-0/text",), (BLESSED,)),
    Planted("noise of another distribution", NOISE, "dice.uniform(-1, 1))",
            ("event-1/tick-0/noise/slot-0/noise",), (BLESSED,)),
    Planted("noise is added in the last step too", "last = self.at[lane] == STEPS - 1", "last = self.at[lane] == STEPS",
            ("event-6/tick-3/noise/slot-0/noise",), (BLESSED, RAIL)),
    Planted("the shared output buffer is not copied", "positive = self.net(rows, text, time).clone()",
            "positive = self.net(rows, text, time)",
            ("event-1/tick-0/decode/slot-0/positive",), (BLESSED, LOCKSTEP, RAIL)),
]  # fmt: skip

IN_COSTS = [
    Planted("the cache is never hit", "if key not in self.texts:", "if key:", ("aten::repeat",), (RAIL,)),
    Planted("the fused path is never taken", "if self.fused:", "if self.fused and not rows.ndim:",
            ("aten::add_",), (RAIL,)),
    Planted("the host reads a tensor", "if self.rough:", "if self.rough or bool(x.isnan().any()):",
            ("aten::_local_scalar_dense",), (RAIL,)),
    Planted("a velocity is copied for nothing", MOVED, MOVED.replace("velocity", "velocity.clone()"),
            ("aten::clone",), (RAIL,)),
]  # fmt: skip

HARMLESS = [
    Planted("a constant is counted from the other end", "1 - self.at[lane] / STEPS", "(STEPS - self.at[lane]) / STEPS"),
    Planted("the cache asks in another way", "if key not in self.texts:", "if self.texts.get(key) is None:"),
    Planted("guidance in two lines", GUIDE, "no + scale * torch.sub(yes, no)"),
    Planted("a counter on the host", "self.count += 1", "self.count += 1\n        self.seen = len(done)"),
    Planted("busy lanes are found otherwise", "if self.held[lane] is not None]", "if self.held[lane]]"),
]

WITHIN_A_BOUND = [planted for planted in IN_LOCKSTEP if planted.name == "the fused velocity is one ULP off"]
_FUSED = ("decode", "gather", "guidance", "step", "noise")
ALSO_WITH_A_BOUND = [
    planted
    for planted in IN_LOCKSTEP
    if planted not in WITHIN_A_BOUND and any(f", stage {stage}:" in planted.says[0] for stage in _FUSED)
]
"""Defects of the fused path: the decoder is rough in that path, and has a bound."""
