"""The demo's steps. Each is a real command in processes of its own, as a user would type it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hpcvideo.cli.progress import bar
from hpcvideo.config.load import find_config
from hpcvideo.data.synthetic import DIRECTIONS, write_motion_videos
from hpcvideo.distributed.environment import child_variables, without_launcher
from hpcvideo.errors import InputError, OperationFailed

SHIFT, NO_SHIFT = "demo/tsm_r18_local", "demo/tsn_r18_local"
RANKS = 2
TRAIN_VIDEOS, VALIDATION_VIDEOS, SEED = 1024, 256, 1
SCALING_STEPS = 24
LEAST_WITH_SHIFT, MOST_WITHOUT = 0.90, 0.30


@dataclass(frozen=True)
class Outcome:
    """What demo.json holds. Accuracies are fractions of the held-out videos; `seconds` is wall time by part."""

    tsm_top1: float
    no_shift_top1: float
    chance: float
    protocol: str
    validation_clips: int
    tsm_at_least: float
    no_shift_at_most: float
    holds: bool
    seconds: dict[str, float]
    videos: str
    shards: str
    runs: str
    report: str


class _Demo:
    """Runs the parts one after another, timing each and keeping its output in `out/logs`."""

    def __init__(self, out: Path, console: Console) -> None:
        self.out, self.console = out, console
        self.timing = out / "seconds.json"
        self.seconds: dict[str, float] = json.loads(self.timing.read_text()) if self.timing.is_file() else {}
        self.mpiexec = _find_mpiexec()

    def part(self, name: str, work: Callable[[], None]) -> None:
        started = time.monotonic()
        work()
        # A demo that is run again skips what is done; what a part took is its longest run.
        self.seconds[name] = max(self.seconds.get(name, 0.0), round(time.monotonic() - started, 1))
        self.out.mkdir(parents=True, exist_ok=True)
        self.timing.write_text(json.dumps(self.seconds))

    def videos(self, split: str, count: int, seed: int) -> None:
        """Write one split's videos, unless an earlier demo has."""
        folder = self.out / "videos" / split
        wanted = {"videos": count, "seed": seed}
        done = folder / "complete.json"
        if done.is_file() and json.loads(done.read_text()) == wanted:
            return
        with bar(self.console) as progress:
            task = progress.add_task(f"{split} videos", total=count)
            write_motion_videos(folder, count, seed, progress=lambda written, _: progress.update(task, completed=written))
        done.write_text(json.dumps(wanted))

    def shards(self, split: str, extra: Sequence[str] = ()) -> None:
        source = self.out / "videos" / split
        target = self.out / "shards" / split
        build = [
            "shards", "build", str(source), "--annotations", str(source / "videos.csv"), "--out", str(target),
            "--quality", "90", "--videos-per-shard", "128", "--strict", "--json", *extra,
        ]  # fmt: skip
        with self.console.status(f"{split} shards on {RANKS} ranks"):
            self.run(f"shards-{split}", build, RANKS)
            self.run(f"verify-{split}", ["shards", "verify", str(target), "--json"])
        made = json.loads((target / "manifest.json").read_text())
        self.console.print(f"{split} shards: {len(made['shards'])}, verified", highlight=False)

    def train(self, config: str, run: str, ranks: int, extra: Sequence[str] = ()) -> None:
        folder = str(self.out / "runs" / run)
        arguments = ["train", str(find_config(config)), "--run", folder, "--json", *self.data(), *extra]
        with bar(self.console) as progress:
            task = progress.add_task(f"{run} on {ranks} ranks" if ranks > 1 else f"{run} on 1 rank", total=None)

            def listen(line: str) -> None:
                if line.startswith("{"):
                    event = json.loads(line)
                    total = event.get("total_steps")
                    progress.update(task, completed=event["step"], **({"total": total} if total else {}))

            self.run(run, arguments, ranks, listen)

    def data(self) -> list[str]:
        shards = self.out / "shards"
        return ["--set", f"data.train={shards / 'train'}", "--set", f"data.validation={shards / 'validation'}"]

    def evaluate(self, run: str) -> dict[str, Any]:
        lines: list[str] = []
        with self.console.status(f"evaluation of {run} on {RANKS} ranks"):
            self.run(f"evaluate-{run}", ["evaluate", str(self.out / "runs" / run), "--json"], RANKS, lines.append)
        answer: dict[str, Any] = json.loads(next(line for line in reversed(lines) if line.startswith("{")))
        return answer

    def run(
        self, name: str, arguments: Sequence[str], ranks: int = 1, listen: Callable[[str], None] = lambda line: None
    ) -> None:
        """One command, on `ranks` processes of one thread each. Raises OperationFailed with the end of its output."""
        command = [sys.executable, "-m", "hpcvideo", *arguments]
        if ranks > 1:
            command = [self.mpiexec, "-n", str(ranks), *command]
        log = self.out / "logs" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        # One thread a rank at every scale: else one rank would take all cores and the scaling would say nothing.
        variables = without_launcher(child_variables(OMP_NUM_THREADS="1"))
        with log.open("w") as file:
            file.write(" ".join(command) + "\n")
            file.flush()
            process = subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=file, text=True)
            assert process.stdout is not None
            for line in process.stdout:
                file.write(line)
                file.flush()
                listen(line)
            code = process.wait()
        if code:
            end = " | ".join(log.read_text().strip().splitlines()[-3:])
            raise OperationFailed(f"demo: {name} ended with exit code {code} ({end}); all of its output: {log}")


