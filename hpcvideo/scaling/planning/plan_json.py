"""A plan as plain JSON types."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from hpcvideo.scaling.model.prediction import SEED
from hpcvideo.scaling.planning.plan import Plan, ScalePlan, grouped
from hpcvideo.scaling.planning.words import assumptions

FORMAT = {"name": "hpcvideo-plan", "version": 1}
"""Stands in plan.json; `version` grows when a key changes its meaning or goes."""


def plan_json(plan: Plan) -> dict[str, Any]:
    """Seconds, bytes, bytes/s, fractions; every range as {median, low, high}; what is not finite as null."""
    choice = plan.choice
    places = {} if choice is None else {"likely": choice.likely, "sure": choice.sure, "fastest": choice.fastest}
    nodes = {name: None if place is None else plan.scales[place].job.nodes for name, place in places.items()}
    whole = {
        "format": FORMAT,
        "config": plan.config.name,
        "system": {"name": plan.system.name, "description": plan.system.description},
        "batch": plan.rule.words,
        "data": {**asdict(plan.data), "train_bytes": plan.data.train_bytes},
        "draws": {"count": plan.draws, "seed": SEED, "range": "5 to 95 %"},
        "calibration": list(plan.calibration),
        "scales": [_scale(scale, plan) for scale in plan.scales],
        "goal": {
            "target_seconds": plan.goal.seconds, "gpu_hours_limit": plan.goal.gpu_hours,
            "nodes": nodes, "likely_share": None if choice is None else choice.likely_share,
        },
        "focus_nodes": plan.scales[plan.focus].job.nodes,
        "moves": [
            {
                "name": move.name, "words": move.words, "step_ratio": move.step_ratio.as_json(),
                "run_ratio": move.run_ratio.as_json(), "run_seconds": move.run_seconds.as_json(), "note": move.note,
            }
            for move in plan.moves
        ],
        "sensitivity": [
            {
                "key": effect.key, "run_seconds_at_low": effect.at_low, "run_seconds_at_high": effect.at_high,
                **asdict(plan.system.estimates[effect.key]),
            }
            for effect in plan.effects
        ],
        "warnings": list(plan.warnings),
        "assumptions": list(assumptions(plan.scales[plan.focus].job)),
    }  # fmt: skip
    finite: dict[str, Any] = _finite(whole)
    return finite


def _scale(scale: ScalePlan, plan: Plan) -> dict[str, Any]:
    job, price = scale.job, plan.system.values.get("node_hour_price")
    return {
        "nodes": job.nodes,
        "ranks_per_node": job.ranks_per_node,
        "ranks": job.ranks,
        "stages": job.stages,
        "replicas": job.replicas,
        "global_batch": job.global_batch,
        "micro_batch": job.micro_batch,
        "accumulation": job.accumulation,
        "total_steps": job.total_steps,
        "step_seconds": scale.prediction.step_seconds.as_json(),
        "step_parts": dict(scale.parts),
        "bottlenecks": grouped(scale.parts),
        "binds": scale.binds,
        "lost_seconds": dict(scale.lost),
        "holds_back": scale.holds_back,
        "throughput": scale.throughput.as_json(),
        "efficiency": scale.efficiency.as_json(),
        "run_seconds": scale.prediction.run_seconds.as_json(),
        "run_parts": dict(scale.run),
        "goodput": scale.goodput.as_json(),
        "node_hours": scale.node_hours.as_json(),
        "gpu_hours": scale.gpu_hours.as_json(),
        "cost": None if price is None else {key: price * hours for key, hours in scale.node_hours.as_json().items()},
        "meets_goal": plan.goal.met(scale.prediction) if plan.choice is not None else None,
        "memory_bytes": scale.memory_bytes.as_json(),
        "memory_parts": scale.memory.parts(),
        "gpu_memory_bytes": plan.system.values["gpu_memory"],
        "demand": asdict(scale.demand),
        "network_bytes_per_second": scale.network_bytes_per_second,
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
