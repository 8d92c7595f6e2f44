"""Squared error, PSNR and SSIM against their definitions, written out pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hpcvideo.tasks.frame_quality import mean_squared_error, peak_signal_to_noise, structural_similarity


def frames(size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two sets of frames [2, 2, 3, size, size] that resemble each other."""
    generator = torch.Generator().manual_seed(seed)
    one = torch.rand(2, 2, 3, size, size, generator=generator, dtype=torch.float64)
    noise = 0.2 * torch.randn(one.shape, generator=generator, dtype=torch.float64)
    return one, (one + noise).clamp(0, 1)


def similarity(one: NDArray[np.float64], other: NDArray[np.float64], window: int) -> float:
    """SSIM of two pictures [height, width] of one colour: the mean over every place of the window."""
    offsets = np.arange(window) - window // 2
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    found = []
    for top in range(one.shape[0] - window + 1):
        for left in range(one.shape[1] - window + 1):
            a, b = one[top : top + window, left : left + window], other[top : top + window, left : left + window]
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            spread_a, spread_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
            together = (weights * (a - mean_a) * (b - mean_b)).sum()
            above = (2 * mean_a * mean_b + 0.01**2) * (2 * together + 0.03**2)
            found.append(above / ((mean_a**2 + mean_b**2 + 0.01**2) * (spread_a + spread_b + 0.03**2)))
    return float(np.mean(found))


@pytest.mark.parametrize(("size", "window"), [(16, 11), (8, 7)])
def test_structural_similarity_is_that_of_every_window_and_colour(size: int, window: int) -> None:
    one, other = frames(size, 3)
    found = structural_similarity(other, one)
    assert found.shape == (2, 2)
    for clip in range(2):
        for frame in range(2):
            pairs = [(one[clip, frame, colour].numpy(), other[clip, frame, colour].numpy()) for colour in range(3)]
            expected = np.mean([similarity(*pair, window) for pair in pairs])
            assert float(found[clip, frame]) == pytest.approx(expected, abs=1e-12)
    in_fp32 = structural_similarity(other.float(), one.float())
    torch.testing.assert_close(in_fp32.double(), found, atol=1e-4, rtol=0)


def test_equal_frames_are_alike_and_others_are_less_so() -> None:
    one, other = frames(16, 4)
    torch.testing.assert_close(structural_similarity(one, one), torch.ones(2, 2, dtype=torch.float64))
    assert (structural_similarity(1 - one, one) < structural_similarity(other, one)).all()


def test_squared_error_and_decibels_are_those_of_each_frame() -> None:
    one, other = frames(9, 5)
    error = mean_squared_error(other, one)
    plain = [sum((x - y) ** 2 for x, y in zip(other[0, 1].flatten().tolist(), one[0, 1].flatten().tolist(), strict=True))]
    assert float(error[0, 1]) == pytest.approx(plain[0] / (3 * 81))
    assert float(peak_signal_to_noise(error)[0, 1]) == pytest.approx(10 * math.log10(1 / float(error[0, 1])))
    assert peak_signal_to_noise(torch.zeros(1)).item() == 100.0
