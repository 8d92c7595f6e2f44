"""Offsets of clocks from barriers: the truth is always within the bound that is given."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hpcvideo.distributed.clock_offsets import clock_offsets


def barriers(offsets: list[float], rounds: int, delay: float, chance: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
    """When ranks with these clocks enter and leave barriers that let nobody out before all are in."""
    entered, left, now = [], [], 1000.0
    for _ in range(rounds):
        enters = [now + chance.uniform(0, delay) for _ in offsets]
        leaves = [max(enters) + chance.uniform(0, delay) for _ in offsets]
        entered.append([time + offset for time, offset in zip(enters, offsets, strict=True)])
        left.append([time + offset for time, offset in zip(leaves, offsets, strict=True)])
        now = max(leaves)
    return torch.tensor(entered, dtype=torch.float64).T, torch.tensor(left, dtype=torch.float64).T


@given(
    st.lists(st.floats(-1e5, 1e5), min_size=1, max_size=6), st.integers(1, 20), st.floats(1e-6, 1.0), st.integers(0, 2**32)
)
def test_the_true_offset_is_within_the_error_of_the_one_found(
    offsets: list[float], rounds: int, delay: float, seed: int
) -> None:
    found = clock_offsets(*barriers(offsets, rounds, delay, random.Random(seed)))
    assert found[0] == (0.0, 0.0)
    for offset, (seconds, error) in zip(offsets, found, strict=True):
        assert abs(seconds - (offset - offsets[0])) <= error + 1e-9
        assert error <= 2 * delay + 1e-9, "entering and leaving take up to a delay each"


def test_more_rounds_bound_it_closer() -> None:
    errors = []
    for rounds in (1, 4, 64):
        found = clock_offsets(*barriers([0.0, 7.0, -3.0], rounds, 0.01, random.Random(1)))
        errors.append(max(offset.error for offset in found))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.5 * errors[0]
    assert found[1].seconds == pytest.approx(7.0, abs=0.01)
