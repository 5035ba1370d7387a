"""Checks, before any work, whether the graphics card can run TensorFlow 1.3.

The wheel of TensorFlow-GPU 1.3.0 contains kernels and PTX for compute capabilities 3.0 to 6.1; CUDA
8 and cuDNN 6 support up to 6.2. A driver can translate the PTX for a newer card, but not the
kernels of cuDNN 6 and cuBLAS 8.
"""

import ctypes
import os
import subprocess
import sys

NEWEST = (6, 2)
"""The newest compute capability that CUDA 8 supports."""
MAJOR_ATTRIBUTE, MINOR_ATTRIBUTE = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of the driver's cuDeviceGetAttribute."""
WAY_OUT = "use `engine: modern`, which runs the same networks on any card and on a CPU"


def prepare():
    """Numbers the cards as nvidia-smi does, so that the card used is the one that was checked."""
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")


def cards():
    """[(name, (major, minor))] of every card of this machine, in the order of their bus."""
    listed = _from_nvidia_smi()
    return _from_driver() if listed is None else listed


def _from_nvidia_smi():
    """The cards by nvidia-smi; None if it is absent or too old for the field compute_cap."""
    command = ["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except OSError:
        return None
    lines = process.communicate()[0].decode("utf-8", "replace").strip().splitlines()
    if process.returncode != 0:
        return None
    listed = []
    for line in lines:
        name, _, capability = line.rpartition(",")
        major, _, minor = capability.strip().partition(".")
        if not (major.isdigit() and minor.isdigit()):
            return None
        listed.append((name.strip(), (int(major), int(minor))))
    return listed


def _from_driver():
    """The cards by libcuda, which every driver has; [] without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count, listed = ctypes.c_int(), []
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    for index in range(count.value):
        device, name = ctypes.c_int(), ctypes.create_string_buffer(100)
        major, minor = ctypes.c_int(), ctypes.c_int()
        driver.cuDeviceGet(ctypes.byref(device), index)
        driver.cuDeviceGetName(name, 100, device)
        driver.cuDeviceGetAttribute(ctypes.byref(major), MAJOR_ATTRIBUTE, device)
        driver.cuDeviceGetAttribute(ctypes.byref(minor), MINOR_ATTRIBUTE, device)
        listed.append((name.value.decode("utf-8", "replace"), (major.value, minor.value)))
    return listed


def visible(all_cards):
    """[(index, name, capability)] of the cards that CUDA_VISIBLE_DEVICES makes visible."""
    numbered = [(str(index), name, version) for index, (name, version) in enumerate(all_cards)]
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return numbered
    wanted = [part.strip() for part in chosen.split(",")]
    if any(part and not part.isdigit() for part in wanted):  # UUIDs cannot be matched
        return numbered
    return [card for card in numbered if card[0] in wanted]


def refusal(visible_cards):
    """Why none of the visible cards can be used; None if one can."""
    if not visible_cards:
        return (
            "this image has the GPU build of TensorFlow, and no graphics card is visible: start "
            "Snakemake where nvidia-smi shows one, with APPTAINER_NV=1 in the environment; or "
            + WAY_OUT
        )
    if any(version <= NEWEST for _, _, version in visible_cards):
        return None
    listed = ", ".join("%s (compute capability %d.%d)" % (n, v[0], v[1]) for _, n, v in visible_cards)
    return (
        "%s: TensorFlow 1.3 with CUDA 8 and cuDNN 6 has kernels for compute capability 3.0 to 6.1 "
        "(Kepler to Pascal) and cannot be relied on with a newer card; %s" % (listed, WAY_OUT)
    )


def check(needs_card):
    """Exits if this build of TensorFlow needs a card and none can be used.

    Otherwise makes only one usable card visible to TensorFlow.
    """
    if not needs_card:
        return
    candidates = visible(cards())
    reason = refusal(candidates)
    if reason:
        sys.exit("error: " + reason)
    index, name, _ = [card for card in candidates if card[2] <= NEWEST][0]
    os.environ["CUDA_VISIBLE_DEVICES"] = index
    print("[gpu] %s" % name, flush=True)


def not_importable(error):
    """The error message if TensorFlow cannot be imported."""
    if "libcuda" in str(error):
        return "error: " + refusal([])
    return (
        "error: TensorFlow cannot be imported (%s); run this inside the legacy image, or %s"
        % (error, WAY_OUT)
    )
