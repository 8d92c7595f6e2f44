"""Rounds of measurements that take turns, so that what disturbs the machine disturbs all of them alike."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg

STEADY_WITHIN = 0.10
_YARDSTICK_SECONDS = 0.25


@dataclass(frozen=True)
class Rounds:
    """What `take_turns` found: rates of each contestant, one a round, over the rounds that were kept.

    yardstick: the speed of the machine between the rounds; steady: whether enough rounds lay within STEADY_WITHIN of
    its median; repeated: rounds that were measured beyond those asked for. Where the machine was not steady, the rounds
    beside its fastest moments are kept: what disturbs it only slows it.
    """

    rates: dict[str, list[float]]
    yardstick: list[float]
    steady: bool
    repeated: int

    def median(self, name: str) -> float:
        """Median rate of a contestant."""
        return statistics.median(self.rates[name])

    def fastest(self, names: Sequence[str]) -> str:
        """The contestant of the largest median rate among those of `names` that took part."""
        return max((name for name in names if name in self.rates), key=self.median)

    def ratio(self, ours: str, other: str) -> float:
        """Median over the rounds of the ratio of two contestants in the same round."""
        return statistics.median(a / b for a, b in zip(self.rates[ours], self.rates[other], strict=True))

    def facts(self) -> dict[str, object]:
        """All of it for the JSON report: [median, lowest, highest] of each contestant."""
        three = {name: [statistics.median(all_), min(all_), max(all_)] for name, all_ in self.rates.items()}
        return {
            "rates_median_lowest_highest": {name: [float(f"{x:.4g}") for x in row] for name, row in three.items()},
            "rounds": len(next(iter(self.rates.values()))),
            "rounds_repeated": self.repeated,
            "machine_steady_within_10_percent": self.steady,
            "yardstick_lowest_over_highest": round(min(self.yardstick) / max(self.yardstick), 3),
        }


def take_turns(
    contestants: Mapping[str, Callable[[], float]], rounds: int, workers: int, tell: Callable[[str], None]
) -> Rounds:
    """Call every contestant once a round; each call returns a rate.

    Between the rounds a yardstick measures the machine itself. Rounds beside which it was off its median by more than
    STEADY_WITHIN are measured again, at most `rounds` times more.
    """
    names = list(contestants)
    yardstick = [machine_speed(workers)]
    table: list[dict[str, float]] = []
    kept: list[int] = []
    while len(kept) < rounds and len(table) < 2 * rounds:
        turn = len(table) % len(names)  # nobody always comes first
        table.append({name: contestants[name]() for name in names[turn:] + names[:turn]})
        yardstick.append(machine_speed(workers))
        middle = statistics.median(yardstick)
        off = [abs(speed / middle - 1) > STEADY_WITHIN for speed in yardstick]
        kept = [index for index in range(len(table)) if not (off[index] or off[index + 1])]
        shown = ", ".join(f"{name} {rate:.4g}" for name, rate in sorted(table[-1].items()))
        tell(f"round {len(table)} ({len(kept)} of {rounds} steady): {shown}")
    steady = len(kept) >= rounds
    calmest = sorted(range(len(table)), key=lambda index: -min(yardstick[index], yardstick[index + 1]))
    used = kept if steady else sorted(calmest[:rounds])
    return Rounds({name: [table[i][name] for i in used] for name in names}, yardstick, steady, len(table) - rounds)


def machine_speed(workers: int) -> float:
    """JPEG frames a second that `workers` threads decode and resize just now: the work of all that is measured here."""
    random = np.random.default_rng(0)
    image = cv2.resize(random.integers(0, 256, (32, 42, 3), dtype=np.uint8), (340, 256), interpolation=cv2.INTER_CUBIC)
    jpeg = simplejpeg.encode_jpeg(image, 85, colorsubsampling="420")
    counts = [0] * workers
    end = time.perf_counter() + _YARDSTICK_SECONDS

    def work(place: int) -> None:
        frame = np.empty((256, 340, 3), np.uint8)
        while time.perf_counter() < end:
            cv2.resize(simplejpeg.decode_jpeg(jpeg, colorspace="RGB", buffer=frame), (224, 224))
            counts[place] += 1

    threads = [threading.Thread(target=work, args=(place,)) for place in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / _YARDSTICK_SECONDS
