"""Trainings that predict future frames, by the project's own methods, on clips in memory.

    python benchmarks/frame_training.py PLAN.json ANSWER.json

The plan says what is trained (`Course`) and how often; the answer has the scores of each on held-out clips. A process of its
own, since engines of several trainings share its process group.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from training_steps import Rank, method_of

from hpcvideo.config import RunConfig
from hpcvideo.data.synthetic import DIRECTIONS, Motion, draw_texture, motion_frames
from hpcvideo.distributed.environment import discover
from hpcvideo.distributed.process_group import joined
from hpcvideo.runs.phases import PhaseClock
from hpcvideo.training.recipe import learning_rate, plan_run
from hpcvideo.training.task import make_task

TRAIN_SEED, HELD_OUT_SEED = 1, 2
_RADIUS = 0.35
_SCORED_AT_ONCE = 32


@dataclass(frozen=True)
class Course:
    """What all trainings share: videos of a textured disc that goes `pixels_a_frame` over a still texture, clips of `frames`
    frames with `horizon` more behind them, and a recipe."""

    size: int
    pixels_a_frame: int
    frames: int
    horizon: int
    videos: int
    held_out: int
    model: Mapping[str, Any]
    recipe: Mapping[str, Any]

    def clips(self, videos: int, seed: int) -> Tensor:
        """uint8 [videos, frames + horizon, 3, size, size]; the disc goes one of eight ways, from anywhere."""
        ways, made = tuple(DIRECTIONS.values()), []
        for number in range(videos):
            generator = np.random.default_rng([seed, number])
            row, column = (int(place) for place in generator.integers(0, self.size, 2))
            way = ways[int(generator.integers(len(ways)))]
            step = (way[0] * self.pixels_a_frame, way[1] * self.pixels_a_frame)
            motion = Motion((row, column), step, _RADIUS * self.size, self.size)
            disc, ground = draw_texture(self.size, generator), draw_texture(self.size, generator)
            made.append(motion_frames(motion, self.frames + self.horizon, disc, ground))
        return torch.from_numpy(np.stack(made)).permute(0, 1, 4, 2, 3)

    def config(self, method: str, skips: Any, seed: int) -> RunConfig:
        """The config that `hpcvideo train` would take, but for the data."""
        return RunConfig.model_validate(
            {
                "name": "frames",
                "seed": seed,
                "task": {"name": "frame_prediction", "horizon": self.horizon},
                "method": {"name": method},
                "model": {"name": "unit_predictor", "frames": self.frames, "options": {**self.model, "skips": skips}},
                "data": {
                    "train": "no-set-is-read", "size": self.size, "short_side": self.size,
                    "sampling": {"kind": "dense", "window": self.frames + self.horizon},
                },
                "recipe": dict(self.recipe),
            }
        )  # fmt: skip


def train(config: RunConfig, clips: Tensor, held_out: Tensor, rank: Rank) -> dict[str, Any]:
    """One training; its metrics on all held-out clips, losses in tenths of the training, seconds. The seed alone decides the
    order of clips and the first weights."""
    plan = plan_run(config.recipe, len(clips), 1)
    method = method_of(config, plan.split, rank)
    order = torch.Generator().manual_seed(config.seed)
    rows, losses = torch.empty(0, dtype=torch.int64), []
    begin = time.perf_counter()
    for step in range(plan.total_steps):
        if len(rows) < config.recipe.global_batch:
            rows = torch.cat([rows, torch.randperm(len(clips), generator=order)])
        batch, rows = _batch(clips[rows[: config.recipe.global_batch]]), rows[config.recipe.global_batch :]
        method.set_learning_rate(learning_rate(config.recipe, plan, step))
        losses.append(method.step(iter([batch]), step, PhaseClock()).loss)
    seconds = time.perf_counter() - begin
    task, sums = make_task(config), torch.zeros(8, dtype=torch.float64)
    for part in held_out.split(_SCORED_AT_ONCE):
        answer = method.evaluate(_batch(part))
        assert answer is not None
        sums += task.score(*answer)
    tenths = [float(np.mean(part)) for part in np.array_split(losses, 10)]
    return {"metrics": task.metrics(sums), "losses": tenths, "seconds": seconds}


def _batch(clips: Tensor) -> dict[str, Any]:
    numbers = torch.arange(clips.shape[1]).expand(len(clips), -1)
    weights = torch.ones(len(clips))
    return {"clips": clips, "frame_numbers": numbers, "labels": weights.long(), "weights": weights}


def write_plan(path: Path, course: Course, trainings: list[tuple[str, Any, int]]) -> None:
    """What a process shall do: (method, skips, seed) each."""
    path.write_text(json.dumps({"course": asdict(course), "trainings": trainings}))


def main(plan_file: str, answer_file: str) -> None:
    """Do what the plan says, and leave the answer."""
    plan = json.loads(Path(plan_file).read_text())
    course = Course(**plan["course"])
    clips, held_out = course.clips(course.videos, TRAIN_SEED), course.clips(course.held_out, HELD_OUT_SEED)
    place, done = discover(), []
    torch.set_num_threads(1)
    with joined(place) as device:
        for method, skips, seed in plan["trainings"]:
            found = train(course.config(method, skips, seed), clips, held_out, Rank(place, device))
            done.append({"method": method, "skips": skips, "seed": seed, **found})
            Path(answer_file).write_text(json.dumps({"trainings": done}))  # so far, should it be asked to end


if __name__ == "__main__":
    main(*sys.argv[1:])
