"""Packages of the family elektronn: networks of volumes, and networks of single examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from retrace.config.elektronn_network import ElektronnNetworkSettings
from retrace.elektronn.architecture import RECONSTRUCTION
from retrace.errors import DataError
from retrace.networks.builders import ELEKTRONN
from retrace.packaging.family import FamilyPackage
from retrace.packaging.interface import (
    PackageInterface,
    PackageTensor,
    Scaling,
    TensorAxes,
    batch_axis,
    channel_axis,
    grey_values,
    index_axis,
    run_network,
    smooth_noise,
    space_axes,
)
from retrace.packaging.volumes import volume_interface
from retrace.planning.package_settings import PackagedDataset

TEST_EXAMPLES = 2
VOLUME_VALUES = "float32, grey values of raw divided by 255"
EXAMPLE_VALUES = "float32: grey values, 0 to 255"

READING = """\
Input {shape}: float32 grey values, 0 to 255, which become v / 255 - {mean:.6g}; {mean:.6g} is the
mean of the training images{cut}. One answer per input, which has exactly this size."""
CUT = " (images of the dataset lose a pixel on each side)"


def _interface(
    module: Any,
    network: ElektronnNetworkSettings,
    dataset: PackagedDataset,
    metadata: Mapping[str, Any],
) -> PackageInterface:
    """Volumes to classes of voxels, or single examples to classes or reconstructions."""
    if module.is_dense:
        return volume_interface(module, network, dataset, VOLUME_VALUES)
    return _example_interface(module, network, metadata)


def _example_interface(
    module: Any, network: ElektronnNetworkSettings, metadata: Mapping[str, Any]
) -> PackageInterface:
    """Images (N, C, Y, X) or vectors (N, L) to one answer each.

    DataError if the weights do not come with the mean of their training images.
    """
    if "input_mean" not in metadata:
        raise DataError(
            f"the weights of network {network.name!r} come without the mean of their training "
            "images (`input_mean`), which is subtracted from each input; train the network here"
        )
    (head,) = network.heads
    shape, axes = _example_axes(network)
    test = grey_values(np.stack([smooth_noise((1, *shape))[0]] * TEST_EXAMPLES))
    test[1:] = 255 - test[1:]
    scaling = Scaling(1, -float(metadata["input_mean"]))
    (answer,) = run_network(module, [test], scaling).values()
    rebuilds = head.name == RECONSTRUCTION
    values = index_axis(head.channels) if rebuilds else channel_axis(head.channels, "class")
    description = f"{head.name}, {head.channels} values"
    return PackageInterface(
        inputs=(PackageTensor("raw", EXAMPLE_VALUES, axes, test),),
        outputs=(PackageTensor(head.name, description, [batch_axis(), values], answer),),
        reading=READING.format(
            shape=f"(N, {', '.join(map(str, shape))})",
            mean=metadata["input_mean"],
            cut=CUT if network.shift_augment else "",
        ),
        summary=f"{'images' if len(shape) > 1 else 'vectors'} to {head.name}",
        tags=("2d", "denoising") if rebuilds else ("2d", "classification"),
        scaling=scaling,
    )


def _example_axes(network: ElektronnNetworkSettings) -> tuple[Sequence[int], TensorAxes]:
    """Shape of one example, and the input's axes."""
    if len(network.input_shape) == 1:
        return network.input_shape, [batch_axis(), index_axis(network.input_shape[0])]
    shape = (network.input_channels, *network.input_shape)
    space = space_axes(network.input_shape, None)
    return shape, [batch_axis(), channel_axis(network.input_channels, "raw"), *space]


PACKAGE = FamilyPackage(
    module="retrace.networks.elektronn",
    builder=ELEKTRONN,
    call="build_elektronn(from_dict(architecture), "
    "decoder=decoder and DecoderSettings(**decoder), **arguments)",
    parsed=("architecture", "decoder"),
    interface=_interface,
    citation={
        "text": "The ELEKTRONN developers, ELEKTRONN: neural networks for image data",
        "url": "https://github.com/ELEKTRONN/ELEKTRONN",
    },
)
