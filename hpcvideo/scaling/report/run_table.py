"""The table of the runs, each with the steps that count and how it ended."""

from __future__ import annotations

from collections.abc import Sequence

from hpcvideo.scaling.measure.run_measurement import RunMeasurement
from hpcvideo.scaling.report.number_text import counted, percent, three_figures
from hpcvideo.scaling.report.table import NONE, Cell, Column, Table


def run_table(measurements: Sequence[RunMeasurement]) -> Table:
    """A row a run."""
    columns = (
        Column("Run", True), Column("Ranks"), Column("Steps"), Column("of them steady"), Column("Clips/s"),
        Column("Drift"), Column("Restarts"), Column("End"), Column("Slurm job"), Column("Last evaluation", True),
    )  # fmt: skip
    return Table(columns, tuple(_row(measurement) for measurement in measurements))


def _row(measurement: RunMeasurement) -> tuple[Cell, ...]:
    run = measurement.run
    window = "; ".join(f"from {one.steady_from}" for one in measurement.windows if one.steady_from is not None)
    repeated = f"{counted(run.repeated_steps, 'step')} repeated" if run.repeated_steps else ""
    evaluation = Cell(NONE)
    if run.evaluations:
        last = run.evaluations[-1]
        metrics = ", ".join(f"{name} {three_figures(value)}" for name, value in last.metrics.items())
        evaluation = Cell(metrics, last.protocol)
    return (
        Cell(run.name, "" if run.name == run.path.resolve().name else run.path.resolve().name),
        Cell(str(run.world_size)), Cell(str(run.steps_covered)), Cell(str(measurement.steady_steps), window),
        Cell(three_figures(measurement.throughput)), Cell(percent(measurement.drift)), Cell(str(run.restarts), repeated),
        Cell(run.end_reason or "no end line"), Cell(", ".join(run.job_ids) or NONE), evaluation,
    )  # fmt: skip
