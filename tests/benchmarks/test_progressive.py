"""benchmarks/progressive.py: its videos give nothing away, and its trainings are scored and compared as it says."""

from __future__ import annotations

from typing import Any

import event_order
import motion_lengths
import pytest
import torch
from event_order import FRAGMENT, FRAGMENTS, FRAMES, accuracies, event_videos, order_claims, train
from order_network import OrderNetwork
from training_steps import Rank
from unit_clips import Clips, directions

from hpcvideo.config import RunConfig
from hpcvideo.distributed.device import Device
from hpcvideo.distributed.environment import ProcessEnvironment
from hpcvideo.methods import Method
from hpcvideo.models.normalisation import normalise_clips
from hpcvideo.tasks import Task


def striped(clips: torch.Tensor) -> torch.Tensor:
    """How many frames of each fragment are not blocks of 4 x 4 equal pixels, int64 [videos, fragments]."""
    pixels = clips.permute(0, 1, 3, 4, 2)
    blocks = pixels[:, :, ::4, ::4].repeat_interleave(4, 2).repeat_interleave(4, 3)
    return (pixels != blocks).flatten(2).any(2).unflatten(1, (FRAGMENTS, FRAGMENT)).sum(2)


def test_two_fragments_show_an_event_and_at_least_one_lies_between_them() -> None:
    batch = event_videos(200, 7)
    assert batch["clips"].shape[1] == FRAMES and batch["labels"].bincount().tolist() == [100, 100]
    shown = striped(batch["clips"])
    assert set(shown.flatten().tolist()) == {0, 2}, "an event is two frames long and inside of one fragment"
    places = [row.nonzero().flatten().tolist() for row in shown]
    assert all(len(pair) == 2 and pair[1] - pair[0] >= 2 for pair in places)
    seen: tuple[set[tuple[int, ...]], ...] = (set(), set())
    for pair, label in zip(places, batch["labels"].tolist(), strict=True):
        seen[label].add(tuple(pair))
    assert seen[0] == seen[1] and len(seen[0]) == 6, "where events lie does not tell the class"


