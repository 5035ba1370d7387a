"""Which weights a job reads: trained, published, or those of another network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from retrace.config.families import family_of
from retrace.errors import ConfigError
from retrace.job import Job
from retrace.planning.choices import is_published
from retrace.planning.conversion_settings import ConversionSettings
from retrace.planning.experiment import Planner
from retrace.planning.initial_weights import networks_in
from retrace.planning.paths import manifest, results, with_manifests
from retrace.planning.records import record_next_to
from retrace.records.record import read_finished


def published_checkpoint(planner: Planner, dataset: str, network: str) -> list[str]:
    """Folder and manifest of a published checkpoint; ConfigError if there is none."""
    if not family_of(planner.network(dataset, network)).published_in_bucket:
        raise ConfigError(
            f"no checkpoint of network {network!r} was published in the bucket; name a network"
            " of ZNN with `init: FILE.h5`, of ELEKTRONN with `init: FILE.param`"
        )
    bucket = planner.dataset(dataset, trained=None).bucket
    if bucket is None or bucket.checkpoints is None:
        raise ConfigError(
            f"dataset {dataset!r} has no published checkpoints (`bucket: checkpoints` in its"
            " file); use `weights: trained`"
        )
    return with_manifests([checkpoint_folder(dataset, network)])


def checkpoint_folder(dataset: str, network: str) -> str:
    """The folder that a published checkpoint is fetched to."""
    return f"data/{dataset}/checkpoints/{network}"


def model_file(planner: Planner, dataset: str, network: str) -> str:
    """The weights that a prediction uses: trained, or published."""
    config = planner.config
    if parent := planner.dataset(dataset, trained=None).weights_of:
        published_checkpoint(planner, parent, network)
        return results(parent, network, "published.safetensors")
    if planner.given_network(dataset, network):
        return results(dataset, network, "published.safetensors")
    if not is_published(config, network):
        return results(dataset, network, "model.safetensors")
    family = family_of(planner.network(dataset, network))
    if family.published_in_bucket or not planner.init_of(dataset, network):
        published_checkpoint(planner, dataset, network)
    return results(dataset, network, "published.safetensors")


def init_file(planner: Planner, dataset: str, network: str) -> str:
    """The file of another program that holds the weights (ConfigError if none is named)."""
    init = planner.given_network(dataset, network) or planner.init_of(dataset, network)
    if not init:
        published_checkpoint(planner, dataset, network)
    return str(init)


def first_weights(planner: Planner, dataset: str, network: str) -> Mapping[str, str]:
    """By role the weights that a training starts from: `init`, `published`, or none.

    ConfigError for an `init` of a network that starts from another network.
    """
    first = planner.network(dataset, network).initial_network
    if first is not None:
        if init := planner.init_of(dataset, network):
            raise ConfigError(
                f"network {network!r} starts from network {first!r} (its `pretrained`), and not "
                f"from `init: {init}`; leave `init` out, or give it to the other network: "
                f"`init={{{first}: {init}}}`"
            )
        planner.experiment("train", dataset, first)
        return {"init": model_file(planner, dataset, first)}
    if init := planner.init_of(dataset, network):
        return {"init": init}
    if planner.config.weights == "published":
        return {"published": published_checkpoint(planner, dataset, network)[0]}
    return {}


def untracked_weights(planner: Planner, dataset: str, network: str) -> tuple[str, ...]:
    """The role of `init` if its file is not to be computed again; else none.

    It comes from this very network, or is a result that no job here is known to have written: the
    user put it there, and naming it must not replace it.
    """
    if planner.init_is_own_result(dataset, network):
        return ("init",)
    init = planner.init_of(dataset, network)
    is_put_there = bool(init and networks_in(init) and Path(init).is_file())
    return ("init",) if is_put_there and not read_finished(Path(record_next_to(str(init)))) else ()


def context_model(planner: Planner, dataset: str, network: str) -> Mapping[str, str]:
    """By role the model whose descriptors an auto-context network reads, or none."""
    name = planner.network(dataset, network).autocontext
    return {"context": model_file(planner, dataset, name)} if name else {}


def convert_job(planner: Planner, dataset: str, network: str) -> Job:
    """Converts a published TensorFlow checkpoint to safetensors."""
    folder = checkpoint_folder(dataset, network)
    return conversion_job(planner, dataset, network, {"checkpoint": folder}, [manifest(folder)])


def conversion_job(
    planner: Planner,
    dataset: str,
    network: str,
    inputs: Mapping[str, str],
    prerequisites: Sequence[str] = (),
) -> Job:
    """Converts weights of another program to those of a network."""
    settings = ConversionSettings(dataset=dataset, network=planner.network(dataset, network))
    return Job(settings, inputs, prerequisites)


def imported_model_job(planner: Planner, dataset: str, network: str, *, role: str) -> Job:
    """Reads the weights in a file of another program; `role`: h5 of ZNN, param of ELEKTRONN."""
    return conversion_job(planner, dataset, network, {role: init_file(planner, dataset, network)})


IMPORT_JOBS = {role: partial(imported_model_job, role=role) for role in ("h5", "param")}
"""By role the function that plans the import of a file's weights."""
