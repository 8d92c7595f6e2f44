"""Ground truth and detections from ActivityNet's JSON files, checked before anything is scored."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.tasks.detection.average_precision import Instances, Predictions

_PREFIX = "v_"


@dataclass(frozen=True)
class GroundTruth:
    """label_names: of all subsets, sorted; a label's number is its place. videos: ids of those that are scored; left_out:
    ids of other subsets. instances: actions of the videos scored. notes: sentences on what was left out."""

    path: Path
    label_names: tuple[str, ...]
    videos: tuple[str, ...]
    left_out: frozenset[str]
    instances: Instances
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Results:
    """What a detector gave, with warnings: what of it can only be wrong, and what does not count."""

    predictions: Predictions
    warnings: tuple[str, ...] = ()


@dataclass
class _Columns:
    videos: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    segments: list[tuple[float, float]] = field(default_factory=list)
    numbers: list[float] = field(default_factory=list)

    def add(self, video: int, label: int, segment: tuple[float, float], number: float) -> None:
        self.videos.append(video)
        self.labels.append(label)
        self.segments.append(segment)
        self.numbers.append(number)

    def arrays(self) -> tuple[Any, Any, Any, Any]:
        return (
            np.array(self.videos, dtype=np.int64), np.array(self.labels, dtype=np.int64),
            np.array(self.segments, dtype=np.float64).reshape(-1, 2), np.array(self.numbers, dtype=np.float64),
        )  # fmt: skip


def read_ground_truth(path: Path, subset: str | None = None) -> GroundTruth:
    """The actions of all videos, or of one subset's, from `{id: {subset, duration, annotations: [{segment, label}]}}`.

    The dictionary may stand bare or under `database`; numbers may be written as strings. Actions of no length are left out,
    as nothing can overlap with them. Raises InputError where the file is no such thing, two ids mean one video, the subset
    does not exist, or no action is left: a mean over nothing is no number.
    """
    content = _read(path)
    database = content.get("database", content) if isinstance(content, dict) else None
    if not isinstance(database, dict) or not all(isinstance(entry, dict) for entry in database.values()):
        raise InputError(f"{path}: expected a dictionary of videos, bare or under `database`, each with its annotations")
    subsets = sorted({str(entry["subset"]) for entry in database.values() if "subset" in entry})
    if subset is not None and subset not in subsets:
        raise InputError(f"--subset {subset}: no video of {path} is of it; there are: {', '.join(subsets) or 'none'}")
    for video in database:
        if video.startswith(_PREFIX) and (plain := video.removeprefix(_PREFIX)) in database:
            raise InputError(f"{path}: {plain!r} and {video!r} mean the same video; give each video once")
    scored = [video for video, entry in database.items() if subset is None or entry.get("subset") == subset]
    annotations = {video: list(_annotations(path, video, entry)) for video, entry in database.items()}
    names = tuple(sorted({label for found in annotations.values() for label, _ in found}))
    numbers = {name: number for number, name in enumerate(names)}
    columns, empty = _Columns(), 0
    for number, video in enumerate(scored):
        duration = _duration(path, video, database[video])
        for label, segment in annotations[video]:
            if segment[1] > segment[0]:
                columns.add(number, numbers[label], segment, duration)
            else:
                empty += 1
    notes = (f"actions of no length in {path.name}, left out as nothing can overlap with them: {empty}",)
    instances = Instances(*columns.arrays())
    if not len(instances):
        which = f"subset {subset}" if subset is not None else "any subset"
        raise InputError(f"{path}: no action with a length in {which} ({len(scored)} videos): nothing to score against")
    return GroundTruth(
        path, names, tuple(scored), frozenset(database) - frozenset(scored), instances, notes if empty else ()
    )


def read_results(path: Path, truth: GroundTruth) -> Results:
    """Detections from `{"results": {id: [{label, score, segment}]}}`, in the file's order; `results` may be left out.

    Videos are found by id, with or without `v_` in front. Detections in videos that the ground truth does not have, and
    those of no length, stay and are false; those in videos of other subsets do not count, nor do those of classes that have
    no action in the subset. Each is told in a warning. Raises InputError where the file is no such thing, a number is not
    finite, two ids mean one video, or a label is none of the ground truth's.
    """
    content = _read(path)
    results = content.get("results", content) if isinstance(content, dict) else None
    if not isinstance(results, dict) or not all(isinstance(found, list) for found in results.values()):
        raise InputError(f"{path}: expected `results`: of each video a list of {{label, score, segment}}")
    numbers = {video: number for number, video in enumerate(truth.videos)}
    known = {name: number for number, name in enumerate(truth.label_names)}
    scored_labels = set(truth.instances.labels.tolist())
    columns, seen = _Columns(), dict[str, str]()
    unknown_videos, elsewhere, classless, empty, unknown_labels = list[str](), 0, 0, 0, set[str]()
    false = 0
    for written, found in results.items():
        video = _find(written, numbers) or _find(written, truth.left_out)
        if (other := seen.setdefault(video or written, written)) != written:
            raise InputError(f"{path}: {other!r} and {written!r} mean the same video, {video!r}; give each video once")
        if video is None:
            unknown_videos.append(written)
        for place, each in enumerate(found, 1):
            where = f"{path}, video {written!r}, detection {place}"
            if not isinstance(each, dict) or not isinstance(each.get("label"), str):
                raise InputError(f"{where}: expected {{label, score, segment}}, label a text")
            segment, score = _segment(each.get("segment"), where), _number(each.get("score"), f"{where}: score")
            if each["label"] not in known:
                unknown_labels.add(each["label"])
            elif video in truth.left_out:
                elsewhere += 1
            elif known[each["label"]] not in scored_labels:
                classless += 1
            else:
                empty += segment[1] <= segment[0]
                false += video is None
                columns.add(-1 if video is None else numbers[video], known[each["label"]], segment, score)
    if unknown_labels:
        raise InputError(
            f"{path}: {_some(sorted(unknown_labels), 'label')} not in the ground truth {truth.path}, which has "
            f"{_some(truth.label_names, 'label')}; map the names before scoring"
        )
    warnings = []
    if not columns.labels:
        warnings.append(f"{path.name} has no detection that counts: every score is 0")
    if unknown_videos:
        warnings.append(f"{_some(unknown_videos, 'video')} not in the ground truth; false detections there: {false}")
    if empty:
        warnings.append(f"detections of no length, which count as false: {empty}")
    if elsewhere:
        warnings.append(f"detections in videos of other subsets, which do not count: {elsewhere}")
    if classless:
        warnings.append(f"detections of classes without any action here, which no mean counts: {classless}")
    return Results(Predictions(*columns.arrays()), (*truth.notes, *warnings))


def write_results(path: Path, found: Mapping[str, Tensor], label_names: Sequence[str]) -> None:
    """Write detections, id -> float64 [n, 4] of begin and end in seconds, score and label, as `read_results` reads them.

    Raises OperationFailed where the file cannot be written.
    """
    results = {
        video: [
            {"label": label_names[int(label)], "score": score, "segment": [begin, end]}
            for begin, end, score, label in detections.tolist()
        ]
        for video, detections in found.items()
    }
    try:
        path.write_text(json.dumps({"results": results}, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise OperationFailed(f"{path}: {error.strerror}") from error


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not JSON: {error}") from error


def _annotations(path: Path, video: str, entry: Mapping[str, Any]) -> Iterator[tuple[str, tuple[float, float]]]:
    annotations = entry.get("annotations", [])
    if not isinstance(annotations, list):
        raise InputError(f"{path}, video {video!r}: annotations is no list of {{segment, label}}")
    for place, each in enumerate(annotations, 1):
        where = f"{path}, video {video!r}, annotation {place}"
        if not isinstance(each, dict) or not isinstance(each.get("label"), str):
            raise InputError(f"{where}: expected {{segment, label}}, label a text")
        yield each["label"], _segment(each.get("segment"), where)


def _duration(path: Path, video: str, entry: Mapping[str, Any]) -> float:
    if entry.get("duration") is None:
        return math.nan
    duration = _number(entry["duration"], f"{path}, video {video!r}: duration")
    return duration if duration > 0 else math.nan


def _segment(value: Any, where: str) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2:
        raise InputError(f"{where}: segment {value!r}; expected [begin, end] in seconds")
    return _number(value[0], f"{where}: segment"), _number(value[1], f"{where}: segment")


def _number(value: Any, where: str) -> float:
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{where} {value!r}; expected a finite number")
    return number


def _find(written: str, known: Mapping[str, int] | frozenset[str]) -> str | None:
    """The id among the known ones, with or without the prefix; ids that happen to begin with it are taken as they stand."""
    for video in (written, written.removeprefix(_PREFIX), _PREFIX + written):
        if video in known:
            return video
    return None


def _some(names: list[str] | tuple[str, ...], what: str) -> str:
    shown = ", ".join(repr(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} {what}{'' if len(names) == 1 else 's'} ({shown})"
