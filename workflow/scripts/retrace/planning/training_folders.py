"""The folders of trainings in work/: what their states depend on, and their snapshots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from retrace.errors import ConfigError
from retrace.job import Job
from retrace.planning.identity import setting_differences
from retrace.planning.paths import manifest
from retrace.planning.records import record_next_to
from retrace.reading import json_if_intact
from retrace.records.contents import has_changed
from retrace.records.record import read_finished
from retrace.settings_model import deciding

WORK = {"modern": "work/train", "legacy": "work/legacy"}
"""By engine where the trainings of the workflow work."""
IDENTITY = "identity.json"
"""In the folder of a training: what its states depend on."""
SNAPSHOTS = "snapshots"
"""In the folder of a training: single batches, one store each."""
PRETRAINED_LSDS = "pretrained_lsds"
"""In a snapshot: the descriptors that an auto-context network reads."""
WEIGHTS = ("init", "context", "published", "resumed")
"""Roles of the weights that a training starts from or reads."""

NOT_IN_DIGEST = (
    "iterations",
    "checkpoint_every",
    "snapshot_every",
    "inference_shape",
    "forward_outsz",
    "forward_conv_mode",
    "num_iter_per_show",
    "num_iter_per_test",
    "test_num",
    "net_files",
    "n_steps",
    "max_runtime",
)
"""Settings of a network that do not change the weights after a given number of iterations."""


def network_of_states(network: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a network that decide its weights after a given number of iterations."""
    return {key: value for key, value in network.items() if key not in NOT_IN_DIGEST}


def data_of_states(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """What of a dataset decides the weights: entries and their volumes, or its examples."""
    if "examples" in dataset:
        return {k: v for k, v in dataset["examples"].items() if k not in ("test", "fetch")}
    content = {k: dataset.get(k) for k in ("voxel_size_nm", "background_ids", "train")}
    used = {entry["volume"] for entry in dataset["train"]}
    return {**content, "volumes": {name: dataset["volumes"][name] for name in sorted(used)}}


def snapshot_name(iteration: int) -> str:
    """The name of the snapshot of an iteration; names sort like iterations."""
    return f"batch_{iteration:09d}.zarr"


def find_snapshot(job: Job, work: Path, experiment: str, iteration: int | None) -> Path:
    """The snapshot of an iteration, or the newest one, of the training that a job describes.

    Of several trainings with the same settings and inputs, as after an update of retrace, the last
    one that wrote a snapshot counts. ConfigError if there is no such snapshot.
    """
    others: list[str] = []
    folders: list[Path] = []
    for folder in sorted(work.glob(f"{experiment}_*")):
        if snapshots_in(folder) and (folder / IDENTITY).is_file():
            reason = next(_reasons(json_if_intact(folder / IDENTITY), job), None)
            if reason is None:
                folders.append(folder)
            else:
                others.append(f"{folder} has snapshots of another training: {reason}")
    found = sorted(
        (path for folder in folders for path in snapshots_in(folder)),
        key=lambda path: path.stat().st_mtime_ns,
    )
    named = [path for path in found if iteration is None or path.name == snapshot_name(iteration)]
    if not named:
        length_decides = job.settings.network.depends_on_length
        shortest = "" if length_decides else " --config iterations=1"
        raise ConfigError(_none_found(experiment, iteration, found, others, shortest))
    last = named[-1].parent
    return max(path for path in named if path.parent == last)


def snapshots_in(folder: Path) -> list[Path]:
    """The finished snapshots of a training, oldest first."""
    return sorted((folder / SNAPSHOTS).glob("batch_*.zarr"))


def _reasons(noted: Mapping[str, Any], job: Job) -> Iterator[str]:
    """Why a folder is not of the training that a job describes; nothing if it is."""
    if not noted:
        yield f"its {IDENTITY} is damaged"
        return
    names = ["seed", "precision"] + ["iterations"] * job.settings.network.depends_on_length
    before, after = (
        _of_states(settings, names) for settings in (noted["settings"], deciding(job.settings))
    )
    yield from setting_differences(before, after, noted["resolved"])
    read = [path for paths in job.files().values() for path in paths] + job.untracked_files()
    for path in sorted(noted["inputs"].keys() - set(read)):
        yield f"it read {path}"
    for path in (str(path) for role in WEIGHTS for path in job.paths(role)):
        if path not in noted["inputs"]:
            yield f"it did not read {path}"
    for path, version in noted["inputs"].items():
        if _is_other(path, version):
            yield f"{path} has changed since"


def _of_states(settings: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The settings of a training that decide its weights after a given number of iterations.

    `names`: of those that do, besides its network and its dataset.
    """
    decided = {key: settings.get(key) for key in names}
    network = network_of_states(settings["network"])
    return {**decided, "network": network, "dataset": data_of_states(settings["dataset"])}


def _is_other(path: str, version: Mapping[str, str]) -> bool:
    """Whether an input is another version than a training read; one that is gone is not."""
    if not Path(path).exists():
        return False
    if "sha256" in version:
        return has_changed(Path(path), version)
    records = [read_finished(Path(file)) for file in (manifest(path), record_next_to(path))]
    versions = [one.version for one in records if one is not None]
    return bool(versions) and version not in versions


def _none_found(
    experiment: str,
    iteration: int | None,
    found: Sequence[Path],
    others: Sequence[str],
    shortest: str,
) -> str:
    """The message when there is no snapshot to show: which there are, and what writes one.

    `shortest`: the option with which a training is as short as can be and still the same one.
    """
    if found:
        numbers = sorted({int(path.stem.removeprefix("batch_")) for path in found})
        return (
            f"`batch`: no snapshot of iteration {iteration} of {experiment}; set it to one of "
            f"{', '.join(map(str, numbers))}, or leave it out to see the newest"
        )
    return "; ".join(
        [
            f"no snapshot of {experiment} with these settings; run `snakemake train_{experiment}"
            f"{shortest}` with the same other settings, or with `weights=published` any "
            "number beyond the checkpoint's: a training writes a snapshot at its first and its "
            "last iteration, and at multiples of the network's `snapshot_every`",
            *others,
        ]
    )
