"""The ordinary motion set, whose classes a few frames tell: training on long videos against training on short clips.

The pictures are those of hpcvideo.data.synthetic's videos, uncoded. One network, twice from the same first weights, through
the same videos in the same order, with as many updates, the same optimizer and rate: by method `progressive` on whole videos
in fragments with carried state, and by `end_to_end` on clips as long as one fragment, each from a keyed random place of its
video, or as many of them as a video has fragments, so that both see as many frames.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from order_network import OrderNetwork
from report import Claim
from torch import Tensor
from training_steps import Rank
from unit_clips import Clips, directions

from hpcvideo.config import RunConfig
from hpcvideo.distributed.keyed_random import KeyedStream, combine
from hpcvideo.methods import BatchSplit
from hpcvideo.methods.progressive.scores import FragmentScores
from hpcvideo.models.normalisation import normalise_clips
from hpcvideo.runs.phases import PhaseClock
from hpcvideo.training.build import build_method
from hpcvideo.training.task import make_task

FRAGMENT, FRAGMENTS, SIZE = 4, 6, 24
FRAMES = FRAGMENT * FRAGMENTS
Length = Literal["long", "clip", "clips"]
"""What a training takes of each video: all its fragments, one clip as long as a fragment, or FRAGMENTS of these."""

_TRAIN, _TEST, _CUT = 1, 2, 3
_BATCH, _STEPS, _RATE, _WARM = 16, 300, 4e-3, 30


def batch_rows(seed: int, step: int, videos: int) -> Tensor:
    """Which training videos a step takes, int64 [16]: an epoch is one permutation, and what is left over falls out."""
    steps = videos // _BATCH
    order = torch.randperm(videos, generator=torch.Generator().manual_seed(combine(seed, step // steps)))
    return order[step % steps * _BATCH :][:_BATCH]


def clip_batch(videos: Clips, rows: Tensor, *key: int) -> dict[str, Any]:
    """A clip of FRAGMENT frames of each of these videos, cut at a place that `key` and the video decide."""
    places = [KeyedStream(_CUT, *key, row).integer(FRAMES - FRAGMENT + 1) for row in rows.tolist()]
    cuts = [videos.pixels[row, place : place + FRAGMENT] for row, place in zip(rows.tolist(), places, strict=True)]
    return videos.batch(rows) | {"clips": torch.stack(cuts)}


def train(rank: Rank, videos: Clips, length: Length, seed: int, steps: int, tell: Callable[[str], None]) -> OrderNetwork:
    """The network after training. The seed decides first weights, the order of videos and the places of clips."""
    progressive = {"name": "progressive", "fragment_frames": FRAGMENT, "overlap": 0}
    cuts = FRAGMENTS if length == "clips" else 1
    config = RunConfig.model_validate(
        {
            "name": "motion",
            "seed": seed,
            "task": {"name": "classification", "num_classes": videos.classes},
            "method": progressive if length == "long" else {"name": "end_to_end"},
            "model": {"name": "order_network", "frames": FRAMES if length == "long" else FRAGMENT},
            "data": {"train": "no-set-is-read", "size": SIZE, "short_side": SIZE},
            "recipe": {"global_batch": cuts * _BATCH, "steps": steps, "optimizer": {"name": "adamw"}},
        }
    )
    torch.manual_seed(seed)
    network = OrderNetwork(videos.classes, FRAMES, "last", "avg")
    split = BatchSplit(cuts * _BATCH, _BATCH, cuts, 1)
    method = build_method(config, make_task(config), network, split, rank.place, rank.device)
    losses = []
    for step in range(steps):
        rows = batch_rows(seed, step, len(videos.labels))
        if length == "long":
            micro_batches = [videos.batch(rows)]
        else:
            micro_batches = [clip_batch(videos, rows, seed, step, cut) for cut in range(cuts)]
        method.set_learning_rate(_RATE * min(1.0, (step + 1) / _WARM, 2 * (1 - step / steps)))
        losses.append(method.step(iter(micro_batches), step, PhaseClock()).loss)
        if step % 100 == 99:
            tell(f"motion, seed {seed}, {length}, step {step + 1}: {sum(losses[-50:]) / 50:.3f}")
    return network


@torch.no_grad()
def accuracies(network: OrderNetwork, videos: Clips, carry: bool) -> dict[str, float]:
    """The share of videos told rightly: in one forward (`whole`), and by combination of the fragments' answers."""
    right = dict.fromkeys(("whole", "mean", "last"), 0)
    network.eval()
    for rows in torch.arange(len(videos.labels)).split(100):
        clips, labels = normalise_clips(videos.pixels[rows]), videos.labels[rows]
        mean, state = FragmentScores("mean", one_label=True), network.first_state()
        for piece in clips.split(FRAGMENT, 1):
            last, state = network.fragment(piece, state if carry else network.first_state())
            answer = mean.add(last)
        for kind, outputs in (("whole", network(clips)), ("mean", answer), ("last", last)):
            right[kind] += int((outputs.argmax(1) == labels).sum())
    return {kind: count / len(videos.labels) for kind, count in right.items()}


def motion_claim(rank: Rank, quick: bool, tell: Callable[[str], None]) -> Claim:
    """Accuracy of long-video training minus that of clip training; the worst of three seeds and of both clip trainings."""
    seeds, steps, videos, others = ((0,), 60, 512, 200) if quick else ((0, 1, 2), _STEPS, 2048, 1000)
    training, held_out = directions(videos, _TRAIN, SIZE, FRAMES), directions(others, _TEST, SIZE, FRAMES)
    found: dict[Length, list[dict[str, float]]] = {"clip": [], "long": [], "clips": []}
    for seed in seeds:
        for length, scores in found.items():
            scores.append(accuracies(train(rank, training, length, seed, steps, tell), held_out, carry=length == "long"))
            tell(f"motion, seed {seed}, {length}: {scores[-1]}")
    differences = {
        peer: [one["whole"] - other["mean"] for one, other in zip(found["long"], found[peer], strict=True)]
        for peer in ("clip", "clips")
    }
    lowest = min(one["mean"] for peer in ("clip", "clips") for one in found[peer])
    noise = (2 * lowest * (1 - lowest) / others) ** 0.5
    how = (
        f"directions of motion, 8 classes, {videos} videos of {FRAMES} frames of {SIZE} pixels. Three residual 3x3x3 "
        f"convolutions that carry their last frame, average over time, from the same first weights {steps} updates of the "
        f"same {_BATCH} videos by AdamW at most {_RATE}, which warms up and falls to 0; method progressive in {FRAGMENTS} "
        f"fragments of {FRAGMENT} frames, scored whole (its default), against end_to_end on a clip of {FRAGMENT} frames of "
        f"each video (`clip`: a {FRAGMENTS}th of the frames) and on {FRAGMENTS} (`clips`: as many frames, accumulated), "
        f"scored by the mean over the clips of a whole video. {others} other videos; worst of {len(seeds)} seeds and both "
        f"clip trainings. Noise: one standard deviation of a difference of independent samples is {100 * noise:.1f} points"
    )
    return Claim(
        "motion_long_minus_clip", min(min(values) for values in differences.values()), "", ">= -0.01",
        "clip training, the same network", how, {"accuracies": found, "differences": differences, "noise": noise},
    )  # fmt: skip
