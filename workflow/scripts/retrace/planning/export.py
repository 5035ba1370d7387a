"""Jobs that export layers and packages."""

from __future__ import annotations

from functools import partial
from typing import Any

from retrace.config.dataset_model import Dataset
from retrace.config.export_choices import Export, ExportFormat, Layer, ShapeChoices
from retrace.config.export_model import ExportSettings, ShapeSettings
from retrace.config.families import family_of
from retrace.config.network_settings import NetworkSettings
from retrace.config.splits import with_skeletons
from retrace.config.workflow import WorkflowConfig
from retrace.formats.normalize import Normalize
from retrace.formats.source import Source
from retrace.job import Job
from retrace.planning import align
from retrace.planning.experiment import Planner
from retrace.planning.package_settings import PackagedDataset, PackageSettings
from retrace.planning.paths import results, tested, volume_files, with_manifests
from retrace.planning.targets import pair_target
from retrace.planning.weights import model_file
from retrace.settings_model import as_json
from retrace.storage.layer_formats import LAYER_FORMATS

EXPORTED = {
    "segments": ("segmentation.zarr", "segments"),
    "fragments": ("fragments.zarr", "fragments"),
    "affinities": ("prediction.zarr", "affs"),
    "raw": ("prediction.zarr", "affs"),
}
"""Where a layer that is exported comes from, as (store, array); of raw, whose box it is cut to."""


def exported_store(dataset: str, network: str, volume: str, layer: str) -> str:
    """The store that an exported layer comes from or is cut to."""
    return results(dataset, network, volume, EXPORTED[layer][0])


def shape_settings(export: Export) -> ShapeSettings | None:
    """The meshes and skeletons of the layer `segments`, None without any."""
    if not export.with_shapes:
        return None
    chosen = {n: v for n, v in export.explicit().items() if n in ShapeChoices.model_fields}
    made = {name: name in export.layers for name in ("meshes", "skeletons")}
    return ShapeSettings(**chosen, **made)


def export_settings(
    config: WorkflowConfig,
    dataset: Dataset,
    network: NetworkSettings,
    volume: str,
    layer: Layer,
    form: ExportFormat,
) -> ExportSettings:
    """What export.py reads for one layer; `form`: a name in LAYER_FORMATS."""
    store = exported_store(dataset.name, network.name, volume, layer)
    result = Source(path=store, array=EXPORTED[layer][1])
    raw = layer == "raw"
    chosen: dict[str, Any] = {
        "gzip": config.export.gzip,
        "zarr_format": config.zarr_format,
        "shapes": shape_settings(config.export) if layer == "segments" else None,
    }
    return ExportSettings(
        format=form,
        source=dataset.volumes[volume].raw if raw else result,
        within=result if raw else None,
        labels=layer in ("segments", "fragments"),
        **{name: chosen[name] for name in LAYER_FORMATS[form].settings},
    )


def export_job(
    planner: Planner, dataset: str, network: str, volume: str, layer: Layer, *, form: ExportFormat
) -> Job:
    """Exports one layer of one volume; `form`: a name in LAYER_FORMATS."""
    experiment = planner.experiment("export", dataset, network)
    data = experiment.dataset
    settings = export_settings(planner.config, data, experiment.network, volume, layer, form)
    raw = volume_files(data, [volume], ["raw"]) if layer == "raw" else []
    return Job(
        settings,
        prerequisites=[*with_manifests([exported_store(dataset, network, volume, layer)]), *raw],
    )


def _images(export: Export) -> list[str]:
    """The layers with voxels that are written, below the folder of a volume."""
    pairs = [(f, layer) for f in export.formats for layer in export.layers if layer in EXPORTED]
    if export.with_shapes:
        pairs.append(("precomputed", "segments"))
    return [f"{f}/{layer}{LAYER_FORMATS[f].suffix}" for f, layer in dict.fromkeys(pairs)]


@pair_target("export")
def exported(planner: Planner, dataset: str, network: str) -> list[str]:
    """The layers and formats that the configuration asks for, and their manifests."""
    data = planner.experiment("export", dataset, network).dataset
    settings = planner.config.export
    places = [(volume, image) for volume in tested(data) for image in _images(settings)]
    if "nodes" in settings.layers:
        places += [(volume, "nodes") for volume in with_skeletons(data)]
    return with_manifests([results(dataset, network, *place) for place in places])


def _normalizes(data: Dataset) -> tuple[Normalize, ...]:
    """The different settings `normalize` of the raw that is trained on, or of all sections."""
    names = dict.fromkeys(entry.volume for entry in data.train) or data.volumes
    used = (data.volumes[name].raw.normalize for name in names)
    return tuple({as_json(setting): setting for setting in used if setting}.values())


def package_job(planner: Planner, dataset: str, network: str) -> Job:
    """Packs a network to run without this workflow."""
    experiment = planner.experiment("package", dataset, network)
    data, net = experiment.dataset, experiment.network
    voxel_size_nm = data.voxel_size_nm if isinstance(data, Dataset) else None
    if family_of(net).aligns:
        voxel_size_nm = align.aligned_voxel_nm(data, net)
    size = {} if voxel_size_nm is None else {"voxel_size_nm": voxel_size_nm}
    grey = {"normalize": _normalizes(data)} if isinstance(data, Dataset) else {}
    about = PackagedDataset(name=data.name, **size, **grey)
    settings = PackageSettings(network=net, dataset=about, **planner.config.package.explicit())
    return Job(settings, {"model": model_file(planner, dataset, network)})


@pair_target("package")
def package(planner: Planner, dataset: str, network: str) -> list[str]:
    """The packed network."""
    planner.experiment("package", dataset, network)
    return [results(dataset, network, "package.zip")]


EXPORT_JOBS = {form: partial(export_job, form=form) for form in LAYER_FORMATS}
"""By format the function that plans the export of a layer."""
