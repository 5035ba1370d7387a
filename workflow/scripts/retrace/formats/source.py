"""Settings of one array of a file, a layer or a bucket: an image, labels or a mask.

`SourceFile` is what a dataset's file contains; `Source` is complete and can be opened. Triples are
in the order z, y, x.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from retrace.formats.normalize import Normalize
from retrace.geometry import NmBox
from retrace.setting_types import (
    AnyText,
    Count,
    Flag,
    InWords,
    LabelId,
    NmPosition,
    NmSize,
    Text,
    WholeFrom0,
)
from retrace.settings_model import NO_EFFECT, SettingsModel

LabelKind = Literal["ids", "cells", "membranes", "classes"]
SEPARATED_LABEL_KINDS = ("cells", "membranes")
"""Labels whose objects are separated by membranes instead of numbered."""
MissingChunks = Literal["refuse", "fill"]
Preprocess = Literal["standard2D", "standard3D", "symetric_rescale", "none"]
"""ZNN's preprocessing of images, spelt as there."""


def _each_once(axes: str) -> str:
    if len(set(axes)) != len(axes):
        raise ValueError(f"{axes!r} names an axis twice")
    if not set("zyx") <= set(axes):
        raise ValueError(f"{axes!r} lacks one of z, y and x")
    return axes


ClassValues = Annotated[
    tuple[Annotated[tuple[LabelId, ...], Field(min_length=1)], ...],
    Field(min_length=1),
    InWords("a list of values for each class ([[0], [1, 2]])"),
]
Axes = Annotated[
    str,
    Field(pattern=r"^[tcxyz]{3,5}$"),
    AfterValidator(_each_once),
    InWords("the letters z, y, x and perhaps c and t, each once, in the file's order (xyz)"),
]


class Region(SettingsModel):
    """A box in world coordinates, nm."""

    offset: NmPosition = Field(description="First corner (z, y, x), nm.")
    shape: NmSize = Field(description="Edge lengths (z, y, x), nm.")

    @property
    def box(self) -> NmBox:
        """The region as a box."""
        return NmBox(self.offset, self.shape)


class SourceFile(SettingsModel):
    """Where an image, labels or a mask are read from, in a dataset's file."""

    path: Text | None = Field(
        description="Path of a zarr, n5, h5 or tif, or of a folder of tifs, relative to the "
        "working directory. Or an address (s3://, gs://, https://, file:///), which is streamed: "
        "an address that contains `.zarr` is a zarr, any other one a precomputed layer. null: "
        "you have to fill it in."
    )
    array: AnyText = Field(
        "", description="Array within a zarr, n5 or h5; for an OME-Zarr image its group."
    )
    mip: WholeFrom0 | None = Field(
        None,
        description="Level of a precomputed layer or an OME-Zarr image. Absent: 0, the finest.",
    )
    voxel_size_nm: NmSize | None = Field(
        None, description="Voxel size (z, y, x), nm. Absent: that of the dataset."
    )
    offset_nm: NmPosition | None = Field(
        None,
        description="World position of the first voxel (z, y, x), nm, where the file states none; "
        "a different one in the file is refused. Absent: that of the file, else 0.",
    )
    axes: Axes | None = Field(
        None,
        description="Order of the axes in the file, such as xyz or cxyz; c is the channel, and t, "
        "of length 1, any further axis. An n5 counts as numpy does, in the reverse order of its "
        "`dimensions`. Absent: as the file names them, else zyx or czyx.",
    )
    channel: WholeFrom0 | None = Field(
        None, description="Channel to read; others can be read through `inputs`."
    )
    objects: LabelKind | None = Field(
        None,
        description="What label values mean. ids (default): one number for each object; cells: 0 "
        "on membranes; membranes: 0 off membranes (objects of both are connected components "
        "within each section); classes: one number for each class of voxels. Values below 0 are "
        "unlabelled, whatever they mean.",
    )
    class_values: ClassValues | None = Field(
        None,
        description="For `objects: classes`: the values in the file that become class 0, class 1 "
        "and so on; other values have no class. Absent: the values are the classes.",
    )
    missing_chunks: MissingChunks | None = Field(
        None,
        description="What happens where a chunk of a zarr, an n5 or a layer does not exist. refuse "
        "(default): an error, because a lost chunk would read as 0. fill: it reads as the fill "
        "value, for volumes whose writer leaves out empty chunks. Volumes of a bucket, and results "
        "of this workflow, have exactly the chunks in their manifest.",
    )
    normalize: Normalize | None = Field(
        None,
        description="How the values of an image become grey values. Needed for `raw` and `inputs` "
        "that are neither uint8 nor float in [0, 1]. Everything that reads the image reads the "
        "grey values: training, prediction, views and exports.",
    )
    preprocess: Preprocess | None = Field(
        None,
        description="How networks of the family znn scale this image, after `normalize`. "
        "standard2D (default): subtract the mean of each section and divide by its standard "
        "deviation.",
    )


class Fit(SettingsModel):
    """How labels that are smaller than their image are placed in it."""

    image: Source = Field(description="The image.")
    crop: Flag | Literal["even"] = Field(
        description="true: labels are centred; even: they are centred, and an odd surplus is "
        "refused, as in ELEKTRONN; false: a different shape is refused."
    )


class Source(SourceFile):
    """Where an image, labels or a mask are read from, with everything filled in."""

    path: Text = Field(description="Path or address.")
    endpoint_url: Annotated[Text | None, NO_EFFECT] = Field(
        None, description="Address of the S3 server. null: the public one."
    )
    unsigned: Annotated[Flag, NO_EFFECT] = Field(
        True, description="Whether to read S3 without credentials."
    )
    default_offset_nm: NmPosition | None = Field(
        None, description="`offset_nm` of the volume, for files that state no position."
    )
    fit: Fit | None = Field(None, description="How labels smaller than their image are placed.")


class DefectMask(SettingsModel):
    """A layer that marks defects, such as folds and cracks; its voxels may be larger."""

    path: Text = Field(description="Path or address, as for `raw`.")
    array: AnyText = Field("", description="Array, as for `raw`.")
    mip: WholeFrom0 = Field(0, description="Level of the layer.")
    missing_chunks: MissingChunks | None = Field(None, description="As for `raw`.")
    defect_from: Count = Field(100, description="Lowest value that marks a defect.")


class DefectMaskSource(Source):
    """The layer that marks defects, with everything filled in."""

    defect_from: Count = Field(100, description="Lowest value that marks a defect.")
