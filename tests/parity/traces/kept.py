"""Folders of captures with blessed traces, as `bless --from-trace` leaves them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from harness.parity.baselines import platform, store


def put(captures: Path, trace: Path, name: str = "night", where: str = "") -> Path:
    """Copy a trace to the captures of a platform, this one if none is named, and write what the manifest says of it."""
    folder = captures / (where or platform.name()) / "traces"
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / f"{name}.trace"
    kept.write_bytes(trace.read_bytes())
    sealed(folder)
    return kept


def sealed(folder: Path) -> None:
    """Write the manifest of all traces in a folder: whatever they are, they are what was blessed."""
    entries = {path.stem: _entry(path.read_bytes()) for path in sorted(folder.glob("*.trace"))}
    store.write_document(folder / store.MANIFEST, {"traces": entries})


def _entry(data: bytes) -> dict[str, Any]:
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "ticks": 3, "reason": "why"}
