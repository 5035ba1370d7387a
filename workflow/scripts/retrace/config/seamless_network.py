"""Networks of the family seamless: pyramids that align serial sections.

Names are those of SEAMLeSS's options, if it has them. Pixels are those of the mip level that
the network is trained at.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field

from retrace.config import alignment
from retrace.config.dataset_model import Dataset
from retrace.config.network_settings import EXTENDS, DatasetTraits, NetworkSettings
from retrace.config.network_size import WeightedLayer
from retrace.config.schema import check
from retrace.config.seamless_shapes import ENCODER_KERNEL, PRE_ENCODER_KERNEL
from retrace.errors import ConfigError
from retrace.setting_types import (
    Count,
    Flag,
    Fraction,
    Name,
    Number,
    NumberFrom0,
    Positive,
    Text,
    WholeFrom0,
)
from retrace.settings_model import NO_EFFECT, NOT_TRAINED, SettingsModel, all_optional

OBSERVED = ("field_px", "moved_px", "valid", "lambda1")
"""Terms that are monitored, not minimised: mean length of the field and of the applied
displacement, px of level 0; fraction of the pixels that are compared; the current lambda1."""


class EncoderMaps(SettingsModel):
    """Feature maps of the encoders."""

    first: Annotated[int, Field(strict=True, ge=2)] = Field(description="Maps of level 0.")
    step: WholeFrom0 = Field(description="Maps that each further level adds.")


class GreyScaling(SettingsModel):
    """How grey values are scaled for the network, after the contrast is normalised."""

    mean: Number = Field(description="Subtracted first; also fills missing pixels.")
    std: Positive = Field(description="Divided by.")


class ContrastNormaliser(SettingsModel):
    """How the contrast of sections is normalised (retrace.alignment.contrast)."""

    method: Literal["none", "equalise"] = Field(
        description="equalise: local histogram equalisation."
    )
    radius_px: Count = Field(
        description="Half the side of the window that grey values are ranked in, pixels."
    )

    @property
    def equalised_radius_px(self) -> int | None:
        """The radius of the equalisation; None without it."""
        return self.radius_px if self.method == "equalise" else None


class SmoothnessFactor(SettingsModel):
    """What lambda1 is multiplied by."""

    coarse: NumberFrom0 = Field(description="Until level 0 is fine-tuned.")
    fine: NumberFrom0 = Field(description="From then on.")


class StackAugment(SettingsModel):
    """Augmentation of stacks, and of the sections as the network sees them."""

    jitter_px: NumberFrom0 | None = Field(
        description="Largest shift between two sections, pixels. null: 2^(height-1), as in "
        "SEAMLeSS."
    )
    rotation: NumberFrom0 = Field(
        description="Standard deviation of the rotation of each section, radians."
    )
    scale: NumberFrom0 = Field(description="Standard deviation of the scale of each section.")
    turn: Fraction = Field(
        0.5, description="Fraction of stacks that are rotated as a whole, by any angle."
    )
    cut: Flag = Field(True, description="Whether borders of sections are blanked at random.")
    warp_px: NumberFrom0 = Field(
        0, description="Largest displacement of a smooth warp of each section, pixels per axis."
    )
    spacing_px: Positive | None = Field(
        None, description="Distance of the warp's control points, pixels; needed with `warp_px`."
    )
    input: Flag = Field(
        description="Whether cutouts, gradients, tilings and brightness change what the network "
        "sees."
    )


class CollapseDetection(SettingsModel):
    """When a training counts as collapsed, and the reaction."""

    patience: Count = Field(description="Iterations that are judged together.")
    field_fraction: Fraction = Field(
        description="The field counts as zero below this fraction of the distance between the "
        "sections."
    )
    valid_fraction: Fraction = Field(description="Smallest fraction of pixels that are compared.")
    action: Literal["stop", "lower"] = Field(
        description="What happens when the field is zero. stop: training ends with a message; "
        "lower: lambda1 is halved."
    )


class StackAlignment(SettingsModel):
    """How a stack is aligned with the trained network."""

    mip: WholeFrom0 | None = Field(
        description="Mip level that fields are computed at; null: that of the training stacks."
    )
    render_mip: WholeFrom0 | None = Field(
        description="Mip level of the aligned volume; null: the same as `mip`."
    )
    tile: Count = Field(description="Side of one tile of the field, pixels.")
    overlap: WholeFrom0 = Field(
        description="Context around a tile on each side, pixels. Seams vanish once it covers the "
        "network's reach; 256 px were enough in SEAMLeSS."
    )
    targets: Count = Field(
        description="Aligned sections that each new one is aligned to, an odd number; several vote."
    )
    temperature: Positive = Field(description="Temperature of the vote, pixels.")
    flip_average: Flag = Field(
        description="Whether sections are also aligned rotated by 180 degrees, and both fields "
        "averaged."
    )
    swap_average: Flag = Field(
        False,
        description="Whether the target is also aligned to the source, and the field averaged with "
        "the inverse of that one: errors that are the same both ways cancel. Takes twice the time.",
    )
    smoothing_px: NumberFrom0 = Field(
        0,
        description="Standard deviation of the Gaussian that smooths each field, pixels; 0: none. "
        "Errors of single places cancel, but a jump at a crack is smoothed, too. `overlap` should "
        "be larger by three times as many pixels.",
    )
    max_displacement: Count = Field(
        description="Largest displacement, pixels: the margin that is read for rendering. Larger "
        "fields are an error."
    )
    realign_below: Annotated[float, Field(strict=True, ge=-1, lt=1)] = Field(
        0.1,
        description="Lowest correlation of a section with the one it was aligned to. If a fifth of "
        "a tile is below it, the tile is also aligned to the section before that, and each pixel "
        "takes the field that matches better. -1: never. Needs `targets: 1`.",
    )
    drift_reach: WholeFrom0 = Field(
        12,
        description="Sections on each side over which the slow trend of the fields is estimated, "
        "which is then removed: sections as imaged scatter around their places, so the trend is "
        "an error that adds up. 0: it stays, as in SEAMLeSS.",
    )


class SeamlessNetworkSettings(NetworkSettings):
    """A network of the family seamless."""

    family: Literal["seamless"] = Field(
        "seamless", description="The system the network comes from."
    )
    height: Count = Field(
        description="Levels of the pyramid (--size); sections are downsampled height - 1 times."
    )
    kernel: Count = Field(description="Side of the aligners' kernels, odd (--k).")
    correlation_px: WholeFrom0 = Field(
        0,
        description="Largest shift, pixels of its level, for which an aligner sees how well the "
        "feature maps match (a cost volume). 0: it sees the maps only and predicts a field, as in "
        "SEAMLeSS.",
    )
    encoder_maps: EncoderMaps = Field(description="Feature maps of the encoders.")
    aligner_maps: tuple[Count, ...] = Field(
        description="Feature maps between the convolutions of an aligner."
    )
    pre_encoder: Flag = Field(description="Whether a small network normalises the contrast first.")
    unit: Literal["normalised", "pixels"] = Field(
        description="Unit of an aligner's output. normalised: a tenth of half of `train_size`, as "
        "in SEAMLeSS; pixels: pixels of its level."
    )
    train_size: Count = Field(
        description="Side of the sections that SEAMLeSS was trained on, pixels; used with `unit: "
        "normalised`."
    )
    zero_start: Flag = Field(
        description="Whether aligners start from a field of zero instead of a random one."
    )
    composition: Literal["functional", "additive"] = Field(
        description="How the field of a level joins that of the coarser levels. functional: the "
        "coarser field is sampled through it; additive: both are added, as archives of 2018 were "
        "trained."
    )
    skip: WholeFrom0 = Field(description="Number of finest levels that add nothing to the field.")
    topskips: WholeFrom0 = Field(description="Number of coarsest levels that are not used.")
    input: GreyScaling = Field(
        description="How grey values are scaled for the network, after the contrast is normalised."
    )
    contrast: ContrastNormaliser = Field(description="How the contrast of sections is normalised.")
    epochs: Count = Field(description="Passes over the stacks; `--config epochs=N` overrides it.")
    fall_time: Count = Field(description="Epochs that each level is trained.")
    trunc: WholeFrom0 | None = Field(
        description="Level that training starts at. null: the coarsest; 0: to fine-tune."
    )
    train_encoders: Literal["schedule", "always"] = Field(
        description="When the encoders are trained. schedule: in the first epochs and when "
        "everything is trained, as in SEAMLeSS's program; always: as in its paper."
    )
    fine_tuning: Flag = Field(
        description="Whether all levels are trained together from the start, with lr x "
        "fine_tuning_lr_factor."
    )
    fine_tuning_lr_factor: Positive = Field(
        description="Factor applied to lr while all levels are trained."
    )
    lr: Positive = Field(description="Learning rate of Adam.")
    smooth_factor: SmoothnessFactor = Field(description="What lambda1 is multiplied by.")
    lambda1: NumberFrom0 = Field(description="Weight of the smoothness; the one to tune.")
    lambda2: NumberFrom0 = Field(description="Weight of the smoothness near a defect.")
    lambda3: NumberFrom0 = Field(description="Weight of the smoothness inside a defect.")
    lambda4: NumberFrom0 = Field(description="Weight of the similarity near a defect.")
    lambda5: NumberFrom0 = Field(description="Weight of the similarity inside a defect.")
    lambda6: NumberFrom0 = Field(
        description="Weight of the consensus with the fields of the sections rotated by 180 "
        "degrees; 0: these are not computed."
    )
    lambda_known: NumberFrom0 = Field(
        description="Weight of the endpoint error, per pixel, of pairs with a known displacement: "
        "sections that the workflow distorted, and sections paired with themselves. Not in "
        "SEAMLeSS; 0: training uses the images only."
    )
    smoothness_penalty_type: Literal["lap", "jacob", "cjacob", "tv"] = Field(
        description="The derivative of the field that the smoothness penalises."
    )
    mask_smooth_radius: Count = Field(
        description="Pixels that the relaxed smoothness extends around defects."
    )
    mask_neighborhood_radius: Count | None = Field(
        None,
        description="Pixels around a defect that count as near it. null: as in the masks, whose "
        "radius is `alignment: defects: near_px` of the dataset.",
    )
    vis_interval: Annotated[Count | None, NO_EFFECT] = Field(
        None,
        description="Stacks between two pictures of a training, as in SEAMLeSS. null: "
        "`snapshot_every` says it in iterations.",
    )
    state_archive: Annotated[Text | None, NO_EFFECT] = Field(  # the bytes of the file decide
        None,
        description="Archive that the training starts from, unless `init` names one: "
        "archive.safetensors of a run, or a .pt of SEAMLeSS.",
    )
    blank_var_threshold: NumberFrom0 = Field(
        description="Sections with a lower variance, of values in [0, 1], are left out of training."
    )
    rescale_downsampled: Flag = Field(
        description="Whether downsampled sections get their contrast back before they are compared."
    )
    crop: Annotated[int, Field(strict=True, ge=16)] | None = Field(
        description="Side of the squares that are trained on, pixels; null: whole stacks."
    )
    pairs_per_step: Count = Field(description="Pairs of one stack per step; SEAMLeSS: 1.")
    visits_per_stack: Count = Field(
        description="How often an epoch uses each stack, each time with another crop."
    )
    self_pairs: Fraction = Field(
        description="Fraction of stacks of which one section is aligned with itself."
    )
    fold_probability: Fraction = Field(
        description="Fraction of pairs whose source is the target with an artificial fold, so "
        "that the field is known."
    )
    fold_radius_px: tuple[Positive, Positive] = Field(
        description="Smallest and largest reach of such a fold, pixels."
    )
    augment: StackAugment = Field(
        description="Augmentation of stacks, and of the sections as the network sees them."
    )
    collapse: CollapseDetection = Field(
        description="When a training counts as collapsed, and the reaction."
    )
    align: Annotated[StackAlignment, NOT_TRAINED] = Field(
        description="How a stack is aligned with the trained network."
    )

    def weighted_layers(self) -> Iterator[WeightedLayer]:
        """The convolutions of the pre-encoder, then of each level's encoder and aligner."""
        first, half = self.encoder_maps.first, self.encoder_maps.first // 2
        if self.pre_encoder:
            chain: tuple[int, ...] = (1, half, half, first, half, 1)
            yield from _chained("encoder_maps: first", chain, PRE_ENCODER_KERNEL)
        shifts = (2 * self.correlation_px + 1) ** 2 if self.correlation_px else 0
        before = 1
        for level in range(self.height):
            maps = first + level * self.encoder_maps.step
            chain = (before, maps, maps)
            yield from _chained(f"encoder_maps of level {level}", chain, ENCODER_KERNEL)
            outputs = shifts + 1 if shifts else 2
            chain = (2 * maps + shifts, *self.aligner_maps, outputs)
            yield from _chained("aligner_maps, kernel and correlation_px", chain, self.kernel)
            before = maps

    @property
    def initial_file(self) -> str | None:
        """`state_archive`."""
        return self.state_archive


