"""Which network `init` is meant for: the one that the target names, or those of a mapping."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from retrace.config.workflow import WorkflowConfig
from retrace.config.yaml_files import names
from retrace.errors import ConfigError, nearest

Pair = tuple[str, str]
"""Names of a dataset and a network."""
OWN_OUTPUTS = ("model.safetensors", "training.json")
"""Files of results/DATASET/NETWORK that a training itself writes."""


def init_files(config: WorkflowConfig) -> list[str]:
    """All files that `init` names."""
    init = config.init
    if isinstance(init, Mapping):
        return list(dict.fromkeys(init.values()))
    return [init] if init else []


def check_init_names(config: WorkflowConfig) -> None:
    """ConfigError for a mapping that names no network, or no experiment DATASET_NETWORK."""
    if not isinstance(config.init, Mapping):
        return
    networks = names("networks")
    experiments = {f"{d}_{n}" for d in names("datasets") for n in networks}
    for name in config.init:
        if name not in networks and name not in experiments:
            raise ConfigError(f"`init`: no network {name!r}; {nearest(name, networks)}")


def requested_pairs(words: Iterable[str], config: WorkflowConfig) -> list[Pair]:
    """Dataset and network of each target and file on a command line.

    Without any word, those of the configuration's `experiments`.
    """
    pairs = {f"{d}_{n}": (d, n) for d in names("datasets") for n in names("networks")}
    requested: list[Pair] = []
    for word in words:
        verb, _, rest = word.partition("_")
        requested += [pairs[rest]] if verb and rest in pairs else _in_path(word, pairs.values())
        requested += _compared(word, config)
    if not requested:
        requested = [pairs[name] for name in config.experiments if name in pairs]
    return list(dict.fromkeys(requested))


def pairs_in_paths(words: Iterable[str]) -> list[Pair]:
    """Dataset and network of each file results/DATASET/NETWORK/… on a command line."""
    pairs = {(d, n) for d in names("datasets") for n in names("networks")}
    return list(dict.fromkeys(pair for word in words for pair in _in_path(word, pairs)))


def datasets_in_paths(words: Iterable[str]) -> list[str]:
    """The dataset of each file results/DATASET/… on a command line."""
    matches = (re.match(r"(?:\./)?results/([^/]+)/", word) for word in words)
    found = dict.fromkeys(match[1] for match in matches if match)
    return [name for name in found if name in names("datasets")]


def _in_path(word: str, pairs: Iterable[Pair]) -> list[Pair]:
    """The experiment of a file results/DATASET/NETWORK/…."""
    match = re.match(r"(?:\./)?results/([^/]+)/([^/]+)/", word)
    return [pair for pair in ([(match[1], match[2])] if match else []) if pair in pairs]


def _compared(word: str, config: WorkflowConfig) -> Iterator[Pair]:
    """The experiments of compare_DATASET."""
    dataset = word.removeprefix("compare_")
    if word != dataset and dataset in names("datasets"):
        yield from ((dataset, name) for name in config.compare.networks or names("networks"))


def init_by_experiment(config: WorkflowConfig, pairs: Iterable[Pair]) -> dict[str, str] | None:
    """A single file of `init`, by experiment; None if these are of several networks."""
    requested = list(pairs)
    if not isinstance(config.init, str) or len({network for _, network in requested}) != 1:
        return None
    return {f"{dataset}_{network}": config.init for dataset, network in requested}


def for_targets(
    config: WorkflowConfig, words: Iterable[str], direct: Pair | None = None
) -> tuple[WorkflowConfig, tuple[str, ...]]:
    """The settings with `init` for the network that targets name; else the networks they name.

    `words`: the targets and files of the command line. `direct`: the one dataset and network of a
    run of ZNN.
    """
    check_init_names(config)
    if not isinstance(config.init, str):
        return config, ()
    pairs = [direct] if direct else requested_pairs(words, config)
    by_experiment = init_by_experiment(config, pairs)
    if by_experiment is None:
        return config, tuple(dict.fromkeys(network for _, network in pairs))
    return config.with_(init=by_experiment), ()


def init_of(
    config: WorkflowConfig, dataset: str, network: str, meant: tuple[str, ...]
) -> str | None:
    """The file that one training starts from; None for none.

    `meant`: the networks that a single file may be for. ConfigError if there are several.
    """
    init = config.init
    if isinstance(init, Mapping):
        return init.get(f"{dataset}_{network}", init.get(network))
    if init and len(meant) > 1:
        shown = ", ".join(meant[:3]) + (", …" if len(meant) > 3 else "")
        raise ConfigError(
            f"`init: {init}` does not say which network it is for, and several are requested "
            f"({shown}); name it, as in `init={{{meant[0]}: {init}}}`"
        )
    return init


def networks_in(path: str) -> list[str]:
    """The network whose result a file is, in a list; none for files elsewhere."""
    match = re.match(r"results/[^/]+/([^/]+)/", os.path.relpath(path))
    return [match[1]] if match and match[1] in names("networks") else []


def depends_on_itself(
    path: str, dataset: str, network: str, upstream: Mapping[str, set[str]]
) -> bool:
    """Whether `init` of a network is a result of this network, or of one that reads it.

    `upstream`: by network all networks that it reads. ConfigError if the training would replace
    the file, or the file does not exist.
    """
    inside = os.path.relpath(path)
    match = re.match(r"results/([^/]+)/([^/]+)/(.+)", inside)
    if match is None or match[1] != dataset:
        return False
    source = match[2]
    if source != network and network not in upstream.get(source, set()):
        return False
    if source == network and match[3] in OWN_OUTPUTS:
        raise ConfigError(
            f"`init: {path}` is the file that this training replaces; copy it to another folder "
            "and name the copy"
        )
    if not Path(path).is_file():
        raise ConfigError(
            f"`init: {path}` does not exist, and is made from the training that is to start from "
            "it; name an existing file"
        )
    return True
