"""The layout of a packed experiment (a bundle), and its description.

Standard library only: the machine that runs it has nothing installed yet.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrace.errors import ConfigError, DataError
from retrace.provenance.folders import check_files
from retrace.provenance.foreign_names import check_names, check_target
from retrace.reading import read_json_object, reading_content

FACTS = "bundle.json"
OBJECTS, FILES, WHEELS, IMAGES = "objects", "files", "wheels", "containers/images"
"""Folders of a bundle: a mirror of the bucket, the user's own files, packages, images."""
FORMAT_VERSION = 1


def machine() -> dict[str, str]:
    """What images and wheels depend on: operating system, processor, version of Python."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "python": ".".join(map(str, sys.version_info[:2])),
    }


def read_facts(folder: Path) -> dict[str, Any]:
    """Content of bundle.json; DataError if it is absent, damaged or of another version."""
    remedy = f"{folder} is no complete bundle: create it again"
    with reading_content(folder / FACTS, remedy):
        facts = read_json_object(folder / FACTS, remedy)
        if facts["format_version"] != FORMAT_VERSION:
            raise DataError(f"{folder} is a bundle of another version of retrace; create it again")
        files = {str(path): str(digest) for path, digest in facts["files"].items()}
        check_names(folder, files, "bundle")
        check_target(str(facts["target"]), str(folder / FACTS))
        return facts | {"files": files} | {key: facts[key] for key in machine()}


def check_machine(facts: Mapping[str, Any]) -> None:
    """ConfigError on a machine that cannot run the programs of a bundle."""
    this = machine()
    differing = {key: facts[key] for key in this if facts[key] != this[key]}
    if differing:
        needed = ", ".join(f"{key} {value}" for key, value in differing.items())
        present = ", ".join(f"{key} {this[key]}" for key in differing)
        raise ConfigError(
            f"this bundle is for {needed}, this machine has {present}; create the bundle again on "
            "a machine of this kind"
        )


def check_bundle(folder: Path) -> dict[str, Any]:
    """Checks machine and files; returns the facts. ConfigError or DataError names a difference."""
    facts = read_facts(folder)
    check_machine(facts)
    check_files(folder, facts["files"], "bundle")
    print(f"[bundle] {len(facts['files'])} files are unchanged", flush=True)
    return facts
