"""ELEKTRONN's networks in torch: convolution and perceptron layers, in 2-D and 3-D.

Source: ELEKTRONN 1.0, elektronn/net (convlayer2d, convlayer3d, perceptronlayer, netutils). A layer
is convolution, pooling, dropout, bias, activation, in this order. ELEKTRONN convolves and torch
correlates, so a weight here is ELEKTRONN's filter flipped on all spatial axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from retrace.elektronn.architecture import (
    HEAD,
    MAXOUT,
    RECONSTRUCTION,
    Architecture,
    ElektronnLayer,
)
from retrace.errors import ConfigError, DataError
from retrace.geometry import Triple, triple
from retrace.networks.convolution import convolve
from retrace.networks.phases import merge_phases, phase_voxels, split_phases
from retrace.networks.pooling import pool
from retrace.networks.seeded_init import with_seeded_weights

TINY = 1e-6
"""Initial biases are uniform in ±TINY where the activation is neither relu nor sigmoid."""


def activate(x: Tensor, name: str) -> Tensor:
    """Activation function `name` of `x` (N, C, ...); "maxout N": maximum of every N channels."""
    if name.startswith(MAXOUT):
        return x.unflatten(1, (-1, int(name.removeprefix(MAXOUT)))).amax(2)
    if name == "linear":
        return x
    if name == "relu":
        return functional.relu(x)
    return cast(Tensor, getattr(torch, name)(x))


class Dropout(nn.Module):
    """Sets the fraction `rate` of the values to 0 in training and scales the others up.

    `shared`: one mask for all channels and examples of a batch, as in ELEKTRONN.
    """

    def __init__(self, rate: float, shared: bool) -> None:
        super().__init__()
        self.rate, self.shared = rate, shared

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self.rate):
            return x
        if not self.shared:
            return functional.dropout(x, self.rate)
        shape = (1, 1, *x.shape[2:]) if x.ndim > 2 else (1, *x.shape[1:])
        return x * functional.dropout(torch.ones(shape, dtype=x.dtype, device=x.device), self.rate)


class ElektronnConvolution(nn.Module):
    """A convolution layer with pooling; weight (O, I, z, y, x) or (O, I, y, x)."""

    def __init__(self, layer: ElektronnLayer, inputs: int, drop: Dropout) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(layer.maps, inputs, *layer.filter))
        self.bias = nn.Parameter(torch.empty(layer.maps))
        self.layer, self.drop = layer, drop

    def forward(self, x: Tensor, dense: bool = False) -> Tensor:
        """(N, O, ...) before the activation, from (N, I, ...); `dense`: pooling with stride 1."""
        if math.prod(self.layer.pool) == 1 and not (self.training and self.drop.rate):
            return self._convolved(x, self.bias)
        y = pool(self._convolved(x, None), self.layer.pool, self.layer.pooling, dense=dense)
        return self.drop(y) + self.bias.reshape(-1, *[1] * (y.ndim - 2))

    def _convolved(self, x: Tensor, bias: Tensor | None) -> Tensor:
        if x.ndim == 5:
            return convolve(x, self.weight, bias, "direct")
        # An image is a volume of one section, for which `convolve` has the faster layouts.
        section = convolve(x.unsqueeze(2), self.weight.unsqueeze(2), bias, "direct")
        return section.squeeze(2)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Glorot normal, with the fan-out divided by the pooling window (netutils.initWeights)."""
        taps, window = math.prod(self.layer.filter), math.prod(self.layer.pool)
        fans = self.weight.shape[1] * taps + self.weight.shape[0] * taps / window
        self.weight.normal_(0, math.sqrt(2 / fans), generator=generator)
        _initialise_bias(self.bias, self.layer.activation, 1 / taps, generator)


