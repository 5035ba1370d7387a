"""The targets a user types, verb_DATASET and verb_DATASET_NETWORK, and the files behind them.

A planning module registers its verbs with `data_target` and `pair_target`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from retrace.config.yaml_files import names
from retrace.errors import ConfigError, nearest
from retrace.planning import container_images

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
def target_names() -> frozenset[str]:
    """Every target that a dataset, or a dataset and a network, has."""
    datasets, networks = names("datasets"), names("networks")
    data = {f"{verb}_{d}" for verb in DATA_VERBS for d in datasets}
    data |= {name for targets in OTHER_TARGETS for name, _ in targets()}
    return frozenset(
        data | {f"{v}_{d}_{n}" for v in PAIR_VERBS for d in datasets for n in networks}
    )


def command_line_words() -> list[str]:
    """The words of the command line that can be targets: no KEY=VALUE."""
    return [word for word in sys.argv[1:] if "=" not in word]


@cache
def requested_targets() -> frozenset[str]:
    """The targets on the command line."""
    return target_names() & set(command_line_words())


def is_wanted(target: str) -> bool:
    """Whether a target becomes a rule: if it was requested, or if none was.

    There are some ten thousand, and each costs half a millisecond at every start. A job that a
    cluster runs (--target-jobs) needs none.
    """
    if requested_targets():
        return target in requested_targets()
    return "--target-jobs" not in sys.argv


def wanted_targets() -> Iterator[tuple[str, TargetFiles]]:
    """Name and files of every target that becomes a rule."""
    for targets in OTHER_TARGETS:
        yield from ((name, files) for name, files in targets() if is_wanted(name))
    for dataset in names("datasets"):
        for verb, files in DATA_VERBS.items():
            if is_wanted(f"{verb}_{dataset}"):
                yield f"{verb}_{dataset}", _of_dataset(files, dataset)
        for network in names("networks"):
            for verb, pair_files in PAIR_VERBS.items():
                if is_wanted(f"{verb}_{dataset}_{network}"):
                    yield f"{verb}_{dataset}_{network}", _of_pair(pair_files, dataset, network)


def _of_dataset(files: DataFiles, dataset: str) -> TargetFiles:
    return lambda planner: files(planner, dataset)


def _of_pair(files: PairFiles, dataset: str, network: str) -> TargetFiles:
    return lambda planner: files(planner, dataset, network)


def check_requested(root: Path) -> None:
    """Refuses words of the command line that look like a target but are none (ConfigError)."""
    for word in command_line_words():
        container_images.check_published(root, word)
        check_target(word)


def check_target(target: str) -> None:
    """Refuses a target that looks like verb_dataset_network and is none, with the nearest one."""
    verbs = [*PAIR_VERBS, *DATA_VERBS, "reproduce"]
    verb = next(
        (v for v in sorted(verbs, key=len, reverse=True) if target.startswith(v + "_")), None
    )
    containers = "fetch_container_"
    if verb is None or target in target_names() or target.startswith(containers):
        return
    rest = target.removeprefix(verb + "_")
    datasets = [d for d in names("datasets") if rest == d or rest.startswith(d + "_")]
    if not datasets:
        dataset = rest.split("_")[0]
        raise ConfigError(
            f"{target}: no dataset {dataset!r}; {nearest(dataset, names('datasets'))}"
        )
    network = rest.removeprefix(max(datasets, key=len)).removeprefix("_")
    if not network:
        raise ConfigError(f"{target}: name a network too; allowed: {', '.join(names('networks'))}")
    raise ConfigError(f"{target}: no network {network!r}; {nearest(network, names('networks'))}")
