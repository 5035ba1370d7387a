"""Expected run length (ERL): how far one can follow a neuron before the first error, nm."""

from __future__ import annotations

from retrace.evaluation.metric import Metric
from retrace.evaluation.node_segments import NodeSegments

_ERL = (
    "length-weighted mean over skeletons of Σ over segments (correct length)² / length of the "
    "skeleton"
)

SKELETON_METRICS: tuple[Metric[NodeSegments], ...] = (
    Metric(
        "erl_nm",
        "ERL, nm",
        _ERL,
        better="higher",
        unit="nm",
        value=lambda nodes: nodes.runs.erl_nm,
        in_tables=True,
    ),
    Metric(
        "max_erl_nm",
        "largest possible ERL, nm",
        "the same for a perfect segmentation",
        better="higher",
        unit="nm",
        value=lambda nodes: nodes.runs.max_erl_nm,
    ),
    Metric(
        "nerl",
        "normalised ERL",
        "`erl_nm` / `max_erl_nm`",
        better="higher",
        value=lambda nodes: nodes.runs.nerl,
    ),
    Metric(
        "merging_segments",
        "merging segments",
        "number of merging segments, without segment 0",
        better="lower",
        value=lambda nodes: nodes.runs.merging_segments,
    ),
)
