"""Pages of the documentation that are generated, and the lists of pages of each section.

README, CHANGELOG and CONTRIBUTING become pages; the models of the settings their reference; the
programs' help that of the commands; docstrings that of the library.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from library_pages import library_pages

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "workflow" / "scripts"
DOCS = ROOT / "docs"


def generated() -> dict[str, str]:
    """The text of every generated page, by path, except the programs' help."""
    return {**_project_pages(), **_decisions(), **_settings(), **_library()}


# ---------------------------------------------------------------- pages of the project


def _project_pages() -> dict[str, str]:
    names = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}
    names |= {"CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md"}
    pages = {}
    for source, page in names.items():
        text = (ROOT / source).read_text()
        for other, moved in names.items():
            text = text.replace(f"]({other})", f"]({moved})")
        text = text.replace("](docs/decisions/)", "](decisions/index.md)")
        pages[page] = text.replace("](docs/", "](")
    return pages


def _decisions() -> dict[str, str]:
    files = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    rows = [f"* [{title(file)}]({file.name})\n" for file in files]
    return {"decisions/index.md": "# Decisions\n\n" + "".join(rows)}


def title(page: Path) -> str:
    """The first heading of a page."""
    return page.read_text().splitlines()[0].removeprefix("# ")


# ---------------------------------------------------------------- settings


def _settings() -> dict[str, str]:
    with _library_path():
        pages = importlib.import_module("retrace.config.settings_pages").settings_pages()
    return {f"reference/settings/{kind}.md": text for kind, text in sorted(pages.items())}


@contextlib.contextmanager
def _library_path() -> Iterator[None]:
    """Makes the library and the programs importable."""
    sys.path[:0] = [str(SCRIPTS)]
    try:
        yield
    finally:
        sys.path.remove(str(SCRIPTS))


# ---------------------------------------------------------------- programs and library


def programs() -> dict[str, str]:
    """The page of the programs' help; imports all of them."""
    lines = ["# Programs", ""]
    lines += ["The `--help` of each program in `workflow/scripts`.", ""]
    for file in sorted(SCRIPTS.glob("*.py")):
        lines += [f"## {file.name}", "", "```text", _help(file.stem).rstrip(), "```", ""]
    return {"reference/programs.md": "\n".join(lines)}


def _help(name: str) -> str:
    text, kept = io.StringIO(), sys.argv
    try:
        sys.argv = [f"{name}.py", "--help"]
        with _library_path(), contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            importlib.import_module(name).main()
    finally:
        sys.argv = kept
    return text.getvalue()


@functools.cache
def _library() -> dict[str, str]:
    return library_pages(SCRIPTS / "retrace")


# ---------------------------------------------------------------- sections


def sections() -> dict[str, str]:
    """The pages that list the pages of a section, and the front page with all sections."""
    written = [p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md")]
    reference = [*_below("reference", written), *sorted(_settings()), "reference/programs.md"]
    results = ["results.md", "performance.md", "scale.md"]
    decisions = ["decisions/index.md", *_below("decisions", written)]
    start = ["getting-started.md", "troubleshooting.md"]
    pages = {
        "start.md": _section("Start", start),
        "how-to/index.md": _section("How to", _below("how-to", written)),
        "reference/index.md": _section("Reference", [*reference, "reference/library/index.md"]),
        "reference/library/index.md": _section("Library", sorted(_library())),
        "background.md": _section("Explanation", ["explanation.md", *decisions]),
        "figures.md": _section("Results", results),
        "project.md": _section("Project", ["changelog.md", "contributing.md", "security.md"]),
    }
    inner = {"reference/library/index.md"}
    front = _project_pages()["index.md"] + _listing(
        [p for p in pages if p not in inner], ":hidden:"
    )
    return {**pages, "index.md": front}


def _section(heading: str, pages: Sequence[str]) -> str:
    return f"# {heading}\n{_listing(pages, ':maxdepth: 1')}"


def _listing(pages: Sequence[str], option: str) -> str:
    """Sphinx's table of contents, with addresses from docs/."""
    return "\n".join(["", "```{toctree}", option, "", *(f"/{page}" for page in pages), "```", ""])


def _below(folder: str, written: Sequence[str]) -> list[str]:
    """The written pages of a folder, in the order of their titles."""
    names = [name for name in written if name.startswith(f"{folder}/")]
    return sorted(names, key=lambda name: title(DOCS / name))
