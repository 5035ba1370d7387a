"""Shows what the encoders of a trained pyramid make of a section (SEAMLeSS, inspect_enc.py)."""

from __future__ import annotations

from pathlib import Path

import torch

from retrace.alignment.prepare import prepare_sections, valid_mask
from retrace.alignment.stack_files import StackDataset
from retrace.checkpoints.safetensors import load_model, read_metadata
from retrace.checkpoints.seamless import PT, load_overlap
from retrace.config.any_network import stored_network
from retrace.config.networks import load_network, network_by_name
from retrace.config.seamless_network import SeamlessNetworkSettings
from retrace.errors import ConfigError, DataError
from retrace.files import atomic_write
from retrace.networks import build_network
from retrace.networks.seamless import Seamless
from retrace.viewing.encoding_pictures import encodings_figure

ALIGNS = "encodings are drawn of networks that align, of the family 'seamless'"


def trained_pyramid(archive: Path, name: str | None) -> tuple[Seamless, SeamlessNetworkSettings]:
    """The network in an archive, and its settings; of a .pt, which has none, those called `name`.

    ConfigError for a .pt without a name, DataError for an archive of another family.
    """
    if archive.suffix in PT and name is None:
        raise ConfigError(
            f"{archive} holds weights without their settings; add --network NAME, the network "
            "whose `state_archive` it is"
        )
    if not archive.is_file():
        raise DataError(f"--archive {archive} does not exist; name a model.safetensors, or a .pt")
    family = load_network(name).family if name else "seamless"
    if family != "seamless":
        raise ConfigError(f"--network {name}: {ALIGNS}, and this one is of the family {family!r}")
    network = network_by_name(name) if name else stored_network(read_metadata(archive)["network"])
    if not isinstance(network, SeamlessNetworkSettings):
        raise DataError(
            f"{archive}: {ALIGNS}, and network {network.name!r} is of the family {network.family!r}"
        )
    module = build_network(network)
    if name is None:
        load_model(archive, module, network)
    else:
        for line in load_overlap(archive, module):
            print(f"warning: {line}")
    return module.eval(), network


def inspect_encodings(
    archive: Path,
    stacks: Path,
    *,
    stack: int,
    section: int,
    maps: int,
    output: Path,
    name: str | None = None,
) -> None:
    """Writes a picture of the encodings of one section at each level, `maps` of each.

    `archive`, `name`: see `trained_pyramid`; `stack`, `section`: numbers in the file of stacks,
    from 0. ConfigError for a number that does not exist.
    """
    module, network = trained_pyramid(archive, name)
    if maps < 1:
        raise ConfigError(f"--count {maps}: show 1 map of each level or more")
    if output.suffix.lower() != ".png":
        raise ConfigError(f"--output {output}: the picture is a PNG; give a name that ends in .png")
    dataset = StackDataset([stacks])
    _check_number("--dataset", stack, len(dataset), stacks)
    images = dataset[stack].images
    _check_number("--section", section, len(images), stacks)
    unit = 2**module.coarsest
    side = [n // unit * unit for n in images.shape[1:]]
    if not all(side):
        raise DataError(f"{stacks}: sections of {list(images.shape[1:])} px are below {unit} px")
    image = images[section, : side[0], : side[1]]
    radius_px = network.contrast.equalised_radius_px
    _, seen = prepare_sections(
        image, valid_mask(image), radius_px=radius_px, fill=network.input.mean
    )
    with torch.inference_mode():
        levels = [level[0] for level in module.encode(seen[None, None])]
    atomic_write(output, encodings_figure(seen, levels, maps))


def _check_number(option: str, number: int, count: int, path: Path) -> None:
    if not 0 <= number < count:
        raise ConfigError(f"{option} {number}: {path} has numbers 0 to {count - 1}")
