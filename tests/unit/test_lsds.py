"""Local shape descriptors against the original's arrays, a direct reference and closed forms."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from retrace.errors import DataError
from retrace.geometry import VoxelBox
from retrace.targets import lsds
from retrace.targets.lsds import compute_lsds, lsd_context
from retrace.targets.window_statistics import MIN_VARIANCE_NM2

ORACLES = [
    "anisotropic_20_9_9nm_sigma120_ds2",
    "isotropic_8nm_sigma80_ds2",
    "isotropic_8nm_sigma40_ds1",
]


@pytest.fixture(autouse=True)
def one_thread(tiny_threads: None) -> None:
    """Small volumes do not gain from threads."""


def reference(
    labels: np.ndarray, voxel_size_nm: tuple[int, ...], sigma_nm: float, downsample: int
) -> np.ndarray:
    """The definition, one label and one filter at a time, in double precision."""
    step = [size * downsample for size in voxel_size_nm]
    sigma = [sigma_nm / size for size in step]
    every = (slice(None, None, downsample),) * 3
    grid = np.indices(labels[every].shape) * np.reshape(step, (3, 1, 1, 1)).astype(float)
    result = np.zeros((10, *labels.shape))

    def weighted(values: np.ndarray) -> np.ndarray:
        return gaussian_filter(values, sigma, mode="constant", truncate=3.0)

    for label in np.unique(labels[labels != 0]):
        samples = (labels[every] == label).astype(float)
        count = weighted(samples)
        count[count == 0] = 1
        mean = np.stack([weighted(samples * g) for g in grid]) / count
        pairs = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]
        second = [
            weighted(samples * grid[a] * grid[b]) / count - mean[a] * mean[b] for a, b in pairs
        ]
        variance = np.maximum(second[:3], MIN_VARIANCE_NM2)
        pearson = [
            second[3 + i] / np.sqrt(variance[a] * variance[b]) for i, (a, b) in enumerate(pairs[3:])
        ]
        offset = (mean - grid) / sigma_nm * 0.5 + 0.5
        stacked = np.stack(
            [*offset, *variance / sigma_nm**2, *np.array(pearson) * 0.5 + 0.5, count]
        )
        for axis in (1, 2, 3):
            stacked = stacked.repeat(downsample, axis)
        result += np.clip(stacked, 0, 1) * (labels == label)
    return result


def flat(descriptors: np.ndarray, sigma_nm: float) -> np.ndarray:
    """Voxels whose object is flat along an axis: Pearson is 0 / 0 there, rounding decides."""
    return (descriptors[3:6] * sigma_nm**2 < 2 * MIN_VARIANCE_NM2).any(0)


def rounding_of_pearson(descriptors: np.ndarray, sigma_nm: float) -> np.ndarray:
    """How far rounding to 32 bits moves the three Pearson descriptors, (3, Z, Y, X).

    Covariances are differences of products of positions, which are up to 3 sigma in a window, and
    they are divided by two standard deviations.
    """
    deviation = np.sqrt(np.maximum(descriptors[3:6] * sigma_nm**2, MIN_VARIANCE_NM2))
    products = np.stack([deviation[a] * deviation[b] for a, b in ((0, 1), (0, 2), (1, 2))])
    return np.asarray(2 * np.finfo(np.float32).eps * (3 * sigma_nm) ** 2 / products)


@pytest.mark.parametrize("name", ORACLES)
def test_same_as_the_original(shared_dir: Path, name: str) -> None:
    with np.load(shared_dir / f"oracles/lsd_targets/{name}.npz") as arrays:
        labels, expected = arrays["labels"].astype(np.int64), arrays["lsds"]
        sigma_nm, downsample = float(arrays["sigma_nm"]), int(arrays["downsample"])
        voxel_size_nm = tuple(arrays["voxel_size_nm"].tolist())

    ours = compute_lsds(torch.from_numpy(labels), voxel_size_nm, sigma_nm, downsample).numpy()

    difference = np.abs(ours - expected)
    defined = ~flat(ours, sigma_nm)
    print(f"{name}: largest difference {difference[:, defined].max():.1e}")
    assert difference[[0, 1, 2, 3, 4, 5, 9]].max() < 1e-4
    assert difference[:, defined].max() < (1e-3 if downsample == 1 else 1e-4)
    assert np.mean(difference > 1e-4) < 1e-4
    assert defined[labels != 0].mean() > 0.995
    exact = reference(labels, voxel_size_nm, sigma_nm, downsample)
    assert np.abs(ours - exact)[:, defined].max() < 5e-5  # closer to exact than the original
    assert np.abs(ours - exact).mean() <= np.abs(expected - exact).mean()


def blobs(seed: int, shape: tuple[int, int, int], count: int) -> np.ndarray:
    """Labels of the nearest of `count` random points, with some background."""
    random = np.random.default_rng(seed)
    points = random.uniform(0, shape, (count, 3))
    distance = np.linalg.norm(np.moveaxis(np.indices(shape), 0, -1)[..., None, :] - points, axis=-1)
    return np.where(distance.min(-1) < max(shape) / 2, distance.argmin(-1) * 7 + 3, 0)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    coarse_shape=st.tuples(*[st.integers(1, 8)] * 3),
    voxel_size_nm=st.tuples(*[st.integers(4, 20)] * 3),
    sigma_nm=st.integers(8, 60),
    downsample=st.integers(1, 3),
    block=st.integers(2, 8),
    at_once=st.sampled_from([1, 5]),
)
def test_any_blocks_and_batches_equal_the_definition(
    seed: int,
    coarse_shape: tuple[int, int, int],
    voxel_size_nm: tuple[int, int, int],
    sigma_nm: int,
    downsample: int,
    block: int,
    at_once: int,
) -> None:
    z, y, x = (size * downsample for size in coarse_shape)
    labels = blobs(seed, (z, y, x), 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lsds, "BLOCK", block)
        patch.setattr(lsds, "ITEMS_AT_ONCE", {"cpu": at_once})
        ours = compute_lsds(torch.from_numpy(labels), voxel_size_nm, sigma_nm, downsample).numpy()

    expected = reference(labels, voxel_size_nm, sigma_nm, downsample)
    steady = ~flat(expected, sigma_nm)
    np.testing.assert_allclose(
        ours[[0, 1, 2, 3, 4, 5, 9]], expected[[0, 1, 2, 3, 4, 5, 9]], atol=2e-4
    )
    limit = 2e-4 + rounding_of_pearson(expected, sigma_nm)
    assert (np.abs(ours - expected)[6:9] <= limit)[:, steady].all()


def test_a_region_equals_the_crop_of_the_whole() -> None:
    labels = torch.from_numpy(blobs(3, (20, 24, 28), 9))
    box = VoxelBox((4, 6, 8), (10, 8, 12))

    whole = compute_lsds(labels, (8, 8, 8), 40)
    part = compute_lsds(labels, (8, 8, 8), 40, roi=box)

    torch.testing.assert_close(part, whole[(slice(None), *box.slices())], atol=1e-6, rtol=0)


def test_context_is_all_that_a_region_depends_on() -> None:
    assert lsd_context((20, 9, 9), 120) == (18, 40, 40)
    assert lsd_context((8, 8, 8), 80) == (30, 30, 30)
    labels = torch.from_numpy(blobs(5, (32, 32, 32), 8))
    inner, margin = VoxelBox((14, 14, 14), (4, 4, 4)), lsd_context((8, 8, 8), 32)
    outer = inner.grow(margin)
    assert margin == (12, 12, 12)

    alone = compute_lsds(
        labels[outer.slices()].contiguous(), (8, 8, 8), 32, roi=VoxelBox(margin, inner.shape)
    )

    whole = compute_lsds(labels, (8, 8, 8), 32, roi=inner)
    torch.testing.assert_close(alone, whole, atol=1e-6, rtol=0)
    nearer = [m - 2 for m in margin]
    cropped = compute_lsds(
        labels[inner.grow(nearer).slices()], (8, 8, 8), 32, roi=VoxelBox(nearer, inner.shape)
    )
    assert not torch.allclose(cropped, whole, atol=1e-6)


def test_background_is_zero_and_ids_do_not_matter() -> None:
    labels = torch.from_numpy(blobs(1, (12, 12, 12), 5))
    descriptors = compute_lsds(labels, (8, 8, 8), 40)
    renamed = torch.where(labels == 0, labels, 2**60 - labels)

    assert not descriptors[:, labels == 0].any() and (labels == 0).any()
    assert not compute_lsds(torch.zeros_like(labels), (8, 8, 8), 40).any()
    torch.testing.assert_close(compute_lsds(renamed, (8, 8, 8), 40), descriptors, atol=1e-6, rtol=0)


def test_08_centre_of_a_large_block() -> None:
    descriptors = compute_lsds(torch.ones(41, 41, 41, dtype=torch.int64), (8, 8, 8), 32, 1)

    centre = descriptors[:, 20, 20, 20]
    assert centre[[0, 1, 2, 6, 7, 8]].tolist() == pytest.approx([0.5] * 6, abs=1e-5)
    assert centre[9].item() == pytest.approx(1, abs=1e-5)
    assert (centre[3:6] > 0.9).all() and (
        centre[3:6] < 1
    ).all()  # truncated Gaussian: below sigma^2


def test_a_straight_tube_is_long_in_one_axis() -> None:
    labels = torch.zeros(12, 12, 48, dtype=torch.int64)
    labels[4:9, 4:9] = 1

    middle = compute_lsds(labels, (8, 8, 8), 40, 1)[:, 6, 6, 24]

    assert middle[:3].tolist() == pytest.approx([0.5] * 3, abs=1e-5)
    assert middle[5] > 5 * middle[3] and middle[3].item() == pytest.approx(middle[4].item())
    assert middle[6:9].tolist() == pytest.approx([0.5] * 3, abs=1e-5)


def mirrored_channels(axis: int) -> Iterator[int]:
    """The offset along `axis` and the Pearson channels (zy, zx, yx) that involve it."""
    yield axis
    yield from (6 + i for i, pair in enumerate([(0, 1), (0, 2), (1, 2)]) if axis in pair)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_mirroring_an_axis_flips_its_channels(axis: int) -> None:
    labels = torch.from_numpy(blobs(8, (14, 15, 16), 5))
    plain = compute_lsds(labels, (10, 8, 8), 30, 1)
    mirrored = compute_lsds(labels.flip(axis), (10, 8, 8), 30, 1).flip(axis + 1)

    expected = plain.clone()
    for channel in mirrored_channels(axis):
        expected[channel] = (1 - plain[channel]) * (labels != 0)
    steady = torch.from_numpy(~flat(plain.numpy(), 30))
    torch.testing.assert_close(mirrored[:, steady], expected[:, steady], atol=1e-3, rtol=0)


def test_a_label_between_the_samples() -> None:
    labels = torch.zeros(8, 8, 8, dtype=torch.int64)
    labels[0, 0, 1] = 1  # in the first coarse voxel, whose mean position 0 is that of no sample

    descriptors = compute_lsds(labels, (8, 8, 8), 32)[:, 0, 0, 1]

    assert descriptors[:3].tolist() == [0.5] * 3
    assert descriptors[9].item() == 1


def test_impossible_descriptors_are_refused() -> None:
    labels = torch.ones(8, 8, 8, dtype=torch.int64)

    with pytest.raises(DataError, match="not divisible by the downsampling factor 2"):
        compute_lsds(labels[:7], (8, 8, 8), 32)
    with pytest.raises(DataError, match="empty or not inside"):
        compute_lsds(labels, (8, 8, 8), 32, roi=VoxelBox((4, 0, 0), (6, 4, 4)))
    with pytest.raises(DataError, match="integers"):
        compute_lsds(labels.float(), (8, 8, 8), 32)


def test_precision_of_products_is_restored() -> None:
    torch.set_float32_matmul_precision("high")
    try:
        compute_lsds(torch.ones(4, 4, 4, dtype=torch.int64), (8, 8, 8), 32)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_gives_the_same() -> None:
    labels = torch.from_numpy(blobs(9, (40, 44, 48), 20))
    on_cpu = compute_lsds(labels, (10, 8, 8), 60)

    torch.testing.assert_close(
        compute_lsds(labels.cuda(), (10, 8, 8), 60).cpu(), on_cpu, atol=1e-4, rtol=0
    )
