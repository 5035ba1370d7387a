"""EM-like volumes with known truth: neurites, membranes, mitochondria, noise; all sizes in nm.

Nothing here imitates one specimen. The pictures are made so that the steps of the workflow meet
what real EM shows them: dense thin processes in any direction, membranes a few voxels wide,
organelles as dark as membranes, and sections that differ in contrast.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np
import zarr
from numpy.random import Generator
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from retrace.errors import ConfigError
from retrace.formats.mongo_dump import write_documents
from retrace.geometry import Triple, triple
from retrace.storage.precomputed_writer import write_layer

HEMI_BACKGROUND_ID = 2**64 - 3
"""The id that fills the hemibrain labels outside their core (lsd_nm_experiments, create_masks)."""

GROW_ATTEMPTS = 200
"""Starting points tried in a row without finding room before the volume counts as full."""

TESTING = "funke/phantom/testing/ground_truth"
"""Where the ground truth of `write_paper_phantom` lies, named as the zebra finch's is."""

RAW, LABELS = "volumes/raw", "volumes/labels/neuron_ids"


@dataclass(frozen=True)
class Tissue:
    """What the tissue and its picture look like; lengths in nm, brightness in grey values."""

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


@dataclass(frozen=True)
class _Step:
    """One ball of a neurite: its centre (z, y, x) and radius in nm."""

    centre: np.ndarray
    radius: float
    neurite: int
    in_mitochondrion: bool


@lru_cache(maxsize=256)
def _ball_cells(quarters: int) -> np.ndarray:
    """Grid positions (N, 3) within a radius given in quarter cells."""
    reach = (quarters + 3) // 4
    steps = np.arange(-reach, reach + 1)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    return np.asarray(grid[(grid**2).sum(1) <= (quarters / 4) ** 2 + 0.5])


class _Occupancy:
    """A coarse isotropic grid that tells a growing neurite where others already are."""

    def __init__(self, extent_nm: np.ndarray, cell_nm: float) -> None:
        self.cell_nm = cell_nm
        self.owner = np.zeros(np.maximum(1, np.ceil(extent_nm / cell_nm)).astype(int), np.int32)
        self.taken = 0

    def _ball(self, centre: np.ndarray, radius: float) -> tuple[np.ndarray, ...]:
        near = _ball_cells(max(1, round(4 * radius / self.cell_nm)))
        cells = np.floor(centre / self.cell_nm).astype(int) + near
        inside = ((cells >= 0) & (cells < self.owner.shape)).all(1)
        return tuple(cells[inside].T)

    def is_free(self, centre: np.ndarray, radius: float, neurite: int) -> bool:
        owners = self.owner[self._ball(centre, radius)]
        return not ((owners != 0) & (owners != neurite)).any()

    def claim(self, centre: np.ndarray, radius: float, neurite: int) -> None:
        cells = self._ball(centre, radius)
        self.taken += int((self.owner[cells] == 0).sum())
        self.owner[cells] = neurite

    def free_share(self) -> float:
        return 1 - self.taken / self.owner.size


def _direction(random: Generator) -> np.ndarray:
    vector = random.normal(size=3)
    return np.asarray(vector / np.linalg.norm(vector))


def _grow_one(
    start: np.ndarray,
    direction: np.ndarray,
    radius: float,
    neurite: int,
    space: _Occupancy,
    extent_nm: np.ndarray,
    tissue: Tissue,
    random: Generator,
) -> Iterator[_Step]:
    """Steps from `start` until the neurite leaves the volume or finds no free way."""
    centre, mitochondrion = start, 0
    while ((centre > -radius) & (centre < extent_nm + radius)).all():
        if not mitochondrion and random.random() < tissue.mitochondria:
            mitochondrion = int(random.integers(5, 14))
        mitochondrion = max(0, mitochondrion - 1)
        swell = radius * (1 + 0.25 * float(random.normal()))
        yield _Step(centre, max(0.5 * radius, swell), neurite, mitochondrion > 0)
        for attempt in range(6):
            turned = direction + tissue.bend * (1 + attempt) * random.normal(size=3)
            turned /= np.linalg.norm(turned)
            ahead = centre + 0.7 * radius * turned
            if space.is_free(ahead, 0.8 * radius, neurite):
                centre, direction = ahead, turned
                break
        else:
            return


