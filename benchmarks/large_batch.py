"""Whether 16 times the batch loses accuracy, on the demo's directions of motion: the small batch, the large one by the
recipe (rate scaled linearly, warm-up), the large one without warm-up, and TSN, which cannot see motion.

    python benchmarks/large_batch.py [--quick] [--json FILE] [--seeds N]

Every run is `hpcvideo train` on the demo's configs, 2 ranks of one thread, the same epochs, and micro-batches of 4 clips
for all, so that BatchNorm sees as many clips in each; blocks start as the identity (zero-gamma). Scores are those of
held-out videos; see docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from command_line import timed_teller
from contestant import ContestantFailed
from material import mpiexec
from report import Claim, machine, show

from hpcvideo.config.load import find_config
from hpcvideo.data.synthetic import write_motion_videos
from hpcvideo.distributed.environment import child_variables, without_launcher

_RANKS, _MICRO = 2, 4
_SMALL, _TIMES = 8, 16
_CHANCE = 1 / 8
_PACKAGES = ("hpcvideo", "torch", "deepspeed", "numpy")


@dataclass(frozen=True)
class Scale:
    """How much is trained. Warm-up of all runs but the one without is a fifth of their epochs."""

    train_videos: int
    held_out_videos: int
    epochs: int

    @property
    def warmup_epochs(self) -> float:
        return self.epochs / 5

    def updates(self, batch: int) -> int:
        """Steps of a run of that batch."""
        return self.epochs * self.train_videos // batch


FULL, QUICK = Scale(1024, 512, 32), Scale(256, 128, 4)


@dataclass(frozen=True)
class Run:
    """One kind of run: the demo's config, its global batch, and whether the rate is warmed up."""

    config: str
    batch: int
    warm: bool


RUNS = {
    "small batch": Run("demo/tsm_r18_local", _SMALL, True),
    "large batch": Run("demo/tsm_r18_local", _SMALL * _TIMES, True),
    "large batch without warm-up": Run("demo/tsm_r18_local", _SMALL * _TIMES, False),
    "TSN": Run("demo/tsn_r18_local", _SMALL, True),
}


