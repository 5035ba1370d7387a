"""Jobs on the shards of a volume, and their assembly."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from retrace.job import Job
from retrace.planning.experiment import Planner
from retrace.planning.paths import manifest, results
from retrace.storage.shards import shard_names

ASSEMBLED = {
    "prediction": "prediction.zarr",
    "fragments": "shards/fragments.zarr",
    "graph": "fragments.zarr",
    "segmentation": "segmentation.zarr",
}
"""What is assembled from shards, and where the result is."""

VOLUME_FOLDER = "results/{dataset}/{network}/{volume}"


def execution_of(shard: str | None) -> Mapping[str, str]:
    """The shard that a job computes; empty for a whole volume."""
    return {} if shard is None else {"shard": shard}


def output_store(count: int, name: str) -> str:
    """The output of a rule, with wildcards: NAME.zarr, or of `count` > 1 shards one of them."""
    stem = name if count == 1 else f"shards/{name}_{{shard}}"
    return f"{VOLUME_FOLDER}/{stem}.zarr"


def log_file(count: int, rule: str) -> str:
    """The log of a rule, with wildcards, for a volume or for one of `count` > 1 shards."""
    stem = "{volume}" if count == 1 else "{volume}_{shard}"
    return f"logs/{rule}/{{dataset}}_{{network}}/{stem}.log"


def assembled_store(name: str) -> str:
    """The store that is assembled from shards, with wildcards."""
    return f"{VOLUME_FOLDER}/{ASSEMBLED[name]}"


def assemble_job(planner: Planner, dataset: str, network: str, volume: str, *, name: str) -> Job:
    """Assembles the shards of a store; of the graph the fragments, and then all shards."""
    stem = "edges" if name == "graph" else name
    first = ["shards/fragments.zarr"] if name == "graph" else []
    shards = [f"shards/{stem}_{shard}.zarr" for shard in shard_names(planner.config.shards)]
    stores = [results(dataset, network, volume, store) for store in first + shards]
    return Job({}, {"shards": stores}, [manifest(store) for store in stores])


ASSEMBLE_JOBS = {name: partial(assemble_job, name=name) for name in ASSEMBLED}
"""By store the function that plans its assembly."""