def _chained(name: str, maps: tuple[int, ...], kernel: int) -> Iterator[WeightedLayer]:
    """2-D convolutions from each number of maps to the next."""
    for inputs, outputs in pairwise(maps):
        yield WeightedLayer(name, inputs, outputs, kernel**2)


SeamlessNetworkFile = all_optional(
    SeamlessNetworkSettings,
    "SeamlessNetworkFile",
    "A network of the family seamless: config/networks/NAME.yaml, `extends` merged.",
    (
        "heads",
        "neighborhood",
        "inputs",
        "autocontext",
        "recursive",
        "n_lab",
        "labels_are_classes",
    ),
    name=Annotated[Name, Field(description="Name of the network, the same as the file's name.")],
    family=Annotated[Literal["seamless"], Field(description="The system the network comes from.")],
    extends=EXTENDS,
)


def resolve_seamless(file: SettingsModel, dataset: DatasetTraits) -> SeamlessNetworkSettings:
    """The network; it is the same for all datasets. ConfigError if a setting is missing."""
    content = {key: value for key, value in file.plain().items() if key != "extends"}
    where = f"network {content['name']!r}"
    network = check(SeamlessNetworkSettings, content, where)
    check_levels(network, where)
    if network.augment.jitter_px is not None:
        return network
    augment = network.augment.plain() | {"jitter_px": 2 ** (network.height - 1)}
    return network.with_(augment=augment)


