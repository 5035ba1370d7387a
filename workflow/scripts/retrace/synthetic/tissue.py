"""What generated neuropil is like: sizes in nm, brightness in grey values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tissue:
    """Neurites, organelles and their image. Lengths in nm, brightness from 0 to 255.

    `diameter_nm`: typical neurite. `bend`: change of direction per step. `mitochondria`:
    probability per step that one begins. `cytoplasm`, `membrane`: grey values. `noise`: its
    standard deviation. `section_contrast`: standard deviation of the gain of a section.
    """

    diameter_nm: float = 240.0
    bend: float = 0.22
    membrane_nm: float = 12.0
    mitochondria: float = 0.05
    vesicles_per_um3: float = 150.0
    cytoplasm: float = 168.0
    membrane: float = 70.0
    noise: float = 15.0
    blur_nm: float = 6.0
    section_contrast: float = 0.05
