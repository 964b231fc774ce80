"""Templates of pages, which escape whatever they are given."""

from __future__ import annotations

import jinja2

from harness.files.refused import shown


def template(name: str) -> jinja2.Template:
    """A template of this package, which escapes whatever it is given."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("harness.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: shown(value) if type(value) is str else value,
    )
    return environment.get_template(name)
