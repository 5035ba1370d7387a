"""The documentation builds into a site without a warning, and opens and searches from a disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from page_browser import opened


@pytest.fixture(scope="module")
def site(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "docs/_site/build.py", str(folder)]
    run = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    return folder


def test_the_site_has_the_written_and_the_generated_pages(site: Path) -> None:
    pages = {p.relative_to(site).as_posix(): p.read_text() for p in site.rglob("*.html")}

    library = pages["reference/library/retrace.networks.html"]
    assert "Smallest input shape (z, y, x) without pooling remainder" in library
    assert "--settings" in pages["reference/programs.html"]
    assert "zfinch" in pages["index.html"]
    assert 'id="train-killed"' in pages["how-to/train.html"]


def test_the_site_is_searched_from_a_disk_without_internet_access(site: Path, browser: str) -> None:
    with opened(browser, site / "search.html", query="?q=agglomeration") as page:
        results = page.elements("#search-results li a")
        names = {result.text for result in results}
        results[0].click()
        addresses = page.requests()
        errors = [entry for entry in page.console() if entry["level"] == "SEVERE"]

    assert any("segment" in name.lower() for name in names), names
    assert {address.partition(":")[0] for address in addresses} == {"file"}
    assert {e["message"][-150:] for e in errors} == set()
