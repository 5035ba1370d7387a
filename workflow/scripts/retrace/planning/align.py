"""Jobs that train an alignment network, align sections, and score the alignment."""

from __future__ import annotations

from retrace.config.alignment import (
    sections_of,
    source,
    stack_mask_stores,
    stack_stores,
    truth_store,
)
from retrace.config.dataset_model import Dataset
from retrace.config.seamless_network import SeamlessNetworkSettings
from retrace.config.view_model import ViewLayerSource
from retrace.config.workflow import WorkflowConfig
from retrace.errors import ConfigError
from retrace.geometry import NmTriple, checked_voxel_size
from retrace.job import Job
from retrace.planning.align_settings import AlignSettings, FitSettings, ScoreAlignmentSettings
from retrace.planning.choices import iterations_for
from retrace.planning.experiment import Planner
from retrace.planning.paths import manifest, results, with_manifests
from retrace.planning.stacks import check_detector, section_files
from retrace.planning.targets import pair_target
from retrace.planning.train import validation_settings
from retrace.planning.validation_checks import is_measured
from retrace.planning.weights import first_weights, model_file, untracked_weights


def alignment_train_settings(
    config: WorkflowConfig, dataset: Dataset, network: SeamlessNetworkSettings
) -> FitSettings:
    """What `align.py train` reads."""
    return FitSettings(
        dataset=dataset.name,
        voxel_size_nm=dataset.voxel_size_nm,
        network=network,
        epochs=config.epochs,
        iterations=iterations_for(config, network.name),
        run=config.run,
        seed=config.seed,
        device=config.device,
        **validation_settings(config),
    )


def mip_of(dataset: Dataset, network: SeamlessNetworkSettings) -> int | None:
    """The mip that a stack is aligned at; that of the training stacks by default."""
    if network.align.mip is not None:
        return network.align.mip
    mips = {stack.mip for stack in sections_of(dataset).stacks.values()}
    if len(mips) > 1:
        raise ConfigError(
            f"dataset {dataset.name!r} has stacks of several mips {sorted(map(str, mips))}; "
            f"say in network {network.name!r} which one to align at: `align: {{mip: ...}}`"
        )
    return mips.pop()


def aligned_voxel_nm(dataset: Dataset, network: SeamlessNetworkSettings) -> NmTriple:
    """Voxels of what a network aligns: the dataset's, y and x doubled by each mip beyond raw's."""
    z, y, x = dataset.voxel_size_nm
    raw = dataset.volumes[sections_of(dataset).volume].raw.mip or 0
    mip = mip_of(dataset, network)
    factor = 1 if mip is None else 2 ** (mip - raw)
    return checked_voxel_size((z, y * factor, x * factor))


def align_settings(
    config: WorkflowConfig, dataset: Dataset, network: SeamlessNetworkSettings
) -> AlignSettings:
    """What `align.py stack` reads; ConfigError if it is to be rendered coarser than aligned."""
    mip, render = mip_of(dataset, network), network.align.render_mip
    whole = source(dataset, mip)
    if render is not None and render > (whole.mip or 0):
        raise ConfigError(
            f"network {network.name!r}: `render_mip: {render}` is coarser than the mip "
            f"{whole.mip} that sections are aligned at; it may be as fine, or finer"
        )
    return AlignSettings(
        dataset=dataset.name,
        network=network,
        sections=whole,
        fine=None if render in (None, whole.mip) else source(dataset, render),
        mask=sections_of(dataset).mask,
        detect=sections_of(dataset).defects if sections_of(dataset).detect_defects else None,
        near_px=sections_of(dataset).defects.near_px,
        gzip=config.export.gzip,
        zarr_format=config.zarr_format,
        device=config.device,
    )


def alignment_score_settings(
    config: WorkflowConfig, dataset: Dataset, network: SeamlessNetworkSettings
) -> ScoreAlignmentSettings:
    """What `align.py evaluate` reads: the sections, and the fraction of them that is held out."""
    stacks = sections_of(dataset).stacks.values()
    return ScoreAlignmentSettings(
        dataset=dataset.name,
        network=network.name,
        sections=source(dataset, mip_of(dataset, network)),
        test_fraction=min(stack.test_fraction for stack in stacks),
        device=config.device,
    )


def layers(
    config: WorkflowConfig, dataset: Dataset, network: SeamlessNetworkSettings
) -> list[ViewLayerSource]:
    """Viewer layers: the sections before and after."""
    store = results(dataset.name, network.name, "aligned.zarr")
    settings = align_settings(config, dataset, network)
    array = "aligned" if settings.fine is None else "rendered"
    return [
        ViewLayerSource(**settings.sections.explicit(), kind="raw", name="before"),
        ViewLayerSource(path=store, array=array, kind="raw", name="aligned"),
    ]


def fit_job(planner: Planner, dataset: str, network: str) -> Job:
    """Trains an alignment network on the training stacks of a dataset."""
    experiment = planner.experiment("train", dataset, network)
    data = experiment.dataset
    stacks = stack_stores(data, "train")
    alignment = sections_of(data)
    have_masks = alignment.made is not None or alignment.mask is not None
    masks = [] if have_masks else stack_mask_stores(data, "train")
    if masks:
        check_detector(planner, dataset)
    weights = first_weights(planner, dataset, network)
    init = {"init": weights["init"]} if "init" in weights else {}
    settings = alignment_train_settings(planner.config, data, experiment.network)
    measured = stack_stores(data, "validation") if is_measured(planner.config) else []
    measured_masks = stack_mask_stores(data, "validation") if masks and measured else []
    validation = {"validation": measured, "validation_masks": measured_masks} if measured else {}
    manifests = [manifest(path) for path in (*stacks, *measured)]
    return Job(
        settings,
        {"stacks": stacks, "masks": masks, **validation, **init},
        manifests,
        untracked=untracked_weights(planner, dataset, network),
        measured=() if settings.selection else with_manifests([*measured, *measured_masks]),
    )


def align_job(planner: Planner, dataset: str, network: str) -> Job:
    """Aligns all sections of a dataset."""
    experiment = planner.experiment("align", dataset, network)
    data = experiment.dataset
    settings = align_settings(planner.config, data, experiment.network)
    inputs = {"model": model_file(planner, dataset, network)}
    if settings.detect is not None:
        check_detector(planner, dataset)
        inputs["defects"] = results(dataset, "defects.safetensors")
    return Job(settings, inputs, section_files(data))


def score_alignment_job(planner: Planner, dataset: str, network: str) -> Job:
    """Scores the aligned sections, also against their true displacements if these are known."""
    experiment = planner.experiment("evaluate", dataset, network)
    data = experiment.dataset
    aligned, truth = results(dataset, network, "aligned.zarr"), truth_store(data)
    inputs = {"aligned": aligned, **({"truth": truth} if truth else {})}
    settings = alignment_score_settings(planner.config, data, experiment.network)
    return Job(settings, inputs, [manifest(aligned), *section_files(data)])


@pair_target("align")
def aligned_sections(planner: Planner, dataset: str, network: str) -> list[str]:
    """The aligned sections."""
    planner.experiment("align", dataset, network)
    return with_manifests([results(dataset, network, "aligned.zarr")])
