"""The page of what decides each result: `python docs/_site/what_decides.py FILE` writes it."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from planned_rules import PlannedRule, planned_rules

INTRODUCTION = """\
# What decides each result

Generated from the rules and from jobs that planning plans for them; `make schemas` writes this
page again.

The **identity** of a result is a digest of everything that decides it: the settings that its job
reads, the bytes of your own files, the identities of the results that it reads, the code of its
program and of the library files that this imports, and the container image. The job writes what it
was computed from, and the identity, under the key `identity` of its manifest
(`prediction.manifest.json`). A result without a manifest has this record next to its first file
(`model.safetensors`: `model.record.json`).

Planning compares the record with what it would compute now. `snakemake --dry-run TARGET` prints
one line for each result that is not current, with the reason:

    results/zfinch/mtlsd/model.safetensors is computed again: seed changed from 0 to 5

[Which results are current](../explanation.md#which-results-are-current) explains what counts as a
change. For every job, these do not decide a result: threads, memory, time limits and retries of
the rule, the block cache, `fetch_threads`, comments and docstrings of the code, times of files,
and the folder of the clone.

In the tables, D is a dataset, N a network and V a volume. A manifest stands for the store or the
folder next to it. "Own" files are yours, under the name of the setting that names them; streamed
volumes are in the settings with their address. Settings are those of the job, the JSON after
`--job` in its log, mostly with the names of [the configuration](configuration.md); a group of
settings from a file, such as `network`, decides as a whole, except for those listed as without
effect. A verified copy depends on where it comes from, and neither on code nor image, because each
object is checked. What temporary files depend on counts for the results that are computed from
them.
"""

LETTERS = {"dataset": "D", "network": "N", "volume": "V"}
"""Short names of wildcards; the others are in capitals."""
HEADER = """\
| rule and its files | reads | settings that decide | settings without effect | code, image |
|---|---|---|---|---|
"""


def page(rules: Iterable[PlannedRule]) -> str:
    """The page in Markdown: for each rule file a section, for each rule a row."""
    text = INTRODUCTION
    for file, group in groupby(rules, lambda rule: rule.file):
        text += f"\n## {_title(file)}\n\n{HEADER}"
        text += "".join(f"| {' | '.join(_cells(rule))} |\n" for rule in group)
    return text


def _title(file: Path) -> str:
    """The first line of a rule file's docstring."""
    (docstring,) = re.findall(r'\A(""".*?""")', file.read_text(), re.DOTALL)
    return str(ast.literal_eval(docstring)).partition("\n")[0].rstrip(".")


def _cells(rule: PlannedRule) -> Iterator[str]:
    temporary = "" if rule.kept else " (temporary)"
    yield f"**{rule.name}**: {_files(rule.outputs)}{temporary}"
    yield _reads(rule)
    yield _settings(rule.decides)
    yield _settings(rule.no_effect)
    image = f", {rule.image}" if rule.image else ""
    yield "a verified copy" if rule.copies else f"`{rule.program}`{image}"


def _files(outputs: Iterable[str]) -> str:
    """Paths; of those in the folder of the one before, the name."""
    folder, shown = "", []
    for path in outputs:
        plain = re.sub(r"\{(\w+)[^}]*\}", lambda match: _letter(match[1]), path)
        parent, _, name = plain.rpartition("/")
        shown.append(f"`{name if parent == folder else plain}`")
        folder = parent
    return ", ".join(shown)


def _letter(wildcard: str) -> str:
    return LETTERS.get(wildcard, wildcard.upper())


def _reads(rule: PlannedRule) -> str:
    results = f"results of {_listed(rule.results)}" if rule.results else ""
    files = f"own {_listed(rule.files)}" if rule.files else ""
    shipped = f"the workflow's {_listed(rule.shipped)}" if rule.shipped else ""
    return "; ".join(filter(None, (results, files, shipped))) or "none"


def _settings(names: Iterable[str]) -> str:
    """Settings in order; those of one group together, in brackets behind its name."""
    split = [name.rpartition(".")[::2] for name in sorted(names)]
    shown = []
    for group, inner in groupby(split, lambda pair: pair[0]):
        listed = _listed(name for _, name in inner)
        shown.append(f"`{group}` ({listed})" if group else listed)
    return ", ".join(shown) or "none"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(planned_rules()))
