"""Networks of the family elektronn: the parameters of ELEKTRONN's configuration files.

Sizes are in the order z, y, x; ELEKTRONN's own files have x, y, z.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from retrace.config.network_settings import EXTENDS, DatasetTraits, Head, VoxelNetworkSettings
from retrace.config.network_size import WeightedLayer
from retrace.elektronn.architecture import (
    HEAD,
    RECONSTRUCTION,
    Architecture,
    ElektronnLayer,
)
from retrace.elektronn.layers import architecture_of, check_lists, dropout_of
from retrace.elektronn.parameters import ElektronnParameters, Mode
from retrace.setting_types import (
    Count,
    Decay,
    Flag,
    Fraction,
    GrowBoundary,
    Name,
    NumberFrom0,
    Text,
    WholeFrom0,
)
from retrace.settings_model import NO_EFFECT, ONLY_TRAINED, SettingsModel

EXAMPLE_WEIGHTS = "example_weights"
"""The input of a volume that weights its voxels, with `use_example_weights`."""
TILE = (32, 128, 128)
"""Output of one tile of a prediction, voxels (z, y, x)."""
OPTIMIZER_PARAMETERS = ("SGD_params", "RPROP_params", "CG_params", "LBFGS_params", "Adam_params")


class CosineSchedule(SettingsModel):
    """A factor of the learning rate that rises to 1 and falls to 0 along a cosine."""

    warmup: Count = Field(description="Iterations until it is 1.")
    until: Count = Field(description="Iteration at which it is 0.")


class ImageDistortion(SettingsModel):
    """Largest distortions of single images."""

    rotation: NumberFrom0 = Field(0, description="Rotation, degrees.")
    shear: NumberFrom0 = Field(0, description="Shear, degrees.")
    scale: Fraction = Field(0, description="Change of size, as a fraction.")
    shift: NumberFrom0 = Field(0, description="Shift, pixels.")
    elastic: NumberFrom0 = Field(0, description="Displacement of 4 x 4 control points, pixels.")


class PretrainedLayers(SettingsModel):
    """Layers that start from the weights of another network."""

    network: Text = Field(description="The other network, which is trained first.")
    layers: Annotated[tuple[WholeFrom0, ...], Field(min_length=1)] = Field(
        description="Numbers of the layers, from 0."
    )


class Plateau(SettingsModel):
    """A measurement that no longer falls."""

    of: Literal["train_loss", "train_error", "validation_loss", "validation_error"] = Field(
        description="What is measured every history_freq iterations."
    )
    patience: Count = Field(description="Measurements without progress.")
    least: NumberFrom0 = Field(0, description="Smallest decrease that counts as progress.")


class ScheduledValues(SettingsModel):
    """New values of training settings."""

    lr: NumberFrom0 | None = Field(None, description="Learning rate.")
    momentum: Fraction | None = Field(
        None, description="The fraction of the last update that is added to the next."
    )
    warp_on: Flag | Fraction | None = Field(
        None, description="Whether patches are warped, or the fraction of them that is."
    )

    @model_validator(mode="after")
    def _some_value(self) -> Self:
        if {getattr(self, name) for name in self.model_fields_set} <= {None}:
            raise ValueError("`set` of an action has at least one of: lr, momentum, warp_on")
        return self


class ScheduledAction(SettingsModel):
    """A change of training settings, at an iteration or when a measurement no longer falls."""

    at_iteration: WholeFrom0 | None = Field(
        None, description="First iteration with the change, counted from 0."
    )
    on_plateau: Plateau | None = Field(
        None,
        description="The measurement that no longer falls. Such actions take effect one after "
        "the other.",
    )
    set: ScheduledValues = Field(description="The new values.")

    @model_validator(mode="after")
    def _one_moment(self) -> Self:
        if (self.at_iteration is None) == (self.on_plateau is None):
            raise ValueError("each action has exactly one of: at_iteration, on_plateau")
        return self


class ElektronnOwnSettings(ElektronnParameters):
    """ELEKTRONN's parameters and those that this workflow adds."""

    LR_cosine: Annotated[CosineSchedule | None, ONLY_TRAINED] = Field(
        None,
        description="Factor of the learning rate that rises to 1 and falls to 0 along a cosine; "
        "null: none.",
    )
    average: Annotated[Decay | None, ONLY_TRAINED] = Field(
        None,
        description="Decay of a running mean of the weights, which is then the trained model; "
        "null: the model is the last weights.",
    )
    shift_augment: Annotated[Flag, ONLY_TRAINED] = Field(
        False,
        description="Single images: whether two pixels are cut off each axis, in training at one "
        "of four places.",
    )
    distort: Annotated[ImageDistortion | None, ONLY_TRAINED] = Field(
        None,
        description="Single images: largest distortions, drawn for each image, in place of "
        "ELEKTRONN's warping; null: none.",
    )
    pretrained: PretrainedLayers | None = Field(
        None,
        description="Layers that start from the weights of another network of the same dataset; "
        "null: none.",
    )
    actions: Annotated[tuple[ScheduledAction, ...], ONLY_TRAINED] = Field(
        (), description="Changes of training settings while training."
    )
    checkpoint_every: Annotated[Count, NO_EFFECT] = Field(
        1000, description="Iterations between two saved training states."
    )
    snapshot_every: Annotated[Count, NO_EFFECT] = Field(
        5000, description="Iterations between two snapshots for viewing."
    )
    grow_boundary: Annotated[Literal["auto"] | GrowBoundary | None, ONLY_TRAINED] = Field(
        "auto",
        description="How labels of touching objects get the boundaries that are class 1. auto: "
        "by one voxel where the dataset's labels have none; null: labels are unchanged.",
    )


