"""Lets Snakemake ask a scheduler for its jobs every second; Python imports this at its start.

The executors of SLURM and LSF wait for 20 to 40 s before they ask, and then 10 s longer each time.
"""

import asyncio
import sys
from types import SimpleNamespace

if (
    "snakemake" in sys.orig_argv or "snakemake.cli" in sys.modules
):  # itself, or a fork of warm_python
    from snakemake_interface_executor_plugins.executors import remote

    remote.asyncio = SimpleNamespace(  # type: ignore[assignment]
        run=asyncio.run, sleep=lambda seconds: asyncio.sleep(min(seconds, 1))
    )
