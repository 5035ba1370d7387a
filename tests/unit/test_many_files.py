"""Work in slices: every item once, in order, and the first error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrace.many_files import in_threads


@given(count=st.integers(0, 300), threads=st.integers(1, 9))
def test_results_come_in_the_order_of_the_items(count: int, threads: int) -> None:
    assert in_threads(lambda item: item + 1, range(count), threads) == list(range(1, count + 1))


def test_an_error_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda item: 1 // (item - 70), range(100), 3)
