"""Jobs that distort and sample sections for alignment."""

from __future__ import annotations

from retrace.config.alignment import (
    STACK_SPLITS,
    made_layer,
    sections_of,
    source,
    stack_mask_stores,
    stack_set,
    stack_store,
    stack_stores,
    truth_store,
)
from retrace.config.compatibility import check_verb
from retrace.config.dataset_model import Dataset
from retrace.config.workflow import WorkflowConfig
from retrace.errors import ConfigError
from retrace.job import Job
from retrace.planning.experiment import Planner
from retrace.planning.finished_training import check_defect_iterations
from retrace.planning.paths import manifest, own_files, results, volume_files, with_manifests
from retrace.planning.stack_settings import (
    DistortSettings,
    MaskStacksSettings,
    SampleSettings,
    StackSplit,
    TrainDefectsSettings,
)
from retrace.planning.targets import data_target


def make_settings(dataset: Dataset) -> DistortSettings:
    """What `stacks.py make` reads; ConfigError if the dataset's sections are not synthetic."""
    alignment = sections_of(dataset)
    if alignment.made is None:
        raise ConfigError(f"the sections of dataset {dataset.name!r} are its own, not synthetic")
    raw = dataset.volumes[alignment.volume].raw
    return DistortSettings(
        made=alignment.made,
        seed=alignment.seed,
        voxel_size_nm=dataset.voxel_size_nm,
        raw=None if alignment.made.phantom_shape else raw,
    )


def gen_settings(dataset: Dataset, name: str, split: StackSplit) -> SampleSettings:
    """What `stacks.py gen_stack` reads."""
    alignment, stacks = sections_of(dataset), stack_set(dataset, name)
    return SampleSettings(
        name=f"{dataset.name}_{name}",
        split=split,
        seed=alignment.seed,
        source=source(dataset, stacks.mip),
        mask=alignment.mask,
        near_px=alignment.defects.near_px,
        stacks=stacks,
    )


def defect_settings(config: WorkflowConfig, dataset: Dataset) -> TrainDefectsSettings:
    """What `defects.py train` reads."""
    return TrainDefectsSettings(
        defects=sections_of(dataset).defects, seed=config.seed, device=config.device
    )


def detector_settings(config: WorkflowConfig, dataset: Dataset) -> MaskStacksSettings:
    """What `defects.py mask` reads; masks of a layer are joined with the detected defects."""
    alignment = sections_of(dataset)
    return MaskStacksSettings(
        threshold=alignment.defects.threshold,
        smallest_px=alignment.defects.smallest_px,
        near_px=alignment.defects.near_px,
        keep_given=alignment.mask is not None,
        device=config.device,
    )


def section_files(dataset: Dataset) -> list[str]:
    """Synthetic sections with their ground truth, or the files that sections are read from."""
    layer, truth = made_layer(dataset), truth_store(dataset)
    if layer is not None and truth is not None:
        return [layer, manifest(layer), *with_manifests([truth])]
    files = volume_files(dataset, [sections_of(dataset).volume], ["raw"])
    mask = sections_of(dataset).mask
    return files + (own_files(dataset, mask.path) if mask else [])


def make_job(planner: Planner, dataset: str) -> Job:
    """Writes sections with known distortions, generated or from the raw of a volume."""
    data = planner.dataset(dataset)
    settings = make_settings(data)
    is_generated = settings.raw is None
    files = [] if is_generated else volume_files(data, [sections_of(data).volume], ["raw"])
    return Job(settings, prerequisites=files)


def sample_job(planner: Planner, dataset: str, stacks: str, split: StackSplit) -> Job:
    """Samples training or test stacks from the sections."""
    data = planner.dataset(dataset)
    coordinates = stack_set(data, stacks).coordinates
    truth = truth_store(data)
    waits = section_files(data) + ([coordinates] if coordinates else [])
    inputs = {"truth": truth} if truth else {}
    return Job(gen_settings(data, stacks, split), inputs, waits)


def check_detector(planner: Planner, dataset: str) -> None:
    """ConfigError if the finished detector of defects would be replaced by a shorter training."""
    requested = sections_of(planner.dataset(dataset)).defects.iterations
    check_defect_iterations(planner.config.seed, dataset, requested)


def train_defects_job(planner: Planner, dataset: str) -> Job:
    """Trains the network that detects defects."""
    data = planner.dataset(dataset)
    check_detector(planner, dataset)
    inputs = {
        "stacks": stack_stores(data, "train"),
        "labelled": sections_of(data).defects.labelled,
        "held_out": stack_stores(data, "test"),
    }
    return Job(defect_settings(planner.config, data), inputs)


def mask_stacks_job(planner: Planner, dataset: str, stacks: str, split: StackSplit) -> Job:
    """Detects the defects of stacks."""
    data = planner.dataset(dataset)
    store = stack_store(dataset, stacks, split)
    inputs = {"stacks": store, "model": results(dataset, "defects.safetensors")}
    return Job(detector_settings(planner.config, data), inputs, [manifest(store)])


@data_target("stacks")
def stacks(planner: Planner, dataset: str) -> list[str]:
    """The stacks of all sets and splits."""
    data = planner.dataset(dataset)
    check_verb(data, "stacks")
    planner.check_data(dataset)
    return with_manifests(path for split in STACK_SPLITS for path in stack_stores(data, split))


@data_target("train_defects")
def defect_network(planner: Planner, dataset: str) -> list[str]:
    """The network that detects defects."""
    data = planner.dataset(dataset)
    check_verb(data, "train_defects")
    planner.check_data(dataset)
    check_detector(planner, dataset)
    return [results(dataset, "defects.safetensors")]


@data_target("mask_stacks")
def stack_masks(planner: Planner, dataset: str) -> list[str]:
    """The masks of all stacks."""
    data = planner.dataset(dataset)
    check_verb(data, "mask_stacks")
    planner.check_data(dataset)
    check_detector(planner, dataset)
    return with_manifests(path for split in STACK_SPLITS for path in stack_mask_stores(data, split))
