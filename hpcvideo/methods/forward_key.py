"""The random key of one micro-batch's forward pass (dropout), the same for every method, world size and number of stages."""

from __future__ import annotations

from hpcvideo.distributed.keyed_random import combine

_DROPOUT_PURPOSE = 3  # keeps these draws apart from those of order and clips


def forward_key(seed: int, step: int, place: int) -> int:
    """The seed of torch's generator before the forward of the micro-batch at `place` of global batch `step`.

    place: 0-based, in the order of the global batch, so that ranks and accumulation draw alike.
    """
    return combine(_DROPOUT_PURPOSE, seed, step, place)