class Bench:
    """The videos and shards, and runs on them, below `folder`."""

    def __init__(self, folder: Path, scale: Scale, tell: Callable[[str], None]) -> None:
        self.folder, self.scale, self.tell = folder, scale, tell
        self._variables = without_launcher(child_variables(OMP_NUM_THREADS="1", DS_LOG_LEVEL="warning"))
        self._train = self._make("train", scale.train_videos, 1)
        self._held_out = self._make("validation", scale.held_out_videos, 2)

    def _make(self, split: str, videos: int, seed: int) -> Path:
        source, out = self.folder / "videos" / split, self.folder / "shards" / split
        write_motion_videos(source, videos, seed)
        labels = ["--labels", self.folder / "shards" / "train" / "manifest.json"] if split == "validation" else []
        build = ["shards", "build", source, "--annotations", source / "videos.csv", "--out", out, "--quality", "90", *labels]
        self._command([*build, "--videos-per-shard", "128", "--strict"], 1)
        self.tell(f"{split}: {videos} videos")
        return out

    def score(self, name: str, run: Run, seed: int) -> dict[str, Any]:
        """Train one run; its top-1 on the held-out videos, steps, peak rate and seconds. Raises ContestantFailed."""
        folder = self.folder / "runs" / f"{name.replace(' ', '-')}-{seed}"
        settings = {
            "seed": seed, "data.train": self._train, "data.validation": self._held_out, "recipe.global_batch": run.batch,
            "recipe.micro_batch": _MICRO, "recipe.epochs": self.scale.epochs,
            "recipe.warmup_epochs": self.scale.warmup_epochs if run.warm else 0,
            "model.options.channels_last": "true", "model.options.zero_gamma": "true", "checkpoint.every_epochs": "null",
            "logging.every_steps": 64,
        }  # fmt: skip
        changes = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        begin = time.monotonic()
        self._command(["train", find_config(run.config), "--run", folder, *changes], _RANKS)
        events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
        start = next(event for event in events if event["event"] == "start")
        evaluation = [event for event in events if event["event"] == "evaluation"][-1]
        assert evaluation["clips"] == self.scale.held_out_videos
        found = {
            "top1": evaluation["metrics"]["top1"],
            "updates": start["total_steps"],
            "peak_learning_rate": start["peak_learning_rate"],
            "accumulation": start["accumulation"],
            "seconds": round(time.monotonic() - begin, 1),
        }
        self.tell(f"{name}, seed {seed}: top-1 {found['top1']:.1%} after {found['updates']} steps, {found['seconds']} s")
        shutil.rmtree(folder)
        return found

    def _command(self, arguments: Sequence[str | Path | int], ranks: int) -> None:
        launcher = [str(mpiexec()), "-n", str(ranks)] if ranks > 1 else []
        command = [*launcher, sys.executable, "-m", "hpcvideo", *map(str, arguments)]
        done = subprocess.run(command, env=self._variables, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ContestantFailed(" | ".join(done.stderr.strip().splitlines()[-3:])[-600:])


def measure(bench: Bench, seeds: Sequence[int]) -> list[Claim]:
    """Every run with every seed, seeds in the outer row, and what follows from them."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in RUNS}
    for seed in seeds:
        for name, run in RUNS.items():
            found[name].append(bench.score(name, run, seed))
    mean = {name: statistics.mean(one["top1"] for one in runs) for name, runs in found.items()}
    scale = bench.scale
    # Three standard errors of a guess above chance.
    guess = round(_CHANCE + 3 * (_CHANCE * (1 - _CHANCE) / scale.held_out_videos / len(seeds)) ** 0.5, 3)
    large = RUNS["large batch"].batch
    how = (
        f"top-1 of {scale.held_out_videos} held-out videos (1 clip x 1 centre crop), mean of {len(seeds)} seeds, directions "
        f"of motion, {scale.train_videos} training videos, {scale.epochs} epochs; batch {_SMALL} ({scale.updates(_SMALL)} "
        f"updates) and {large} ({scale.updates(large)} updates, {large / scale.train_videos:.1%} of the set a step), rate "
        f"in proportion to the batch, warm-up of {scale.warmup_epochs:g} epochs, micro-batches of {_MICRO}"
    )
    details = {
        "seeds": list(seeds),
        "top1_mean": {name: round(value, 4) for name, value in mean.items()},
        "runs": found,
        "published_for_comparison": "12,288 clips are 5.1 % of Kinetics a step, about 1,953 updates",
    }
    tsn = f"TSN, the same network without the shift; chance is {_CHANCE:.1%}, the bound three standard errors above"
    beside = {"large_minus_no_warmup_top1": round(mean["large batch"] - mean["large batch without warm-up"], 4)}
    return [
        Claim("tsm_top1", mean["small batch"], "", ">= 0.95", "chance", f"small batch: {how}", details),
        Claim("tsn_top1", mean["TSN"], "", f"<= {guess}", "chance", f"{tsn}: {how}", {}),
        Claim("small_minus_large_top1", mean["small batch"] - mean["large batch"], "", "<= 0.02", "small", how, beside),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="256 videos and 4 epochs: shows that it runs, and no more")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there instead of printing a table")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="runs of each kind (1; each takes minutes)")
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error(f"--seeds {options.seeds}: 1 or more expected")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the run in hand is ended and the folder removed then too
    begin = time.monotonic()
    tell = timed_teller()
    environment = machine(_PACKAGES, sorted(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory(prefix="hpcvideo-large-batch-") as folder:
        claims = measure(Bench(Path(folder), QUICK if options.quick else FULL, tell), range(1, options.seeds + 1))
    show(claims, environment, time.monotonic() - begin, options.json)


if __name__ == "__main__":
    main()
