"""What training fragment by fragment costs beside clip training: memory by what graphs keep, and time a frame."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from report import Claim
from rounds import take_turns
from saved_bytes import PeakSaved
from torch import nn
from training_steps import LEARNING_RATE, Rank, Workload, method_of

from hpcvideo.config import RunConfig
from hpcvideo.methods import BatchSplit, Method
from hpcvideo.models import create_model
from hpcvideo.runs.phases import PhaseClock
from hpcvideo.training.build import build_method
from hpcvideo.training.task import make_task

_FRAGMENT, _OVERLAP = 8, 1
_CLASSES = 16
_PUBLISHED = {"state": "every_block", "head_state": "cached"}
_LEAN: dict[str, Any] = {}
_NETWORK = "progressive_slowonly_resnet50"


def frames_of(fragments: int, overlap: int = _OVERLAP) -> int:
    """Frames of a clip of so many fragments."""
    return fragments * _FRAGMENT - (fragments - 1) * overlap


def _config(method: Mapping[str, Any], frames: int, size: int, batch: int, options: Mapping[str, Any]) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "progressive",
            "task": {"name": "classification", "num_classes": _CLASSES},
            "method": dict(method),
            "model": {"name": _NETWORK, "frames": frames, "options": dict(options)},
            "data": {"train": "no-set-is-read", "size": size, "short_side": max(256, size)},
            "recipe": {"global_batch": batch, "steps": 1, "dropout": 0.0},
        }
    )


@dataclass(frozen=True)
class Steps:
    """Training steps of one contestant: whole videos of `fragments` fragments, or clips of a fragment's length, as many as
    make up about as many frames, with one update for them."""

    method: Method
    micro_batches: list[dict[str, Any]]
    frames: int

    @classmethod
    def of(
        cls, rank: Rank, fragments: int, size: int, options: Mapping[str, Any], overlap: int | None, clips: int = 1
    ) -> Steps:
        """overlap: None for plain clip training."""
        if overlap is not None:
            frames = frames_of(fragments, overlap)
            chosen = {"name": "progressive", "fragment_frames": _FRAGMENT, "overlap": overlap}
            config = _config(chosen, frames, size, clips, options)
            split, works = BatchSplit(clips, clips, 1, 1), [Workload(clips, frames, size, _CLASSES)]
        else:
            config = _config({"name": "end_to_end"}, _FRAGMENT, size, clips * fragments, options)
            split = BatchSplit(clips * fragments, clips, fragments, 1)
            works = [Workload(clips, _FRAGMENT, size, _CLASSES)] * fragments
        method = method_of(config, split, rank)
        method.set_learning_rate(LEARNING_RATE)
        return cls(method, [work.batch() for work in works], sum(work.clips * work.frames for work in works))

    def frames_per_second(self) -> float:
        """One step, timed."""
        begin = time.perf_counter()
        self.method.step(iter(self.micro_batches), 0, PhaseClock())
        return self.frames / (time.perf_counter() - begin)


def time_claims(rank: Rank, quick: bool, tell: Callable[[str], None]) -> list[Claim]:
    """Seconds a frame of both modes over those of clips of 8 frames: rounds in which the three take turns, medians."""
    size, rounds, fragments = (32, 3, 3) if quick else (80, 9, 5)
    plain = {"channels_last": True}
    contestants = {
        "clip": Steps.of(rank, fragments, size, plain, None),
        "published": Steps.of(rank, fragments, size, plain | _PUBLISHED, _OVERLAP),
        "lean": Steps.of(rank, fragments, size, plain | _LEAN, 0),
    }
    for steps in contestants.values():
        steps.frames_per_second()
    found = take_turns({name: steps.frames_per_second for name, steps in contestants.items()}, rounds, 1, tell)
    how = (
        f"SlowOnly-R50 at {size} pixels, fp32, one thread: a video of {fragments} fragments of {_FRAGMENT} frames against "
        f"{fragments} clips of {_FRAGMENT} frames with one update for all of them; seconds a frame, median over {rounds} "
        "rounds in which all take turns"
    )
    overlap = fragments * _FRAGMENT / frames_of(fragments)
    return [
        Claim(
            f"time_{name}_over_clip", found.ratio("clip", name), "", bound, "plain clip training", how + f"; {mode}",
            found.facts() | {"overlap_alone": overlap},
        )
        for name, bound, mode in (
            ("published", "<= 1.20", f"state at every block, fragments overlap by 1: that alone costs {overlap:.3f}"),
            ("lean", "<= 1.05", "state at the input of temporal convolutions only, 8 new frames in every fragment"),
        )
    ]  # fmt: skip


def memory_claim(rank: Rank, quick: bool, tell: Callable[[str], None]) -> Claim:
    """Peak bytes kept for backward passes and carried, of 20 fragments over those of one."""
    size, width = (32, 8) if quick else (64, 16)
    counts = (1, 2, 5, 20)
    peaks: dict[str, dict[int, int]] = {"lean": {}, "published": {}, "clip": {}}
    for mode, options in (("lean", _LEAN), ("published", _PUBLISHED), ("clip", _LEAN)):
        for fragments in counts:
            frames = frames_of(fragments)
            chosen: dict[str, Any] = {"name": "end_to_end"}
            if mode != "clip":
                chosen = {"name": "progressive", "fragment_frames": _FRAGMENT}
            config = _config(chosen, frames, size, 2, {"width": width, **options})
            task = make_task(config)
            model = create_model(_NETWORK, _CLASSES, frames, width=width, dropout=0.0, **options)
            method = build_method(config, task, model, BatchSplit(2, 2, 1, 1), rank.place, rank.device)
            batch = Workload(2, frames, size, _CLASSES).batch()
            with PeakSaved(model.parameters()) as told:
                method.step(iter([batch]), 0, PhaseClock())
            carried = 0 if mode == "clip" else _state_bytes(model, size) * min(2, fragments)
            peaks[mode][fragments] = told.peak + carried
            tell(f"memory, {mode}, {fragments} fragments: {peaks[mode][fragments] / 1e6:.2f} MB")
    ratio = peaks["lean"][20] / peaks["lean"][1]
    return Claim(
        "memory_20_over_1_fragments", ratio, "", "<= 1.02", "one fragment; plain clip training for comparison",
        f"SlowOnly-R50 of width {width} at {size} pixels: the most bytes that are kept at a time for a backward pass (each "
        "storage once, counted by saved-tensor hooks, parameters apart), and those of the carried state (the one read and "
        "the one made), in a training step of clips of 8 to 141 frames; lean mode",
        {
            "peak_bytes": peaks,
            "published_20_over_2_fragments": peaks["published"][20] / peaks["published"][2],
            "clip_20_over_1_fragments": peaks["clip"][20] / peaks["clip"][1],
        },
    )  # fmt: skip


def _state_bytes(model: nn.Module, size: int) -> int:
    network: Any = model
    with torch.no_grad():
        _, state = network.fragment(torch.zeros(2, _FRAGMENT, 3, size, size), network.first_state())
    return sum(tensor.nbytes for tensor in state.tensors().values())
