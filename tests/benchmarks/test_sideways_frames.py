"""The future-frames claims come from real trainings of the same network with and without the skip, on other videos."""

from __future__ import annotations

import dataclasses

import pytest
import sideways_frames
import torch
from frame_training import HELD_OUT_SEED, TRAIN_SEED


def test_plain_and_skipping_runs_differ_in_the_skip_alone() -> None:
    course = sideways_frames.course(10)
    plain, skipping = (course.config(*kind, 1).resolved() for kind in (sideways_frames.PLAIN, sideways_frames.SKIPPING))
    assert plain["model"]["options"].pop("skips") == "none"
    assert skipping["model"]["options"].pop("skips") == ["frames to head by concat"]
    assert plain.pop("method") == {"name": "sideways"} and skipping.pop("method") == {"name": "skip_sideways"}
    assert plain == skipping


def test_held_out_videos_are_others_and_the_disc_alone_moves() -> None:
    course = dataclasses.replace(sideways_frames.course(10), size=32)
    clips, others = course.clips(2, TRAIN_SEED), course.clips(2, HELD_OUT_SEED)
    assert clips.shape == (2, course.frames + course.horizon, 3, 32, 32) and clips.dtype == torch.uint8
    assert not torch.equal(clips, others) and torch.equal(course.clips(1, TRAIN_SEED), clips[:1])
    still = (clips[:, 1:] == clips[:, :-1]).all(dim=2).float().mean(dim=(1, 2, 3))
    assert ((still > 0.3) & (still < 0.95)).all()


@pytest.mark.faults
def test_every_training_is_scored_and_the_worst_seed_is_the_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sideways_frames.course

    def tiny(updates: int) -> sideways_frames.Course:
        return dataclasses.replace(whole(2), videos=8, held_out=4)

    monkeypatch.setattr(sideways_frames, "course", tiny)
    monkeypatch.setattr(sideways_frames, "_SEEDS", (1, 2))
    told: list[str] = []
    claims = sideways_frames.claims(False, told.append)
    assert [claim.name for claim in claims] == ["frame_mse_skip_over_plain", "frame_mse_plain_over_copy"]
    assert [claim.bound for claim in claims] == ["<= 0.95", "<= 1"]
    mse = claims[0].details["mse"]
    assert {method: len(found) for method, found in mse.items()} == {
        "sideways": 2, "skip_sideways": 2, "bp": 1, "unrolled": 1, "delayed": 1,
    }  # fmt: skip
    assert claims[0].value == max(skip / plain for skip, plain in zip(mse["skip_sideways"], mse["sideways"], strict=True))
    assert claims[1].value == max(
        plain / copy for plain, copy in zip(mse["sideways"], claims[1].details["copy_mse"]["sideways"], strict=True)
    )
    assert len(told) == 8
