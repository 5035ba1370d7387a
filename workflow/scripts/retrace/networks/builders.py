"""How the networks of each family are built from their settings.

`arguments` of a builder holds plain values and dataclasses, so that a package can store them as
JSON and build the same network without settings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

from retrace.config.elektronn_network import ElektronnNetworkSettings
from retrace.config.lsd_network import LsdNetworkSettings
from retrace.config.seamless_network import SeamlessNetworkSettings, StackAlignment
from retrace.config.znn_network import ZnnNetworkSettings
from retrace.elektronn.parameters import Autoencoder
from retrace.networks.elektronn import DecoderSettings, build_elektronn
from retrace.networks.seamless import FieldOptions, Pyramid, build_seamless
from retrace.networks.tuning import set_convolution_modes
from retrace.networks.unet import build_unet
from retrace.networks.znn import ZnnNetwork, build_znn
from retrace.znn.graph import Graph


@dataclass(frozen=True)
class NetworkBuilder:
    """A family's function that builds a network, and the arguments that it takes from settings."""

    build: Callable[..., nn.Module]
    """Also takes `seed` and `device`."""
    arguments: Callable[[Any], dict[str, Any]]
    prepare_prediction: Callable[[Any, Any, torch.device], None] = lambda *_: None
    """From the module, the settings and the device: chooses how the module computes predictions.

    Weights are loaded after it, in the type that it chooses.
    """


def unet_arguments(network: LsdNetworkSettings) -> dict[str, Any]:
    """The arguments of `build_unet` for a network of the family lsd."""
    return {
        "input_channels": network.input_channels,
        "fmaps": network.fmaps,
        "fmap_factor": network.fmap_factor,
        "downsample": network.downsample,
        "heads": {head.name: head.channels for head in network.heads},
        "fmaps_out": network.fmaps_out,
    }


def znn_arguments(network: ZnnNetworkSettings) -> dict[str, Any]:
    """The arguments of `build_znn`."""
    nodes, edges = network.graph.nodes, network.graph.edges
    return {
        "graph": Graph(nodes, edges, network.inits, network.unseeded),
        "heads": {head.name: head.node for head in network.heads},
        "softmax": network.cost_fn == "softmax_loss",
    }


def choose_convolutions(
    module: ZnnNetwork, network: ZnnNetworkSettings, device: torch.device
) -> None:
    """Sets how a prediction is computed, as `dtype` and `forward_conv_mode` say."""
    module.to(getattr(torch, network.dtype))
    mode = network.forward_conv_mode or "direct"
    set_convolution_modes(module, mode, network.inference_shape, device, training=False)


PROBABILITIES = {"nll_multiple_binary": "sigmoid", "regression": "values"}
"""How an ELEKTRONN network's outputs become probabilities, by `target`; others use softmax."""


def elektronn_arguments(network: ElektronnNetworkSettings) -> dict[str, Any]:
    """The arguments of `build_elektronn`."""
    return {
        "architecture": network.architecture.at(network.input_shape),
        "dropout": network.dropout_rates,
        "shared_mask": network.shared_dropout_mask,
        "probabilities": PROBABILITIES.get(network.target, "softmax"),
        "decoder": None if network.autoencoder is None else _decoder(network.autoencoder),
    }


def _decoder(settings: Autoencoder) -> DecoderSettings:
    return DecoderSettings(
        activation=settings.activation_func,
        noise=settings.input_noise,
        noise_in_evaluation=settings.noise_in_evaluation,
        train_biases=settings.train_decoder_bias,
    )


def pyramid_of(network: SeamlessNetworkSettings) -> Pyramid:
    """The shape of a network of the family seamless."""
    return Pyramid(
        height=network.height,
        skip=network.skip,
        topskips=network.topskips,
        composition=network.composition,
        mean=network.input.mean,
        std=network.input.std,
        first_maps=network.encoder_maps.first,
        map_step=network.encoder_maps.step,
        aligner_maps=network.aligner_maps,
        kernel=network.kernel,
        correlation_px=network.correlation_px,
        pre_encoder=network.pre_encoder,
        unit=network.unit,
        train_size=network.train_size,
        zero_start=network.zero_start,
    )


def field_options_of(align: StackAlignment) -> FieldOptions:
    """How fields are computed, in the settings `align`."""
    names = (field.name for field in fields(FieldOptions))
    return FieldOptions(**{name: getattr(align, name) for name in names})


UNET = NetworkBuilder(build_unet, unet_arguments)
ZNN = NetworkBuilder(build_znn, znn_arguments, choose_convolutions)
ELEKTRONN = NetworkBuilder(build_elektronn, elektronn_arguments)
SEAMLESS = NetworkBuilder(build_seamless, lambda network: {"pyramid": pyramid_of(network)})
