"""A video read as a stream: the scores of its fragments, in the memory of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from hpcvideo.data.synthetic import write_motion_videos
from hpcvideo.errors import InputError
from hpcvideo.methods.progressive.fragments import cut_clip
from hpcvideo.methods.progressive.stream import FragmentStream
from hpcvideo.models import create_model
from hpcvideo.models.normalisation import normalise_clips
from hpcvideo.shards.build import build_shards
from tests.conftest import run_hpcvideo
from tests.methods.progressive.tiny import seamed, tiny, videos


def test_a_stream_gives_the_scores_of_the_fragments_so_far() -> None:
    net, clips = tiny().eval(), videos(2, 12)["clips"]
    stream = FragmentStream(net, 4)
    found = [(at, scores) for at in range(12) if (scores := stream.feed(clips[:, at])) is not None]
    found.append((11, stream.finish()))  # type: ignore[arg-type]
    cuts = cut_clip(12, 4, 1)
    assert [at for at, _ in found] == [3, 6, 9, 11] and stream.frames == 12 and stream.finish() is None
    with torch.no_grad():
        logits = seamed(net, normalise_clips(clips), cuts)
    for number, (_, scores) in enumerate(found):
        mean = torch.stack(logits[: number + 1]).softmax(2).mean(0)
        torch.testing.assert_close(scores.exp(), mean, rtol=1e-4, atol=1e-6)


def test_a_model_trained_without_a_carried_state_reads_every_fragment_for_itself() -> None:
    net, clips = tiny().eval(), videos(2, 7)["clips"]
    stream = FragmentStream(net, 4, combination="last", carry_state=False)
    told = [stream.feed(clips[:, at]) for at in range(7)]
    with torch.no_grad():
        expected = net(normalise_clips(clips[:, 4:]))
        carried = seamed(net, normalise_clips(clips), cut_clip(7, 4, 1))[-1]
    torch.testing.assert_close(told[-1], expected, rtol=1e-5, atol=1e-6)
    assert (carried - expected).abs().max() > 1e-4


def test_in_exact_mode_the_end_of_a_stream_is_the_whole_clips_answer() -> None:
    torch.manual_seed(0)
    options = {"width": 8, "causal": True, "head_state": "running", "dropout": 0.0}
    net = create_model("progressive_slowonly_resnet26", 5, 11, **options).eval()
    with torch.no_grad():
        net.fc.weight.normal_()  # type: ignore[union-attr, operator]
    clips = videos(1, 11, size=32)["clips"]
    for length in (3, 5, 20):
        stream = FragmentStream(net, length, overlap=0, combination="last")
        told = [stream.feed(clips[:, at]) for at in range(11)]
        last = stream.finish()
        answer = last if last is not None else told[-1]
        torch.testing.assert_close(answer, net(normalise_clips(clips)), rtol=1e-4, atol=1e-4)


def test_what_cannot_stream_says_so() -> None:
    with pytest.raises(InputError, match=r"call model\.eval\(\) first"):
        FragmentStream(tiny(), 4)
    with pytest.raises(InputError, match="bring no new frame"):
        FragmentStream(tiny().eval(), 1)
    slowfast = create_model("progressive_slowfast_resnet26", 3, 16, width=16).eval()
    with pytest.raises(InputError, match="takes multiples of 4, of new frames too"):
        FragmentStream(slowfast, 8, overlap=1)
    with pytest.raises(InputError, match="begins with progressive_"):
        FragmentStream(create_model("tsm_resnet18", 3, 4, width=8).eval(), 4)


def test_predict_streams_a_video_file(tmp_path: Path, config_values: dict[str, Any]) -> None:
    write_motion_videos(tmp_path, 8, 1, size=32, frames=16)
    build_shards(tmp_path, tmp_path / "set", annotations=tmp_path / "videos.csv")
    values = {**config_values, "method": {"name": "progressive", "fragment_frames": 3, "evaluation": "mean"}}
    values["model"] = {"name": "progressive_slowonly_resnet26", "frames": 5, "options": {"width": 8}}
    values["task"] = {"name": "classification", "num_classes": 8}
    values["data"] |= {"train": str(tmp_path / "set"), "validation": None, "sampling": {"kind": "dense", "window": 10}}
    values["recipe"] = {**values["recipe"], "steps": 1, "warmup_epochs": 0.0}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(values))
    run_hpcvideo("train", tmp_path / "c.yaml", "--run", tmp_path / "run")
    video = sorted((tmp_path / "videos").iterdir())[0]
    told = json.loads(run_hpcvideo("predict", tmp_path / "run", video, "--stream", "--top", "2", "--json").stdout)
    running = told["videos"][0]["running"]
    assert [one["frames"] for one in running] == [3, 5, 7, 8], "every second of 16 frames: 3, then 2 new ones, then the rest"
    assert [len(one["labels"]) for one in running] == [2] * 4
    assert running[-1]["seconds"] == pytest.approx(14 / 25, abs=0.01)