def _grow(extent_nm: np.ndarray, tissue: Tissue, random: Generator) -> list[_Step]:
    """Neurites, some of them branching, until little free space is left."""
    space = _Occupancy(extent_nm, max(20.0, tissue.diameter_nm / 8))
    steps: list[_Step] = []
    failures = neurite = 0
    while failures < GROW_ATTEMPTS and space.free_share() > 0.05:
        # Thinner ones as the room gets scarce: gaps would make giants of their neighbours.
        thinner = 1 - 0.6 * failures / GROW_ATTEMPTS
        radius = thinner * tissue.diameter_nm / 2 * float(np.exp(0.35 * random.normal()))
        start = random.random(3) * extent_nm
        if not space.is_free(start, radius, 0):
            failures += 1
            continue
        neurite, failures = neurite + 1, 0
        first = _direction(random)
        ways = [first, -first] + ([_direction(random)] if random.random() < 0.3 else [])
        for way in ways:
            for step in _grow_one(start, way, radius, neurite, space, extent_nm, tissue, random):
                space.claim(step.centre, step.radius, neurite)
                steps.append(step)
    return steps


def _paint(
    steps: Sequence[_Step], shape: Triple, voxel_size_nm: Triple
) -> tuple[np.ndarray, np.ndarray]:
    """Neurite ids (0 = between neurites) and the mitochondria's mask on the voxel grid."""
    owners = np.zeros(shape, np.int32)
    mitochondria = np.zeros(shape, bool)
    for step in steps:
        for target, value, radius in (
            (owners, step.neurite, step.radius),
            (mitochondria, True, 0.62 * step.radius if step.in_mitochondrion else 0.0),
        ):
            _paint_ball(target, value, step.centre, radius, voxel_size_nm)
    return owners, mitochondria


def _paint_ball(
    target: np.ndarray, value: int, centre: np.ndarray, radius: float, voxel_size_nm: Triple
) -> None:
    size = np.asarray(voxel_size_nm, float)
    begin = np.maximum(0, np.ceil((centre - radius) / size - 0.5)).astype(int)
    end = np.minimum(target.shape, np.floor((centre + radius) / size - 0.5).astype(int) + 1)
    if radius <= 0 or (end <= begin).any():
        return
    axes = [
        ((np.arange(b, e) + 0.5) * s - c) ** 2
        for b, e, s, c in zip(begin, end, size, centre, strict=True)
    ]
    distance = axes[0][:, None, None] + axes[1][None, :, None] + axes[2]
    box = target[tuple(slice(b, e) for b, e in zip(begin, end, strict=True))]
    free = (box == 0) if target.dtype != bool else True
    box[(distance <= radius**2) & free] = value


def _fill_gaps(owners: np.ndarray, voxel_size_nm: Triple) -> np.ndarray:
    """Every voxel goes to the nearest neurite (nm), so that cells touch as in neuropil."""
    if not owners.any():
        return np.ones_like(owners)
    nearest = ndimage.distance_transform_edt(
        owners == 0, sampling=voxel_size_nm, return_distances=False, return_indices=True
    )
    return np.asarray(owners[tuple(nearest)])


def _boundaries(ids: np.ndarray) -> np.ndarray:
    """True on both voxels of each face between two different ids."""
    found = np.zeros(ids.shape, bool)
    for axis in range(3):
        low: list[slice] = [slice(None)] * 3
        high: list[slice] = [slice(None)] * 3
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        differs = ids[tuple(low)] != ids[tuple(high)]
        found[tuple(low)] |= differs
        found[tuple(high)] |= differs
    return found


def _soft(mask: np.ndarray, sigma_nm: float, voxel_size_nm: Triple) -> np.ndarray:
    """The mask as a smooth ridge with maximum about 1."""
    sigma = [sigma_nm / size for size in voxel_size_nm]
    smooth = ndimage.gaussian_filter(mask.astype(np.float32), sigma, mode="nearest")
    return np.asarray(np.minimum(1.0, 1.6 * smooth), np.float32)


