"""Settings common to networks of all families, which every stage may read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from retrace.config.network_size import WeightedLayer, check_layers, check_patch
from retrace.formats.source import Preprocess
from retrace.setting_types import Count, GrowBoundary, Name, Offset, Shape, Text, WholeFrom0
from retrace.settings_model import NO_EFFECT, NOT_TRAINED, ONLY_TRAINED, SettingsModel


@dataclass(frozen=True)
class DatasetTraits:
    """Properties of a dataset that the resolution of a network depends on."""

    name: str = ""
    """Name of the dataset that the network's `datasets` overrides are looked up by."""
    voxel_size_nm: Sequence[float] | None = None
    """Voxel size, nm (z, y, x); None for single examples."""
    isotropic: bool = True
    boundaries_drawn: bool = False
    """Whether labels have boundaries of 0 between objects."""
    labels_are_classes: Callable[[], bool] = lambda: False
    """Whether labels are class numbers; called only for networks that learn classes, because it
    refuses datasets with labels of both kinds."""
    lsd_sigma_nm: float | None = None
    """The dataset's own standard deviation of the descriptors' window."""
    example_classes: int | None = None
    """Number of classes of a dataset of single examples."""


class Head(SettingsModel):
    """One output of a network."""

    name: Text = Field(description="Name of the output, and of the array that holds it.")
    channels: Count = Field(description="Channels of the output.")


class RecursiveInput(SettingsModel):
    """An input that reads the prediction of another network."""

    network: Text = Field(
        description="A network of the family znn with one output, such as vd2d. It is trained and "
        "run first."
    )
    channel: WholeFrom0 = Field(
        0, description="Channel of its prediction; 0 is the inside of cells for boundaries."
    )
    preprocess: Preprocess = Field(
        "symetric_rescale",
        description="How the channel is normalised before it is read; the default is what ZNN's "
        "users took.",
    )


class NetworkSettings(SettingsModel):
    """A network as it is trained and run on one dataset; each family adds its own settings.

    Settings that a family does not have are empty or None.
    """

    name: Name = Field(description="Name of the network, the same as the file's name.")
    family: str = Field(description="The system the network comes from.")
    heads: tuple[Head, ...] = Field((), description="Outputs, in order.")
    neighborhood: tuple[Offset, ...] = Field(
        (), description="Offset of each affinity channel, voxels (z, y, x)."
    )
    inputs: tuple[str, ...] = Field((), description="Names of the inputs; the first is raw.")
    autocontext: Text | None = Field(
        None,
        description="Network whose predicted descriptors are an input. It is trained and run "
        "first.",
    )
    recursive: dict[str, RecursiveInput] = Field(
        {}, description="Inputs that read the prediction of another network, by input node."
    )
    n_lab: Count | None = Field(None, description="Number of classes.")
    labels_are_classes: bool | None = Field(
        None,
        description="Whether labels are class numbers; otherwise they are objects, whose "
        "boundaries are class 1.",
    )
    checkpoint_every: Annotated[Count, NO_EFFECT] = Field(
        description="Iterations between two saved training states."
    )
    snapshot_every: Annotated[Count, NO_EFFECT] = Field(
        description="Iterations between two snapshots for viewing."
    )

    def weighted_layers(self) -> Iterable[WeightedLayer]:
        """The layers with weights, made one after the other: settings can ask for any number."""
        return ()

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        check_layers(f"network {self.name!r}", self.weighted_layers())
        return self

    @property
    def optimizer_in_words(self) -> str:
        """The optimizer and its rates for a methods section; "" if networks have different ones."""
        return ""

    @property
    def depends_on_length(self) -> bool:
        """Whether the weights after an iteration depend on the number of iterations."""
        return False

    @property
    def initial_network(self) -> str | None:
        """The network whose weights the training starts from, which is trained first."""
        return None

    @property
    def initial_file(self) -> str | None:
        """The file whose weights the training starts from, unless `init` names another."""
        return None


class VoxelNetworkSettings(NetworkSettings):
    """A network that predicts volumes, images or vectors; all families but the aligning one."""

    input_channels: Count = Field(description="Number of input channels.")
    input_shape: tuple[Count, ...] = Field(
        description="Input of one training step, voxels (z, y, x); for vectors their length."
    )
    inference_shape: Annotated[tuple[Count, ...], NOT_TRAINED] = Field(
        description="Input of one tile when predicting, voxels (z, y, x)."
    )
    predict_padding: Annotated[Literal["valid", "reflect", "symmetric"], NOT_TRAINED] = Field(
        "valid",
        description="How the border of a volume is predicted. valid: not at all, the prediction "
        "is smaller than raw by the context; reflect: raw is mirrored at the border, without the "
        "outermost voxel; symmetric: with it.",
    )
    batch_size: Annotated[Count, ONLY_TRAINED] = Field(
        1, description="Samples per iteration; the loss is their average."
    )
    iterations: Annotated[Count, NOT_TRAINED, ONLY_TRAINED] = Field(
        description="Iterations to train for; `--config iterations=N` overrides it."
    )
    grow_boundary: Annotated[GrowBoundary | None, ONLY_TRAINED] = Field(
        None, description="How labels of touching objects get a boundary."
    )

    @model_validator(mode="after")
    def _patches_fit(self) -> Self:
        where, channels = f"network {self.name!r}", self.input_channels
        check_patch(where, "input_shape", self.input_shape, channels, self.batch_size)
        check_patch(where, "inference_shape", self.inference_shape, channels)
        return self

    @property
    def prediction_tile(self) -> Shape | None:
        """Output of one prediction step that the network asks for, voxels (z, y, x)."""
        return None

    @property
    def follows_validation(self) -> bool:
        """Whether measurements on validation data change how it is trained."""
        return False

    measures_around: ClassVar[bool] = False
    """Whether validation patches may leave the box of their entry in raw."""

    @property
    def measured_shapes(self) -> tuple[Sequence[int], Sequence[int]]:
        """The smallest boxes of raw and of labels that a validation patch fits into, voxels."""
        raise NotImplementedError(self.family)


DIRECT_NEIGHBORHOOD: tuple[Offset, ...] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
"""Offsets of the affinities to the direct lower neighbours z, y, x."""

EXTENDS = Annotated[
    str | tuple[str, ...],
    Field(
        (),
        description="Networks whose settings this one starts from; of several, later ones override "
        "earlier ones.",
    ),
]
"""The key `extends` of a network's file."""
