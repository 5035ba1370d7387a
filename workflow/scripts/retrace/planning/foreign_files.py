"""Jobs that write networks and predictions as the files of ZNN and ELEKTRONN."""

from __future__ import annotations

from retrace.errors import ConfigError
from retrace.job import Job
from retrace.planning.conversion_settings import OutputFilesSettings
from retrace.planning.experiment import Planner
from retrace.planning.paths import manifest, results


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
