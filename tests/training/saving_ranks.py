"""Scenes of saving and resuming on several ranks, each rank a process of its own over gloo, with a real model and loader.

    python -m tests.training.saving_ranks SCENES.json      a list of scenes, played one after another

One process imports torch and DeepSpeed and forks the ranks of each scene. A rank writes what it saw to OUT.RANK; the exit
codes of all ranks go to OUT.codes, since in some scenes ranks die.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from hpcvideo.config import load_config
from hpcvideo.distributed.environment import discover
from hpcvideo.distributed.process_group import joined
from hpcvideo.errors import OperationFailed
from hpcvideo.runs import RunDirectory
from hpcvideo.runs.phases import PhaseClock
from hpcvideo.training import background_save, checkpoint, checkpoint_buffer
from hpcvideo.training.build import build_run
from hpcvideo.training.check import check_run
from hpcvideo.training.checkpoint import PARTS, read_checkpoint
from hpcvideo.training.saving import Saver
from tests.forked_ranks import fork_ranks, wait_for_all


class Stage:
    """One rank of a scene: the saver, the events it logged, and steps of real training."""

    def __init__(self, scene: dict[str, Any], place: Any, device: Any) -> None:
        config = load_config(Path(scene["config"]), scene.get("set", []))
        plan = check_run(config, place.world_size)
        self.directory = RunDirectory(Path(scene["run"]))
        self.parts, self.rank = build_run(config, plan, place, device), place.rank
        self.events: list[dict[str, Any]] = []
        self.signs = 0
        self.really: Callable[[], bool] | None = None
        self.saver = Saver(config, plan, place, device, self.parts, self.directory, self._log, self._alive, self._waiting)
        self.resumed = self.saver.resume()
        self.step = self.resumed or 0
        split = plan.split
        self._batches = iter(self.parts.train.training(split.global_batch, self.step, 1000, split.micro_batch))

    def _log(self, event: str, **fields: Any) -> None:
        self.events.append({"event": event, **fields})

    def _alive(self) -> None:
        self.signs += 1

    @contextmanager
    def _waiting(self, really: Callable[[], bool] = lambda: True) -> Iterator[None]:
        self.really = really
        yield
        self.really = None

    def train(self, steps: int = 1) -> None:
        for _ in range(steps):
            self.parts.method.set_learning_rate(0.05)
            self.parts.method.step(self._batches, self.step, PhaseClock())
            self.parts.method.average_statistics()
            self.step += 1
            self.saver.at_step(self.step)

    def state(self) -> dict[str, dict[str, torch.Tensor]]:
        method = self.parts.method
        parts = zip(PARTS, (method.weights(), method.optimizer_state(), method.extra_state()), strict=True)
        return {part: {name: tensor.clone() for name, tensor in named.items()} for part, named in parts}

    def latest(self) -> str | None:
        file = self.directory.checkpoints / "latest"
        return file.read_text() if file.exists() else None

    def together(self) -> None:
        dist.barrier()


def beside(stage: Stage) -> dict[str, Any]:
    """A checkpoint whose writing is held back: training goes on, and what is stored is the state when it was begun."""
    gate, write = threading.Event(), checkpoint_buffer._write
    checkpoint_buffer._write = lambda *arguments: (gate.wait(), write(*arguments))[1]  # type: ignore[func-returns-value]
    stage.train(2)
    stage.saver.notes["left_out"] = [1]
    then = stage.state()
    stage.saver.save(2)
    own = [file.name for file, _, _ in stage.saver._buffer._files]
    stage.train(3)
    held = [stage.latest(), list(stage.events)]
    if stage.rank == 0:
        gate.set()
    stage.train(3)
    half = [stage.latest(), list(stage.events)]
    gate.set()
    while stage.saver._under_way is not None:
        stage.train()
        stage.saver._under_way and stage.saver._under_way[0]._thread.join(0.05)
    stage.together()
    read = read_checkpoint(stage.directory.checkpoints / "step-2")
    same = all(
        torch.equal(getattr(read, part)[name], tensor) for part, named in then.items() for name, tensor in named.items()
    )
    now = stage.state()
    moved = sum(not torch.equal(now["weights"][name], tensor) for name, tensor in then["weights"].items())
    counts = {part: (len(getattr(read, part)), len(named)) for part, named in then.items()}
    stage.saver.save(stage.step)
    stage.saver.save(stage.step)  # the same once more: nothing to do
    stage.saver.finish()
    return {
        "own": own, "held": held, "half": half, "same": same, "moved": moved, "counts": counts, "events": stage.events,
        "notes": dict(read.facts.notes), "latest": stage.latest(), "step": stage.step,
    }  # fmt: skip


def stuck(stage: Stage) -> dict[str, Any]:
    """All wait for the disk of rank 1, which does not answer; a file lets it go on."""
    gate, write = stage.directory.path / "gate", checkpoint_buffer.os.write
    seen: dict[str, Any] = {}

    def silent(descriptor: int, chunk: memoryview) -> int:
        while threading.current_thread().name == "checkpoint" and not gate.exists():
            time.sleep(0.01)
        return write(descriptor, chunk)

    def watch() -> None:
        written = stage.directory.path / "written"  # by rank 0
        while stage.saver._under_way is None or not written.exists():
            if stage.rank == 0 and stage.saver._under_way is not None and not stage.saver._under_way[0].at_work:
                written.touch()
            time.sleep(0.01)
        time.sleep(1)  # for that to be told
        before = stage.signs
        time.sleep(1)
        seen.update(signs=stage.signs - before, waits=stage.really is not None and stage.really())
        (stage.directory.path / f"seen-{stage.rank}").touch()
        if stage.rank == 0:
            while not (stage.directory.path / "seen-1").exists():
                time.sleep(0.01)
            gate.touch()

    if stage.rank == 1:
        checkpoint_buffer.os.write = silent  # type: ignore[assignment]
    stage.directory.path.mkdir(exist_ok=True)
    watcher = threading.Thread(target=watch)
    watcher.start()
    stage.train()
    stage.saver.save(1)
    stage.saver.finish()
    watcher.join()
    return {**seen, "all_signs": stage.signs, "latest": stage.latest()}


def full_disk(stage: Stage) -> dict[str, Any]:
    """The disk is full for the second checkpoint, has room for the third, and is full for the last."""
    filler = stage.directory.path / "filler"

    def fill() -> None:
        stage.together()
        if stage.rank == 0:
            room = os.statvfs(stage.directory.path)
            filler.write_bytes(bytes(max(0, room.f_bavail * room.f_frsize - (64 << 10))))
        stage.together()

    def free() -> None:
        stage.together()
        if stage.rank == 0:
            filler.unlink()
        stage.together()

    def settle() -> str | None:
        while stage.saver._under_way is not None:
            stage.train()
        return stage.latest()

    stage.train()
    stage.saver.save(1)
    found = [settle()]
    fill()
    stage.saver.save(stage.step)
    failed = stage.step
    found.append(settle())
    stage.together()  # rank 0 clears away
    remains = [path.name for path in stage.directory.checkpoints.iterdir() if path.name.startswith(".")]
    free()
    stage.saver.save(stage.step)
    found.append(settle())
    fill()
    stage.train()
    stage.saver.save(stage.step)
    said = ""
    try:
        stage.saver.finish()
    except OperationFailed as error:
        said = str(error)
    latest = stage.latest()
    free()
    stage.saver.save(stage.step)  # the same step once more, as a run does at its end
    stage.saver.finish()
    return {
        "found": found, "failed": failed, "events": stage.events, "said": said, "latest": [latest, stage.latest()],
        "remains": remains, "step": stage.step,
    }  # fmt: skip


def full_at_once(stage: Stage) -> dict[str, Any]:
    """There is no room for the very first checkpoint."""
    if stage.rank == 0:
        stage.directory.path.mkdir(exist_ok=True)
        room = os.statvfs(stage.directory.path)
        (stage.directory.path / "filler").write_bytes(bytes(max(0, room.f_bavail * room.f_frsize - (64 << 10))))
    stage.together()
    stage.train()
    stage.saver.save(1)
    said = ""
    try:
        while stage.saver._under_way is not None:
            stage.train()
    except OperationFailed as error:
        said = str(error)
    return {"said": said, "latest": stage.latest()}


def _dies(stage: Stage, where: Any, name: str, rank: int, after: int = 0) -> dict[str, Any]:
    """One whole checkpoint; then a rank is gone at the `after`th call of a function, while the second is written."""
    stage.train()
    stage.saver.save(1)
    stage.saver.finish()
    real, calls = getattr(where, name), [0]

    def deadly(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] > after:
            os._exit(9)
        return real(*arguments, **options)

    if stage.rank == rank:
        setattr(where, name, deadly)
    stage.train()
    stage.saver.save(2)
    stage.saver.finish()
    return {}


def rank_1_dies_writing(stage: Stage) -> dict[str, Any]:
    return _dies(stage, checkpoint_buffer.os, "write", rank=1)


def rank_0_dies_before_the_rename(stage: Stage) -> dict[str, Any]:
    return _dies(stage, background_save, "complete_checkpoint", rank=0)


def rank_0_dies_before_latest(stage: Stage) -> dict[str, Any]:
    return _dies(stage, checkpoint, "point_to", rank=0)


def another_job_takes_over(stage: Stage) -> dict[str, Any]:
    """Rank 0 sees that as it is about to complete the second checkpoint."""
    stage.train()
    stage.saver.save(1)
    stage.saver.finish()

    def refuse() -> None:
        raise OperationFailed("taken over")

    if stage.rank == 0:
        stage.saver._permit = refuse
    stage.train()
    stage.saver.save(2)
    stage.saver.finish()
    return {}


def look(stage: Stage) -> dict[str, Any]:
    """What a new start finds; one more checkpoint."""
    resumed, events = stage.resumed, list(stage.events)
    listed = sorted(path.name for path in stage.directory.checkpoints.glob("*"))  # none in a new run
    notes = dict(stage.saver.notes)
    own = sum(float(tensor.double().sum()) for tensor in stage.state()["weights"].values())
    stage.train()
    stage.saver.save(stage.step)
    stage.saver.finish()
    after = sorted(path.name for path in stage.directory.checkpoints.iterdir())
    return {"resumed": resumed, "events": events, "listed": listed, "after": after, "sum": own, "notes": notes}


def back(stage: Stage) -> dict[str, Any]:
    """Back to the last checkpoint in mid-run, while a newer one is still being written: that one is it."""
    stage.train()
    stage.saver.save(1)
    stage.saver.finish()
    stage.train()
    then = stage.state()
    stage.saver.save(2)
    stage.train(2)
    step = stage.saver.resume()
    same = all(torch.equal(then["weights"][name], tensor) for name, tensor in stage.state()["weights"].items())
    return {"step": step, "same": same, "due": stage.saver.due(10**9)}


def automatic(stage: Stage) -> dict[str, Any]:
    """The interval is found by itself."""
    saved = []
    for _ in range(24):
        stage.train()
        if stage.saver.due(stage.step):
            saved.append(stage.step)
            stage.saver.save(stage.step)
    stage.saver.finish()
    return {"saved": saved, "events": stage.events, "facts": stage.saver.facts()}


def refused(scene: dict[str, Any], place: Any, device: Any) -> dict[str, Any]:
    """No checkpoint is whole."""
    try:
        Stage(scene, place, device)
    except OperationFailed as error:
        return {"said": str(error), "listed": sorted(path.name for path in Path(scene["run"], "checkpoints").iterdir())}
    return {"said": "nothing"}


SCENES: dict[str, Callable[[Stage], dict[str, Any]]] = {
    scene.__name__: scene
    for scene in (
        beside, stuck, full_disk, full_at_once, rank_1_dies_writing, rank_0_dies_before_the_rename,
        rank_0_dies_before_latest, another_job_takes_over, look, back, automatic,
    )
}  # fmt: skip


def play(scene: dict[str, Any], rank: int) -> None:
    """One rank's part."""
    place = discover()
    with joined(place) as device:
        if scene["scene"] == "refused":
            Path(f"{scene['out']}.{rank}").write_text(json.dumps(refused(scene, place, device)))
            return
        stage = Stage(scene, place, device)
        with stage.parts.train:
            seen = SCENES[scene["scene"]](stage)
        Path(f"{scene['out']}.{rank}").write_text(json.dumps(seen))


if __name__ == "__main__":
    os.environ.update(DS_ACCELERATOR="cpu", DS_LOG_LEVEL="warning", OMP_NUM_THREADS="1")
    import torch._dynamo  # imported here for all ranks, as is DeepSpeed: the first optimizer would do it

    import hpcvideo.methods.pipeline.method  # noqa: F401

    for chosen in json.loads(Path(sys.argv[1]).read_text()):
        started = fork_ranks(chosen["ranks"], lambda rank, scene=chosen: play(scene, rank), **chosen.get("environment", {}))
        Path(f"{chosen['out']}.codes").write_text(json.dumps(wait_for_all(started)))
