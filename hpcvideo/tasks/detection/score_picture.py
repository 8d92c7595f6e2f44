"""The scores of a detector as one picture: by threshold, by class, by length and by coverage of the actions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from hpcvideo.tasks.detection.breakdown import Bucket
from hpcvideo.tasks.detection.detection_scores import ClassScore, DetectionScores
from hpcvideo.tasks.picture_file import COLOURS, INK, check_suffix, write_picture

_QUIET = "#5b6770"
_BLUE, _ORANGE, _GREEN = COLOURS[:3]
_MOST_CLASSES = 24
"""Of more classes the best and the worst are drawn, half of each."""


def write_score_picture(path: Path, scores: DetectionScores, title: str) -> None:
    """Draw into the format that the suffix names. Raises InputError for another one, OperationFailed where the file cannot
    be written."""
    check_suffix(path, "scores are")
    write_picture(path, lambda: _draw(scores, title), "detections")


def _draw(scores: DetectionScores, title: str) -> Figure:
    classes = _shown_classes(scores.classes)
    height = max(6.6, 1.6 + 0.3 * len(classes))
    figure = Figure(figsize=(12.6, height), layout="constrained", facecolor="white")
    grid = figure.add_gridspec(3, 2, width_ratios=[1.1, 1.0])
    _thresholds(figure.add_subplot(grid[0, 0]), scores)
    base = scores.normalised_average_map
    lengths, coverages = figure.add_subplot(grid[1, 0]), figure.add_subplot(grid[2, 0])
    _buckets(lengths, scores.lengths, base, "By length of the action, seconds", _BLUE, 1)
    _buckets(coverages, scores.coverages, base, "By share of its video that the action covers, %", _GREEN, 100)
    _classes(figure.add_subplot(grid[:, 1]), classes, len(scores.classes))
    figure.suptitle(
        f"{_plain(title)}\naverage mAP {scores.average_map:.2%} over tIoU {scores.tiou[0]:g} to {scores.tiou[-1]:g}, "
        f"{scores.instances:,} actions, {scores.predictions:,} detections",
        x=0.01, ha="left", fontsize=11,
    )  # fmt: skip
    return figure


def _thresholds(axes: Axes, scores: DetectionScores) -> None:
    places = range(len(scores.tiou))
    bars = axes.bar(places, scores.map, color=_ORANGE, width=0.66)
    if len(scores.tiou) <= 12:
        axes.bar_label(bars, [f"{value:.1%}" for value in scores.map], fontsize=8, padding=2)
    every = -(-len(scores.tiou) // 12)
    axes.set_xticks(places[::every], [f"{threshold:g}" for threshold in scores.tiou[::every]])
    axes.set_title("mAP by tIoU threshold")
    axes.set_xlabel("overlap that a detection must reach")
    _share_axis(axes, max(scores.map))


def _buckets(axes: Axes, buckets: Sequence[Bucket], base: float, title: str, colour: str, factor: int) -> None:
    values = [bucket.average_map or 0.0 for bucket in buckets]
    bars = axes.bar(range(len(buckets)), values, color=colour, width=0.66)
    said = ["no action" if bucket.average_map is None else f"{bucket.average_map:.1%}" for bucket in buckets]
    axes.axhline(base, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    for label in axes.bar_label(bars, said, fontsize=8, padding=3):  # on white, as the line may run through them
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.8})
    axes.annotate(f"all {base:.1%}", (1.0, base), xycoords=("axes fraction", "data"), xytext=(3, 0),
                  textcoords="offset points", va="center", fontsize=8, annotation_clip=False)  # fmt: skip
    names = []
    for bucket in buckets:
        above = f"{factor * bucket.above:g}"
        end = f"{above}+" if bucket.up_to is None else f"{above}-{factor * bucket.up_to:g}"
        actions = "1 action" if bucket.instances == 1 else f"{bucket.instances:,} actions"
        names.append(f"{bucket.name} {end}\n{actions}")
    axes.set_xticks(range(len(buckets)), names, fontsize=8.5)
    axes.set_title(title)
    axes.set_ylabel("normalised mAP")
    _share_axis(axes, max([*values, base]))


def _classes(axes: Axes, classes: Sequence[ClassScore], of: int) -> None:
    rows = range(len(classes))
    axes.barh(rows, [one.average_ap for one in classes], color=_BLUE, height=0.62)
    for row, one in zip(rows, classes, strict=True):
        said = f"{one.average_ap:.1%}   {one.instances:,} / {one.predictions:,}"
        axes.text(one.average_ap + 0.012, row, said, va="center", fontsize=8, color=_QUIET)
    axes.set_yticks(rows, [_short(_plain(one.label)) for one in classes], fontsize=8.5)
    axes.set_ylim(max(len(classes), 8) - 0.4, -0.6)
    axes.set_xlim(0, 1.28)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1.0])
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(axis="x")
    some = "" if len(classes) == of else f": {len(classes) // 2} best and worst of {of}"
    axes.set_title(f"AP by class{some}")
    axes.set_xlabel("mean over thresholds; behind it: actions / detections")
    if some:
        axes.axhline(len(classes) / 2 - 0.5, color=INK, linewidth=1, linestyle=(0, (4, 3)))


def _shown_classes(classes: Sequence[ClassScore]) -> list[ClassScore]:
    """From best to worst; of many both ends."""
    ordered = sorted(classes, key=lambda one: (-one.average_ap, one.label))
    half = _MOST_CLASSES // 2
    return ordered if len(ordered) <= _MOST_CLASSES else [*ordered[:half], *ordered[-half:]]


def _share_axis(axes: Axes, highest: float) -> None:
    axes.set_ylim(0, 1.18 * highest if highest > 0 else 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(axis="y")


def _short(name: str) -> str:
    return name if len(name) <= 28 else f"{name[:27]}…"


def _plain(text: str) -> str:
    """Text that matplotlib does not take for a formula."""
    return text.replace("$", r"\$")
