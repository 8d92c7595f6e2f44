"""recipe.batch_norm: what is refused, and how many images a statistic sees."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from hpcvideo.config.batch_norm import BatchNormConfig
from hpcvideo.errors import InputError


@pytest.mark.parametrize(
    ("values", "ranks", "images"),
    [
        ({}, 1, 64),
        ({"sync": "group", "group_ranks": 4}, 4, 256),
        ({"sync": "all"}, 12, 768),
        ({"frozen": "partial"}, 1, 64),
        ({"frozen": "all"}, 1, 0),
    ],
)
def test_a_statistic_sees_the_frames_of_all_micro_batches_that_share_it(
    values: dict[str, Any], ranks: int, images: int
) -> None:
    """8 clips of 8 frames a rank, 12 ranks."""
    config = BatchNormConfig(**values)
    assert config.statistic_ranks(12) == ranks
    assert config.span(8, 8, 12) == images


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"sync": "group"}, "group_ranks belong together"),
        ({"group_ranks": 4}, "group_ranks belong together"),
        ({"sync": "all", "frozen": "all"}, "no effect with frozen: all"),
        ({"precise_batches": 5, "frozen": "all"}, "no effect with frozen: all"),
        ({"synchronise": True}, "Extra inputs"),
    ],
)
def test_what_contradicts_itself_is_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        BatchNormConfig(**values)


def test_groups_that_do_not_divide_the_ranks_are_refused_with_the_nearest_that_do() -> None:
    config = BatchNormConfig(sync="group", group_ranks=4)
    with pytest.raises(InputError, match=r"group_ranks = 4 does not divide 6 data-parallel ranks; use 2 or 3"):
        config.statistic_ranks(6)
    with pytest.raises(InputError, match=r"does not divide 1 data-parallel rank; use sync: rank"):
        config.statistic_ranks(1)