class ElektronnNetworkFile(ElektronnOwnSettings):
    """A network of the family elektronn: config/networks/NAME.yaml, `extends` merged."""

    name: Name = Field(description="Name of the network, the same as the file's name.")
    family: Literal["elektronn"] = Field(description="The system the network comes from.")
    extends: EXTENDS = ()


class ArchitectureSettings(SettingsModel):
    """The layers: everything that decides which weights fit."""

    mode: Mode = Field(description="What is labelled.")
    input_channels: Count = Field(description="Channels of an image.")
    input_shape: tuple[Count, ...] | None = Field(
        description="The only input that fits; null: any, as all layers are convolutions."
    )
    layers: tuple[ElektronnLayer, ...] = Field(description="Layers, the last one included.")
    autoencoder: str | None = Field(description="Activation of the tied decoder, if there is one.")

    def at(self, input_shape: tuple[int, ...]) -> Architecture:
        """The layers at the only input that fits, or else at this (z, y, x), (y, x) or (units,)."""
        return Architecture(
            mode=self.mode,
            input_channels=self.input_channels,
            input_shape=self.input_shape or input_shape,
            layers=self.layers,
            autoencoder=self.autoencoder,
        )

    @model_validator(mode="after")
    def _has_layers_of_some_size(self) -> Self:
        for layer in self.layers:
            if min(layer.maps, *layer.filter, *layer.pool, 1) < 1:
                raise ValueError(f"maps, filter and pool of a layer are from 1; there is {layer}")
        return self


