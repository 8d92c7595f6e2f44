"""The task `detection`: from videos to targets, from outputs to detections in seconds, to the metric."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hpcvideo.errors import InputError
from hpcvideo.intervals.anchors import dense_anchors
from hpcvideo.intervals.detector_outputs import DetectorOutputs
from hpcvideo.models import create_model
from hpcvideo.shards.records import Action
from hpcvideo.tasks import create_task
from hpcvideo.tasks.detection.task import Detection
from hpcvideo.tasks.protocol import SeenFrames

BINS, CLASSES = 16, 3


@dataclass(frozen=True)
class FakeVideo:
    id: str
    actions: tuple[Action, ...]
    duration: float = 80.0
    fps: float = 10.0
    num_frames: int = 800
    labels: tuple[int, ...] = ()


VIDEOS = [
    FakeVideo("one", (Action(0, 10.0, 30.0), Action(2, 45.0, 70.0))),
    FakeVideo("two", (Action(1, 0.0, 40.0),), duration=0.0, num_frames=400),
    FakeVideo("three", ()),
]


def task(**options: Any) -> Detection:
    made = create_task("detection", {"num_classes": CLASSES, "bins": BINS, **options})
    assert isinstance(made, Detection)
    return made


def frames(videos: list[FakeVideo], first: float = 0.0, last: float = 80.0) -> SeenFrames:
    """Four frames a bin, evenly from `first` to `last` seconds."""
    middles = first + (torch.arange(4 * BINS, dtype=torch.float64) + 0.5) * (last - first) / (4 * BINS)
    return SeenFrames((middles * 10).long().expand(len(videos), -1), middles.expand(len(videos), -1))


def perfect(batch: dict[str, Tensor], spread: float = 0.0) -> Tensor:
    """Outputs for all anchors that know the truth of `segments`, each action's best anchor moved right onto it."""
    anchors = dense_anchors(BINS)
    videos = len(batch["segments"])
    intervals = anchors.expand(videos, 4, -1, -1).clone()
    overlaps = torch.full((videos, 3, len(anchors), 2), -6.0)
    boundaries, classes = torch.full((videos, 2, BINS), -2.0), torch.zeros(videos, CLASSES, BINS)
    for video in range(videos):
        for segment, label in zip(batch["segments"][video], batch["action_labels"][video].tolist(), strict=True):
            if label < 0:
                continue
            best = int((anchors - segment).abs().sum(dim=1).argmin())
            intervals[video, 1:, best] = segment + spread
            overlaps[video, :, best] = 4.0
            first, last = round(float(anchors[best, 0]) * BINS), round(float(anchors[best, 1]) * BINS) - 1
            boundaries[video, 0, first] = boundaries[video, 1, last] = 4.0
            classes[video, label, first : last + 1] = 9.0
    zeros = torch.zeros(videos, 3, len(anchors), 2)
    return DetectorOutputs(boundaries, classes, intervals, overlaps, zeros, torch.cat([zeros, zeros], dim=-1)).packed()


def batch_of(made: Detection, videos: list[FakeVideo]) -> dict[str, Any]:
    entries = dict(made.targets(videos, frames(videos)))
    return {**entries, "weights": torch.ones(len(videos)), "ids": [video.id for video in videos]}


def test_targets_are_fractions_of_the_whole_video() -> None:
    batch = batch_of(task(), VIDEOS)
    np.testing.assert_allclose(batch["spans"], [[0, 80], [0, 40], [0, 80]])
    np.testing.assert_allclose(batch["segments"][0], [[0.125, 0.375], [0.5625, 0.875]])
    assert batch["segments"][1, 0].tolist() == [0.0, 1.0]
    assert batch["action_labels"].tolist() == [[0, 2], [1, -1], [-1, -1]]
    assert batch["truth"][0, :3].tolist() == [[10, 30, 0], [45, 70, 2], [0, 0, -1]]


