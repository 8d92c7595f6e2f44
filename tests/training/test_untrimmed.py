"""Long videos through the commands: train, predict, features extract, and training on the features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml

from hpcvideo.cli.evaluate_output import ScoreFiles
from hpcvideo.config import RunConfig
from hpcvideo.config.load import parse_config
from hpcvideo.config.schema import SamplingConfig
from hpcvideo.data.feature_file import FeatureFile, resized, written_features
from hpcvideo.distributed.device import Device
from hpcvideo.distributed.environment import ProcessEnvironment
from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.methods.batch_split import split_over
from hpcvideo.methods.protocol import BatchShare
from hpcvideo.models import create_model
from hpcvideo.models.normalisation import normalise_clips
from hpcvideo.runs import read_events
from hpcvideo.shards import ShardSet
from hpcvideo.shards.format import Encoding
from hpcvideo.shards.inputs.video_clips import look_through
from hpcvideo.tasks import create_task
from hpcvideo.tasks.detection.detection_files import read_ground_truth, read_results
from hpcvideo.tasks.detection.detection_scores import score_detections
from hpcvideo.tasks.detection.tiou import tiou_thresholds
from hpcvideo.training.build import build_run, make_loader
from hpcvideo.training.check import check_names, check_run
from hpcvideo.training.feature_extraction import own_layout
from hpcvideo.training.predict import predict_file, stored_encoding
from hpcvideo.training.stages import plan_stages
from hpcvideo.training.trained_model import TrainedModel, load_trained_model
from tests.conftest import run_hpcvideo
from tests.training.untrimmed import NAMES, SNIPPETS, config_values, write_run, write_sets


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("untrimmed")
    write_sets(where)
    write_run(where, config_values(where))
    return where


def batches(config: RunConfig, task: Any, path: Path) -> list[dict[str, Any]]:
    """What an evaluation of a set reads."""
    with make_loader(config, task, ShardSet(path), BatchShare(0, 1)) as loader:
        return [dict(batch) for batch in loader.evaluation(1)]


def test_predicted_segments_of_files_are_those_of_the_shard_set(folder: Path) -> None:
    trained = load_trained_model(folder / "untrimmed")
    task = create_task("detection", {"num_classes": 4, "bins": SNIPPETS})
    encoding = stored_encoding(trained.config)
    for batch in batches(trained.config, task, folder / "validation"):
        with torch.no_grad():
            outputs = trained.model(normalise_clips(batch["clips"]))
        expected = task.detections(outputs, batch)[0][:20]  # type: ignore[attr-defined]
        found = predict_file(trained, folder / "videos" / Path(batch["ids"][0]).name, encoding, 20)
        assert found.frames == 80 and found.duration == pytest.approx(3.2, abs=1e-6) and found.labels == ()
        assert len(found.segments) == len(expected) > 3
        for segment, row in zip(found.segments, expected.tolist(), strict=True):
            assert [segment.begin, segment.end, segment.score] == pytest.approx(row[:3], abs=1e-4)
            assert segment.label == NAMES[int(row[3])]


def test_a_run_takes_class_scores_by_name_whatever_their_order_in_the_file(
    folder: Path, lone_rank: tuple[ProcessEnvironment, Device], tmp_path: Path
) -> None:
    validation = ShardSet(folder / "validation")
    videos = [validation.video(number).id for number in range(len(validation))]
    found = []
    for names in (NAMES, NAMES[::-1]):
        scores = {video: [(NAMES.index(name) + 1) / 10 for name in names] for video in videos}
        path = tmp_path / f"{names[0]}.json"
        path.write_text(json.dumps({"class": list(names), "results": scores}))
        values = config_values(folder)
        values["task"] = {**values["task"], "class_scores": str(path)}
        config = parse_config(values, "test")
        parts = build_run(config, check_run(config, 1), *lone_rank)
        assert parts.validation is not None
        with parts.train, parts.validation as loader:
            batch = next(iter(loader.evaluation(1)))
            answer = parts.method.evaluate(batch)
            assert answer is not None
            found.append(parts.task.detections(*answer)[0])  # type: ignore[attr-defined]
    assert len(found[0]) > 0
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("average", ["logits", "softmax"])
def test_predicted_labels_are_the_mean_over_the_views_of_an_evaluation(folder: Path, average: str) -> None:
    values = config_values(folder) | {
        "task": {"name": "classification", "num_classes": 4},
        "method": {"name": "end_to_end"},
        "model": {"name": "tsm_resnet18", "frames": 4, "options": {"width": 8}},
        "evaluation": {"clips": 2, "crops": 3, "average": average},
    }
    values["data"] = {**values["data"], "sampling": {"kind": "dense", "window": 16}}
    config = parse_config(values, "test")
    torch.manual_seed(0)
    model = create_model("tsm_resnet18", 4, 4, width=8).eval()
    model.fc.weight.data.normal_()
    task = create_task("classification", {"num_classes": 4})
    file = folder / "videos" / "validation_00001.mp4"
    with make_loader(config, _any_label(task), ShardSet(folder / "validation"), BatchShare(0, 1)) as loader:
        views = [batch for batch in loader.evaluation(6) if "00001" in batch["ids"][0]]
    with torch.no_grad():
        logits = model(normalise_clips(views[0]["clips"]))
    scores = logits.softmax(1).mean(0) if average == "softmax" else logits.mean(0).softmax(0)
    found = predict_file(TrainedModel(model, config, 0, False, tuple(NAMES)), file, Encoding(), 3)
    best = scores.argsort(descending=True)[:3].tolist()
    assert [label for label, _ in found.labels] == [NAMES[place] for place in best]
    assert [score for _, score in found.labels] == pytest.approx(scores[best].tolist(), rel=1e-4)


def _any_label(task: Any) -> Any:
    """The task, for videos that have no single label."""
    return type("AnyLabel", (), {"one_label": False, "targets": None, "future_frames": 0, "joins_views": False})()


def test_windows_cover_a_video_and_files_are_scored_in_the_same_ones(folder: Path) -> None:
    values = config_values(folder) | {"name": "windows"}
    values["task"] = {**values["task"], "span": "window"}
    values["data"] = {**values["data"], "sampling": {"kind": "snippets", "snippets": SNIPPETS, "snippet_window": 32}}
    values["evaluation"] = {"batch": 2, "window_overlap": 0.5}
    run = write_run(folder, values)
    told = [
        json.loads(run_hpcvideo("evaluate", run, "--detections", folder / f"{ranks}.json", "--json", ranks=ranks).stdout)
        for ranks in (1, 2)
    ]
    found = [json.loads((folder / f"{ranks}.json").read_text())["results"] for ranks in (1, 2)]
    assert told[0]["clips"] == told[1]["clips"] == 3
    assert "each of the windows of 32 frames that cover the video and share 50%" in told[0]["protocol"]
    trained = load_trained_model(run)
    seen = set()
    for video, one in found[0].items():
        for segment, other in zip(one, found[1][video], strict=True):
            assert [segment["score"], *segment["segment"]] == pytest.approx([other["score"], *other["segment"]], abs=1e-5)
        alone = predict_file(trained, folder / "videos" / f"{video}.mp4", stored_encoding(trained.config), len(one))
        assert len(one) == len(alone.segments) > 5
        for segment, same in zip(one, alone.segments, strict=True):
            expected = [same.score, same.begin, same.end]
            assert [segment["score"], *segment["segment"]] == pytest.approx(expected, abs=1e-4)
        seen |= {int((segment["segment"][0] + segment["segment"][1]) / 2 / 0.8) for segment in one}
    assert seen == {0, 1, 2, 3}, "something is found in every quarter of 80 frames, not only in the middle window"


def test_the_command_prints_segments_and_draws_a_timeline(folder: Path, tmp_path: Path) -> None:
    video = folder / "videos" / "validation_00000.mp4"
    picture = tmp_path / "timeline.svg"
    done = run_hpcvideo("predict", folder / "untrimmed", video, "--json", "--timeline", picture, "--top", "3")
    answer = json.loads(done.stdout)
    segments = answer["videos"][0]["segments"]
    assert answer["step"] == 7 and len(segments) == 3
    assert all(0 <= one["begin"] < one["end"] <= 3.2 for one in segments)
    assert [one["score"] for one in segments] == sorted((one["score"] for one in segments), reverse=True)
    drawn = picture.read_text()
    assert "validation_00000.mp4: 3 segments" in drawn and segments[0]["label"] in drawn
    least = str((segments[0]["score"] + segments[2]["score"]) / 2)
    sure = ("--top", "3", "--least", least)
    done = run_hpcvideo("predict", folder / "untrimmed", video, "--json", "--timeline", picture, *sure)
    kept = len(json.loads(done.stdout)["videos"][0]["segments"])
    assert 1 <= kept < 3 and f"validation_00000.mp4: {kept} segment" in picture.read_text()


def test_files_that_are_no_videos_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such video file"):
        look_through(tmp_path / "none.mp4", Encoding())
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video" * 100)
    with pytest.raises(OperationFailed, match="does not decode"):
        look_through(broken, Encoding())


def test_of_several_files_none_is_decoded_where_one_is_missing(folder: Path) -> None:
    broken = folder / "broken.mp4"
    broken.write_bytes(b"no video" * 100)
    refused = run_hpcvideo("predict", folder / "untrimmed", broken, folder / "none.mp4", check=False)
    assert refused.returncode == 2 and "none.mp4: there is no such video file" in refused.stderr


def test_fewer_frames_count_where_the_set_stores_fewer(folder: Path) -> None:
    file = look_through(folder / "videos" / "validation_00000.mp4", Encoding(store_fps=5.0))
    assert file.num_frames == 16 and file.file_frames == 80
    assert file.seconds.tolist() == pytest.approx([step / 5 for step in range(16)], abs=1e-6)


def test_extracted_features_are_the_encoders_of_the_clips_of_an_evaluation(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "features.h5"
    done = run_hpcvideo("features", "extract", folder / "untrimmed", folder / "validation", "--out", out, "--json")
    assert json.loads(done.stdout)["videos"] == 3
    trained = load_trained_model(folder / "untrimmed")
    task = create_task("detection", {"num_classes": 4, "bins": SNIPPETS})
    with h5py.File(out) as file:
        assert file.attrs["format"] == "hpcvideo features" and file.attrs["channels"] == 64
        for batch in batches(trained.config, task, folder / "validation"):
            with torch.no_grad():
                clips = normalise_clips(batch["clips"]).unflatten(1, (SNIPPETS, -1))[0]
                expected = trained.model.encode(clips)  # type: ignore[operator]
            video = batch["ids"][0]
            torch.testing.assert_close(torch.from_numpy(file["features"][video][:]), expected, rtol=1e-4, atol=1e-4)
            middles = (batch["frame_numbers"].view(SNIPPETS, -1).double().mean(1) / 25).tolist()
            assert file["seconds"][video][:].tolist() == pytest.approx(middles, abs=1e-5)
    windows = tmp_path / "windows.h5"
    run_hpcvideo("features", "extract", folder / "untrimmed", folder / "validation", "--out", windows, "--every", "10")
    with h5py.File(windows) as file:
        assert [dataset.shape for dataset in file["features"].values()] == [(8, 64)] * 3  # starts 0, 10, .. 70 of 80 frames


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        ({"kind": "snippets", "snippets": 128}, (None, 128)),
        ({"kind": "snippets", "snippets": 128, "snippet_window": 512}, (4, None)),
        ({"kind": "segments"}, (None, None)),
    ],
)
def test_features_of_a_run_lie_as_its_snippets_do(sampling: dict[str, Any], expected: tuple[int | None, int | None]) -> None:
    assert own_layout(SamplingConfig.model_validate(sampling)) == expected


def test_a_file_of_features_is_known_by_what_is_in_it(tmp_path: Path) -> None:
    seconds = np.zeros(2)

    def identity(name: str, value: float, videos: tuple[str, ...] = ("a/b.mp4", "c.mp4")) -> str:
        with written_features(tmp_path / name, {"model": "any"}) as writer:
            for video in videos:
                writer.add(video, np.full((2, 3), value, np.float32), seconds, 1.0, 25.0)
        return FeatureFile(tmp_path / name).identity()

    known = identity("one.h5", 1.0)
    assert identity("other.h5", 1.0) == known
    assert len({known, identity("one.h5", 2.0), identity("one.h5", 1.0, ("a/b.mp4", "d.mp4", "e.mp4"))}) == 3


@pytest.mark.parametrize(("count", "bins"), [(5, 5), (7, 3), (3, 8), (1, 4), (100, 32)])
def test_features_are_brought_to_a_number_of_bins_by_the_mean_of_the_line_through_them(count: int, bins: int) -> None:
    features = np.random.default_rng(count).normal(size=(count, 2)).astype(np.float32)
    fine = (np.arange(40_000 * bins) + 0.5) / (40_000 * bins) * count
    lines = np.stack([np.interp(fine, np.arange(count) + 0.5, channel) for channel in features.T], axis=1)
    brute = lines.reshape(bins, -1, 2).mean(axis=1)
    if count == bins:
        brute = features
    np.testing.assert_allclose(resized(features, bins), brute, atol=2e-5)
    at = 0.3 * count + (np.arange(40_000 * bins) + 0.5) / (40_000 * bins) * 0.4 * count  # from 0.3 to 0.7 of the video
    lines = np.stack([np.interp(at, np.arange(count) + 0.5, channel) for channel in features.T], axis=1)
    np.testing.assert_allclose(resized(features, bins, 0.3, 0.7), lines.reshape(bins, -1, 2).mean(axis=1), atol=2e-5)


def test_a_detector_trains_on_frames_by_sampled_gradients(folder: Path, tmp_path: Path) -> None:
    values = config_values(folder)
    (tmp_path / "frames.yaml").write_text(yaml.safe_dump(values))
    run_hpcvideo("train", tmp_path / "frames.yaml", "--run", tmp_path / "frames", ranks=2)
    events = list(read_events(tmp_path / "frames" / "events.jsonl"))
    scored = next(event for event in events if event["event"] == "evaluation")
    assert 0 <= scored["metrics"]["average_map"] <= 1 and scored["clips"] == 3
    started = next(event for event in events if event["event"] == "start")
    assert started["sampled_snippets"] == 4


@pytest.mark.faults
def test_a_detector_trains_on_features(folder: Path, tmp_path: Path) -> None:
    values, features = config_values(folder), tmp_path / "features.h5"
    sets = folder / "training", folder / "validation"
    run_hpcvideo("features", "extract", folder / "untrimmed", *sets, "--out", features)
    values["name"], values["method"] = "features", {"name": "end_to_end"}
    values["model"] = {"name": "etad_features", "frames": SNIPPETS, "options": {"channels": 64}}
    # flip: features are not mirrored, so that labels such as east are no reason to refuse it.
    values["data"] = {**values["data"], "features": str(features), "sampling": {}, "flip": True}
    values["recipe"] = {**values["recipe"], "encoder_lr_scale": 1.0}
    (tmp_path / "features.yaml").write_text(yaml.safe_dump(values))
    run_hpcvideo("train", tmp_path / "features.yaml", "--run", tmp_path / "on_features")
    again = [event for event in read_events(tmp_path / "on_features" / "events.jsonl") if event["event"] == "evaluation"]
    assert again and again[-1]["clips"] == 3
    refused = run_hpcvideo("predict", tmp_path / "on_features", folder / "videos" / "validation_00000.mp4", check=False)
    assert refused.returncode == 2 and "reads ready features, not frames" in refused.stderr
    refused = run_hpcvideo("features", "extract", tmp_path / "on_features", *sets, "--out", tmp_path / "no.h5", check=False)
    assert refused.returncode == 2 and "has no encoder" in refused.stderr
    wider = tmp_path / "wider.yaml"
    wider.write_text(yaml.safe_dump(values | {"model": values["model"] | {"options": {"channels": 65}}}))
    refused = run_hpcvideo("train", wider, "--run", tmp_path / "wider", check=False)
    assert refused.returncode == 2 and "64 channels, but model.options.channels = 65" in refused.stderr
    copy = tmp_path / "copy.h5"
    copy.write_bytes(features.read_bytes())
    command = ("train", tmp_path / "features.yaml", "--run", tmp_path / "on_features", "--set")
    events = tmp_path / "on_features" / "events.jsonl"
    events.unlink()  # so that the run does not know that it is finished, and resumes
    run_hpcvideo(*command, f"data.features={copy}")
    events.unlink()
    with h5py.File(copy, "r+") as file:
        file["features/training_00000.mp4"][0, 0] += 1
    refused = run_hpcvideo(*command, f"data.features={copy}", check=False)
    assert refused.returncode == 2 and "was trained on other features" in refused.stderr
    values["name"], values["task"] = "windows_of_features", {**values["task"], "span": "window"}
    values["data"]["sampling"] = {"kind": "snippets", "snippets": SNIPPETS, "snippet_window": 32}
    (tmp_path / "windows.yaml").write_text(yaml.safe_dump(values))
    run_hpcvideo("train", tmp_path / "windows.yaml", "--run", tmp_path / "in_windows")
    again = [event for event in read_events(tmp_path / "in_windows" / "events.jsonl") if event["event"] == "evaluation"]
    assert again[-1]["clips"] == 3 and "windows of 32 frames" in again[-1]["protocol"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data": {"sampling": {"kind": "snippets", "snippets": 4}}}, "make them equal"),
        ({"data": {"sampling": {"kind": "segments"}}}, "data.sampling.snippets = None"),
        ({"task": {"bins": 16}}, "task.bins = 16"),
        ({"data": {"sampling": {"kind": "snippets", "snippets": 8, "snippet_window": 40}}}, "set task.span: window"),
        (
            {
                "data": {"sampling": {"kind": "snippets", "snippets": 8, "snippet_window": 40}}, "task": {"span": "window"},
                "evaluation": {"clips": 2},
            },
            "joined, not averaged",
        ),
        ({"data": {"features": "features.h5"}}, "reads frames"),
        ({"model": {"name": "tsm_resnet18", "options": {}}, "method": {"name": "end_to_end"}}, "reads one clip"),
        (
            {
                "model": {"name": "etad_features", "frames": 8, "options": {}}, "method": {"name": "end_to_end"},
                "data": {"sampling": {}},
            },
            "names no file",
        ),
    ],
)
def test_configs_whose_parts_disagree_are_refused(folder: Path, changes: dict[str, Any], says: str) -> None:
    values = config_values(folder)
    for section, change in changes.items():
        values[section] = {**values[section], **change} if section != "method" else change
    with pytest.raises(InputError, match=says):
        check_names(parse_config(values, "test"))


def test_the_file_of_a_runs_detections_scores_as_the_run_does(folder: Path) -> None:
    out = folder / "found.json"
    told = json.loads(run_hpcvideo("evaluate", folder / "untrimmed", "--detections", out, "--json").stdout)
    written = json.loads(out.read_text())["results"]
    assert sorted(written) == [f"validation_{number:05d}" for number in range(3)]
    truth = read_ground_truth(folder / "actions.json", "validation")
    found = read_results(out, truth)
    tious = tiou_thresholds("0.5:0.95:0.05")
    scores = score_detections(truth.instances, found.predictions, truth.label_names, tious)
    assert scores.average_map == pytest.approx(told["metrics"]["average_map"], abs=1e-6)
    assert scores.average_map > 0
    with pytest.raises(InputError, match=r"written as \.json"):
        ScoreFiles(None, None, None, detections=folder / "found.csv").check()


def test_a_dry_run_counts_the_passes_that_the_method_makes(folder: Path) -> None:
    def counted(**method: Any) -> Any:
        values = config_values(folder) | {"method": method}
        config = parse_config(values, "test")
        return plan_stages(config, split_over(config, 1), 1).stages[0]

    none, half, whole = (counted(name="sampled_gradients", ratio=ratio, chunk=2) for ratio in (0, 0.5, 1))
    plain = counted(name="end_to_end")
    assert 2 * half.flops == none.flops + whole.flops
    assert none.flops < plain.flops < whole.flops
    assert half.activation_bytes == whole.activation_bytes < plain.activation_bytes
    assert half.parameter_count == plain.parameter_count
