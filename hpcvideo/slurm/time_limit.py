"""Time limits as Slurm writes them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator

TIME_LIMIT = re.compile(r"\d+|\d+:\d\d|\d+:\d\d:\d\d|\d+-\d+|\d+-\d+:\d\d|\d+-\d+:\d\d:\d\d|UNLIMITED")


def check_time_limit(value: object) -> str:
    """A time as Slurm takes it: `90` (minutes), `02:00:00`, `1-12` (days-hours), ... Raises ValueError."""
    if isinstance(value, str) and TIME_LIMIT.fullmatch(value):
        return value
    # YAML 1.1 reads an unquoted 10:30:00 as the number 37800, which Slurm would take for minutes.
    raise ValueError(f'{value!r} is no time limit; write text such as "90" (minutes), "02:00:00" or "1-12:00:00"')


def time_limit_seconds(text: str) -> int | None:
    """The seconds of a time limit that check_time_limit takes; None for UNLIMITED."""
    if text == "UNLIMITED":
        return None
    days, dash, clock = text.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    # `90` is minutes and `10:30` minutes:seconds, but after days hours come first.
    places = (3600, 60, 1) if dash or len(parts) == 3 else (60, 1)
    return int(days or 0) * 86400 + sum(part * place for part, place in zip(parts, places, strict=False))


TimeLimit = Annotated[str, BeforeValidator(check_time_limit)]
"""A field of a profile that holds a time limit."""
