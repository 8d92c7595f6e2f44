"""A clip in fragments, drawn as SVG: which frames each one reads, what it carries on, where gradients stop and meet."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from hpcvideo.scaling.report.number_text import counted

_CELL, _ROW, _LEFT, _TOP = 20, 58, 96, 46
_NEW, _KEPT, _STATE, _BACK, _TEXT = "#4c8dc9", "#f2b65c", "#c77b12", "#5a9a5a", "#333333"


def fragments_svg(
    cuts: Sequence[tuple[int, int]], overlap: int, across_seams: bool = False, each_updates: bool = False
) -> str:
    """An SVG document of fragments, a row each: blue, their new frames [first, end); orange, the carried features.

    overlap: frames of carried features. across_seams: gradients flow back along the carried features, else they stop there.
    each_updates: every fragment ends in an update, else the last one does, after one exchange of gradients.
    """
    frames = cuts[-1][1]
    width, height = _LEFT + frames * _CELL + 250, _TOP + len(cuts) * _ROW + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _text(_LEFT, 16, f"{frames} frames in {counted(len(cuts), 'fragment')}; time goes to the right, work goes down"),
    ]
    for frame in range(0, frames, 4):
        parts.append(_text(_LEFT + frame * _CELL + 4, _TOP - 8, str(frame), "#777777"))
    for number, (first, end) in enumerate(cuts):
        top = _TOP + number * _ROW
        parts.append(_text(4, top + 16, f"fragment {number}"))
        kept = min(overlap, first)
        for frame in range(first - kept, end):
            fill, what = (_KEPT, "carried features") if frame < first else (_NEW, "new frame")
            parts.append(
                f'<rect x="{_LEFT + frame * _CELL}" y="{top}" width="{_CELL - 2}" height="22" rx="2" fill="{fill}">'
                f"<title>fragment {number}: {what} {frame}</title></rect>"
            )
        right = _LEFT + end * _CELL
        parts.append(_text(right + 10, top + 16, _what_follows(number, len(cuts), each_updates)))
        if number + 1 < len(cuts):
            parts += _seam(_LEFT + (end - 1) * _CELL + _CELL / 2 - 1, top, across_seams)
    legend = [("new frames", _NEW), ("features carried from the fragment above", _KEPT)]
    for place, (words, colour) in enumerate(legend):
        left, top = _LEFT + 130 * place, height - 26
        parts.append(f'<rect x="{left}" y="{top}" width="14" height="14" fill="{colour}"/>')
        parts.append(_text(left + 20, top + 12, words))
    return "\n".join([*parts, "</svg>", ""])


def _what_follows(number: int, count: int, each_updates: bool) -> str:
    if each_updates:
        return "loss, backward, exchange, update"
    return "loss, backward" if number < count - 1 else "loss, backward, one exchange, update"


def _seam(x: float, top: float, across: bool) -> list[str]:
    """The state handed down, and the gradient that stops at the seam or comes back over it."""
    lower = top + _ROW
    arrow = f'<path d="M{x} {top + 24} L{x} {lower - 5}" stroke="{_STATE}" stroke-width="2"/>'
    head = f'<path d="M{x - 4} {lower - 8} L{x} {lower - 1} L{x + 4} {lower - 8} Z" fill="{_STATE}"/>'
    middle = (top + 22 + lower) / 2
    if across:
        back = f'<path d="M{x + 12} {lower} L{x + 12} {top + 30}" stroke="{_BACK}" stroke-width="2"/>'
        point = f'<path d="M{x + 8} {top + 32} L{x + 12} {top + 25} L{x + 16} {top + 32} Z" fill="{_BACK}"/>'
        return [arrow, head, back, point, _text(x + 20, middle + 4, "state; gradient crosses", "#777777")]
    bar = f'<path d="M{x - 7} {middle} L{x + 7} {middle}" stroke="{_TEXT}" stroke-width="2"/>'
    return [arrow, head, bar, _text(x + 12, middle + 4, "state; no gradient", "#777777")]


def _text(x: float, y: float, words: str, colour: str = _TEXT) -> str:
    return f'<text x="{x}" y="{y}" fill="{colour}">{escape(words)}</text>'
