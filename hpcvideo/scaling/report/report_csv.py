"""A report as CSV: one row a scale."""

from __future__ import annotations

import csv
import io
from typing import Any

from hpcvideo.scaling.report.report import Report
from hpcvideo.scaling.report.report_json import report_json


def report_csv(report: Report) -> str:
    """Column names carry the unit; an empty cell is a number that does not exist. An interval is two columns."""
    rows = []
    for scale in report_json(report)["scales"]:
        row: dict[str, Any] = {}
        for key, value in scale.items():
            if key.endswith("_interval"):
                low, high = value or (None, None)
                name = key.removesuffix("_interval")
                row |= {f"{name}_low": low, f"{name}_high": high}
            elif not isinstance(value, dict) and key != "utilisation":
                row[key] = value
        row |= {f"{phase}_seconds": seconds for phase, seconds in scale["phase_seconds"].items()}
        row |= {f"{phase}_seconds_per_run": seconds for phase, seconds in scale["outside_step_seconds_per_run"].items()}
        row |= {f"{name.replace(' ', '_')}_share": share for name, share in scale["bottleneck"]["shares"].items()}
        row |= {key: scale["bottleneck"][key] for key in ("binds", "holds_back", "held_back_by")}
        for key in ("goodput", "time_to_train_seconds", "time_to_train_without_staging_seconds", "node_hours",
                    "node_hours_without_staging", "cost", "cost_without_staging"):  # fmt: skip
            row[key] = scale["run"][key]
        row["mfu"] = scale["utilisation"] and scale["utilisation"]["mfu"]
        row |= {f"accuracy_{name}": summary["median"] for name, summary in scale["accuracy"]["metrics"].items()}
        rows.append(row)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if report.study.modelled is not None:
        columns.append("modelled_step_seconds")
        for row, modelled in zip(rows, report.study.modelled.scales, strict=True):
            row["modelled_step_seconds"] = modelled.step_seconds
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
