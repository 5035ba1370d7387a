"""Datasets: read from YAML, checked, with paths, voxel sizes and splits filled in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from retrace.config import alignment
from retrace.config.dataset_model import (
    Dataset,
    DatasetBase,
    DatasetFile,
    DatasetVolume,
    Sampling,
    VolumeFile,
)
from retrace.config.downloads import check_obtain
from retrace.config.examples_model import ExamplesDataset, ExamplesFile
from retrace.config.obtain_model import Obtain
from retrace.config.schema import check
from retrace.config.seamless_options import dataset_in_own_names
from retrace.config.sources import OUR_BUCKET, bucket_key
from retrace.config.splits import LABELS_BOX, check_region, region_of, resolve_splits
from retrace.config.yaml_files import is_given, names, read_yaml, settings_of
from retrace.config.znn_samples import with_samples
from retrace.errors import ConfigError, nearest
from retrace.formats.source import SEPARATED_LABEL_KINDS, Fit, Source, SourceFile
from retrace.geometry import NmTriple

AnyDataset = Dataset | ExamplesDataset

ISOTROPIC_BELOW = 2.0
"""Voxels whose longest edge is less than this many times the shortest count as isotropic."""


CLASSES = "classes"
"""The kind of labels that are class numbers, not objects."""


def load_dataset(
    name: str | Path, chosen: object = None, *, trained: bool | None = True
) -> AnyDataset:
    """A dataset by name, or from a file, with paths, voxel sizes and splits filled in.

    `chosen` is the value of `volumes` in config.yaml; it replaces the training entries. `trained`:
    whether something is trained; otherwise nothing is asked of the training entries; None: unknown
    yet.
    ConfigError: the file is missing or wrong.
    """
    is_file = str(name).endswith(".yaml")
    stem = Path(name).stem if is_file else str(name)
    content, where = (
        (read_yaml(Path(name)), str(name)) if is_file else settings_of("datasets", stem)
    )
    if "examples" in content:
        return _examples_dataset(check(ExamplesFile, content, where), where, stem)
    if "spec" in content or "cfg" in content:
        check(DatasetFile, content, where)
        exact = is_given("datasets", stem)
        content = with_samples(content, where, trained=trained, exact=exact)
    file = check(DatasetFile, dataset_in_own_names(content, where), where)
    _check_name(file.name, where, stem)
    apart = not is_given("datasets", stem)
    dataset = resolve_splits(
        _resolved(file, where), file, where, chosen, trained=bool(trained), apart=apart
    )
    check_obtain(dataset, where)
    return dataset


def _resolved(file: DatasetFile, where: str) -> Dataset:
    """The dataset of a file, with everything filled in but its splits."""
    kept = {key: value for key, value in file.explicit().items() if key in Dataset.model_fields}
    resolved: dict[str, Any] = {
        **{"background_ids": (), "sampling": Sampling()},
        **kept,
        "isotropic": _is_isotropic(file),
        "volumes": {name: _volume(file, name, where) for name in file.volumes},
    }
    if file.alignment is not None:
        resolved["alignment"] = alignment.resolve(file.alignment, file.volumes, where)
    return Dataset.model_construct(**resolved)  # its content has been checked


def _check_name(name: str, where: str, stem: str) -> None:
    if name != stem:
        raise ConfigError(f"{where}: `name: {name}` must be {stem!r}, the file's name")


def _examples_dataset(file: ExamplesFile, where: str, stem: str) -> ExamplesDataset:
    """A dataset of single examples: without volumes, and without a voxel size."""
    _check_name(file.name, where, stem)
    examples = {"split_seed": 0, **file.examples.plain()}
    empty: dict[str, Any] = {"volumes": {}, "train": (), "validation": (), "test": ()}
    obtain = None if file.obtain is None else file.obtain.plain()
    content = {"isotropic": True, "background_ids": (), **empty, "obtain": obtain}
    dataset = ExamplesDataset.model_validate({"name": file.name, "examples": examples, **content})
    check_obtain(dataset, where)
    return dataset


def _is_isotropic(dataset: DatasetFile) -> bool:
    """Which recipe a dataset uses: its own `isotropic`, else by the shape of its voxels."""
    if dataset.isotropic is not None:
        return dataset.isotropic
    size = dataset.voxel_size_nm
    return bool(max(size) / min(size) < ISOTROPIC_BELOW)


# ---------------------------------------------------------------- volumes


def _volume(dataset: DatasetFile, name: str, where: str) -> DatasetVolume:
    """A volume with its sources complete; those of a bucket are where `fetch` puts them."""
    file = dataset.volumes[name]
    settings = _in_bucket(dataset, name) | file.explicit()
    _check_raw(settings.get("raw"), name, where, dataset.obtain)
    _check_normalize(settings, f"{where}: volume {name!r}")
    sources = {
        part: _complete(value, dataset.voxel_size_nm, _offset(file, part))
        for part, value in settings.items()
        if part in SINGLE_SOURCES or part in NAMED_SOURCES
    }
    if file.tissue_mask is not None:  # its voxels may be larger: their size is in its own file
        sources["tissue_mask"] = _complete(file.tissue_mask, None, _offset(file, "tissue_mask"))
    if file.auto_crop is not None:
        sources |= _fitted(sources, file.auto_crop)
    rest = {part: settings[part] for part in ("lazy_labels", "skeletons") if part in settings}
    volume = DatasetVolume.model_construct(**sources, **rest, roi_nm=file.roi_nm)
    check_region(dataset.voxel_size_nm, region_of(volume), f"{where}: volume {name!r}")
    if volume.roi_nm == LABELS_BOX and volume.labels is None:
        raise ConfigError(f"{where}: volume {name!r} has `roi_nm: labels` and no labels")
    return volume


SINGLE_SOURCES = ("raw", "labels", "labels_mask", "tissue_mask")
NAMED_SOURCES = ("inputs", "outputs", "outputs_mask", "segmentations")
IMAGES = ("raw", "inputs")
"""Sources with grey values."""
FITTED = ("labels", "labels_mask", "outputs", "outputs_mask")
"""Sources that `auto_crop` centres in raw."""


def _in_bucket(dataset: DatasetFile, name: str) -> dict[str, Any]:
    """Image and labels of a volume in the bucket."""
    bucket = dataset.bucket
    if bucket is None:
        return {}
    store = f"data/{dataset.name}/{name}.zarr"
    if bucket.read == "blocks":
        store = f"{OUR_BUCKET}{bucket_key(bucket, name)}"
    arrays = {"raw": bucket.raw, "labels": bucket.labels}
    # Some arrays of the bucket are sparse, and a stream has no listing to compare with.
    sparse: dict[str, Any] = {"missing_chunks": "fill"} if bucket.read == "blocks" else {}
    return {part: SourceFile(path=store, array=a, **sparse) for part, a in arrays.items()}


def _check_raw(raw: SourceFile | None, name: str, where: str, obtain: Obtain | None) -> None:
    if raw is None:
        raise ConfigError(f"{where}: volume {name!r} needs `raw: {{path: ...}}`")
    if raw.path is None:
        origin = f".\n{obtain.origin}\n{_HOW_TO_CHECK.format(Path(where).stem)}" if obtain else ""
        raise ConfigError(
            f"{where}: the path of volume {name!r} is not filled in yet. Write its address or file "
            f"into `volumes: {name}: raw: path`, there or in a copy in config/datasets of your "
            f"working directory{origin}"
        )


_HOW_TO_CHECK = (
    "To check it: `python workflow/scripts/describe.py --dataset {}` prints what is read."
)


def _check_normalize(settings: Mapping[str, Any], where: str) -> None:
    """Labels, masks and segmentations are read as they are stored."""
    for part in (*SINGLE_SOURCES, *NAMED_SOURCES):
        value = settings.get(part) or {}
        sources = {part: value} if isinstance(value, SourceFile) else value
        if part in IMAGES or not any(source.normalize for source in sources.values()):
            continue
        raise ConfigError(
            f"{where}: `{part}` has `normalize`, which is for images (`raw` and `inputs`); remove "
            "it: values of labels and masks are read as they are stored"
        )


def _complete(
    source: SourceFile | Mapping[str, SourceFile],
    voxel_size_nm: NmTriple | None,
    offset: Mapping[str, NmTriple | None],
) -> Any:
    """A source, or sources by name, with the voxel size and offset of its volume."""
    if not isinstance(source, SourceFile):
        return {n: _complete(one, voxel_size_nm, offset) for n, one in source.items()}
    defaults = {"voxel_size_nm": voxel_size_nm, "array": "", **offset}
    return Source.model_construct(**(defaults | source.explicit()))


def _offset(volume: VolumeFile, part: str) -> dict[str, NmTriple | None]:
    """What `offset_nm` of a volume says about one of its sources.

    It is the position of the image. Labels and others may be crops: where their files state a
    position, that is theirs.
    """
    if volume.offset_nm is None:
        return {}
    return {"offset_nm" if part in IMAGES else "default_offset_nm": volume.offset_nm}


def _fitted(sources: Mapping[str, Any], crop: bool | Literal["even"]) -> dict[str, Any]:
    """The labels of a volume and their masks, placed in the middle of its image."""
    update = {"fit": Fit(image=sources["raw"], crop=crop)}
    fitted: dict[str, Any] = {}
    for part in FITTED:
        if part in SINGLE_SOURCES and part in sources:
            fitted[part] = sources[part].model_copy(update=update)
        elif part in sources:
            fitted[part] = {n: s.model_copy(update=update) for n, s in sources[part].items()}
    return fitted


# ---------------------------------------------------------------- contents of datasets


def check_chosen(chosen: object) -> None:
    """Refuses a `volumes` setting that names an unknown dataset or volume."""
    if isinstance(chosen, Mapping):
        for name, value in chosen.items():
            load_dataset(name, {name: value})
        return
    if chosen is None:
        return
    requested: Iterable[str] = [chosen] if isinstance(chosen, str) else chosen  # type: ignore[assignment]
    files = (settings_of("datasets", name)[0] for name in names("datasets"))
    available = {str(v) for content in files for v in content.get("volumes", {})}
    for volume in requested:
        if volume != "all" and volume not in available:
            hint = nearest(volume, [*available, "all"])
            raise ConfigError(f"`volumes`: no dataset has a volume {volume!r}; {hint}")


def has_boundaries(dataset: DatasetBase) -> bool:
    """Whether labels of different objects have voxels of 0 between them."""
    drawn = dataset.boundaries_drawn if isinstance(dataset, Dataset) else None
    return is_planar(dataset) if drawn is None else drawn


def has_classes(dataset: DatasetBase) -> bool:
    """Whether labels are class numbers; ConfigError if some are and others are not."""
    labels = {name: v.labels for name, v in dataset.volumes.items() if v.labels is not None}
    are_classes = {name: source.objects == CLASSES for name, source in labels.items()}
    if len(set(are_classes.values())) > 1:
        other = next(name for name, yes in are_classes.items() if not yes)
        raise ConfigError(
            f"dataset {dataset.name!r}: labels of {other!r} are no `objects: {CLASSES}` as the "
            "others are; give all labels of one dataset in one kind"
        )
    return any(are_classes.values())


def is_planar(dataset: DatasetBase) -> bool:
    """Whether labels are membranes, whose objects are connected within each section only."""
    labels = [v.labels for v in dataset.volumes.values() if v.labels is not None]
    return any(source.objects in SEPARATED_LABEL_KINDS for source in labels)
