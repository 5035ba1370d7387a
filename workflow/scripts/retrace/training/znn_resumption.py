"""Continues a network of ZNN: its weights, velocities, iteration, learning curve and eta.

Source: seung-lab/znn-release, python/train.py and front_end/znetio.
"""

from __future__ import annotations

import math
from pathlib import Path

from retrace.checkpoints.znn import NetworkFile, read_h5, seed_from
from retrace.config.znn_network import ZnnNetworkSettings
from retrace.networks import ZnnNetwork
from retrace.training.znn_curve import write_earlier_curve
from retrace.training.znn_optimizer import ZnnOptimizer
from retrace.znn.net_h5 import stored_iteration

ETA_TOLERANCE = 1e-3
"""Relative difference up to which two values of eta count as one: files may hold float32."""


def resume(
    path: Path,
    module: ZnnNetwork,
    optimizer: ZnnOptimizer,
    network: ZnnNetworkSettings,
    work: Path,
) -> int:
    """Fills network and optimizer from a file, and keeps its curve in `work`.

    Returns the iteration that the file is at.
    """
    file = read_h5(path)
    begun = stored_iteration(path)
    for line in seed_from(file, module, optimizer.velocity):
        print(f"[train] {line}", flush=True)
    write_earlier_curve(work, file.curve, begun)
    print(f"[train] continues {path}, which is at iteration {begun}", flush=True)
    optimizer.param_groups[0]["steps"] = _annealing_steps(file, network, begun)
    return begun


def _annealing_steps(file: NetworkFile, network: ZnnNetworkSettings, begun: int) -> int:
    """The steps that eta was annealed for.

    Where the file holds the eta that `begun` steps lead to, annealing continues. Otherwise the
    eta of the .cfg is another one, or ZNN restarted it: it begins at that of the .cfg, as in ZNN.
    """
    every = network.num_iter_per_annealing
    annealed = network.eta * network.anneal_factor ** (begun // every)
    stored = [float(layer.fields["eta"]) for layer in file.layers.values() if "eta" in layer.fields]
    continues = bool(stored) and math.isclose(stored[0], annealed, rel_tol=ETA_TOLERANCE)
    eta = annealed if continues else network.eta
    origin = f"{file.path} holds {stored[0]:g}" if stored else f"{file.path} holds none"
    print(f"[train] continues with eta {eta:g} ({origin}, the .cfg {network.eta:g})", flush=True)
    return begun if continues else begun % every
