"""`hpcvideo detections`: score files of detected actions."""

from __future__ import annotations

import csv
import io
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpcvideo.errors import OperationFailed

if TYPE_CHECKING:
    from hpcvideo.tasks.detection.detection_scores import DetectionScores

app = typer.Typer(no_args_is_help=True)


class Scale(StrEnum):
    """Whose buckets of lengths and coverages."""

    ACTIVITYNET = "activitynet"
    THUMOS = "thumos"


@app.callback()
def detections() -> None:
    """Files of detected actions."""


@app.command("score")
def score_command(
    ground_truth: Annotated[Path, typer.Option(metavar="FILE.json", help="Actions, in ActivityNet's form.")],
    results: Annotated[Path, typer.Option(metavar="FILE.json", help="Detections, in ActivityNet's form.")],
    tiou: Annotated[str, typer.Option(metavar="FIRST:LAST:STEP|LIST", help="Overlaps that count.")] = "0.5:0.95:0.05",
    subset: Annotated[str | None, typer.Option(metavar="NAME", help="Score this subset alone; default: all.")] = None,
    scale: Annotated[Scale, typer.Option(help="Buckets of lengths and coverages: whose.")] = Scale.ACTIVITYNET,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Write scores.json, .svg, .png, classes.csv.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All scores as one JSON object.")] = False,
) -> None:
    """Mean average precision of detections by ActivityNet's rule, by class, length and coverage too.

    A `v_` before an id is ignored. Detections in videos that the ground truth does not have, and those of no length, are
    false and told of. Of equal scores the detection that stands later in the file goes first.
    """
    from hpcvideo.tasks.detection.detection_files import read_ground_truth, read_results
    from hpcvideo.tasks.detection.detection_scores import score_detections
    from hpcvideo.tasks.detection.tiou import tiou_thresholds

    thresholds = tiou_thresholds(tiou)
    truth = read_ground_truth(ground_truth, subset)
    found = read_results(results, truth)
    scores = score_detections(truth.instances, found.predictions, truth.label_names, thresholds, scale.value)
    for warning in found.warnings:
        print(f"hpcvideo: warning: {warning}", file=sys.stderr)
    answer = {
        **scores.as_json(),
        "ground_truth": str(ground_truth),
        "results": str(results),
        "subset": subset,
        "videos": len(truth.videos),
        "warnings": list(found.warnings),
    }
    if out is not None:
        _write(out, answer, scores, f"{results.name} against {ground_truth.name}" + (f", {subset}" if subset else ""))
    if as_json:
        print(json.dumps(answer, allow_nan=False))
        return
    print(f"average mAP {scores.average_map:.4f}  ({scores.instances} actions of {len(scores.classes)} classes in "
          f"{len(truth.videos)} videos, {scores.predictions} detections)")  # fmt: skip
    print("  tIoU  " + "  ".join(f"{threshold:.4g}".ljust(6) for threshold in thresholds))
    print("  mAP   " + "  ".join(f"{value:.4f}" for value in scores.map))
    for name, buckets in (("length", scores.lengths), ("coverage", scores.coverages)):
        told = [f"{one.name} {one.average_map:.3f} ({one.instances})" for one in buckets if one.average_map is not None]
        print(f"  by {name}, normalised: " + (", ".join(told) or "no duration is known"))
    if out is not None:
        print(f"  {out}: scores.json, classes.csv, scores.svg, scores.png")


def _write(out: Path, answer: dict[str, object], scores: DetectionScores, title: str) -> None:
    from hpcvideo.tasks.detection.score_picture import write_score_picture

    table = io.StringIO(newline="")
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["label", "actions", "detections", "average_ap", *(f"ap@{threshold:g}" for threshold in scores.tiou)])
    rows.writerows([one.label, one.instances, one.predictions, one.average_ap, *one.ap] for one in scores.classes)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "scores.json").write_text(json.dumps(answer, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        (out / "classes.csv").write_text(table.getvalue(), encoding="utf-8")
    except OSError as error:
        raise OperationFailed(f"{error.filename or out}: {error.strerror}") from error
    for suffix in ("svg", "png"):
        write_score_picture(out / f"scores.{suffix}", scores, title)
