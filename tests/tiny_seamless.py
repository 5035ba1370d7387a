"""A pyramid whose training takes a second, and stacks for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import yaml

import align
from retrace.alignment.stack_files import Stack
from retrace.config.networks import load_network
from retrace.config.seamless_network import SeamlessNetworkSettings
from retrace.config.yaml_files import merge
from retrace.displacement import warp
from retrace.networks.seamless import (
    ENCODER_KERNEL,
    MATCHED_PX,
    PRE_ENCODER_KERNEL,
    SPREAD_PX,
    Pyramid,
)
from retrace.settings_model import as_json, plain_value
from retrace.synthetic.distorted_sections import Distortion, phantom_stack

TINY: dict[str, Any] = {
    "name": "tiny",
    "height": 2,
    "skip": 0,
    "kernel": 3,
    "encoder_maps": {"first": 4, "step": 2},
    "aligner_maps": [4, 4],
    "contrast": {"method": "none"},
    "epochs": 2,
    "fall_time": 1,
    "crop": 32,
    "augment": {"jitter_px": 8},
    "pairs_per_step": 2,
    "visits_per_stack": 2,
    "lambda1": 0.03,
    "mask_smooth_radius": 3,
    "checkpoint_every": 2,
    "snapshot_every": 3,
    "align": {"tile": 32, "overlap": 16, "max_displacement": 40},
}
SECTIONS: dict[str, Any] = {
    "name": "slices",
    "voxel_size_nm": [40, 8, 8],
    "volumes": {"sections": {"raw": {"path": "file://results/slices/sections/layer"}}},
    "alignment": {
        "volume": "sections",
        "made": {"phantom_shape": [7, 96, 96], "jitter_px": 2, "warp_px": 1.0},
        "stacks": {
            "main": {
                "count": 2,
                "validation_count": 1,
                "height": 2,
                "side": 48,
                "validation_fraction": 0.3,
                "test_fraction": 0.3,
                "reject": {"least_filled": 0.3, "least_std": 1},
            }
        },
    },
}
"""A dataset of few sections to align with that pyramid."""
STILL = Distortion(jitter_px=2, warp_px=1.0, spacing_px=24, contrast=0.0)


def network(**changes: Any) -> dict[str, Any]:
    """The settings of the tiny pyramid; `changes` replace single ones."""
    return merge(merge(load_network("seamless_small").plain(), TINY), changes)


def typed(content: Any) -> SeamlessNetworkSettings:
    """The settings of a pyramid as their model."""
    return SeamlessNetworkSettings.model_validate(plain_value(content))


def write_configuration(folder: Path) -> None:
    """The files of the dataset `slices` and of the network `tiny` below a working directory."""
    for kind, content in (
        ("datasets", SECTIONS),
        ("networks", {"extends": "seamless_small"} | TINY),
    ):
        path = folder / "config" / kind / f"{content['name']}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content))


def stack(seed: int = 0, sections: int = 4, side: int = 48) -> Stack:
    """A phantom with known displacements."""
    return phantom_stack((sections, side, side), seed, STILL)


def write_stacks(
    path: Path, count: int = 2, sections: int = 4, side: int = 48, first: int = 0
) -> Path:
    """`count` phantoms as an h5 of stacks with `images` uint8, `masks` and `fields`.

    `first`: seed of the first of them.
    """
    stacks = [stack(first + number, sections, side) for number in range(count)]
    images = torch.stack([s.images for s in stacks]).mul(255).round().to(torch.uint8)
    with h5py.File(path, "w") as file:
        group = file.create_group("main")
        group["images"] = images.numpy()
        group["masks"] = np.stack([s.masks.numpy() for s in stacks])
        group["fields"] = np.stack([s.fields.numpy() for s in stacks if s.fields is not None])
    return path


def training(**changes: Any) -> dict[str, Any]:
    """The settings of `align.py train`."""
    keys = ("iterations", "epochs", "run", "validate_every", "selection")
    return {
        "dataset": "tiny",
        "voxel_size_nm": [40, 8, 8],
        "network": network(**{k: v for k, v in changes.items() if k not in keys}),
        **{key: changes[key] for key in keys if key in changes},
        "seed": 1,
        "device": "cpu",
        "threads": 1,
    }


def train(
    folder: Path, stacks: Path, settings: dict[str, Any], *more: str, name: str = "a"
) -> Path:
    """`align.py train` in `folder`; its model."""
    output = folder / name / "model.safetensors"
    paths = ["--work", folder / "work", "--runs", folder / "runs", "--output", output]
    paths += ["--history", folder / name / "training.json", "--stacks", stacks]
    align.main(["train", "--settings", as_json(settings), *map(str, paths), *more])
    return output


def true_field(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The field F with moved_source(p + F) + F = moved_target(p)."""
    field = torch.zeros_like(batch["source_moved"])
    for _ in range(30):
        field = batch["target_moved"] - warp(batch["source_moved"], field, "border")
    return field


def receptive_radius(pyramid: Pyramid) -> int:
    """Pixels of level 0 around a pixel on which the field there depends, for sections that overlap.

    An aligner reaches (kernel - 1) / 2 pixels of its level per convolution, an encoder 1, and so
    does bilinear interpolation, through which a level reads the coarser ones. Where the field moves
    a section, the radius grows by the displacement.
    """
    reach = (len(pyramid.aligner_maps) + 1) * (pyramid.kernel // 2)
    if pyramid.correlation_px:
        reach += pyramid.correlation_px + MATCHED_PX + 2 * SPREAD_PX
    levels = range(pyramid.coarsest + 1)
    # Warped maps depend on the field at the same pixels, so the reaches of all levels add up.
    aligners = sum((reach + 2) * 2**level for level in levels)
    encoders = sum(2 * (ENCODER_KERNEL // 2) * 2**level + 2**level for level in levels)
    pre_encoder = 5 * (PRE_ENCODER_KERNEL // 2) if pyramid.pre_encoder else 0
    return aligners + encoders + pre_encoder
