"""Refuses a choice of the best state where no validation data would decide."""

from __future__ import annotations

from retrace.config.dataset_model import Dataset, Entry
from retrace.config.families import family_of
from retrace.config.network_settings import NetworkSettings
from retrace.config.workflow import WorkflowConfig
from retrace.errors import ConfigError


def is_measured(config: WorkflowConfig) -> bool:
    """Whether trainings are measured on the validation volumes."""
    return config.engine != "legacy" and config.validation.every != "never"


def labelled_validation(dataset: Dataset) -> list[Entry]:
    """The validation entries of volumes with labels."""
    volumes = dataset.volumes
    return [e for e in dataset.validation if volumes[e.volume].labels is not None]


def check_validation(config: WorkflowConfig, dataset: object, network: NetworkSettings) -> None:
    """ConfigError if the best state is asked for and a training has nothing to be measured on."""
    if not config.validation.decides:
        return
    setting = "keep: best" if config.validation.keep == "best" else "patience"
    where = f"network {network.name!r}: `validation: {{{setting}}}`"
    last = "or leave it out to take the last state"
    if config.engine == "legacy":
        raise ConfigError(f"{where} needs `engine: modern`; set it, {last}")
    if config.validation.every == "never":
        raise ConfigError(f"{where} and `every: never` exclude each other; set `every`, {last}")
    if not isinstance(dataset, Dataset):
        return  # of single examples some are always held out
    if family_of(network).aligns:
        raise ConfigError(
            f"{where}: alignment networks are trained on stacks, of which none are for "
            f"validation; leave it out to take the last state"
        )
    if not labelled_validation(dataset):
        raise ConfigError(
            f"{where} needs validation data, and dataset {dataset.name!r} has no `validation` "
            f"entry whose volume has labels; add one to config/datasets/{dataset.name}.yaml, {last}"
        )
