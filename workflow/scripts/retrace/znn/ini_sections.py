"""`[section]` files as ZNN's Python 2 ConfigParser reads them, each value with its line."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

from retrace.errors import ConfigError
from retrace.znn.values import Field, read_text

Sections = dict[str, dict[str, Field]]


def read_sections(path: Path, kind: str) -> Sections:
    """{section: {option in lower case: value}}; ConfigError for what is no such file.

    Comments are whole lines with # or ;, and ` ;` behind a value, but not ` #`. The last of equal
    options wins; indented lines go on with the value above. % stays as it is.
    """
    text = read_text(path, kind)
    parser = configparser.ConfigParser(
        strict=False, inline_comment_prefixes=(";",), interpolation=None
    )
    try:
        parser.read_string(text, str(path))
    except configparser.Error as error:
        message = " ".join(str(error).split())
        raise ConfigError(f"{path} is no {kind}: {message}") from error
    lines = _lines(text)
    return {
        section: {
            option: Field(path, lines.get((section, option), 1), option, value)
            for option, value in parser.items(section)
        }
        for section in parser.sections()
    }


def _lines(text: str) -> dict[tuple[str, str], int]:
    """Where each option stands: its last line, as the last one wins."""
    found, section = {}, ""
    for number, line in enumerate(text.splitlines(), start=1):
        if match := re.match(r"\[([^]]+)\]", line):
            section = match[1]
        elif match := re.match(r"([^\s#;=:][^=:]*?)\s*[=:]", line):
            found[section, match[1].lower()] = number
    return found
