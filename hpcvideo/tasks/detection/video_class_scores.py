"""Which actions a whole video shows, as another program's classifier says: ETAD and others multiply proposals by it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hpcvideo.errors import InputError
from hpcvideo.tasks.detection.video_names import video_name


@dataclass(frozen=True)
class VideoClassScores:
    """classes: names in the order of each video's scores, float32 [classes]; videos are found by id, or its `video_name`
    with and without `v_`."""

    path: Path
    classes: tuple[str, ...]
    by_video: dict[str, Tensor]

    def of(self, video: str) -> Tensor:
        """The scores of a video, float32 [classes]. Raises InputError where the file has none."""
        plain = video_name(video)
        for name in (video, plain, plain.removeprefix("v_"), f"v_{plain}"):
            if name in self.by_video:
                return self.by_video[name]
        raise InputError(f"{self.path}: no class scores of video {video!r}; it has {len(self.by_video)} videos")

    def ordered(self, label_names: Sequence[str]) -> VideoClassScores:
        """The same in the order of a set's label names. Raises InputError where the file lacks one of them."""
        missing = [name for name in label_names if name not in self.classes]
        if missing:
            several = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
            raise InputError(f"{self.path}: no scores of class {missing[0]!r}{several}; all of the set's labels are needed")
        places = [self.classes.index(name) for name in label_names]
        return VideoClassScores(
            self.path, tuple(label_names), {video: scores[places] for video, scores in self.by_video.items()}
        )


@lru_cache(maxsize=1)  # a start makes its task several times
def read_video_class_scores(path: Path) -> VideoClassScores:
    """From `{"class": [names], "results": {id: [a score a class]}}`, the form in which CUHK's scores for ActivityNet go
    round.

    Raises InputError where the file is no such thing.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not JSON: {error}") from error
    classes: Any = content.get("class", content.get("classes")) if isinstance(content, dict) else None
    results: Any = content.get("results") if isinstance(content, dict) else None
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes) or not isinstance(results, dict):
        raise InputError(f"{path}: expected `class`, a list of names, and `results`, a list of scores of each video")
    by_video = {}
    for video, scores in results.items():
        row = scores[0] if isinstance(scores, list) and len(scores) == 1 and isinstance(scores[0], list) else scores
        try:
            by_video[video] = torch.tensor(row, dtype=torch.float32)
        except (TypeError, ValueError):
            by_video[video] = torch.empty(0)
        if by_video[video].shape != (len(classes),) or not by_video[video].isfinite().all():
            raise InputError(f"{path}: results of video {video!r}: expected {len(classes)} finite scores, one a class")
    return VideoClassScores(path, tuple(classes), by_video)
