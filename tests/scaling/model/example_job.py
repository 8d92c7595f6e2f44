"""A made-up config with layers of round numbers for tests of steps, runs and plans; nothing of it is counted by torch."""

from __future__ import annotations

from typing import Any

from hpcvideo.config import RunConfig
from hpcvideo.scaling.model.job import Job, job_at
from hpcvideo.scaling.model.layer_work import LayerWork
from hpcvideo.scaling.model.set_facts import SetFacts
from tests.scaling.model.example_system import VALUES

SYSTEM = {
    **VALUES,
    "intra_latency": 2e-6,
    "intra_bandwidth": 50e9,
    "collective_efficiency": 0.8,
    "overlap_slowdown": 1.05,
    "rank_sigma": 0.02,
    "tail_probability": 1e-5,
    "tail_seconds": 0.1,
    "epoch_seconds": 0.2,
    "evaluation_forward_ratio": 1.0,
}
"""All values that a step and a run ask for."""

FACTS = SetFacts(240_000, 20_000, 16_500.0, 300, "made up")
SIZES = (1_000_000, 4_000_000, 8_000_000, 10_000_000)


def layers(config: RunConfig, micro_batch: int) -> tuple[LayerWork, ...]:
    """Four layers; operations and bytes go with the clips and their frames."""
    clips = micro_batch * config.model.frames
    return tuple(
        LayerWork(
            name=f"layer{number}", forward_flops=2e9 * clips, backward_flops=4e9 * clips, forward_bytes=1e7 * clips,
            backward_bytes=2e7 * clips, kernels=2, parameters=size, saved_bytes=2e7 * clips, output_bytes=3e6 * clips,
            parameter_sizes=(size // 2, size - size // 2), statistics_bytes=4000,
        )
        for number, size in enumerate(SIZES)
    )  # fmt: skip


def config(method: dict[str, Any] | None = None, name: str = "made", **recipe: Any) -> RunConfig:
    """8 clips a rank of 8 frames, a validation set, checkpoints and evaluations now and then."""
    return RunConfig.model_validate(
        {
            "name": name,
            "task": {"name": "classification", "num_classes": 400},
            "method": method or {"name": "end_to_end"},
            "model": {"name": "tsm_resnet50", "frames": 8},
            "data": {"train": "/nowhere/train", "validation": "/nowhere/validation", "workers": 6},
            "recipe": {"epochs": 10, "global_batch": 32, "micro_batch": 8, **recipe},
            "evaluation": {"every_epochs": 2, "batch": 8},
            "checkpoint": {"every_epochs": 1},
        }
    )


def job(nodes: int = 1, ranks_per_node: int = 4, clips_a_rank: int = 8, made: RunConfig | None = None) -> Job:
    """The config's job with so many clips a rank."""
    return job_at(made or config(), nodes, ranks_per_node, FACTS, clips_a_rank * nodes * ranks_per_node, layers)
