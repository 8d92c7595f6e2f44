"""The metric against a slow evaluator written from the rule alone, and against the published values of a fixture."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcvideo.errors import InputError
from hpcvideo.tasks.detection.average_precision import Instances, Predictions, match
from hpcvideo.tasks.detection.breakdown import normalised_average_map
from hpcvideo.tasks.detection.detection_files import read_ground_truth, read_results
from hpcvideo.tasks.detection.detection_scores import DetectionScores, score_detections
from hpcvideo.tasks.detection.tiou import temporal_iou, tiou_thresholds

FIXTURE = Path(__file__).resolve().parents[4] / "shared" / "data" / "tad-eval"
TEN = tiou_thresholds("0.5:0.95:0.05")
TRUTH: dict[str, Any] = {
    "v_one": {"duration": 100, "subset": "validation", "annotations": [
        {"segment": ["10", "20.0"], "label": "run"}, {"segment": [30, 60], "label": "jump"},
    ]},
    "two": {"duration": 50, "subset": "training", "annotations": [{"segment": [0, 50], "label": "swim"}]},
}  # fmt: skip


def write(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps(content))
    return path


def scored(folder: Path, truth: Any, results: Any, subset: str | None = None) -> tuple[DetectionScores, tuple[str, ...]]:
    read = read_ground_truth(write(folder, "gt.json", truth), subset)
    found = read_results(write(folder, "results.json", results), read)
    return score_detections(read.instances, found.predictions, read.label_names, TEN), found.warnings


def overlap(one: tuple[float, float], other: tuple[float, float]) -> float:
    common = min(one[1], other[1]) - max(one[0], other[0])
    return common / (one[1] - one[0] + other[1] - other[0] - common) if common > 0 else 0.0


def slow_map(actions: list[tuple[int, int, Any]], found: list[tuple[int, int, Any, float]], tiou: float) -> float:
    """Mean AP over classes; actions: (video, label, segment), found: (video, label, segment, score), by the rule alone."""
    values = []
    for label in {action[1] for action in actions}:
        mine = [action for action in actions if action[1] == label]
        ranked = sorted(
            (one for one in enumerate(found) if one[1][1] == label), key=lambda one: (one[1][3], one[0]), reverse=True
        )
        taken: set[int] = set()
        hits = []
        for _, (video, _, segment, _) in ranked:
            best = max(
                ((overlap(segment, action[2]), number) for number, action in enumerate(mine)
                 if action[0] == video and number not in taken), default=(0.0, -1),
            )  # fmt: skip
            if best[1] >= 0 and best[0] >= tiou:
                taken.add(best[1])
                hits.append(1)
            else:
                hits.append(0)
        precision = [sum(hits[: rank + 1]) / (rank + 1) for rank in range(len(hits))]
        values.append(sum(max(precision[rank:]) for rank, hit in enumerate(hits) if hit) / len(mine))
    return sum(values) / len(values)


def arrays(actions: list[Any], found: list[Any]) -> tuple[Instances, Predictions]:
    videos, labels, segments = zip(*actions, strict=True)
    instances = Instances(np.array(videos), np.array(labels), np.array(segments, float), np.full(len(videos), 100.0))
    where, what, when, scores = zip(*found, strict=True)
    return instances, Predictions(np.array(where), np.array(what), np.array(when, float), np.array(scores, float))


@pytest.mark.parametrize("seed", range(12))
def test_map_is_that_of_a_slow_evaluator_with_ties_duplicates_and_crowded_videos(seed: int) -> None:
    draw = random.Random(seed)

    def segment() -> tuple[float, float]:
        begin = draw.randrange(0, 60)
        return float(begin), float(begin + draw.randrange(1, 40))

    actions = [(draw.randrange(4), draw.randrange(3), segment()) for _ in range(draw.randrange(1, 25))]
    found = [
        (draw.randrange(-1, 4), draw.randrange(3), segment() if draw.random() < 0.6 else draw.choice(actions)[2],
         draw.choice([0.1, 0.2, 0.5, 0.9, draw.random()]))
        for _ in range(draw.randrange(1, 80))
    ]  # fmt: skip
    result = score_detections(*arrays(actions, found), ("a", "b", "c"), (0.1, *TEN))
    np.testing.assert_allclose(result.map, [slow_map(actions, found, tiou) for tiou in (0.1, *TEN)], rtol=0, atol=1e-12)


@pytest.mark.skipif(not FIXTURE.is_dir(), reason="the shared fixture is not on this machine")
def test_the_published_fixture_has_its_ten_values() -> None:
    truth = read_ground_truth(FIXTURE / "gt.json")
    found = read_results(FIXTURE / "result.json", truth)
    result = score_detections(truth.instances, found.predictions, truth.label_names, TEN)
    expected = [5 / 7] * 3 + [0.6875] * 2 + [0.59722222222222222] + [0.52083333333333333] * 3 + [0.5]
    np.testing.assert_allclose(result.map, expected, rtol=0, atol=1e-9)
    assert result.average_map == pytest.approx(0.6177579365079365, abs=1e-12)
    assert found.warnings == ()
    assert {one.label: one.ap[0] for one in result.classes} == {"Cleaning shoes": 1.0, "Wakeboarding": pytest.approx(3 / 7)}


def test_of_equal_scores_the_later_goes_first() -> None:
    actions = [(0, 0, (0.0, 10.0))]
    right, wrong = (0, 0, (0.0, 10.0), 0.5), (0, 0, (50.0, 60.0), 0.5)
    assert score_detections(*arrays(actions, [wrong, right]), ("a",), TEN).average_map == 1.0
    assert score_detections(*arrays(actions, [right, wrong]), ("a",), TEN).average_map == 0.5


def test_an_overlap_of_just_the_threshold_counts() -> None:
    assert tiou_thresholds("0.5:0.95:0.05") == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
    for threshold in TEN:
        found = [(0, 0, (0.0, round(100 * threshold)), 1.0)]
        assert score_detections(*arrays([(0, 0, (0.0, 100.0))], found), ("a",), (threshold,)).map == (1.0,)


@pytest.mark.parametrize(
    "wrong", ["", "a", "0.5:0.9", "0.9:0.5:0.1", "0.5:0.9:0", "0", "1.1", "nan", "0.1:0.2:1e-9", "inf:inf:1"]
)
def test_thresholds_that_are_none_are_refused(wrong: str) -> None:
    with pytest.raises(InputError, match="tIoU"):
        tiou_thresholds(wrong)


def test_an_interval_of_no_length_overlaps_with_nothing_not_even_itself() -> None:
    both = np.array([[3.0, 3.0], [0.0, 5.0], [5.0, 0.0]])
    np.testing.assert_array_equal(temporal_iou(both, both), [[0, 0, 0], [0, 1, 0], [0, 0, 0]])


def test_ids_meet_with_and_without_prefix_bare_and_under_database(tmp_path: Path) -> None:
    run, swim = {"label": "run", "score": 1, "segment": ["10", "20"]}, {"label": "swim", "score": "0.5", "segment": [0, 50]}
    jump = {"label": "jump", "score": 1, "segment": [30, 60]}
    for truth in (TRUTH, {"database": TRUTH, "version": "1.3"}):
        for results in ({"one": [run, jump], "v_two": [swim]}, {"v_one": [jump, run], "two": [swim]}):
            result, warnings = scored(tmp_path, truth, {"results": results, "version": "x"})
            assert (result.average_map, warnings) == (1.0, ())


def test_an_id_that_happens_to_begin_with_the_prefix_is_still_found(tmp_path: Path) -> None:
    truth = {"v_v_abc": TRUTH["two"]}
    found = [{"label": "swim", "score": 1, "segment": [0, 50]}]
    assert scored(tmp_path, truth, {"v_abc": found})[0].average_map == 1.0
    assert scored(tmp_path, {"v_abc": TRUTH["two"]}, {"v_v_abc": found})[0].average_map == 1.0


def test_all_subsets_count_unless_one_is_named(tmp_path: Path) -> None:
    run, jump = {"label": "run", "score": 1, "segment": [10, 20]}, {"label": "jump", "score": 1, "segment": [30, 60]}
    results = {"one": [run, jump], "two": [{"label": "run", "score": 2, "segment": [0, 1]}]}
    everything, _ = scored(tmp_path, TRUTH, results)
    assert everything.average_map == pytest.approx((0.5 + 1 + 0) / 3)
    one, warnings = scored(tmp_path, TRUTH, results, "validation")
    assert one.average_map == 1.0
    assert [warning for warning in warnings if "other subsets" in warning]
    swim = {"label": "swim", "score": 1, "segment": [0, 5]}  # of a class that validation lacks: it counts nowhere
    _, warnings = scored(tmp_path, TRUTH, {"nowhere": [swim, run]}, "validation")
    assert "1 video ('nowhere') not in the ground truth; false detections there: 1" in warnings
    with pytest.raises(InputError, match="there are: training, validation"):
        scored(tmp_path, TRUTH, results, "val")


def test_detections_in_unknown_videos_and_of_no_length_are_false_and_told_of(tmp_path: Path) -> None:
    right = {"label": "run", "score": 0.5, "segment": [10, 20]}
    truth = {"one": {"annotations": [{"label": "run", "segment": [10, 20]}]}}
    for wrong, word in (
        ({"elsewhere": [{**right, "score": 0.9}], "one": [right]}, "not in the ground truth"),
        ({"one": [{**right, "score": 0.9, "segment": [15, 15]}, right]}, "no length"),
        ({"one": [{**right, "score": 0.9, "segment": [20, 10]}, right]}, "no length"),
    ):
        result, warnings = scored(tmp_path, truth, {"results": wrong})
        assert result.average_map == 0.5
        assert word in " ".join(warnings)


def test_nothing_predicted_scores_nothing_and_never_nan(tmp_path: Path) -> None:
    result, warnings = scored(tmp_path, TRUTH, {"results": {}})
    assert result.average_map == 0.0
    assert "every score is 0" in warnings[0]
    json.dumps(result.as_json(), allow_nan=False)


def test_actions_of_no_length_are_left_out_and_told_of(tmp_path: Path) -> None:
    truth = {"a": {"annotations": [{"label": "run", "segment": [1, 1]}, {"label": "run", "segment": [1, 4]}]}}
    result, warnings = scored(tmp_path, truth, {"a": [{"label": "run", "score": 1, "segment": [1, 4]}]})
    assert (result.average_map, result.instances) == (1.0, 1)
    assert "no length" in warnings[0]


@pytest.mark.parametrize("truth", [{}, {"database": {}}, {"a": {"annotations": []}}, {"a": {"subset": "test"}},
                                   {"a": {"annotations": [{"label": "x", "segment": [2, 2]}]}}])  # fmt: skip
def test_no_ground_truth_at_all_is_an_error(tmp_path: Path, truth: Any) -> None:
    with pytest.raises(InputError, match="no action with a length"):
        read_ground_truth(write(tmp_path, "gt.json", truth))


@pytest.mark.parametrize(("results", "said"), [
    ({"one": [{"label": "fly", "score": 1, "segment": [0, 1]}]}, "1 label \\('fly'\\) not in the ground truth"),
    ({"one": [{"label": "run", "score": float("nan"), "segment": [0, 1]}]}, "finite"),
    ({"one": [{"label": "run", "score": 1, "segment": [0, "x"]}]}, "finite"),
    ({"one": [{"label": "run", "score": 1, "segment": [0]}]}, "begin, end"),
    ({"one": [{"label": "run", "segment": [0, 1]}]}, "score"),
    ({"one": [{"score": 1, "segment": [0, 1]}]}, "label"),
    ({"one": [], "v_one": []}, "mean the same video"),
    ({"one": {}}, "of each video a list"),
    ([], "of each video a list"),
])  # fmt: skip
def test_results_that_cannot_be_scored_are_an_error(tmp_path: Path, results: Any, said: str) -> None:
    truth = read_ground_truth(write(tmp_path, "gt.json", TRUTH))
    with pytest.raises(InputError, match=said):
        read_results(write(tmp_path, "results.json", {"results": results}), truth)


@pytest.mark.parametrize("truth", [[], {"database": []}, {"a": []}, {"a": {"annotations": {}}}, {"a": {"annotations": [{}]}},
                                   {"a": {"annotations": [{"label": "x", "segment": "12"}]}},
                                   {"a": {"duration": "long", "annotations": []}},
                                   {"a": TRUTH["two"], "v_a": TRUTH["two"]}])  # fmt: skip
def test_a_file_that_is_no_ground_truth_is_an_error(tmp_path: Path, truth: Any) -> None:
    with pytest.raises(InputError):
        read_ground_truth(write(tmp_path, "gt.json", truth))
    (tmp_path / "gt.json").write_bytes(b"\xff{")
    with pytest.raises(InputError, match="JSON"):
        read_ground_truth(tmp_path / "gt.json")


def test_buckets_hold_every_action_and_score_theirs_alone() -> None:
    # Ten long actions are found exactly, ten short ones missed by false alarms of higher score, in one class.
    long = [(video, 0, (0.0, 90.0)) for video in range(10)]
    short = [(video, 0, (92.0, 97.0)) for video in range(10)]
    found = [(*action, 0.9) for action in long] + [(video, 0, (97.5, 99.0), 0.1) for video in range(10)]
    result = score_detections(*arrays(long + short, found), ("a",), TEN)
    by_name = {one.name: one for one in result.lengths}
    assert [by_name[name].instances for name in ("XS", "S", "M", "L", "XL")] == [10, 0, 10, 0, 0]
    assert by_name["M"].average_map == 1.0
    assert by_name["XS"].average_map == 0.0
    assert by_name["XS"].found == (0.0,) * 10
    assert by_name["S"].average_map is None
    assert [one.instances for one in result.coverages] == [10, 0, 0, 0, 10]


def test_a_buckets_value_is_that_of_a_loop_over_detections() -> None:
    # Class a has five actions, class b two: precision is normalised to 3.5 of them. Exact hits keep who takes what simple.
    short = [(0, 0, (0.0, 10.0)), (1, 0, (0.0, 10.0)), (2, 0, (0.0, 10.0)), (0, 1, (20.0, 30.0))]
    long = [(0, 0, (30.0, 90.0)), (1, 0, (30.0, 90.0)), (1, 1, (30.0, 90.0))]
    wrong = [(5, 0, (0.0, 1.0)), (5, 0, (0.0, 1.0)), (5, 1, (0.0, 1.0))]
    order = [long[0], wrong[0], short[0], long[1], wrong[1], short[1], short[3], wrong[2], long[2]]
    found = [(*one, 1.0 - place / 100) for place, one in enumerate(order)]
    result = score_detections(*arrays(short + long, found), ("a", "b"), TEN)

    def slow(bucket: list[Any], label: int) -> float:
        hits = [one in bucket for one in order if one[1] == label and (one in bucket or one in wrong)]
        count = sum(one[1] == label for one in bucket)
        recall = [sum(hits[: rank + 1]) / count for rank in range(len(hits))]
        precision = [3.5 * r / (3.5 * r + rank + 1 - sum(hits[: rank + 1])) for rank, r in enumerate(recall)]
        return sum(max(precision[rank:]) for rank, hit in enumerate(hits) if hit) / count

    by_name = {one.name: one.average_map for one in result.lengths}
    assert by_name["XS"] == pytest.approx((slow(short, 0) + slow(short, 1)) / 2, abs=1e-12)
    assert by_name["S"] == pytest.approx((slow(long, 0) + slow(long, 1)) / 2, abs=1e-12)
    assert 0.2 < by_name["XS"] < by_name["S"] < 1


def test_normalised_map_of_a_class_with_the_mean_number_of_actions_is_its_map() -> None:
    # DETAD: precision = recall * mean / (recall * mean + false); with the mean number it is hits / (hits + false).
    draw = random.Random(5)
    actions = [(video, 0, (float(video), video + 8.0)) for video in range(12)]
    starts = [draw.uniform(0, 14) for _ in range(60)]
    found = [(draw.randrange(12), 0, (start, start + 7.5), draw.random()) for start in starts]
    instances, predictions = arrays(actions, found)
    plain = score_detections(instances, predictions, ("a",), TEN).average_map
    assert 0 < plain < 1
    assert normalised_average_map(instances, match(instances, predictions, TEN)) == pytest.approx(plain, abs=1e-12)
