"""Packages of the family seamless: networks that align pairs of sections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from retrace.alignment.pair import FIELD, build_pair_aligner
from retrace.config.seamless_network import SeamlessNetworkSettings
from retrace.networks.builders import NetworkBuilder, field_options_of, pyramid_of
from retrace.packaging.family import FamilyPackage
from retrace.packaging.interface import (
    PackageInterface,
    PackageTensor,
    batch_axis,
    channel_axis,
    grey_values,
    run_network,
    smooth_noise,
    space_axes,
)
from retrace.planning.package_settings import PackagedDataset

TEST_SIDE = 64
"""Smallest side of a test section, pixels."""
VALUES = "float32, grey values of a section, 0 to 255; 0 where nothing was imaged"
MEANING = "displacement y, x in pixels: source(r + field(r)) corresponds to target(r)"

READING = """\
Two inputs (N, 1, Y, X), `source` and `target`: float32 grey values of sections, 0 to 255, as
imaged; areas of 5 x 5 zeros or more count as not imaged. The network normalises the contrast
({contrast}). Pixels are {pixel} nm (y, x); sides are multiples of {unit} pixels.
`field` (N, 2, Y, X), along y and x in pixels: the aligned source at r is the source at
r + field(r), interpolated bilinearly, and 0 outside. No masks are needed: they are for training."""


def _arguments(network: SeamlessNetworkSettings) -> dict[str, Any]:
    """The arguments of `build_pair_aligner`."""
    return {
        "pyramid": pyramid_of(network),
        "options": field_options_of(network.align),
        "radius_px": network.contrast.equalised_radius_px,
    }


def _interface(
    module: Any,
    network: SeamlessNetworkSettings,
    dataset: PackagedDataset,
    metadata: Mapping[str, Any],
) -> PackageInterface:
    """Two sections (N, 1, Y, X) to the field (N, 2, Y, X) that aligns the first one."""
    assert dataset.voxel_size_nm is not None, "sections have a pixel size"
    unit = 2**module.coarsest
    side = -(-TEST_SIDE // unit) * unit
    pixel, contrast = dataset.voxel_size_nm[1:], network.contrast.plain()
    target = grey_values(smooth_noise((1, side, side))[None])
    pair = {"source": np.roll(target, 1, -1), "target": target}
    sizes = {
        "source": [{"min": side, "step": unit}] * 2,
        "target": [{"tensor_id": "source", "axis_id": axis} for axis in "yx"],
    }
    field = run_network(module, [*pair.values()], None)[FIELD]
    components = {"type": "channel", "channel_names": ["field_y", "field_x"]}
    field_axes = [batch_axis(), components, *space_axes(sizes["target"], pixel)]
    return PackageInterface(
        inputs=tuple(
            PackageTensor(
                name,
                VALUES,
                [batch_axis(), channel_axis(1, name), *space_axes(sizes[name], pixel)],
                section,
            )
            for name, section in pair.items()
        ),
        outputs=(PackageTensor(FIELD, MEANING, field_axes, field),),
        reading=READING.format(
            contrast=", ".join(f"{key} {value}" for key, value in contrast.items()),
            pixel=list(pixel),
            unit=unit,
        ),
        summary="two sections to the displacements that align them",
        tags=("electron-microscopy", "connectomics", "2d", "registration"),
    )


PACKAGE = FamilyPackage(
    module="retrace.alignment.pair",
    builder=NetworkBuilder(build_pair_aligner, _arguments),
    call="build_pair_aligner(Pyramid(**pyramid), FieldOptions(**options), **arguments)",
    parsed=("pyramid", "options"),
    interface=_interface,
    citation={
        "text": "Mitchell, Keselj, Popovych, Buniatyan, Seung, Siamese encoding and alignment "
        "by multiscale learning with self-supervision, 2019",
        "url": "https://arxiv.org/abs/1904.02643",
    },
)
