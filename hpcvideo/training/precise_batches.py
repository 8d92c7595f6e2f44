"""Which training batches BatchNorm's statistics are measured on before an evaluation, and the measuring."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hpcvideo.data import ClipLoader
from hpcvideo.data.batch import take_micro_batches
from hpcvideo.methods import Method
from hpcvideo.methods.protocol import BatchSplit


def measured_steps(step: int, micro_batches: int, accumulation: int) -> range:
    """The global batches (0-based) that hold so many micro-batches a rank, for a measurement after `step` updates.

    The last ones that were trained on, whose shards are at hand wherever they are staged; near the start of a run also
    those that come next.
    """
    count = -(-micro_batches // accumulation)
    first = max(0, step - count)
    return range(first, first + count)


def measure_statistics(
    method: Method, loader: ClipLoader, split: BatchSplit, step: int, micro_batches: int,
    progress: Callable[[int], None] = lambda done: None,
) -> None:  # fmt: skip
    """Measure on this rank's first `micro_batches` of `measured_steps`, cut as in training but not mixed up. Collective.

    progress: is told how many are begun. Depends on the loader's seed and on `step` alone.
    """
    steps = measured_steps(step, micro_batches, split.accumulation)
    batches = loader.training(split.global_batch, steps.start, steps.stop, split.micro_batch)
    method.measure_statistics(_counted(take_micro_batches(batches, micro_batches), progress))


def _counted(batches: Iterator[Mapping[str, Any]], progress: Callable[[int], None]) -> Iterator[Mapping[str, Any]]:
    number = 1
    for batch in batches:
        progress(number)
        yield batch
        number += bool(batch.get("ends", True))
