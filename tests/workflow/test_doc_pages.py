"""Links between pages, and pages that are generated from settings and modules."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from markdown.extensions.toc import slugify

from loaded_programs import program

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    return program(ROOT / "docs/_site/hooks.py")


def anchors(text: str) -> set[str]:
    """Of all headings of a page, as the site makes them."""
    plain = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    slugs: list[str] = []
    for heading in re.findall(r"^#+ (.*)$", plain, re.M):
        name = slugify(re.sub(r"[`*]", "", heading), "-")
        slugs.append(f"{name}_{slugs.count(name)}" if name in slugs else name)
    return set(slugs)


def broken_links(pages: dict[str, str]) -> list[str]:
    """Links of pages, by path from docs/, without a target page, file or heading."""
    broken = []
    for page, text in pages.items():
        for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
            if re.match(r"\w+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (Path("/") / page).parent / path if path else Path("/") / page
            name = Path(*target.resolve().parts[1:]).as_posix() if path else page
            if name in pages:
                missing = anchor and anchor not in anchors(pages[name])
            else:
                missing = not (ROOT / "docs" / name).is_file()
            if missing:
                broken.append(f"{page}: {link}")
    return broken


def all_pages(hooks: ModuleType) -> dict[str, str]:
    docs = ROOT / "docs"
    written = {p.relative_to(docs).as_posix(): p.read_text() for p in docs.rglob("*.md")}
    programs = {"reference/programs.md": "# Programs\n"}
    pages: dict[str, str] = {**written, **hooks.generated(), **programs}
    return pages


def test_every_link_has_a_target(hooks: ModuleType) -> None:
    assert broken_links(all_pages(hooks)) == []


def test_broken_links_are_detected() -> None:
    pages = {"a/b.md": "# B\n[x](../c.md#d) [y](../c.md#no) [z](c.md)", "c.md": "# C\n## D\n"}

    assert broken_links(pages) == ["a/b.md: ../c.md#no", "a/b.md: c.md"]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_of_the_front_pages_are_files(page: str) -> None:
    links = re.findall(r"\]\(((?!\w+:)[^)#\s]+)", (ROOT / page).read_text())

    assert [link for link in links if not (ROOT / link).exists()] == []


def keys(node: Any) -> set[str]:
    """Every key that a schema describes."""
    if isinstance(node, dict):
        own = set(node["properties"]) if isinstance(node.get("properties"), dict) else set()
        return own.union(*map(keys, node.values()))
    return set().union(*map(keys, node)) if isinstance(node, list) else set()


def test_the_reference_has_every_setting_with_its_meaning(hooks: ModuleType) -> None:
    pages = hooks.generated()
    for file in (ROOT / "config/schemas").glob("*.schema.yaml"):
        text = pages[f"reference/settings/{file.name.removesuffix('.schema.yaml')}.md"]
        schema = yaml.safe_load(file.read_text())
        rows = re.findall(r"^\| `([^`]+)` \|", text, re.M)
        assert set(schema["properties"]) <= set(rows), file.name
    config = pages["reference/settings/config.md"]
    allowed = "a whole number from 0 to 9223372036854775807"
    assert f"| `seed` | `0` | {allowed} | Seed of the weights and the batches. |" in config
    assert "| `export.formats` | `[precomputed]` |" in config


def test_every_module_of_the_library_has_its_place(hooks: ModuleType) -> None:
    text = "\n".join(hooks.generated().values())
    base = ROOT / "workflow/scripts"
    for file in (base / "retrace").rglob("*.py"):
        if file.stem != "__init__":
            dotted = ".".join(file.relative_to(base).with_suffix("").parts)
            assert f"::: {dotted}\n" in text, dotted
