"""What kind of scaling runs are, and what a reader must know before believing a comparison of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from hpcvideo.scaling.measure.records import RunLog
from hpcvideo.scaling.measure.run_measurement import RunMeasurement


def scaling_kind(runs: Iterable[RunLog]) -> str:
    """The kind of scaling: "single" (one number of ranks and nodes), "strong" (one global batch), "weak" (one batch a rank)
    or "mixed"."""
    runs = list(runs)
    batches = {run.global_batch for run in runs}
    if len(batches) == 1:
        return "single" if len({(run.world_size, run.nodes) for run in runs}) == 1 else "strong"
    return "weak" if len({run.global_batch / run.world_size for run in runs}) == 1 else "mixed"


def study_warnings(kind: str, measurements: Sequence[RunMeasurement]) -> Iterable[str]:
    """Sentences on runs of a study of this `scaling_kind`."""
    runs = [measurement.run for measurement in measurements]
    smallest = min(run.world_size for run in runs)
    if kind == "mixed":
        yield (
            "Neither the global batch nor the batch a rank is the same in all runs: this is neither strong nor weak "
            "scaling, and part of any change is the batch's."
        )
    if kind == "single":
        yield "All runs are at one scale: throughput is measured, scaling is not."
    if smallest > 1:
        yield f"There is no run on one rank: efficiency is relative to {smallest} ranks."
    changed = "; ".join(changed_settings(runs, kind))
    explained = kind == "weak" and not changed and all(run.settings for run in runs)
    if len({run.config_digest for run in runs}) > 1 and not explained:
        changed = changed or "their config.yaml do not tell where"
        yield f"The runs have different configs and are compared all the same. They differ in: {changed}."
    for what, values in (
        ("frames of a clip", {str(run.frames) for run in runs}),
        ("training set sizes", {str(run.train_samples) for run in runs}),
        ("devices", {run.devices for run in runs if run.devices}),
        ("precisions", {run.precision for run in runs if run.precision}),
        ("numbers of pipeline stages", {str(run.stages) for run in runs}),
    ):
        if len(values) > 1:
            yield f"The runs have different {what}: {', '.join(sorted(values))}."
    timed = {m.run.label: math.fsum(m.phase_seconds.values()) / m.step_mean_seconds for m in measurements}
    too_long = {name: share for name, share in timed.items() if share > 1.02}
    if too_long:
        yield (
            f"The phases of {', '.join(too_long)} add up to more than their step (up to {max(too_long.values()):.0%}): "
            "timers overlap, and the bars of these scales are too long."
        )
    for measurement in measurements:
        for word in measurement.words:
            yield f"{measurement.run.label}: {word}."


def changed_settings(runs: Sequence[RunLog], kind: str = "") -> Iterable[str]:
    """`key = value | value ...` for each setting but the name that is not the same in all runs that keep their config; in
    weak scaling the global batch differs by what is measured."""
    expected = {"name", *(["recipe.global_batch"] if kind == "weak" else [])}
    known = [run.settings for run in runs if run.settings]
    for key in sorted(set().union(*known) - expected):
        values = list(dict.fromkeys(settings.get(key, "(absent)") for settings in known))
        if len(values) > 1:
            yield f"{key} = {' | '.join(values)}"
