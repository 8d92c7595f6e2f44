"""Which of the given runs count, and why the others do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcvideo.errors import InputError
from hpcvideo.scaling.measure.records import RunLog
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

    Runs of one scale (ranks, nodes, global batch) are repeats of each other only with the same model, method, stages,
    precision and frames: of several kinds at a scale that one counts which most of all given runs are, and of equally many
    the first; the others are left out. What a log does not tell is taken to be the same.

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
    others = dict(_no_repeats(measurements))
    left_out += [LeftOut(one.run.path, others[place]) for place, one in enumerate(measurements) if place in others]
    return Selection(tuple(one for place, one in enumerate(measurements) if place not in others), tuple(left_out))


def _no_repeats(measurements: Sequence[RunMeasurement]) -> Iterable[tuple[int, str]]:
    """(place, reason) of each run that is not of the kind that counts at its scale."""
    kinds = [_kind(one.run) for one in measurements]
    common = Counter(tuple(kind.items()) for kind in kinds)
    scales: dict[tuple[int, int, int], list[int]] = {}
    for place, one in enumerate(measurements):
        scales.setdefault((one.run.world_size, one.run.nodes, one.run.global_batch), []).append(place)
    for places in scales.values():
        counts = max(places, key=lambda place: common[tuple(kinds[place].items())])  # the first of equally many
        for place in places:
            other = [
                f"{what} {told} in place of {expected}"
                for (what, told), expected in zip(kinds[place].items(), kinds[counts].values(), strict=True)
                if told is not None and expected is not None and told != expected
            ]
            if other:
                yield place, (
                    f"is no repeat of {measurements[counts].run.label}, which is at the same scale: it has "
                    f"{', '.join(other)}; report on it apart"
                )


def _kind(run: RunLog) -> dict[str, str | None]:
    """What runs of one scale must have in common to be repeats; None where it is not known."""
    return {
        "model": run.settings.get("model.name"),
        "method": run.settings.get("method.name"),
        "stages": str(run.stages),
        "precision": run.precision,
        "frames": str(run.frames),
    }
