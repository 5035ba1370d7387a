"""An EM-like image of labelled cells: membranes, mitochondria, vesicles, texture, noise.

No specimen is imitated. The images have what the workflow meets in real EM: membranes a few voxels
wide, organelles as dark as membranes, and sections that differ in contrast.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from retrace.geometry import NmTriple, Triple, triple
from retrace.synthetic.cell_labels import faces
from retrace.synthetic.tissue import Tissue

VESICLE_NM = 18.0
"""Standard deviation of the dot that shows a vesicle."""


def _soft(mask: np.ndarray, sigma_nm: float, voxel_size_nm: NmTriple) -> np.ndarray:
    """The mask as a smooth ridge (Z, Y, X) float32 with a maximum of about 1."""
    sigma = [sigma_nm / size for size in voxel_size_nm]
    smooth = ndimage.gaussian_filter(mask.astype(np.float32), sigma, mode="nearest")
    return np.asarray(np.minimum(1.0, 1.6 * smooth), np.float32)


def _texture(
    shape: Triple, scale_nm: float, voxel_size_nm: NmTriple, random: Generator
) -> np.ndarray:
    """Smooth noise (Z, Y, X) of unit variance with features of about `scale_nm`."""
    coarse = [max(2, int(n * v / scale_nm) + 2) for n, v in zip(shape, voxel_size_nm, strict=True)]
    noise = random.standard_normal(coarse).astype(np.float32)
    zoomed = ndimage.zoom(
        noise, [n / c for n, c in zip(shape, coarse, strict=True)], order=1, grid_mode=False
    )
    return np.asarray(zoomed / max(float(zoomed.std()), 1e-6), np.float32)


def _vesicles(
    shape: Triple, voxel_size_nm: NmTriple, tissue: Tissue, random: Generator
) -> np.ndarray:
    """Vesicles at random places, (Z, Y, X) in [0, 1]."""
    volume_um3 = float(np.prod([n * v / 1000 for n, v in zip(shape, voxel_size_nm, strict=True)]))
    count = int(volume_um3 * tissue.vesicles_per_um3)
    dots = np.zeros(shape, bool)
    dots[tuple(random.integers(0, n, count) for n in shape)] = True
    sigma = [VESICLE_NM / size for size in voxel_size_nm]
    smooth = ndimage.gaussian_filter(dots.astype(np.float32), sigma)
    return np.asarray(smooth / max(float(smooth.max()), 1e-6), np.float32)


def em_image(
    cells: np.ndarray,
    mitochondria: np.ndarray,
    voxel_size_nm: NmTriple,
    tissue: Tissue,
    random: Generator,
) -> np.ndarray:
    """Grey values (Z, Y, X) uint8 of cells (Z, Y, X; ids from 1) and mitochondria (a mask)."""
    shape = triple(cells.shape)
    shade = random.normal(0, 7, int(cells.max()) + 1).astype(np.float32)
    image = tissue.cytoplasm + shade[cells]
    image += 6 * _texture(shape, 60, voxel_size_nm, random)
    image -= 45 * _vesicles(shape, voxel_size_nm, tissue, random)
    cristae = _texture(shape, 35, voxel_size_nm, random)
    image[mitochondria] = (tissue.cytoplasm - 55) + 16 * cristae[mitochondria]
    for edge, depth in ((faces(mitochondria), 0.8), (faces(cells), 1.0)):
        dark = depth * _soft(edge, tissue.membrane_nm / 2, voxel_size_nm)
        # Real membranes fade where they are cut along and darken at synapses.
        dark *= np.clip(1 + 0.15 * _texture(shape, 250, voxel_size_nm, random), 0.6, 1.3)
        image += dark * (tissue.membrane - image)
    return _imaged(image, voxel_size_nm, tissue, random)


def _imaged(
    image: np.ndarray, voxel_size_nm: NmTriple, tissue: Tissue, random: Generator
) -> np.ndarray:
    """Blur, noise, and gain and brightness of each section; (Z, Y, X) uint8."""
    sigma = [tissue.blur_nm / size for size in voxel_size_nm]
    image = ndimage.gaussian_filter(image, sigma, mode="nearest")
    image += tissue.noise * random.standard_normal(image.shape, dtype=np.float32)
    gain = 1 + tissue.section_contrast * random.standard_normal((image.shape[0], 1, 1))
    offset = 60 * tissue.section_contrast * random.standard_normal((image.shape[0], 1, 1))
    return np.asarray(np.clip((image - 128) * gain + 128 + offset, 0, 255), np.uint8)