class Perceptron(nn.Module):
    """A fully connected layer; weight (O, I)."""

    def __init__(self, layer: ElektronnLayer, inputs: int, drop: Dropout) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(layer.maps, inputs))
        self.bias = nn.Parameter(torch.empty(layer.maps))
        self.layer, self.drop = layer, drop

    def forward(self, x: Tensor) -> Tensor:
        """(N, O) before the activation, from (N, I) or from maps that flatten to it."""
        return self.drop(functional.linear(x.flatten(1), self.weight)) + self.bias

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Uniform in ±sqrt(2 / (I + O)) (netutils.initWeights)."""
        high = math.sqrt(2 / sum(self.weight.shape))
        self.weight.uniform_(-high, high, generator=generator)
        _initialise_bias(self.bias, self.layer.activation, 1.0, generator)


@dataclass(frozen=True)
class DecoderSettings:
    """How the decoder of an auto-encoder computes and learns."""

    activation: str
    """Activation function of every layer."""
    noise: float
    """Standard deviation of Gaussian noise that is added to the code in training."""
    noise_in_evaluation: bool
    """Whether the noise is added in evaluation too."""
    train_biases: bool
    """Whether biases are trained; ELEKTRONN leaves them at their initial values."""


class TiedDecoder(nn.Module):
    """Decodes with the transposed weights of the encoder's perceptron layers and own biases."""

    def __init__(self, widths: Sequence[int], settings: DecoderSettings) -> None:
        """`widths`: outputs of each decoder layer, first to last."""
        super().__init__()
        self.biases = nn.ParameterList(
            nn.Parameter(torch.empty(width), requires_grad=settings.train_biases)
            for width in widths
        )
        self.settings = settings

    def forward(self, code: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """(N, inputs of the encoder) from `code` (N, units).

        `weights`: those of the encoder (O, I), first to last.
        """
        noise = self.settings.noise
        if noise and (self.training or self.settings.noise_in_evaluation):
            code = code + noise * torch.randn_like(code)
        for weight, bias in zip(reversed(weights), self.biases, strict=True):
            code = activate(functional.linear(code, weight.t(), bias), self.settings.activation)
        return code

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Biases uniform in ±TINY; the weights are the encoder's."""
        for bias in self.biases:
            bias.uniform_(-TINY, TINY, generator=generator)


def _initialise_bias(
    bias: Tensor, activation: str, relu: float, generator: torch.Generator
) -> None:
    """netutils.initWeights: `relu` behind a relu, 0.5 behind a sigmoid, else almost 0."""
    if activation in ("relu", "sigmoid"):
        bias.fill_(relu if activation == "relu" else 0.5)
    else:
        bias.uniform_(-TINY, TINY, generator=generator)


class ElektronnNetwork(nn.Module):
    """A chain of layers; input (N, C, Z, Y, X), (N, C, Y, X) or (N, features).

    `forward` returns {head: output}. In training the output is the last layer's before softmax, for
    images one voxel per stride (N, C, Z', Y', X'), as ELEKTRONN trains. In evaluation it is
    probabilities (for regression and auto-encoders values), for images at every voxel.
    """

    def __init__(
        self,
        architecture: Architecture,
        dropout: Sequence[float],
        *,
        shared_mask: bool = False,
        probabilities: str = "softmax",
        decoder: TiedDecoder | None = None,
    ) -> None:
        """`dropout`: rate of each layer. `shared_mask`: see `Dropout`.

        `probabilities`: "softmax" over classes, "sigmoid" of each output, or "values" unchanged.
        `decoder` makes it an auto-encoder.
        """
        super().__init__()
        self.architecture, self.probabilities = architecture, probabilities
        self.layers = nn.ModuleList()
        widths = architecture.widths
        for layer, width, rate in zip(architecture.layers, widths, dropout, strict=True):
            kind = Perceptron if layer.is_dense else ElektronnConvolution
            self.layers.append(kind(layer, width, Dropout(rate, shared_mask)))
        self.decoder = decoder

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """{head: (N, C, Z', Y', X'), (N, C) or (N, features)}; see the class."""
        if self.decoder is not None:
            return {RECONSTRUCTION: self.raw(x)}
        if self.training:
            return {HEAD: self.raw(x)}
        return {HEAD: self.as_probabilities(self.dense(x) if self.is_dense else self.raw(x))}

    def raw(self, x: Tensor) -> Tensor:
        """The last layer's output (N, C, ...) before softmax, one voxel per stride.

        Auto-encoders: the reconstruction (N, features).
        """
        if self.decoder is not None:
            weights = [part.weight for part in self.parts]
            return cast(Tensor, self.decoder(self.encoded(x), weights))
        *hidden, last = self.parts
        for part in hidden:
            x = activate(part(x), part.layer.activation)
        # Softmax is applied before the last layer's activation, regression uses its activation.
        y = last(x)
        return activate(y, last.layer.activation) if self.probabilities == "values" else y

    def encoded(self, x: Tensor) -> Tensor:
        """The last layer's output with its activation, of an auto-encoder its code (N, units)."""
        for part in self.parts:
            x = activate(part(x), part.layer.activation)
        return x

    def dense(self, x: Tensor) -> Tensor:
        """Output (N, C, Z', Y', X') before softmax at every voxel whose field of view is in `x`.

        Max-fragment pooling: each pooling by p is computed at all its p offsets, and the fragments
        pass through the following layers separately. Equivalent to dilating the following filters
        by p. DataError if `x` (N, C, Z, Y, X) is smaller than the field of view.
        """
        shape = self.output_shape(x.shape[-3:])
        dilation: Triple = (1, 1, 1)
        for part in self.parts:
            y = part(x, dense=True)
            is_last = part is self.parts[-1] and self.probabilities != "values"
            x = y if is_last else activate(y, part.layer.activation)
            x = split_phases(x, triple(part.layer.pool), dilation)
            pairs = zip(dilation, part.layer.pool, strict=True)
            dilation = triple([step * p for step, p in pairs])
        return merge_phases(x, dilation, shape)

    def as_probabilities(self, raw: Tensor) -> Tensor:
        """Probabilities (N, C, ...) of `raw` outputs; values are returned unchanged."""
        if self.probabilities == "softmax":
            return torch.softmax(raw.float(), 1)
        # As in ELEKTRONN, outputs are log-odds of label 0, so they are negated for label 1.
        return torch.sigmoid(-raw.float()) if self.probabilities == "sigmoid" else raw

    @property
    def parts(self) -> list[ElektronnConvolution | Perceptron]:
        """All layers, including the last, without a decoder's."""
        return [cast(ElektronnConvolution | Perceptron, layer) for layer in self.layers]

    @property
    def is_dense(self) -> bool:
        """Whether every voxel has an output: networks without perceptron layers."""
        return self.architecture.mode == "img-img"

    @property
    def input_channels(self) -> int:
        """Channels C of the input."""
        return self.architecture.input_channels

    @property
    def stride(self) -> Triple:
        """(1, 1, 1): in evaluation every voxel has an output."""
        return (1, 1, 1)

    @property
    def field_of_view(self) -> Triple:
        """Voxels (z, y, x) that an output depends on; ConfigError for networks with perceptrons."""
        sizes = self.architecture.sizes
        if not self.is_dense or sizes is None:
            raise ConfigError(
                f"a network of mode {self.architecture.mode} has one output for a whole input, "
                "none for its voxels; only networks of mode img-img predict volumes"
            )
        return triple([field[-1] for field in sizes.fields])

    @property
    def context(self) -> Triple:
        """Voxels (z, y, x) by which the output is smaller than the input, both sides together."""
        return triple([view - 1 for view in self.field_of_view])

    def valid_shape(self, min_output: Sequence[int] = (1, 1, 1)) -> Triple:
        """Input shape (z, y, x) whose output in evaluation has `min_output` voxels."""
        return triple([n + lost for n, lost in zip(min_output, self.context, strict=True)])

    def output_shape(self, input_shape: Sequence[int]) -> Triple:
        """Output shape (z, y, x) in evaluation; DataError for inputs below the field of view."""
        shape = triple([n - lost for n, lost in zip(input_shape, self.context, strict=True)])
        if min(shape) < 1:
            raise DataError(
                f"volume smaller than the field of view: input {list(input_shape)} voxels zyx, "
                f"this network needs at least {list(self.field_of_view)}; take a larger volume "
                "or another network"
            )
        return shape

    def flop(self, input_shape: Sequence[int]) -> int:
        """Floating-point operations of a dense pass: two per multiply-add of the convolutions."""
        shape, dilation, total = list(input_shape), [1, 1, 1], 0
        widths = self.architecture.widths
        for layer, width in zip(self.architecture.layers, widths, strict=True):
            for axis in range(3):
                shape[axis] -= (layer.filter[axis] - 1) * dilation[axis]
            total += 2 * layer.maps * width * math.prod(layer.filter) * math.prod(shape)
            for axis in range(3):
                shape[axis] -= (layer.pool[axis] - 1) * dilation[axis]
                dilation[axis] *= layer.pool[axis]
        return total

    def layer_values(self, input_shape: Sequence[int]) -> int:
        """Values that the largest layer of a dense pass reads and writes, phases with padding."""
        shape, dilation, largest = list(input_shape), [1, 1, 1], 0
        widths = self.architecture.widths
        for layer, width in zip(self.architecture.layers, widths, strict=True):
            read = width * phase_voxels(shape, dilation)
            for axis in range(3):
                shape[axis] -= (layer.filter[axis] - 1) * dilation[axis]
            written = layer.maps * phase_voxels(shape, dilation)
            for axis in range(3):
                shape[axis] -= (layer.pool[axis] - 1) * dilation[axis]
            pooled = layer.maps * phase_voxels(shape, dilation)
            largest = max(largest, read + written, written + pooled)
            dilation = [step * p for step, p in zip(dilation, layer.pool, strict=True)]
        return largest

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draws weights and biases as ELEKTRONN initialises them, layer by layer."""
        for part in self.parts:
            part.initialise(generator)
        if self.decoder is not None:
            self.decoder.initialise(generator)


def build_elektronn(
    architecture: Architecture,
    dropout: Sequence[float],
    *,
    shared_mask: bool = False,
    probabilities: str = "softmax",
    decoder: DecoderSettings | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> ElektronnNetwork:
    """An `ElektronnNetwork` with weights drawn from `seed`; an auto-encoder with `decoder`.

    On device "meta" it has shapes without memory.
    """
    with torch.device("meta"):
        tied = TiedDecoder(architecture.widths[::-1], decoder) if decoder else None
        module = ElektronnNetwork(
            architecture,
            dropout,
            shared_mask=shared_mask,
            probabilities=probabilities,
            decoder=tied,
        )
    return with_seeded_weights(module, seed, device)
