"""A simulated schedule as a drawing: rows of stages or ranks, boxes of what they do, an axis in seconds or in steps.

Plain SVG without a library: text stays text, each box tells its times when pointed at, colours are Okabe and Ito's, and
dark pages get light ink. The same schedule gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from hpcvideo.scaling.model.pipeline_simulation import PipelineRun
from hpcvideo.scaling.model.schedule_boxes import KINDS, Box
from hpcvideo.scaling.model.sideways_simulation import SidewaysRun

COLOURS = {
    "load": "#f0e442",
    "forward": "#56b4e9",
    "backward": "#0072b2",
    "send": "#cc79a7",
    "wait": "none",
    "exchange": "#d55e00",
    "optimizer": "#009e73",
}
_WORDS = {"send": "message on its way", "wait": "waiting", "exchange": "gradient exchange still waited for"}
_LIGHT_TEXT = ("backward", "exchange", "optimizer")

_WIDTH, _RIGHT, _TOP, _ROW, _BAR, _SEND = 960.0, 84.0, 58.0, 38.0, 24.0, 5.0
_LETTER = 6.4  # width of a letter at 11.5 px, about


@dataclass(frozen=True)
class Timeline:
    """What to draw. rows: their names; notes: a few words at the right end of each. seconds: length of the axis.

    step_seconds: makes the axis count steps of this length in place of seconds.
    """

    title: str
    subtitle: str
    rows: tuple[str, ...]
    notes: tuple[str, ...]
    boxes: tuple[Box, ...]
    seconds: float
    step_seconds: float | None = None


def pipeline_timeline(run: PipelineRun, title: str = "One step of the pipeline") -> Timeline:
    """A pipeline's step: rows are stages, numbers in boxes micro-batches, notes the share in which a stage idles."""
    forwards = sum(1 for box in run.boxes if box.kind == "forward" and box.row == 0)
    subtitle = (
        f"{_count(len(run.stages), 'stage')}, {_count(forwards, 'micro-batch', 'micro-batches')}: "
        f"{_duration(run.step_seconds)} a step; until the last backward a stage idles {_percent(run.bubble)} of the time"
    )
    rows = tuple(f"stage {number}" for number in range(len(run.stages)))
    notes = tuple(f"{_percent(bubble)} idle" for bubble in run.bubbles)
    return Timeline(title, subtitle, rows, notes, run.boxes, run.step_seconds)


def sideways_timeline(
    run: SidewaysRun, title: str = "One clip through Sideways units", step_seconds: float | None = None
) -> Timeline:
    """A clip through Sideways units: rows are ranks, numbers in boxes steps, notes the share in which a rank idles.

    step_seconds: count steps of this length on the axis, in place of seconds.
    """
    subtitle = (
        f"{_count(len(run.busy), 'rank')}, {_count(run.steps, 'step')}: {_duration(run.clip_seconds)} a clip; "
        f"a rank idles {_percent(run.bubble)} of the time"
    )
    rows = tuple(f"rank {number}" for number in range(len(run.busy)))
    notes = tuple(f"{_percent(bubble)} idle" for bubble in run.bubbles)
    drawn = max((box.end for box in run.boxes), default=0.0)
    return Timeline(title, subtitle, rows, notes, run.boxes, drawn, step_seconds)


def timeline_svg(timeline: Timeline) -> str:
    """The drawing as one SVG element. Raises ValueError where a box lies on no row, is of no known kind or ends too late."""
    for box in timeline.boxes:
        known = box.kind in KINDS and 0 <= box.row < len(timeline.rows)
        if not known or not 0 <= box.start <= box.end <= timeline.seconds * (1 + 1e-9):
            raise ValueError(f"{box} does not fit {len(timeline.rows)} rows of {timeline.seconds:g} s")
    left = 24 + _LETTER * max(len(row) for row in timeline.rows)
    height = _TOP + _ROW * len(timeline.rows) + 76
    scale = (_WIDTH - left - _RIGHT) / (timeline.seconds or 1.0)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:g} {height:g}" '
        f'width="{_WIDTH:g}" height="{height:g}" role="img" '
        f'aria-label="{escape(timeline.title)}: {escape(timeline.subtitle)}">',
        _STYLE,
        f'<rect class="card" width="{_WIDTH:g}" height="{height:g}"/>',
        f'<text class="title" x="16" y="24">{escape(timeline.title)}</text>',
        f'<text class="quiet" x="16" y="42">{escape(timeline.subtitle)}</text>',
        *_axis(timeline, left, scale),
    ]
    for number, (row, note) in enumerate(zip(timeline.rows, timeline.notes, strict=True)):
        middle = _TOP + _ROW * number + _BAR / 2 + 4
        parts.append(f'<text x="{left - 10:.2f}" y="{middle:g}" text-anchor="end">{escape(row)}</text>')
        parts.append(f'<text class="quiet" x="{_WIDTH - _RIGHT + 10:g}" y="{middle:g}">{escape(note)}</text>')
    # Waits below, messages above: a message on its way lies beside what its sender does.
    order = sorted(timeline.boxes, key=lambda box: (box.row, box.kind == "send", box.start))
    numbered = _numbered(timeline.boxes, scale)
    parts += [_drawn(box, left, scale, (box.row, box.kind) in numbered) for box in order]
    parts += _legend(timeline, left, height - 14)
    return "\n".join([*parts, "</svg>\n"])


