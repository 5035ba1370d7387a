"""Refuses, while planning, names of files that Snakemake, a shell or a cluster would misread.

All other names are passed on in quotes: by rules with `:q`, to containers by `container_binds`, and
between Snakemake's own processes by `quoted`.
"""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from retrace.errors import ConfigError

WILDCARDS = "{}"
"""What Snakemake takes for the name of a wildcard."""
IN_QUOTES = '$`\\"'
"""What a shell reads inside double quotes too, in which plugins for clusters pass commands on."""


def quoted(value: str) -> str:
    """A value as one word of a command of the shell."""
    return shlex.quote(value)


def check_path(path: str, *, on_cluster: bool) -> None:
    """ConfigError for the path of a file that no quotes protect."""
    _check(f"the path {path!r}", path, WILDCARDS + (IN_QUOTES if on_cluster else ""))
    if on_cluster and path.startswith("-"):
        raise ConfigError(
            f"the path {path!r} begins with a dash, and would be an option of the jobs of a "
            "cluster; rename the file"
        )


def check_folders(root: Path, working: Path, *, on_cluster: bool, in_containers: bool) -> None:
    """ConfigError for the folder of the workflow, or the working directory, with such a name."""
    more = IN_QUOTES if on_cluster else ""
    _check(f"the folder of the workflow {str(root)!r}", str(root), WILDCARDS + more)
    _check(f"the working directory {str(working)!r}", str(working), more)
    # Snakemake passes it to containers as Python's repr, and containers split it at colons.
    if in_containers and (repr(str(working)) != f"'{working}'" or ":" in str(working)):
        raise ConfigError(
            f"the working directory {str(working)!r} contains a colon, an apostrophe or another "
            "character that containers cannot handle; rename it, or run without --use-singularity"
        )


def _check(what: str, text: str, refused: Iterable[str]) -> None:
    wrong = [letter for letter in text if letter in refused or unicodedata.category(letter) == "Cc"]
    if wrong:
        shown = " ".join(dict.fromkeys(map(repr, wrong)))
        raise ConfigError(
            f"{what} contains {shown}, which cannot be passed to jobs safely; rename it"
        )
