"""Jobs that write networks and predictions as the files of ZNN and ELEKTRONN."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from retrace.config.network_settings import NetworkSettings
from retrace.errors import ConfigError
from retrace.job import Job
from retrace.planning.conversion_settings import OutputFilesSettings
from retrace.planning.paths import manifest, results
from retrace.storage.owned_files import RECORD, check_unowned, znn_network_files

if TYPE_CHECKING:
    from retrace.planning.experiment import Planner

TRAIN_WORK = "work/train"
"""Where the rules put the folders of trainings."""


def exported_network_job(planner: Planner, dataset: str, network: str) -> Job:
    """Writes a trained network, with its learning curve, as a .h5 of ZNN or a .param."""
    model = results(dataset, network, "model.safetensors")
    return Job({}, {"model": model, "history": results(dataset, network, "training.json")})


def outputs_job(planner: Planner, dataset: str, network: str, volume: str) -> Job:
    """Writes a prediction under ZNN's file names."""
    prefix = planner.config.output_prefix
    if not prefix:
        raise ConfigError("`output_prefix` is not set; give it with --config output_prefix=out/net")
    heads = planner.network(dataset, network).heads
    prediction = results(dataset, network, volume, "prediction.zarr")
    settings = OutputFilesSettings(prefix=prefix, volume=volume, heads=heads)
    return Job(settings, {"prediction": prediction}, [manifest(prediction)])


def output_stem(prefix: str, volume: str, node: str) -> str:
    """ZNN's name of an output without suffix, PREFIX_sampleN_NODE.

    Volumes that do not come from a .spec have no number N; their name replaces it.
    """
    sample = volume if re.fullmatch(r"sample\d+", volume) else f"sample_{volume}"
    return f"{prefix}_{sample}_{node}"


def output_files(settings: OutputFilesSettings) -> list[Path]:
    """The files of a prediction in ZNN's form: of each output an .h5, and a .tif per channel."""
    stems = [(output_stem(settings.prefix, settings.volume, h.node), h) for h in settings.heads]
    names = [
        f"{stem}{end}"
        for stem, head in stems
        for end in (".h5", *(f"_{index}.tif" for index in range(head.channels)))
    ]
    return [Path(name) for name in names]


def check_output_files(planner: Planner, dataset: str, network: str, volume: str) -> None:
    """Refuses an `output_prefix` where files of somebody else would be overwritten (DataError)."""
    settings = outputs_job(planner, dataset, network, volume).settings
    record = Path(results(dataset, network, volume, RECORD))
    check_unowned([record], output_files(settings), "output_prefix")


def check_network_files(network: NetworkSettings) -> None:
    """Refuses a `train_net_prefix` with networks that no training here wrote (DataError)."""
    files = getattr(network, "net_files", None)
    if files is not None:
        records = Path(TRAIN_WORK).glob(f"*/{RECORD}")
        check_unowned(records, znn_network_files(files.prefix), "train_net_prefix")
