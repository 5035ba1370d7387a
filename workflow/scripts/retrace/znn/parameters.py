"""ZNN's parameters under their own names: those of a network, and the others of a `.cfg` file.

Names and defaults are those of the program (seung-lab/znn-release, python/front_end/zconfig.py).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from retrace.setting_types import AS_GIVEN, Count, Flag, Fraction, Number, NumberFrom0, Shape, Text
from retrace.settings_model import NOT_TRAINED, ONLY_TRAINED, SettingsModel

ConvMode = Literal["fft", "direct", "optimize"]
CostFunction = Literal[
    "auto", "square_loss", "square-square_loss", "binomial_cross_entropy", "softmax_loss"
]
OutType = Literal["boundary", "affinity", "semantic"]
RebalanceMode = Literal["none", "global", "patch"]
MalisNorm = Literal["none", "frac", "num", "pair"]
InitKind = Literal["zero", "constant", "uniform", "gaussian", "bernoulli", "xavier", "msra"]
TransferFunction = Literal[
    "linear", "rectify_linear", "tanh", "soft_sign", "logistics", "forward_logistics"
]


class ZnnTrainingParameters(SettingsModel):
    """How a network of the family znn is trained and run."""

    dtype: Literal["float32", "float64"] = Field(
        "float32", description="Floating-point precision of the training."
    )
    out_type: OutType = Field(
        "boundary",
        description="What the network predicts. boundary: the inside of cells and the membranes; "
        "affinity: affinities to the lower neighbours; semantic: one channel for each class of "
        "voxels (labels with `objects: classes`).",
    )
    cost_fn: CostFunction = Field(
        "auto",
        description="Loss. auto: softmax_loss for boundaries and classes, binomial_cross_entropy "
        "for affinities.",
    )
    eta: Annotated[NumberFrom0, ONLY_TRAINED] = Field(0.01, description="Learning rate.")
    anneal_factor: Annotated[Fraction, ONLY_TRAINED] = Field(
        1.0, description="Factor applied to eta every num_iter_per_annealing iterations."
    )
    momentum: Annotated[Fraction, ONLY_TRAINED] = Field(
        0.0, description="Momentum: the fraction of the last update that is added to the next."
    )
    weight_decay: Annotated[Fraction, ONLY_TRAINED] = Field(
        0.0, description="Decay of filters and biases towards 0, relative to eta."
    )
    num_iter_per_annealing: Annotated[Count, ONLY_TRAINED] = Field(
        100, description="Iterations between two changes of eta."
    )
    train_outsz: Shape = Field(
        (1, 100, 100), description="Output of one training iteration, voxels (z, y, x)."
    )
    forward_outsz: Annotated[Shape | None, NOT_TRAINED] = Field(
        None,
        description="Output of one tile when predicting, voxels (z, y, x); null: `tile` of "
        "config.yaml.",
    )
    train_conv_mode: ConvMode | None = Field(
        None,
        description="How convolutions are computed in training. direct: by PyTorch; fft: by "
        "Fourier transforms; optimize: the faster of both, measured for each layer. null: direct.",
    )
    forward_conv_mode: Annotated[ConvMode | None, NOT_TRAINED] = Field(
        None, description="The same for predictions."
    )
    is_data_aug: Annotated[Flag, ONLY_TRAINED] = Field(
        False,
        description="Whether each axis is flipped, and y and x are exchanged, each with "
        "probability 1/2.",
    )
    is_bd_mirror: Flag = Field(
        False,
        description="Whether images are mirrored at their border, so that the prediction covers "
        "all of them.",
    )
    rebalance_mode: Annotated[RebalanceMode, ONLY_TRAINED] = Field(
        "none",
        description="Whether the rarer class gets a higher weight. global: by its frequency in "
        "the volumes; patch: in each patch.",
    )
    is_malis: Annotated[Flag, ONLY_TRAINED] = Field(
        False,
        description="Whether affinities are weighted by the voxel pairs that they connect (MALIS).",
    )
    malis_norm_type: Annotated[MalisNorm, ONLY_TRAINED] = Field(
        "none", description="What the MALIS weights are divided by."
    )
    is_constrained_malis: Annotated[Flag, ONLY_TRAINED] = Field(
        False,
        description="Whether MALIS runs twice, each time with the affinities of one class set to "
        "the ground truth.",
    )
    num_iter_per_show: Annotated[Count, ONLY_TRAINED] = Field(
        100, description="Iterations averaged in one point of the learning curve."
    )
    num_iter_per_test: Annotated[Count, ONLY_TRAINED] = Field(
        500, description="Iterations between two measurements on validation patches."
    )
    test_num: Annotated[Count, ONLY_TRAINED] = Field(
        10, description="Patches of one such measurement."
    )


class ZnnParameters(ZnnTrainingParameters):
    """The parameters that the file of a network may set."""

    num_iter_per_save: Count = Field(
        1000, description="Iterations between two saved training states."
    )
    max_iter: Count = Field(
        400000, description="Iterations to train for; `--config iterations=N` overrides it."
    )


class ZnnConfig(ZnnParameters):
    """All parameters of a `.cfg` file, with paths that exist where they name input files."""

    fnet_spec: Text | None = Field(None, description="Path of the network, a .znn file.")
    fdata_spec: Text | None = Field(None, description="Path of the data, a .spec file.")
    num_threads: int = Field(0, description="Threads; the workflow sets them itself.")
    train_net_prefix: Text | None = Field(
        None, description="Start of the paths of the networks that are written while training."
    )
    train_range: tuple[int, ...] = Field((), description="Numbers of the samples to train on.")
    test_range: tuple[int, ...] = Field(
        (), description="Numbers of the samples to measure on while training."
    )
    forward_range: tuple[int, ...] = Field((), description="Numbers of the samples to predict.")
    logging: Flag = Field(
        False, description="Whether the log and the configuration are recorded with the networks."
    )
    is_stdio: Flag = Field(
        False, description="Whether the network is written in ZNN's old format, too."
    )
    is_debug: Flag = Field(False, description="Without effect here.")
    is_check: Flag = Field(False, description="Without effect here.")
    forward_net: Text | None = Field(None, description="Path of the network to predict with.")
    output_prefix: Text | None = Field(None, description="Start of the paths of predictions.")


class ZnnLayer(SettingsModel):
    """One layer in the file of a network: an edge of the graph, and the node it leads to.

    An edge has exactly one of `conv`, `max_filter` and `dropout`, its name.
    """

    conv: Text | None = Field(None, description="Name of a convolution.")
    max_filter: Text | None = Field(None, description="Name of a max filter.")
    dropout: Text | None = Field(None, description="Name of a dropout.")
    from_: Text | None = Field(
        None, alias="from", description="Node it starts from. Absent: the node of the layer before."
    )
    to: Text | None = Field(None, description="Node it leads to.")
    size: Shape | None = Field(None, description="Window, voxels (z, y, x). Absent: 1, 1, 1.")
    stride: Shape | None = Field(
        None,
        description="Factor by which the dilation of everything after it grows. Absent: the size "
        "for a max filter, 1 otherwise.",
    )
    repeat: Shape | None = Field(
        None, description="Block of filter voxels that share one weight. Absent: 1, 1, 1."
    )
    ratio: Annotated[float, Field(strict=True, gt=0, le=1), AS_GIVEN] | None = Field(
        None, description="Fraction that a dropout keeps. Absent: 0.5."
    )
    maps: Count | None = Field(
        None, description="Feature maps of the node. Absent: as many as it reads."
    )
    function: TransferFunction | None = Field(
        None,
        description="Transfer function of the node. Absent: rectify_linear after a convolution, "
        "none otherwise.",
    )
    args: tuple[Number, ...] | None = Field(
        None, max_length=2, description="Arguments of the transfer function."
    )
    init: InitKind | None = Field(
        None, description="How the filters are initialised. Absent: `init` of the network."
    )
    init_args: tuple[Number, ...] | None = Field(
        None, max_length=2, description="Arguments of the initialiser."
    )
