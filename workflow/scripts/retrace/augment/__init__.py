"""Augmentations: random parameters drawn on the CPU, applied in torch on any device.

`draw_...` functions take a numpy generator and return parameters; the same generator state gives
the same parameters on every device.
"""