def test_the_order_task_trains_with_and_without_state(
    lone_rank: tuple[ProcessEnvironment, Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    rank = Rank(*lone_rank)
    for carry in (True, False):
        found = accuracies(train(rank, 0, carry, 2, lambda text: None), carry, 100, 0)
        assert set(found) == {"last", "max", "mean"} and all(0 <= value <= 1 for value in found.values())
    told: list[bool] = []
    monkeypatch.setattr(event_order, "train", lambda rank, seed, carry, steps, tell: told.append(carry))
    monkeypatch.setattr(event_order, "accuracies", lambda net, carry, videos, seed: {"last": 0.4 + 0.5 * carry, "max": 0.5})
    claims = {claim.name: claim for claim in order_claims(rank, False, lambda text: None)}
    assert told == [True, False] * 3
    assert claims["order_accuracy"].value == pytest.approx(0.9) and claims["order_accuracy"].bound == ">= 0.90"
    assert claims["order_stateless_minus_chance"].value == pytest.approx(0.1)
    assert claims["order_stateless_minus_chance"].bound == "<= 0.10"


def test_clips_are_runs_of_frames_from_keyed_places_of_their_videos() -> None:
    long, short = motion_lengths.FRAMES, motion_lengths.FRAGMENT
    marks = torch.arange(40)[:, None] * 4 + torch.zeros(1, long, dtype=torch.int64)
    numbered = torch.stack([marks, torch.arange(long).expand(40, long), 0 * marks], 2).byte()[..., None, None]
    videos = Clips(numbered, torch.arange(40) % 8, 8)
    rows = torch.arange(39, -1, -1)
    first, again, *others = (motion_lengths.clip_batch(videos, rows, 5, step)["clips"] for step in (0, 0, 1, 2, 3, 4, 5))
    assert first.shape[:3] == (40, short, 3) and torch.equal(first[:, 0, 0, 0, 0].long(), rows * 4)
    assert torch.equal(first, again) and not torch.equal(first, others[0])
    frames = torch.cat([first, *others])[:, :, 1, 0, 0].long()
    assert torch.equal(frames, frames[:, :1] + torch.arange(short))
    assert frames.min() == 0 and frames.max() == long - 1, "every place of a video may be taken"


def test_trainings_of_all_lengths_take_the_same_videos_from_the_same_weights(
    lone_rank: tuple[ProcessEnvironment, Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch = torch.cat([motion_lengths.batch_rows(0, step, 50) for step in range(3)])
    assert len(set(epoch.tolist())) == 48, "48 of 50 videos, each once"
    assert not torch.equal(epoch[:16], motion_lengths.batch_rows(0, 3, 50)), "the next epoch has another order"
    rank, videos = Rank(*lone_rank), directions(32, 1, motion_lengths.SIZE, motion_lengths.FRAMES)
    taken: list[torch.Tensor] = []
    first: list[dict[str, torch.Tensor]] = []
    ordered, build = motion_lengths.batch_rows, motion_lengths.build_method

    def rows_told(seed: int, step: int, count: int) -> torch.Tensor:
        taken.append(ordered(seed, step, count))
        return taken[-1]

    def build_told(config: RunConfig, task: Task, network: OrderNetwork, *rest: Any) -> Method:
        first.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return build(config, task, network, *rest)

    monkeypatch.setattr(motion_lengths, "batch_rows", rows_told)
    monkeypatch.setattr(motion_lengths, "build_method", build_told)
    lengths: tuple[motion_lengths.Length, ...] = ("long", "clip", "clips")
    trained = [motion_lengths.train(rank, videos, length, 3, 2, lambda text: None).state_dict() for length in lengths]
    assert all(torch.equal(begin[name], first[0][name]) for begin in first for name in begin)
    assert len(taken) == 6 and all(torch.equal(one, other) for one, other in zip(taken, taken[:2] * 3, strict=True))
    moved = [float((after["fc.weight"] - first[0]["fc.weight"]).abs().max()) for after in trained]
    assert all(0 < one < 0.001 for one in moved), "two updates of AdamW at the rates of the warm-up"
    forwards = [int(after["bn1.num_batches_tracked"]) for after in trained]
    assert forwards == [2 * motion_lengths.FRAGMENTS, 2, 2 * motion_lengths.FRAGMENTS], "a fragment each"


def test_videos_are_scored_whole_by_the_mean_and_by_the_last_fragment() -> None:
    torch.manual_seed(0)
    videos = directions(40, 4, motion_lengths.SIZE, motion_lengths.FRAMES)
    network = OrderNetwork(8, motion_lengths.FRAMES, "last", "avg").eval()
    torch.nn.init.normal_(network.fc.weight, std=30.0)
    clips = normalise_clips(videos.pixels)
    found = {}
    with torch.no_grad():
        network.fc.bias.sub_(network(clips).mean(0))  # an untrained network gives every video the same answer
        pieces = clips.split(motion_lengths.FRAGMENT, 1)
        for carry in (False, True):
            outputs, state = [], network.first_state()
            for piece in pieces:
                answer, state = network.fragment(piece, state)
                outputs.append(answer if carry else network(piece))
            mean = torch.stack(outputs).softmax(2).mean(0)
            found[carry] = {"whole": network(clips), "mean": mean, "last": outputs[-1]}
    for carry, kinds in found.items():
        for kind, answer in kinds.items():
            labelled = Clips(videos.pixels, answer.argmax(1), 8)
            assert len(labelled.labels.unique()) > 1
            scores = motion_lengths.accuracies(network, labelled, carry)
            assert scores[kind] == 1 and set(scores) == set(kinds)
    for kind in ("mean", "last"):
        assert not torch.equal(found[True][kind].argmax(1), found[False][kind].argmax(1))
        crossed = Clips(videos.pixels, found[True][kind].argmax(1), 8)
        assert motion_lengths.accuracies(network, crossed, carry=False)[kind] < 1


def test_the_motion_claim_is_the_worst_seed_against_the_better_clip_training(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int]] = []

    def train_nothing(rank: object, videos: Clips, length: str, seed: int, steps: int, tell: object) -> tuple[str, int]:
        told.append((length, seed))
        return length, seed

    def score(network: tuple[str, int], videos: Clips, carry: bool) -> dict[str, float]:
        length, seed = network
        assert carry == (length == "long") and len(videos.labels) == 1000
        if carry:
            return {"whole": (0.97, 0.99, 0.96)[seed], "mean": 0.5, "last": 0.5}
        return {"whole": 0.1, "mean": {"clip": 0.95, "clips": (0.96, 0.96, 0.98)[seed]}[length], "last": 0.1}

    made: list[int] = []
    empty = torch.zeros(1, 1, 3, 1, 1, dtype=torch.uint8)

    def make(videos: int, seed: int, size: int, frames: int) -> Clips:
        made.append(seed)
        return Clips(empty, torch.arange(videos) % 8, 8)

    for name, stand_in in (("train", train_nothing), ("accuracies", score), ("directions", make)):
        monkeypatch.setattr(motion_lengths, name, stand_in)
    claim = motion_lengths.motion_claim(None, False, lambda text: None)  # type: ignore[arg-type]
    assert sorted(told) == [(length, seed) for length in ("clip", "clips", "long") for seed in range(3)]
    assert len(set(made)) == 2, "what is scored is not what was trained on"
    assert claim.value == pytest.approx(-0.02) and claim.bound == ">= -0.01" and not claim.holds
    assert claim.details["differences"]["clip"] == pytest.approx([0.02, 0.04, 0.01])
    assert claim.details["noise"] == pytest.approx((2 * 0.95 * 0.05 / 1000) ** 0.5)
