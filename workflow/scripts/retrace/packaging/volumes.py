"""Interface of networks with one output voxel per input voxel inside their field of view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from retrace.config.network_settings import Head, VoxelNetworkSettings
from retrace.packaging.interface import (
    PackageInterface,
    PackageTensor,
    Scaling,
    batch_axis,
    channel_axis,
    grey_values,
    run_network,
    smooth_noise,
    space_axes,
)
from retrace.planning.package_settings import PackagedDataset

TEST_OUTPUT = (2, 8, 8)
"""Smallest output of the test tensors, voxels (z, y, x)."""

READING = """\
Input (N, {channels}, Z, Y, X), {values}. Voxels are {voxel} nm (z, y, x).
Convolutions are valid: the output is {context} voxels (z, y, x) smaller than the input and lies in
its middle. The smallest input is {least}; each axis can be larger by multiples of {step}."""


def volume_interface(
    module: Any,
    network: VoxelNetworkSettings,
    dataset: PackagedDataset,
    values: str,
    scaling: Scaling | None = None,
) -> PackageInterface:
    """Input (N, C, Z, Y, X) and outputs (N, C, Z', Y', X'); `values` describes the input's values.

    With `scaling` the input has grey values, 0 to 255.
    """
    voxel, channels = dataset.voxel_size_nm, network.input_channels
    assert voxel is not None, "volumes have a voxel size"
    least, step = (
        [int(n) for n in shape] for shape in (module.valid_shape(TEST_OUTPUT), module.stride)
    )
    noise = smooth_noise((channels, *least))[None]
    test = grey_values(noise) if scaling else noise.astype(np.float32)
    sizes = [{"min": size, "step": by} for size, by in zip(least, step, strict=True)]
    axes = [batch_axis(), channel_axis(channels, "raw"), *space_axes(sizes, voxel)]
    outputs = run_network(module, [test], scaling)
    return PackageInterface(
        inputs=(PackageTensor("raw", values, axes, test),),
        outputs=tuple(
            _output(head, module.context, voxel, outputs[head.name]) for head in network.heads
        ),
        reading=READING.format(
            channels=channels,
            values=values,
            voxel=list(voxel),
            context=list(module.context),
            least=least,
            step=step,
        ),
        summary=f"electron microscopy to {' and '.join(head.name for head in network.heads)}",
        tags=("electron-microscopy", "connectomics", "3d", "segmentation"),
        scaling=scaling,
    )


def _output(
    head: Head, context: Sequence[int], voxel_size_nm: Sequence[float], test: np.ndarray
) -> PackageTensor:
    """An output that is `context` voxels (z, y, x) smaller than the input."""
    sizes = [
        {"tensor_id": "raw", "axis_id": axis, "offset": -int(lost)}
        for axis, lost in zip("zyx", context, strict=True)
    ]
    axes = [
        batch_axis(),
        channel_axis(head.channels, head.name),
        *space_axes(sizes, voxel_size_nm),
    ]
    return PackageTensor(head.name, f"{head.name}, {head.channels} channels", axes, test)
