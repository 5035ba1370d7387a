"""Links between pages, and pages that are generated from settings and modules."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from myst_parser.slugs import github_slugify

from loaded_programs import site_program
from retrace.planning.records import record_next_to

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site_pages() -> ModuleType:
    return site_program("pages.py")


def anchors(text: str) -> set[str]:
    """Of all headings of a page, as the site makes them."""
    plain = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    slugs: list[str] = []
    for heading in re.findall(r"^#+ (.*)$", plain, re.M):
        name = github_slugify(re.sub(r"[`*]", "", heading))
        slugs.append(f"{name}-{slugs.count(name)}" if name in slugs else name)
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


def all_pages(site_pages: ModuleType) -> dict[str, str]:
    docs = ROOT / "docs"
    written = {p.relative_to(docs).as_posix(): p.read_text() for p in docs.rglob("*.md")}
    programs = {"reference/programs.md": "# Programs\n"}
    pages: dict[str, str] = {**written, **site_pages.generated(), **programs}
    return pages


def test_every_link_has_a_target(site_pages: ModuleType) -> None:
    assert broken_links(all_pages(site_pages)) == []


def test_broken_links_are_detected() -> None:
    pages = {"a/b.md": "# B\n[x](../c.md#d) [y](../c.md#no) [z](c.md)", "c.md": "# C\n## D\n"}

    assert broken_links(pages) == ["a/b.md: ../c.md#no", "a/b.md: c.md"]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_of_the_front_pages_are_files(page: str) -> None:
    links = re.findall(r"\]\(((?!\w+:)[^)#\s]+)", (ROOT / page).read_text())

    assert [link for link in links if not (ROOT / link).exists()] == []


def test_each_promise_of_security_names_its_test() -> None:
    promises = (ROOT / "SECURITY.md").read_text().split("## What is promised")[1].split("## ")[0]
    rows = [line for line in promises.splitlines() if line.startswith("| ")][1:]
    named = [re.findall(r"`(tests/[^`]+)`", row) for row in rows]
    assert len(rows) >= 8
    assert [row for row, tests in zip(rows, named, strict=True) if not tests] == []
    assert [test for tests in named for test in tests if not (ROOT / test).is_file()] == []


def keys(node: Any) -> set[str]:
    """Every key that a schema describes."""
    if isinstance(node, dict):
        own = set(node["properties"]) if isinstance(node.get("properties"), dict) else set()
        return own.union(*map(keys, node.values()))
    return set().union(*map(keys, node)) if isinstance(node, list) else set()


def test_the_reference_has_every_setting_with_its_meaning(site_pages: ModuleType) -> None:
    pages = site_pages.generated()
    for file in (ROOT / "config/schemas").glob("*.schema.yaml"):
        text = pages[f"reference/settings/{file.name.removesuffix('.schema.yaml')}.md"]
        schema = yaml.safe_load(file.read_text())
        rows = re.findall(r"^\| `([^`]+)` \|", text, re.M)
        assert set(schema["properties"]) <= set(rows), file.name
    config = pages["reference/settings/config.md"]
    allowed = "a whole number from 0 to 9223372036854775807"
    assert f"| `seed` | `0` | {allowed} | Seed of the weights and the batches. |" in config
    assert "| `export.formats` | `[precomputed]` |" in config


def test_every_module_of_the_library_has_its_place(site_pages: ModuleType) -> None:
    text = "\n".join(site_pages.generated().values())
    base = ROOT / "workflow/scripts"
    for file in (base / "retrace").rglob("*.py"):
        if file.stem != "__init__":
            dotted = ".".join(file.relative_to(base).with_suffix("").parts)
            assert f"## {dotted}\n" in text, dotted


def run_generator(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with the library, in the folder of the generators of pages."""
    paths = [str(ROOT / "workflow/scripts"), str(ROOT / "docs/_site")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["what_decides", "formats_page", "dependencies_page"])
def test_a_generated_page_is_current(tmp_path: Path, name: str) -> None:
    page = tmp_path / "page.md"
    run = run_generator(str(ROOT / f"docs/_site/{name}.py"), str(page))

    assert run.returncode == 0, run.stderr
    reference = name.removesuffix("_page").replace("_", "-")
    written = (ROOT / f"docs/reference/{reference}.md").read_text()
    assert written == page.read_text(), "write it again with `make schemas`"


def test_every_rule_with_a_job_is_on_the_page_of_what_decides_each_result() -> None:
    page = (ROOT / "docs/reference/what-decides.md").read_text()
    text = "".join(file.read_text() for file in sorted((ROOT / "rules").glob("*.smk")))
    blocks = re.split(r"^(?: {4})?(?=use rule |rule )", text, flags=re.M)[1:]
    named = [re.match(r"(?:use rule \w+ as|rule) (\w+)", block) for block in blocks]
    jobs = ("job=job_of(", "files_of(")
    rules = [
        name[1]
        for name, block in zip(named, blocks, strict=True)
        if name and (block.startswith("use rule") or any(job in block for job in jobs))
    ]
    assert len(rules) > 40
    assert [name for name in rules if f"\n| **{name}**: " not in page] == []


def test_no_two_results_share_a_record() -> None:
    page = (ROOT / "docs/reference/what-decides.md").read_text()
    first = set(re.findall(r"^\| \*\*\w+\*\*: `([^`]+)`", page, re.M))
    records: dict[str, set[str]] = {}
    for output in first:
        if not output.endswith(".manifest.json"):
            records.setdefault(record_next_to(output), set()).add(output)
    assert len(first) > 30
    # A network has one of these two: they belong to two families.
    either = {"results/D/N/net.h5", "results/D/N/net.param"}
    assert [outputs for outputs in records.values() if len(outputs) > 1] == [either]


def test_a_rule_that_no_planned_run_reaches_is_reported() -> None:
    run = run_generator("-c", "import planned_rules as p; p.RUNS = p.RUNS[2:3]; p.planned_rules()")

    assert run.returncode == 1
    assert "no run in planned_rules.py needs the rules" in run.stderr
    assert "training_curves" in run.stderr
