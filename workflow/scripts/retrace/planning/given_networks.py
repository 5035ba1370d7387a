"""Networks that a .cfg of ZNN predicts with, and what of a .cfg has no effect."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

from retrace.config.networks import own_paths
from retrace.config.workflow import WorkflowConfig
from retrace.config.yaml_files import is_given
from retrace.errors import ConfigError
from retrace.planning.choices import is_published
from retrace.znn.cfg import unused_parameters
from retrace.znn.net import unused_keys


def given_network(config: WorkflowConfig, network: str, init: str | None) -> str | None:
    """The file that predictions of a network read, and nothing is trained for them; None else.

    It is `forward_net` of the network's .cfg. In a run of ZNN, `init` replaces it, as `-n` of
    forward.py does. With `weights: published`, `init` is read anyway.
    """
    if is_published(config, network):
        return None
    named = own_paths(network).forward_net
    return (init or named) if is_given("networks", network) else named


def check(config: WorkflowConfig, dataset: str, network: str, init: str | None) -> None:
    """ConfigError for a network to predict with that does not exist, or that `init` contradicts."""
    given = given_network(config, network, init)
    if given is None:
        return
    named = own_paths(network)
    direct = is_given("networks", network)
    if init and not direct:
        raise ConfigError(
            f"{named.configuration}: forward_net {given} predicts, and nothing is trained from "
            f"`init: {init}`; leave one of them out, or predict with that file: "
            f"`weights=published init={init}`"
        )
    if not Path(given).is_file():
        what = f"`init: {given}`" if init else f"{named.configuration}: forward_net names {given}"
        direct_train = f"train_znn --config cfg={named.configuration}"
        train = direct_train if direct else f"train_{dataset}_{network}"
        raise ConfigError(
            f"{what}, which does not exist; correct the path, or write it first: "
            f"`snakemake {train}`"
        )


def report(network: str, verb: str, given: str | None) -> None:
    """Prints, once in a run, what of a network's .znn and .cfg has no effect, and what predicts.

    `given`: `given_network` of a run that predicts.
    """
    named = own_paths(network)
    if named.architecture is not None:
        for line in unused_keys(Path(named.architecture)):
            _say(line)
    if named.configuration is None:
        return
    for line in unused_parameters(Path(named.configuration)):
        _say(line)
    if verb != "train" and given:
        what = "forward_net" if given == named.forward_net else "`init`"
        _say(f"{named.configuration}: {what} {given} predicts; nothing is trained")


@cache
def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
