"""Refusals of volumes that cannot work, from the metadata of local files, before any job runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from retrace.config.alignment import source
from retrace.config.dataset_model import Dataset, Entry
from retrace.config.elektronn_network import EXAMPLE_WEIGHTS
from retrace.config.splits import SPLITS
from retrace.errors import DataError
from retrace.formats.label_types import needs_ids
from retrace.formats.normalize import is_grey_type, needs_channel, needs_normalize, needs_polarity
from retrace.formats.placement import check_place_in_image
from retrace.formats.source import Region, Source
from retrace.geometry import VoxelBox
from retrace.planning.volume_layout import ArrayLayout, source_layout, volume_layouts

Layouts = Mapping[str, ArrayLayout]

INTEGERS = ("labels", "labels_mask", "outputs", "outputs_mask", "segmentations", "tissue_mask")
"""Parts of a volume that hold integers."""
ON_IDS = ("labels", "segmentations")
"""Those of them that hold ids, unless `objects` says otherwise."""
ON_LABELS = ("labels_mask",)
"""Parts of a volume on the voxels of its labels."""


def check_volumes(dataset: Dataset) -> None:
    """DataError for volumes of the splits whose local files cannot be used as the dataset says.

    Remote volumes, and those that are not fetched yet, are not read.
    """
    names = dict.fromkeys(entry.volume for split in SPLITS for entry in dataset.entries(split))
    layouts = {name: volume_layouts(dataset, dataset.volumes[name]) for name in names}
    for name, known in layouts.items():
        _check_arrays(f"dataset {dataset.name!r}: volume {name!r}", dataset, known)
    for split in SPLITS:
        for entry in dataset.entries(split):
            where = f"dataset {dataset.name!r}: {split} of {entry.volume!r}"
            _check_entry(where, dataset, entry, layouts[entry.volume])
    _check_sections(dataset)


def _check_sections(dataset: Dataset) -> None:
    """Sections are images, and hold the boxes that stacks are drawn from or that are distorted."""
    sections = dataset.alignment
    if sections is None:
        return
    where = f"dataset {dataset.name!r}: alignment"
    if sections.made is not None:
        raw = dataset.volumes[sections.volume].raw
        _check_source(f"{where}: made", raw, sections.made.roi_nm)
        return
    for name, stack in sections.stacks.items():
        _check_source(f"{where}: stacks {name!r}", source(dataset, stack.mip), stack.roi_nm)


def _check_source(where: str, image: Source, region: Region | None) -> None:
    layout = source_layout(image)
    if layout is None:
        return
    _check_type(where, "raw", layout)
    if region is not None:
        _check_inside(where, "roi_nm", layout, region)


# ---------------------------------------------------------------- arrays


def _check_arrays(where: str, dataset: Dataset, layouts: Layouts) -> None:
    """Types, channels and voxel sizes of the arrays of a volume, and their position."""
    for part, layout in layouts.items():
        _check_type(where, part, layout)
        if part == "tissue_mask":  # its voxels may be larger, and off the grid
            continue
        if layout.voxel_size_nm != dataset.voxel_size_nm:
            raise DataError(
                f"{where}: {layout.name} has voxels of {list(layout.voxel_size_nm)} nm, the "
                f"dataset says {list(dataset.voxel_size_nm)} nm; correct `voxel_size_nm`"
            )
        if layout.box.is_empty:
            raise DataError(f"{where}: {layout.name} is empty, its shape is {layout.shape}")
    _check_positions(where, layouts)


def _check_type(where: str, part: str, layout: ArrayLayout) -> None:
    kind = part.partition(":")[0]
    if layout.channels and kind in ("raw", "labels", *ON_LABELS):
        raise DataError(
            f"{where}: {layout.name} has {layout.channels} channels and shape {layout.shape}; "
            f"`{part}` needs (z, y, x): choose one with `channel`, or name the order of the axes "
            "with `axes`"
        )
    is_integer = layout.dtype.startswith(("uint", "int", "bool"))
    if kind in INTEGERS and not is_integer:
        raise DataError(
            f"{where}: {layout.name} is {layout.dtype}; `{part}` must be of an integer type"
        )
    if kind in ON_IDS and layout.dtype == "bool" and not _has_kind(layout):
        raise DataError(f"{where}: {needs_ids(layout.name, layout.dtype)}")
    if kind in ("raw", "inputs") and part != f"inputs: {EXAMPLE_WEIGHTS}":
        _check_grey(f"{where}: {layout.name}", layout)


def _has_kind(layout: ArrayLayout) -> bool:
    """Whether `objects` says what the values mean, other than ids."""
    return layout.source is not None and layout.source.objects not in (None, "ids")


def _check_grey(name: str, layout: ArrayLayout) -> None:
    """Networks can read the image: it is uint8 or float, and says which values are dark."""
    assert layout.source is not None
    settings = layout.source.normalize
    if layout.is_colour:
        raise DataError(needs_channel(name))
    if layout.inverted and (settings is None or settings.invert is None):
        raise DataError(needs_polarity(name, settings, is_grey=is_grey_type(layout.dtype)))
    if not is_grey_type(layout.dtype):
        what = f"{name} is {layout.dtype}"
        raise DataError(needs_normalize(what, settings, _sampled_range(layout.source)))


def _sampled_range(source: Source) -> tuple[float, float] | None:
    """Percentiles 1 and 99 of some blocks; None where the values cannot be read here."""
    try:
        from retrace.storage.grey_range import sampled_range
        from retrace.storage.volumes import open_source

        volume = open_source(source.model_copy(update={"normalize": None}))
        return sampled_range(volume.name, volume.array)
    except (DataError, ImportError, OSError):
        return None


def _check_positions(where: str, layouts: Layouts) -> None:
    """Further images are on the voxels of raw; masks of labels on those of the labels."""
    raw, labels = layouts.get("raw"), layouts.get("labels")
    for part, layout in layouts.items():
        image = labels if labels is not None and part in ON_LABELS else raw
        if image is not None and part != "raw":
            check_place_in_image(layout.place, image.place, same_voxels=part != "tissue_mask")
        if part.startswith("inputs:") and raw and layout.box != raw.box:
            raise DataError(
                f"{where}: {layout.extent}, does not cover the same voxels as {raw.extent}; all "
                "images of a volume must"
            )
        if part in ON_LABELS and labels and layout.box != labels.box:
            raise DataError(
                f"{where}: {layout.extent}, does not cover the same voxels as {labels.extent}; "
                f"correct the shape or `offset_nm` of `{part}`"
            )


# ---------------------------------------------------------------- entries


def _check_entry(where: str, dataset: Dataset, entry: Entry, layouts: Layouts) -> None:
    """The boxes of an entry: inside raw, and with ground truth in them."""
    raw = layouts.get("raw")
    if raw is not None:
        for key, region in _regions(dataset, entry):
            _check_inside(where, key, raw, region)
    for labels in _ground_truths(layouts):
        used = labels.box if entry.roi_nm is None else _within(labels, entry.roi_nm)
        _check_labels(where, entry, labels, used, raw)


def _regions(dataset: Dataset, entry: Entry) -> Iterator[tuple[str, Region]]:
    if entry.roi_nm is not None:
        yield "roi_nm", entry.roi_nm
    own = dataset.volumes[entry.volume].roi_nm
    if isinstance(own, Region) and own != entry.roi_nm:
        yield "roi_nm of the volume", own


def _ground_truths(layouts: Layouts) -> list[ArrayLayout]:
    """The labels of a volume, and those of further output nodes."""
    return [v for part, v in layouts.items() if part == "labels" or part.startswith("outputs:")]


def _within(layout: ArrayLayout, region: Region) -> VoxelBox:
    return layout.box.intersect(region.box.to_voxels(layout.voxel_size_nm))


def _check_inside(where: str, key: str, raw: ArrayLayout, region: Region) -> None:
    whole = raw.box.to_nm(raw.voxel_size_nm)
    if region.box.is_empty:
        raise DataError(f"{where}: {key} {list(region.shape)} nm is empty; give each edge a length")
    if not whole.contains(region.box):
        end = list(region.box.end)
        raise DataError(
            f"{where}: {key} from {list(region.offset)} to {end} nm leaves the image {raw.extent}; "
            "correct `roi_nm`, or `offset_nm` of the volume"
        )


def _check_labels(
    where: str, entry: Entry, labels: ArrayLayout, used: VoxelBox, raw: ArrayLayout | None
) -> None:
    if used.is_empty:
        raise DataError(
            f"{where}: its box holds no labels: {labels.extent}; correct `roi_nm`, or `offset_nm` "
            "of the labels"
        )
    if raw is not None and not raw.box.contains(used):
        raise DataError(
            f"{where}: labels and raw do not fit: {labels.extent}, {raw.extent}; correct "
            "`offset_nm` or the shape of one of them, set `auto_crop: true` if the labels are in "
            "the middle of raw, or use a part of them with `roi_nm`"
        )
    if any(_within(labels, hole).contains(used) for hole in entry.exclude_nm):
        raise DataError(
            f"{where}: validation and test boxes cover all of its labels, so nothing is left to "
            "train on; make them smaller"
        )
