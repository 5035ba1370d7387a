"""Settings of networks that ask for more weights, layers or voxels than a machine holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrace.config.network_settings import DatasetTraits
from retrace.config.networks import network_content, resolved
from retrace.config.yaml_files import merge

LARGE = 10**9
ENDLESS = 10**4000
"""A number that YAML can write, and whose square str refuses to."""
TRAITS = DatasetTraits(voxel_size_nm=(40, 4, 4), isotropic=False, example_classes=10)


def resolve(name: str, changes: Mapping[str, Any]) -> Any:
    """A network of this repository with some settings changed, resolved for a dataset."""
    content = merge(network_content(name), changes)
    return resolved(content, TRAITS, f"network {name!r}")


def in_recipe(**settings: Any) -> dict[str, Any]:
    """Settings of a network of the family lsd for anisotropic voxels."""
    return {"recipes": {"anisotropic": settings}}


def _conv(name: str, maps: int = 1, side: int = 1, **more: Any) -> dict[str, Any]:
    return {"conv": name, "size": [1, side, side], "to": f"n{name}", "maps": maps, **more}


LAST = _conv("last", 2, function="linear")
SETTINGS: dict[str, tuple[str, dict[str, Any], str]] = {
    "lsd: maps": ("mtlsd", {"fmaps": LARGE}, "1000000000 feature maps; allowed: 1 to 100000"),
    "lsd: last maps": ("mtlsd", {"fmaps_out": LARGE}, "1000000000 feature maps"),
    "lsd: factor": ("mtlsd", in_recipe(fmap_factor=10**5), "1200000 feature maps"),
    "lsd: endless factor": (
        "mtlsd",
        in_recipe(fmap_factor=ENDLESS),
        r"more than 10\^18 feature maps",
    ),
    "lsd: channels of the input": ("mtlsd", {"input_channels": LARGE}, "weights; allowed: up to"),
    "lsd: levels": (
        "mtlsd",
        in_recipe(downsample=[[1, 1, 1]] * 10**4, fmap_factor=1),
        "more than 200 layers",
    ),
    "lsd: factors": ("mtlsd", in_recipe(downsample=[[LARGE] * 3]), "weights; allowed: up to"),
    "lsd: outputs": (
        "mtlsd",
        {"heads": [{"name": "affs", "channels": LARGE}]},
        "1000000000 feature maps",
    ),
    "lsd: many outputs": (
        "mtlsd",
        {"heads": [{"name": "affs", "channels": 3}] * 1000},
        "more than 200 layers",
    ),
    "lsd: patch": ("mtlsd", in_recipe(input_shape=[LARGE] * 3), "input_shape of 1000000000 x"),
    "lsd: endless patch": ("mtlsd", in_recipe(input_shape=[ENDLESS] * 3), r"more than 10\^18"),
    "lsd: tile": ("mtlsd", in_recipe(inference_shape=[LARGE] * 3), "inference_shape of 1000000000"),
    "lsd: batch": ("mtlsd", {"batch_size": LARGE}, "a batch of 1000000000"),
    "elektronn: maps": ("mlp", {"MLP_layers": [300, LARGE]}, "1000000000 feature maps"),
    "elektronn: weights": ("mlp", {"MLP_layers": [50_000] * 2}, "weights; allowed: up to"),
    "elektronn: layers": ("mlp", {"MLP_layers": [1] * 10**5}, "has 100000 layers"),
    "elektronn: input": ("mlp", {"desired_input": LARGE}, "1000000000 voxels|weights; allowed"),
    "elektronn: classes": ("mlp", {"n_lab": LARGE}, "1000000000 feature maps"),
    "elektronn: filters": ("srini", {"nof_filters": [LARGE] * 5}, "network 'srini'"),
    "znn: maps": ("n4", {"layers": [_conv("a", LARGE), LAST]}, "1000000000 feature maps"),
    "znn: weights": ("n4", {"layers": [_conv("a", 10**5), _conv("b", 10**5), LAST]}, "weights; al"),
    "znn: filter": ("n4", {"layers": [_conv("a", 4, 10**5), LAST]}, "weights; allowed: up to"),
    "znn: side": ("n4", {"layers": [_conv("a", 4, LARGE), LAST]}, "1000000000 voxels along"),
    "znn: layers": (
        "n4",
        {"layers": [*(_conv(f"c{n}") for n in range(20_000)), LAST]},
        "40003 nodes and edges; allowed: up to 1000",
    ),
    "znn: strides": (
        "n4",
        {"layers": [*(_conv(f"c{n}", stride=[1, 9**5, 1]) for n in range(400)), LAST]},
        "voxels along an axis",
    ),
    "seamless: levels": ("seamless", {"height": LARGE}, "more than 200 layers"),
    "seamless: kernel": ("seamless", {"kernel": 10**6 + 1}, "weights; allowed: up to"),
    "seamless: shifts": ("seamless", {"correlation_px": LARGE}, "weights; allowed: up to"),
    "seamless: maps": (
        "seamless",
        {"encoder_maps": {"first": LARGE, "step": 0}},
        "feature maps; allowed: 1 to",
    ),
    "seamless: growing maps": (
        "seamless",
        {"encoder_maps": {"first": 8, "step": LARGE}},
        "feature maps; allowed: 1 to",
    ),
    "seamless: aligners": ("seamless", {"aligner_maps": [1] * 10**5}, "more than 200 layers"),
}
"""For each the network, the changes, and what the error says."""
