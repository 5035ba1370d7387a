"""The check of names in rule files."""

from __future__ import annotations

from pathlib import Path

import lint_rules

SNAKEFILE = '''\
"""A workflow of two files."""

import os
import sys


def used():
    return config["name"]


def recursive(depth):
    unused_local = depth
    return recursive(depth - 1)


if config["steps"] > 1:

    include: "steps.smk"


rule all:
    input:
        used(),
'''

STEPS = """\
for name in sys.argv:

    rule:
        name:
            f"step_{name}"
        input:
            files=missing(name),
        output:
            expand("{name}.txt", name=name),
        shell:
            "touch {output:q}"


def from_wildcards(wildcards):
    return misspelled(wildcards.name) + used()
"""


def findings(folder: Path, snakefile: str, steps: str) -> list[str]:
    """The findings for two files, without the folder's name."""
    (folder / "Snakefile").write_text(snakefile)
    (folder / "steps.smk").write_text(steps)
    messages = lint_rules.findings(folder / "Snakefile")
    return sorted(message.removeprefix(f"{folder}/") for message in messages)


def test_undefined_and_unused_names_are_reported_with_their_files(tmp_path: Path) -> None:
    assert findings(tmp_path, SNAKEFILE, STEPS) == [
        "Snakefile:11: `recursive` is defined but no rule file uses it",
        "Snakefile:12: Local variable `unused_local` is assigned to but never used",
        "Snakefile:3: `os` is defined but no rule file uses it",
        "steps.smk:14: `from_wildcards` is defined but no rule file uses it",
        "steps.smk:15: Undefined name `misspelled`",
        "steps.smk:7: Undefined name `missing`",
    ]
