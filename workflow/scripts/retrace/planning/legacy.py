"""Jobs of the legacy engine: TensorFlow 1 trains and predicts in a separate image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from retrace.files import digest
from retrace.job import Job
from retrace.planning.choices import is_published
from retrace.planning.code_digest import code_digests
from retrace.planning.experiment import Planner
from retrace.planning.paths import manifest, results
from retrace.planning.predict import predict_job
from retrace.planning.program_files import SCRIPTS
from retrace.planning.train import train_job
from retrace.planning.weights import conversion_job, first_weights, published_checkpoint


def batches_job(planner: Planner, dataset: str, network: str) -> Job:
    """The batches of a training; `trainer` names what trains on them, and resumes only its own."""
    programs = code_digests(sorted((SCRIPTS / "legacy").glob("*.py")), SCRIPTS)
    image = Path(planner.image(planner.config.legacy_image)).name
    job = train_job(planner, dataset, network)
    return replace(job, execution={**job.execution, "trainer": digest([programs, image])})


def legacy_train_job(planner: Planner, dataset: str, network: str) -> Job:
    """Trains in the legacy image; the batches come through a pipe.

    Settings and volumes are not read there; they are part of the job so that a change trains again.
    """
    weights = first_weights(planner, dataset, network)
    begin = {"published": weights["published"]} if "published" in weights else {}
    manifests = [manifest(path) for path in begin.values()]
    inputs = {"batches": results(dataset, network, "batches.pipe"), **begin}
    batches = train_job(planner, dataset, network)
    read = [path for files in batches.files().values() for path in files]
    return Job(batches.settings, inputs, [*manifests, *read])


def trained_checkpoint_job(planner: Planner, dataset: str, network: str) -> Job:
    """Converts the trained TensorFlow checkpoint to safetensors."""
    folder = results(dataset, network, "checkpoint")
    return conversion_job(planner, dataset, network, {"checkpoint": folder})


def input_job(planner: Planner, dataset: str, network: str, volume: str) -> Job:
    """Writes the legacy engine's input from a volume."""
    job = predict_job(planner, dataset, network, volume)
    return Job(job.settings, {}, job.prerequisites)


def _checkpoint(planner: Planner, dataset: str, network: str) -> tuple[str, list[str]]:
    """Folder of the TensorFlow checkpoint that predicts, and its manifest, if it has one."""
    if is_published(planner.config, network):
        folder, *manifests = published_checkpoint(planner, dataset, network)
        return folder, manifests
    return results(dataset, network, "checkpoint"), []


def legacy_predict_job(planner: Planner, dataset: str, network: str, volume: str) -> Job:
    """Predicts all tiles with the TensorFlow graph."""
    planner.experiment("predict", dataset, network)
    checkpoint, manifests = _checkpoint(planner, dataset, network)
    folder = results(dataset, network, volume, "legacy_input")
    return Job({}, {"tiles": folder, "checkpoint": checkpoint}, manifests)


def output_job(planner: Planner, dataset: str, network: str, volume: str) -> Job:
    """Writes the predicted tiles as the modern engine's store."""
    job = predict_job(planner, dataset, network, volume)
    checkpoint, manifests = _checkpoint(planner, dataset, network)
    inputs = {
        "input": results(dataset, network, volume, "legacy_input"),
        "predicted": results(dataset, network, volume, "legacy_output"),
        "checkpoint": checkpoint,
    }
    return Job(job.settings, inputs, [*job.prerequisites, *manifests])