def check_levels(network: Any, where: str) -> None:
    """ConfigError for a level, or a number of levels, that a pyramid does not have.

    `network`: its settings, or those of a complete file.
    """
    coarsest = network.height - 1 - network.topskips
    pyramid = f"a pyramid of `height: {network.height}`"
    if coarsest < 0:
        raise ConfigError(
            f"{where}: topskips: {network.topskips} leaves no level of {pyramid}; give a whole "
            f"number from 0 to {network.height - 1}"
        )
    used = f"{pyramid} and `topskips: {network.topskips}`" if network.topskips else pyramid
    if network.trunc is not None and network.trunc > coarsest:
        raise ConfigError(
            f"{where}: trunc: {network.trunc} is no level of {used}; give a whole number from 0, "
            f"the finest, to {coarsest}, the coarsest, or null, which is the coarsest too"
        )
    if network.skip > coarsest:
        raise ConfigError(
            f"{where}: skip: {network.skip} leaves no level of {used}; give a whole number from 0 "
            f"to {coarsest}"
        )


def check_seamless_pair(
    pair: str, dataset: Dataset, network: SeamlessNetworkSettings, verb: str
) -> None:
    """Refuses a dataset whose stacks a pyramid of the network's height cannot take."""
    alignment.check_stack_sides(pair, dataset, network.height - network.topskips)
