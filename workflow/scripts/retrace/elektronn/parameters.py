"""ELEKTRONN's parameters of a network under their own names, sizes in the order z, y, x.

Names and defaults are those of the program, if it has them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from retrace.setting_types import (
    AS_GIVEN,
    Count,
    DropoutRate,
    Flag,
    Fraction,
    InWords,
    Number,
    NumberFrom0,
    Positive,
    Whole,
    WholeFrom0,
)
from retrace.settings_model import NOT_TRAINED, ONLY_TRAINED, SettingsModel

Mode = Literal["img-img", "img-scalar", "vect-scalar"]
Activation = Annotated[
    str,
    Field(pattern=r"^(relu|tanh|abs|linear|sigmoid|maxout [0-9]+)$"),
    InWords("relu, tanh, abs, linear, sigmoid or `maxout N`", "these words"),
]
PoolingMode = Literal["max", "maxabs"]
AxisSizes = Annotated[tuple[Count, ...], Field(min_length=1, max_length=3)]
Size = Count | AxisSizes
"""One number for all axes, or one for each."""


class Autoencoder(SettingsModel):
    """A decoder that mirrors the perceptron layers with their weights transposed."""

    activation_func: Activation = Field("tanh", description="Activation of the decoder's layers.")
    input_noise: NumberFrom0 = Field(
        0.3, description="Standard deviation of the noise that is added to the code."
    )
    train_decoder_bias: Flag = Field(
        True,
        description="Whether the decoder's biases are trained; ELEKTRONN never trains them.",
    )
    noise_in_evaluation: Flag = Field(
        False, description="Whether the noise is added in evaluation too, as in ELEKTRONN."
    )


class GradientDescentParameters(SettingsModel):
    """Gradient descent with momentum."""

    LR: Positive = Field(0.001, description="Learning rate.")
    momentum: Fraction = Field(
        0.9, description="The fraction of the last update that is added to the next."
    )


class RpropParameters(SettingsModel):
    """Resilient backpropagation."""

    penalty: Fraction = Field(
        0.35, description="Reduction of the step where the sign of the gradient changed."
    )
    gain: Positive = Field(
        0.2, description="Growth of the step where the sign of the gradient stayed."
    )
    beta: Number = Field(0.7, description="Read but not used, as in ELEKTRONN.")
    initial_update_size: Positive = Field(1e-4, description="First step.")


class ConjugateGradientParameters(SettingsModel):
    """Conjugate gradients with a line search."""

    n_steps: Count = Field(4, description="Directions of one iteration.")
    alpha: Fraction = Field(
        0.35, description="Slope of the line that the loss must fall below for a step to count."
    )
    beta: Fraction = Field(0.75, description="Factor applied to a step that is too large.")
    max_step: Positive = Field(0.02, description="First step tried.")
    min_step: Positive = Field(8e-5, description="Last step tried.")


class LbfgsParameters(SettingsModel):
    """L-BFGS."""

    maxfun: Count = Field(40, description="Evaluations of the loss in one iteration.")
    maxiter: Count = Field(4, description="Steps of one iteration.")
    m: Count = Field(10, description="Corrections kept.")
    factr: Positive = Field(
        1e2, description="Tolerance of the loss, in units of the machine precision."
    )
    pgtol: Positive = Field(1e-9, description="Tolerance of the gradient.")
    iprint: Whole = Field(-1, description="Read but not used; nothing is printed.")


class AdamParameters(SettingsModel):
    """Adam."""

    LR: Positive = Field(0.001, description="Learning rate.")
    beta1: Fraction = Field(0.9, description="Decay of the first moment.")
    beta2: Fraction = Field(0.999, description="Decay of the second moment.")
    epsilon: Positive = Field(1e-8, description="Added to the root of the second moment.")


OptimizerSettings = (
    GradientDescentParameters
    | RpropParameters
    | ConjugateGradientParameters
    | LbfgsParameters
    | AdamParameters
)


class ElektronnParameters(SettingsModel):
    """Layers, data, optimizer and schedule of a network, as ELEKTRONN names them."""

    mode: Mode = Field(
        "img-img",
        description="What is labelled: voxels (img-img), images (img-scalar) or vectors "
        "(vect-scalar).",
    )
    n_dim: Literal[2, 3] = Field(
        3,
        description="Number of axes of an image. Networks with 2 axes label volumes section by "
        "section.",
    )
    input_channels: Count = Field(1, description="Channels of an image.")
    desired_input: Size | None = Field(
        None,
        description="Input of one training example; for vect-scalar the length of a vector. A "
        "size that does not fit is refused with the nearest sizes that do.",
    )
    filters: tuple[Size, ...] = Field((), description="Filter of each convolution.")
    pool: tuple[Size, ...] = Field((), description="Pooling of each convolution.")
    nof_filters: tuple[Count, ...] = Field((), description="Feature maps of each convolution.")
    MLP_layers: tuple[Count, ...] = Field(
        (),
        description="Units of each perceptron layer after the convolutions. The last layer, one "
        "unit for each class, is added.",
    )
    activation_func: Activation | tuple[Activation, ...] = Field(
        "relu",
        description="Activation of all layers, or one for each: relu, tanh, abs, linear, "
        "sigmoid, maxout N.",
    )
    pooling_mode: PoolingMode | tuple[PoolingMode, ...] = Field(
        "max",
        description="Pooling of all convolutions, or one for each. max: the largest value; "
        "maxabs: the value farthest from 0, with its sign.",
    )
    dropout_rates: DropoutRate | tuple[DropoutRate, ...] | None = Field(
        (),
        description="Fraction that each layer drops, or one number for all; the last layer never "
        "drops anything.",
    )
    shared_dropout_mask: Flag = Field(
        False,
        description="Whether all maps and all examples of a batch drop the same places, as in "
        "ELEKTRONN.",
    )
    autoencoder: Autoencoder | None = Field(
        None,
        description="Mirrors MLP_layers with the same weights transposed, and reconstructs the "
        "input; null: none.",
    )
    n_lab: Count | None = Field(None, description="Number of classes.")
    target: Literal["nll", "nll_weak", "nll_multiple_binary", "regression"] = Field(
        "nll", description="Loss; regression: the squared error."
    )
    predict_padding: Annotated[Literal["valid", "symmetric"], NOT_TRAINED] = Field(
        "valid",
        description="valid: the prediction is smaller than the image by the context; symmetric: "
        "images are mirrored at their border, outermost voxel included, and the prediction covers "
        "all of them.",
    )
    batch_size: Count = Field(1, description="Examples per iteration.")
    flip_data: Flag = Field(
        True,
        description="Whether patches are flipped, and axes exchanged where anisotropic_data "
        "allows it.",
    )
    anisotropic_data: Literal["auto"] | Flag = Field(
        "auto",
        description="Whether z is never exchanged with y and x; auto: by the dataset's voxel size.",
    )
    upright_x: Flag = Field(
        False, description="Whether 2-D images are mirrored along their second axis only."
    )
    grey_augment_channels: tuple[WholeFrom0, ...] = Field(
        (0,), description="Channels whose contrast and brightness are varied."
    )
    warp_on: Flag | Fraction = Field(
        False, description="Whether patches are warped, or the fraction of them that is."
    )
    example_ignore_threshold: Fraction = Field(
        0.0, description="Largest fraction of unlabelled voxels in a patch."
    )
    label_prop_thresh: Fraction | None = Field(
        None,
        description="Voxels of a class that was not labelled (`lazy_labels` of a volume) are "
        "trained on the network's own prediction from this probability on.",
    )
    use_example_weights: Flag = Field(
        False,
        description="Whether voxels are weighted by the image `inputs: {example_weights: ...}` of "
        "their volume: uint8, or float in [0, 1]. ELEKTRONN computed it from an earlier "
        "prediction.",
    )
    class_weights: tuple[NumberFrom0, ...] | None = Field(None, description="Weight of each class.")
    weight_decay: Literal[False] | NumberFrom0 = Field(
        False, description="Decay of all parameters towards 0, independent of the momentum."
    )
    optimizer: Literal["SGD", "RPROP", "CG", "LBFGS", "Adam"] = Field(
        "SGD", description="Optimizer."
    )
    SGD_params: GradientDescentParameters = Field(
        GradientDescentParameters(), description="Gradient descent."
    )
    RPROP_params: RpropParameters = Field(
        RpropParameters(), description="Resilient backpropagation."
    )
    CG_params: ConjugateGradientParameters = Field(
        ConjugateGradientParameters(), description="Conjugate gradients."
    )
    LBFGS_params: LbfgsParameters = Field(LbfgsParameters(), description="L-BFGS.")
    Adam_params: AdamParameters = Field(AdamParameters(), description="Adam.")
    LR_decay: Annotated[float, Field(strict=True, gt=0, le=1), AS_GIVEN] = Field(
        0.993,
        description="Factor applied to the learning rate every 1000 iterations, first after the "
        "first iteration.",
    )
    LR_schedule: tuple[tuple[WholeFrom0, Positive], ...] | None = Field(
        None, description="Pairs [iteration, learning rate], iterations ascending."
    )
    history_freq: Count = Field(
        500, description="Iterations between two measurements of training and validation error."
    )
    monitor_batch_size: Count = Field(10, description="Examples of one measurement.")
    n_steps: Annotated[Count, NOT_TRAINED, ONLY_TRAINED] = Field(
        100000, description="Iterations to train for; `--config iterations=N` overrides it."
    )
    max_runtime: Count | None = Field(
        None,
        description="Seconds after which training ends early, summed over all runs; null: no "
        "limit.",
    )

    @property
    def optimizer_settings(self) -> OptimizerSettings:
        """The settings of the optimizer that is used."""
        chosen: OptimizerSettings = getattr(self, f"{self.optimizer}_params")
        return chosen
