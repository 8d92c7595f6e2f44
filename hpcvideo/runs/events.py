"""The event log of a run, `events.jsonl`: one JSON object a line, appended by rank 0 and never rewritten.

Every line has `event` and `time` (Unix seconds). The kinds, with their own keys:

start, resume   run, step (first step still to do is step + 1), world_size, nodes, ranks_per_node, global_batch,
                micro_batch, accumulation, steps_per_epoch, total_steps, warmup_steps, base_learning_rate,
                peak_learning_rate, learning_rate_law (words), optimizer ({name and its options}), ema_decay,
                batch_norm_span ({clips, images} that one BatchNorm statistic sees), warnings (sentences), train_samples,
                frames, config_digest, job_id, devices, startup_seconds (since the batch script began, or
                this process), startup: {launch, join, build: seconds of it}; precision, wire, zero (not of a
                pipeline), gradient_bytes (what rank 0 gives into the exchange of gradients a step), gradient_buckets,
                statistics_bytes (BatchNorm's running statistics, which are averaged after every step); of methods on units
                also rule, boundary, update_every, steps_per_clip, gradients_per_clip, receptive_frames
step            step (1-based, just finished), epoch (float), samples (clips since the run's first step), steps (how many
                steps this line covers), loss, lr, gradient_norm,
                seconds: {"step": {min, mean, max}, PHASE: {min, mean, max}, ...}, each the mean of one step over the
                covered steps, spread over ranks; "step" is the wall time of the step, evaluation and checkpoint apart;
                slowest: {rank, node, seconds}, the rank whose own work, without the phases WAITING_PHASES, took longest;
                optional loader: seconds a clip by stage, mean over ranks and the covered steps: {index, read, checksum,
                decode, augment: of one of the loader's workers, wait: of the step}; with recipe.precision fp16 also
                loss_scale (of the last step) and skipped_updates (of the covered steps: gradients overflowed, no weight
                changed)
init            path, sha256, loaded (a sentence): the file that the first weights came from, behind "start"
bad_clip        step, set ("train" or "validation"), shard (file), video, frame (-1 where the shard itself cannot be read),
                reason: a clip whose stored bytes are damaged was skipped (data.on_bad_clip: skip); told with the next step
                line or evaluation
checkpoint      step, seconds (training waited for it), write_seconds (what writing took beside the training), bytes,
                path; with checkpoint.interval auto also interval: {next_step, steps, seconds, cost_seconds, mtbf_hours}.
                Told when it is whole, some steps later than it was begun
staging         a shard set that was copied to the nodes: when ("before" training, which waits for it, or "beside" it), set,
                folder (rank 0's), mode, outcome ("finished" or "stopped"), nodes, shards, copied_shards, kept_shards,
                read_bytes (from the shared file system, all nodes), received_bytes (from other nodes), seconds; in the
                mode partition then one "beside" for each later epoch, of rank 0's node alone: epoch, copied_shards,
                removed_shards, read_bytes, seconds; outcome "failed" has a reason: training reads on from the shared
                file system
statistics      step, micro_batches (of each rank), clips (of all ranks), seconds: BatchNorm's statistics were measured
                (recipe.batch_norm.precise_batches), for the evaluation that follows, whose seconds include these, or for the
                last checkpoint
evaluation      step, seconds, protocol, weights ("trained", or "averaged" with recipe.ema_decay), clips (videos scored),
                left_out (videos of the set that were not, their bytes being damaged), metrics: {name: value}
preemption      step, cause: "TERM", "USR2", "stop file" or "duration" (faults.exit_after_minutes): all was saved after this
                step, and the run stopped; the same command goes on
rollback        step, to_step, reason, skipped_batch: the loss of step `skipped_batch` was bad; the run went back to the
                checkpoint of `to_step` and goes on without that step's batch
straggler       step, rank, node, seconds, median_seconds: a rank's own work took more than 1.5 times that of the others for
                three step lines in a row
warning         sentence: what does not end the run, but somebody should know
end             step, samples, seconds (wall time of this process group since its start), reason ("finished" or other)
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpcvideo.errors import OperationFailed

PHASES = (
    "data_wait",
    "to_device",
    "forward",
    "backward",
    "communication_exposed",
    "pipeline_wait",
    "optimizer",
    "evaluation",
    "checkpoint",
    "staging",
    "startup",
)
"""Phase names, in the order in which reports stack them."""

WAITING_PHASES = ("communication_exposed", "pipeline_wait")
"""Those in which a rank may wait for another one."""


class EventLog:
    """Appends events to one file; each line is flushed to the operating system before `write` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, event: str, **fields: Any) -> None:
        """Append one event. Raises OperationFailed where the line cannot be written (disk full, no permission)."""
        line = json.dumps({"event": event, "time": time.time(), **fields}, allow_nan=True)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                # A killed process may have left half a line: start on a fresh one, so that only that half is lost.
                if file.tell() > 0 and not _ends_with_newline(self.path):
                    file.write("\n")
                file.write(line + "\n")
        except OSError as error:
            raise OperationFailed(
                f"{self.path}: cannot write the event log: {error.strerror}; free space and resume"
            ) from error


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a log in order. Lines cut short by a kill are skipped; a missing file raises FileNotFoundError."""
    with path.open("r", encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(event, dict) and "event" in event:
                yield event
