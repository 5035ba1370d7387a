"""Files with `[section]` headers as ZNN's ConfigParser reads them, each value with its line."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

from retrace.errors import ConfigError
from retrace.znn.values import WrittenValue, read_text

IniSections = dict[str, dict[str, WrittenValue]]


def read_sections(path: Path, kind: str) -> IniSections:
    """{section: {option in lower case: value}}; ConfigError for files of another form.

    As in ZNN (ConfigParser of Python 2): comments are whole lines with # or ;, and ` ;` after a
    value, but not ` #`. The last of equal options counts. Indented lines continue the value above.
    % has no special meaning.
    """
    text = read_text(path, kind)
    parser = configparser.ConfigParser(
        strict=False, inline_comment_prefixes=(";",), interpolation=None
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


def _lines(text: str) -> dict[tuple[str, str], int]:
    """Line number of each option's last occurrence, which is the one that counts."""
    lines, section = {}, ""
    for number, line in enumerate(text.splitlines(), start=1):
        if match := re.match(r"\[([^]]+)\]", line):
            section = match[1]
        elif match := re.match(r"([^\s#;=:][^=:]*?)\s*[=:]", line):
            lines[section, match[1].lower()] = number
    return lines
