"""Values in ZNN's text files; errors name file, line, parameter and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from retrace.errors import ConfigError, nearest
from retrace.limits import EXPRESSION_NUMBER, TEXT_BYTES, ZNN_SIZE
from retrace.reading import read_bytes, refuse_web_page
from retrace.znn.graph import Shape

YES = ("yes", "true", "on", "1")
NO = ("no", "false", "off", "0")


@dataclass(frozen=True)
class WrittenValue:
    """A value's text, and its place in the file."""

    path: Path
    line: int
    name: str
    text: str

    @property
    def where(self) -> str:
        """`file:line`."""
        return f"{self.path}:{self.line}"

    def part(self, text: str) -> WrittenValue:
        """A part of the value, with the same place."""
        return WrittenValue(self.path, self.line, self.name, text)

    def error(self, allowed: str) -> ConfigError:
        """The error that the value is not one of `allowed`."""
        return ConfigError(f"{self.where}: {self.name} is {self.text!r}; allowed: {allowed}")

    def choice(self, allowed: Collection[str]) -> str:
        """The value, one of the words in `allowed`."""
        if self.text not in allowed:
            raise ConfigError(
                f"{self.where}: {self.name} is {self.text!r}; {nearest(self.text, allowed)}"
            )
        return self.text

    def integer(self, least: int | None = None) -> int:
        """A whole number, not below `least`."""
        allowed = "whole numbers" + ("" if least is None else f" from {least}")
        try:
            value = int(self.text)
        except ValueError:
            raise self.error(allowed) from None
        if least is not None and value < least:
            raise self.error(allowed)
        if abs(value) > EXPRESSION_NUMBER:
            raise self.error(f"{allowed}, at most 10^18")
        return value

    def number(self, low: float | None = None, high: float | None = None) -> float:
        """A number in [low, high]."""
        ends = ("" if low is None else f" from {low:g}") + ("" if high is None else f" to {high:g}")
        try:
            value = float(self.text)
        except ValueError:
            raise self.error("numbers" + ends) from None
        lowest = -math.inf if low is None else low
        highest = math.inf if high is None else high
        if not (math.isfinite(value) and lowest <= value <= highest):
            raise self.error("numbers" + ends)
        return value

    def boolean(self) -> bool:
        """yes or no, in the spellings of Python's ConfigParser."""
        word = self.text.lower()
        if word not in YES + NO:
            raise self.error("yes, no")
        return word in YES

    def numbers(self) -> tuple[float, ...]:
        """Numbers separated by commas; an empty text has none."""
        parts = [part for part in self.text.split(",") if part.strip()]
        try:
            return tuple(float(part) for part in parts)
        except ValueError:
            raise self.error("numbers separated by commas") from None

    def shape(self, least: int = 1) -> Shape:
        """Three whole numbers z,y,x, each at least `least`."""
        try:
            z, y, x = (int(part) for part in self.text.split(","))
        except ValueError:
            raise self.error("three whole numbers z,y,x") from None
        if min(z, y, x) < least or max(z, y, x) > ZNN_SIZE:
            raise self.error(f"three whole numbers z,y,x, each from {least} to {ZNN_SIZE}")
        return z, y, x


def read_text(path: Path, kind: str) -> str:
    """The text of a file; ConfigError if it does not exist or is not text."""
    try:
        content = read_bytes(path, TEXT_BYTES)
        refuse_web_page(content, path, f"get the {kind} again")
        return content.decode("utf-8-sig")  # Windows editors begin a file with a mark
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}); correct the path of the {kind}"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text; a {kind} is needed") from error
