"""The shell commands that a page of the documentation shows, in blocks and in inline code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

OURS = ("snakemake", "make", "python", ".venv/bin/python")
"""Programs of this repository, or those that run them."""


@dataclass(frozen=True)
class Command:
    """One command of a page, split as by the shell."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def blocks(text: str) -> Iterator[str]:
    """Fenced blocks without a language or of a shell, and indented ones."""
    fenced = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
    for language, body in fenced.findall(text):
        if language in ("", "bash", "sh", "shell"):
            yield from body.split("\n\n")
    rest = fenced.sub("", text)
    for body in re.findall(r"(?:^(?: {4}.*|)\n)+", rest + "\n", re.M):
        if body.strip():
            yield from "\n".join(line[4:] for line in body.splitlines()).split("\n\n")


def lines_of(block: str) -> Iterator[str]:
    """Whole commands: continued lines joined, also where a quote is still open."""
    held = ""
    for line in block.replace("\\\n", " ").splitlines():
        held = f"{held}\n{line}" if held else line
        try:
            shlex.split(held, comments=True)
        except ValueError:
            continue
        yield held
        held = ""
    assert not held, f"a quote is left open: {held}"


def inline(text: str) -> Iterator[str]:
    """Inline code that is a command of ours with something after it."""
    plain = re.sub(r"^```.*?^```$|^ {4}.*$", "", text, flags=re.M | re.S)
    for code in re.findall(r"`([^`\n]+)`", plain):
        if code.split()[:1] and code.split()[0] in OURS and len(code.split()) > 1:
            yield code


def commands_of(text: str, page: str) -> Iterator[Command]:
    """All commands of a page, except incomplete ones (…)."""
    shell_lines = [line for block in blocks(text) if is_shell(block) for line in lines_of(block)]
    for line in [*shell_lines, *inline(text)]:
        for part in re.split(r"\s&&\s", line):
            words = shlex.split(part, comments=True)
            while words and re.fullmatch(r"\w+=.*", words[0], re.S):
                words.pop(0)  # set for this command alone
            words = [w for w in words if w != "&"]
            if words and not any("…" in word for word in words):
                yield Command(page, tuple(words))


def is_shell(block: str) -> bool:
    """Whether a block has a command of ours; others are files, settings or output."""
    return any(
        re.match(rf"(\w+=\S* )*({'|'.join(map(re.escape, OURS))}) ", line)
        for line in block.splitlines()
    )
