"""A dataset: the content of its file (`DatasetFile`), and with everything filled in (`Dataset`).

All triples are in the order z, y, x.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from retrace.config.alignment_model import Alignment, AlignmentFile
from retrace.config.obtain_model import Obtain
from retrace.formats.source import Region, Source, SourceFile
from retrace.setting_types import (
    AnyText,
    Flag,
    Fraction,
    InWords,
    LabelId,
    NmPosition,
    NmSize,
    NumberFrom0,
    Offset,
    Positive,
    Shape,
    Text,
    WholeFrom0,
)
from retrace.settings_model import SettingsModel

DatasetName = Annotated[
    Text,
    Field(pattern="^[A-Za-z][A-Za-z0-9_]*$"),
    InWords("a name of letters, digits and _, a letter first"),
]
VolumeName = Annotated[
    Text,
    Field(pattern="^[A-Za-z0-9][A-Za-z0-9_.-]*$"),
    InWords("a name of letters, digits, _, . and -, a letter or digit first"),
]
PlainName = Annotated[
    Text, Field(pattern="^[A-Za-z0-9_]+$"), InWords("a name of letters, digits and _")
]
ClassNumbers = Annotated[
    tuple[WholeFrom0, ...],
    Field(min_length=1, json_schema_extra={"uniqueItems": True}),
    InWords("a list of class numbers ([0, 2])"),
]


class Bucket(SettingsModel):
    """Where volumes are in the bucket of config/config.yaml, as PREFIX/VOLUME.zarr."""

    prefix: AnyText = Field(description="Key prefix, without a slash at its end.")
    read: Literal["whole", "blocks"] = Field(
        "whole",
        description="whole: `fetch` copies each zarr first; blocks: volumes are streamed.",
    )
    raw: AnyText = Field(description="Array of the image in each zarr.")
    labels: AnyText = Field(description="Array of the labels in each zarr.")
    checkpoints: AnyText | None = Field(
        None, description="Key prefix of the published checkpoints, with one folder per network."
    )


class SkeletonDump(SettingsModel):
    """Skeletons in a MongoDB dump."""

    path: Text = Field(description="Folder of the dump.")
    name: Text = Field(description="NAME of the collections NAME.nodes and NAME.edges.")
    region: Text | None = Field(
        None,
        description="REGION of nodes_NAME_components_REGION_masked: also score the published "
        "parts in neuropil.",
    )


SkeletonsFile = Annotated[
    Text | SkeletonDump,
    InWords("the path of a table (json, npz), or {path, name} of a MongoDB dump"),
]


class SkeletonSource(SettingsModel):
    """Where skeletons are read: a table, or a collection of a MongoDB dump."""

    path: Text = Field(description="A json or npz table, or the folder of a dump.")
    name: Text | None = Field(None, description="Collection of a dump.")
    region: Text | None = Field(None, description="Published parts of a dump.")


class LazyLabels(SettingsModel):
    """Class labels of a volume that are incomplete (ELEKTRONN's lazy labels)."""

    labelled: ClassNumbers | None = Field(
        None, description="Classes that were labelled; others are not trained. Absent: all."
    )
    absent: ClassNumbers | None = Field(
        None,
        description="Classes that do not occur in this volume: training lowers their probability "
        "at every voxel, labelled or not.",
    )

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.labelled is None and self.absent is None:
            raise ValueError("is empty; give `labelled`, `absent` or both, or leave it out")
        return self


class VolumeFile(SettingsModel):
    """A volume in a dataset's file."""

    raw: SourceFile | None = Field(
        None,
        description="The image, uint8, or float in [0, 1]; others need `normalize`. Needed unless "
        "the dataset has a `bucket`.",
    )
    labels: SourceFile | None = Field(
        None, description="Integer labels, 0 for background. Absent: the volume is only predicted."
    )
    inputs: dict[AnyText, SourceFile] = Field(
        {},
        description="Further images that a network reads, by the name of its input node, on the "
        "voxels of raw.",
    )
    lazy_labels: LazyLabels | None = Field(
        None,
        description="For class labels of which only some classes are labelled. For networks of "
        "the family elektronn.",
    )
    outputs: dict[AnyText, SourceFile] = Field(
        {},
        description="Labels for networks with several output nodes, by the name of the node. The "
        "first node uses `labels` unless it is listed.",
    )
    outputs_mask: dict[AnyText, SourceFile] = Field(
        {},
        description="Masks of `outputs`, like labels_mask, by the name of the node. Absent: "
        "labels are valid everywhere except in background_ids and where negative.",
    )
    labels_mask: SourceFile | None = Field(
        None,
        description="Integers on the voxels of the labels, 0 where labels are neither trained on "
        "nor scored.",
    )
    auto_crop: Flag | Literal["even"] | None = Field(
        None,
        description="Whether labels that are smaller than raw are centred in it. Absent: the "
        "files say where they are. even: as true, but an odd surplus is refused, as ELEKTRONN "
        "does. false: a different shape is refused.",
    )
    segmentations: dict[PlainName, SourceFile] = Field(
        {},
        description="Segmentations of this volume by others, by a name that you choose. "
        "`compare_DATASET` scores them on the same voxels.",
    )
    tissue_mask: SourceFile | None = Field(
        None,
        description="Integers, 0 where nothing is predicted or segmented; voxels may be larger "
        "than those of raw. Blocks that are all 0 are skipped.",
    )
    skeletons: SkeletonsFile | None = Field(
        None, description="Skeletons for the expected run length (ERL)."
    )
    roi_nm: Region | Literal["labels"] | None = Field(
        None,
        description="The part of the volume that is used, nm. labels: the box that the labels' "
        "file covers. Absent: all of it.",
    )
    offset_nm: NmPosition | None = Field(
        None,
        description="World position of the first voxel of raw and labels (z, y, x), nm. Absent: "
        "what the files say, else 0.",
    )


class DatasetVolume(SettingsModel):
    """A volume with everything filled in."""

    raw: Source = Field(description="The image.")
    labels: Source | None = Field(None, description="Its labels.")
    inputs: dict[str, Source] = Field({}, description="Further images, by input node.")
    lazy_labels: LazyLabels | None = Field(None, description="Which classes are labelled.")
    outputs: dict[str, Source] = Field({}, description="Labels, by output node.")
    outputs_mask: dict[str, Source] = Field({}, description="Masks of `outputs`.")
    labels_mask: Source | None = Field(None, description="0 where labels are not used.")
    segmentations: dict[str, Source] = Field({}, description="Segmentations by others.")
    tissue_mask: Source | None = Field(None, description="0 where nothing is predicted.")
    skeletons: Text | SkeletonDump | None = Field(None, description="Skeletons.")
    roi_nm: Region | Literal["labels"] | None = Field(None, description="The part used, nm.")


class EntryFile(SettingsModel):
    """A volume, or a part of one, in `train`, `validation` or `test`."""

    volume: Text = Field(description="Name of a volume.")
    roi_nm: Region | None = Field(None, description="A part of it, nm. Absent: all of it.")
    skeletons: SkeletonsFile | None = Field(
        None,
        description="Skeletons of this entry only. Without labels, the entry is scored on them.",
    )
    probability: Positive | None = Field(
        None, description="Relative weight of this entry in training."
    )


class Entry(SettingsModel):
    """A volume, or a part of one, that is trained on, chooses thresholds or is scored."""

    volume: Text = Field(description="Name of a volume.")
    roi_nm: Region | None = Field(None, description="A part of it, nm. None: all of it.")
    probability: NumberFrom0 | None = Field(
        None, description="Probability that a training sample comes from this entry."
    )
    skeletons: SkeletonSource | None = Field(None, description="Skeletons that it is scored on.")
    exclude_nm: tuple[Region, ...] = Field(
        (), description="Boxes that validation and test use and training leaves out."
    )


EntryList = Annotated[
    tuple[Text | EntryFile, ...],
    InWords("a list of volumes' names, or of parts of volumes {volume, roi_nm}"),
]


class Sampling(SettingsModel):
    """How batches are drawn from the volumes."""

    probabilities: dict[AnyText, Positive] = Field(
        {}, description="Relative weight of each volume, by name. Absent: equal weights."
    )


class PublishedFigures(SettingsModel):
    """Published scores that `compare_DATASET` shows next to its own."""

    figures: PlainName = Field(
        description="NAME of config/published/NAME.yaml, which holds the scores with their source "
        "and convention."
    )
    regions: Annotated[tuple[Text, ...], Field(min_length=1)] | None = Field(
        None, description="Regions of that file. Absent: all."
    )
    truths: Annotated[tuple[Text, ...], Field(min_length=1)] | None = Field(
        None,
        description="Kinds of ground truth that the scores use, named as in that file. Absent: "
        "all.",
    )
    differs: Text | None = Field(
        None,
        description="Reason why they cannot be compared with scores of this dataset's test "
        "entries. Absent: they are sorted into the same ranking, which requires the same region "
        "and ground truth.",
    )


class ShownFigures(SettingsModel):
    """Which published scores are shown."""

    regions: tuple[str, ...] = Field(description="Regions.")
    truths: tuple[str, ...] = Field(description="Kinds of ground truth.")
    differs: str | None = Field(description="Why they cannot be compared with this dataset's.")


class PaperSegment(SettingsModel):
    """Settings that the paper's regions are segmented with, instead of those in config.yaml."""

    block_shape: Shape | None = Field(None, description="Size of a block (z, y, x), voxels.")
    block_context: Offset | None = Field(
        None, description="Voxels (z, y, x) that a block reads around itself."
    )
    fragments_in_xy: Flag | None = Field(None, description="Watershed section by section.")
    epsilon: Fraction | None = Field(
        None, description="Fragments are merged up to this score within each block."
    )
    filter_fragments: Fraction | None = Field(
        None, description="Fragments with a lower mean affinity are dropped."
    )


class Tolerance(SettingsModel):
    """How far a metric may be from the published value; the two parts add up."""

    absolute: NumberFrom0 | None = Field(None, description="In the unit of the metric.")
    relative: NumberFrom0 | None = Field(None, description="As a fraction of the published value.")
    reason: Text = Field(description="Reason for this tolerance.")


class Paper(SettingsModel):
    """What `reproduce_DATASET` compares with config/published/DATASET.yaml.

    DATASET is the name in `weights_of`.
    """

    networks: Annotated[tuple[Text, ...], Field(min_length=1)] = Field(
        description="Networks to score."
    )
    threshold: Literal["validation", "best_on_test"] = Field(
        description="The threshold of the published numbers. validation: chosen on the validation "
        "entries; best_on_test: the best one on the scored region itself."
    )
    segment: PaperSegment | None = Field(
        None, description="Settings of the segmentation that replace those in config.yaml."
    )
    compute_mincut: Flag | None = Field(
        None,
        description="Whether to count the splits and merges that are needed, unless config.yaml "
        "says so.",
    )
    tolerance: dict[AnyText, Tolerance] = Field(
        description="How far each metric may be from the published value. Metrics without a "
        "tolerance are shown but not judged."
    )


class DatasetFile(SettingsModel):
    """Volumes of one voxel size and one source. All triples are in the order z, y, x."""

    name: DatasetName = Field(
        description="Letters, digits and _; the same as the file's name. A target is "
        "verb_dataset_network."
    )
    voxel_size_nm: NmSize = Field(description="Voxel size (z, y, x), nm.")
    background_ids: tuple[LabelId, ...] = Field(
        (),
        description="Labels that are not neurons. The mask removes them from training and scores, "
        "and also labels below 0.",
    )
    isotropic: Flag | None = Field(
        None,
        description="Which recipe of a network this dataset uses. Absent: isotropic if no voxel "
        "edge is twice as long as another.",
    )
    lsd_sigma_nm: Positive | None = Field(
        None,
        description="Width of the local shape descriptors, nm. Absent: that of the network's "
        "recipe.",
    )
    boundaries_drawn: Flag | None = Field(
        None,
        description="Whether voxels of 0 separate touching labels. Absent: true for membranes and "
        "for a `spec`, else false. If false, networks that learn boundaries create them.",
    )
    spec: Text | None = Field(
        None,
        description="Path of a ZNN .spec; its samples are the volumes sample1, sample2 and so on.",
    )
    cfg: Text | None = Field(
        None,
        description="Path of a ZNN .cfg: its fdata_spec is used as `spec`, and its ranges as "
        "train, validation (test_range) and test (forward_range).",
    )
    bucket: Bucket | None = Field(
        None,
        description="Where the volumes are in the bucket of config/config.yaml, as "
        "PREFIX/VOLUME.zarr.",
    )
    weights_of: Text | None = Field(
        None,
        description="Dataset whose published checkpoints predict these volumes; nothing is "
        "trained on them then.",
    )
    published: PublishedFigures | None = Field(
        None, description="Published scores that `compare_DATASET` shows next to its own."
    )
    ground_truth: dict[PlainName, AnyText] = Field(
        {},
        description="Folders of the bucket as key prefixes, by a name that you choose. A folder "
        "is fetched to data/DATASET/ground_truth/NAME if a volume names a path in it.",
    )
    paper: Paper | None = Field(
        None,
        description="What `reproduce_DATASET` compares with config/published/DATASET.yaml, where "
        "DATASET is `weights_of`.",
    )
    volumes: dict[VolumeName, VolumeFile] = Field(
        {}, description="The volumes by name. Those of a bucket need no settings ({})."
    )
    train: EntryList = Field(
        (),
        description="What is trained on. Validation and test boxes in the same volumes are left "
        "out.",
    )
    validation: EntryList = Field((), description="What the agglomeration threshold is chosen on.")
    test: EntryList = Field(
        (), description="What is scored. Without labels, it is predicted and segmented only."
    )
    sampling: Sampling = Field(
        default_factory=Sampling, description="How batches are drawn from the volumes."
    )
    alignment: AlignmentFile | None = Field(
        None,
        description="Serial sections that networks of the family seamless align, and the stacks "
        "that they are trained on.",
    )

    obtain: Obtain | None = Field(
        None,
        description="Where files come from that a user has to download; shown when one is missing.",
    )

    @model_validator(mode="after")
    def _has_volumes(self) -> Self:
        if not (self.volumes or self.spec or self.cfg):
            raise ValueError(
                "`volumes` is missing; add volumes by name, each with `raw: {path: ...}`"
            )
        return self


class DatasetBase(SettingsModel):
    """What datasets of volumes and of single examples have in common.

    What single examples do not have is empty or None.
    """

    name: str = Field(description="Name of the dataset.")
    isotropic: bool = Field(description="Which recipe of a network it uses.")
    background_ids: tuple[LabelId, ...] = Field((), description="Labels that are not neurons.")
    volumes: dict[str, DatasetVolume] = Field({}, description="Volumes by name.")
    train: tuple[Entry, ...] = Field((), description="What is trained on.")
    validation: tuple[Entry, ...] = Field((), description="What thresholds are chosen on.")
    test: tuple[Entry, ...] = Field((), description="What is scored.")
    bucket: Bucket | None = Field(None, description="Where the volumes are in the bucket.")
    weights_of: str | None = Field(None, description="Dataset whose checkpoints are used.")
    ground_truth: dict[str, str] = Field({}, description="Folders of the bucket, by name.")
    alignment: Alignment | None = Field(None, description="Serial sections to align.")
    obtain: Obtain | None = Field(None, description="Where missing files come from.")

    def entries(self, split: str) -> tuple[Entry, ...]:
        """The entries of `train`, `validation` or `test`."""
        entries: tuple[Entry, ...] = getattr(self, split)
        return entries


class Dataset(DatasetBase):
    """Volumes of one voxel size and one source, with everything filled in."""

    voxel_size_nm: NmSize = Field(description="Voxel size (z, y, x), nm.")
    lsd_sigma_nm: Positive | None = Field(None, description="Width of the descriptors, nm.")
    boundaries_drawn: bool | None = Field(
        None, description="Whether voxels of 0 separate touching labels."
    )
    published: PublishedFigures | None = Field(None, description="Published scores to show.")
    paper: Paper | None = Field(None, description="What `reproduce_DATASET` compares.")
    sampling: Sampling = Field(default_factory=Sampling, description="How batches are drawn.")
