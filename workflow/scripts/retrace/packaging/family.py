"""How a family of networks is packaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from retrace.networks.builders import NetworkBuilder
from retrace.packaging.interface import PackageInterface
from retrace.planning.package_settings import PackagedDataset

DescribeInterface = Callable[[Any, Any, PackagedDataset, Mapping[str, Any]], PackageInterface]


@dataclass(frozen=True)
class FamilyPackage:
    """How networks of a family are packaged; named by `package` of the family's entry."""

    module: str
    """Module of the library that network.py is joined from, with all it imports."""
    builder: NetworkBuilder
    """Builds the packaged network; its arguments are stored in config.json."""
    call: str
    """Python call that builds the network from these `arguments` in network.py."""
    interface: DescribeInterface
    """Function (network in evaluation mode, its settings, dataset, metadata of the weights)."""
    citation: Mapping[str, str]
    """Entry of `cite` in rdf.yaml: text, and doi or url."""
    parsed: tuple[str, ...] = ()
    """Arguments that `call` converts from JSON."""
