"""Augmentations: random parameters drawn on the CPU, applied in torch on any device.

`draw_...` functions take a numpy generator and return parameters; the same generator state gives
the same parameters on every device.
"""

from retrace.augment.intensity import change_intensity
from retrace.augment.resample import sample_linear, sample_nearest
from retrace.augment.warp import Warp, draw_warp

__all__ = ["Warp", "change_intensity", "draw_warp", "sample_linear", "sample_nearest"]
