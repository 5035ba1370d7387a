"""Jobs that write the labels mask of a volume."""

from __future__ import annotations

from typing import Any

from retrace.config.compatibility import check_verb
from retrace.config.mask_model import MaskSettings
from retrace.config.splits import SPLITS
from retrace.errors import ConfigError
from retrace.job import Job
from retrace.planning.experiment import Planner
from retrace.planning.paths import mask_stores, volume_files, volumes_of, with_manifests
from retrace.planning.targets import data_target
from retrace.remote.addresses import is_address, local_folder


def mask_job(planner: Planner, dataset: str, volume: str) -> Job:
    """Writes the mask of one volume from its labels and background ids."""
    data = planner.dataset(dataset)
    source = data.volumes[volume]
    if source.labels is None:
        raise ConfigError(f"volume {volume!r} of dataset {dataset!r} has no labels to mask")
    further: dict[str, Any] = {"zarr_format": planner.config.zarr_format}
    if source.labels_mask:
        further["labels_mask"] = source.labels_mask
    if is_address(source.labels.path) and local_folder(source.labels.path) is None:
        further["image"] = source.raw  # planning does not know the place of labels at an address
    settings = MaskSettings(background_ids=data.background_ids, labels=source.labels, **further)
    return Job(settings, prerequisites=volume_files(data, [volume], ["labels", "labels_mask"]))


@data_target("mask")
def masks(planner: Planner, dataset: str) -> list[str]:
    """The masks of the volumes of all splits."""
    data = planner.dataset(dataset)
    check_verb(data, "mask")
    planner.check_data(dataset)
    volumes = volumes_of(entry for split in SPLITS for entry in data.entries(split))
    return with_manifests(mask_stores(data, volumes).values())
