"""The dynamic loss scale by itself."""

from __future__ import annotations

import math

from hpcvideo.methods.loss_scale import LossScale


def test_the_scale_halves_at_an_overflow_and_doubles_after_enough_good_updates() -> None:
    scale = LossScale(scale=8.0, patience=3)
    made, scales = [], []
    for norm in (1.0, math.inf, math.nan, 2.0, 2.0, 2.0, 2.0, math.inf):
        made.append(scale.update(norm))
        scales.append(scale.scale)
    assert made == [True, False, False, True, True, True, True, False]
    assert scales == [8.0, 4.0, 2.0, 2.0, 2.0, 4.0, 4.0, 2.0]
    assert (scale.skipped, scale.good_steps) == (3, 0)


def test_at_a_scale_of_one_a_norm_that_is_not_finite_is_not_held_back() -> None:
    scale = LossScale(scale=1.0)
    assert scale.update(math.nan) and scale.skipped == 0, "nothing overflowed: the training diverges, and shall say so"


def test_the_scale_has_an_upper_end() -> None:
    scale = LossScale(scale=2.0**24, patience=1)
    assert scale.update(1.0) and scale.scale == 2.0**24


def test_a_stored_scale_goes_on_and_an_extra_state_without_one_changes_nothing() -> None:
    scale, other = LossScale(scale=4.0, good_steps=7, skipped=2, patience=8), LossScale(patience=8)
    other.load({"fc.weight/averaged": scale.state()["loss_scale/scale"]})
    assert other == LossScale(patience=8)
    other.load(scale.state())
    assert other == scale
    assert other.update(1.0) and other.scale == 8.0
