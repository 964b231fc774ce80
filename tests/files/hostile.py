"""Files of every kind, whole and hostile, and the readers that must refuse the hostile ones by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.parity.baselines import store


def sealed(document: Mapping[str, Any]) -> bytes:
    """A document with a digest that is right, as somebody makes it who wants it to be read."""
    body = {
        "format": store.FORMAT,
        **{key: value for key, value in document.items() if key not in ("format", "digest")},
    }
    return json.dumps({**body, "digest": store._digest(body)}).encode()


def resealed(path: Path, **changes: Any) -> None:
    """Change fields of a sealed file and seal it again."""
    path.write_bytes(sealed({**json.loads(path.read_bytes()), **changes}))
