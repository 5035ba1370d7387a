"""The tables of the how-to pages that follow the original documents line by line.

Each line of such a table names the document's words, the command of today, what comes out, and the
test that runs it. These tests read the tables: each line is complete, each named test exists, and
every command, option and file that a document names has a line. The commands in the tables are
checked by tests/workflow/test_docs.py.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEADER = ["the document", "here", "what comes out", "test"]
LITERAL_INDENT = re.compile(r"^(?: {2,}|\t).*$", re.M)


@dataclass(frozen=True)
class Line:
    """One line of a table."""

    page: str
    document: str
    here: str
    outcome: str
    test: str

    def __str__(self) -> str:
        return f"{self.page}: {self.document}"


# ---------------------------------------------------------------- the tables


def cells_of(row: str) -> list[str]:
    """The cells of a Markdown row; an escaped bar belongs to its cell."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip().strip("|"))]


def lines_of(page: Path) -> Iterator[Line]:
    """The lines of all tables of a page whose header is HEADER."""
    inside = False
    for row in page.read_text().splitlines():
        if not row.startswith("|"):
            inside = False
        elif cells_of(row) == HEADER:
            inside = True
        elif inside and not set(row) <= set("|-: "):
            cells = cells_of(row)
            assert len(cells) == len(HEADER), f"{page.name}: {len(cells)} cells in {row}"
            yield Line(page.name, *cells)


@cache
def lines(*pages: str) -> tuple[Line, ...]:
    return tuple(line for page in pages for line in lines_of(ROOT / "docs" / "how-to" / page))


@cache
def names_of_tests(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text())
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )


def missing_tests(line: Line) -> list[str]:
    """Names in the column `test` that are no test of this project."""
    files = {path.name: path for path in (ROOT / "tests").rglob("test_*.py")}
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", line.test)
    if not named:
        return [f"{line}: names no test"]
    return [
        f"{line}: {file}::{name} does not exist"
        for file, name in named
        if file not in files or name not in names_of_tests(files[file])
    ]


# ---------------------------------------------------------------- what a document names


def commands_in(text: str, programs: str) -> set[str]:
    """Scripts, options and words of the commands in a text that begin with one of `programs`."""
    found = re.findall(rf"(?:^\s*|`)((?:{programs})\b[^`\n]*)", text, re.M)
    return {word for command in found for word in command_words(command)}


def command_words(command: str) -> Iterator[str]:
    """The program, its scripts and its options; paths and values are the user's."""
    words = command.split()
    yield words[0]
    for word in words[1:]:
        name = word.rsplit("/", 1)[-1]
        if re.fullmatch(r"--?[A-Za-z_]\w*|\w+\.(py|sh)", name):
            yield name


def of_znn(folder: Path) -> set[str]:
    """Properties, options and commands of ZNN's documentation and of its AWS tutorial."""
    tutorial = (folder / "znn_aws_tutorial.rst.txt").read_text()
    documentation = (folder / "znn_documentation.md.txt").read_text()
    rows = re.findall(r"^ ([A-Za-z_]\w+|\.\.) +(?:\.\. +|Y +|N +)?([a-z]\w+)?", tutorial, re.M)
    names = {name for row in rows for name in row if name not in ("", "..")}
    names |= set(re.findall(r"^    #?\s*(\w+) = ?", tutorial, re.M))
    names |= set(re.findall(r"^([A-Za-z_]\w+)\t", documentation, re.M))
    return (
        names
        | commands_in(tutorial + documentation, r"python(?= \w+\.py)|make|git")
        | {"g++", "icc"}
    )


def of_lsd(folder: Path) -> set[str]:
    """Commands and scripts of the LSD tutorial."""
    text = (folder / "lsd_nm_experiments_tutorial.md.txt").read_text()
    names = commands_in(text, r"python|singularity|git|conda|pip|cd|\./setup\.sh")
    return names | set(re.findall(r"`(\w+\.(?:py|sh|yml|json|img))`", text))


def of_elektronn(folder: Path) -> set[str]:
    """Settings, methods, files and commands of ELEKTRONN's examples."""
    text = (folder / "elektronn_examples.rst.txt").read_text()
    code = "\n".join(LITERAL_INDENT.findall(text))
    names = set(re.findall(r"^\s+(\w+)\s*=", code, re.M))
    names |= set(re.findall(r"[(,]\s*(\w+)\s*=[^=]", code))
    names |= set(re.findall(r"\b(\w+)\(", code))
    names |= set(re.findall(r"\b\w+\.(?:py|zip|pkl)\b", text))
    names |= commands_in(text, r"elektronn-train|wget|unzip")
    return names | {re.split(r"[ (]", line)[0] for line in re.findall(r"^\s*>>> (.+)$", text, re.M)}


def of_seamless(folder: Path) -> set[str]:
    """Programs, options and quoted names of SEAMLeSS's README."""
    text = (folder / "seamless_readme.md.txt").read_text()
    return set(re.findall(r"--(\w+)", text)) | set(re.findall(r"`(\w+(?:\.\w+)?)`", text))


DOCUMENTS: dict[str, tuple[Callable[[Path], set[str]], tuple[str, ...], set[str]]] = {
    "znn": (of_znn, ("znn.md",), {"Property", "Library", "Flag", "Preprocessing", "type"}),
    "lsd": (of_lsd, ("lsd-tutorial.md",), set()),
    "elektronn": (
        of_elektronn,
        ("elektronn.md", "elektronn-mnist.md"),
        # Variables and matplotlib's own names in the standalone scripts.
        {"cnn", "cnn2", "images", "recon", "l", "d", "test_predictions", "valid_predictions"}
        | {"time_per_step", "loss", "cmap", "figsize", "interpolation", "figure", "imshow"}
        | {"subplot", "title", "range", "reshape", "dict", "data", "layers", "Output", "print"}
        | {"mfk@ELEKTRONN:"},
    ),
    "seamless": (
        of_seamless,
        ("alignment.md",),
        # Names that stand for others, and those of PyTorch, numpy and the README's own prose.
        {"param1_name", "param2_name", "v", "Tensor", "Variable", "ndarray", "dim"}
        | {"src", "target", "input_src", "input_target", "binary", "v.shape", "torch.FloatTensor"},
    ),
}
"""For each system: what its documents name, the pages with its tables, and names of no meaning."""


# ---------------------------------------------------------------- tests


@pytest.mark.parametrize("system", DOCUMENTS)
def test_each_line_is_complete_and_names_a_test_that_exists(system: str) -> None:
    table = lines(*DOCUMENTS[system][1])
    empty = [str(line) for line in table if not (line.document and line.here and line.outcome)]
    missing = [fault for line in table for fault in missing_tests(line)]

    assert len(table) > 20
    assert not empty
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize("system", DOCUMENTS)
def test_everything_that_a_document_names_has_a_line(system: str, shared_dir: Path) -> None:
    named_in, pages, without_meaning = DOCUMENTS[system]
    quoted = "\n".join(line.document for line in lines(*pages))
    absent = {
        name
        for name in named_in(shared_dir / "seeds") - without_meaning
        if not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", quoted)
    }

    assert not absent, f"no line in {', '.join(pages)}: {', '.join(sorted(absent))}"


def test_a_line_without_a_test_is_detected() -> None:
    line = Line("znn.md", "`eta`", "`eta`", "the rate", "`test_znn_config.py::test_of_nothing`")

    assert missing_tests(line)
