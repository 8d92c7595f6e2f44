"""What of the exchange of gradients hides behind backward: buckets that leave when full, and how long they are waited for.

Follows hpcvideo.methods.gradient_exchange: buckets go in one order, each when its last gradient is there, beside what is
left of the step's last backward; behind it the rest is waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from hpcvideo.methods.gradient_buckets import EDGE_BYTES, plan_buckets


@dataclass(frozen=True)
class Bucket:
    """ready_seconds: of undisturbed backward until its last gradient is there. size_bytes: on the wire."""

    ready_seconds: float
    size_bytes: float


@dataclass(frozen=True)
class Overlap:
    """A backward with the exchange beside it; all in seconds.

    backward: until its last operation, slowed down by the exchange. exposed: from then until the last bucket is summed.
    communicating: in which at least one exchange was under way.
    """

    backward: float
    exposed: float
    communicating: float


def bucket_schedule(
    backward_seconds: Sequence[float], gradient_bytes: Sequence[Sequence[float]], bucket_bytes: float
) -> tuple[Bucket, ...]:
    """The buckets of a backward, in the order in which they go.

    backward_seconds: of each layer, in the order of forward. gradient_bytes: of each layer, the bytes on the wire of its
    parameters in the order of registration (one sum a layer will do for small layers). bucket_bytes: most bytes of a bucket.
    Backward goes from the last layer to the first; inside of a layer gradients come in step with their bytes, which in a
    convolution net follow its operations. Raises ValueError where the rows differ in length or bucket_bytes is below 1.
    """
    if len(backward_seconds) != len(gradient_bytes):
        raise ValueError(f"{len(backward_seconds)} layers of seconds, but {len(gradient_bytes)} of bytes")
    sizes: list[float] = []
    ready: list[float] = []
    begun = 0.0
    for seconds, layer in zip(reversed(backward_seconds), reversed(gradient_bytes), strict=True):
        backwards = layer[::-1]
        total = sum(backwards)
        sizes += backwards
        ready += [begun + seconds * (done / total if total else 1.0) for done in accumulate(backwards)]
        begun += seconds
    parts = plan_buckets([round(size) for size in sizes], round(bucket_bytes), EDGE_BYTES)
    return tuple(Bucket(ready[part[-1]], sum(sizes[place] for place in part)) for part in parts)


def overlapped_backward(
    backward_seconds: float,
    buckets: Sequence[Bucket],
    exchange_seconds: Callable[[float], float],
    slowdown: float = 1.0,
    channels: int = 1,
    exchange_slowdown: float = 1.0,
) -> Overlap:
    """One backward with its exchange.

    backward_seconds: of the backward alone. exchange_seconds: bytes -> seconds of an all-reduce that has the links for
    itself and no computing beside it; what it takes for 0 bytes is latency, which exchanges do not take from each other.
    slowdown: computing takes so much longer while an exchange is under way; exchange_slowdown: the other way round.
    channels: exchanges that may be under way at once, sharing the links: 1 in NCCL, 2 in torch's gloo, which has as many
    threads. Raises ValueError for slowdowns or channels below 1.
    """
    if min(slowdown, exchange_slowdown, channels) < 1:
        raise ValueError(f"slowdown {slowdown}, exchange_slowdown {exchange_slowdown}, channels {channels}: at least 1 each")
    work = [exchange_seconds(bucket.size_bytes) for bucket in buckets]
    latency = exchange_seconds(0.0) if buckets else 0.0
    waits = [min(latency, seconds) for seconds in work]  # latency still to wait for, by bucket
    moves = [seconds - wait for seconds, wait in zip(work, waits, strict=True)]  # seconds of the links still to use
    now = computed = communicating = 0.0
    backward_end = 0.0 if backward_seconds == 0 else None
    under_way: list[int] = []
    following = 0
    while following < len(buckets) or under_way or backward_end is None:
        while (
            following < len(buckets)
            and len(under_way) < channels
            and (buckets[following].ready_seconds <= computed or backward_end is not None)
        ):
            under_way.append(following)
            following += 1
        computing = backward_end is None
        drag = exchange_slowdown if computing else 1.0
        moving = sum(1 for place in under_way if waits[place] <= 0)
        # Nothing changes its pace before the first of these: a part of an exchange ends, a bucket is full, backward ends.
        steps = [(waits[place] if waits[place] > 0 else moves[place] * moving) * drag for place in under_way]
        if computing:
            pace = slowdown if under_way else 1.0
            target = backward_seconds
            if following < len(buckets) and len(under_way) < channels:
                target = min(target, buckets[following].ready_seconds)
            steps.append((target - computed) * pace)
        step = min(steps)
        now += step
        if under_way:
            communicating += step
        for place, due in zip(list(under_way), steps, strict=False):
            if waits[place] > 0:
                waits[place] = 0.0 if due <= step else waits[place] - step / drag
                ended = waits[place] == 0 and moves[place] == 0
            else:
                moves[place] = 0.0 if due <= step else moves[place] - step / (moving * drag)
                ended = moves[place] == 0
            if ended:
                under_way.remove(place)
        if computing:
            # Set, not added up, where it arrives: a rest of 1e-19 would never end.
            computed = target if steps[-1] <= step else computed + step / pace
            if computed >= backward_seconds:
                backward_end = now
    assert backward_end is not None
    return Overlap(backward_end, now - backward_end, communicating)


def backward_of_step(
    backward_seconds: float,
    buckets: Sequence[Bucket],
    exchange_seconds: Callable[[float], float],
    slowdown: float = 1.0,
    accumulation: int = 1,
    channels: int = 1,
    exchange_slowdown: float = 1.0,
) -> Overlap:
    """The backwards of a step of `accumulation` micro-batches: the last one alone has the exchange beside it.

    backward_seconds: of one micro-batch; the rest as in `overlapped_backward`. Raises ValueError also for no micro-batch.
    """
    if accumulation < 1:
        raise ValueError(f"accumulation = {accumulation} must be at least 1")
    last = overlapped_backward(backward_seconds, buckets, exchange_seconds, slowdown, channels, exchange_slowdown)
    return Overlap((accumulation - 1) * backward_seconds + last.backward, last.exposed, last.communicating)
