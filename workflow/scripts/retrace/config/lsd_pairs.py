"""Checks of networks of the family lsd with a dataset, before anything runs."""

from __future__ import annotations

from retrace.config.dataset_model import Dataset
from retrace.config.lsd_network import LsdNetworkSettings
from retrace.config.networks import context_network, head_names
from retrace.errors import ConfigError


def check_lsd_pair(pair: str, dataset: Dataset, network: LsdNetworkSettings, verb: str) -> None:
    """ConfigError for a dataset that the network cannot learn from or predict."""
    _check_descriptors(pair, dataset, network)
    _check_autocontext(pair, dataset, network)


def _check_descriptors(pair: str, dataset: Dataset, network: LsdNetworkSettings) -> None:
    if network.lsd is None:
        return
    sigma = network.lsd.sigma_nm
    if sigma < max(dataset.voxel_size_nm):
        raise ConfigError(
            f"{pair}: descriptors of {sigma} nm see nothing on voxels of "
            f"{list(dataset.voxel_size_nm)} nm; set `lsd_sigma_nm` of the dataset higher"
        )


def _check_autocontext(pair: str, dataset: Dataset, network: LsdNetworkSettings) -> None:
    context = context_network(network, dataset)
    channels = 0 if context is None else sum(head.channels for head in context.heads)
    if context is not None and head_names(context) != ["lsds"]:
        raise ConfigError(
            f"{pair}: autocontext {context.name!r} predicts {head_names(context)}; a network "
            "that predicts `lsds` alone is needed, such as lsd"
        )
    if network.input_channels not in ((channels, channels + 1) if channels else (1,)):
        raise ConfigError(
            f"{pair}: {network.input_channels} input channels, but raw has 1 and autocontext "
            f"{network.autocontext!r} gives {channels}"
        )
