"""Files with `[section]` headers as ZNN's ConfigParser reads them, each value with its line."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

from retrace.errors import ConfigError
from retrace.znn.values import WrittenValue, read_text

IniSections = dict[str, dict[str, WrittenValue]]
SPACE = " " * 100
LONG_SPACE = re.compile(r"[^\S\n]{100,}")
"""Spaces for which ConfigParser takes time that grows with the square of their number."""


def read_sections(path: Path, kind: str) -> IniSections:
    """{section: {option in lower case: value}}; ConfigError for files of another form.

    As in ZNN (ConfigParser of Python 2): comments are whole lines with # or ;, and ` ;` after a
    value. ` #` after a value is one too, as in ZNN's documentation. The last of equal options
    counts. Indented lines continue the value above; an indentation of all lines, which a copy from
    the documentation has, does not count. % has no special meaning.
    """
    text = _without_indentation(LONG_SPACE.sub(SPACE, read_text(path, kind)))
    parser = configparser.ConfigParser(
        strict=False, inline_comment_prefixes=(";", "#"), interpolation=None
    )
    try:
        parser.read_string(text, str(path))
    except configparser.Error as error:
        message = " ".join(str(error).split())
        raise ConfigError(f"{path} is not a {kind}: {message}") from error
    lines = _lines(text)
    return {
        section: {
            option: WrittenValue(path, lines.get((section, option), 1), option, value)
            for option, value in parser.items(section)
        }
        for section in parser.sections()
    }


def _without_indentation(text: str) -> str:
    """The text without the indentation that all its lines share; that of comments is free."""
    lines = text.expandtabs().splitlines()
    is_content = [bool(line.strip()) and line.strip()[0] not in "#;" for line in lines]
    indents = [len(x) - len(x.lstrip()) for x, yes in zip(lines, is_content, strict=True) if yes]
    shared = min(indents, default=0)
    return "\n".join(
        line[shared:] if yes else line.strip() for line, yes in zip(lines, is_content, strict=True)
    )


def _lines(text: str) -> dict[tuple[str, str], int]:
    """Line number of each option's last occurrence, which is the one that counts."""
    lines, section = {}, ""
    for number, line in enumerate(text.splitlines(), start=1):
        if match := re.match(r"\[([^]]+)\]", line):
            section = match[1]
        elif match := re.match(r"([^\s#;=:][^=:]*)[=:]", line):
            lines[section, match[1].rstrip().lower()] = number
    return lines