class ElektronnNetworkSettings(ElektronnOwnSettings, VoxelNetworkSettings):
    """A network of the family elektronn, resolved for one dataset."""

    family: Literal["elektronn"] = Field(
        "elektronn", description="The system the network comes from."
    )
    architecture: ArchitectureSettings = Field(description="The layers.")
    inputs: tuple[str, ...] = Field(description="Names of the inputs; the first is raw.")
    dropout_rates: tuple[float, ...] = Field(description="Fraction that each layer drops.")
    anisotropic_data: Flag = Field(description="Whether z is never exchanged with y and x.")
    grow_boundary: Annotated[GrowBoundary | None, ONLY_TRAINED] = Field(
        None, description="How labels of touching objects get a boundary."
    )
    labels_are_classes: Flag = Field(
        description="Whether labels are class numbers; otherwise they are objects, whose "
        "boundaries are class 1."
    )

    def weighted_layers(self) -> Iterator[WeightedLayer]:
        """Convolutions and perceptrons; an auto-encoder has the weights of its encoder alone."""
        architecture = self.architecture.at(self.input_shape)
        pairs = zip(architecture.widths, architecture.layers, strict=True)
        for number, (width, layer) in enumerate(pairs):
            yield WeightedLayer(f"layer {number}", width, layer.maps, math.prod(layer.filter))

    @property
    def follows_validation(self) -> bool:
        """Whether an action waits until the loss or error of the validation data stops falling."""
        waits = [action.on_plateau for action in self.actions]
        return any(one is not None and one.of.startswith("validation") for one in waits)

    @property
    def measured_shapes(self) -> tuple[Sequence[int], Sequence[int]]:
        """The input of a patch, and the labels that its outputs span."""
        sizes = self.architecture.at(self.input_shape).sizes
        if sizes is None:
            return self.input_shape, (1, 1, 1)
        context = [axis[-1] - 1 for axis in sizes.fields]
        core = [n - c for n, c in zip(self.input_shape, context, strict=True)]
        return self.input_shape, core

    @property
    def initial_network(self) -> str | None:
        """The network of `pretrained`."""
        return None if self.pretrained is None else self.pretrained.network


def resolve_elektronn(
    file: ElektronnNetworkFile, dataset: DatasetTraits
) -> ElektronnNetworkSettings:
    """The network for one dataset.

    Labels of the dataset are class numbers or objects. Boundaries of objects are class 1; they are
    added where the labels have none. ConfigError for layers that do not fit.
    """
    classes = dataset.example_classes if file.n_lab is None else file.n_lab
    parameters = file if classes is None else file.with_(n_lab=classes)
    layers = architecture_of(file.name, parameters)
    check_lists(file.name, parameters)
    are_classes = dataset.labels_are_classes()
    anisotropic = file.anisotropic_data
    shared = {name: getattr(parameters, name) for name in ElektronnOwnSettings.model_fields}
    shared |= {name: shared[name].complete() for name in OPTIMIZER_PARAMETERS}
    if file.autoencoder:
        shared["autoencoder"] = file.autoencoder.complete()
    if classes is None:
        del shared["n_lab"]
    return ElektronnNetworkSettings(
        **{
            **shared,
            "anisotropic_data": not dataset.isotropic if anisotropic == "auto" else anisotropic,
            "dropout_rates": dropout_of(file.name, parameters, len(layers.layers)),
            "grow_boundary": _grown_boundary(file, are_classes, dataset),
        },
        name=file.name,
        family="elektronn",
        architecture=ArchitectureSettings.model_validate(layers.as_dict()),
        heads=(_head(layers),),
        neighborhood=(),
        inputs=("raw", *(f"channel_{n}" for n in range(1, parameters.input_channels))),
        input_shape=layers.input_shape,
        inference_shape=_inference_shape(layers),
        labels_are_classes=are_classes,
        iterations=parameters.n_steps,
    )


def _grown_boundary(
    file: ElektronnNetworkFile, are_classes: bool, dataset: DatasetTraits
) -> GrowBoundary | None:
    """How labels get boundaries; `auto` adds them to objects of volumes without boundaries."""
    if file.grow_boundary != "auto":
        return file.grow_boundary
    needed = file.mode == "img-img" and not (dataset.boundaries_drawn or are_classes)
    return GrowBoundary(steps=1, only_xy=not dataset.isotropic) if needed else None


def _head(layers: Architecture) -> Head:
    if layers.autoencoder is not None:
        return Head(name=RECONSTRUCTION, channels=layers.widths[0])
    return Head(name=HEAD, channels=layers.layers[-1].maps)


def _inference_shape(layers: Architecture) -> tuple[int, ...]:
    """Input of one tile of a prediction, voxels (z, y, x)."""
    sizes = layers.sizes
    if layers.mode != "img-img" or sizes is None:
        return layers.input_shape
    return tuple(field[-1] - 1 + n for field, n in zip(sizes.fields, TILE, strict=True))
