"""Random scripts for `lanes.py`: an adapter that says what requests can be, and where each of them is."""

from lanes import Request
from test_lanes import OPTIONS, Adapter

from harness.parity.foreign.records import Cancel, Depth, Features, Live, Submit, Tick

WAYS = {"prompt": ("rain", "wind", "a storm"), "scale": (2.5, 1.0), "length": (48, 20), "smooth": (0.0, 0.5)}
CALLS = {
    Submit: lambda each: ("feed", Request(name=str(each.number), **each.values)),
    Live: lambda each: ("set_churn", each.value),
    Cancel: lambda each: ("cancel", str(each.number)),
    Depth: lambda each: ("set_depth", each.depth),
    Tick: lambda _: ("advance",),
}


class Scripted(Adapter):
    def features(self):
        return Features({"seed": (1, 2), **WAYS}, live={"churn": (0.05, 0.0)}, depths=(3, 1, 2), cancel=True)

    def event(self, operation):
        return CALLS[type(operation)](operation)

    def step(self, event):
        return getattr(self.lanes, event[0])(*event[1:])

    def flying(self):
        return {lane: int(request.name) for lane, request in enumerate(self.lanes.held) if request}

    def waiting(self):
        return [int(request.name) for request in self.lanes.queue]

    def finished(self, output):
        return {int(name): latent for name, latent in (output or {}).items()}


def test_whatever_a_script_does_no_bit_changes(scripts):
    scripts(Scripted, fast=OPTIONS["fused"] | OPTIONS["cached"], count=12)
