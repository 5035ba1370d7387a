"""The words of ELEKTRONN's console (Ctrl-C) as commands to a running training.

Source: ELEKTRONN, elektronn/training/trainutils.py (userInput) and trainer.py.
"""

from __future__ import annotations

import re

from retrace.errors import ConfigError

SAME = {
    "setlr": "lr",
    "setmom": "momentum",
    "sethist": "history",
    "abort": "stop",
    "save": "save",
    "self.debugGetCNNBatch()": "debug",
    "data.warp_on = False": "warp off",
    "data.warp_on = True": "warp on",
}
"""What was typed there, and the command here; an argument follows."""
REASONS = {
    "q": "a training is never paused, so there is nothing to leave",
    "kill": "interrupt the program (Ctrl-C) and delete its work folder; `stop` keeps the result",
    "load": "start a training with --config init=FILE",
    "sf": "filters are not drawn; a .param (net.param) and model.safetensors hold them",
    "smooth": "ELEKTRONN never had it either",
    "params": "`elektronn.py describe NETWORK` prints layers and parameters",
    **dict.fromkeys(
        ("SGD", "CG", "RPROP", "LBFGS", "Adam"),
        "`optimizer` of the network chooses it, for a whole training",
    ),
}
"""Words without a command, and what to do instead."""
TEST_MODEL = re.compile(r"self\.testModel\(['\"](\w+)['\"]\)")
PROMPT = re.compile(r"^(>>>)?\s*(\S+@ELEKTRONN:)?\s*(print\s+)?")


def as_command(line: str) -> str:
    """A line for the control file, with ELEKTRONN's words replaced by the commands here.

    ConfigError says what to do instead, for words without a command and for Python, which is not
    executed.
    """
    text = PROMPT.sub("", line.split("#")[0]).strip()
    plain = re.sub(r"\s*=\s*", " = ", text)
    if plain in SAME:
        return SAME[plain]
    word, _, argument = text.partition(" ")
    if word == "save" and argument:
        raise ConfigError(
            f"{text!r}: the state is saved in the work folder; write `save` without a file. "
            "results/DATASET/NETWORK/net.param is the trained network as ELEKTRONN's file"
        )
    if word in SAME:
        return f"{SAME[word]} {argument}".strip()
    if word in REASONS:
        raise ConfigError(f"{text!r} has no command: {REASONS[word]}")
    if match := TEST_MODEL.match(text):
        raise ConfigError(f"{text!r} has no command: {_test_model(match.group(1))}")
    if "=" in text or "(" in text or re.match(r"(self|cnn|data|config)\.", text):
        raise ConfigError(f"{text!r} is Python, which is not executed; commands: {_commands()}")
    return text


def _test_model(split: str) -> str:
    if split == "test":
        return "the test split is read once, after the training: snakemake evaluate_DATASET_NETWORK"
    return "each measurement has the error of both splits (history.csv); `history N` sets how often"


def _commands() -> str:
    return ", ".join(dict.fromkeys(command.split()[0] for command in SAME.values()))
