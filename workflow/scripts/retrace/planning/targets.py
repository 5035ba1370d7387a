"""The targets a user types, and the files behind them."""

from __future__ import annotations

from collections.abc import Iterable

from retrace.config.yaml_files import names
from retrace.errors import ConfigError, nearest


def check_target(target: str, known: Iterable[str], verbs: Iterable[str]) -> None:
    """Refuses a target that looks like verb_dataset_network and is none, with the nearest one."""
    known = set(known)
    verb = next(
        (v for v in sorted(verbs, key=len, reverse=True) if target.startswith(v + "_")), None
    )
    if verb is None or target in known:
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
