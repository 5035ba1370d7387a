"""Skips what needs torch, in an environment without it: `pytest -p tests.without_torch`.

.ci/other_python runs the other tests with another Python in a minute, for which no build of torch
for CPUs is near.
"""

from __future__ import annotations

import pytest


def needs_torch(error: BaseException | None) -> bool:
    """Whether a test failed because torch is absent."""
    return isinstance(error, ModuleNotFoundError) and error.name == "torch"


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> object:
    """A file that imports torch is skipped as a whole."""
    report = yield
    if report.failed and "No module named 'torch'" in str(report.longrepr):
        report.outcome = "skipped"
        report.longrepr = (str(collector.path), 0, "Skipped: needs torch")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> object:
    """A test that imports torch while it runs is skipped."""
    report = yield
    if report.failed and call.excinfo is not None and needs_torch(call.excinfo.value):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), 0, "Skipped: needs torch")
    return report
