"""Random numbers that depend on a key alone, the same on every machine, library version, rank and worker.

NumPy's and Python's generators may change their streams between versions (NumPy's NEP 19 says so), and a generator with
state ties a clip to the order in which it was drawn. Here a draw is a hash of its key (SplitMix64, Steele et al. 2014).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB
_MASK = (1 << 64) - 1


def mix(value: int) -> int:
    """SplitMix64's finaliser: a bijection of 64-bit integers whose output bits all depend on all input bits."""
    value = ((value ^ (value >> 30)) * _FIRST) & _MASK
    value = ((value ^ (value >> 27)) * _SECOND) & _MASK
    return value ^ (value >> 31)


def combine(*key: int) -> int:
    """One 64-bit key from several integers; their order matters."""
    state = 0
    for part in key:
        state = mix((state + _GOLDEN + (part & _MASK)) & _MASK)
    return state


def hash_range(key: int, count: int) -> NDArray[np.uint64]:
    """`KeyedStream` draws 0 .. count - 1 of a combined key as one array, uint64 [count]."""
    value = (np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)) + np.uint64(key)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(_FIRST)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(_SECOND)
    return value ^ (value >> np.uint64(31))


class KeyedStream:
    """The draws of one key, e.g. KeyedStream(seed, epoch, sample): as many as are asked for, always the same."""

    def __init__(self, *key: int) -> None:
        self._state = combine(*key)

    def bits(self) -> int:
        """64 random bits."""
        self._state = (self._state + _GOLDEN) & _MASK
        return mix(self._state)

    def integer(self, bound: int) -> int:
        """An integer in [0, bound). The bias is below bound / 2**64. Raises ValueError where bound < 1."""
        if bound < 1:
            raise ValueError(f"integer(bound={bound}): bound must be at least 1")
        return (self.bits() * bound) >> 64

    def uniform(self) -> float:
        """A float in [0, 1), a multiple of 2**-53."""
        return (self.bits() >> 11) * 2.0**-53
