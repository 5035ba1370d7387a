"""Aligns the sections of a volume and publishes the result: a zarr, and layers for viewers."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import torch

from retrace.alignment.aligned_stack import ALIGNED, FIELD, RENDERED, AlignedStack
from retrace.alignment.aligner import Aligner, AlignmentPlan
from retrace.alignment.detector import Detector, load_defect_network
from retrace.alignment.drift import DriftCorrector
from retrace.alignment.section_detection import SectionDetector
from retrace.alignment.section_masks import SectionMasks, open_marked
from retrace.alignment.section_tiles import check_fine, megapixels
from retrace.checkpoints.safetensors import load_model
from retrace.device import choose_device
from retrace.networks import build_network
from retrace.planning.align_settings import AlignSettings
from retrace.records.record import work_digest
from retrace.replacement import remove_afterwards
from retrace.storage.images import open_image
from retrace.storage.manifest import input_digest, write_manifest
from retrace.storage.precomputed_writer import LayerWriter, plan_layer
from retrace.storage.reads import local_paths, remote_reads
from retrace.storage.value_checks import check_not_blank
from retrace.storage.volumes import Volume
from retrace.storage.zarr_writer import publish


def alignment_work_folder(
    work: Path, settings: AlignSettings, model: Path, defects: Path | None
) -> Path:
    """The folder below `work` of an unfinished alignment with these settings and networks."""
    name = f"{settings.dataset}_{settings.network.name}"
    origin = [settings.plain(), *(input_digest(path) for path in (model, defects) if path)]
    return work / f"{name}_{work_digest(origin)}"


def align_volume(
    settings: AlignSettings,
    model: Path,
    defects: Path | None,
    work: Path,
    output: Path,
    *,
    layer: Path,
    field_layer: Path,
    threads: int = 1,
) -> float:
    """Aligns a stack and writes `output` (zarr) and two precomputed layers; megapixels per second.

    `layer` shows the aligned images at the finest mip, `field_layer` the fields. With masks of
    defects, from the layer `mask` of the settings or the network `defects`, `output` also holds
    the aligned masks. Resumes what an earlier run left in `work`.
    """
    begin = time.monotonic()
    own_work = alignment_work_folder(work, settings, model, defects)
    partial = output.with_name(f"{output.name}.partial")
    stack, seconds = _aligned(settings, model, defects, partial, own_work)
    speed = megapixels(stack.sections) / max(seconds, 1e-9)
    volumes = [settings.sections, *([settings.mask] if settings.mask else [])]
    inputs = [model, *([defects] if defects else []), *local_paths(volumes)]
    image = RENDERED if stack.fine is not None else ALIGNED
    for name, folder in ((image, layer), (FIELD, field_layer)):
        volume = stack.volume(name)
        _write_layer(volume, folder, own_work / f"layer_{name}", threads, gzip=settings.gzip)
    output.parent.mkdir(parents=True, exist_ok=True)
    publish(stack.store, output)
    extra = {
        "megapixels": megapixels(stack.sections),
        "megapixels_per_second": round(speed, 4),
    }
    bad = () if stack.masks is None else stack.masks.bad
    read = remote_reads(stack.sections, stack.fine, *bad)
    spent = time.monotonic() - begin
    for folder in (layer, field_layer):
        write_manifest(folder, inputs=[output], settings=settings.plain(), seconds=spent)
    write_manifest(
        output, inputs=inputs, settings=settings.plain(), seconds=spent, extra=extra, read=read
    )
    remove_afterwards(own_work)
    return round(speed, 4)


def _write_layer(volume: Volume, folder: Path, work: Path, threads: int, *, gzip: bool) -> None:
    """Writes an image layer next to `folder`, whose place it takes when it is complete."""
    partial = folder.with_name(f"{folder.name}.partial")
    if not work.is_dir():
        shutil.rmtree(partial, ignore_errors=True)
    plan = plan_layer(volume, volume.box, labels=False, compress=gzip)
    LayerWriter(partial, work, plan).write(volume, threads)
    publish(partial, folder)


def _aligned(
    settings: AlignSettings, model: Path, defects: Path | None, store: Path, work: Path
) -> tuple[AlignedStack, float]:
    """The aligned stack in `store`, with journals below `work`, and the seconds it took."""
    network = settings.network
    device = choose_device(settings.device)
    module = build_network(network, device=device)
    load_model(model, module, network)
    sections = open_image(settings.sections)
    fine = None if settings.fine is None else open_image(settings.fine)
    check_not_blank(sections, sections.box)
    if fine is not None:
        check_fine(sections, fine)
    masks = _section_masks(settings, sections, defects, device, work)
    stack = AlignedStack(
        store, work / "journal", sections, fine, masks=masks, zarr_format=settings.zarr_format
    )
    aligner = Aligner(
        module.eval(),
        AlignmentPlan.of(network.align),
        device,
        radius_px=network.contrast.equalised_radius_px,
        fill=network.input.mean,
    )
    if not network.align.drift_reach:
        aligner.run(stack)
        return stack, stack.seconds()
    chained = AlignedStack(work / "chained.zarr", work / "chained", sections, None, masks=masks)
    aligner.run(chained)
    DriftCorrector(chained, network.align.drift_reach, network.align.tile).run(stack)
    return stack, chained.seconds() + stack.seconds()


def _section_masks(
    settings: AlignSettings,
    sections: Volume,
    defects: Path | None,
    device: torch.device,
    work: Path,
) -> SectionMasks | None:
    """Masks of the given layer, joined with detected defects; None without either."""
    bad = [] if settings.mask is None else [open_marked(settings.mask)]
    if settings.detect is not None and defects is not None:
        detector = Detector(
            load_defect_network(defects),
            device,
            threshold=settings.detect.threshold,
            smallest_px=settings.detect.smallest_px,
            near_px=settings.near_px,
        )
        store, journal = work / "defects.zarr", work / "defects"
        bad.append(SectionDetector(detector, sections, store, journal).run())
    return SectionMasks(sections, tuple(bad), settings.near_px) if bad else None
