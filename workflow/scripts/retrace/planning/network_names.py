"""Names of the networks by their properties; read once per run of the workflow."""

from __future__ import annotations

from functools import cache

from retrace.config.networks import kind_by_name, names_by_family, networks_that_align
from retrace.config.yaml_files import names


@cache
def _by_family() -> dict[str, list[str]]:
    return names_by_family()


@cache
def _kinds() -> dict[str, str]:
    return {name: kind_by_name(name) for name in names("networks")}


def networks_of_family(family: str) -> list[str]:
    """Names of the networks of a family, without files that cannot be read."""
    return _by_family().get(family, [])


@cache
def aligning_networks() -> list[str]:
    """Names of the networks that align sections."""
    return networks_that_align()


def predicting(kind: str) -> list[str]:
    """Names of the networks that predict `kind`, such as "boundary"; see `output_kind`."""
    return [name for name, predicted in _kinds().items() if predicted == kind]
