"""Orders to a running training, from a file in its folder.

`echo "lr 0.002" >> work/train/NAME/control` is obeyed at the next iteration. Each line is an order;
the file is taken away and its orders noted in `control.log`. All trainings know `save` and `stop`;
what else there is a family says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from retrace.errors import ConfigError, nearest

FILE, LOG = "control", "control.log"
SAVE, STOP = "save", "stop"
COMMON = {SAVE: "save the state now", STOP: "end here, with the result as it is"}
"""What every training obeys."""


@dataclass(frozen=True)
class Order:
    """One line: a word, and what follows it."""

    word: str
    rest: str


class Control:
    """Reads orders of a training in the folder `work`; `known`: further words and what they do."""

    def __init__(self, work: Path, known: Mapping[str, str]) -> None:
        self.file, self.log = work / FILE, work / LOG
        self.known = {**COMMON, **known}

    def orders(self) -> Iterator[Order]:
        """What was written since the last time; unknown words are answered in the log."""
        if not self.file.is_file():
            return
        taken = self.file.replace(self.file.with_name(f"{FILE}.taken"))
        for line in taken.read_text(errors="replace").splitlines():
            word, _, rest = line.strip().partition(" ")
            if word in self.known:
                yield Order(word, rest.strip())
            elif word:
                self.note(f"no order {word!r}; {nearest(word, self.known)}")
        taken.unlink()

    def note(self, text: str) -> None:
        """A line in the log, and on the screen."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a") as file:
            file.write(f"{text}\n")
        print(f"[control] {text}", flush=True)


def number(text: str, what: str) -> float:
    """A number that an order gives; ConfigError for anything else."""
    try:
        value = float(text)
    except ValueError:
        raise ConfigError(f"{what} {text!r} is no number, for example: {what} 0.002") from None
    return value


def switch(text: str, what: str) -> bool:
    """on or off."""
    if text not in ("on", "off"):
        raise ConfigError(f"{what} {text!r} is neither on nor off, for example: {what} off")
    return text == "on"
