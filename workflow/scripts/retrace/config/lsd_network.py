"""Networks of the family lsd: U-Nets that predict affinities and local shape descriptors.

After Sheridan et al. 2023. All triples are in the order z, y, x.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from retrace.config.families import LSD, load
from retrace.config.network_settings import EXTENDS, DatasetTraits, Head, VoxelNetworkSettings
from retrace.config.network_size import WeightedLayer
from retrace.config.parts import chooses, one_of
from retrace.config.schema import check
from retrace.config.unet_shapes import (
    CONVS_PER_PASS,
    KERNEL,
    label_padding_nm,
    output_shape,
    smallest_input,
    target_context,
)
from retrace.config.yaml_files import merge
from retrace.errors import ConfigError
from retrace.geometry import Triple, triple
from retrace.setting_types import (
    Count,
    Decay,
    DropoutRate,
    Flag,
    Fraction,
    GrowBoundary,
    Name,
    Offset,
    Positive,
    Range,
    Shape,
    WholeFrom0,
)
from retrace.settings_model import NOT_TRAINED, ONLY_TRAINED, SettingsModel, all_optional

ShapeNm = tuple[Positive, Positive, Positive]


@chooses("name", LSD.targets)
class LsdHead(Head):
    """One output: a 1x1x1 convolution and a sigmoid."""

    channels: Count = Field(
        description="Channels: one for each offset of `neighborhood`, or 10 for descriptors."
    )


class DescriptorTargets(SettingsModel):
    """Targets of the head `lsds`."""

    sigma_nm: Positive = Field(
        description="Standard deviation of the Gaussian window that descriptors are computed in, "
        "nm."
    )
    downsample: Count = Field(description="Factor by which labels are downsampled for it.")


FIRST_LOSS = "mse"
"""The loss until `start_iteration`."""


@chooses("kind", LSD.losses)
class LsdLoss(SettingsModel):
    """What training minimises."""

    kind: str
    start_iteration: WholeFrom0 = Field(
        0, description="First iteration with another loss than mse; mse until then."
    )

    def in_force(self, iteration: int) -> str:
        """The kind of loss that `iteration` (from 1) is trained with."""
        return self.kind if iteration > self.start_iteration else FIRST_LOSS


class RateDecay(SettingsModel):
    """A learning rate that falls until the last iteration."""

    kind: Literal["cosine", "linear"] = Field(
        description="How it falls: along the first half of a cosine, or a straight line."
    )
    final: Fraction = Field(
        0.01, description="Learning rate of the last iteration, as a fraction of `lr`."
    )

    @property
    def in_words(self) -> str:
        """How it falls, for a methods section."""
        curve = {"cosine": "a cosine", "linear": "a line"}[self.kind]
        return f"falls along {curve} to {self.final:g} of it in the last iteration"


class AdamSettings(SettingsModel):
    """The optimizer, Adam."""

    lr: Positive = Field(description="Learning rate, the highest one where it changes.")
    warmup: Count | None = Field(
        None,
        description="Iterations in which the learning rate rises linearly to `lr`, as fractions "
        "1/warmup, 2/warmup ... Absent: it begins with `lr`.",
    )
    decay: RateDecay | None = Field(
        None,
        description="How the learning rate falls after the warm-up, until the last iteration. "
        "Absent: it stays constant. A training with another number of `iterations` has other "
        "rates, and begins from the start.",
    )
    weight_decay: Positive | None = Field(
        None,
        description="Each step multiplies all weights but the biases by 1 - rate * weight_decay "
        "(AdamW). Absent: it does not.",
    )
    betas: Range = Field((0.9, 0.999), description="Decay rates of the two moments.")
    eps: Positive = Field(
        1e-8,
        description="Added to the square root of the second moment, before its bias correction.",
    )
    average: Decay | None = Field(
        None,
        description="Decay of a running mean of the weights, which is then the trained model. "
        "Absent: the model is the last weights.",
    )


@one_of(LSD.augmentations)
class AugmentStep(SettingsModel):
    """One step of the augmentation: exactly one of these kinds."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if len(self.model_fields_set) != 1 or None in (getattr(self, k) for k in self.kinds):
            raise ValueError(
                f"each step of `augment` has exactly one of: {', '.join(LSD.augmentations)}"
            )
        return self

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kind of this step."""
        return tuple(self.model_fields_set)

    @property
    def settings(self) -> Any:
        """The settings of its kind."""
        return getattr(self, self.kinds[0])


class LsdSettings(VoxelNetworkSettings):
    """The settings of a network of the family lsd."""

    family: Literal["lsd"] = Field("lsd", description="The system the network comes from.")
    input_channels: Count = Field(
        description="Number of input channels: 1 for raw, 10 for descriptors, 11 for both."
    )
    fmaps: Count = Field(description="Feature maps of the first level.")
    fmap_factor: Count = Field(
        description="Factor by which the number of feature maps grows from level to level."
    )
    fmaps_out: Count = Field(
        description="Feature maps of the last two convolutions, where more than `fmaps`."
    )
    downsample: tuple[Shape, ...] = Field(
        description="Pooling factors from each level to the next, voxels."
    )
    heads: Annotated[tuple[LsdHead, ...], Field(min_length=1)] = Field(
        description="Outputs, each a 1x1x1 convolution and a sigmoid."
    )
    neighborhood: tuple[Offset, ...] = Field(description="Offset of each affinity channel, voxels.")
    input_shape: Shape = Field(description="Input of one training step, voxels.")
    inference_shape: Annotated[Shape, NOT_TRAINED] = Field(
        description="Input of one tile in the published predictions, voxels."
    )
    predict_padding: Annotated[Literal["valid", "reflect"], NOT_TRAINED] = Field(
        description="valid: the prediction is smaller than raw by the context; reflect: raw is "
        "mirrored at its border, and the prediction covers all of it."
    )
    lsd: Annotated[DescriptorTargets | None, ONLY_TRAINED] = Field(
        None, description="Targets of the head `lsds`."
    )
    loss: Annotated[LsdLoss, ONLY_TRAINED] = Field(description="What training minimises.")
    augment: Annotated[tuple[AugmentStep, ...], ONLY_TRAINED] = Field(
        (), description="Steps of the augmentation, in the order they are applied."
    )
    label_padding_nm: Annotated[Literal["auto"] | ShapeNm, ONLY_TRAINED] = Field(
        description="How far a batch may reach beyond the labels, nm. auto: the rule of the paper, "
        "from the output shape and the context of the targets."
    )
    min_masked: Annotated[Fraction, ONLY_TRAINED] = Field(
        description="Smallest fraction of a batch that is inside the mask."
    )
    grow_boundary: Annotated[GrowBoundary | None, ONLY_TRAINED] = Field(
        None, description="How labels of touching objects get a boundary; null: they stay as are."
    )
    lsd_weight: Annotated[
        Literal["labels_mask", "foreground_or_unmasked", "foreground"], ONLY_TRAINED
    ] = Field(description="Where the loss of the descriptors counts.")
    balance_with_mask: Annotated[Flag, ONLY_TRAINED] = Field(
        description="Whether masked affinities are left out of the class balance."
    )
    optimizer: Annotated[AdamSettings, ONLY_TRAINED] = Field(description="The optimizer, Adam.")
    dropout: Annotated[DropoutRate | None, ONLY_TRAINED] = Field(
        None,
        description="Fraction of the feature maps at the bottom of the U-Net that are 0 in each "
        "training step; predictions use all. Absent: none.",
    )

    def weighted_layers(self) -> Iterator[WeightedLayer]:
        """The convolutions from the top level down, those on the way up, and the heads."""
        taps, inputs, maps = KERNEL**3, self.input_channels, self.fmaps
        top = max(self.fmaps_out, maps) if self.downsample else maps
        for level in range(len(self.downsample) + 1):
            name = f"level {level} (fmaps x fmap_factor^{level})"
            yield WeightedLayer(name, inputs, maps, taps)
            for _ in range(CONVS_PER_PASS - 1):
                yield WeightedLayer(name, maps, maps, taps)
            inputs, maps = maps, maps * self.fmap_factor
        below = self.fmaps
        for level, factor in enumerate(self.downsample):
            maps, below = below, below * self.fmap_factor
            out = maps if level else top
            name = f"the way up at level {level}"
            yield WeightedLayer(f"{name} (downsample)", below, maps, math.prod(factor))
            yield WeightedLayer(f"{name} (fmaps_out)", 2 * maps, out, taps)
            for _ in range(CONVS_PER_PASS - 1):
                yield WeightedLayer(f"{name} (fmaps_out)", out, out, taps)
        for head in self.heads:
            yield WeightedLayer(f"head {head.name!r} (channels)", top, head.channels)


class LsdNetworkSettings(LsdSettings):
    """A network of the family lsd, resolved for one dataset."""

    label_padding_nm: Annotated[ShapeNm, ONLY_TRAINED] = Field(
        description="How far a batch may reach beyond the labels, nm."
    )

    measures_around: ClassVar[bool] = True

    @property
    def optimizer_in_words(self) -> str:
        """The optimizer and its rates for a methods section."""
        adam = self.optimizer
        changes = [f"rises over the first {adam.warmup} iterations"] if adam.warmup else []
        changes += [adam.decay.in_words] if adam.decay else []
        that = f" that {' and '.join(changes)}" if changes else ""
        decay = f", and a weight decay of {adam.weight_decay:g}" if adam.weight_decay else ""
        return f"Adam{'W' if decay else ''} at a learning rate of {adam.lr:g}{that}{decay}"

    @property
    def depends_on_length(self) -> bool:
        """Whether the learning rate falls until the last iteration."""
        return self.optimizer.decay is not None

    @property
    def measured_shapes(self) -> tuple[Sequence[int], Sequence[int]]:
        """The smallest input of the U-Net; patches may have few labels."""
        return smallest_input(self.downsample), (1, 1, 1)


DERIVED = ("inputs", "recursive", "n_lab", "labels_are_classes")
"""Fields of all networks that files of this family do not set."""
LsdOverrides = all_optional(
    LsdSettings,
    "LsdOverrides",
    "Settings that differ by the shape of the voxels, or on one dataset.",
    (*DERIVED, "name", "family"),
)


class LsdRecipes(SettingsModel):
    """Settings that depend on the shape of the voxels."""

    anisotropic: LsdOverrides = Field(  # type: ignore[valid-type]
        description="For sections thicker than their pixels are wide."
    )
    isotropic: LsdOverrides = Field(  # type: ignore[valid-type]
        description="For voxels that are about as thick as wide."
    )


LsdNetworkFile = all_optional(
    LsdSettings,
    "LsdNetworkFile",
    "A network of the family lsd: config/networks/NAME.yaml, `extends` merged.",
    DERIVED,
    name=Annotated[Name, Field(description="Name of the network, the same as the file's name.")],
    family=Annotated[Literal["lsd"], Field(description="The system the network comes from.")],
    extends=EXTENDS,
    recipes=Annotated[
        LsdRecipes, Field(description="Settings that depend on the shape of the voxels.")
    ],
    datasets=Annotated[
        dict[str, LsdOverrides],  # type: ignore[valid-type]
        Field(
            {},
            description="Settings that differ on one dataset, by its name; they win over "
            "the recipe.",
        ),
    ],
)


def resolve_lsd(file: SettingsModel, dataset: DatasetTraits) -> LsdNetworkSettings:
    """The network for one dataset: recipe, then overrides, then what follows from both.

    ConfigError if a setting is missing or the input does not fit the pooling.
    """
    content = file.plain()
    recipes, overrides = content.pop("recipes"), content.pop("datasets", {})
    content = merge(content, recipes["isotropic" if dataset.isotropic else "anisotropic"])
    content = merge(content, overrides.get(dataset.name, {}))
    if "lsd" in content and dataset.lsd_sigma_nm:
        content["lsd"] = content["lsd"] | {"sigma_nm": dataset.lsd_sigma_nm}
    where = f"network {content['name']!r}"
    network = check(LsdSettings, content, where)
    try:
        padding = _label_padding_nm(network, dataset)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return check(LsdNetworkSettings, {**content, "label_padding_nm": padding}, where)


def reach_of_targets(network: LsdSettings, voxel_size_nm: Sequence[float]) -> Triple:
    """Voxels (z, y, x) around the output that targets read; `affs` and `lsds` are not included."""
    targets = [(head, load(LSD.targets[head.name])) for head in network.heads]
    reaches = [target.reach_nm(head) for head, target in targets if target.reach_nm is not None]
    return triple([math.ceil(max(reaches, default=0) / size) for size in voxel_size_nm])


def _label_padding_nm(network: LsdSettings, dataset: DatasetTraits) -> Sequence[float]:
    """Padding of the labels; ConfigError if an input does not fit the pooling."""
    output = output_shape(network.input_shape, network.downsample)
    output_shape(network.inference_shape, network.downsample)
    if network.label_padding_nm != "auto":
        return network.label_padding_nm
    if dataset.voxel_size_nm is None:
        raise ConfigError("`label_padding_nm: auto` needs volumes with a voxel size")
    sigma_nm = network.lsd.sigma_nm if network.lsd else None
    context = target_context(network.neighborhood, sigma_nm, dataset.voxel_size_nm)
    more = reach_of_targets(network, dataset.voxel_size_nm)
    context = triple([max(pair) for pair in zip(context, more, strict=True)])
    return label_padding_nm(output, context, dataset.voxel_size_nm)
