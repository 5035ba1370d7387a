"""Jobs that fetch volumes, checkpoints, ground truth, container images and files of examples."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from retrace.config.compatibility import check_verb
from retrace.config.downloads import downloads
from retrace.config.examples_model import ExamplesDataset
from retrace.config.schema import check
from retrace.config.sources import example_files
from retrace.config.splits import SPLITS
from retrace.config.workflow import WorkflowConfig
from retrace.config.yaml_files import names
from retrace.errors import ConfigError
from retrace.job import Job
from retrace.planning import container_images
from retrace.planning.experiment import Planner
from retrace.planning.output_folders import check_writable
from retrace.planning.paths import folders_to_fetch, skeleton_files, volume_files, volumes_of
from retrace.planning.targets import TargetFiles, data_target, other_targets
from retrace.planning.weights import published_checkpoint
from retrace.remote.store import FetchFileSettings, FetchObjectSettings, FetchSettings


def _folder(config: WorkflowConfig, **what: Any) -> FetchSettings:
    """Settings that fetch one folder of the bucket."""
    return check(FetchSettings, {**_bucket(config), **what}, "config.yaml")


def _bucket(config: WorkflowConfig) -> dict[str, Any]:
    """The settings of the configuration that say how the bucket is read."""
    return {
        "bucket": config.bucket,
        "endpoint_url": config.endpoint_url,
        "unsigned": config.unsigned,
        "mirror": config.mirror,
        "threads": config.fetch_threads,
    }


def fetch_job(planner: Planner, dataset: str, volume: str) -> Job:
    """Fetches one volume of a bucket."""
    data = planner.dataset(dataset)
    bucket = data.bucket
    if bucket is None or volume not in data.volumes:
        raise ConfigError(f"the bucket has no volume {volume!r} of dataset {dataset!r}")
    prefix = f"{bucket.prefix}/{volume}.zarr"
    arrays = (bucket.raw, bucket.labels)
    return Job(_folder(planner.config, prefix=prefix, arrays=arrays), copies=True)


def fetch_checkpoint_job(planner: Planner, dataset: str, network: str) -> Job:
    """Fetches one published checkpoint."""
    published_checkpoint(planner, dataset, network)
    prefix = f"{planner.dataset(dataset).bucket.checkpoints}/{network}"
    return Job(_folder(planner.config, prefix=prefix, arrays=()), copies=True)


def fetch_ground_truth_job(planner: Planner, dataset: str, folder: str) -> Job:
    """Fetches one `ground_truth` folder of a dataset."""
    prefixes = planner.dataset(dataset).ground_truth
    if folder not in prefixes:
        raise ConfigError(f"dataset {dataset!r} has no `ground_truth` {folder!r}")
    return Job(_folder(planner.config, prefix=prefixes[folder]), copies=True)


def fetch_container_job(planner: Planner, name: str) -> Job:
    """Fetches one published container image."""
    image = container_images.published_images(planner.root)[name]
    what = {"key": image.key, "sha256": image.sha256}
    settings = check(FetchObjectSettings, {**_bucket(planner.config), **what}, "config.yaml")
    return Job(settings, copies=True)


def fetch_file_job(planner: Planner, file: str) -> Job:
    """Fetches one file DATASET/NAME from the address that its dataset gives for it."""
    url, sha256 = downloads(planner.dataset(file.partition("/")[0]))[f"data/{file}"]
    return Job(FetchFileSettings(url=url, sha256=sha256), copies=True)


@data_target("fetch")
def fetched_files(planner: Planner, dataset: str) -> list[str]:
    """The volumes of all splits and their skeletons, or the files of examples."""
    data = planner.dataset(dataset)
    check_verb(data, "fetch")
    if isinstance(data, ExamplesDataset):
        return example_files(data.examples)
    check_writable(*folders_to_fetch(data))
    volumes = volumes_of(entry for split in SPLITS for entry in data.entries(split))
    skeletons = [file for split in SPLITS[1:] for file in skeleton_files(data, split)]
    return volume_files(data, volumes) + skeletons


@other_targets
def checkpoint_targets() -> Iterator[tuple[str, TargetFiles]]:
    """fetch_DATASET_NETWORK_checkpoint."""
    for dataset in names("datasets"):
        for network in names("networks"):
            files = partial(published_checkpoint, dataset=dataset, network=network)
            yield f"fetch_{dataset}_{network}_checkpoint", files
