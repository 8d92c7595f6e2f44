"""A shard set as one continuous video, for learning while it is shown."""

from __future__ import annotations

from hpcvideo.config import RunConfig
from hpcvideo.data.stream_order import StreamOrder, count_parts
from hpcvideo.errors import InputError
from hpcvideo.methods.protocol import LiveVideo
from hpcvideo.shards import ShardSet
from hpcvideo.tasks import Task


def is_stream(config: RunConfig) -> bool:
    """Whether the training set is shown frame after frame."""
    return config.data.sampling.kind == "stream"


def stream_order(config: RunConfig, task: Task, shards: ShardSet) -> StreamOrder:
    """The order of the training set's parts. Raises InputError where the set is too short for the batch."""
    lengths = [shards.video(number).num_frames for number in range(len(shards))]
    order = StreamOrder(count_parts(lengths, config.model.frames, task.future_frames))
    if order.total < config.recipe.global_batch:
        raise InputError(
            f"{shards.path}: holds {sum(lengths)} frames, which are {order.total} parts of model.frames = "
            f"{config.model.frames}, but recipe.global_batch = {config.recipe.global_batch} are shown at once; use longer "
            "videos or a smaller batch"
        )
    return order


def training_samples(config: RunConfig, task: Task, shards: ShardSet) -> int:
    """Clips of an epoch: videos, or the parts of a continuous one."""
    return stream_order(config, task, shards).total if is_stream(config) else len(shards)


def live_video(config: RunConfig, shards: ShardSet) -> LiveVideo | None:
    """How fast the frames of a continuous video come, None where the set is not shown as one.

    Raises InputError where data.sampling.pace is `video` and the videos have no frame rate, or several.
    """
    pace = config.data.sampling.pace
    if not is_stream(config):
        return None
    if pace != "video":
        return LiveVideo(None if pace == "fastest" else pace)
    rates = {shards.video(number).fps for number in range(len(shards))}
    if len(rates) > 1 or min(rates) <= 0:
        known = ", ".join(f"{rate:g}" for rate in sorted(rates)[:3])
        raise InputError(
            f"data.sampling.pace = video, but {shards.path} has videos of {known} frames a second (0: unknown); name one "
            "rate, e.g. data.sampling.pace=25, or use fastest"
        )
    return LiveVideo(rates.pop())
