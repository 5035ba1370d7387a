"""Fixtures of integration tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import tiny_workflow


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The address of an S3 server with the phantoms."""
    with tiny_workflow.serving() as address:
        yield address
