"""How a config's snippets lie in a video."""

from __future__ import annotations

from torch import nn

from hpcvideo.config import RunConfig
from hpcvideo.data.clip_sampling import SnippetLayout
from hpcvideo.errors import InputError
from hpcvideo.models.action_detector_network import FeatureDetectionNetwork
from hpcvideo.models.snippet_network import SnippetNetwork
from hpcvideo.tasks.detection.task import Detection
from hpcvideo.tasks.protocol import Task
from hpcvideo.training.task import make_task


def snippet_layout(config: RunConfig) -> SnippetLayout | None:
    """The layout of data.sampling, None where clips are no snippets."""
    sampling = config.data.sampling
    if sampling.snippets is None:
        return None
    return SnippetLayout(sampling.snippets, sampling.frame_stride, sampling.snippet_window)


def window_overlap(config: RunConfig, task: Task) -> float | None:
    """What neighbouring windows share in which a video is scored; None where a few clips are scored and averaged."""
    joined = task.joins_views and config.data.sampling.snippet_window is not None
    return config.evaluation.window_overlap if joined else None


def check_snippets(config: RunConfig, model: nn.Module) -> None:
    """Raise InputError where data and model disagree about the snippets of a clip, or a detector's task about its bins."""
    wanted = model.snippets if isinstance(model, SnippetNetwork) else None
    if isinstance(model, FeatureDetectionNetwork) and config.data.sampling.kind == "snippets":
        wanted = model.frames  # windows of ready features: a snippet is a bin
    given = config.data.sampling.snippets
    if given is not None and wanted is None:
        raise InputError(
            f"data.sampling.kind = snippets, but model {config.model.name} reads one clip; use a model in two parts, such "
            "as snippet_classifier or etad, or sampling.kind: segments or dense"
        )
    if wanted is not None and given != wanted:
        raise InputError(
            f"data.sampling.snippets = {given}, but model {config.model.name} has {wanted}; make them equal, with "
            "data.sampling.kind: snippets"
        )
    task = make_task(config)
    bins = model.frames if isinstance(model, FeatureDetectionNetwork) else wanted
    if isinstance(task, Detection) and bins is not None and task.bins != bins:
        raise InputError(f"task.bins = {task.bins}, but model {config.model.name} has {bins}; make them equal")
    window = config.data.sampling.snippet_window
    if isinstance(task, Detection) and window is not None:
        if task.span != "window":
            raise InputError(f"data.sampling.snippet_window = {window} with task.span = {task.span}; set task.span: window")
        if config.evaluation.clips > 1 or config.evaluation.crops > 1:
            raise InputError(
                f"evaluation.clips = {config.evaluation.clips} and crops = {config.evaluation.crops} with snippet_window = "
                f"{window}: windows that cover the video are scored, and what is found in them is joined, not averaged; "
                "leave clips and crops out, evaluation.window_overlap says how close the windows lie"
            )


def check_features(config: RunConfig, model: nn.Module) -> None:
    """Raise InputError where ready features meet a model that reads frames, or the other way round."""
    reads = isinstance(model, FeatureDetectionNetwork)
    if reads and config.data.features is None:
        raise InputError(
            f"model {config.model.name} reads ready features, but data.features names no file; make one with "
            "`hpcvideo features extract`"
        )
    if config.data.features is not None and not reads:
        raise InputError(f"data.features is set, but model {config.model.name} reads frames; use etad_features")
    sampling = config.data.sampling
    if reads and sampling.kind != "segments" and sampling.snippet_window is None:
        raise InputError(
            f"data.sampling.kind = {sampling.kind}: ready features are of the whole video; leave it out, or set kind: "
            "snippets with snippet_window, frames of the video"
        )
