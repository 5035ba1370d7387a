"""The JavaScript that the pages contain: plotly draws curves, DataTables sorts tables.

Both are files of locked Python packages (plotly, itables), which are read without an import.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from retrace.errors import RetraceError


@dataclass(frozen=True)
class BrowserLibraries:
    """What a page contains of both: code of plotly, data URL of DataTables' module, its styles."""

    plotly: str
    tables_module: str
    tables_styles: str


@cache
def browser_libraries() -> BrowserLibraries:
    """The files of the installed packages; RetraceError if one is not installed."""
    module = base64.b64encode(_text("itables", "html/dt_bundle.js").encode()).decode()
    return BrowserLibraries(
        plotly=_text("plotly", "package_data/plotly.min.js"),
        tables_module=f"data:text/javascript;base64,{module}",
        tables_styles=_text("itables", "html/dt_bundle.css"),
    )


def library_versions() -> dict[str, str]:
    """The version of each package."""
    return {name: version(name) for name in ("plotly", "itables")}


def _text(package: str, file: str) -> str:
    try:
        return Path(str(distribution(package).locate_file(f"{package}/{file}"))).read_text()
    except (PackageNotFoundError, OSError) as error:
        raise RetraceError(
            f"the page needs {file} of the package {package} ({error}); run `make setup`, or use "
            "the image of the workflow"
        ) from None
