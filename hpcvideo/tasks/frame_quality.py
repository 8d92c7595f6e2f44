"""How near a predicted frame is to the true one: squared error, its logarithm, and structural similarity."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

MOST_DECIBELS = 100.0
"""The PSNR of a frame that is right to the last bit, which would be infinite."""

_WINDOW, _SIGMA = 11, 1.5
_K1, _K2 = 0.01, 0.03


def mean_squared_error(predicted: Tensor, true: Tensor) -> Tensor:
    """Of each frame over its pixels and colours: [..., 3, height, width] brightnesses to [...]."""
    return (predicted - true).square().mean(dim=(-3, -2, -1))


def peak_signal_to_noise(squared_error: Tensor) -> Tensor:
    """PSNR in decibels from mean squared errors of brightnesses 0 to 1, at most MOST_DECIBELS; same shape."""
    return -10 * squared_error.clamp_min(10 ** (-MOST_DECIBELS / 10)).log10()


def structural_similarity(predicted: Tensor, true: Tensor) -> Tensor:
    """SSIM (Wang et al., IEEE Transactions on Image Processing 13(4), 2004) of each frame: brightnesses 0 to 1,
    [..., 3, height, width], to [...], 1 for equal ones.

    A Gaussian window of 11 pixels and sigma 1.5 wherever it lies wholly in the frame, K1 = 0.01, K2 = 0.03, the mean over
    places and colours. Frames of fewer pixels a side have the largest odd window that fits.
    """
    height, width = predicted.shape[-2:]
    size = min(_WINDOW, height - (height + 1) % 2, width - (width + 1) % 2)
    places = torch.arange(size, device=predicted.device, dtype=predicted.dtype) - (size - 1) / 2
    kernel = (-places.square() / (2 * _SIGMA**2)).exp()
    kernel = kernel / kernel.sum()

    def blur(images: Tensor) -> Tensor:
        rows = functional.conv2d(images, kernel.view(1, 1, 1, size))
        return functional.conv2d(rows, kernel.view(1, 1, size, 1))

    one, other = (images.reshape(-1, 1, height, width) for images in (predicted, true))
    mean_one, mean_other = blur(one), blur(other)
    variance_one = blur(one * one) - mean_one.square()
    variance_other = blur(other * other) - mean_other.square()
    covariance = blur(one * other) - mean_one * mean_other
    c1, c2 = _K1**2, _K2**2
    similarity = (2 * mean_one * mean_other + c1) * (2 * covariance + c2)
    similarity = similarity / ((mean_one.square() + mean_other.square() + c1) * (variance_one + variance_other + c2))
    return similarity.mean(dim=(-3, -2, -1)).view(*predicted.shape[:-3], 3).mean(dim=-1)
