"""Settings of the `export` targets, among them those of meshes and skeletons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, model_validator

from retrace.setting_types import Count, Flag, Fraction, InWords, LabelId, NumberFrom0, WholeFrom0
from retrace.settings_model import SettingsModel
from retrace.storage.layer_formats import LAYER_FORMATS

Layer = Literal["segments", "fragments", "affinities", "raw", "nodes", "meshes", "skeletons"]
if TYPE_CHECKING:
    ExportFormat = str
else:
    ExportFormat = Literal[tuple(LAYER_FORMATS)]
Value = TypeVar("Value")
UNIQUE = {"uniqueItems": True}
SHAPE_FILES = {"obj": "meshes", "swc": "skeletons"}
"""By format of a file for one segment the layer that it needs."""


def _distinct(values: tuple[Value, ...]) -> tuple[Value, ...]:
    if len(set(values)) < len(values):
        raise ValueError("a value occurs twice")
    return values


class ShapeChoices(SettingsModel):
    """Which segments get meshes and skeletons, and how these are made."""

    segments: (
        Annotated[
            tuple[LabelId, ...],
            Field(min_length=1, json_schema_extra=UNIQUE),
            AfterValidator(_distinct),
            InWords("a list of ids, each once ([17, 4])"),
        ]
        | None
    ) = Field(
        None,
        description="Ids of the segments that get meshes, skeletons and `files`. null: all of at "
        "least `min_voxels`.",
    )
    files: Annotated[
        tuple[Literal["obj", "swc"], ...],
        Field(json_schema_extra=UNIQUE),
        AfterValidator(_distinct),
        InWords("a list of obj and swc, each once"),
    ] = Field(
        (),
        description="Files for each of `segments`, in nm (x, y, z): obj/ID.obj, its mesh; "
        "swc/ID.swc, its skeleton.",
    )
    min_voxels: Count = Field(
        1000,
        description="Smaller segments get no mesh and no skeleton, unless `segments` names them.",
    )
    mip: WholeFrom0 = Field(
        0,
        description="Mip of the exported segments that meshes and skeletons are made from; 0: the "
        "finest. Each mip has about an eighth of the voxels of the one before.",
    )
    triangles: Annotated[Fraction, Field(gt=0)] = Field(
        0.1,
        description="Share of a mesh's triangles to keep; 1: all. Curved places keep more.",
    )
    skeleton_scale: NumberFrom0 = Field(
        1.5,
        description="A branch is kept if it leaves the tube around the skeleton, whose radius is "
        "this number times the distance to the surface, plus `skeleton_constant_nm` (TEASAR).",
    )
    skeleton_constant_nm: NumberFrom0 = Field(
        300, description="Constant part of that radius, nm; larger: fewer short branches."
    )


class Export(ShapeChoices):
    """Output of the `export` targets for other programs."""

    layers: Annotated[
        tuple[Layer, ...],
        Field(min_length=1, json_schema_extra=UNIQUE),
        AfterValidator(_distinct),
        InWords(
            "a list of segments, fragments, affinities, raw, nodes, meshes and skeletons, each once"
        ),
    ] = Field(
        ("segments",),
        description="Layers to write, each in each of the formats; raw is cropped to the "
        "predicted box. meshes, skeletons: those of the segments, inside the precomputed layer "
        "`segments`, which is written too. nodes: tables of the skeleton nodes of the test volumes "
        "with the labels at each node, as results/DATASET/NETWORK/VOLUME/nodes/*.npz and *.csv.",
    )
    formats: Annotated[
        tuple[ExportFormat, ...],
        Field(min_length=1, json_schema_extra=UNIQUE),
        AfterValidator(_distinct),
        InWords(f"a list of {' and '.join(LAYER_FORMATS)}, each once"),
    ] = Field(
        ("precomputed",),
        description="; ".join(f"{name}: {form.about}" for name, form in LAYER_FORMATS.items())
        + ".",
    )
    gzip: Flag = Field(
        False,
        description="Whether each chunk of a precomputed layer is a file NAME.gz, for an upload "
        "with cloud-files. false: plain files, which open from any web server and from disk; "
        "from NAME.gz neuroglancer gets no chunk there, and tensorstore reads zeros.",
    )

    @model_validator(mode="after")
    def _files_have_their_layers(self) -> Self:
        for name in self.files:
            if SHAPE_FILES[name] not in self.layers:
                raise ValueError(
                    f"`files: [{name}]` needs `{SHAPE_FILES[name]}` among `layers`; add it"
                )
        if self.files and self.segments is None:
            raise ValueError(
                "`files` needs `segments`, the ids of the segments that get files ([17, 4])"
            )
        return self

    @model_validator(mode="after")
    def _shapes_have_a_format(self) -> Self:
        if self.with_shapes and "precomputed" not in self.formats:
            raise ValueError(
                "meshes and skeletons are part of a precomputed layer; add `precomputed` to "
                "`formats`, or leave out meshes and skeletons"
            )
        return self

    @property
    def with_shapes(self) -> bool:
        """Whether meshes or skeletons are written."""
        return not {"meshes", "skeletons"}.isdisjoint(self.layers)
