"""benchmarks/progressive.py: its videos give nothing away, and its order task trains and is scored as it says."""

from __future__ import annotations

import event_order
import pytest
import torch
from event_order import FRAGMENT, FRAGMENTS, FRAMES, accuracies, event_videos, order_claims, train
from training_steps import Rank

from hpcvideo.distributed.device import Device
from hpcvideo.distributed.environment import ProcessEnvironment


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
