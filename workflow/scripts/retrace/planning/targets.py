"""The targets a user types, verb_DATASET and verb_DATASET_NETWORK, and the files behind them.

A planning module registers its verbs with `data_target` and `pair_target`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from typing import TYPE_CHECKING

from retrace.config.yaml_files import names
from retrace.errors import RetraceError

if TYPE_CHECKING:
    from retrace.planning.experiment import Planner

DataFiles = Callable[["Planner", str], list[str]]
PairFiles = Callable[["Planner", str, str], list[str]]
TargetFiles = Callable[["Planner"], list[str]]

DATA_VERBS: dict[str, DataFiles] = {}
"""By verb the files that verb_DATASET asks for."""
PAIR_VERBS: dict[str, PairFiles] = {}
"""By verb the files that verb_DATASET_NETWORK asks for."""
OTHER_TARGETS: list[Callable[[], Iterator[tuple[str, TargetFiles]]]] = []
"""Functions that give the names and files of targets of another form."""


def data_target(verb: str) -> Callable[[DataFiles], DataFiles]:
    """Registers a function that gives the files of verb_DATASET."""

    def register(files: DataFiles) -> DataFiles:
        DATA_VERBS[verb] = files
        return files

    return register


def pair_target(verb: str) -> Callable[[PairFiles], PairFiles]:
    """Registers a function that gives the files of verb_DATASET_NETWORK."""

    def register(files: PairFiles) -> PairFiles:
        PAIR_VERBS[verb] = files
        return files

    return register


def other_targets(targets: Callable[[], Iterator[tuple[str, TargetFiles]]]) -> None:
    """Registers a function that gives names and files of targets of another form."""
    OTHER_TARGETS.append(targets)


@cache
def all_targets() -> dict[str, TargetFiles]:
    """The files behind every target that a dataset, or a dataset and a network, has."""
    datasets, networks = names("datasets"), names("networks")
    found = dict(pair for targets in OTHER_TARGETS for pair in targets())
    for verb, files in DATA_VERBS.items():
        found |= {f"{verb}_{d}": _of_dataset(files, d) for d in datasets}
    for verb, pair_files in PAIR_VERBS.items():
        pairs = product(datasets, networks)
        found |= {f"{verb}_{d}_{n}": _of_pair(pair_files, d, n) for d, n in pairs}
    return found


def _of_dataset(files: DataFiles, dataset: str) -> TargetFiles:
    return lambda planner: files(planner, dataset)


def _of_pair(files: PairFiles, dataset: str, network: str) -> TargetFiles:
    return lambda planner: files(planner, dataset, network)


def target_names() -> frozenset[str]:
    """The names of all targets, also of those that cannot run."""
    return frozenset(all_targets())


def named_dataset(word: str) -> str | None:
    """The dataset in the name of a target, also of a misspelt one; the longest that fits."""
    named = [name for name in names("datasets") if f"_{name}_" in f"_{word}_"]
    return max(named, key=len, default=None)


def reason_against(planner: Planner, target: str) -> str | None:
    """Why a target cannot run; None if it can."""
    try:
        all_targets()[target](planner)
    except RetraceError as error:
        return str(error)
    return None


def command_line_words() -> list[str]:
    """The words of the command line that can be targets: no KEY=VALUE."""
    return [word for word in sys.argv[1:] if "=" not in word]


def wanted_targets(*, is_command_line: bool = True) -> dict[str, TargetFiles]:
    """The files behind every target that becomes a rule: of a command line those that it names.

    There are some eleven thousand, and each rule costs half a millisecond at every start.
    """
    targets = all_targets()
    requested = {word: targets[word] for word in command_line_words() if word in targets}
    return requested if requested or is_command_line else targets
