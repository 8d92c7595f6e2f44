"""Trainings of small networks of units by the project's own methods, on clips in memory, and what their gradients are worth.

    python benchmarks/unit_training.py PLAN.json ANSWER.json

The plan is a list of `Training`, the answer what became of each. A process of its own, since engines of several trainings
share its process group.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import unit_clips
from torch import Tensor
from torch.nn import functional
from training_steps import Rank, method_of
from unit_clips import Clips

from hpcvideo.config import RunConfig
from hpcvideo.distributed.environment import discover
from hpcvideo.distributed.process_group import joined
from hpcvideo.methods import Method
from hpcvideo.methods.sideways.executor import Executor
from hpcvideo.methods.sideways.graph import UnitGraph
from hpcvideo.methods.sideways.schedule import ClipSchedule, Rule
from hpcvideo.methods.sideways.units import UnitWorker
from hpcvideo.models import create_model
from hpcvideo.models.normalisation import normalise_clips
from hpcvideo.models.unit_network import UnitNetwork
from hpcvideo.runs.phases import PhaseClock
from hpcvideo.training.recipe import learning_rate, plan_run

TRAIN_SEED, HELD_OUT_SEED = 1, 2
_MODEL = "unit_vgg"
_SCORED_AT_ONCE = 64
_COMPARED = 1024
"""Clips of the mean gradients that are compared."""


@dataclass(frozen=True)
class Course:
    """What all trainings of a comparison share. clips: `laws`, `directions` or `patterns` of unit_clips, so many of `frames`
    frames of `size` pixels. model: options of `unit_vgg`, skips apart. recipe: of the config. marks: numbers of updates
    after which pseudo-gradients are compared with the exact ones."""

    clips: str
    train: int
    held_out: int
    size: int
    frames: int
    model: Mapping[str, Any]
    recipe: Mapping[str, Any]
    pixels_a_frame: int | None = None
    marks: Sequence[int] = ()


@dataclass(frozen=True)
class Training:
    """One of a course, from first weights and in an order of clips that the seed decides."""

    course: Course
    method: str
    skips: Any
    seed: int

    def config(self, classes: int) -> RunConfig:
        """The config that `hpcvideo train` would take, but for the data."""
        course = self.course
        return RunConfig.model_validate(
            {
                "name": "sideways",
                "seed": self.seed,
                "task": {"name": "classification", "num_classes": classes},
                "method": {"name": self.method},
                "model": {"name": _MODEL, "frames": course.frames, "options": {**course.model, "skips": self.skips}},
                "data": {"train": "no-set-is-read", "size": course.size},
                "recipe": dict(course.recipe),
            }
        )


@dataclass
class Trained:
    """accuracy: of the held-out clips. losses: means over tenths of the training. cosines: updates made -> `cosines`."""

    accuracy: float
    losses: list[float]
    seconds: float
    cosines: dict[int, dict[str, list[float]]]


def train(training: Training, clips: Clips, held_out: Clips, rank: Rank) -> Trained:
    """One training by `hpcvideo.methods`, and the score of all held-out clips."""
    config = training.config(clips.classes)
    plan = plan_run(config.recipe, len(clips.labels), 1)
    method = method_of(config, plan.split, rank)
    order = torch.Generator().manual_seed(config.seed)
    rows, losses, found = torch.empty(0, dtype=torch.int64), [], {}
    seconds = 0.0
    for step in range(plan.total_steps + 1):
        if step in training.course.marks:
            found[step] = cosines(config, method, clips)
        if step == plan.total_steps:
            break
        begin = time.perf_counter()
        if len(rows) < config.recipe.global_batch:
            rows = torch.cat([rows, torch.randperm(len(clips.labels), generator=order)])
        batch, rows = clips.batch(rows[: config.recipe.global_batch]), rows[config.recipe.global_batch :]
        method.set_learning_rate(learning_rate(config.recipe, plan, step))
        losses.append(method.step(iter([batch]), step, PhaseClock()).loss)
        seconds += time.perf_counter() - begin
    tenths = [float(part.mean()) for part in torch.tensor(losses).tensor_split(10) if len(part)]
    return Trained(accuracy(method, held_out), tenths, seconds, found)


def accuracy(method: Method, clips: Clips) -> float:
    """The share of clips that the method's model, as it evaluates, gets right."""
    right = 0
    for rows in torch.arange(len(clips.labels)).split(_SCORED_AT_ONCE):
        answer = method.evaluate(clips.batch(rows))
        assert answer is not None
        right += int((answer[0].argmax(1) == clips.labels[rows]).sum())
    return right / len(clips.labels)


