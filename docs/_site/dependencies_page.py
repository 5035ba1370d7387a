"""The page of the dependencies: `python docs/_site/dependencies_page.py FILE` writes it.

Purposes and alternatives are in dependencies.yaml, versions in the locks of envs/, licences in the
metadata of installed packages, and dates in releases.yaml, which releases.py writes.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from licences import WEAK_COPYLEFT, identifiers, licence_of

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
RELEASES = HERE / "releases.yaml"
SECTIONS = {
    "Where Snakemake runs": ("host.in", "host.txt"),
    "Programs": ("modern.in torch.txt", "modern.txt torch.txt"),
    "The library alone": ("pyproject.toml", "dev.txt"),
    "Development, tests and documentation": ("dev.in uv.in", "dev.txt"),
    "The legacy engine": (
        "legacy.in legacy_pip.txt standin.in",
        "legacy.txt legacy_pip.txt standin.txt",
    ),
}
"""By heading the files that ask for packages, and their locks. A package is listed once."""
INTRODUCTION = """\
# Dependencies

Generated from `docs/_site/dependencies.yaml`, the locks in `envs/` and the metadata of packages;
`make schemas` writes this page again, and `make lock` looks up the last releases.

Packages are installed in exactly these versions, checked against hashes. The tests fail if a direct
dependency is not on this page, or if any locked package has a licence that is unknown or not in the
list below.
"""
PACKAGES = """\
| package | version | purpose | licence | last release | alternative |
|---|---|---|---|---|---|
"""
SYSTEM = """\
## Programs of the system

In the distribution's versions. `git`, `make` and one Python are needed for everything; the others
for containers, screenshots and the tests' cluster.

| program | purpose | licence | alternative |
|---|---|---|---|
"""
IMAGES = """\
## Images

| image | purpose | licence | alternative |
|---|---|---|---|
"""
LICENCES = """\
## Licences of all locked packages

Allowed are licences that ask for notices, and those whose conditions end with the package itself
(LGPL, MPL).

| licence | packages |
|---|---|
"""
EXCEPTIONS = """\
The metadata of these name no licence, or one that does not apply:

| package | licence | stated in |
|---|---|---|
"""
ELSEWHERE = """\
These are locked, and not installed where the tests run:

| package | licence | installed on |
|---|---|---|
"""


# ---------------------------------------------------------------- what is asked for and locked


def table() -> dict[str, Any]:
    """The content of dependencies.yaml."""
    content: dict[str, Any] = yaml.safe_load((HERE / "dependencies.yaml").read_text())
    return content


def normal(name: str) -> str:
    """The one spelling of a package's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requested(file: str) -> list[str]:
    """The packages that a file of envs/, or pyproject.toml, asks for."""
    if file == "pyproject.toml":
        project = tomllib.loads((ROOT / file).read_text())["project"]
        extras = project["optional-dependencies"]
        lines = [*project["dependencies"], *(x for n in extras if n != "all" for x in extras[n])]
    else:
        lines = (ROOT / "envs" / file).read_text().splitlines()
    named = (re.match(r"[A-Za-z0-9][\w.-]*", line) for line in lines)
    return sorted({normal(match[0]) for match in named if match})


def direct() -> dict[str, list[str]]:
    """The direct dependencies by heading, each once."""
    listed, seen = {}, set[str]()
    for heading, (files, _) in SECTIONS.items():
        names = {name for file in files.split() for name in requested(file)} - seen
        listed[heading] = sorted(names)
        seen |= names
    return listed


def locked(files: Iterable[str]) -> dict[str, list[str]]:
    """The versions of every package in the locks `files` of envs/, by name."""
    versions = defaultdict[str, set[str]](set)
    for text in ((ROOT / "envs" / file).read_text() for file in files):
        for name, version in re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, re.M):
            versions[normal(name)].add(version)
    return {name: sorted(versions[name]) for name in sorted(versions)}


def all_locked() -> list[str]:
    """Every package that is in a lock."""
    return list(locked(path.name for path in (ROOT / "envs").glob("*.txt")))


# ---------------------------------------------------------------- the page


def page() -> str:
    """The page in Markdown."""
    content, names = table(), all_locked()
    licences = {n: licence_of(n, content["licences"], content["elsewhere"]) for n in names}
    releases = yaml.safe_load(RELEASES.read_text())
    text = INTRODUCTION
    for heading, names in direct().items():
        versions = locked(SECTIONS[heading][1].split())
        text += f"\n## {heading}\n\n{PACKAGES}"
        for name in names:
            purpose, alternative = content["packages"][name]
            version = ", ".join(versions[name])
            text += _row(name, version, purpose, licences[name], releases[name], alternative)
    text += f"\n{SYSTEM}{_purposes(content['system'])}\n{IMAGES}{_purposes(content['images'])}"
    text += f"\n{LICENCES}{''.join(_row(*row) for row in _counted(licences))}"
    for heading, key in ((EXCEPTIONS, "licences"), (ELSEWHERE, "elsewhere")):
        text += f"\n{heading}{''.join(_row(n, *cells) for n, cells in content[key].items())}"
    return text


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def _purposes(entries: dict[str, Sequence[str]]) -> str:
    rows = ((name, purpose, one, other) for name, (one, purpose, other) in entries.items())
    return "".join(_row(*row) for row in rows)


def _counted(licences: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Each licence with the number of packages under it; those of weak copyleft are named."""
    number = Counter(licences.values())
    for licence in sorted(number, key=lambda one: (-number[one], one)):
        names = (name for name in licences if licences[name] == licence)
        is_weak = set(identifiers(licence)) & WEAK_COPYLEFT
        yield licence, f"{number[licence]}{_listed(names) if is_weak else ''}"


def _listed(names: Iterable[str]) -> str:
    return f": {', '.join(sorted(names))}"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())
