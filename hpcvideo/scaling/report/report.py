"""What a scaling report says: all that is computed from its runs, before anything is drawn or written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from hpcvideo.errors import InputError
from hpcvideo.runs import RunDirectory
from hpcvideo.runs.step_trace import StepTrace, read_step_trace, trace_files
from hpcvideo.scaling.measure.accuracy import ScaleAccuracy, accuracies
from hpcvideo.scaling.measure.bottlenecks import ScaleBottleneck, bottlenecks
from hpcvideo.scaling.measure.efficiency import Study, study
from hpcvideo.scaling.measure.run_measurement import RunMeasurement
from hpcvideo.scaling.measure.selection import LeftOut, measure_runs
from hpcvideo.scaling.measure.steady import SteadyWindow
from hpcvideo.scaling.measure.totals import Price, ScaleTotals, totals
from hpcvideo.scaling.model.modelled_line import modelled_line

if TYPE_CHECKING:  # it counts operations with torch, which a report without a peak does not need
    from hpcvideo.scaling.measure.flops import Peak, ScaleMfu


@dataclass(frozen=True)
class Report:
    """Rows of the tuples stand for the study's scales, in its order."""

    study: Study
    left_out: tuple[LeftOut, ...]
    generated: str
    """UTC, ISO 8601, to the second."""
    bottlenecks: tuple[ScaleBottleneck, ...]
    totals: tuple[ScaleTotals, ...]
    accuracies: tuple[ScaleAccuracy, ...]
    utilisation: tuple[ScaleMfu, ...]
    """Empty where no peak was given."""
    no_model: str
    """Why there is no modelled line, a sentence; empty where there is one."""
    price: Price | None
    traces: Mapping[str, StepTrace]
    """The last step that was traced, by the name of its run; of scales from small to large."""
    trace_words: tuple[str, ...]
    """Traces that could not be read, with the reason."""

    @property
    def measurements(self) -> list[RunMeasurement]:
        """All runs that count, by scale."""
        return [measurement for scale in self.study.scales for measurement in scale.repeats]


def make_report(
    runs: Sequence[Path],
    window: SteadyWindow | None = None,
    peaks: Sequence[Peak] = (),
    price: Price | None = None,
) -> Report:
    """Measure `runs` and relate them; reads, and writes nothing.

    runs: run directories, or folders of run directories. peaks: of one rank's device, for MFU. price: of a node-hour.
    Raises InputError where a path does not exist or no run is left.
    """
    selection = measure_runs(run_directories(runs), window or SteadyWindow())
    measured = study(selection.measurements, window or SteadyWindow())
    line = modelled_line(measured)
    if not isinstance(line, str):
        measured = replace(measured, modelled=line)
    traces, trace_words = _traces([one for scale in measured.scales for one in scale.repeats])
    return Report(
        study=measured,
        left_out=tuple(selection.left_out),
        generated=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        bottlenecks=tuple(bottlenecks(measured)),
        totals=tuple(totals(measured, price)),
        accuracies=tuple(accuracies(measured)),
        utilisation=_utilisation(measured, peaks),
        no_model=line if isinstance(line, str) else "",
        price=price,
        traces=traces,
        trace_words=trace_words,
    )


def _utilisation(measured: Study, peaks: Sequence[Peak]) -> tuple[ScaleMfu, ...]:
    if not peaks:
        return ()
    from hpcvideo.scaling.measure.flops import utilisation

    return tuple(utilisation(measured, peaks))


def run_directories(paths: Sequence[Path]) -> list[Path]:
    """The run directories among `paths`, and those one level below paths that are none themselves.

    A folder with neither stays, for its fault to be told. Raises InputError for a path that is not there.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            raise InputError(f"{path}: there is no such run directory")
        below = [] if RunDirectory(path).events.exists() else sorted(path.iterdir())
        runs = [folder for folder in below if folder.is_dir() and RunDirectory(folder).events.exists()]
        found += runs or [path]
    return found


def _traces(measurements: Sequence[RunMeasurement]) -> tuple[dict[str, StepTrace], tuple[str, ...]]:
    """One a scale, of its last run that has one."""
    traces: dict[tuple[int, int, int], tuple[str, StepTrace]] = {}
    words = []
    for measurement in measurements:
        run = measurement.run
        files = trace_files(RunDirectory(run.path).traces)
        if files:
            try:
                trace = read_step_trace(files[-1])
            except InputError as error:
                words.append(str(error))
            else:
                traces[run.world_size, run.nodes, run.global_batch] = (run.path.resolve().name, trace)
    return dict(traces.values()), tuple(words)
