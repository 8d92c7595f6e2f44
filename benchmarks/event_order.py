"""Videos whose class is the order of two events farther apart than a fragment, and training on them fragment by fragment.

Two of the fragments show an event each, a patch of vertical or of horizontal stripes on noise; the class says which comes
first. Both places are drawn without regard to the class, all fragments are equally long, and an event lies inside one
fragment: swapping the two events turns one class into the other, so a fragment on its own, and the set of all of them
without their order, have the same distribution in both classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from order_network import OrderNetwork
from report import Claim
from torch import nn
from training_steps import Rank

from hpcvideo.config import RunConfig
from hpcvideo.distributed.keyed_random import combine
from hpcvideo.methods import BatchSplit
from hpcvideo.methods.progressive.scores import FragmentScores
from hpcvideo.models.normalisation import normalise_clips
from hpcvideo.runs.phases import PhaseClock
from hpcvideo.training.build import build_method
from hpcvideo.training.task import make_task

FRAGMENT, FRAGMENTS, SIZE = 4, 5, 16
FRAMES = FRAGMENT * FRAGMENTS
_EVENT_FRAMES, _PATCH, _APART = 2, 8, 2
_TRAIN, _TEST = 1, 2


def event_videos(count: int, *key: int) -> dict[str, Any]:
    """A batch as the loader lays it out; what it holds depends on `key` alone."""
    generator = torch.Generator().manual_seed(combine(*key))
    labels = torch.arange(count) % 2
    noise = torch.randint(64, 192, (count, FRAMES, SIZE // 4, SIZE // 4, 3), generator=generator).float()
    frames = noise.repeat_interleave(4, 2).repeat_interleave(4, 3)
    pairs = [(first, second) for first in range(FRAGMENTS) for second in range(first + _APART, FRAGMENTS)]
    stripes = torch.where(torch.arange(_PATCH) // 2 % 2 == 0, 110.0, -110.0)
    patches = (stripes[:, None].expand(_PATCH, _PATCH), stripes[None].expand(_PATCH, _PATCH))

    def draw(bound: int) -> int:
        return int(torch.randint(0, bound, (), generator=generator))

    for video in range(count):
        for turn, fragment in enumerate(pairs[draw(len(pairs))]):
            begin = FRAGMENT * fragment + draw(FRAGMENT - _EVENT_FRAMES + 1)
            row, column = draw(SIZE - _PATCH + 1), draw(SIZE - _PATCH + 1)
            patch = patches[turn ^ int(labels[video])]
            area = frames[video, begin : begin + _EVENT_FRAMES, row : row + _PATCH, column : column + _PATCH]
            area += patch[..., None]
    pixels = frames.clamp(0, 255).byte()
    return {"clips": pixels.permute(0, 1, 4, 2, 3), "labels": labels, "weights": torch.ones(count)}


_BATCH, _STEPS, _RATE = 16, 400, 4e-3


def train(rank: Rank, seed: int, carry: bool, steps: int, tell: Callable[[str], None]) -> nn.Module:
    """The network after training; carry: whether fragments get the state of those before them."""
    config = RunConfig.model_validate(
        {
            "name": "order",
            "seed": seed,
            "task": {"name": "classification", "num_classes": 2},
            "method": {"name": "progressive", "fragment_frames": FRAGMENT, "overlap": 0, "carry_state": carry},
            "model": {"name": "order_network", "frames": FRAMES},
            "data": {"train": "no-set-is-read", "size": SIZE, "short_side": SIZE},
            "recipe": {"global_batch": _BATCH, "steps": steps, "optimizer": {"name": "adamw"}},
        }
    )
    torch.manual_seed(seed)
    network = OrderNetwork(2, FRAMES, "max", norm="group")
    method = build_method(config, make_task(config), network, BatchSplit(_BATCH, _BATCH, 1, 1), rank.place, rank.device)
    losses = []
    for step in range(steps):
        method.set_learning_rate(_RATE * min(1.0, (step + 1) / 30, 2 * (1 - step / steps)))
        losses.append(method.step(iter([event_videos(_BATCH, _TRAIN, seed, step)]), step, PhaseClock()).loss)
        if step % 100 == 99:
            tell(f"order, seed {seed}, {'carried' if carry else 'no'} state, step {step + 1}: {sum(losses[-20:]) / 20:.3f}")
    return network


def accuracies(network: Any, carry: bool, videos: int, seed: int) -> dict[str, float]:
    """On videos that training never saw, by combination of the fragments' answers."""
    right = dict.fromkeys(("last", "max", "mean"), 0)
    network.eval()
    for part in range(videos // 100):
        batch = event_videos(100, _TEST, seed, part)
        scores = {kind: FragmentScores(kind, one_label=True) for kind in right}  # type: ignore[arg-type]
        state = network.first_state()
        with torch.no_grad():
            for first in range(0, FRAMES, FRAGMENT):
                clips = normalise_clips(batch["clips"][:, first : first + FRAGMENT])
                outputs, state = network.fragment(clips, state if carry else network.first_state())
                found = {kind: score.add(outputs) for kind, score in scores.items()}
        for kind, answer in found.items():
            right[kind] += int((answer.argmax(1) == batch["labels"]).sum())
    return {kind: count / (videos // 100 * 100) for kind, count in right.items()}


def order_claims(rank: Rank, quick: bool, tell: Callable[[str], None]) -> list[Claim]:
    """Accuracy with carried state, and how far the same network without it is from chance; the worst of three seeds."""
    seeds, steps, videos = ((0,), 150, 200) if quick else ((0, 1, 2), _STEPS, 1000)
    found: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    for seed in seeds:
        for carry in (True, False):
            found[carry].append(accuracies(train(rank, seed, carry, steps, tell), carry, videos, seed))
            tell(f"order, seed {seed}, {'carried' if carry else 'no'} state: {found[carry][-1]}")
    carried = min(one["last"] for one in found[True])
    without = max(abs(value - 0.5) for one in found[False] for value in one.values())
    how = (
        f"videos of {FRAGMENTS} fragments of {FRAGMENT} frames of {SIZE} pixels; two fragments, with at least one between "
        f"them, show an event each; the class is their order. Three residual 3x3x3 convolutions with GroupNorm that carry "
        f"a running maximum, detached seams, {steps} updates of {_BATCH} videos; {videos} other videos; worst of "
        f"{len(seeds)} seeds. "
    )
    details = {"carried": found[True], "without": found[False]}
    return [
        Claim("order_accuracy", carried, "", ">= 0.90", "chance 0.5", how + "Scored is the last fragment", details),
        Claim(
            "order_stateless_minus_chance", without, "", "<= 0.10", "the same network, memory and training, no state",
            how + "Of last, maximum and mean over fragments the one farthest from 0.5", details,
        ),
    ]  # fmt: skip
