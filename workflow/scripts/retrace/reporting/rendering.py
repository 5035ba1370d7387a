"""Fills the template of the pages: everything that a page needs is in it."""

from __future__ import annotations

from functools import partial
from typing import Any

import jinja2

from retrace import __version__
from retrace.reporting.browser_libraries import browser_libraries
from retrace.reporting.dates import date_text, now
from retrace.reporting.machine import commit
from retrace.reporting.tables import Column, cell_order, cell_text


def render(template: str, *, title: str, **parts: Any) -> str:
    """A page with the given parts of the template (Jinja)."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["cell"] = cell_text
    environment.filters["plain"] = partial(cell_text, column=Column("", ""))
    environment.filters["order"] = cell_order
    return environment.from_string(template).render(
        title=title,
        version=__version__,
        commit=commit(),
        date=date_text(now()),
        libraries=browser_libraries(),
        **parts,
    )
