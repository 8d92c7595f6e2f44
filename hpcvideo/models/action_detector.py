"""ETAD's detector (arXiv 2205.07134): from the features of a video's snippets to scored and refined intervals."""

from __future__ import annotations

from math import gcd

import torch
from torch import Tensor, nn

from hpcvideo.intervals.anchors import dense_anchors
from hpcvideo.intervals.detector_outputs import STAGES, DetectorOutputs
from hpcvideo.intervals.refinement import refined
from hpcvideo.models.anchor_sampling import Sampling, sampled_anchors
from hpcvideo.models.temporal_roi_align import temporal_roi_align

_GROUPS, _NORM_GROUPS = 4, 16
_SCORED_AT_ONCE = 1024
"""Intervals in a stage at a time where nothing is kept for backward: all 8,256 of a video would need gigabytes."""


class ActionDetector(nn.Module):
    """Enhanced features; a head that tells where actions begin and end; three stages that score intervals and move them;
    and a head that tells the action of each bin, so that no other program's class scores are needed.

    channels: of the features; bins: how many there are; classes: of actions. width: channels within, a multiple of 8 (the
    paper: 256). longest: bins of the longest anchor (None: all). proposals: share of the anchors that a training step
    looks at, drawn by `proposal_sampling`; in evaluation all. roi_bins: into how many an interval's features are
    resampled, a multiple of 4; roi_aligned: see temporal_roi_align. hidden: of the fully connected layers. dropout: in
    front of the class head.
    """

    anchors: Tensor

    def __init__(
        self, channels: int, bins: int, classes: int, *, width: int = 256, longest: int | None = None,
        proposals: float = 0.06, proposal_sampling: Sampling = "random", roi_bins: int = 24, roi_aligned: bool = False,
        hidden: int = 512, dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.bins, self.classes, self.longest = bins, classes, longest
        self.proposals, self.proposal_sampling = proposals, proposal_sampling
        self.enhance = _Enhancement(channels, width)
        self.boundary = nn.Sequential(_convolution(width, width), nn.ReLU(), nn.Conv1d(width, 2, 1))
        self.stages = nn.ModuleList(_Stage(width, hidden, roi_bins, roi_aligned) for _ in range(STAGES))
        self.classifier = nn.Sequential(
            nn.Conv1d(width, width, 3, padding=1), nn.ReLU(), nn.Dropout(dropout), nn.Conv1d(width, classes, 1)
        )
        self.register_buffer("anchors", dense_anchors(bins, longest), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear) and not module.weight.is_meta:
                nn.init.xavier_uniform_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, features: Tensor, draws: Tensor | None = None) -> Tensor:
        """[batch, channels, bins] to packed DetectorOutputs, float [batch, numbers].

        draws: int64 [batch], the keys of each video's sampled anchors in training; None takes them from torch's generator.
        Raises ValueError for features of another shape.
        """
        if features.ndim != 3 or features.shape[2] != self.bins:
            raise ValueError(f"the detector takes features [batch, channels, {self.bins} bins], got {list(features.shape)}")
        enhanced = self.enhance(features)
        intervals = [self._first_intervals(len(features), draws)]
        scores = []
        for stage in self.stages:
            found: Tensor = stage(enhanced, intervals[-1])
            scores.append(found)
            intervals.append(refined(intervals[-1], found[..., 4:].detach().to(intervals[-1].dtype)))
        stacked = torch.stack(scores, dim=1)
        overlaps, edges, shifts = stacked.split([2, 2, 4], dim=-1)
        return DetectorOutputs(
            boundaries=self.boundary(enhanced), classes=self.classifier(enhanced),
            intervals=torch.stack(intervals, dim=1), overlaps=overlaps, edges=edges, shifts=shifts,
        ).packed()  # fmt: skip

    def _first_intervals(self, batch: int, draws: Tensor | None) -> Tensor:
        """[batch, proposals, 2]: all anchors, or in training a part of them by each video's key."""
        if not self.training or self.proposals == 1:
            return self.anchors.expand(batch, -1, -1)
        if draws is None:
            draws = torch.randint(-(2**63), 2**63 - 1, (batch,))
        numbers = [
            sampled_anchors(self.bins, self.longest, self.proposals, self.proposal_sampling, key)
            for key in draws.tolist()
        ]
        return self.anchors[torch.stack(numbers).to(self.anchors.device)]


