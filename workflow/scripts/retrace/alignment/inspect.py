"""Shows what the encoders of a trained pyramid make of a section (SEAMLeSS, inspect_enc.py)."""

from __future__ import annotations

from pathlib import Path

import torch

from retrace.alignment.prepare import prepare_sections, valid_mask
from retrace.alignment.stack_files import StackDataset
from retrace.checkpoints.safetensors import load_model, read_metadata
from retrace.config.any_network import stored_network
from retrace.config.seamless_network import SeamlessNetworkSettings
from retrace.errors import ConfigError, DataError
from retrace.files import atomic_write
from retrace.networks import build_network
from retrace.viewing.encoding_pictures import encodings_figure


def inspect_encodings(
    archive: Path, stacks: Path, *, stack: int, section: int, maps: int, output: Path
) -> None:
    """Writes a picture of the encodings of one section at each level, `maps` of each.

    `archive`: a trained model; `stack`, `section`: numbers in the file of stacks, from 0.
    ConfigError for a number that does not exist, DataError for a model of another family.
    """
    network = stored_network(read_metadata(archive)["network"])
    if not isinstance(network, SeamlessNetworkSettings):
        raise DataError(f"{archive} holds a network of the family {network.family!r}, not seamless")
    if maps < 1:
        raise ConfigError(f"--count {maps}: show 1 map of each level or more")
    dataset = StackDataset([stacks])
    _check_number("--dataset", stack, len(dataset), stacks)
    images = dataset[stack].images
    _check_number("--section", section, len(images), stacks)
    module = build_network(network)
    load_model(archive, module, network)
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
        levels = [level[0] for level in module.eval().encode(seen[None, None])]
    atomic_write(output, encodings_figure(seen, levels, maps))


def _check_number(option: str, number: int, count: int, path: Path) -> None:
    if not 0 <= number < count:
        raise ConfigError(f"{option} {number}: {path} has numbers 0 to {count - 1}")
