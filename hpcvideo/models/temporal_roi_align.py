"""ROI-align along time in plain torch: each interval's features resampled to a fixed number of bins.

Mask R-CNN's operator (arXiv 1703.06870) for an image one pixel wide, with the choices of the common implementation. As it is
linear in the features, an interval is a matrix over them, and all intervals are one product: no extension to build, and
backward is another product.
"""

from __future__ import annotations

import torch
from torch import Tensor


def temporal_roi_align(features: Tensor, intervals: Tensor, bins: int, aligned: bool = False) -> Tensor:
    """[batch, channels, length] and intervals [batch, n, 2] in places of features to [batch, n, channels, bins].

    aligned: feature j lies at j + 0.5, as an interval [0, length] of all of them says; else at j, and an interval is at
    least 1 long (the first published form, which ETAD uses). Each bin is the mean of ceil(interval length / bins) evenly
    spread linear interpolations; places beyond the ends by up to 1 count as the ends, further ones as zero. Differentiable
    in the features, not in the intervals.
    """
    batch, count = intervals.shape[:2]
    exact = intervals.detach().to(torch.promote_types(intervals.dtype, torch.float32))
    weights = roi_weights(exact, features.shape[2], bins, aligned).to(features.dtype)
    pooled = torch.bmm(features, weights.view(batch, count * bins, -1).transpose(1, 2))
    return pooled.unflatten(2, (count, bins)).transpose(1, 2)


def roi_weights(intervals: Tensor, length: int, bins: int, aligned: bool) -> Tensor:
    """What each of `length` features counts in each bin: [batch, n, 2] float to [batch, n, bins, length]."""
    begin = intervals[..., 0] - (0.5 if aligned else 0.0)
    size = intervals[..., 1] - intervals[..., 0]
    if not aligned:
        size = size.clamp(min=1.0)
    samples = torch.ceil(size / bins).clamp(min=1.0)  # of each bin
    most = int(samples.max())
    number = torch.arange(most, device=intervals.device)
    inner = (number + 0.5) / samples[..., None]  # within a bin, as a share of it
    places = begin[..., None, None] + (size / bins)[..., None, None] * (
        torch.arange(bins, device=intervals.device)[:, None] + inner[..., None, :]
    )
    counts = (number < samples[..., None])[..., None, :] & (places >= -1.0) & (places <= length)
    places = places.clamp(0.0, length - 1.0)
    left = places.floor().clamp(max=max(0, length - 2))
    right_share = places - left
    each = counts / samples[..., None, None]
    weights = intervals.new_zeros(*intervals.shape[:2], bins, length)
    at = left.long()
    weights.scatter_add_(3, at, (1.0 - right_share) * each)
    if length > 1:
        weights.scatter_add_(3, at + 1, right_share * each)
    return weights