class _Enhancement(nn.Module):
    """Features that know what lies before and after: convolutions, one LSTM forwards, another one backwards."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.enter = _normalised(nn.Conv1d(channels, width, 3, padding=1, groups=gcd(_GROUPS, channels)), width)
        self.forwards = nn.LSTM(width, width, batch_first=True)
        self.backwards = nn.LSTM(width, width, batch_first=True)
        half = width // 2
        self.after_forwards = _normalised(_convolution(width, half), half)
        self.after_backwards = _normalised(_convolution(width, half), half)
        self.direct = _normalised(_convolution(width, width), width)
        self.join = _normalised(nn.Conv1d(2 * width, width, 1, groups=_GROUPS), width)

    def forward(self, features: Tensor) -> Tensor:
        """[batch, channels, bins] to [batch, width, bins]."""
        entered = self.enter(features)
        in_time = entered.transpose(1, 2)
        before = self.forwards(in_time)[0].transpose(1, 2)
        after = self.backwards(in_time.flip(1))[0].flip(1).transpose(1, 2)
        joined = torch.cat([self.after_forwards(before), self.after_backwards(after), self.direct(entered)], dim=1)
        out: Tensor = self.join(joined)
        return out


class _Stage(nn.Module):
    """Scores intervals, and says how to move them. Each is seen with half of its length on both sides (as in BMN)."""

    def __init__(self, width: int, hidden: int, roi_bins: int, aligned: bool) -> None:
        super().__init__()
        half = width // 2
        self.roi_bins, self.aligned = roi_bins, aligned
        self.context = nn.Sequential(_convolution(width, width), nn.ReLU())
        self.reduce = nn.Sequential(nn.Conv1d(width, half, 3, padding=1), nn.ReLU())
        self.shared = nn.Sequential(nn.Linear(half * roi_bins, hidden), nn.ReLU())
        narrow = max(8, hidden // 4)
        self.overlaps, self.edges, self.middle = (_head(hidden, narrow, 2) for _ in range(3))
        quarter = half * roi_bins // 4
        self.begin, self.end = (
            nn.Sequential(nn.Linear(quarter, hidden), nn.ReLU(), *_head(hidden, narrow, 1)) for _ in range(2)
        )

    def forward(self, enhanced: Tensor, intervals: Tensor) -> Tensor:
        """[batch, width, bins] and [batch, n, 2] to [batch, n, 8]: overlaps, edges, shifts (see DetectorOutputs)."""
        seen = self.reduce(enhanced + self.context(enhanced))
        margin = (intervals[..., 1:] - intervals[..., :1]) / 2
        wide = torch.cat([intervals[..., :1] - margin, intervals[..., 1:] + margin], dim=-1) * seen.shape[2]
        at_once = wide.shape[1] if torch.is_grad_enabled() else _SCORED_AT_ONCE
        return torch.cat([self._score(seen, part) for part in wide.split(at_once, dim=1)], dim=1)

    def _score(self, seen: Tensor, places: Tensor) -> Tensor:
        rois = temporal_roi_align(seen, places, self.roi_bins, self.aligned)
        shared = self.shared(rois.flatten(2))
        quarter = self.roi_bins // 4
        begin, end = self.begin(rois[..., :quarter].flatten(2)), self.end(rois[..., -quarter:].flatten(2))
        # Halved as published: an untrained detector then moves intervals less.
        parts = [self.overlaps(shared), self.edges(shared), begin, end, self.middle(shared) / 2]
        return torch.cat([part.float() if part.dtype != torch.float64 else part for part in parts], dim=-1)


def _convolution(channels: int, out: int) -> nn.Conv1d:
    return nn.Conv1d(channels, out, 3, padding=1, groups=_GROUPS)


def _normalised(convolution: nn.Conv1d, channels: int) -> nn.Sequential:
    return nn.Sequential(convolution, nn.GroupNorm(gcd(_NORM_GROUPS, channels), channels), nn.ReLU())


def _head(hidden: int, narrow: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(hidden, narrow), nn.ReLU(), nn.Linear(narrow, narrow), nn.ReLU(), nn.Linear(narrow, narrow), nn.ReLU(),
        nn.Linear(narrow, out),
    )  # fmt: skip
