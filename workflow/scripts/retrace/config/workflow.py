"""The settings of a run: config/config.yaml and what `--config` adds to it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, Strict

from retrace.config.export_choices import Export
from retrace.config.validation_model import Validation
from retrace.setting_types import (
    DEFAULT_ZARR_FORMAT,
    AnyText,
    Count,
    CpuLibrary,
    Flag,
    Fraction,
    InWords,
    NmSize,
    NumberFrom0,
    Positive,
    Shape,
    Text,
    ThresholdRule,
    WholeFrom0,
    ZarrFormat,
)
from retrace.settings_model import NO_EFFECT, SettingsModel


def _one_or_three(values: tuple[int, ...]) -> tuple[int, ...]:
    if len(values) not in (1, 3):
        raise ValueError("neither one channel nor three")
    return values


def _rising(values: tuple[float, float, float]) -> tuple[float, float, float]:
    first, end, step = values
    if end <= first or step <= 0:
        raise ValueError("no threshold lies between first and end")
    return values


TextList = Annotated[tuple[Text, ...], Field(min_length=1), InWords("a list of names")]
VolumeList = Annotated[
    tuple[Text, ...], Field(min_length=1), InWords("a list of volumes ([tstvol-520-1])")
]
Chosen = Annotated[
    dict[AnyText, Text | VolumeList], InWords("one of these for each dataset ({zfinch: all})")
]
PerNetwork = Annotated[dict[AnyText, Count], InWords("one number per network ({mtlsd: 1000})")]
InitFiles = Annotated[dict[AnyText, AnyText], InWords("one file per network ({n4: net.h5})")]
Thresholds = Annotated[
    tuple[Fraction, Fraction, Fraction],
    AfterValidator(_rising),
    InWords(
        "three numbers from 0 to 1: first, a higher end (excluded), and a step above 0 "
        "([0, 1, 0.02])"
    ),
]
Context = Annotated[
    tuple[WholeFrom0, WholeFrom0, WholeFrom0],
    InWords("three whole numbers of at least 0, z, y, x ([32, 32, 32])"),
]
LsdChannel = Annotated[int, Field(strict=True, ge=0, le=9)]
LsdChannels = Annotated[
    tuple[LsdChannel, ...],
    Field(min_length=1, max_length=3),
    AfterValidator(_one_or_three),
    InWords("one channel or three of 0 to 9 ([6] or [3, 4, 5])"),
]
Seed = Annotated[int, Strict(), Field(ge=0, le=2**63 - 1)]


class Gpus(SettingsModel):
    """GPUs of one job, for each kind of job."""

    train: Count = Field(1, description="GPUs of a training; `batch_size` must be a multiple.")
    predict: Count = Field(1, description="GPUs of a prediction.")


class Blocks(SettingsModel):
    """The cache of volumes that are streamed."""

    cache: Annotated[Text, NO_EFFECT] = Field(
        "work/blocks",
        description="Folder of the cache. Jobs on several machines share it if they see it.",
    )
    cache_gib: Annotated[NumberFrom0, NO_EFFECT] = Field(
        20,
        description="Size of the cache, GiB; the least recently used blocks are removed first. 0: "
        "no cache.",
    )


MULTICUT = "multicut"
"""The method that learns which fragments belong together."""


class Segment(SettingsModel):
    """How affinities become a segmentation."""

    method: Literal[
        "mean",
        "mutex",
        "multicut",
        "hist_quant_10",
        "hist_quant_25",
        "hist_quant_50",
        "hist_quant_75",
        "hist_quant_90",
        "hist_quant_10_initmax",
        "hist_quant_25_initmax",
        "hist_quant_50_initmax",
        "hist_quant_75_initmax",
        "hist_quant_90_initmax",
    ] = Field(
        "hist_quant_75",
        description="How fragments are merged. multicut: by a classifier of edges that is trained "
        "on the validation entries.",
    )
    fragments_in_xy: Literal["auto"] | Flag = Field(
        "auto", description="Watershed section by section; auto: if the data are anisotropic."
    )
    epsilon: Fraction = Field(
        0, description="Fragments are merged up to this score within each block."
    )
    filter_fragments: Fraction = Field(
        0, description="Fragments with a lower mean affinity are dropped."
    )
    thresholds: Thresholds = Field(
        (0, 1, 0.02), description="Agglomeration thresholds to try: first, end (excluded), step."
    )
    block_shape: Shape | None = Field(
        None,
        description="Size of a block (z, y, x), voxels. null: the whole volume at once, which "
        "needs `shards: 1`.",
    )
    block_context: Context = Field(
        (32, 32, 32), description="Voxels (z, y, x) that a block reads around itself."
    )


def is_learned(segment: Segment) -> bool:
    """Whether a classifier of edges, trained on validation entries, decides which join."""
    return segment.method == MULTICUT


class Evaluate(SettingsModel):
    """How segmentations and predictions are scored."""

    untrained: Flag = Field(
        True, description="Whether to score an untrained watershed of raw as well."
    )
    merge_threshold: Count = Field(
        1,
        description="Number of nodes of a second skeleton from which a segment counts as a merger.",
    )
    compute_mincut: Flag | None = Field(
        None,
        description="Whether to count the splits and merges that skeletons need; slow for large "
        "segments. null: that of the dataset's `paper`, else false.",
    )
    errors: Count = Field(
        100,
        description="Number of the largest splits and merges of each test entry that errors.json "
        "lists.",
    )
    threshold_rule: ThresholdRule = Field(
        "least_voi",
        description="How the agglomeration threshold is chosen on the validation entries.",
    )
    boundary_thresholds: Thresholds = Field(
        (0.05, 1, 0.05),
        description="Interior probabilities to try on boundary maps: first, end (excluded), step.",
    )


class Compare(SettingsModel):
    """Networks and volumes of the `compare` targets.

    `iterations` or `train_seconds` gives all networks the same budget.
    """

    networks: TextList | None = Field(
        None, description="Networks to compare. null: all that can run on the dataset."
    )


class Reproduce(SettingsModel):
    """Regions and networks of the `reproduce` targets."""

    regions: TextList | None = Field(
        None, description="Regions of the paper. null: the first one of each dataset."
    )
    networks: TextList | None = Field(
        None, description="Networks. null: all that the paper scored."
    )


class Package(SettingsModel):
    """Metadata of the packages that `package` targets write."""

    authors: TextList = Field(("retrace maintainers",), description="Who trained the network.")
    license: Literal[
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "CC-BY-4.0",
        "CC-BY-NC-4.0",
        "CC-BY-NC-SA-4.0",
        "CC-BY-SA-4.0",
        "CC0-1.0",
        "MIT",
    ] = Field(
        "CC-BY-4.0",
        description="Licence of the weights, as an SPDX identifier; respect the licence of the "
        "training data.",
    )


class View(SettingsModel):
    """How neuroglancer is started."""

    bind_address: Annotated[AnyText, NO_EFFECT] = Field(
        "127.0.0.1", description="Address that neuroglancer listens on."
    )
    port: Annotated[int, Field(strict=True, ge=0, le=65535), NO_EFFECT] = Field(
        0, description="Port that neuroglancer listens on; 0: a free port."
    )
    lsd_channels: LsdChannels | None = Field(
        None,
        description="Channels of local shape descriptors to show: three as red, green and blue, "
        "or one in the colours of jet. null: a layer each for 0-2 (offset), 3-5 (covariance), 6-8 "
        "(pearson) and 9 (size).",
    )


class WorkflowConfig(SettingsModel):
    """Settings of a run; any of them can be set on the command line with `--config`."""

    renamed: ClassVar[Mapping[str, str]] = MappingProxyType({"bundle": "mirror"})

    experiments: Annotated[
        tuple[Text, ...], InWords("a list of DATASET_NETWORK ([zfinch_mtlsd])")
    ] = Field(
        ("zfinch_mtlsd",), description="What plain `snakemake` evaluates, as DATASET_NETWORK."
    )
    bucket: Text = Field("open-neurodata", description="S3 bucket of the datasets.")
    endpoint_url: Annotated[AnyText | None, NO_EFFECT] = Field(
        None, description="Address of another S3 server. null: the public one."
    )
    unsigned: Annotated[Flag, NO_EFFECT] = Field(
        True,
        description="Whether to access the bucket anonymously; false: with credentials from the "
        "environment.",
    )
    fetch_threads: Annotated[Count, NO_EFFECT] = Field(
        64, description="Number of simultaneous transfers."
    )
    mirror: Annotated[AnyText | None, NO_EFFECT] = Field(
        None,
        description="Folder with a copy of the bucket, read instead of it: for machines without "
        "internet access.",
    )
    volumes: Text | VolumeList | Chosen | None = Field(
        None,
        description="Volumes to train on. null: those of the dataset's file; all; one name; a "
        "list; or one of these for each dataset.",
    )
    iterations: Count | None | PerNetwork = Field(
        None,
        description="Train until this iteration. null: the number in the network's file; "
        "or one number for each network.",
    )
    train_seconds: Positive | None = Field(
        None,
        description="Stop training after this time, summed over all its runs, s; the last "
        "iteration may come first. null: no limit. Alignment networks ignore it.",
    )
    epochs: Count | None = Field(
        None,
        description="Passes over the stacks when training an alignment network. null: the number "
        "that the network's file says. `iterations` overrides it.",
    )
    run: (
        Annotated[
            Text,
            Field(pattern="^[A-Za-z0-9_.-]+$"),
            InWords("a name of letters, digits, _, . and -"),
        ]
        | None
    ) = Field(
        None,
        description="Name of the folder in results/runs that keeps a trained alignment network; "
        "each name can be used once. null: a name derived from its settings.",
    )
    weights: Literal["trained", "published"] = Field(
        "trained",
        description="published: start from the checkpoints of the paper, which are fetched (family "
        "znn: from `init`). Training continues from them. Without `iterations`, they are used "
        "unchanged.",
    )
    init: AnyText | None | InitFiles = Field(
        None,
        description="File with initial weights: a model.safetensors of the same network; for the "
        "family znn also an .h5 of ZNN, whose layers are matched by name and shape. It is for the "
        "network that the target names, not for networks that this one reads; or one file for each "
        "network ({n4: net.h5}).",
    )
    cfg: AnyText | None = Field(
        None,
        description="A .cfg of ZNN, for the targets train_znn and forward_znn, which need no file "
        "of a dataset or network.",
    )
    voxel_size_nm: NmSize | None = Field(
        None,
        description="Voxel size (z, y, x) of a run with `cfg`, nm. null: what an image states, "
        "else 1, 1, 1.",
    )
    engine: Literal["modern", "legacy"] = Field(
        "modern",
        description="What trains and predicts. legacy: original-style TensorFlow 1 programs in a "
        "container image.",
    )
    legacy_image: Literal["legacy", "lsd_legacy", "lsd_v0.8", "standin"] = Field(
        "legacy",
        description="Image of the legacy engine. legacy: built from containers/legacy.def; "
        "lsd_legacy, lsd_v0.8: the authors' images, fetched; standin: today's TensorFlow on a CPU.",
    )
    seed: Seed = Field(0, description="Seed of the weights and the batches.")
    device: Annotated[Literal["auto", "cpu", "cuda"], NO_EFFECT] = Field(
        "auto", description="Where networks run; auto: on a GPU if there is one."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="Number format of the computation; auto: bf16 if the device gains from it, and "
        "fp32 for predictions that are stored as float32.",
    )
    compile: Annotated[Literal["auto", True, False], NO_EFFECT] = Field(
        "auto", description="Whether torch compiles the network; auto: if that saves time."
    )
    cpu_library: Annotated[CpuLibrary, NO_EFFECT] = Field(
        "auto",
        description="What computes predictions on a CPU. auto: OpenVINO, or torch where OpenVINO "
        "lacks something, and with `compile: true`.",
    )
    gpus: Annotated[Count | Gpus, NO_EFFECT] = Field(
        1,
        description="GPUs per training or prediction, all in one machine; one number, or one for "
        "each of them. A training splits each batch between them, a prediction its tiles.",
    )
    batch_size: Count | None = Field(
        None,
        description="Samples per training iteration. null: the number in the network's file.",
    )
    tile: Literal["auto"] | Shape = Field(
        "auto",
        description="Input of one prediction step (z, y, x), voxels; auto: what fits into memory.",
    )
    zarr_format: ZarrFormat = Field(
        DEFAULT_ZARR_FORMAT,
        description="Format of predictions, fragments, segmentations, masks, aligned stacks and "
        "exported OME-Zarr images. 2: OME-NGFF 0.4, each chunk is a file; gunpowder and "
        "CloudVolume read nothing else. 3: OME-NGFF 0.5, many chunks are one file, for large "
        "volumes.",
    )
    prediction_dtype: Literal["uint8", "float32"] = Field(
        "uint8",
        description="How predictions are stored; uint8: 255 times the value, rounded down; "
        "float32: the values, computed in float32 unless `precision` is set.",
    )
    blocks: Blocks = Field(
        default_factory=Blocks, description="The cache of volumes that are streamed."
    )
    output_prefix: Text | None = Field(
        None,
        description="Also write predictions of the family znn under ZNN's names, "
        "PREFIX_sampleN_NODE.h5 and one tif per channel. float32 values are exact with "
        "`prediction_dtype: float32`.",
    )
    shards: Count = Field(
        1,
        description="Number of jobs that a volume is split into for prediction, segmentation and "
        "counting; the result does not depend on it.",
    )
    segment: Segment = Field(
        default_factory=Segment, description="How affinities become a segmentation."
    )
    evaluate: Evaluate = Field(
        default_factory=Evaluate, description="How segmentations and predictions are scored."
    )
    validation: Validation = Field(
        default_factory=Validation,
        description="How trainings are measured on the dataset's `validation` volumes.",
    )
    compare: Compare = Field(
        default_factory=Compare,
        description="What the `compare` targets compare; `iterations` or `train_seconds` gives "
        "all networks the same budget.",
    )
    reproduce: Reproduce = Field(
        default_factory=Reproduce, description="Regions and networks of the `reproduce` targets."
    )
    export: Export = Field(
        default_factory=Export, description="Output of the `export` targets for other programs."
    )
    package: Package = Field(
        default_factory=Package,
        description="Metadata of the packages that `package` targets write.",
    )
    view: View = Field(default_factory=View, description="How neuroglancer is started.")
    batch: Count | None = Field(
        None,
        description="Iteration of the training batch that the `view_batch` targets show. null: the "
        "newest of which there is a snapshot.",
    )
    serve: Annotated[Flag, NO_EFFECT] = Field(
        False,
        description="Whether the `view` targets keep neuroglancer running until Ctrl-C, after the "
        "picture is written.",
    )
