"""Which of the given runs count, and why the others do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcvideo.errors import InputError
from hpcvideo.scaling.measure.run_log import read_run_log
from hpcvideo.scaling.measure.run_measurement import RunMeasurement, measure_run
from hpcvideo.scaling.measure.steady import SteadyWindow


@dataclass(frozen=True)
class LeftOut:
    """A run directory that is not in the numbers, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Selection:
    """The runs that can be measured, and those that cannot."""

    measurements: tuple[RunMeasurement, ...]
    left_out: tuple[LeftOut, ...]


def measure_runs(paths: Sequence[Path], window: SteadyWindow) -> Selection:
    """Measure each run directory; one that is given twice counts once.

    Raises InputError where a path is no directory, or where no run is left, with the reasons of all.
    """
    measurements: list[RunMeasurement] = []
    left_out: list[LeftOut] = []
    seen: set[Path] = set()
    for path in paths:
        if not path.is_dir():
            raise InputError(f"{path}: there is no such run directory")
        if path.resolve() in seen:
            left_out.append(LeftOut(path, "given twice; it counts once"))
            continue
        seen.add(path.resolve())
        try:
            measurements.append(measure_run(read_run_log(path), window))
        except InputError as error:
            left_out.append(LeftOut(path, str(error).removeprefix(f"{path}: ")))
    if not measurements:
        reasons = "; ".join(f"{run.path}: {run.reason}" for run in left_out) or "none was given"
        raise InputError(f"no run can be reported on: {reasons}")
    return Selection(tuple(measurements), tuple(left_out))
