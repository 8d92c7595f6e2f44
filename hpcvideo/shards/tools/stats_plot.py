"""The statistics of a set as one picture of six panels: SVG, PNG, or a page of HTML that needs nothing beside it."""

from __future__ import annotations

import html
import io
import math
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.shards.tools.stats import SetColumns, describe_columns

SUFFIXES = (".svg", ".png", ".html")
_INK, _RULE = "#1b2733", "#d5dbe1"
_BLUE, _ORANGE = "#0072b2", "#d55e00"  # Okabe and Ito's, told apart by colour-blind readers
_NAMED_CLASSES = 12
_NAMED_SIZES = 6

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "stats", "font.family": ["DejaVu Sans"], "font.size": 9.5, "text.color": _INK,
    "axes.labelcolor": _INK, "xtick.color": _INK, "ytick.color": _INK, "axes.edgecolor": _RULE, "axes.spines.top": False,
    "axes.spines.right": False, "axes.axisbelow": True, "grid.color": _RULE, "grid.linewidth": 0.7, "xtick.major.size": 0,
    "ytick.major.size": 0, "legend.frameon": False, "axes.titlesize": 10.5, "axes.titleweight": "bold",
    "axes.titlelocation": "left",
}  # fmt: skip


def check_suffix(path: Path) -> None:
    """Raise InputError where the name of a picture to be says no format that is written."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: a picture of statistics is written as {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")


def write_stats_picture(columns: SetColumns, title: str, path: Path) -> None:
    """Draw into the format that the suffix names. InputError as check_suffix, OperationFailed where it cannot be written."""
    check_suffix(path)
    facts = describe_columns(columns)
    suffix = path.suffix.lower()
    with matplotlib.rc_context(_STYLE):
        figure = _draw(columns, facts, title)
        buffer = io.BytesIO()
        kind = "png" if suffix == ".png" else "svg"
        figure.savefig(buffer, format=kind, dpi=130, metadata={"Software" if kind == "png" else "Date": None})
    content = buffer.getvalue()
    try:
        path.write_bytes(_page(content, facts, title) if suffix == ".html" else content)
    except OSError as error:
        raise OperationFailed(f"{path}: {error.strerror}") from error


def _draw(columns: SetColumns, facts: dict[str, Any], title: str) -> Figure:
    figure = Figure(figsize=(12, 6.6), layout="constrained", facecolor="white")
    panels = figure.subplots(2, 3)
    _classes(panels[0, 0], facts)
    known = columns.seconds[~np.isnan(columns.seconds)]
    if len(known) == len(columns.seconds):
        _histogram(panels[0, 1], known, "Length", "seconds of the source")
    else:
        _histogram(panels[0, 1], columns.frames, "Length", "frames stored")
    _histogram(panels[0, 2], columns.bytes / np.maximum(1, columns.frames) / 1000, "Size of a frame", "kB a frame")
    _pixels(panels[1, 0], facts)
    _shard_sizes(panels[1, 1], facts)
    _mix(panels[1, 2], facts)
    figure.suptitle(f"{title}\n{_sentence(facts)}", x=0.01, ha="left", fontsize=11)
    return figure


def _sentence(facts: dict[str, Any]) -> str:
    left_out = facts["quarantined"]["count"]
    return (
        f"{facts['videos']:,} videos, {facts['frames']:,} frames, {facts['jpeg_bytes'] / 1e9:,.3g} GB of JPEG in "
        f"{len(facts['shards']):,} shards; {facts['classes']['with_videos']:,} classes"
        + (f"; {left_out:,} left out" if left_out else "")
    )


def _classes(axes: Axes, facts: dict[str, Any]) -> None:
    each = sorted((entry for entry in facts["classes"]["each"]), key=lambda entry: (-entry["videos"], entry["label"]))
    counts = [entry["videos"] for entry in each]
    imbalance = facts["classes"]["imbalance"]
    axes.set_title("Classes" + (f": largest {imbalance:.3g} x smallest" if imbalance else ""))
    if len(each) <= _NAMED_CLASSES:
        _bars(axes, [_short(entry["label"]) for entry in each], counts)
        return
    axes.fill_between(np.arange(1, len(counts) + 1), counts, step="mid", color=_BLUE, linewidth=0)
    axes.set_xlim(0.5, len(counts) + 0.5)
    axes.set_ylim(0)
    axes.set_xlabel("class, by number of videos")
    axes.set_ylabel("videos")
    axes.grid(axis="y")


def _histogram(axes: Axes, values: np.ndarray, title: str, unit: str) -> None:
    median = float(np.median(values)) if len(values) else 0.0
    axes.set_title(f"{title}: median {median:,.4g} {unit.split()[0]}")
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if high - low < 1e-3 * max(high, 1e-9):  # all alike: one bar of some width, not a bar of none
        low, high = low * 0.95, high * 1.05 or 1.0
    bins = min(41, max(9, math.ceil(2 * len(values) ** (1 / 3)) // 2 * 2 + 1))
    axes.hist(values, bins=bins, range=(low, high), color=_BLUE)
    axes.axvline(median, color=_ORANGE, linewidth=1.4)
    axes.set_xlabel(unit)
    axes.set_ylabel("videos")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(axis="y")


def _pixels(axes: Axes, facts: dict[str, Any]) -> None:
    sizes = facts["pixels"]
    rows = [(f"{size['width']} x {size['height']}", size["videos"]) for size in sizes[:_NAMED_SIZES]]
    if len(sizes) > _NAMED_SIZES:
        rows.append((f"{len(sizes) - _NAMED_SIZES} others", sum(size["videos"] for size in sizes[_NAMED_SIZES:])))
    axes.set_title("Stored pixels, width x height")
    _bars(axes, [name for name, _ in rows], [videos for _, videos in rows])


def _bars(axes: Axes, names: list[str], videos: list[int]) -> None:
    """A bar a name, from the top down, no thicker for being few."""
    axes.barh(names, videos, color=_BLUE, height=0.6)
    axes.set_ylim(max(len(names), 5) - 0.5, -0.5)
    axes.set_xlabel("videos")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(axis="x")


def _shard_sizes(axes: Axes, facts: dict[str, Any]) -> None:
    megabytes = [shard["bytes"] / 1e6 for shard in facts["shards"]]
    axes.bar(range(len(megabytes)), megabytes, color=_BLUE, width=0.7 if len(megabytes) <= 60 else 1.0)
    axes.set_title("Size of a shard")
    axes.set_ylabel("MB")
    _shard_axis(axes, len(megabytes))


def _mix(axes: Axes, facts: dict[str, Any]) -> None:
    shards = facts["shards"]
    found, expected = ([shard[name] for shard in shards] for name in ("class_distance", "expected_distance"))
    edges = np.arange(len(shards) + 1) - 0.5
    axes.stairs(expected, edges, baseline=None, color=_ORANGE, linewidth=1.6, label="random draw")
    axes.plot(range(len(shards)), found, "o", color=_BLUE, markersize=5 if len(shards) <= 60 else 2, label="shard")
    axes.set_ylim(0, max(1e-3, *found, *expected) * 1.35)
    axes.set_title("Class mix: distance from the set's")
    axes.set_ylabel("distance (0 the same, 1 disjoint)")
    axes.legend(loc="upper left", ncols=2)
    _shard_axis(axes, len(shards))


def _shard_axis(axes: Axes, shards: int) -> None:
    axes.set_xlim(-0.6, shards - 0.4)
    axes.set_xlabel("shard")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.grid(axis="y")


def _short(name: str) -> str:
    """A label that leaves room for its bar, and that matplotlib does not take for a formula."""
    return (name if len(name) <= 22 else f"{name[:21]}…").replace("$", r"\$")


def _page(svg: bytes, facts: dict[str, Any], title: str) -> bytes:
    """The picture and what it leaves out, as one page."""
    picture = svg.decode("utf-8")
    picture = picture[picture.index("<svg") :]
    rows = [
        (name.replace("_", " "), {key: f"{value:,.6g}" for key, value in facts[name].items()})
        for name in ("frames_a_video", "seconds_a_video", "bytes_a_frame", "bytes_a_video") if facts[name]
    ]  # fmt: skip
    heads = ("min", "p5", "median", "mean", "p95", "max")
    table = "".join(
        f"<tr><th>{name}</th>{''.join(f'<td>{values[head]}</td>' for head in heads)}</tr>" for name, values in rows
    )
    rates = ", ".join(f"{each['fps'] or 'unknown'}: {each['videos']:,}" for each in facts["fps"][:12])
    reasons = "".join(
        f"<li>{count:,}: {html.escape(reason)}</li>" for reason, count in facts["quarantined"]["by_reason"].items()
    )
    classes = "".join(
        f"<tr><td>{html.escape(each['label'])}</td><td>{each['videos']:,}</td><td>{each['frames']:,}</td></tr>"
        for each in facts["classes"]["each"]
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{html.escape(title)}</title><style>body{{font:15px/1.45 system-ui,sans-serif;color:{_INK};max-width:76rem;"
        f"margin:2rem auto;padding:0 1rem}}svg{{width:100%;height:auto}}table{{border-collapse:collapse}}td,th{{padding:"
        f".2rem .8rem;border-bottom:1px solid {_RULE};text-align:right}}"
        "th:first-child,td:first-child{text-align:left}</style>"
        f"{picture}<table><tr><th></th>{''.join(f'<th>{head}</th>' for head in heads)}</tr>{table}</table>"
        f"<p>Frames a second of the source, and videos: {rates}.</p>"
        + (f"<h2>Left out</h2><ul>{reasons}</ul>" if reasons else "")
        + f"<h2>Classes</h2><table><tr><th>label</th><th>videos</th><th>frames</th></tr>{classes}</table></html>\n"
    ).encode()
