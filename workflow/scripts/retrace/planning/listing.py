"""What can run here: by dataset and verb the networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from textwrap import fill

from retrace import planning
from retrace.config.families import FAMILIES
from retrace.config.yaml_files import names
from retrace.errors import DataError, RetraceError
from retrace.planning.experiment import Planner
from retrace.planning.missing_files import missing_file, missing_files
from retrace.planning.network_names import networks_of_family
from retrace.planning.targets import DATA_VERBS, PAIR_VERBS, named_dataset, reason_against

WIDTH = 100
"""Characters of a line."""


@dataclass
class Runnable:
    """What can run on a dataset."""

    pairs: dict[str, list[str]] = field(default_factory=dict)
    """By verb the networks."""
    data: list[str] = field(default_factory=list)
    """Verbs that need no network."""


def register_verbs() -> None:
    """Imports each module of planning, which registers its verbs."""
    for module in iter_modules(planning.__path__):
        import_module(f"{planning.__name__}.{module.name}")


def runnable(planner: Planner, dataset: str) -> Runnable:
    """What can run on a dataset; nothing where files of it are missing."""
    found = Runnable({verb: [] for verb in sorted(PAIR_VERBS)})
    if _lacks_files(planner, dataset):
        return found
    found.data += [v for v in DATA_VERBS if reason_against(planner, f"{v}_{dataset}") is None]
    for network in names("networks"):
        if _fits(planner, dataset, network):
            for verb, able in found.pairs.items():
                if reason_against(planner, f"{verb}_{dataset}_{network}") is None:
                    able.append(network)
    return found


def answer(planner: Planner, target: str) -> str:
    """That a target can run, or why not, after its name."""
    dataset, reason = named_dataset(target), reason_against(planner, target)
    if reason is None and dataset and (needed := _files_needed(planner, dataset)):
        reason = str(needed)
    if reason is None:
        return f"{target}: can run"
    return reason if reason.startswith(target) else f"{target}: {reason}"


def _files_needed(planner: Planner, dataset: str) -> DataError | None:
    """The refusal of a dataset whose files are not here; None if all are."""
    data = planner.dataset(dataset, trained=None)
    missing = missing_files(data)
    return missing_file([data], missing[0]) if missing else None


def _lacks_files(planner: Planner, dataset: str) -> bool:
    """Whether a dataset needs files that are not here, or its own file cannot be read."""
    try:
        return _files_needed(planner, dataset) is not None
    except RetraceError:
        return True


def _fits(planner: Planner, dataset: str, network: str) -> bool:
    """Whether a network reads data of this kind, so that its verbs are worth a try."""
    try:
        planner.network(dataset, network)
    except RetraceError:
        return False
    return True


# ---------------------------------------------------------------- text


def overview(planner: Planner) -> Iterator[str]:
    """Lines that fit on one screen: for each dataset and verb the number of networks."""
    datasets = names("datasets")
    width = max(len(name) for name in datasets)
    verbs = sorted(PAIR_VERBS)
    yield " ".join(["networks by verb".ljust(width), *verbs])
    found = {}
    for name in datasets:
        found[name] = runnable(planner, name)
        counts = [str(len(found[name].pairs[v]) or "-").rjust(len(v)) for v in verbs]
        yield " ".join([name.ljust(width), *counts])
    yield ""
    for verb in DATA_VERBS:
        able = [name for name in datasets if verb in found[name].data]
        yield from _wrapped(f"{verb}_", able)
    yield ""
    for family in FAMILIES:
        yield from _wrapped(family, networks_of_family(family))


def details(found: Runnable) -> Iterator[str]:
    """What can run on one dataset, verb by verb."""
    yield from _wrapped("without a network", [f"{verb}_" for verb in found.data])
    for verbs, networks in _same(found.pairs).items():
        yield from _wrapped(verbs, networks)


def _same(pairs: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Verbs with the same networks together."""
    together: dict[tuple[str, ...], list[str]] = {}
    for verb, networks in pairs.items():
        if networks:
            together.setdefault(tuple(networks), []).append(f"{verb}_")
    return {" ".join(verbs): list(networks) for networks, verbs in together.items()}


def _wrapped(title: str, words: Sequence[str]) -> list[str]:
    text = f"{title}: {' '.join(words) or '-'}"
    return fill(text, WIDTH, subsequent_indent="    ", break_on_hyphens=False).splitlines()
