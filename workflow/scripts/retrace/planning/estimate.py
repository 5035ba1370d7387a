"""How long a planned job takes, from earlier jobs in this folder or else from measured rates.

What a job requests of a scheduler follows from it, with a margin; where nothing is known, a rule
requests what it states itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from retrace.planning.earlier_jobs import EarlierJob
from retrace.planning.rates import Rate, rate_of
from retrace.planning.work import ITERATION, JOB, Work

TIME_MARGIN = 3
"""Requested time, as a multiple of the estimate: a node may be busy, or slower than another."""
MEMORY_MARGIN = 2
"""Requested memory, as a multiple of what earlier jobs used."""
LEAST_MINUTES = 30
"""Shortest time that is requested on the basis of an estimate, if the rule does not state less."""
LEAST_MB = 4000
"""Least memory that is requested on the basis of an estimate, if the rule does not state less."""

Device = Literal["cpu", "gpu", "any"]
"""What a job computes on; any: a node of a cluster, with a GPU or without."""


@dataclass(frozen=True)
class Estimate:
    """Seconds and peak memory (MB) of a job, None where unknown; `source` says why.

    `is_bound`: `seconds` is a limit that a setting puts on the job. `per_unit_s`: seconds
    for a unit of work, where earlier jobs give them, also if the amount is unknown.
    """

    seconds: float | None
    peak_mb: float | None
    source: str
    on_gpu: bool = False
    is_bound: bool = False
    per_unit_s: float | None = None


def estimate(
    work: Work, device: Device, jobs: Iterable[EarlierJob], threads: int | None = None
) -> Estimate:
    """The estimate for a job on a device, on `threads` cores (None: as many as were measured)."""
    same = [job for job in jobs if job.alike == work.alike]
    same = of_device(same, device) if work.computes else same
    if same:
        return _limited(_from_jobs(work, same), work)
    return _limited(_from_rates(work, device, threads), work)


def of_device(jobs: Sequence[EarlierJob], device: Device) -> list[EarlierJob]:
    """The jobs that ran on such a device; of any device those on a GPU, if there are some."""
    on_gpu = [job for job in jobs if job.gpu is not None]
    on_cpu = [job for job in jobs if job.gpu is None]
    return {"gpu": on_gpu, "cpu": on_cpu, "any": on_gpu or on_cpu}[device]


def _from_jobs(work: Work, jobs: Sequence[EarlierJob]) -> Estimate:
    """As fast as all these jobs together, after the slowest of their starts."""
    peak = max(job.peak_mb * _growth(work, job) for job in jobs)
    on_gpu = jobs[0].gpu is not None
    count = f"{len(jobs)} earlier job{'s' if len(jobs) > 1 else ''} here"
    source = f"{count}, {jobs[0].gpu or 'on a CPU'} (e.g. {jobs[0].file})"
    each = sum(job.seconds for job in jobs) / sum(job.amount for job in jobs)
    if work.amount is None:
        return Estimate(None, peak, f"{_why(work)}; {source}", on_gpu, per_unit_s=each)
    seconds = max(job.start_s for job in jobs) + each * work.amount
    return Estimate(seconds, peak, source, on_gpu, per_unit_s=each)


def _growth(work: Work, job: EarlierJob) -> float:
    """How much more memory a larger job may need; a training needs the same for any length."""
    if work.amount is None or work.unit == ITERATION:
        return 1.0
    return max(1.0, work.amount / job.amount)


def _from_rates(work: Work, device: Device, threads: int | None) -> Estimate:
    on_gpu = work.computes and device != "cpu"
    rates = [_rate(work, step, on_gpu) for step in work.steps]
    known = [rate for rate in rates if rate is not None]
    if work.amount is None:
        return Estimate(None, None, _why(work), on_gpu)
    seconds = [_seconds(rate, work, threads) for rate in known]
    if not known or len(known) < len(rates) or None in seconds:
        return Estimate(None, None, f"unknown: not measured {_where(work, on_gpu)}", on_gpu)
    peaks = [rate.peak_gb * 1000 for rate in known if rate.peak_gb is not None]
    total = sum(one for one in seconds if one is not None)
    source = "; ".join(dict.fromkeys(rate.source for rate in known))
    return Estimate(total, max(peaks, default=None), source, on_gpu)


def _rate(work: Work, step: str, on_gpu: bool) -> Rate | None:
    return rate_of(step, on_gpu=on_gpu, network=work.network, input_shape=work.input_shape)


def _seconds(rate: Rate, work: Work, threads: int | None) -> float | None:
    """Seconds of the whole work; on fewer cores than measured longer, on more not shorter."""
    each = rate.seconds(work.voxel_size_nm)
    if each is None or work.amount is None:
        return None
    slower = 1.0 if rate.gpu or threads is None else max(1.0, rate.cores / threads)
    return each * work.amount * slower


def _why(work: Work) -> str:
    """Why the amount of work is unknown."""
    is_fetch = work.unit == JOB
    return "unknown: its size is in the bucket" if is_fetch else "unknown until its input is here"


def _where(work: Work, on_gpu: bool) -> str:
    return f"with this network on a {'GPU' if on_gpu else 'CPU'}" if work.computes else "yet"


def _limited(one: Estimate, work: Work) -> Estimate:
    """Not longer than the setting that ends the job."""
    if work.longest_s is None or (one.seconds is not None and one.seconds <= work.longest_s):
        return one
    source = f"ends after {work.longest_s:g} s (`train_seconds`)"
    return Estimate(work.longest_s, one.peak_mb, source, one.on_gpu, is_bound=True)


# ---------------------------------------------------------------- requests


def requested_minutes(
    seconds: float | None, otherwise: int, attempt: int, most: int | None = None
) -> int:
    """Minutes that a job requests at its attempt 1, 2 ...: its estimate with a margin.

    `otherwise`: what it requests if the estimate is unknown; `most`: what it requests at most,
    because it resumes. Such a job requests `otherwise` at each attempt.
    """
    if seconds is None:
        return otherwise * attempt if most is None else min(otherwise, most)
    minutes = max(min(LEAST_MINUTES, otherwise), math.ceil(seconds * TIME_MARGIN / 60)) * attempt
    return minutes if most is None else min(minutes, most)


def requested_mb(peak_mb: float | None, otherwise: int, attempt: int, *, grows: bool = True) -> int:
    """Memory (MB) that a job requests at its attempt 1, 2 ...: what was used, with a margin.

    `otherwise`: what it requests if that is unknown, at each attempt the same unless it `grows`.
    """
    if not peak_mb:
        return otherwise * attempt if grows else otherwise
    return max(min(LEAST_MB, otherwise), math.ceil(peak_mb * MEMORY_MARGIN)) * attempt
