"""The number format in which a prediction is computed."""

from __future__ import annotations

import torch

from retrace.device import uses_bf16
from retrace.records.record import note_resolved


def prepare_precision(precision: str, dtype: str, device: torch.device) -> bool:
    """Whether to autocast a prediction to bfloat16; the job's record notes what `auto` became.

    Values that are stored as `dtype` float32 are computed in float32, unless `precision` is set.
    ConfigError for an unknown precision.
    """
    if precision == "auto" and dtype == "float32":
        precision = "fp32"
    bf16 = uses_bf16(precision, device)
    note_resolved("precision", "bf16" if bf16 else "fp32")
    return bf16
