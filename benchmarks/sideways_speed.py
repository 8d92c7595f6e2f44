"""The claims on speed: two ranks over one, and a stream of frames beside back-propagation on the same two ranks."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from contestant import Contestant, ContestantFailed
from report import Claim
from rounds import take_turns
from sideways_slots import slots

_SCRIPT = Path(__file__).parent / "step_contestants" / "sideways.py"
_COMMAND = ("env", "OMP_NUM_THREADS=1", "DS_ACCELERATOR=cpu", "DS_LOG_LEVEL=warning", sys.executable, _SCRIPT)
_STREAM = {"name": "sideways", "boundary": "stream", "balance": "measured"}
_RANKS_BOUND, _BLOCKING_BOUND = ">= 1.7", ">= 1.5"


def work(quick: bool) -> dict[str, Any]:
    """What all contestants train on: a ResNet-18 cut into ten units of convolutions, so that computing dominates."""
    return {
        "model": "unit_resnet18", "options": {"cut": "blocks", "dropout": 0.0, "width": 32}, "classes": 400,
        "clip_frames": 32, "frames": 32, "size": 64 if quick else 112, "micro_batch": 8,
    }  # fmt: skip


def ranks_claim(tell: Callable[[str], None], cores: int, quick: bool = False, **changes: Any) -> Claim:
    """ranks_2_over_1. changes: of the contestants' configuration (see step_contestants/sideways.py)."""
    facts = work(quick) | changes
    how = (
        "frames/s of method sideways, units on 2 ranks by measured time, over the same on 1 rank, one thread a process, "
        f"clips streaming, an update a clip: {_words(facts)}; forward, loss, backward, clipping, SGD"
    )
    contestants = {
        "1 rank": {"ranks": 1, "method": {**_STREAM, "stages": 1}},
        "2 ranks": {"ranks": 2, "method": {**_STREAM, "stages": 2}},
    }
    if cores < 2:
        return Claim("ranks_2_over_1", None, "x", _RANKS_BOUND, "1 rank", how + "; NOT MEASURED: only one core")
    try:
        found = _Race(facts, contestants, 3 if quick else 9, tell)
    except ContestantFailed as error:
        return Claim("ranks_2_over_1", None, "x", _RANKS_BOUND, "1 rank", f"{how}; NOT MEASURED: {error}")
    alone, together = (found.processor_seconds(name) for name in contestants)
    details = {
        **found.facts(), "processor_seconds_a_clip": {"1 rank": alone, "2 ranks": together},
        "processor_seconds_1_over_busiest_of_2": sum(alone) / max(together),
    }  # fmt: skip
    return Claim("ranks_2_over_1", found.rounds.ratio("2 ranks", "1 rank"), "x", _RANKS_BOUND, "1 rank", how, details)


def stream_claim(tell: Callable[[str], None], cores: int, quick: bool = False, **changes: Any) -> Claim:
    """frames_over_blocking_bp, with the table of all schemes: frames a second, seconds from a frame's arrival to the last
    update that it leads to, slots a clip. changes: of the contestants' configuration."""
    facts = work(quick) | changes
    length = facts["clip_frames"]
    how = (
        "frames/s of method sideways (an update of every unit at every frame, clips streaming) over blocking "
        "back-propagation (DeepSpeed's pipeline, one frame at a time, an update a frame), the same network on 2 ranks of "
        f"one thread: {_words(facts)}. 1F1B is DeepSpeed's pipeline with {length} frames an update. Latency: from when the "
        "first unit takes a frame to the end of the last update that the frame leads to"
    )
    pipeline = {"name": "pipeline", "stages": 2, "balance": "measured"}
    contestants = {
        "sideways": {"ranks": 2, "method": {**_STREAM, "stages": 2, "update_every": 1}},
        "blocking bp": {"ranks": 2, "method": pipeline, "clip_frames": 1, "frames": 1},
        "1F1B": {"ranks": 2, "method": pipeline, "clip_frames": 1},
    }
    name, peer = "frames_over_blocking_bp", "back-propagation over 2 ranks, a frame at a time"
    if cores < 2:
        return Claim(name, None, "x", _BLOCKING_BOUND, peer, how + "; NOT MEASURED: only one core")
    try:
        found = _Race(facts, contestants, 3 if quick else 5, tell)
    except ContestantFailed as error:
        return Claim(name, None, "x", _BLOCKING_BOUND, peer, f"{how}; NOT MEASURED: {error}")
    table = []
    units = found.units("sideways")
    for scheme in contestants:
        per_second = found.rounds.median(scheme) / facts["micro_batch"]
        table.append(
            {
                "scheme": scheme, "ranks": 2, "frames_a_second": per_second, "frame_seconds": 1 / per_second,
                "latency_mean_seconds": found.latency(scheme, "mean"),
                "latency_largest_seconds": found.latency(scheme, "largest"),
                "updates_a_clip": 1 if scheme == "1F1B" else length,
                "balance": found.told[scheme]["method"]["balance"],
                **slots(scheme, units, length),
            }
        )  # fmt: skip
    for scheme in ("sideways, drained", "GPipe"):  # counted, not run
        table.append({"scheme": scheme, "ranks": units, **slots(scheme, units, length)})
    ratio = found.rounds.ratio("sideways", "blocking bp")
    return Claim(name, ratio, "x", _BLOCKING_BOUND, peer, how, {**found.facts(), "table": table})


class _Race:
    """Contestants that take turns, and what each of them told. Raises ContestantFailed."""

    def __init__(
        self, facts: dict[str, Any], contestants: Mapping[str, dict[str, Any]], rounds: int, tell: Callable[[str], None]
    ) -> None:
        self._settings = {name: {**facts, **change} for name, change in contestants.items()}
        self.answers: dict[str, list[dict[str, Any]]] = {name: [] for name in contestants}
        with ExitStack() as stack:
            started = {
                name: stack.enter_context(Contestant(_COMMAND, settings)) for name, settings in self._settings.items()
            }
            self.told = {name: one.facts for name, one in started.items()}
            turns = {name: (lambda name=name, one=one: self._turn(name, one)) for name, one in started.items()}
            self.rounds = take_turns(turns, rounds, 2, tell)

    def _turn(self, name: str, contestant: Contestant) -> float:
        """As many batches as make a clip; clips' frames a second."""
        settings = self._settings[name]
        batches = max(1, max(one["frames"] for one in self._settings.values()) // settings["frames"])
        answer = contestant.turn({"batches": batches})
        self.answers[name].append(answer)
        return float(answer["frames"] * settings["micro_batch"] / answer["seconds"])

    def processor_seconds(self, name: str) -> list[float]:
        """Of each rank, the median over the rounds."""
        by_rank = zip(*(one["processor_seconds"] for one in self.answers[name]), strict=True)
        return [statistics.median(rank) for rank in by_rank]

    def latency(self, name: str, which: str) -> float | None:
        """The median over the rounds of the mean or largest latency."""
        found = [one["latency"][which] for one in self.answers[name] if one["latency"] is not None]
        return statistics.median(found) if found else None

    def units(self, name: str) -> int:
        """Units of the network of a contestant that works on units."""
        return len(self.told[name]["method"]["gradients_per_clip"])

    def facts(self) -> dict[str, Any]:
        """For the JSON report."""
        return {**self.rounds.facts(), "contestants": self.told, "settings": self._settings}


def _words(facts: dict[str, Any]) -> str:
    return (
        f"{facts['model']} in blocks, width {facts['options'].get('width', 64)}, {facts['micro_batch']} clips of "
        f"{facts['clip_frames']} x {facts['size']} px"
    )
