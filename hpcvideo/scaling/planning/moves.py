"""What would move a plan: the same model asked again with one thing changed, on the same draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpcvideo.config import RunConfig
from hpcvideo.config.schema import StageConfig
from hpcvideo.errors import InputError
from hpcvideo.scaling.model.estimate import Values
from hpcvideo.scaling.model.job import Job, job_at
from hpcvideo.scaling.model.prediction import Prediction, Range, predict, range_of
from hpcvideo.scaling.planning.scales import half_precision
from hpcvideo.scaling.planning.words import few_updates

_LOCAL = "/local"


@dataclass(frozen=True)
class Move:
    """One change and what comes of it at one scale."""

    name: str
    words: str
    """What is changed, in full."""
    step_ratio: Range
    """Seconds of a clip in steps (the batch may differ), changed over unchanged, draw by draw; below 1 is faster."""
    run_ratio: Range
    """The same of the time to train."""
    run_seconds: Range
    """Time to train with the change."""
    note: str | None
    """What else the change does, if anything."""


@dataclass(frozen=True)
class _Change:
    name: str
    words: str
    config: RunConfig | None = None
    global_batch: int | None = None
    values: Callable[[Values], Mapping[str, float]] | None = None
    note: str | None = None


def what_would_move_it(prediction: Prediction, draws: Sequence[Values]) -> list[Move]:
    """Changes that make sense for this job, those that save most time first.

    draws: those of the prediction. Changes that cannot be made (half a frame) are left out.
    """
    changes = _changes(prediction.job, half_precision(draws[0]))
    moves = [move for change in changes if (move := _tried(change, prediction, draws)) is not None]
    return sorted(moves, key=lambda move: move.run_ratio.median)


def _tried(change: _Change, prediction: Prediction, draws: Sequence[Values]) -> Move | None:
    job = prediction.job
    if change.config is not None:
        try:
            job = job_at(change.config, job.nodes, job.ranks_per_node, job.data, change.global_batch)
        except InputError:
            return None
    values = draws if change.values is None else [{**one, **change.values(one)} for one in draws]
    changed = predict([job], values)[0]
    clips = prediction.job.global_batch / job.global_batch
    notes = [
        note for note in (change.note, few_updates(job) if job.total_steps < prediction.job.total_steps else None) if note
    ]
    return Move(
        name=change.name,
        words=change.words,
        step_ratio=range_of(
            [new.seconds * clips / old.seconds for new, old in zip(changed.steps, prediction.steps, strict=True)]
        ),
        run_ratio=range_of([new.seconds / old.seconds for new, old in zip(changed.runs, prediction.runs, strict=True)]),
        run_seconds=changed.run_seconds,
        note="; ".join(notes) or None,
    )


def _changes(job: Job, half: str) -> Iterator[_Change]:
    config, batch = job.config, job.global_batch
    recipe, data = config.recipe, config.data
    micro = {"micro_batch": job.micro_batch}
    if job.nodes > 1:
        yield _Change(
            "twice the network", "twice the bandwidth between nodes, the same latency",
            values=lambda values: {"inter_bandwidth": 2 * values["inter_bandwidth"]},
        )  # fmt: skip
    if recipe.precision == "fp32":
        yield _Change(
            "16-bit arithmetic", f"recipe.precision={half} (AMP)", _with(config, recipe={"precision": half}),
            note=f"recipe.precision={half}" + ("" if half == "bf16" else ", since these GPUs do not have bf16"),
        )  # fmt: skip
    if job.exchange.wire == "fp32" and job.ranks > 1:
        yield _Change(
            "16-bit gradients", "method.wire: bf16",
            config.model_copy(update={"method": config.method.model_copy(update={"wire": "bf16"})}),
        )  # fmt: skip
    yield _Change(
        "twice the batch", f"{2 * batch:,} clips a step with LARS, in twice as many micro-batches of {job.micro_batch}",
        _with(config, recipe=micro), 2 * batch, note=None if recipe.optimizer.name in ("lars", "lamb") else
        "needs a large-batch optimizer and its tuning: recipe.optimizer.name=lars",
    )  # fmt: skip
    if config.model.frames > 1:
        yield _Change(
            "half the frames", f"model.frames = {config.model.frames // 2} in place of {config.model.frames}",
            _with(config, model={"frames": config.model.frames // 2}), note="costs accuracy",
        )  # fmt: skip
    if job.reads_from == "shared":
        yield _staged(job)
    else:
        yield _Change("no staging", "clips read from the shared file system", _with(config, data={"stage": None}))
    if data.workers:
        yield _Change("twice the decoding", "twice the workers and cores that decode", values=_twice_decoding)
    if job.evaluations > 1:
        yield _Change(
            "evaluate at the end", "one evaluation, after the last step", _with(config, evaluation={"every_epochs": None})
        )
    if job.ranks > 1:
        yield _Change(
            "even ranks", "no rank slower than another, no rare slow steps",
            values=lambda values: {"rank_sigma": 0.0, "tail_probability": 0.0},
        )  # fmt: skip


def _staged(job: Job) -> _Change:
    """A part of the set on each node's own disk where the batch divides over the nodes, else all of it."""
    if job.nodes > 1 and job.global_batch % job.nodes == 0:
        data = {
            "stage": StageConfig(to=_LOCAL, mode="partition"), "order": "node_local", "virtual_nodes": job.nodes,
        }  # fmt: skip
        return _Change(
            "staging", "data.stage: each node's part of the set on its own disk first", _with(job.config, data=data)
        )
    stage = {"stage": StageConfig(to=_LOCAL, mode="broadcast")}
    return _Change("staging", "data.stage: the whole set on each node's own disk first", _with(job.config, data=stage))


def _twice_decoding(values: Values) -> dict[str, float]:
    return {"decode_frames_per_core": 2 * values["decode_frames_per_core"]}


def _with(config: RunConfig, **sections: dict[str, Any]) -> RunConfig:
    """The config with keys of some sections changed."""
    return config.model_copy(
        update={name: getattr(config, name).model_copy(update=changes) for name, changes in sections.items()}
    )
