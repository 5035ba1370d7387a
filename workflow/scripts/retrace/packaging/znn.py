"""Packages of the family znn: ZNN's networks of volumes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrace.config.znn_network import ZnnNetworkSettings
from retrace.networks.builders import ZNN
from retrace.packaging.family import FamilyPackage
from retrace.packaging.interface import PackageInterface
from retrace.packaging.volumes import volume_interface
from retrace.planning.package_settings import PackagedDataset

VALUES = "float32, normalised as `preprocess` of the dataset says, as in training"


def _interface(
    module: Any,
    network: ZnnNetworkSettings,
    dataset: PackagedDataset,
    metadata: Mapping[str, Any],
) -> PackageInterface:
    """Normalised raw to boundaries, affinities or classes."""
    return volume_interface(module, network, dataset, VALUES)


PACKAGE = FamilyPackage(
    module="retrace.networks.znn",
    builder=ZNN,
    call="build_znn(graph_from(graph, graph['inits'], graph['unseeded']), **arguments)",
    parsed=("graph",),
    interface=_interface,
    citation={
        "text": "Zlateski, Lee, Seung, ZNN: a fast and scalable algorithm for training 3D "
        "convolutional networks on multi-core and many-core shared memory machines, IPDPS 2016",
        "doi": "10.1109/IPDPS.2016.119",
    },
)
