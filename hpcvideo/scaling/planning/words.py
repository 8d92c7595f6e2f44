"""What a plan must say beside its numbers: warnings, and what it assumes; sentences from facts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hpcvideo.config.large_batch import FEWEST_UPDATES, LARGE_BATCH
from hpcvideo.methods.pipeline.plan import bubble_warning
from hpcvideo.scaling.model.data_path import staged_bytes
from hpcvideo.scaling.model.job import Job
from hpcvideo.scaling.model.system import System


def few_updates(job: Job) -> str | None:
    """One sentence where the batch leaves too few updates to expect the same accuracy."""
    if job.total_steps >= FEWEST_UPDATES or job.global_batch <= LARGE_BATCH:
        return None
    return (
        f"{job.global_batch:,} clips a batch leave {job.total_steps:,} updates; below {FEWEST_UPDATES:,} no large-batch "
        "reference point of MLPerf's ResNet-50 exists, so expect to lose accuracy"
    )


def plan_warnings(jobs: Sequence[Job], system: System) -> Iterator[str]:
    """What the reader of a plan should not overlook."""
    short = [job for job in jobs if few_updates(job)]
    if short:
        yield f"From {short[0].nodes} nodes on: {few_updates(short[0])}."
    largest = jobs[-1]
    if bubble := bubble_warning(largest.stages, largest.accumulation):
        yield bubble[0].upper() + bubble[1:] + "."
    if largest.config.recipe.batch_norm.sync != "rank":
        yield "recipe.batch_norm.sync: the messages of synchronised statistics are not modelled; steps will take longer."
    if largest.config.method.name not in ("end_to_end", "pipeline"):
        yield f"method {largest.config.method.name}: planned as end_to_end; its own schedule is not modelled."
    capacity = system.values.get("nvme_capacity")
    stage = largest.config.data.stage
    if stage is not None and capacity is not None and jobs[0].reads_from == "local":
        held = staged_bytes(jobs[0].clip_facts, jobs[0].nodes, stage.mode)
        if held > capacity:
            yield (
                f"data.stage: {held / 1e12:.2f} TB a node on {jobs[0].nodes} nodes do not fit into the "
                f"{capacity / 1e12:.2f} TB of a disk of {system.name}; use mode: partition, or fewer stored frames."
            )


def assumptions(job: Job) -> Iterator[str]:
    """What every number of the plan rests on, for its end."""
    recipe, data = job.config.recipe, job.config.data
    places = {"shared": "the shared file system", "local": "the nodes' own disks", "memory": "the nodes' memory"}
    yield f"Data: {job.data.source}."
    yield (
        f"Clips are read from {places[job.reads_from]} by {data.workers} decoding workers a rank; "
        "half of a node's memory caches what was read."
    )
    yield (
        f"{job.micro_batch} clips a forward, each of {job.config.model.frames} frames of {data.size} pixels, in "
        f"{recipe.precision}; gradients cross as {job.exchange.wire}, {job.exchange.bucket_megabytes:g} MB at a time."
    )
    yield (
        "Numbers of the system are drawn together, each on its own within its range (triangular in the logarithm); ranges "
        "are 5 to 95 % of the draws: they hold what is uncertain about the machine, not what the model leaves out."
    )
