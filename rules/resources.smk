"""The time and memory that jobs request: what they are estimated to take, with a margin; no rules here.

A rule states what it requests where nothing is known of such jobs. `make cost` shows both.
"""

from retrace.planning.estimate import requested_mb, requested_minutes
from retrace.planning.estimator import Estimator

ESTIMATOR = Estimator(PLANNER)


def minutes(
    plan_job: PlanJob, otherwise: int, *, resumes: bool = False
) -> Callable[..., int]:
    """`runtime` of a rule; `otherwise`: of jobs whose time is unknown.

    A job that `resumes` requests at most that, or the `runtime_limit` that a profile sets for its rule.
    """

    def amount(wildcards: Any, attempt: int, threads: int, rulename: str) -> int:
        job = planned(plan_job)(wildcards)
        known = ESTIMATOR.of(rulename, job, wildcards, threads)
        most = min(otherwise, runtime_limit(rulename, otherwise)) if resumes else None
        return requested_minutes(known.seconds, otherwise, attempt, most)

    return amount


def memory(
    plan_job: PlanJob, otherwise: int, *, grows: bool = True
) -> Callable[..., int]:
    """`mem_mb` of a rule; `otherwise`: of jobs whose memory is unknown, and whether that grows with retries."""

    def amount(wildcards: Any, attempt: int, threads: int, rulename: str) -> int:
        job = planned(plan_job)(wildcards)
        known = ESTIMATOR.of(rulename, job, wildcards, threads)
        return requested_mb(known.peak_mb, otherwise, attempt, grows=grows)

    return amount


def runtime_limit(rule: str, otherwise: int) -> int:
    """Minutes that --set-resources RULE:runtime_limit=N allows; profiles set it for trainings."""
    limits = workflow.resource_settings.overwrite_resources.get(rule, {})
    # `raw` is the text of the option: Snakemake computes the value for jobs alone.
    return int(limits["runtime_limit"].raw) if "runtime_limit" in limits else otherwise
