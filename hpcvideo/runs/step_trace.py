"""The trace of one step: when each rank began and ended its phases, `traces/step-N.json` in the run directory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hpcvideo.errors import InputError

FORMAT = {"name": "hpcvideo-step-trace", "version": 1}


class Span(NamedTuple):
    """One time that a phase was open, in seconds of the rank's own clock."""

    phase: str
    begin: float
    end: float


@dataclass(frozen=True)
class RankTrace:
    """One rank's step. All times are seconds of its own clock, whose zero means nothing."""

    rank: int
    node: str
    begin: float
    end: float
    spans: tuple[Span, ...]
    """In order of their beginning; they do not overlap."""
    clock_offset: float = 0.0
    """Seconds that this rank's clock is ahead of rank 0's."""
    clock_error: float = 0.0
    """The true offset is within this many seconds of `clock_offset`."""


@dataclass(frozen=True)
class StepTrace:
    """One update (1-based) of all ranks of a run."""

    step: int
    ranks: tuple[RankTrace, ...]


def trace_path(folder: Path, step: int) -> Path:
    """The file of step `step` in the run directory's folder of traces."""
    return folder / f"step-{step}.json"


def trace_files(folder: Path) -> list[Path]:
    """The files of a run's traces by step; none where nothing was traced."""
    numbers = {path: path.stem.removeprefix("step-") for path in folder.glob("step-*.json")}
    return sorted((path for path, number in numbers.items() if number.isdigit()), key=lambda path: int(numbers[path]))


def trace_text(step: int, ranks: Sequence[RankTrace]) -> str:
    """The file's text, JSON."""
    return json.dumps({"format": FORMAT, "step": step, "ranks": [asdict(rank) for rank in ranks]}) + "\n"


def read_step_trace(path: Path) -> StepTrace:
    """Read one file. Raises InputError where it is not what `trace_text` writes."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise ValueError(f"format is {data['format']}, known is {FORMAT}")
        return StepTrace(int(data["step"]), tuple(_rank_trace(rank) for rank in data["ranks"]))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: is no trace of a step: {error}; delete it or record it again") from error


def _rank_trace(fields: dict[str, Any]) -> RankTrace:
    spans = tuple(Span(str(phase), float(begin), float(end)) for phase, begin, end in fields.pop("spans"))
    return RankTrace(**fields, spans=spans)
