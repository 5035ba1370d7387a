"""Commands to a running training, from a file in its work folder.

`echo "lr 0.002" >> work/train/NAME/control` takes effect at the next iteration. Each line is one
command; the training removes the file and appends the replies to `control.log`. Every training
knows `save` and `stop`; a family may add its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from retrace.errors import ConfigError, nearest

FILE, LOG = "control", "control.log"
SAVE, STOP = "save", "stop"
COMMON = {SAVE: "save the state now", STOP: "end now and keep the result so far"}
"""Commands that every training knows, and what they do."""


@dataclass(frozen=True)
class Command:
    """One line of the control file: a word and its argument."""

    word: str
    argument: str


class ControlFile:
    """Reads the commands to the training in the folder `work`."""

    def __init__(
        self,
        work: Path,
        family_commands: Mapping[str, str],
        as_command: Callable[[str], str] = str,
    ) -> None:
        """`family_commands`: words that the family adds, and what they do; `as_command`: a line
        that may be written in another program's words as a command, or ConfigError."""
        self.file, self.log = work / FILE, work / LOG
        self.allowed, self.as_command = {**COMMON, **family_commands}, as_command

    def commands(self) -> Iterator[Command]:
        """The commands written since the last call; unknown words are answered in the log."""
        if not self.file.is_file():
            return
        taken = self.file.replace(self.file.with_name(f"{FILE}.taken"))
        for line in taken.read_text(errors="replace").splitlines():
            try:
                word, _, argument = self.as_command(line.strip()).partition(" ")
            except ConfigError as error:
                self.reply(str(error))
                continue
            if word in self.allowed:
                yield Command(word, argument.strip())
            elif word:
                self.reply(f"unknown command {word!r}; {nearest(word, self.allowed)}")
        taken.unlink()

    def reply(self, text: str) -> None:
        """Writes a line to the log and to the terminal."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a") as file:
            file.write(f"{text}\n")
        print(f"[control] {text}", flush=True)


def number_argument(text: str, command: str) -> float:
    """The number that is a command's argument; ConfigError for anything else."""
    try:
        return float(text)
    except ValueError:
        raise ConfigError(
            f"{command} {text!r} is no number, for example: {command} 0.002"
        ) from None


def switch_argument(text: str, command: str) -> bool:
    """True for `on`, False for `off`; ConfigError for anything else."""
    if text not in ("on", "off"):
        raise ConfigError(f"{command} {text!r} is neither on nor off, for example: {command} off")
    return text == "on"
