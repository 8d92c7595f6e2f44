"""Build a shard set from videos: alone or with every rank of an MPI world writing whole shards of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hpcvideo import __version__
from hpcvideo.errors import OperationFailed, Stopped
from hpcvideo.shards.build_lock import BuildLock, forget_lock
from hpcvideo.shards.build_options import BuildOptions, Inputs
from hpcvideo.shards.build_plan import BuildPlan, check_request, list_inputs, make_plan, remove_set
from hpcvideo.shards.encode_shard import Decoding, write_shards
from hpcvideo.shards.format import Quarantined, shard_name
from hpcvideo.shards.manifest import MANIFEST, Manifest, write_manifest
from hpcvideo.shards.plan import PlannedShard, assign_to_ranks
from hpcvideo.shards.ranks import Ranks
from hpcvideo.shards.stopping import StopSignals
from hpcvideo.shards.writer import (
    Unfinished,
    WrittenShard,
    check_shard,
    describe_shard,
    process_name,
    remove_partial_shards,
)

__all__ = ["BuildOptions", "BuildResult", "build_shards"]


@dataclass(frozen=True)
class BuildResult:
    """What rank 0 found at the end; the same on all ranks.

    Of an earlier build, `kept_shards` were there whole; `damaged_shards` were there and are written anew. `missing` of those
    that are quarantined were listed and not there.
    """

    folder: Path
    rank: int
    shards: int
    kept_shards: int
    damaged_shards: int
    videos: int
    frames: int
    bytes: int
    quarantined: tuple[Quarantined, ...]
    missing: int


@dataclass(frozen=True)
class _Share:
    """What one rank has to do: shards to write, and shards of an earlier build to check, with the SHA-256 where known."""

    unfinished: list[PlannedShard]
    found: list[tuple[PlannedShard, str | None]]


@dataclass
class _Part:
    """What one rank brings: its shards, how many of them lay there damaged, and whether it was stopped before the end."""

    written: dict[int, WrittenShard] = field(default_factory=dict)
    damaged: int = 0
    stopped: bool = False


def build_shards(
    source: Path,
    out: Path,
    annotations: Path | None = None,
    labels: Path | None = None,
    options: BuildOptions | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    warn: Callable[[str], None] = lambda sentence: None,
    format: str = "auto",
    subset: str | None = None,
    split: int | None = None,
    missing: Literal["refuse", "skip"] = "refuse",
) -> BuildResult:
    """Turn the videos below `source` into a shard set in `out`; collective under mpiexec and `srun --mpi=pmi2`.

    source, annotations, labels, format, subset, split, missing: see annotations.read_sources. A killed build goes on where
    it was when it is run again: finished shards are kept, and the result is the same to the byte, for any number of ranks
    and workers. A shard of an earlier build is read through before it is kept; a damaged one is written anew. A video that
    does not decode whole, crashes its decoder twice or takes longer than options.video_seconds is left out and listed.
    SIGTERM and SIGUSR2 on any rank (in its main thread) let each rank finish the video it is at, for ten seconds at most;
    what there is of its shard is kept, and Stopped is raised. `progress(done, total)` counts videos over all ranks, on rank
    0, and `warn` is told there of likely mistakes.
    Raises InputError for unusable inputs, options, and for a set in `out` that was made of something else (unless
    `overwrite`, which deletes that set first), or is being built by another; OperationFailed where writing fails, or no
    video at all decodes; Stopped as said.
    """
    options = options or BuildOptions()
    inputs = Inputs(source, annotations, labels, format, subset, split, missing)
    with StopSignals() as signals, ExitStack() as held:
        ranks = Ranks(lambda: signals.received is not None)
        plan: BuildPlan | None = None
        lock: BuildLock | None = None
        done, total = 0, 0

        def prepare() -> None:
            nonlocal plan, lock, done, total
            check_request(inputs, out, options)
            listed = list_inputs(inputs, options)  # before `out` is made: a wrong list leaves nothing behind
            try:
                if not out.exists():
                    out.mkdir(parents=True)
                lock = held.enter_context(BuildLock(out, warn))
                plan = make_plan(inputs, listed, out, options, overwrite)
            except OSError as error:
                raise OperationFailed(
                    f"{error.filename or out}: {error.strerror}; choose an --out folder you can write"
                ) from error
            total = sum(len(shard.sources) for shard in plan.shards)
            done = sum(len(shard.sources) for shard in plan.shards if shard.index in plan.found)
            for sentence in plan.warnings:
                warn(sentence)
            progress(done, total)

        def count(more: int) -> None:
            nonlocal done
            done += more
            progress(done, total)
            if lock is not None:
                lock.check()

        ranks.agree(prepare)
        processes = ranks.all_values(process_name())
        with ranks.guard(lambda: _tidy(out, processes)):
            share = ranks.deal(_shares(plan, ranks.size) if plan is not None else None)
            part = _build(out, share, options, ranks, signals, lambda: ranks.count_one(count))
            gathered = ranks.gather(part, count)

        def finish() -> BuildResult:
            if plan is None:
                raise ValueError("rank 0 has no plan")
            if any(part.stopped for part in gathered):
                raise Stopped(
                    f"stopped by {signals.received or 'a signal'}: {done} of {total} videos are done and kept; the same "
                    "command goes on"
                )
            return _finish(out, plan, gathered)

        result = ranks.agree(finish)
        return BuildResult(**{**vars(result), "rank": ranks.rank})


def _tidy(out: Path, processes: Sequence[str]) -> None:
    remove_partial_shards(out, processes)
    forget_lock(out, processes)


def _shares(plan: BuildPlan, ranks: int) -> list[_Share]:
    found = [plan.shards[index] for index in sorted(plan.found)]
    to_write, to_check = assign_to_ranks(plan.unfinished(), ranks), assign_to_ranks(found, ranks)
    return [
        _Share(write, [(shard, plan.found[shard.index]) for shard in check])
        for write, check in zip(to_write, to_check, strict=True)
    ]


def _build(
    out: Path, share: _Share, options: BuildOptions, ranks: Ranks, signals: StopSignals, video_done: Callable[[], None]
) -> _Part:
    """One rank's work."""
    part = _Part()
    decoding = Decoding(options.workers or ranks.own_cores(), options.video_seconds)

    def write(shards: Sequence[PlannedShard], video_done: Callable[[], None]) -> None:
        writing = write_shards(
            out, shards, options.encoding(), decoding, video_done, ranks.stopping,
            lambda: signals.patience_is_over(ranks.stopping()),
        )  # fmt: skip
        for shard, written in zip(shards, writing, strict=True):
            part.written[shard.index] = written

    try:
        write(share.unfinished, video_done)
        damaged = []
        for shard, sha256 in share.found:
            if ranks.stopping():
                raise Unfinished
            whole = _whole_shard(out, shard, sha256)
            if whole is None:
                damaged.append(shard)
            else:
                part.written[shard.index] = whole
        part.damaged = len(damaged)
        write(damaged, lambda: None)
    except Unfinished:
        part.stopped = True
    return part


