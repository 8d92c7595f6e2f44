"""Numbers as a reader wants them: three figures, no exponents, times in the unit that fits."""

from __future__ import annotations

import math
from collections.abc import Iterable


def three_figures(value: float) -> str:
    """Three significant figures without an exponent: 0.0123, 1.23, 123, 12,300."""
    if abs(value) < 5e-7:
        return "0"
    if not math.isfinite(value):
        return str(value)
    rounded = float(f"{value:.3g}")
    places = max(0, 2 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:,.{min(places, 6)}f}"


def percent(fraction: float) -> str:
    """A fraction with one place: 0.873 is "87.3 %"."""
    return f"{100 * fraction:.1f} %"


def duration(seconds: float) -> str:
    """Seconds in the two units that fit: "0.400 s", "14 min 13 s", "49 h 55 min"."""
    if seconds < 99.5:
        return f"{three_figures(seconds)} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60} min"


def time_unit(seconds: Iterable[float]) -> tuple[str, float]:
    """(unit, its number in a second) in which the largest of `seconds` reads best: ms, s, min or h."""
    longest = max(seconds, default=0.0)
    for unit, length in (("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if longest >= (2 if length > 1 else 1) * length:
            return unit, 1 / length
    return "ms", 1000.0


def counted(count: int, noun: str) -> str:
    """"1 rank", "4 ranks"."""
    return f"{count} {noun}" if count == 1 else f"{count:,} {noun}s"


def signed(value: float) -> str:
    """A difference with its sign: "+12.3"."""
    text = three_figures(abs(value))
    return text if text == "0" else ("+" if value > 0 else "−") + text
