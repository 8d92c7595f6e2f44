"""What was found in a video, drawn along its time."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from hpcvideo.tasks.picture_file import COLOURS, INK, check_suffix, write_picture
from hpcvideo.training.predict import Prediction

_FAINTEST = 0.25
TIMELINES_ARE = "a timeline is"
"""For `check_suffix`."""


def write_timeline(path: Path, prediction: Prediction) -> None:
    """A lane for each label that was found, a bar for each segment, darker where its score is higher.

    Raises InputError as check_suffix, OperationFailed where the file cannot be written.
    """
    check_suffix(path, TIMELINES_ARE)
    write_picture(path, lambda: draw_timeline(prediction), "timeline", cropped=True)


def draw_timeline(prediction: Prediction) -> Figure:
    """The picture; lanes in the order of their best segments, the weaker segments below the stronger ones."""
    lanes = list(dict.fromkeys(segment.label for segment in prediction.segments))
    figure = Figure(figsize=(9, 1.2 + 0.42 * max(1, len(lanes))))
    axes = figure.add_subplot()
    highest = max((segment.score for segment in prediction.segments), default=1.0) or 1.0
    for segment in reversed(prediction.segments):
        lane = lanes.index(segment.label)
        shade = _FAINTEST + (1 - _FAINTEST) * segment.score / highest
        axes.barh(
            lane, segment.end - segment.begin, left=segment.begin, height=0.62, alpha=shade,
            color=COLOURS[lane % len(COLOURS)], edgecolor="white", linewidth=0.8,
        )  # fmt: skip
    told = set()
    for segment in prediction.segments:  # the score of each lane's best
        if segment.label not in told:
            told.add(segment.label)
            middle = (segment.begin + segment.end) / 2
            ink = "white" if segment.score > highest / 2 else INK
            lane = lanes.index(segment.label)
            axes.text(middle, lane, f"{segment.score:.2f}", ha="center", va="center", fontsize=8, color=ink)
    axes.set_yticks(range(len(lanes)), lanes)
    axes.set_ylim(len(lanes) - 0.4, -0.6)
    axes.set_xlim(0, prediction.duration or 1.0)
    axes.set_xlabel("seconds")
    axes.grid(axis="x")
    count = len(prediction.segments)
    axes.set_title(f"{prediction.video.name}: {count} segment{'' if count == 1 else 's'}, darker is surer")
    return figure
