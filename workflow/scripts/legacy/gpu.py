"""Whether the graphics card can run TensorFlow 1.3; said before any work, with the way out.

The wheel of TensorFlow-GPU 1.3.0 holds kernels, and their PTX, for compute capabilities 3.0 to 6.1,
CUDA 8 and cuDNN 6 know nothing newer than 6.2. A driver may translate the PTX for a newer card, the
kernels of cuDNN 6 and cuBLAS 8 it cannot.
"""

import ctypes
import os
import subprocess
import sys

NEWEST = (6, 2)
"""The newest compute capability that CUDA 8 knows."""
MAJOR_ATTRIBUTE, MINOR_ATTRIBUTE = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of the driver's cuDeviceGetAttribute."""
WAY_OUT = "use `engine: modern`, which runs the same networks on any card and on a CPU"


def prepare():
    """Cards are counted as nvidia-smi counts them, so that the chosen one is the checked one."""
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")


def cards():
    """[(name, (major, minor))] of every card of this machine, in the order of their bus."""
    told = _from_nvidia_smi()
    return _from_driver() if told is None else told


def _from_nvidia_smi():
    """The same from nvidia-smi; None where it is absent, or older than its field compute_cap."""
    command = ["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except OSError:
        return None
    lines = process.communicate()[0].decode("utf-8", "replace").strip().splitlines()
    if process.returncode != 0:
        return None
    found = []
    for line in lines:
        name, _, capability = line.rpartition(",")
        major, _, minor = capability.strip().partition(".")
        if not (major.isdigit() and minor.isdigit()):
            return None
        found.append((name.strip(), (int(major), int(minor))))
    return found


def _from_driver():
    """The same from libcuda, which every driver has; nothing where there is no driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count, found = ctypes.c_int(), []
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    for index in range(count.value):
        device, name = ctypes.c_int(), ctypes.create_string_buffer(100)
        major, minor = ctypes.c_int(), ctypes.c_int()
        driver.cuDeviceGet(ctypes.byref(device), index)
        driver.cuDeviceGetName(name, 100, device)
        driver.cuDeviceGetAttribute(ctypes.byref(major), MAJOR_ATTRIBUTE, device)
        driver.cuDeviceGetAttribute(ctypes.byref(minor), MINOR_ATTRIBUTE, device)
        found.append((name.value.decode("utf-8", "replace"), (major.value, minor.value)))
    return found


def visible(found):
    """[(index, name, capability)] of those cards that CUDA_VISIBLE_DEVICES leaves."""
    numbered = [(str(index), name, version) for index, (name, version) in enumerate(found)]
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return numbered
    wanted = [part.strip() for part in chosen.split(",")]
    if any(part and not part.isdigit() for part in wanted):  # by UUID: which is which is not told
        return numbered
    return [card for card in numbered if card[0] in wanted]


def refusal(found):
    """Why none of these visible cards will do; None where one does."""
    if not found:
        return (
            "this image has the GPU build of TensorFlow, and no graphics card is visible: start "
            "Snakemake where nvidia-smi shows one, with APPTAINER_NV=1 in the environment; or "
            + WAY_OUT
        )
    if any(version <= NEWEST for _, _, version in found):
        return None
    listed = ", ".join("%s (compute capability %d.%d)" % (n, v[0], v[1]) for _, n, v in found)
    return (
        "%s: TensorFlow 1.3 with CUDA 8 and cuDNN 6 has kernels for compute capability 3.0 to 6.1 "
        "(Kepler to Pascal) and cannot be relied on with a newer card; %s" % (listed, WAY_OUT)
    )


def check(needs_card):
    """Ends the program where this build of TensorFlow needs a card and none will do.

    Leaves only a card that will do visible to TensorFlow.
    """
    if not needs_card:
        return
    found = visible(cards())
    reason = refusal(found)
    if reason:
        sys.exit("error: " + reason)
    index, name, _ = [card for card in found if card[2] <= NEWEST][0]
    os.environ["CUDA_VISIBLE_DEVICES"] = index
    print("[gpu] %s" % name, flush=True)


def not_importable(error):
    """The message for a TensorFlow that cannot be imported."""
    if "libcuda" in str(error):
        return "error: " + refusal([])
    return (
        "error: TensorFlow cannot be imported (%s); run this inside the legacy image, or %s"
        % (error, WAY_OUT)
    )
