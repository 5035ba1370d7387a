"""ELEKTRONN's networks in torch: convolutions and perceptrons, in 2-D and 3-D, dense where asked.

Source: ELEKTRONN 1.0, elektronn/net (convlayer2d, convlayer3d, perceptronlayer, netutils). A layer
is convolution, pooling, dropout, bias, activation, in this order. Convolutions are true ones: the
weight here is ELEKTRONN's filter flipped on all axes, as torch correlates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from retrace.elektronn.architecture import (
    HEAD,
    MAXOUT,
    RECONSTRUCTION,
    Architecture,
    Layer,
    from_dict,
)
from retrace.errors import ConfigError, DataError
from retrace.geometry import Triple, triple
from retrace.networks.convolution import convolve
from retrace.networks.phases import put_together, take_apart
from retrace.networks.pooling import pool
from retrace.networks.seeded_init import with_weights

TINY = 1e-6
"""Biases begin between plus and minus this where the activation is neither relu nor sigmoid."""


def activate(x: Tensor, name: str) -> Tensor:
    """An activation function; `maxout N` makes one map (axis 1) of every N."""
    if name.startswith(MAXOUT):
        return x.unflatten(1, (-1, int(name.removeprefix(MAXOUT)))).amax(2)
    if name == "linear":
        return x
    if name == "relu":
        return functional.relu(x)
    return cast(Tensor, getattr(torch, name)(x))


class Dropout(nn.Module):
    """Drops `rate` of the values while training, the rest scaled up.

    `shared`, as in ELEKTRONN: the same places for all maps and examples of a batch.
    """

    def __init__(self, rate: float, shared: bool) -> None:
        super().__init__()
        self.rate, self.shared = rate, shared

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self.rate):
            return x
        if not self.shared:
            return functional.dropout(x, self.rate)
        same = (1, 1, *x.shape[2:]) if x.ndim > 2 else (1, *x.shape[1:])
        return x * functional.dropout(torch.ones(same, dtype=x.dtype, device=x.device), self.rate)


class Convolution(nn.Module):
    """A convolution layer; filters (O, I, z, y, x) or (O, I, y, x)."""

    def __init__(self, layer: Layer, inputs: int, drop: Dropout) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(layer.maps, inputs, *layer.filter))
        self.bias = nn.Parameter(torch.empty(layer.maps))
        self.layer, self.drop = layer, drop

    def forward(self, x: Tensor, dense: bool = False) -> Tensor:
        """(N, I, ...) to (N, O, ...) before the activation; dense pools windows one a voxel."""
        if math.prod(self.layer.pool) == 1 and not (self.training and self.drop.rate):
            return self._convolved(x, self.bias)
        y = pool(self._convolved(x, None), self.layer.pool, self.layer.pooling, dense=dense)
        return self.drop(y) + self.bias.reshape(-1, *[1] * (y.ndim - 2))

    def _convolved(self, x: Tensor, bias: Tensor | None) -> Tensor:
        if x.ndim == 5:
            return convolve(x, self.weight, bias, "direct")
        return functional.conv2d(x, self.weight, bias)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Normal by Glorot, the fan-out less what is pooled; ELEKTRONN's netutils.initWeights."""
        taps, thinned = math.prod(self.layer.filter), math.prod(self.layer.pool)
        fans = self.weight.shape[1] * taps + self.weight.shape[0] * taps / thinned
        self.weight.normal_(0, math.sqrt(2 / fans), generator=generator)
        _begin_bias(self.bias, self.layer.activation, 1 / taps, generator)


class Perceptron(nn.Module):
    """A layer whose units see the whole input; weight (O, I)."""

    def __init__(self, layer: Layer, inputs: int, drop: Dropout) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(layer.maps, inputs))
        self.bias = nn.Parameter(torch.empty(layer.maps))
        self.layer, self.drop = layer, drop

    def forward(self, x: Tensor) -> Tensor:
        """(N, I), or maps that become it, to (N, O) before the activation."""
        return self.drop(functional.linear(x.flatten(1), self.weight)) + self.bias

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Uniform; ELEKTRONN's netutils.initWeights."""
        high = math.sqrt(2 / sum(self.weight.shape))
        self.weight.uniform_(-high, high, generator=generator)
        _begin_bias(self.bias, self.layer.activation, 1.0, generator)


