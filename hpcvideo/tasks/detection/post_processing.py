"""From a detector's outputs to detections: candidates, soft-NMS, voting, class scores, seconds (ETAD, arXiv 2205.07134)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hpcvideo.intervals.detector_outputs import DetectorOutputs
from hpcvideo.tasks.detection.candidates import Peaks, boundary_candidates
from hpcvideo.tasks.detection.soft_nms import soft_nms, voted
from hpcvideo.tasks.detection.targets import edge_bins


@dataclass(frozen=True)
class PostProcessing:
    """sigma: of soft-NMS; most: proposals of a video that are kept; top_classes: that each is given; voting: overlap from
    which proposals vote for the place of those kept, None without. candidates: whether a proposal must begin and end where
    the boundary head says that something may; peaks: see boundary_candidates; leave_last: see soft_nms."""

    sigma: float = 0.35
    most: int = 100
    top_classes: int = 2
    voting: float | None = None
    candidates: bool = True
    peaks: Peaks = "strict"
    leave_last: bool = False


def detect(
    outputs: DetectorOutputs, spans: Tensor, limits: Tensor, settings: PostProcessing,
    video_classes: Tensor | None = None, videos: Tensor | None = None,
) -> list[Tensor]:  # fmt: skip
    """Of each video float64 [found, 4]: begin and end in seconds, score, label; best first, most * top_classes at most.

    outputs of all anchors. spans, limits float64 [batch, 2]: seconds that the bins cover, and to which detections are cut.
    videos: int64 [batch], ascending from 0: which video each row is a window of, None where each is a video of its own.
    Candidates are chosen in each window; soft-NMS and voting see those of all windows of a video together.
    A proposal's score is the product of both overlaps, each the mean of the stages' probabilities, its place the mean of the
    places that the stages moved it to. The score is multiplied by that of a class: of `video_classes` [batch, classes] where
    given, else the mean over its bins of the class head's probabilities.
    """
    scores = outputs.overlaps.double().sigmoid().mean(dim=1).prod(dim=-1)
    places = outputs.intervals[:, 1:].double().mean(dim=1)
    chosen = torch.ones_like(scores, dtype=torch.bool)
    if settings.candidates:
        bins = outputs.boundaries.shape[2]
        may_be = boundary_candidates(outputs.boundaries.double().sigmoid(), settings.peaks)
        begin, end = edge_bins(outputs.intervals[:, 0], bins).unbind(dim=-1)
        chosen = may_be[:, 0].gather(1, begin) & may_be[:, 1].gather(1, end)
    shown = outputs.classes.double().softmax(dim=1).cpu()
    places, scores, chosen, spans = places.cpu(), scores.cpu(), chosen.cpu(), spans.cpu().double()
    rows_of = [torch.tensor([row]) for row in range(len(scores))]
    if videos is not None:
        rows_of = [(videos == video).nonzero().flatten() for video in range(int(videos[-1]) + 1)]
    answers = []
    for rows in rows_of:
        first = int(rows[0])
        moved = [_seen_from(places[row], spans[row], spans[first]) for row in rows]
        mine = torch.cat([place[chosen[row]] for place, row in zip(moved, rows, strict=True)]).numpy()
        values = torch.cat([scores[row][chosen[row]] for row in rows]).numpy()
        windows = rows.repeat_interleave(chosen[rows].sum(dim=1))
        kept, lowered = soft_nms(mine, values, settings.sigma, settings.most, settings.leave_last)
        found = mine[kept] if settings.voting is None else voted(mine[kept], mine, values, settings.voting)
        segments = torch.from_numpy(found)
        if video_classes is None:
            likely = _class_scores_of_windows(shown, segments, windows[torch.from_numpy(kept)], spans, first)
        else:
            likely = video_classes[first].double().cpu().expand(len(segments), -1)
        answers.append(_in_seconds(segments, torch.from_numpy(lowered), likely, spans[first], limits[first], settings))
    return answers


def _seen_from(segments: Tensor, span: Tensor, other: Tensor) -> Tensor:
    """Fractions [n, 2] of the seconds `span` as fractions of the seconds `other`; the same numbers where both are one."""
    length = other[1] - other[0]
    return segments * ((span[1] - span[0]) / length) + (span[0] - other[0]) / length


def _class_scores_of_windows(shown: Tensor, segments: Tensor, windows: Tensor, spans: Tensor, first: int) -> Tensor:
    """[n, classes]: each segment's from the window that proposed it; segments are fractions of the span of row `first`."""
    likely = torch.empty(len(segments), shown.shape[1], dtype=torch.float64)
    for window in windows.unique().tolist():
        mine = windows == window
        likely[mine] = _class_scores(shown[window], _seen_from(segments[mine], spans[first], spans[window]))
    return likely


def _class_scores(shown: Tensor, segments: Tensor) -> Tensor:
    """[n, classes]: the mean over the time that segments [n, 2] cover of probabilities [classes, bins]; outside of the bins
    the nearest one's."""
    classes, bins = shown.shape
    before = torch.cat([shown.new_zeros(classes, 1), shown.cumsum(dim=1)], dim=1)
    at = (segments * bins).clamp(0, bins)
    cell = at.floor().clamp(max=bins - 1).long()
    sums = before[:, cell] + shown[:, cell] * (at - cell)  # [classes, n, 2]
    length = at[:, 1] - at[:, 0]
    nearest = shown[:, cell[:, 0]]
    mean = (sums[..., 1] - sums[..., 0]) / length.clamp(min=1e-12)
    return torch.where(length > 1e-9, mean, nearest).T


def _in_seconds(
    segments: Tensor, scores: Tensor, likely: Tensor, span: Tensor, limit: Tensor, settings: PostProcessing
) -> Tensor:
    best = likely.topk(min(settings.top_classes, likely.shape[1]), dim=1)
    begin, end = span.tolist()
    low, high = limit.tolist()
    seconds = (begin + segments * (end - begin)).clamp(low, high)
    rows = torch.cat(
        [
            seconds[:, None].expand(-1, best.values.shape[1], -1),
            (scores[:, None] * best.values)[..., None],
            best.indices.double()[..., None],
        ],
        dim=-1,
    ).flatten(0, 1)
    rows = rows[rows[:, 1] > rows[:, 0]]
    order = np.argsort(-rows[:, 2].numpy(), kind="stable")
    return rows[torch.from_numpy(order)]