def _numbered(boxes: Sequence[Box], scale: float) -> set[tuple[int, str]]:
    """(row, kind) whose boxes are all wide enough for their labels: numbers that stop half-way would mislead."""
    wanted = [box for box in boxes if box.kind in ("forward", "backward") and box.label]
    narrow = {(box.row, box.kind) for box in wanted if (box.end - box.start) * scale < _LETTER * len(box.label) + 3}
    return {(box.row, box.kind) for box in wanted} - narrow


def _drawn(box: Box, left: float, scale: float, numbered: bool) -> str:
    x, width = left + box.start * scale, max(0.4, (box.end - box.start) * scale)
    top = _TOP + _ROW * box.row
    y, height = (top + _BAR + 2, _SEND) if box.kind == "send" else (top, _BAR)
    hint = f"{_WORDS.get(box.kind, box.kind)} {box.label}".strip()
    hint = f"{hint}: {_duration(box.start)} to {_duration(box.end)}"
    drawn = (
        f'<rect class="{box.kind}" x="{x:.2f}" y="{y:g}" width="{width:.2f}" height="{height:g}">'
        f"<title>{escape(hint)}</title></rect>"
    )
    if numbered:
        ink = "light" if box.kind in _LIGHT_TEXT else "dark"
        drawn += f'<text class="number {ink}" x="{x + width / 2:.2f}" y="{top + _BAR / 2 + 4:g}">{escape(box.label)}</text>'
    return drawn


def _axis(timeline: Timeline, left: float, scale: float) -> list[str]:
    bottom = _TOP + _ROW * len(timeline.rows)
    if timeline.step_seconds:
        unit, factor = f"steps of {_duration(timeline.step_seconds)}", 1 / timeline.step_seconds
    else:
        unit, factor = _unit(timeline.seconds)
    parts = []
    for tick in _ticks(timeline.seconds * factor, whole=timeline.step_seconds is not None):
        x = left + tick / factor * scale
        parts.append(f'<line class="rule" x1="{x:.2f}" x2="{x:.2f}" y1="{_TOP - 6:g}" y2="{bottom:g}"/>')
        parts.append(f'<text class="quiet tick" x="{x:.2f}" y="{bottom + 16:g}">{tick:.10g}</text>')
    parts.append(f'<text class="quiet tick" x="{(left + _WIDTH - _RIGHT) / 2:g}" y="{bottom + 34:g}">time, {unit}</text>')
    return parts


def _legend(timeline: Timeline, left: float, baseline: float) -> list[str]:
    parts, x = [], left
    for kind in KINDS:
        if any(box.kind == kind for box in timeline.boxes):
            word = _WORDS.get(kind, kind)
            height = _SEND if kind == "send" else 11.0
            y = baseline - 4 - height / 2
            parts.append(f'<rect class="{kind}" x="{x:.2f}" y="{y:g}" width="18" height="{height:g}"/>')
            parts.append(f'<text class="quiet" x="{x + 24:.2f}" y="{baseline:g}">{escape(word)}</text>')
            x += 24 + 0.92 * _LETTER * len(word) + 18
    return parts


def _unit(seconds: float) -> tuple[str, float]:
    """(unit in which an axis of so many seconds is read, units a second)."""
    if seconds >= 1:
        return "s", 1.0
    return ("ms", 1e3) if seconds >= 1e-3 else ("µs", 1e6)


def _ticks(length: float, whole: bool) -> Sequence[float]:
    """From 0 on, at 1, 2 or 5 times a power of ten, at most ten of them; whole numbers only with `whole`."""
    if length <= 0:
        return [0.0]
    size = 10.0 ** math.floor(math.log10(length / 9))
    step = next(size * factor for factor in (1, 2, 5, 10, 20) if length / (size * factor) <= 9)
    step = max(step, 1.0) if whole else step
    return [place * step for place in range(int(length / step * (1 + 1e-12)) + 1)]


def _duration(seconds: float) -> str:
    unit, factor = _unit(seconds)
    return f"{seconds * factor:.3g} {unit}" if seconds < 1e3 else f"{seconds:.0f} s"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.095 or share < 5e-4 else f"{100 * share:.1f} %"


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


_STYLE = (
    "<style>"
    "text{font:11.5px 'DejaVu Sans',Verdana,sans-serif;fill:#1b2733}"
    ".title{font-size:14px;font-weight:bold}.quiet{fill:#57636f}.tick,.number{text-anchor:middle}"
    ".number{pointer-events:none}.number.dark{fill:#0b2233}.number.light{fill:#fff}"
    ".card{fill:#fff}.rule{stroke:#d5dbe1;stroke-width:.8}"
    + "".join(f".{kind}{{fill:{colour}}}" for kind, colour in COLOURS.items() if kind != "wait")
    + ".forward,.backward,.load,.exchange,.optimizer{stroke:#fff;stroke-width:.7}"
    ".wait{fill:#8a96a2;fill-opacity:.16;stroke:none}"
    "@media (prefers-color-scheme:dark){"
    "text{fill:#e6ebf0}.quiet{fill:#a9b4bf}.number.dark{fill:#0b2233}.number.light{fill:#fff}"
    ".card{fill:#161c22}.rule{stroke:#36414c}"
    ".forward,.backward,.load,.exchange,.optimizer{stroke:#161c22}.wait{fill-opacity:.28}}"
    "</style>"
)
