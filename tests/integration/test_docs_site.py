"""The documentation builds into a static site without a warning."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def build(folder: Path, repository: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    return subprocess.run(
        [*command, *options],
        cwd=repository,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_site_builds_without_a_warning(repository: Path, tmp_path: Path) -> None:
    run = build(tmp_path / "site", repository)

    assert run.returncode == 0, run.stdout
    assert "WARNING" not in run.stdout
    pages = {p.relative_to(tmp_path / "site").as_posix(): p for p in tmp_path.rglob("*.html")}
    library = pages["reference/library/retrace.networks.html"].read_text()
    assert "Smallest input shape (z, y, x) without pooling remainder" in library
    assert "--settings" in pages["reference/programs.html"].read_text()
    assert all("https://fonts" not in page.read_text() for page in pages.values())