def run_demo(out: Path, as_json: bool) -> None:
    """Run all parts into `out` and print the table. Raises OperationFailed where a part fails or a target is missed."""
    console = Console(stderr=as_json)
    demo = _Demo(out, console)
    scaling = ["--set", f"recipe.steps={SCALING_STEPS}", "--set", "recipe.epochs=null", "--set", "recipe.warmup_epochs=0",
               "--set", "logging.every_steps=1", "--set", "data.validation=null"]  # fmt: skip
    demo.part("videos", lambda: demo.videos("train", TRAIN_VIDEOS, SEED))
    demo.part("validation videos", lambda: demo.videos("validation", VALIDATION_VIDEOS, SEED + 1))
    demo.part("shards", lambda: demo.shards("train"))
    labels = ["--labels", str(out / "shards" / "train" / "manifest.json")]
    demo.part("validation shards", lambda: demo.shards("validation", labels))
    demo.part("tsm", lambda: demo.train(SHIFT, "tsm", RANKS))
    demo.part("no_shift", lambda: demo.train(NO_SHIFT, "no_shift", RANKS))
    scores: dict[str, dict[str, Any]] = {}
    demo.part("evaluation", lambda: scores.update({run: demo.evaluate(run) for run in ("tsm", "no_shift")}))
    scales = {f"scaling-{ranks}": ranks for ranks in (1, RANKS)}
    for run, ranks in scales.items():
        demo.part(run, lambda run=run, ranks=ranks: demo.train(SHIFT, run, ranks, scaling))  # type: ignore[misc]
    runs = [str(out / "runs" / run) for run in scales]
    demo.part("report", lambda: demo.run("report", ["report", *runs, "--out", str(out / "report")]))

    tsm, no_shift = (scores[run]["metrics"]["top1"] for run in ("tsm", "no_shift"))
    outcome = Outcome(
        tsm_top1=tsm,
        no_shift_top1=no_shift,
        chance=1 / len(DIRECTIONS),
        protocol=scores["tsm"]["protocol"],
        validation_clips=scores["tsm"]["clips"],
        tsm_at_least=LEAST_WITH_SHIFT,
        no_shift_at_most=MOST_WITHOUT,
        holds=tsm >= LEAST_WITH_SHIFT and no_shift <= MOST_WITHOUT,
        seconds=demo.seconds,
        videos=str(out / "videos"),
        shards=str(out / "shards"),
        runs=str(out / "runs"),
        report=str(out / "report" / "index.html"),
    )
    text = json.dumps(asdict(outcome), indent=1)
    (out / "demo.json").write_text(text + "\n")
    if as_json:
        print(text)
    else:
        _print_outcome(console, outcome, out)
    if not outcome.holds:
        raise OperationFailed(
            f"demo: the targets are missed (TSM {tsm:.1%}, at least {LEAST_WITH_SHIFT:.0%}; no shift {no_shift:.1%}, "
            f"at most {MOST_WITHOUT:.0%}; {outcome.protocol}); see {out / 'logs'}"
        )


def _print_outcome(console: Console, outcome: Outcome, out: Path) -> None:
    table = Table(title="Direction of motion")
    for column, justify in (("model", "left"), ("top-1", "right"), ("target", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    table.add_row("TSM ResNet-18 (small)", f"{outcome.tsm_top1:.1%}", f">= {outcome.tsm_at_least:.0%}")
    table.add_row("the same without shift", f"{outcome.no_shift_top1:.1%}", f"<= {outcome.no_shift_at_most:.0%}")
    table.add_row("chance", f"{outcome.chance:.1%}", "")
    console.print(table)
    console.print(f"on {outcome.validation_clips} held-out videos, {outcome.protocol}", highlight=False)
    places = {
        "videos": outcome.videos,
        "shards": outcome.shards,
        "runs": outcome.runs,
        "scaling report": outcome.report,
        "numbers": str(out / "demo.json"),
    }
    for name, place in places.items():
        path = Path(place)
        shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        console.print(f"{name:<15}{shown}", highlight=False, soft_wrap=True)
    console.print(f"{'time':<15}{sum(outcome.seconds.values()):.0f} s", highlight=False)


def _find_mpiexec() -> str:
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.is_file() else shutil.which("mpiexec")
    if found is None:
        raise InputError("the demo needs mpiexec: pip install mpich into this environment, or load your site's MPI module")
    return found