def test_of_a_window_only_actions_count_that_lie_in_it_at_least_by_half() -> None:
    made = task(span="window")
    videos = [VIDEOS[0]] * 3
    for (first, last), labels, segments in (
        ((0.0, 40.0), [0], [[0.25, 0.75]]),
        ((20.0, 60.0), [0, 2], [[0.0, 0.25], [0.625, 1.0]]),  # 10 of 20 seconds and 15 of 25
        ((24.0, 56.0), [-1], [[0.0, 0.0]]),  # 6 of 20 and 11 of 25
    ):
        entries = made.targets(videos, frames(videos, first, last))
        np.testing.assert_allclose(entries["spans"][0], [first, last], atol=1e-9)
        assert entries["action_labels"][0].tolist() == labels
        np.testing.assert_allclose(entries["segments"][0], segments, atol=1e-6)
    with pytest.raises(InputError, match=r"task\.bins = 16"):
        made.targets(videos, SeenFrames(torch.zeros(3, 20).long(), torch.zeros(3, 20)))


@pytest.mark.parametrize("options", [{}, {"voting": 0.95}, {"candidates": False}, {"peaks": "plateau"}, {"top_classes": 1}])
def test_a_perfect_detector_has_a_perfect_metric_in_seconds(options: dict[str, Any]) -> None:
    made = task(**options)
    batch = batch_of(made, VIDEOS)
    found = made.detections(perfect(batch), batch)
    best = found[0][:2]
    order = best[:, 0].argsort()
    np.testing.assert_allclose(best[order][:, :2], [[10, 30], [45, 70]], atol=1e-4)
    assert best[order][:, 3].tolist() == [0, 2]
    np.testing.assert_allclose(found[1][0, :2], [0, 40], atol=1e-4)
    rows = made.rows(perfect(batch), batch)
    metrics = made.metrics(torch.tensor([3.0, 6.0]).double(), rows)
    assert metrics["average_map"] == 1.0
    assert metrics["map@0.95"] == 1.0
    assert metrics["loss"] == 2.0


def test_worse_places_have_a_worse_metric_and_no_outputs_none() -> None:
    made = task()
    batch = batch_of(made, VIDEOS)
    sums = torch.tensor([3.0, 6.0]).double()
    values = [made.metrics(sums, made.rows(perfect(batch, spread), batch))["average_map"] for spread in (0.0, 0.02, 0.5)]
    assert 1.0 == values[0] > values[1] > values[2]


def test_rows_of_all_batches_are_one_table_of_fixed_width() -> None:
    made = task()
    whole = batch_of(made, VIDEOS)
    rows = made.rows(perfect(whole), whole)
    parts = []
    for video in VIDEOS:
        batch = batch_of(made, [video])
        parts.append(made.rows(perfect(batch), batch))
    torch.testing.assert_close(torch.cat(parts), rows)
    assert rows.shape == (3, 1 + 4 * 200 + 3 * 256)
    assert rows.dtype == torch.float64


def test_detections_lie_within_the_video_and_have_a_length() -> None:
    made = task(candidates=False)
    torch.manual_seed(0)
    model = create_model("etad_features", CLASSES, BINS, channels=4, width=16, hidden=16, roi_bins=4).eval()
    batch = batch_of(made, VIDEOS)
    with torch.no_grad():
        outputs = model(10 * torch.randn(3, BINS, 4))
    for found, limit in zip(made.detections(outputs, batch), (80.0, 40.0, 80.0), strict=True):
        assert 0 < len(found) <= 200
        assert (found[:, 0] >= 0).all()
        assert (found[:, 1] <= limit).all()
        assert (found[:, 1] > found[:, 0]).all()
        assert (found[:, 2].diff() <= 0).all()


