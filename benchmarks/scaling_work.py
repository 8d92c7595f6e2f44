"""The training that scaling_local.py measures and predicts: its config, from the few facts that tell its worlds apart."""

from __future__ import annotations

from typing import Any

from hpcvideo.config import RunConfig

GRADIENT_CLIP = 20.0


def run_config(facts: dict[str, Any], hosts: int) -> RunConfig:
    """The config of a world of so many hosts, one rank each; no data set is read. facts: see scaling_ranks.py."""
    replicas = hosts // facts["method"].get("stages", 1)
    return RunConfig.model_validate(
        {
            "name": "scaling_local",
            "task": {"name": "classification", "num_classes": facts["classes"]},
            "method": facts["method"],
            "model": {"name": facts["model"], "frames": facts["frames"], "options": facts["options"]},
            "data": {"train": "no-set-is-read", "size": facts["size"], "short_side": max(256, facts["size"])},
            "recipe": {
                "global_batch": facts["micro_batch"] * facts["accumulation"] * replicas,
                "micro_batch": facts["micro_batch"], "steps": 1, "gradient_clip": GRADIENT_CLIP, "dropout": 0.0,
            },
        }
    )  # fmt: skip
