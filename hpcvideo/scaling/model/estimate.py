"""A number that is not known exactly: its likely value, the range that holds it, and where it is from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

Values = Mapping[str, float]
"""One number a key, in SI units: what the terms of the cost model take. Ranges stay outside of them."""


@dataclass(frozen=True)
class Estimate:
    """A likely value with the bounds of what is plausible and the source of all three.

    Raises ValueError for numbers that are not finite or negative, bounds that do not hold the value, or no source.
    """

    value: float
    """The likely value, in the unit of its key."""
    low: float
    """The least that is plausible; the value itself for what is known exactly."""
    high: float
    """The most that is plausible."""
    source: str
    """Where the numbers are from: a document, a measurement, a fit; or in plain words that they are assumed, and why so."""

    def __post_init__(self) -> None:
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        for name, number in numbers.items():
            if not math.isfinite(number) or number < 0:
                raise ValueError(f"{name} = {number} is not a finite number of at least 0")
        if not self.low <= self.value <= self.high:
            raise ValueError(f"value = {self.value:g} is not within low = {self.low:g} and high = {self.high:g}")
        if not self.source.strip():
            raise ValueError("source is empty: a number without a source is refused")

    @property
    def exact(self) -> bool:
        """Whether there is no doubt about it."""
        return self.low == self.high

    @classmethod
    def known(cls, value: float, source: str) -> Estimate:
        """A number without a range: a count, or what was chosen."""
        return cls(value, value, value, source)
