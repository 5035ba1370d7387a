"""Augmentations: parameters drawn on the CPU per iteration, applied in torch on any device."""

from retrace.augment.intensity import change_intensity
from retrace.augment.resample import sample_linear, sample_nearest
from retrace.augment.warp import Warp, draw_warp

__all__ = ["Warp", "change_intensity", "draw_warp", "sample_linear", "sample_nearest"]
