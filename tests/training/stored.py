"""Checkpoints written by one process, for tests that read, damage or compare them."""

from __future__ import annotations

from pathlib import Path

import torch

from hpcvideo.methods.protocol import Holders
from hpcvideo.training.checkpoint import PARTS, Checkpoint, CheckpointFacts, complete_checkpoint, unfinished_folder
from hpcvideo.training.checkpoint_buffer import HostBuffer
from hpcvideo.training.checkpoint_layout import plan_files


def example(step: int, elements: int = 10) -> Checkpoint:
    """A small checkpoint whose values tell its step."""
    weights = {"fc.weight": torch.full((elements,), float(step)), "bn.num_batches_tracked": torch.tensor(step)}
    facts = CheckpointFacts(step, 7, "digest", {"plan": "p", "samples": 3, "label_names": ["a", "b"]}, {"note": [step]})
    return Checkpoint(facts, weights, {"fc.weight/momentum_buffer": torch.ones(elements)}, {})


def store(folder: Path, checkpoint: Checkpoint, keep: int = 2) -> Path:
    """Write it as a run of one rank does; gives its folder."""
    state = {part: dict(getattr(checkpoint, part)) for part in PARTS}
    sizes = {part: {name: tensor.nbytes for name, tensor in state[part].items()} for part in PARTS}
    buffer = HostBuffer()
    buffer.capture(plan_files(sizes, dict.fromkeys(PARTS, Holders((0,)))), state)
    target = unfinished_folder(folder, checkpoint.facts.step)
    target.mkdir(parents=True, exist_ok=True)
    return complete_checkpoint(folder, checkpoint.facts, buffer.write(target), keep)
