"""Packages of the family lsd: U-Nets that predict affinities and local shape descriptors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrace.config.lsd_network import LsdNetworkSettings
from retrace.networks.builders import UNET
from retrace.packaging.family import FamilyPackage
from retrace.packaging.interface import PackageInterface, Scaling
from retrace.packaging.volumes import volume_interface
from retrace.planning.package_settings import PackagedDataset

RAW = "float32: grey values of raw, 0 to 255, which become 2 v / 255 - 1"
RAW_AND_DESCRIPTORS = (
    "float32: raw in [-1, 1] (where there is raw), then predicted descriptors in [0, 1]"
)


def _interface(
    module: Any,
    network: LsdNetworkSettings,
    dataset: PackagedDataset,
    metadata: Mapping[str, Any],
) -> PackageInterface:
    """Raw, or raw and descriptors, to affinities and descriptors."""
    if network.input_channels == 1:
        return volume_interface(module, network, dataset, RAW, Scaling(2, -1))
    return volume_interface(module, network, dataset, RAW_AND_DESCRIPTORS)


PACKAGE = FamilyPackage(
    module="retrace.networks.unet",
    builder=UNET,
    call="build_unet(**arguments)",
    interface=_interface,
    citation={
        "text": "Sheridan et al., Local shape descriptors for neuron segmentation, Nature "
        "Methods 20, 2023",
        "doi": "10.1038/s41592-022-01711-z",
    },
)