def _whole_shard(out: Path, shard: PlannedShard, sha256: str | None) -> WrittenShard | None:
    """A shard of an earlier build, None where it is damaged: told by the manifest's SHA-256, or by its own checksums."""
    path = out / shard_name(shard.index)
    try:
        if sha256 is None:
            check_shard(path, [source.id for source in shard.sources])
        found = describe_shard(path, path.name)
    except (OSError, OperationFailed):
        return None
    return found if sha256 in (None, found.entry.sha256) else None


def _finish(out: Path, plan: BuildPlan, gathered: Sequence[_Part]) -> BuildResult:
    """Rank 0: put the ranks' shards together and write the manifest."""
    written = {index: shard for part in gathered for index, shard in part.written.items()}
    shards = [written[shard.index] for shard in plan.shards]
    broken = tuple(entry for shard in shards for entry in shard.quarantined)
    if not any(shard.entry.videos for shard in shards):
        with suppress(OSError):
            remove_set(out)
        raise OperationFailed(
            f"{plan.arguments['source']}: none of the {len(broken)} videos decodes; "
            f"the first, {broken[0].source}: {broken[0].reason}"
        )
    manifest = Manifest(
        tuple(shard.entry for shard in shards), plan.label_names, plan.arguments, (*plan.skipped, *broken), plan.digest,
        __version__,
    )  # fmt: skip
    try:
        write_manifest(out, manifest)
    except OSError as error:
        raise OperationFailed(
            f"{out / MANIFEST}: {error.strerror}; free some space and run the same command again: all shards are kept"
        ) from error
    damaged = sum(part.damaged for part in gathered)
    return BuildResult(
        folder=out,
        rank=0,
        shards=len(manifest.shards),
        kept_shards=len(plan.found) - damaged,
        damaged_shards=plan.damaged + damaged,
        videos=sum(shard.videos for shard in manifest.shards),
        frames=sum(shard.frames for shard in manifest.shards),
        bytes=sum(shard.bytes for shard in manifest.shards),
        quarantined=manifest.quarantined,
        missing=len(plan.skipped),
    )
