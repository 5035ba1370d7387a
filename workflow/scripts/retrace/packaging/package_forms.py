"""What packages of each family's networks hold: the module, its call, and what to cite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retrace.alignment.pair import build_pair_aligner
from retrace.config.seamless_network import SeamlessNetworkSettings
from retrace.networks import builders
from retrace.networks.builders import NetworkBuilder, pyramid_of


@dataclass(frozen=True)
class PackageForm:
    """How the networks of one family are packaged."""

    module: str
    """The module that builds the packaged network."""
    builder: NetworkBuilder
    """How the packaged network is built in this library."""
    call: str
    """The same in the package: a call with the arguments in its config.json."""
    citation: Mapping[str, str]
    """Text and doi or url to cite, as bioimage.io writes them."""
    parsed: tuple[str, ...] = ()
    """Arguments that the call has to parse."""


def pair_aligner_arguments(network: SeamlessNetworkSettings) -> dict[str, Any]:
    """The arguments of `build_pair_aligner`."""
    return {
        "pyramid": pyramid_of(network),
        "radius_px": network.contrast.equalised_radius_px,
        "flip_average": network.align.flip_average,
    }


UNET = PackageForm(
    module="retrace.networks.unet",
    builder=builders.UNET,
    call="build_unet(**arguments)",
    citation={
        "text": "Sheridan et al., Local shape descriptors for neuron segmentation, Nature Methods "
        "20, 2023",
        "doi": "10.1038/s41592-022-01711-z",
    },
)
ZNN = PackageForm(
    module="retrace.networks.znn",
    builder=builders.ZNN,
    call="build_znn(graph_from(graph, graph['inits'], graph['unseeded']), **arguments)",
    parsed=("graph",),
    citation={
        "text": "Zlateski, Lee, Seung, ZNN: a fast and scalable algorithm for training 3D "
        "convolutional networks on multi-core and many-core shared memory machines, IPDPS 2016",
        "doi": "10.1109/IPDPS.2016.119",
    },
)
ELEKTRONN = PackageForm(
    module="retrace.networks.elektronn",
    builder=builders.ELEKTRONN,
    call="build_elektronn(from_dict(architecture, architecture['input_shape']), "
    "decoder=decoder and DecoderSettings(**decoder), **arguments)",
    parsed=("architecture", "decoder"),
    citation={
        "text": "The ELEKTRONN developers, ELEKTRONN: neural networks for image data",
        "url": "https://github.com/ELEKTRONN/ELEKTRONN",
    },
)
SEAMLESS = PackageForm(
    module="retrace.alignment.pair",
    builder=NetworkBuilder(build_pair_aligner, pair_aligner_arguments),
    call="build_pair_aligner(Pyramid(**pyramid), **arguments)",
    parsed=("pyramid",),
    citation={
        "text": "Mitchell, Keselj, Popovych, Buniatyan, Seung, Siamese encoding and alignment by "
        "multiscale learning with self-supervision, 2019",
        "url": "https://arxiv.org/abs/1904.02643",
    },
)
