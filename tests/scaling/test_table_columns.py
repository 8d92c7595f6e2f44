"""Columns that stand below each other where lines are short."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hpcvideo.scaling.table_columns import column_groups


def test_columns_stay_together_where_they_fit() -> None:
    assert column_groups([5, 10, 10], 29) == [[0, 1, 2]]
    assert column_groups([5, 10, 10], 28) == [[0, 1], [0, 2]]
    assert column_groups([5], 3) == [[0]]


@given(st.lists(st.integers(1, 30), min_size=2, max_size=12), st.integers(1, 120))
def test_each_column_comes_once_in_order_and_lines_are_short(widths: list[int], limit: int) -> None:
    groups = column_groups(widths, limit)
    assert all(group[0] == 0 for group in groups)
    assert [place for group in groups for place in group[1:]] == list(range(1, len(widths)))
    for group in groups:
        assert sum(widths[place] for place in group) + 2 * (len(group) - 1) <= limit or len(group) == 2
