"""Ranks that train the small network on one global batch after another; each writes what it got to a file.

    python -m tests.methods.progressive.ranks FOLDER      worlds of 1, 2 and 3 ranks, forked one after another
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from hpcvideo.distributed.environment import discover
from hpcvideo.distributed.process_group import joined
from hpcvideo.methods.progressive.fragments import cut_clip
from hpcvideo.models.normalisation import normalise_clips
from tests.forked_ranks import fork_ranks, wait_for_success
from tests.methods.progressive.making import PLAIN, make_method, micro_batches, pieces, step
from tests.methods.progressive.tiny import tiny, videos

WORLDS = (1, 2, 3)
FRAMES, CLIPS, CUTS = 10, 6, cut_clip(10, 4, 1)
CASES: dict[str, dict[str, Any]] = {
    "video": {}, "across": {"across_seams": True}, "fragment": {"update": "fragment"},
}  # fmt: skip


def train(folder: Path) -> None:
    """One rank's part: for every case the weights after two global batches, and how often it exchanged gradients a step."""
    place = discover()
    told: dict[str, Any] = {}
    exchanges = [0]
    reduce = dist.all_reduce

    def counted(*arguments: Any, **options: Any) -> Any:
        exchanges[0] += 1
        return reduce(*arguments, **options)

    dist.all_reduce = counted
    with joined(place) as device:
        for name, options in CASES.items():
            net = tiny()
            method = make_method(
                (place, device), net, "progressive", {"fragment_frames": 4, **options}, batch=CLIPS, frames=FRAMES,
                recipe=PLAIN,
            )  # fmt: skip
            counts, number = [], 0
            for seed in range(2):
                share = list(micro_batches(videos(CLIPS, FRAMES, seed), place.world_size))[place.rank]
                fed = list(pieces(share, CUTS, ends=name == "fragment"))
                for batches in [[piece] for piece in fed] if name == "fragment" else [fed]:
                    exchanges[0] = 0
                    step(method, batches, number)
                    counts.append(exchanges[0])
                    number += 1
                if name == "video" and seed == 0:
                    told["gradient"] = {key: value.clone() for key, value in method.optimizer_state().items()}
            told[name] = {key: value.clone() for key, value in method.weights().items()}
            told[f"{name} exchanges"], told[f"{name} buckets"] = counts, method.facts()["gradient_buckets"]
        told["exchanged each"] = _exchanging_every_fragment(place.rank, place.world_size)
    torch.save(told, folder / f"{place.world_size}-{place.rank}")


def _exchanging_every_fragment(rank: int, ranks: int) -> dict[str, Tensor]:
    """The first gradient by a written-out loop that exchanges it after every fragment."""
    net = tiny()
    share = list(micro_batches(videos(CLIPS, FRAMES, 0), ranks))[rank]
    clips, state = normalise_clips(share["clips"]), net.first_state()
    names = dict(net.named_parameters())
    total = {name: torch.zeros_like(parameter) for name, parameter in names.items()}
    for first, end in CUTS:
        logits, state = net.fragment(clips[:, first:end], state.detach())
        loss = functional.cross_entropy(logits, share["labels"])
        for name, gradient in zip(names, torch.autograd.grad(loss, list(names.values())), strict=True):
            dist.all_reduce(gradient)
            total[name] += gradient / ranks
    return total


if __name__ == "__main__":
    os.environ.update(DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1")
    for world in WORLDS:
        wait_for_success(fork_ranks(world, lambda rank: train(Path(sys.argv[1]))), f"{world} ranks")
