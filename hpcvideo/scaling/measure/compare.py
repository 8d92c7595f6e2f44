"""What changed between two sets of runs: which part of a step, by how much, and whether it is more than chance."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hpcvideo.scaling.measure.intervals import Interval, confidence_interval, ratio_interval, weighted_mean
from hpcvideo.scaling.measure.records import StepRecord
from hpcvideo.scaling.measure.run_measurement import OUTSIDE_STEP, STEP_PHASES, RunMeasurement
from hpcvideo.scaling.measure.significance import Difference, batch_means, holm, welch
from hpcvideo.scaling.measure.study_words import changed_settings

SIGNIFICANT = 0.05
"""A p value below it makes a verdict."""

Key = tuple[int, int, int]


@dataclass(frozen=True)
class Change:
    """One part before and after, in seconds: means over steps, ranks and runs.

    interval: 95 % of after - before; p_value: two-sided, that of a phase after Holm over all phases; both None where there
    is too little to test. verdict: "slower", "faster", "no change shown", or "not tested".
    """

    part: str
    before_seconds: float
    after_seconds: float
    interval: Interval | None
    p_value: float | None

    @property
    def difference(self) -> float:
        """after - before, seconds."""
        return self.after_seconds - self.before_seconds

    @property
    def verdict(self) -> str:
        """In words, from the p value."""
        if self.p_value is None:
            return "not tested"
        if self.p_value >= SIGNIFICANT:
            return "no change shown"
        return "slower" if self.difference > 0 else "faster"


@dataclass(frozen=True)
class ScaleComparison:
    """The runs of two sides at one scale. unit: what the test takes as independent, "runs", or "step lines" in batches.

    throughput_ratio: after / before, of the medians over runs. step: the whole step. phases: by STEP_PHASES, those that take
    time; their differences add up to the step's. outside: OUTSIDE_STEP, seconds of a whole run. words: sentences.
    """

    before_key: Key
    after_key: Key
    before_repeats: int
    after_repeats: int
    unit: str
    throughput_ratio: float
    throughput_interval: Interval | None
    step: Change
    phases: tuple[Change, ...]
    outside: tuple[Change, ...]
    words: tuple[str, ...]

    @property
    def changed_most(self) -> Change | None:
        """The phase that changed most among those that changed by more than chance; None where none did."""
        changed = [change for change in self.phases if change.verdict in ("slower", "faster")]
        return max(changed, key=lambda change: abs(change.difference), default=None)


@dataclass(frozen=True)
class Comparison:
    """Two sides, scale by scale; words: sentences on what could not be compared and what differs between the sides."""

    pairs: tuple[ScaleComparison, ...]
    words: tuple[str, ...]


def compare(before: Sequence[RunMeasurement], after: Sequence[RunMeasurement]) -> Comparison:
    """Compare the runs of each scale (ranks, nodes, global batch) that both sides have.

    Where each side has one scale alone these are compared even if they differ, with a word about it. Raises ValueError
    where a side has no runs.
    """
    if not before or not after:
        raise ValueError("a comparison needs runs on both sides")
    sides = [_by_scale(before), _by_scale(after)]
    pairs = [(key, key) for key in sorted(sides[0]) if key in sides[1]]
    if not pairs and len(sides[0]) == len(sides[1]) == 1:
        pairs = [(next(iter(sides[0])), next(iter(sides[1])))]
    words = [
        f"{_scale_words(key)} is only {place} the change and is not compared"
        for place, side, paired in (
            ("before", sides[0], {pair[0] for pair in pairs}), ("after", sides[1], {pair[1] for pair in pairs}),
        )
        for key in sorted(side)
        if key not in paired
    ]  # fmt: skip
    settings = "; ".join(changed_settings([measurement.run for measurement in (*before, *after)]))
    if settings:
        words.append(f"Settings that are not the same in all runs: {settings}")
    return Comparison(tuple(_pair(*pair, sides[0][pair[0]], sides[1][pair[1]]) for pair in pairs), tuple(words))


def _pair(
    before_key: Key, after_key: Key, before: Sequence[RunMeasurement], after: Sequence[RunMeasurement]
) -> ScaleComparison:
    unit = "runs" if min(len(before), len(after)) >= 2 else "step lines"
    parts = ("step", *STEP_PHASES)
    # [side][part] -> one value a run; the means that are shown.
    means = [{part: [_mean(run.steady, part) for run in side] for part in parts} for side in (before, after)]
    tested = means
    if unit == "step lines":
        tested = [
            {part: [mean for run in side for mean in _batches(run.steady, part)] for part in parts}
            for side in (before, after)
        ]
    differences = {part: welch(tested[0][part], tested[1][part]) for part in parts if any(means[0][part] + means[1][part])}
    holms = holm({part: one.p_value for part, one in differences.items() if one is not None and part != "step"})

    def change(part: str) -> Change:
        found = differences[part]
        interval, p_value = (None, None) if found is None else (found.interval, holms.get(part, found.p_value))
        seconds = [statistics.fmean(side[part]) for side in means]
        return Change(part, seconds[0], seconds[1], interval, p_value)

    throughputs = [[run.throughput for run in side] for side in (before, after)]
    medians = [statistics.median(side) for side in throughputs]
    intervals = [confidence_interval(side) for side in throughputs]
    return ScaleComparison(
        before_key=before_key,
        after_key=after_key,
        before_repeats=len(before),
        after_repeats=len(after),
        unit=unit,
        throughput_ratio=medians[1] / medians[0],
        throughput_interval=ratio_interval(medians[1], intervals[1], medians[0], intervals[0]),
        step=change("step"),
        phases=tuple(change(part) for part in STEP_PHASES if part in differences),
        outside=tuple(_outside_changes(before, after)),
        words=tuple(_words(before_key, after_key, before, after, differences["step"])),
    )


def _outside_changes(before: Sequence[RunMeasurement], after: Sequence[RunMeasurement]) -> Iterable[Change]:
    sides: list[Mapping[str, list[float]]] = [
        {part: [getattr(one.run, f"{part}_seconds") for one in side] for part in OUTSIDE_STEP} for side in (before, after)
    ]
    tests = {part: welch(sides[0][part], sides[1][part]) for part in OUTSIDE_STEP if any(sides[0][part] + sides[1][part])}
    holms = holm({part: test.p_value for part, test in tests.items() if test is not None})
    for part, test in tests.items():
        seconds = [statistics.fmean(side[part]) for side in sides]
        yield Change(part, seconds[0], seconds[1], None if test is None else test.interval, holms.get(part))


def _words(
    before_key: Key, after_key: Key, before: Sequence[RunMeasurement], after: Sequence[RunMeasurement],
    step: Difference | None,
) -> Iterable[str]:  # fmt: skip
    if before_key != after_key:
        yield f"The sides are at different scales: {_scale_words(before_key)} before, {_scale_words(after_key)} after."
    if min(len(before), len(after)) >= 2:
        yield f"Tested on whole runs: {len(before)} before, {len(after)} after."
    elif step is None:
        yield (
            "Not tested: a side has a single run, and too few step lines for a test within it (8 are needed in the steady "
            "window); make 3 runs of each side, or log more often."
        )
    else:
        yield (
            f"Tested on step lines, since there are {len(before)} and {len(after)} runs: this tells whether these runs "
            "differ, not whether other runs of the same would; make at least 3 runs of each side."
        )
    steps = [sorted({one.run.steps_covered for one in side}) for side in (before, after)]
    if steps[0] != steps[1]:
        told = [" or ".join(map(str, side)) for side in steps]
        yield f"The runs are of {told[0]} steps before and {told[1]} after: totals of a run are not those of equal work."


def _by_scale(runs: Sequence[RunMeasurement]) -> dict[Key, list[RunMeasurement]]:
    groups: dict[Key, list[RunMeasurement]] = {}
    for measurement in runs:
        run = measurement.run
        groups.setdefault((run.world_size, run.nodes, run.global_batch), []).append(measurement)
    return groups


def _scale_words(key: Key) -> str:
    ranks, nodes = (noun if count == 1 else f"{noun}s" for count, noun in zip(key, ("rank", "node"), strict=False))
    return f"{key[0]} {ranks} on {key[1]} {nodes} with a batch of {key[2]}"


def _part(record: StepRecord, part: str) -> float:
    """Seconds of a step, mean over ranks; `other` may be negative where timers overlap, so that the parts add up."""
    if part == "step":
        return record.step_seconds.mean
    if part == "other":
        named = (record.phase_seconds.get(phase) for phase in STEP_PHASES[:-1])
        return record.step_seconds.mean - math.fsum(spread.mean for spread in named if spread)
    spread = record.phase_seconds.get(part)
    return spread.mean if spread else 0.0


def _mean(records: Sequence[StepRecord], part: str) -> float:
    return weighted_mean([_part(record, part) for record in records], [record.steps for record in records])


def _batches(records: Sequence[StepRecord], part: str) -> list[float]:
    return batch_means([_part(record, part) for record in records], [record.steps for record in records])