def cosines(config: RunConfig, method: Method, clips: Clips) -> dict[str, list[float]]:
    """Unit -> [of one batch, of the mean over 1,024 clips]: the cosine between the pseudo-gradient that Sideways gets
    with the method's present weights and the exact gradient, by autograd through the graph unrolled in time."""
    network = create_model(_MODEL, clips.classes, config.model.frames, dropout=0.0, **config.model.options)
    assert isinstance(network, UnitNetwork)
    network.load_state_dict(copy.deepcopy(method.weights()))
    sums: dict[str, list[Tensor]] = {}
    found: dict[str, list[float]] = {name: [] for name in network.units}
    for rows in torch.arange(min(_COMPARED, len(clips.labels))).split(config.recipe.global_batch):
        pixels, labels = normalise_clips(clips.pixels[rows]), clips.labels[rows]
        pseudo, exact = pseudo_gradients(network, pixels, labels), exact_gradients(network, pixels, labels)
        for name in network.units:
            pair = [pseudo[name] * len(rows), exact[name] * len(rows)]
            if name not in sums:
                found[name].append(_cosine(*pair))
                sums[name] = pair
            else:
                sums[name] = [total + one for total, one in zip(sums[name], pair, strict=True)]
    return {name: [*values, _cosine(*sums[name])] for name, values in found.items()}


def pseudo_gradients(network: UnitNetwork, pixels: Tensor, labels: Tensor, rule: Rule = "sideways") -> dict[str, Tensor]:
    """Unit -> the mean of its pseudo-gradients of these clips, as one vector; weights stand still."""
    schedule = ClipSchedule(UnitGraph(network.inlets), pixels.shape[1], rule=rule)
    workers = {name: UnitWorker(name, network.unit(name)) for name in network.units}
    executor = Executor(schedule, workers)
    network.train()
    for step in range(1, schedule.steps + 1):
        frame = pixels[:, schedule.frame(step) - 1].contiguous()
        executor.step(step, frame, lambda outputs, ago: functional.cross_entropy(outputs, labels))
    return {
        name: torch.cat([gradient.flatten() for gradient in worker.gradients.values()]) / worker.count
        for name, worker in workers.items()
    }


def exact_gradients(network: UnitNetwork, pixels: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Unit -> the gradient of the mean loss of all outputs of these clips, through time, as one vector."""
    outputs = network.outputs(pixels)
    steps = outputs.shape[1]
    loss = functional.cross_entropy(outputs.flatten(0, 1), labels.repeat_interleave(steps))
    parameters = dict(network.named_parameters())
    gradients = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
    return {
        name: torch.cat([gradients[f"units.{name}.{key}"].flatten() for key, _ in network.unit(name).named_parameters()])
        for name in network.units
    }


def _cosine(one: Tensor, other: Tensor) -> float:
    return round(float(functional.cosine_similarity(one.double(), other.double(), dim=0)), 3)


@cache
def _material(name: str, clips: int, seed: int, size: int, frames: int, *more: int) -> Clips:
    made: Clips = getattr(unit_clips, name)(clips, seed, size, frames, *more)
    return made


def material(course: Course) -> tuple[Clips, Clips]:
    """What is trained on and what is held out."""
    more = () if course.pixels_a_frame is None else (course.pixels_a_frame,)
    shape = (course.size, course.frames, *more)
    return (
        _material(course.clips, course.train, TRAIN_SEED, *shape),
        _material(course.clips, course.held_out, HELD_OUT_SEED, *shape),
    )


def main(plan_file: str, answer_file: str) -> None:
    """Do what the plan says, and leave the answer."""
    plan = [Training(Course(**one.pop("course")), **one) for one in json.loads(Path(plan_file).read_text())]
    place = discover()
    with joined(place) as device:
        torch.set_num_threads(1)
        done = [train(training, *material(training.course), Rank(place, device)) for training in plan]
    Path(answer_file).write_text(json.dumps({"trainings": [asdict(one) for one in done]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
