"""What `hpcvideo evaluate` shows and writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from hpcvideo.cli.progress import bar
from hpcvideo.errors import InputError

if TYPE_CHECKING:
    from hpcvideo.tasks.class_scores import ClassScores
    from hpcvideo.training.evaluate_run import ScoredRun

_PAIRS = 10
_DRAWN_VIDEOS = 3


@dataclass(frozen=True)
class ScoreFiles:
    """The files that were asked for; None: not wanted."""

    per_class: Path | None
    confusion: Path | None
    predictions: Path | None
    pictures: Path | None = None
    detections: Path | None = None

    @property
    def keep_frames(self) -> int:
        """Of how many videos predicted frames are drawn."""
        return 0 if self.pictures is None else _DRAWN_VIDEOS

    def check(self) -> None:
        """Raise InputError, before anything is scored, where a name or a folder will not do."""
        for path in (self.per_class, self.predictions):
            if path is not None and path.suffix.lower() != ".csv":
                raise InputError(f"{path}: this table is written as .csv")
        if self.confusion is not None:
            from hpcvideo.tasks.picture_file import check_suffix
            from hpcvideo.training.confusion_picture import MATRICES_ARE

            check_suffix(self.confusion, MATRICES_ARE)
        if self.detections is not None and self.detections.suffix.lower() != ".json":
            raise InputError(f"{self.detections}: detections are written as .json")
        for path in (self.per_class, self.confusion, self.predictions, self.pictures, self.detections):
            if path is not None and not path.absolute().parent.is_dir():
                raise InputError(f"{path}: there is no folder {path.absolute().parent}; make it first")

    def write(self, scored: ScoredRun) -> None:
        """Write all of them. Raises OperationFailed where one cannot be, InputError where the task predicts no classes, no
        actions, or no video is long enough for its frames."""
        if self.detections is not None:
            from hpcvideo.training.detection_results import write_detections

            write_detections(self.detections, scored)
        if self.pictures is not None:
            from hpcvideo.training.frame_pictures import write_frame_pictures

            metrics = scored.result.metrics
            said = f"PSNR {metrics['psnr']:.1f} dB, of the newest frame again {metrics['copy_psnr']:.1f} dB"
            title = f"{scored.name}, step {scored.step}"
            write_frame_pictures(self.pictures, scored.frames, title, f"{said}; {_protocol(scored)}")
        wanted = [path for path in (self.per_class, self.confusion, self.predictions) if path is not None]
        if not wanted:
            return
        from hpcvideo.training.score_tables import write_class_table, write_predictions

        scores, predictions = scored.classes, scored.result.predictions
        if scores is None or predictions is None:
            raise InputError(f"{wanted[0]}: the run's task predicts no single class a video, so this cannot be written")
        names = scored.clips.label_names
        if self.per_class is not None:
            write_class_table(self.per_class, scores, names, _protocol(scored))
        if self.predictions is not None:
            ids = [scored.clips.video(int(sample)).id for sample in predictions.samples]
            write_predictions(self.predictions, predictions, ids, names)
        if self.confusion is not None:
            from hpcvideo.training.confusion_picture import write_confusion_picture

            title = f"{scored.name}, step {scored.step}"
            measured = f"top-1 {scored.result.metrics['top1']:.1%} of {scored.result.clips} videos, {_protocol(scored)}"
            write_confusion_picture(self.confusion, scores, names, title, measured)


@contextmanager
def evaluation_progress(rank: int) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, for rank 0 alone."""
    console = Console(stderr=True)
    if rank != 0 or not console.is_terminal:
        yield lambda done, of: None
        return
    with bar(console) as progress:
        task = progress.add_task("evaluate", total=None)
        yield lambda done, of: progress.update(task, completed=done, total=of)


def show_scores(scored: ScoredRun, as_json: bool) -> None:
    """Print the metrics with their protocol, and by class what fits."""
    result, scores = scored.result, scored.classes
    if as_json:
        answer: dict[str, Any] = {
            "step": scored.step,
            "weights": "averaged" if scored.averaged else "trained",
            "protocol": result.protocol,
            "clips": result.clips,
            "left_out": len(scored.clips) - result.clips,
            "metrics": result.metrics,
        }
        if scores is not None:
            answer |= _by_class(scores, scored.clips.label_names)
        print(json.dumps(answer))
        return
    metrics = "  ".join(f"{name} {value:.4f}" for name, value in result.metrics.items())
    if scores is not None:
        metrics += f"  mean of classes' top1 {scores.mean_class_top1:.4f}"
    left_out = len(scored.clips) - result.clips
    videos = f"{result.clips} videos" + (f", {left_out} damaged ones left out" if left_out else "")
    print(f"step {scored.step}: {metrics}  ({videos}, {_protocol(scored)})")
    for pair in scores.confused_pairs(3) if scores is not None else ():
        label, predicted = (scored.clips.label_names[at] for at in (pair.label, pair.predicted))
        print(f"  {label} taken for {predicted}: {pair.videos} of {pair.of} videos")


def _protocol(scored: ScoredRun) -> str:
    return scored.result.protocol + (", averaged weights" if scored.averaged else "")


def _by_class(scores: ClassScores, label_names: tuple[str, ...] | list[str]) -> dict[str, Any]:
    """mean_class_top1; classes: counts of each; most_confused: pairs of names."""
    rows = zip(label_names, scores.videos, scores.top1_hits, scores.top5_hits, strict=True)
    return {
        "mean_class_top1": scores.mean_class_top1,
        "classes": [
            {"label": label, "videos": int(videos), "top1_hits": int(hits), "top5_hits": int(among)}
            for label, videos, hits, among in rows
        ],
        "most_confused": [
            {**pair._asdict(), "label": label_names[pair.label], "predicted": label_names[pair.predicted]}
            for pair in scores.confused_pairs(_PAIRS)
        ],
    }
