"""Pages of the documentation that are generated, and the navigation.

README, CHANGELOG and CONTRIBUTING become pages; the models of the settings their reference; the
programs' help that of the commands; docstrings that of the library.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "workflow" / "scripts"


def generated() -> dict[str, str]:
    """The text of every generated page, by path, except the programs' help."""
    return {**_project_pages(), **_decisions(), **_settings(), **_library()}


# ---------------------------------------------------------------- pages of the project


def _project_pages() -> dict[str, str]:
    names = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}
    names["CONTRIBUTING.md"] = "contributing.md"
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


def _library() -> dict[str, str]:
    """One page a package, `retrace` itself among them, with all its modules."""
    base = SCRIPTS / "retrace"
    folders = sorted(p.parent for p in base.rglob("__init__.py"))
    pages = {}
    for folder in folders:
        dotted = ".".join(folder.relative_to(SCRIPTS).parts)
        modules = sorted(p.stem for p in folder.glob("*.py") if p.stem != "__init__")
        text = f"# {dotted}\n\n" + "".join(f"::: {dotted}.{module}\n\n" for module in modules)
        pages[f"reference/library/{dotted}.md"] = text
    return pages


# ---------------------------------------------------------------- mkdocs


def on_config(config: Any) -> Any:
    """The navigation: the pages in the folders, and the generated ones."""
    docs = Path(config["docs_dir"])
    reference = [*_below(docs, "reference"), *sorted(_settings()), "reference/programs.md"]
    config["nav"] = [
        {"Start": ["index.md", "getting-started.md", "troubleshooting.md"]},
        {"How to": _below(docs, "how-to")},
        {"Reference": [*reference, {"Library": sorted(_library())}]},
        {"Explanation": ["explanation.md", *sorted(_decisions()), *_below(docs, "decisions")]},
        {"Results": ["results.md", "performance.md", "scale.md"]},
        {"Project": ["changelog.md", "contributing.md"]},
    ]
    return config


def _below(docs: Path, folder: str) -> Sequence[str]:
    files = sorted((docs / folder).glob("*.md"), key=title)
    return [file.relative_to(docs).as_posix() for file in files]


def on_files(files: Any, config: Any) -> Any:
    """Adds the generated pages."""
    from mkdocs.structure.files import File

    for path, text in {**generated(), **programs()}.items():
        files.append(File.generated(config, path, content=text))
    return files
