"""The confusion matrix as a picture: with every name for few classes, ordered and with its worst pairs listed for many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from hpcvideo.tasks.class_scores import ClassScores
from hpcvideo.tasks.picture_file import COLOURS, INK, check_suffix, write_picture
from hpcvideo.training.confusion_order import confusion_order

_BLUE, _ORANGE = COLOURS[:2]
_NUMBERED, _NAMED, _LISTED = 24, 110, 24
"""So many classes have their counts in the cells; so many names are at an axis; so many pairs are listed."""
_PAIR_INCHES = 0.36

# One hue from pale to dark: readable in grey and by every eye; empty cells are white, which it does not contain.
_SHADES = ["#d9e8f2", "#7fb5d6", "#2f7fb3", "#0b3c5d", "#06202f"]
_SHARES = LinearSegmentedColormap.from_list("shares", _SHADES).with_extremes(bad="white")

MATRICES_ARE = "a confusion matrix is"
"""For `check_suffix`."""


def write_confusion_picture(path: Path, scores: ClassScores, label_names: Sequence[str], title: str, scored: str) -> None:
    """Draw into the format that the suffix names: rows are labels, columns predictions, a cell's shade its share of the row.

    title: what was scored; scored: its accuracy with its protocol. InputError as check_suffix, OperationFailed where the
    file cannot be written.
    """
    check_suffix(path, MATRICES_ARE)
    names = [_plain(name) for name in label_names]
    write_picture(path, lambda: _draw(scores, names, title, scored), "confusion", framed=True)


def _draw(scores: ClassScores, names: list[str], title: str, scored: str) -> Figure:
    classes = len(names)
    order = np.arange(classes) if classes <= _NUMBERED else confusion_order(scores.confusion)
    side = min(12.0, max(4.0, 0.42 * classes))
    figure = Figure(figsize=(side + 6.6, side + 2.2), layout="constrained", facecolor="white")
    matrix, listed = figure.subplots(1, 2, width_ratios=[side + 1.6, 5.0])
    image = _matrix(matrix, scores, order, names)
    bar = figure.colorbar(image, ax=matrix, location="bottom", shrink=0.6, aspect=40, pad=0.02)
    bar.set_label("share of the label's videos (white: none)")
    bar.ax.xaxis.set_major_formatter(PercentFormatter(1.0))
    bar.set_ticks([0.01, 0.1, 0.25, 0.5, 0.75, 1.0] if classes > _NUMBERED else [0.05, 0.25, 0.5, 0.75, 1.0])
    bar.outline.set_visible(False)
    _pairs(listed, scores, names, most=min(_LISTED, int(side / _PAIR_INCHES)))
    figure.suptitle(f"{_plain(title)}\n{_plain(scored)}", x=0.01, ha="left", fontsize=11)
    return figure


def _matrix(axes: Axes, scores: ClassScores, order: NDArray[np.int64], names: list[str]) -> AxesImage:
    classes = len(order)
    counts = scores.confusion[np.ix_(order, order)]
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    image = axes.imshow(
        np.ma.masked_where(counts == 0, shares), cmap=_SHARES, norm=PowerNorm(0.5, 0.0, 1.0), interpolation="nearest"
    )
    empty = int((scores.videos == 0).sum())
    axes.set_title("Videos by label and prediction" + (f" ({empty} labels have no video)" if empty else ""))
    every = -(-classes // _NAMED)
    places = range(0, classes, every)
    size = 9.0 if classes <= _NUMBERED else min(9.0, max(5.0, 440 / len(places)))
    shown = [_short(names[order[place]], 24) for place in places]
    axes.set_xticks(places, shown, rotation=90, fontsize=size)
    axes.set_yticks(places, shown, fontsize=size)
    axes.set_xlabel("predicted, in the same order" if classes > _NUMBERED else "predicted")
    arranged = "label" if every == 1 else f"label, one in {every} named"
    axes.set_ylabel(f"{arranged}; those confused with each other are neighbours" if classes > _NUMBERED else "label")
    if classes <= _NUMBERED:
        axes.set_xticks(np.arange(classes - 1) + 0.5, minor=True)
        axes.set_yticks(np.arange(classes - 1) + 0.5, minor=True)
        axes.grid(which="minor")
        axes.tick_params(which="minor", length=0)
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[row, column] > 0.22 else INK
            axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=colour, fontsize=8.5)
    return image


def _pairs(axes: Axes, scores: ClassScores, names: list[str], most: int) -> None:
    """The most frequent confusions as bars, with what they are of."""
    pairs = scores.confused_pairs(most)
    axes.set_title("Most confused")
    axes.spines[:].set_visible(False)
    if not pairs:
        axes.axis("off")
        axes.text(0, 0.98, "no video was taken for another class", va="top", transform=axes.transAxes)
        return
    rows = np.arange(len(pairs))
    axes.barh(rows, [pair.videos / pair.of for pair in pairs], color=_ORANGE, height=0.36)
    for row, pair in enumerate(pairs):
        said = f"{_short(names[pair.label], 26)} as {_short(names[pair.predicted], 26)}: {pair.videos} of {pair.of}"
        axes.text(0, row - 0.3, said, va="bottom", fontsize=8.5)
    axes.set_ylim(max(len(pairs), 8) - 0.5, -0.9)
    axes.set_xlim(0, 1)
    axes.set_yticks([])
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("share of the label's videos")
    axes.grid(axis="x")


def _short(name: str, letters: int) -> str:
    return name if len(name) <= letters else f"{name[: letters - 1]}…"


def _plain(text: str) -> str:
    """Text that matplotlib does not take for a formula."""
    return text.replace("$", r"\$")