def test_class_scores_of_a_file_take_the_place_of_the_class_head(tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    scores = {"v_one": [0.1, 0.2, 0.7], "two": [[0.0, 1.0, 0.0]], "three": [0.2, 0.3, 0.5]}
    path.write_text(json.dumps({"class": ["c", "a", "b"], "results": scores}))
    made = task(class_scores=str(path))
    made.check_labels(["a", "b", "c"], "set")
    batch = batch_of(made, VIDEOS)
    found = made.detections(perfect(batch), batch)
    best = found[0][0]
    assert best[3] == 1  # b has 0.7 of video one, whatever the head says
    plain = task().detections(perfect(batch), batch)[0]
    np.testing.assert_allclose(best[2] / plain[0, 2], 0.7, rtol=2e-3)  # the head is sure of its class
    assert set(found[1][:, 3].tolist()) == {0, 2} or found[1][0, 3] == 0
    with pytest.raises(InputError, match="no class scores of video 'four'"):
        made.detections(perfect(batch), {**batch, "ids": ["one", "two", "four"]})
    as_files = made.detections(perfect(batch), {**batch, "ids": ["val/v_one.mp4", "val/v_two.webm", "three"]})
    torch.testing.assert_close(as_files[1], found[1])
    with pytest.raises(InputError, match="no scores of class 'd'"):
        made.check_labels(["a", "b", "d"], "set")


@pytest.mark.parametrize("content", ["[]", "{}", '{"class": ["a", "b", "c"], "results": {"x": [1, 2]}}',
                                     '{"class": ["a", "b", "c"], "results": {"x": [1, 2, "q"]}}', "{",
                                     '{"class": ["a", "b"], "results": {}}'])  # fmt: skip
def test_files_that_are_no_class_scores_are_refused_at_once(tmp_path: Path, content: str) -> None:
    path = tmp_path / "classes.json"
    path.write_text(content)
    with pytest.raises(InputError, match="classes"):
        task(class_scores=str(path))


@pytest.mark.parametrize(
    "option", [{"tiou": "2"}, {"sigma": 0}, {"voting": 2}, {"balance": "fair"}, {"unknown": 1}, {"bins": 1}]
)
def test_options_that_make_no_sense_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=rf"task\.{next(iter(option))}"):
        task(**option)


def test_what_cannot_be_scored_is_said() -> None:
    made = task(max_actions=1)
    with pytest.raises(InputError, match="one has 2 actions"):
        batch_of(made, VIDEOS)
    with pytest.raises(InputError, match="its length in seconds is unknown"):
        batch_of(made, [FakeVideo("x", (), duration=0.0, fps=0.0)])
    with pytest.raises(InputError, match="2 label names"):
        made.check_labels(["a", "b"], "set")
    batch = batch_of(made, VIDEOS[2:])
    with pytest.raises(InputError, match="no video of the validation set has an action"):
        made.metrics(torch.tensor([1.0, 1.0]), made.rows(perfect(batch), batch))


def test_padding_counts_nothing_in_the_sums() -> None:
    made = task()
    batch = batch_of(made, VIDEOS)
    outputs = perfect(batch)
    both = made.score(outputs[:2], {**batch, **{key: value[:2] for key, value in batch.items()}})
    padded = made.score(outputs, {**batch, "weights": torch.tensor([1.0, 1.0, 0.0])})
    torch.testing.assert_close(padded, both)
    assert both[0] == 2


def test_the_loss_teaches_a_small_detector_to_find_actions() -> None:
    # Features say begin to end of one action a video; an untrained detector finds at most by luck what 40 steps find.
    made = task(num_classes=1, tiou="0.75")
    torch.manual_seed(0)
    model = create_model("etad_features", 1, BINS, channels=4, width=24, hidden=32, roi_bins=8, proposals=0.5)
    starts = [2, 4, 6, 9, 1, 7, 3, 5]
    lengths = [4, 7, 5, 4, 9, 6, 12, 3]
    pairs = zip(starts, lengths, strict=True)
    videos = [FakeVideo("a video", (Action(0, 5.0 * start, 5.0 * (start + length)),)) for start, length in pairs]
    clips = torch.zeros(8, BINS, 4)
    for row, start, length in zip(clips, starts, lengths, strict=True):
        row[start : start + length, 0] = 1
    batch = batch_of(made, videos)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)

    def measured() -> float:
        model.eval()
        with torch.no_grad():
            outputs = model(clips)
        return made.metrics(made.score(outputs, batch), made.rows(outputs, batch))["average_map"]

    before = measured()
    for _ in range(40):
        model.train()
        optimizer.zero_grad()
        made.loss(model(clips), batch).backward()
        optimizer.step()
    assert before < 0.2
    assert measured() > 0.9
