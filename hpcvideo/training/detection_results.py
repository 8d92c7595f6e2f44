"""What a run detected on a whole set, as a file that any evaluator of ActivityNet reads."""

from __future__ import annotations

from pathlib import Path

from hpcvideo.errors import InputError
from hpcvideo.tasks.detection.detection_files import write_results
from hpcvideo.tasks.detection.video_names import video_name
from hpcvideo.training.evaluate_run import ScoredRun


def write_detections(path: Path, scored: ScoredRun) -> None:
    """Write the detections of every video of the set that was scored, each under its name as `video_name` says. Raises
    InputError where the run's task finds no actions, OperationFailed where the file cannot be written."""
    if scored.detection is None or scored.result.rows is None:
        raise InputError(f"{path}: the run's task detects no actions, so this cannot be written")
    rows = scored.result.rows
    found = scored.detection.detections_of(rows[:, 1:])
    ids = [scored.clips.video(int(number)).id for number in rows[:, 0]]
    names = [video_name(video) for video in ids]
    if len(set(names)) < len(names):  # in several folders: their whole ids tell them apart
        names = ids
    write_results(path, dict(zip(names, found, strict=True)), scored.clips.label_names)
