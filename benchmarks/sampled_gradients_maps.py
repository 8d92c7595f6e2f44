"""What ETAD's paper claims of accuracy, shown small: mAP over the share of snippets that the encoder learns from.

Untrimmed synthetic videos (see hpcvideo.data.synthetic_actions), a small TSM as encoder, the real method, task and detector.
The encoder comes from a classification of trimmed clips, which tells along which axis something moves but not which way.
Part of sampled_gradients.py; run alone, it is one training in a process of its own:

    python sampled_gradients_maps.py '{"seed": 0, "ratio": 0.3, ...}'      prints a JSON object
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import Claim
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from hpcvideo.config.schema import RecipeConfig
from hpcvideo.data.synthetic import DIRECTIONS, Motion, draw_texture, motion_frames
from hpcvideo.data.synthetic_actions import ACTIONS, FrameAction, untrimmed_clips
from hpcvideo.distributed.environment import discover
from hpcvideo.distributed.keyed_random import combine, hash_range
from hpcvideo.distributed.process_group import joined
from hpcvideo.methods import BatchSplit, Method, MethodParts, create_method
from hpcvideo.models import create_model
from hpcvideo.models.normalisation import normalise_clips
from hpcvideo.models.snippet_network import SnippetNetwork
from hpcvideo.runs.phases import PhaseClock
from hpcvideo.shards.reader import Video
from hpcvideo.shards.records import Action
from hpcvideo.tasks import create_task
from hpcvideo.tasks.detection.task import Detection
from hpcvideo.tasks.protocol import SeenFrames
from hpcvideo.training.optimizers import make_optimizer

SIZE, SNIPPETS, SNIPPET_FRAMES = 16, 32, 4
FRAMES = SNIPPETS * SNIPPET_FRAMES
_WIDTH = 8
_BATCH = 8
_DETECTOR = {"width": 64, "hidden": 64, "roi_bins": 8}
_TEST_SEED = 10_000


class Videos:
    """Untrimmed videos in memory as a loader would give them, with the entries that the task makes of them."""

    def __init__(self, count: int, seed: int, task: Detection) -> None:
        pixels, actions = untrimmed_clips(count, seed, size=SIZE, frames=FRAMES)
        self.pixels = torch.from_numpy(pixels)
        seconds = torch.arange(FRAMES, dtype=torch.float64).expand(count, -1)  # one frame a second
        videos = [_video(number, found) for number, found in enumerate(actions)]
        self._entries = dict(task.targets(videos, SeenFrames(seconds.long(), seconds)))

    def batch(self, rows: Tensor, epoch: int) -> dict[str, Any]:
        """These videos."""
        own = {name: entry[rows] for name, entry in self._entries.items()}
        return {
            **own, "clips": self.pixels[rows], "labels": torch.zeros_like(rows), "weights": torch.ones(len(rows)),
            "ids": [str(row) for row in rows.tolist()], "samples": rows, "epochs": torch.full_like(rows, epoch),
        }  # fmt: skip


def _video(number: int, found: list[FrameAction]) -> Video:
    actions = tuple(Action(one.label, float(one.begin), float(one.end)) for one in found)
    return Video(str(number), (), FRAMES, SIZE, SIZE, 1.0, float(FRAMES), actions)


def train(case: dict[str, Any]) -> dict[str, Any]:
    """One training by sampled gradients and its score on videos that it has not seen."""
    task = create_task("detection", {"num_classes": len(ACTIONS), "bins": SNIPPETS})
    assert isinstance(task, Detection)
    seen, unseen = Videos(case["videos"], case["seed"], task), Videos(case["test_videos"], _TEST_SEED, task)
    recipe = RecipeConfig.model_validate({
        "global_batch": _BATCH, "steps": case["steps"], "gradient_clip": 0, "dropout": 0.0,
        "optimizer": {"name": "adamw", "weight_decay": 1e-4}, "encoder_lr_scale": case["encoder_rate"] / case["rate"],
    })  # fmt: skip
    torch.manual_seed(case["seed"])
    model = create_model(
        "etad", len(ACTIONS), FRAMES, snippets=SNIPPETS, encoder="tsm_resnet18", encoder_options={"width": _WIDTH},
        frozen_stages=0, proposals=case["proposals"], **_DETECTOR,
    )  # fmt: skip
    assert isinstance(model, SnippetNetwork)
    model.encoder.network.load_state_dict(load_file(case["encoder"]))
    place = discover({})
    with joined(place) as device:
        parts = MethodParts(
            model=model, task=task, clip_shape=(FRAMES, 3, SIZE, SIZE),
            optimizer=lambda module: make_optimizer(module, recipe), split=BatchSplit(_BATCH, _BATCH, 1, 1),
            gradient_clip=0.0, seed=case["seed"], place=place, device=device,
        )  # fmt: skip
        method = create_method("sampled_gradients", {"ratio": case["ratio"], "chunk": 8 * _BATCH}, parts)
        begin = time.perf_counter()
        for step in range(case["steps"]):
            method.set_learning_rate(case["rate"] * (0.1 if step >= 0.8 * case["steps"] else 1.0))
            method.step(iter([seen.batch(*_drawn(step, case["videos"], case["seed"]))]), step, PhaseClock())
        seconds = time.perf_counter() - begin
        scores = _score(method, task, unseen)
    return {"average_map": scores["average_map"], "map_50": scores["map@0.5"], "loss": scores["loss"],
            "seconds_a_step": seconds / case["steps"], "sampled": method.facts()["sampled_snippets"]}  # fmt: skip


def _drawn(step: int, videos: int, seed: int) -> tuple[Tensor, int]:
    """(rows of the step's batch, its epoch): epochs are permutations one after another."""
    epoch, place = divmod(step * _BATCH, videos)
    order = np.argsort(hash_range(combine(seed, epoch), videos), kind="stable")
    return torch.from_numpy(order[place : place + _BATCH].copy()), epoch


def _score(method: Method, task: Detection, videos: Videos) -> dict[str, float]:
    rows, sums = [], torch.zeros(2, dtype=torch.float64)
    for part in torch.arange(len(videos.pixels)).split(_BATCH):
        answer = method.evaluate(videos.batch(part, -1))
        assert answer is not None
        rows.append(task.rows(*answer))
        sums += task.score(*answer)
    return task.metrics(sums, torch.cat(rows))


def pretrain(case: dict[str, Any]) -> dict[str, Any]:
    """The encoder's start: along which of four axes a disc moves, as plain classification, written to case["encoder"]."""
    torch.manual_seed(case["seed"])
    model = create_model("tsm_resnet18", 4, SNIPPET_FRAMES, width=_WIDTH, dropout=0.0)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    generator = np.random.default_rng([case["seed"], 77])
    hits = 0.0
    for step in range(case["steps"]):
        clips, labels = _axes(64, generator)
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / case["steps"])
        logits = model(normalise_clips(clips))
        optimizer.zero_grad()
        functional.cross_entropy(logits, labels).backward()
        optimizer.step()
        hits = 0.9 * hits + 0.1 * float((logits.argmax(1) == labels).double().mean())
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("fc.")}
    save_file(state, case["encoder"])
    return {"accuracy": hits}


def _axes(count: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Trimmed clips uint8 [count, frames, 3, size, size] of one motion each, and its axis: both ways along it are one class."""
    names, clips, labels = list(DIRECTIONS), [], []
    for _ in range(count):
        way = int(generator.integers(len(names)))
        row, column = (int(place) for place in generator.integers(0, SIZE, 2))
        step = DIRECTIONS[names[way]]
        motion = Motion((row, column), (2 * step[0], 2 * step[1]), float(generator.uniform(0.3, 0.4)) * SIZE, SIZE)
        textures = draw_texture(SIZE, generator), draw_texture(SIZE, generator)
        clips.append(motion_frames(motion, SNIPPET_FRAMES, *textures).transpose(0, 3, 1, 2))
        labels.append(way % 4)
    return torch.from_numpy(np.stack(clips)), torch.tensor(labels)


if __name__ == "__main__":
    wanted = json.loads(sys.argv[1])
    print(json.dumps((pretrain if wanted.get("pretrain") else train)(wanted)))
