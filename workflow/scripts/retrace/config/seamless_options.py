"""The options of SEAMLeSS's programs under their own names, as settings of networks and datasets.

Source: seung-lab/SEAMLeSS, training/train.py, training/gen_stack.py and training/defect_detector.py
of July 2018; `train.py` of other months where its options differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrace.config.aliases import (
    Alias,
    constant,
    is_called,
    not_here,
    only,
    translated,
)
from retrace.config.yaml_files import Settings
from retrace.errors import ConfigError

STILL: Settings = {"jitter_px": 0, "rotation": 0, "scale": 0, "turn": 0, "warp_px": 0}
"""Augmentation that moves nothing."""
HM_RADIUS_PX, LM_RADIUS_PX = 256 // (5 + 1), 256 // (2 + 1)
"""Radius of the equalisation at mip 5 and 2 (normalizer.py)."""
SOURCES = (
    "stacks are named by the dataset: list a set for each mip under its `alignment: stacks`, and a "
    "network trains on all of them"
)
PRIVATE = (
    "the defect networks of SEAMLeSS are private; train_defects_DATASET trains one on the "
    "dataset's own sections"
)
PAPER_TIME = "an option of the program before July 2018, which its README does not have; {}"
LATER = "an option of the program since October 2018 (`train.py start NAME`); {}"


def _radius(hm: Any) -> Settings:
    if not isinstance(hm, bool):
        raise ValueError("give true (mip 5) or false (mip 2)")
    return {"contrast": {"radius_px": HM_RADIUS_PX if hm else LM_RADIUS_PX}}


TRAIN: Mapping[str, Alias] = {
    "size": is_called("height"),
    "k": is_called("kernel"),
    "num_epochs": is_called("epochs"),
    "it": is_called("epochs"),
    "penalty": is_called("smoothness_penalty_type"),
    "dim": is_called("crop"),
    "unflow": is_called("lambda6"),
    "hm": Alias(_radius, "contrast.radius_px"),
    "no_jitter": Alias(constant({"augment": STILL}), "augment"),
    "skip_sample_aug": Alias(constant({"augment": {"input": False}}), "augment.input"),
    "folds_only": Alias(constant({"fold_probability": 1.0}), "fold_probability"),
    "padding": Alias(only(0, "sections are not padded: `augment: cut` blanks their borders")),
    "similarity_penalty_type": Alias(only("mse", "no other similarity is known")),
    "num_targets": Alias(
        only(1, "training compares pairs; to align to several sections set `align: targets`")
    ),
    "batch_size": not_here(
        "SEAMLeSS reads and ignores it; set `pairs_per_step` for several pairs per step"
    ),
    "epoch": not_here("a training resumes by itself at the iteration that it had reached"),
    "eps": not_here("a pair without weight adds nothing to the loss, so none has to be skipped"),
    "dry_run": not_here("`snakemake -n` plans without training; `--config iterations=1` trains 1"),
    "mm": not_here(SOURCES),
    "vhm_src": not_here(SOURCES),
    "hm_src": not_here(SOURCES),
    "lm_src": not_here(SOURCES),
    "lm_defect_net": not_here(PRIVATE),
    "hm_defect_net": not_here(PRIVATE),
    "pe_only": not_here("the pre-encoder is trained with the encoders; see `train_encoders`"),
    "enc_only": not_here("encoders are trained with the aligners; see `train_encoders`"),
    "crack": not_here(PAPER_TIME.format("cracks are learned by the defect network instead")),
    "dilate": not_here(PAPER_TIME.format("see `mask_smooth_radius`")),
    "amp": not_here(PAPER_TIME.format("leave it out")),
    "unet": not_here(PAPER_TIME.format("leave it out")),
    "ep": not_here(PAPER_TIME.format("the encoders always form a pyramid")),
    "upsample_penalty": not_here(PAPER_TIME.format("leave it out")),
    "upsample_factor": not_here(PAPER_TIME.format("leave it out")),
    "info_period": not_here(PAPER_TIME.format("see `snapshot_every`")),
    "inference_only": not_here(PAPER_TIME.format("align_DATASET_NETWORK aligns")),
    "archive_fields": not_here(PAPER_TIME.format("align_DATASET_NETWORK keeps all fields")),
    "pad_value": not_here(PAPER_TIME.format("`input: mean` fills missing pixels")),
    "no_anneal": not_here(PAPER_TIME.format("see `fine_tuning_lr_factor`")),
    "feature_maps": not_here(LATER.format("see `encoder_maps`")),
    "encodings": not_here(LATER.format("see `encoder_maps`")),
    "downsamples": not_here(LATER.format("see `mip` of the stacks")),
    "gamma": not_here(LATER.format("see `fine_tuning_lr_factor`")),
    "gamma_step": not_here(LATER.format("see `fall_time`")),
    "plan": not_here(LATER.format("see `fall_time` and `trunc`")),
    "epochs_per_mip": not_here(LATER.format("see `fall_time`")),
    "wd": not_here(LATER.format("weights do not decay")),
    "seed": not_here("set it for all steps, `--config seed=N`"),
    "supervised": not_here(LATER.format("see `lambda_known`")),
    "unsupervised": not_here(LATER.format("see `lambda_known`")),
    "defect_net": not_here(PRIVATE),
    "training_set": not_here(SOURCES),
    "validation_set": not_here(SOURCES),
    "log": not_here(LATER.format("every iteration is logged")),
    "cpoint": not_here(LATER.format("see `checkpoint_every`")),
    "vis": not_here(LATER.format("see `vis_interval`")),
    "gpu_ids": not_here("one GPU trains; choose it with CUDA_VISIBLE_DEVICES"),
    "num_workers": not_here("set it for all steps, `--config workers=N`"),
}
"""Options of train.py whose names are no settings of a network here."""

STACK_SET: Mapping[str, Alias] = {
    "stack_height": is_called("height"),
    "dim": is_called("side"),
    "coords": is_called("coordinates"),
    "test": not_here("set `test_count`; the test stacks are a file of their own"),
    "no_split": Alias(constant({"test_fraction": 0}), "test_fraction"),
    "source": not_here("the layer is `raw: path` of the volume"),
}
"""Options of gen_stack.py in a set of stacks."""
DETECTOR: Mapping[str, Alias] = {
    "mask_neighborhood_radius": is_called("near_px"),
    "major_dilation_radius": is_called("near_px"),
    "sigmoid_threshold": is_called("threshold"),
    "cc_count": is_called("smallest_px"),
    "minor_dilation_radius": Alias(only(1, "the maximum is over 3 x 3 pixels")),
}
"""Options of defect_detector.py in `alignment: defects`."""


def network_in_own_names(content: Mapping[str, Any], where: str) -> Settings:
    """A network's file with SEAMLeSS's names replaced; ConfigError as in `translated`."""
    if {"vis_interval", "snapshot_every"} <= content.keys():
        raise ConfigError(
            f"{where}: vis_interval (in stacks) and snapshot_every (in iterations) both say how "
            "often pictures are drawn; keep one"
        )
    return translated(content, TRAIN, where)


def dataset_in_own_names(content: Mapping[str, Any], where: str) -> Settings:
    """A dataset's file with SEAMLeSS's names under `alignment` replaced."""
    alignment = content.get("alignment")
    if not isinstance(alignment, Mapping):
        return dict(content)
    groups: Settings = {}
    if isinstance(alignment.get("defects"), Mapping):
        place = f"{where}: alignment.defects"
        groups["defects"] = translated(alignment["defects"], DETECTOR, place)
    stacks = alignment.get("stacks")
    if isinstance(stacks, Mapping):
        groups["stacks"] = {
            name: translated(stack, STACK_SET, f"{where}: alignment.stacks.{name}")
            if isinstance(stack, Mapping)
            else stack
            for name, stack in stacks.items()
        }
    return {**content, "alignment": {**alignment, **groups}}
