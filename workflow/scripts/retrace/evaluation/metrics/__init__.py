"""All metrics, found by their modules: a module in this package adds its metrics everywhere.

A module declares one of the tuples below. Tables, plots, comparisons, reports and the page of
metrics show what is declared there, in the order of the modules' names.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Any

from retrace.evaluation.boundary_sections import ThresholdedSection
from retrace.evaluation.class_tally import ClassTally
from retrace.evaluation.contingency import Contingency
from retrace.evaluation.metric import Metric
from retrace.evaluation.node_segments import NodeSegments

_MODULES = [
    import_module(f"{__name__}.{name}")
    for name in sorted(m.name for m in pkgutil.iter_modules(__path__))
]


def _declared(name: str) -> tuple[Any, ...]:
    return tuple(metric for module in _MODULES for metric in getattr(module, name, ()))


SEGMENT_METRICS: tuple[Metric[Contingency], ...] = _declared("SEGMENT_METRICS")
"""Of segments against ground-truth objects, over voxels or skeleton nodes."""
SKELETON_METRICS: tuple[Metric[NodeSegments], ...] = _declared("SKELETON_METRICS")
"""Of the segments at the nodes of skeletons."""
BOUNDARY_METRICS: tuple[Metric[ThresholdedSection], ...] = _declared("BOUNDARY_METRICS")
"""Of boundary maps, section by section."""
CLASS_METRICS: tuple[Metric[ClassTally], ...] = _declared("CLASS_METRICS")
"""Of classified voxels."""
