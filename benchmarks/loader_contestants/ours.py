"""hpcvideo's ClipLoader: as a contestant, or over whole epochs for its memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import torch
from serve import config, serve, timed

from hpcvideo.data import ClipLoader, ClipView
from hpcvideo.shards import ShardSet


def make_loader(facts: dict[str, Any], shards: ShardSet) -> ClipLoader:
    """The loader with TSM's training view: 8 frames of 224 x 224, multi-scale crop, flip."""
    view = ClipView(frames=8, size=224)
    return ClipLoader(shards, view, workers=facts["workers"], prefetch=2, worker_kind=facts["kind"])


def endless(loader: ClipLoader, batch: int) -> Iterator[int]:
    """Clips of each batch, in training order, over as many epochs as it takes."""
    for made in loader.training(batch, 0, 1 << 40):
        yield len(made["clips"])


def main() -> None:
    facts = config()
    torch.set_num_threads(1)
    shards = ShardSet(facts["set"])
    with make_loader(facts, shards) as loader:
        if "epochs" not in facts:
            serve(timed(endless(loader, facts["batch"]), ahead=3))
            return
        steps = len(shards) * facts["epochs"] // facts["batch"]
        clips = sum(len(made["clips"]) for made in loader.training(facts["batch"], 0, steps))
    print(json.dumps({"clips": clips}))


if __name__ == "__main__":
    main()