def _texture(
    shape: Triple, scale_nm: float, voxel_size_nm: Triple, random: Generator
) -> np.ndarray:
    """Smooth noise of unit variance with features of about `scale_nm`."""
    coarse = [max(2, int(n * v / scale_nm) + 2) for n, v in zip(shape, voxel_size_nm, strict=True)]
    noise = random.standard_normal(coarse).astype(np.float32)
    zoomed = ndimage.zoom(
        noise, [n / c for n, c in zip(shape, coarse, strict=True)], order=1, grid_mode=False
    )
    return np.asarray(zoomed / max(float(zoomed.std()), 1e-6), np.float32)


def _vesicles(
    shape: Triple, voxel_size_nm: Triple, tissue: Tissue, random: Generator
) -> np.ndarray:
    """Small dark dots strewn through the cytoplasm."""
    volume_um3 = float(np.prod([n * v / 1000 for n, v in zip(shape, voxel_size_nm, strict=True)]))
    count = int(volume_um3 * tissue.vesicles_per_um3)
    dots = np.zeros(shape, bool)
    dots[tuple(random.integers(0, n, count) for n in shape)] = True
    sigma = [18.0 / size for size in voxel_size_nm]
    smooth = ndimage.gaussian_filter(dots.astype(np.float32), sigma)
    return np.asarray(smooth / max(float(smooth.max()), 1e-6), np.float32)


def _picture(
    cells: np.ndarray,
    mitochondria: np.ndarray,
    voxel_size_nm: Triple,
    tissue: Tissue,
    random: Generator,
) -> np.ndarray:
    """Grey values (Z, Y, X) uint8 of the given cells."""
    shape = triple(cells.shape)
    shade = random.normal(0, 7, int(cells.max()) + 1).astype(np.float32)
    image = tissue.cytoplasm + shade[cells]
    image += 6 * _texture(shape, 60, voxel_size_nm, random)
    image -= 45 * _vesicles(shape, voxel_size_nm, tissue, random)
    cristae = _texture(shape, 35, voxel_size_nm, random)
    image[mitochondria] = (tissue.cytoplasm - 55) + 16 * cristae[mitochondria]
    for edge, depth in ((_boundaries(mitochondria), 0.8), (_boundaries(cells), 1.0)):
        dark = depth * _soft(edge, tissue.membrane_nm / 2, voxel_size_nm)
        # Real membranes fade where they are cut along and darken at synapses.
        dark *= np.clip(1 + 0.15 * _texture(shape, 250, voxel_size_nm, random), 0.6, 1.3)
        image += dark * (tissue.membrane - image)
    sigma = [tissue.blur_nm / size for size in voxel_size_nm]
    image = ndimage.gaussian_filter(image, sigma, mode="nearest")
    image += tissue.noise * random.standard_normal(shape, dtype=np.float32)
    gain = 1 + tissue.section_contrast * random.standard_normal((shape[0], 1, 1))
    offset = 60 * tissue.section_contrast * random.standard_normal((shape[0], 1, 1))
    return np.asarray(np.clip((image - 128) * gain + 128 + offset, 0, 255), np.uint8)


