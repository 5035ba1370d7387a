"""Jobs that pack an experiment: as an RO-Crate, or to run without internet access."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from retrace.config.alignment import made_layer
from retrace.config.alignment_model import Alignment
from retrace.config.families import OwnPaths
from retrace.config.networks import own_paths, with_parents
from retrace.config.pack_model import PackedConfiguration, PackSettings
from retrace.config.sources import check_carried, named_files
from retrace.config.splits import SPLITS
from retrace.config.yaml_files import settings_of
from retrace.errors import ConfigError
from retrace.files import digest
from retrace.job import Job
from retrace.planning.choices import is_published
from retrace.planning.evaluate import evaluation
from retrace.planning.experiment import Experiment, Planner
from retrace.planning.fetch import fetched_files
from retrace.planning.initial_weights import init_files
from retrace.planning.paths import own_files, results, volumes_of, with_manifests
from retrace.planning.targets import pair_target
from retrace.planning.weights import published_checkpoint
from retrace.znn.cfg import read_cfg


def _settings(planner: Planner, dataset: str, network: str) -> PackSettings:
    """The unchanged configuration, and the target of the packed experiment."""
    name = f"{dataset}_{network}"
    return PackSettings(
        name=name, target=f"evaluate_{name}", config=planner.config, dataset=dataset
    )


def crate_job(planner: Planner, dataset: str, network: str) -> Job:
    """Describes an experiment and its results as an RO-Crate."""
    scores = evaluation(planner, dataset, network)
    return Job(_settings(planner, dataset, network), {"results": scores})


def bundle_job(planner: Planner, dataset: str, network: str) -> Job:
    """Packs what an experiment needs to run without internet access."""
    names = ["modern"]
    if planner.config.engine == "legacy":
        names.append(planner.config.legacy_image)
    named = _named(planner, dataset, network)
    inputs = {
        "files": _packed_files(planner, dataset, network, named),
        "images": [planner.image(name) for name in names],
        "wheels": wheels_folder(planner),
    }
    settings = _settings(planner, dataset, network).with_(
        networks=named.networks, configurations=named.configurations
    )
    return Job(settings, inputs)


@dataclass(frozen=True)
class _Named:
    """What the files of an experiment name apart from volumes."""

    networks: list[str]
    """Names of the networks whose files it needs."""
    paths: list[OwnPaths]
    """The paths that configurations of other systems name, for each of the networks."""
    configurations: list[PackedConfiguration]


def _named(planner: Planner, dataset: str, network: str) -> _Named:
    first = planner.network(dataset, network)
    networks = with_parents(one.name for one in planner.with_upstream(dataset, first))
    paths = [own_paths(name) for name in networks]
    return _Named(networks, paths, _configurations(dataset, paths))


def _configurations(dataset: str, paths: Sequence[OwnPaths]) -> list[PackedConfiguration]:
    """The .cfg of ZNN that the dataset and the networks name, each once, and the dataset's .spec.

    Networks are trained on the dataset: data that their own .cfg names are not needed.
    """
    content = settings_of("datasets", dataset)[0]
    cfgs = [content.get("cfg"), *(own.configuration for own in paths)]
    found = {cfg: PackedConfiguration(path=cfg, kind="cfg") for cfg in cfgs if cfg}
    cfg = content.get("cfg")
    spec = content.get("spec") or (read_cfg(Path(cfg)).fdata_spec if cfg else None)
    base = str(Path(cfg).parent) if cfg else None
    specs = [PackedConfiguration(path=spec, kind="spec", base=base)] if spec else []
    return [*found.values(), *specs]


def _foreign_files(named: _Named, alignment: Alignment | None) -> list[str]:
    """The configurations, networks and other files that the settings name, apart from volumes."""
    files = [one.path for one in named.configurations]
    for own in named.paths:
        paths = (own.architecture, own.forward_net)
        files += [path for path in paths if path and Path(path).is_file()]
    if alignment is not None:
        files += [stack.coordinates for stack in alignment.stacks.values() if stack.coordinates]
        files += alignment.defects.labelled
    return files


def wheels_folder(planner: Planner) -> str:
    """The folder of Snakemake's packages, named by a digest of lock, machine and Python."""
    kind = [platform.machine(), *sys.version_info[:2]]
    lock = (planner.root / "envs" / "host.txt").read_text()
    return f"work/wheels/{digest([lock, kind])}"


def packed_files(planner: Planner, dataset: str, network: str) -> list[str]:
    """Inputs of an evaluation that no job computes: volumes, skeletons, published weights.

    ConfigError for a network whose file names its first weights: that path would not hold there.
    """
    return _packed_files(planner, dataset, network, _named(planner, dataset, network))


def _packed_files(planner: Planner, dataset: str, network: str, named: _Named) -> list[str]:
    experiment = planner.experiment("evaluate", dataset, network)
    if own_archive := experiment.network.initial_file:
        raise ConfigError(
            f"network {network!r} starts from its `state_archive: {own_archive}`, which is not "
            f"packed; leave it out and name the file with `--config init={own_archive}`"
        )
    data = experiment.dataset
    synthetic = None if data.alignment is None else made_layer(data)
    check_carried(data, planner.config.bucket)
    weights = init_files(planner.config)
    for name in (network, experiment.network.autocontext):
        if name and is_published(planner.config, name):
            weights += published_checkpoint(planner, dataset, name)
    fetched = [*fetched_files(planner, dataset), *_streamed_volumes(experiment)]
    own = [path for path in named_files(data) if path not in (*fetched, synthetic)]
    kept = [file for path in own for file in own_files(data, path)]
    foreign = _foreign_files(named, data.alignment)
    return list(dict.fromkeys([*fetched, *kept, *weights, *foreign]))


def _streamed_volumes(experiment: Experiment) -> list[str]:
    """Volumes that are streamed from the bucket, as `fetch` copies them."""
    data = experiment.dataset
    if data.bucket is None or data.bucket.read != "blocks":
        return []
    used = volumes_of(entry for split in SPLITS for entry in data.entries(split))
    return with_manifests([f"data/{data.name}/{volume}.zarr" for volume in used])


@pair_target("crate")
def crate(planner: Planner, dataset: str, network: str) -> list[str]:
    """The RO-Crate of an experiment."""
    planner.experiment("evaluate", dataset, network)
    return [results(dataset, network, "crate.zip")]


@pair_target("bundle")
def bundle(planner: Planner, dataset: str, network: str) -> list[str]:
    """The packed experiment; ConfigError if no images are in use."""
    planner.experiment("evaluate", dataset, network)
    if not planner.uses_containers:
        raise ConfigError(
            "a bundle holds the container images that its rules run in; add --use-singularity"
        )
    return [results(dataset, network, "bundle")]
