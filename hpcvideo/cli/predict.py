"""`hpcvideo predict`: what a run says of video files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from hpcvideo.shards.format import Encoding
    from hpcvideo.training.predict import Prediction, Segment
    from hpcvideo.training.trained_model import TrainedModel


def predict_command(
    run: Annotated[Path, typer.Argument(help="A run directory with a checkpoint.")],
    videos: Annotated[list[Path], typer.Argument(metavar="VIDEO...", help="Video files of any length.")],
    most: Annotated[int, typer.Option("--top", min=1, help="Labels, or segments, told of each video.")] = 5,
    least: Annotated[float, typer.Option(min=0, help="Segments of a lower score are left out.")] = 0.0,
    frames_per_second: Annotated[
        float | None, typer.Option("--fps", min=0.01, help="Frames a second that count; default: the training set's.")
    ] = None,
    timeline: Annotated[
        Path | None, typer.Option(metavar="FILE.png|.svg", help="Draw what was found along the time of the one video given.")
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Of a progressive run: the labels known so far after every fragment.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The answer as one JSON object.")] = False,
) -> None:
    """Label video files, or find when which actions happen in them; no shard set is needed."""
    from hpcvideo.cli.progress import task_progress
    from hpcvideo.errors import InputError
    from hpcvideo.training.predict import predict_file, stored_encoding
    from hpcvideo.training.trained_model import load_trained_model

    if timeline is not None:
        from hpcvideo.tasks.picture_file import check_suffix
        from hpcvideo.training.timeline_picture import TIMELINES_ARE

        check_suffix(timeline, TIMELINES_ARE)
        if len(videos) != 1:
            raise InputError(f"--timeline {timeline}: one picture is of one video, but {len(videos)} are given")
    for video in videos:  # before the first one is decoded, whose answer would be lost
        if not video.is_file():
            raise InputError(f"{video}: there is no such video file")
    trained = load_trained_model(run)
    if trained.config.data.features is not None:
        raise InputError(
            f"{run}: model {trained.config.model.name} reads ready features, not frames; put the videos into a shard set, "
            "extract their features, and score them with `hpcvideo evaluate`"
        )
    encoding = stored_encoding(trained.config, frames_per_second)
    if stream:
        _show_streams(trained, videos, encoding, most, as_json)
        return
    found: list[Prediction] = []
    with task_progress("predict", len(videos)) as done:
        for video in videos:
            found.append(predict_file(trained, video, encoding, most, lambda part: done(len(found) + part)))
            done(len(found))
    if timeline is not None:
        from hpcvideo.training.timeline_picture import write_timeline

        if trained.config.task.name != "detection":
            raise InputError(f"--timeline: the run's task {trained.config.task.name} finds no segments; leave it out")
        write_timeline(timeline, replace(found[0], segments=_sure_enough(found[0], least)))
    told = [_told(prediction, least) for prediction in found]
    if as_json:
        print(json.dumps({"step": trained.step, "weights": "averaged" if trained.averaged else "trained", "videos": told}))
        return
    for answer in told:
        print(f"{answer['video']}: {answer['duration']:.1f} s, {answer['frames']} frames")
        for label in answer.get("labels", ()):
            print(f"  {label['score']:.3f}  {label['label']}")
        for segment in answer.get("segments", ()):
            print(f"  {segment['score']:.3f}  {segment['begin']:8.2f} s to {segment['end']:8.2f} s  {segment['label']}")
    if timeline is not None:
        print(f"{timeline}: drawn")


def _show_streams(trained: TrainedModel, videos: list[Path], encoding: Encoding, most: int, as_json: bool) -> None:
    from hpcvideo.training.stream_prediction import stream_file

    answers = [(video, stream_file(trained, video, encoding, most)) for video in videos]
    if as_json:
        told = [
            {
                "video": str(video),
                "running": [
                    {"seconds": round(one.seconds, 3), "frames": one.frames,
                     "labels": [{"label": label, "score": score} for label, score in one.labels]}
                    for one in running
                ],
            }
            for video, running in answers
        ]  # fmt: skip
        print(json.dumps({"step": trained.step, "weights": "averaged" if trained.averaged else "trained", "videos": told}))
        return
    for video, running in answers:
        print(f"{video}:")
        for one in running:
            print(f"  to {one.seconds:8.2f} s  " + "  ".join(f"{score:.3f} {label}" for label, score in one.labels))


def _told(prediction: Prediction, least: float) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "video": str(prediction.video),
        "duration": round(prediction.duration, 3),
        "fps": round(prediction.fps, 3),
        "frames": prediction.frames,
    }
    if prediction.labels:
        answer["labels"] = [{"label": label, "score": score} for label, score in prediction.labels]
        return answer
    answer["segments"] = [
        {"label": each.label, "score": each.score, "begin": round(each.begin, 3), "end": round(each.end, 3)}
        for each in _sure_enough(prediction, least)
    ]
    return answer


def _sure_enough(prediction: Prediction, least: float) -> tuple[Segment, ...]:
    return tuple(segment for segment in prediction.segments if segment.score >= least)