def _components(cells: np.ndarray) -> np.ndarray:
    """Ids 1..N (uint64) of 6-connected pieces; specks join what surrounds them."""
    from skimage.measure import label

    pieces = label(cells, connectivity=1, background=-1)
    sizes = np.bincount(pieces.ravel())
    small = sizes < min(60, cells.size // 50 + 1)
    small[0] = False
    if small.any() and not small[pieces].all():
        pieces = _fill_gaps(np.where(small[pieces], 0, pieces), (1, 1, 1))
        pieces = label(pieces, connectivity=1, background=-1)
    return np.asarray(pieces, np.uint64)


def generate(
    shape: Sequence[int],
    voxel_size_nm: Sequence[int],
    seed: int,
    tissue: Tissue | None = None,
    *,
    thin_background: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """(raw uint8, labels uint64), both (Z, Y, X); the same arguments give the same bytes.

    Labels are gapless with ids 1..N, each one 6-connected piece; `thin_background` puts 0 on the
    voxels at the membranes instead.
    """
    size, tissue, random = triple(voxel_size_nm), tissue or Tissue(), np.random.default_rng(seed)
    if min(shape) < 1 or min(size) < 1:
        raise ConfigError(f"a phantom of shape {list(shape)} at {list(size)} nm cannot be made")
    extent_nm = np.asarray(shape, float) * size
    owners, mitochondria = _paint(_grow(extent_nm, tissue, random), triple(shape), size)
    cells = _fill_gaps(owners, size)
    raw = _picture(cells, mitochondria, size, tissue, random)
    labels = _components(cells)
    if thin_background:
        labels[_boundaries(labels)] = 0
    return raw, labels


def _create(
    group: zarr.Group, name: str, data: np.ndarray, chunks: Triple, size: Triple, offset: Triple
) -> None:
    """One array as zarr 2 wrote it for the bucket: v2, keys with dots, attributes in nm."""
    array = group.create_array(
        name,
        shape=data.shape,
        chunks=tuple(min(c, s) for c, s in zip(chunks, data.shape, strict=True)),
        dtype=data.dtype,
        chunk_key_encoding={"name": "v2", "separator": "."},
        attributes={
            "resolution": list(size),
            "offset": [o * s for o, s in zip(offset, size, strict=True)],
        },
        config={"write_empty_chunks": True},
    )
    array[:] = data


def write_phantom_store(
    store: Path,
    shape: Sequence[int],
    margin: Sequence[int],
    voxel_size_nm: Sequence[int],
    seed: int,
    *,
    layout: str = "zebrafinch",
    chunks: Sequence[int] = (32, 64, 64),
    tissue: Tissue | None = None,
) -> None:
    """Writes one volume with the bucket's arrays; `shape` is the labelled box, `margin` per side.

    `layout` "zebrafinch": raw reaches `margin` voxels further than the labels. "hemi": both have
    the larger shape and the labels' margin is filled with the background id 2^64 - 3.
    """
    if layout not in ("zebrafinch", "hemi"):
        raise ConfigError(f"no phantom layout {layout!r}; there are: zebrafinch, hemi")
    size, edge = triple(voxel_size_nm), triple(margin)
    whole = [s + 2 * m for s, m in zip(shape, edge, strict=True)]
    raw, cells = generate(whole, size, seed, tissue)
    core = tuple(slice(m, m + s) for m, s in zip(edge, shape, strict=True))
    labels, offset = _components(cells[core].astype(np.int64)), edge
    if layout == "hemi":
        padded = np.full(whole, HEMI_BACKGROUND_ID, np.uint64)
        padded[core] = labels
        labels, offset = padded, (0, 0, 0)
    group = zarr.open_group(store, mode="w", zarr_format=2)
    group.require_group("volumes").require_group("labels")
    _create(group, RAW, raw, triple(chunks), size, (0, 0, 0))
    _create(group, LABELS, labels, triple(chunks), size, offset)


def write_barrier_cube(
    folder: Path,
    number: int,
    shape: Sequence[int],
    margin: Sequence[int],
    voxel_size_nm: Sequence[int],
    seed: int,
) -> None:
    """raw_N.h5 (`raw`, uint8) and barrier_int16_N.h5 (`lab`, uint16), axes x, y, z, as the cubes of
    ELEKTRONN's example: class 1 on both sides of each border, labels (`shape`) in the middle of an
    image that reaches `margin` voxels further; all three z, y, x."""
    size, edge = triple(voxel_size_nm), triple(margin)
    whole = [s + 2 * m for s, m in zip(shape, edge, strict=True)]
    raw, cells = generate(whole, size, seed)
    core = tuple(slice(m, m + s) for m, s in zip(edge, shape, strict=True))
    parts = {
        f"raw_{number}": ("raw", raw),
        f"barrier_int16_{number}": ("lab", _boundaries(cells)[core].astype(np.uint16)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, (key, data) in parts.items():
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file.create_dataset(key, data=data.T, compression="lzf")


def centre_lines(
    shape: Sequence[int],
    voxel_size_nm: Sequence[int],
    seed: int,
    tissue: Tissue | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (nodes, 3) z, y, x along the neurites that `generate` makes of the same arguments.

    Edges (edges, 2) join rows that follow each other along one neurite.
    """
    size, tissue = triple(voxel_size_nm), tissue or Tissue()
    extent_nm = np.asarray(shape, float) * size
    steps = _grow(extent_nm, tissue, np.random.default_rng(seed))
    voxels = np.floor([step.centre / size for step in steps]).astype(np.int64)
    edges = np.array(list(_links(steps)), np.int64).reshape(-1, 2)
    inside = np.all((voxels >= 0) & (voxels < np.asarray(shape)), axis=1)
    row = np.cumsum(inside) - 1
    return voxels[inside], row[edges[np.all(inside[edges], axis=1)]]


def _links(steps: Sequence[_Step]) -> Iterator[tuple[int, int]]:
    """Each step and the one before it; the ways of a neurite all begin at its first step."""
    first = 0
    for index, step in enumerate(steps):
        if step.neurite != steps[first].neurite:
            first = index
        elif index != first:
            begins = np.array_equal(step.centre, steps[first].centre)
            yield (first if begins else index - 1), index


def write_paper_phantom(
    layer: Path,
    bucket: Path,
    shape: Sequence[int],
    margin: Sequence[int],
    voxel_size_nm: Sequence[int],
    seed: int,
) -> None:
    """One region as the paper's lie in public: raw as a precomputed layer at `layer`, its truth
    below `bucket`: labels in data.zarr, and skeletons, half of them for validation.
    """
    size, edge = triple(voxel_size_nm), triple(margin)
    whole = [s + 2 * m for s, m in zip(shape, edge, strict=True)]
    raw, cells = generate(whole, size, seed)
    write_layer(layer, raw, size, (0, 0, 0))
    core = tuple(slice(m, m + s) for m, s in zip(edge, shape, strict=True))
    group = zarr.open_group(bucket / TESTING / "data.zarr", mode="w", zarr_format=2)
    labels = _components(cells[core].astype(np.int64))
    _create(group, "volumes/roi_1/consolidated_ids", labels, (32, 64, 64), size, edge)
    voxels, edges = centre_lines(whole, size, seed)
    same = cells[tuple(voxels[edges[:, 0]].T)] == cells[tuple(voxels[edges[:, 1]].T)]
    for split, parity in (("testing", 0), ("validation", 1)):
        folder = bucket / TESTING / split
        write_dump(folder, voxels, edges[same], cells, size, core, parity)


def write_dump(
    folder: Path,
    voxels: np.ndarray,
    edges: np.ndarray,
    cells: np.ndarray,
    size: Triple,
    core: tuple[slice, ...],
    parity: int,
) -> None:
    """The skeletons of cells of that parity as a MongoDB dump of collection `phantom`.

    The neuropil of region roi_1 is the box `core` without its first tenth of sections.
    """
    cell = cells[tuple(voxels.T)].astype(np.int64)
    keep = cell % 2 == parity
    low = [core[0].start + (core[0].stop - core[0].start) // 10, core[1].start, core[2].start]
    high = [part.stop for part in core]
    masked = keep & ((voxels >= low) & (voxels < high)).all(axis=1)
    links = edges[np.all(masked[edges], axis=1)]
    graph = coo_array((np.ones(len(links)), links.T), shape=(len(voxels), len(voxels)))
    part = np.where(masked, connected_components(graph, directed=False)[1], -1)
    position = (voxels * size).tolist()
    nodes = np.flatnonzero(keep).tolist()
    write_documents(
        folder / "phantom.nodes.bson",
        (
            {"id": n, **dict(zip("zyx", position[n], strict=True)), "neuron_id": int(cell[n])}
            for n in nodes
        ),
    )
    write_documents(
        folder / "phantom.edges.bson",
        ({"source": a, "target": b} for a, b in edges[np.all(keep[edges], axis=1)].tolist()),
    )
    write_documents(
        folder / "nodes_phantom_components_roi_1_masked.bson",
        ({"id": n, "component_id": int(part[n])} for n in nodes),
    )
    write_documents(
        folder / "nodes_phantom_mask_roi_1_masked.bson",
        ({"id": n, "masked": bool(masked[n])} for n in nodes),
    )
