"""Builds the documentation as a site that opens from a disk, search included.

    python docs/_site/build.py FOLDER

Sphinx reads the written pages of docs/ and the generated ones from a folder of their own; a warning
is an error.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path

from pages import DOCS, generated, programs, sections
from sphinx.cmd.build import main as sphinx

ANCHOR = re.compile(r'<a id="([^"]+)"></a>')


def collect(folder: Path) -> None:
    """Writes every page, and the pictures, into `folder`."""
    shutil.copytree(DOCS, folder, ignore=shutil.ignore_patterns("_site"), dirs_exist_ok=True)
    for path, text in {**generated(), **programs(), **sections()}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    for page in folder.rglob("*.md"):
        # Anchors of HTML are unknown to Sphinx: its own labels are written so.
        page.write_text(ANCHOR.sub(r"(\1)=", page.read_text()))


def main() -> int:
    """Sphinx's exit status."""
    settings = str(Path(__file__).parent)
    with tempfile.TemporaryDirectory() as source:
        collect(Path(source))
        options = ["-b", "html", "-q", "-W", "--keep-going", "-E", "-d", f"{source}/.doctrees"]
        return sphinx([*options, "-c", settings, source, sys.argv[1]])


if __name__ == "__main__":
    sys.exit(main())