class TiedDecoder(nn.Module):
    """Mirrors perceptron layers: weights are the transposes of theirs, biases its own."""

    def __init__(self, widths: Sequence[int], settings: Mapping[str, Any]) -> None:
        """`widths`: outputs of each of its layers; `settings`: `autoencoder` of the network."""
        super().__init__()
        trained = settings["train_decoder_bias"]
        self.biases = nn.ParameterList(
            nn.Parameter(torch.empty(width), requires_grad=trained) for width in widths
        )
        self.activation, self.noise = settings["activation_func"], settings["input_noise"]
        self.always_noisy = settings["noise_in_evaluation"]

    def forward(self, code: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """(N, code) to (N, units of the input); `weights` (O, I) of the encoder, first to last."""
        if self.noise and (self.training or self.always_noisy):
            code = code + self.noise * torch.randn_like(code)
        for weight, bias in zip(reversed(weights), self.biases, strict=True):
            code = activate(functional.linear(code, weight.t(), bias), self.activation)
        return code

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        for bias in self.biases:
            bias.uniform_(-TINY, TINY, generator=generator)


def _begin_bias(bias: Tensor, activation: str, relu: float, generator: torch.Generator) -> None:
    if activation in ("relu", "sigmoid"):
        bias.fill_(relu if activation == "relu" else 0.5)
    else:
        bias.uniform_(-TINY, TINY, generator=generator)


class ElektronnNetwork(nn.Module):
    """Layers one after the other; input (N, C, Z, Y, X), (N, C, Y, X), or (N, units).

    In training `forward` gives {head: what the last layer gives before softmax}, as ELEKTRONN
    trains it: for images one output a stride, (N, C, Z', Y', X'). In evaluation it gives
    probabilities (regression and auto-encoders: values), for images one a voxel.
    """

    def __init__(
        self,
        architecture: Architecture,
        dropout: Sequence[float],
        *,
        shared_mask: bool = False,
        probabilities: str = "softmax",
        autoencoder: Mapping[str, Any] | None = None,
    ) -> None:
        """`probabilities`: "softmax" over classes, "sigmoid" of each, or "values" as they are."""
        super().__init__()
        self.architecture, self.probabilities = architecture, probabilities
        self.layers = nn.ModuleList()
        widths = architecture.widths
        for layer, width, rate in zip(architecture.layers, widths, dropout, strict=True):
            kind = Perceptron if layer.is_dense else Convolution
            self.layers.append(kind(layer, width, Dropout(rate, shared_mask)))
        self.decoder = TiedDecoder(widths[::-1], autoencoder) if autoencoder else None

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if self.decoder is not None:
            return {RECONSTRUCTION: self.raw(x)}
        if self.training:
            return {HEAD: self.raw(x)}
        return {HEAD: self.as_probabilities(self.dense(x) if self.is_dense else self.raw(x))}

    def raw(self, x: Tensor) -> Tensor:
        """What the last layer gives before softmax, one output a stride; auto-encoders: the
        reconstruction (N, units)."""
        if self.decoder is not None:
            weights = [part.weight for part in self.parts]
            return cast(Tensor, self.decoder(self.encoded(x), weights))
        *hidden, last = self.parts
        for part in hidden:
            x = activate(part(x), part.layer.activation)
        # Softmax sees the last layer before its activation; regression after it.
        y = last(x)
        return activate(y, last.layer.activation) if self.probabilities == "values" else y

    def encoded(self, x: Tensor) -> Tensor:
        """After the last layer and its activation: the code of an auto-encoder (N, units)."""
        for part in self.parts:
            x = activate(part(x), part.layer.activation)
        return x

    def dense(self, x: Tensor) -> Tensor:
        """(N, C, Z, Y, X) to an output for every voxel whose field of view is inside.

        Max-fragment pooling: each pooling by p is taken at all its p offsets, and the maps of
        every offset go on apart. The same as filters that are dilated by p from there on.
        """
        shape = self.output_shape(x.shape[-3:])
        apart: Triple = (1, 1, 1)
        for part in self.parts:
            y = part(x, dense=True)
            is_last = part is self.parts[-1] and self.probabilities != "values"
            x = y if is_last else activate(y, part.layer.activation)
            x = take_apart(x, triple(part.layer.pool), apart)
            pairs = zip(apart, part.layer.pool, strict=True)
            apart = triple([step * p for step, p in pairs])
        return put_together(x, apart, shape)

    def as_probabilities(self, raw: Tensor) -> Tensor:
        """What `raw` gives as probabilities (axis 1: classes), or unchanged for values."""
        if self.probabilities == "softmax":
            return torch.softmax(raw.float(), 1)
        # As in ELEKTRONN, what comes out is for the 0 of each label and against its 1.
        return torch.sigmoid(-raw.float()) if self.probabilities == "sigmoid" else raw

    @property
    def parts(self) -> list[Convolution | Perceptron]:
        """The layers, the last one among them; a decoder is apart."""
        return [cast(Convolution | Perceptron, layer) for layer in self.layers]

    @property
    def is_dense(self) -> bool:
        """Whether every voxel gets an output: networks without perceptron layers."""
        return self.architecture.mode == "img-img"

    @property
    def input_channels(self) -> int:
        return self.architecture.input_channels

    @property
    def stride(self) -> Triple:
        """1: in evaluation every voxel has its output."""
        return (1, 1, 1)

    @property
    def field_of_view(self) -> Triple:
        """Voxels (z, y, x) that an output sees; ConfigError for networks of perceptrons."""
        sizes = self.architecture.sizes
        if not self.is_dense or sizes is None:
            raise ConfigError(
                f"a network of mode {self.architecture.mode} gives one answer for a whole input, "
                "none for its voxels; only networks of mode img-img predict volumes"
            )
        return triple([field[-1] for field in sizes.fields])

    @property
    def context(self) -> Triple:
        """Voxels the output is smaller than the input, both sides together."""
        return triple([view - 1 for view in self.field_of_view])

    def valid_shape(self, min_output: Sequence[int] = (1, 1, 1)) -> Triple:
        """The input that gives `min_output` voxels in evaluation."""
        return triple([n + lost for n, lost in zip(min_output, self.context, strict=True)])

    def output_shape(self, input_shape: Sequence[int]) -> Triple:
        """Voxels that an input gives in evaluation; DataError where it is below the field."""
        shape = triple([n - lost for n, lost in zip(input_shape, self.context, strict=True)])
        if min(shape) < 1:
            raise DataError(
                f"volume smaller than the field of view: input {list(input_shape)} voxels zyx, "
                f"this network needs at least {list(self.field_of_view)}; take a larger volume "
                "or another network"
            )
        return shape

    def flop(self, input_shape: Sequence[int]) -> int:
        """Floating-point operations of a dense pass: two per multiply-add of convolutions."""
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

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Weights and biases as ELEKTRONN begins, layer by layer."""
        for part in self.parts:
            part.initialise(generator)
        if self.decoder is not None:
            self.decoder.initialise(generator)


PROBABILITIES = {"nll_multiple_binary": "sigmoid", "regression": "values"}
"""What a network gives for each target, where it is not softmax."""


def build_elektronn(
    network: Mapping[str, Any], *, seed: int = 0, device: torch.device | str = "cpu"
) -> ElektronnNetwork:
    """The module of a resolved network of the family elektronn, its weights drawn from `seed`.

    "meta" gives shapes without memory.
    """
    architecture = from_dict(network["architecture"], network["input_shape"])
    with torch.device("meta"):
        module = ElektronnNetwork(
            architecture,
            network["dropout_rates"],
            shared_mask=network["shared_dropout_mask"],
            probabilities=PROBABILITIES.get(network["target"], "softmax"),
            autoencoder=network["autoencoder"],
        )
    return with_weights(module, seed, device)
