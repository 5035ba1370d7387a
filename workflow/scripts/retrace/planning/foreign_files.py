"""Jobs that write networks and predictions as the files of ZNN and ELEKTRONN."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrace.config.networks import own_paths
from retrace.errors import ConfigError, DataError
from retrace.job import Job
from retrace.planning.conversion_settings import OutputFilesSettings
from retrace.planning.paths import manifest, results
from retrace.planning.train_settings import TrainSettings
from retrace.storage.owned_files import (
    NETWORKS,
    PREDICTIONS,
    RECORD,
    check_owned,
    log_files,
    znn_network_files,
)

if TYPE_CHECKING:
    from retrace.planning.experiment import Planner
    from retrace.planning.resumption import Start


def exported_network_job(planner: Planner, dataset: str, network: str) -> Job:
    """Writes a trained network, with its learning curve, as a .h5 of ZNN or a .param."""
    model = results(dataset, network, "model.safetensors")
    return Job({}, {"model": model, "history": results(dataset, network, "training.json")})


def outputs_job(planner: Planner, dataset: str, network: str, volume: str) -> Job:
    """Writes a prediction under ZNN's file names."""
    prefix = output_prefix(planner, network)
    if not prefix:
        raise ConfigError("`output_prefix` is not set; give it with --config output_prefix=out/net")
    heads = planner.network(dataset, network).heads
    prediction = results(dataset, network, volume, "prediction.zarr")
    settings = OutputFilesSettings(prefix=prefix, volume=volume, heads=heads)
    return Job(settings, {"prediction": prediction}, [manifest(prediction)])


def output_prefix(planner: Planner, network: str) -> str | None:
    """The start of the paths of a prediction's files: of the configuration, or of the .cfg."""
    return planner.config.output_prefix or own_paths(network).output_prefix


def output_stem(prefix: str, volume: str, node: str) -> str:
    """ZNN's name of an output without suffix, PREFIX_sampleN_NODE.

    Volumes that do not come from a .spec have no number N; their name replaces it.
    """
    sample = volume if re.fullmatch(r"sample\d+(_\d+)?", volume) else f"sample_{volume}"
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


@dataclass
class WrittenFiles:
    """The files that the jobs of a plan write to folders of the user."""

    _writers: dict[Path, Path] = field(default_factory=dict)
    """By file, or prefix of files, the folder of the job's results."""

    def check(self, settings: Any, folder: Path, start: Start | None = None) -> None:
        """DataError if a job that will run cannot replace its files, or another one writes them.

        `folder`: that of the job's results, which has the record of what it wrote. `start`: how a
        training of ZNN begins.
        """
        if isinstance(settings, OutputFilesSettings):
            files = output_files(settings)
            self._check(folder, files, files, PREDICTIONS)
        elif isinstance(settings, TrainSettings):
            own_files = getattr(settings.network, "net_files", None)
            if own_files is not None:
                prefix = Path(own_files.prefix)
                files = [*znn_network_files(own_files.prefix), *log_files(own_files.prefix)]
                if start is not None and start.copy is not None:
                    files = [file for file in files if start.replaces(file)]
                self._check(folder, [prefix], files, NETWORKS)

    def _check(
        self, folder: Path, names: Sequence[Path], existing: Sequence[Path], setting: str
    ) -> None:
        for name in names:
            other = self._writers.setdefault(name.resolve(), folder)
            if other != folder:
                raise DataError(
                    f"{name} of `{setting}` is to be written for {other} and for {folder}; choose "
                    f"another `{setting}` for one of them"
                )
        check_owned(folder / RECORD, existing, setting)
