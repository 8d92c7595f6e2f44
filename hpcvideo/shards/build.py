"""Build a shard set from videos: alone or with every rank of an MPI world writing whole shards of its own."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2

from hpcvideo import __version__
from hpcvideo.errors import InputError, OperationFailed
from hpcvideo.shards.annotations.read import read_sources
from hpcvideo.shards.encode_shard import write_shard
from hpcvideo.shards.format import Encoding, Quarantined, shard_index, shard_name
from hpcvideo.shards.inputs.source import Source
from hpcvideo.shards.manifest import (
    MANIFEST,
    DamagedManifest,
    Manifest,
    ShardEntry,
    read_manifest,
    size_problem,
    write_manifest,
)
from hpcvideo.shards.plan import PlannedShard, assign_to_ranks, plan_digest, plan_shards
from hpcvideo.shards.ranks import Ranks
from hpcvideo.shards.tables import read_plan
from hpcvideo.shards.writer import (
    WrittenShard,
    check_shard,
    describe_shard,
    process_name,
    remove_partial_shards,
)

_DYING_SECONDS = 3.0


@dataclass(frozen=True)
class BuildOptions:
    """How to build. `short_side` in pixels, `quality` of JPEG (1..100), `shard_megabytes` in MiB, `seed` of the shuffle."""

    short_side: int = 256
    quality: int = 85
    shard_megabytes: int = 2048
    videos_per_shard: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class BuildResult:
    """What rank 0 found at the end; the same on all ranks.

    Of an earlier build, `kept_shards` were there whole; `damaged_shards` were there and are written anew.
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


@dataclass(frozen=True)
class _Plan:
    """`found`: the SHA-256 that a manifest states of each shard that seems whole, None where there is no manifest."""

    shards: tuple[PlannedShard, ...]
    found: dict[int, str | None]
    damaged: int
    label_names: tuple[str, ...]
    digest: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Part:
    """What one rank brings: its shards, and how many of them lay there damaged."""

    written: dict[int, WrittenShard]
    damaged: int


def build_shards(
    source: Path,
    out: Path,
    annotations: Path | None = None,
    labels: Path | None = None,
    options: BuildOptions | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    warn: Callable[[str], None] = lambda sentence: None,
) -> BuildResult:
    """Turn the videos below `source` into a shard set in `out`; collective under mpiexec and `srun --mpi=pmi2`.

    annotations, labels: see annotations.read_sources. A killed build goes on where it was when it is run again: finished
    shards are kept, and the result is the same to the byte, for any number of ranks. A shard of an earlier build is read
    through before it is kept; a damaged one is written anew. A video that does not decode whole is left out and listed.
    `progress(done, total)` counts videos over all ranks, on rank 0, and `warn` is told there of likely mistakes.
    Raises InputError for unusable inputs, options, and for a set in `out` that was made of something else (unless
    `overwrite`, which deletes that set first); OperationFailed where writing fails, or no video at all decodes.
    """
    options = options or BuildOptions()
    ranks = Ranks()
    cv2.setNumThreads(1)  # ranks are the parallelism; frames this small only lose by more threads
    encoding = Encoding(options.short_side, options.quality)
    plan = ranks.agree(lambda: _prepare(source, out, annotations, labels, options, encoding, overwrite))
    total = sum(len(shard.sources) for shard in plan.shards)
    done = sum(len(shard.sources) for shard in plan.shards if shard.index in plan.found)
    if ranks.rank == 0:
        for sentence in plan.warnings:
            warn(sentence)
        progress(done, total)

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(done, total)

    processes = ranks.all_names(process_name())
    with ranks.guard(lambda: remove_partial_shards(out, processes)):
        todo = [shard for shard in plan.shards if shard.index not in plan.found]
        written = {
            shard.index: write_shard(out, shard, encoding, lambda: ranks.count_one(count))
            for shard in assign_to_ranks(todo, ranks.size)[ranks.rank]
        }
        damaged = 0
        found = [plan.shards[index] for index in sorted(plan.found)]
        for shard in assign_to_ranks(found, ranks.size)[ranks.rank]:
            whole = _whole_shard(out, shard, plan.found[shard.index])
            damaged += whole is None
            written[shard.index] = whole or write_shard(out, shard, encoding)
        gathered = ranks.gather(_Part(written, damaged), count)
    manifest, damaged = ranks.agree(
        lambda: (
            _finish(out, plan, gathered, _arguments(source, annotations, labels, options)),
            sum(part.damaged for part in gathered),
        )
    )
    return BuildResult(
        folder=out,
        rank=ranks.rank,
        shards=len(manifest.shards),
        kept_shards=len(plan.found) - damaged,
        damaged_shards=plan.damaged + damaged,
        videos=sum(shard.videos for shard in manifest.shards),
        frames=sum(shard.frames for shard in manifest.shards),
        bytes=sum(shard.bytes for shard in manifest.shards),
        quarantined=manifest.quarantined,
    )


def _prepare(
    source: Path,
    out: Path,
    annotations: Path | None,
    labels: Path | None,
    options: BuildOptions,
    encoding: Encoding,
    overwrite: bool,
) -> _Plan:
    """Rank 0: read the inputs, plan, and look at what an earlier build left in `out`."""
    if options.short_side < 16 or not 1 <= options.quality <= 100:
        raise InputError(
            f"--short-side {options.short_side} and --quality {options.quality}: at least 16 pixels and 1 to 100 expected"
        )
    if options.seed < 0:
        raise InputError(f"--seed {options.seed}: 0 or more expected")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out wants a folder")
    if annotations is None and source.resolve() in out.resolve().parents:
        raise InputError(f"--out {out} lies inside SOURCE, where it would count as a class; choose a folder outside of it")
    sources, label_names = read_sources(source, annotations, labels)
    shards = plan_shards(sources, encoding, options.shard_megabytes << 20, options.videos_per_shard, options.seed)
    digest = plan_digest(shards, label_names)
    try:
        out.mkdir(parents=True, exist_ok=True)
        _remove_partial_shards(out)
        if overwrite:
            _remove_set(out)
        found, damaged = _finished_shards(out, shards, digest, _arguments(source, annotations, labels, options))
    except OSError as error:
        raise OperationFailed(f"{error.filename or out}: {error.strerror}; choose an --out folder you can write") from error
    warnings = _warnings(source, sources, label_names) if annotations is None else ()
    return _Plan(shards, found, damaged, label_names, digest, warnings)


def _warnings(source: Path, sources: Sequence[Source], label_names: Sequence[str]) -> tuple[str, ...]:
    """What looks like a forgotten --annotations in a SOURCE that is read as a folder a class."""
    lists = sorted(path for path in source.iterdir() if path.suffix.lower() in (".csv", ".tsv"))
    used = {label for each in sources for label in each.labels}
    what = f"only one class, {label_names[used.pop()]!r}" if len(used) == 1 else ""
    if lists:
        return (f"{what or f'{lists[0]} is not read'}: did you mean --annotations {lists[0]}?",)
    return (f"{what}: a folder is a class, SOURCE/class/video; a list is given by --annotations FILE",) if what else ()


def _remove_partial_shards(out: Path) -> None:
    """Delete what dead builds left half-written; refuse where a living process of this host still writes one."""
    for path in out.glob(".shard-*.h5.tmp-*"):
        host, _, process = path.name.partition(".tmp-")[2].rpartition("-")
        if host == socket.gethostname() and process.isdigit() and _outlives_the_wait(int(process)):
            raise InputError(
                f"{path}: process {process} is building into {out} now; wait for it, or delete this file if it is no build"
            )
        path.unlink(missing_ok=True)


def _outlives_the_wait(process: int) -> bool:
    """Whether a process is still at work after a few seconds; one that was just killed gets them to go.

    A zombie is dead: it only waits for a parent to look, which in some containers nobody does.
    """
    deadline = time.monotonic() + _DYING_SECONDS
    while True:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        if state in ("Z", "X"):
            return False
        if time.monotonic() > deadline:
            return True
        time.sleep(0.05)


def _remove_set(out: Path) -> None:
    """Delete a set, its manifest first, so that what remains at a crash is no finished set."""
    (out / MANIFEST).unlink(missing_ok=True)
    for path in out.iterdir():
        if shard_index(path.name) is not None:
            path.unlink()


def _finished_shards(
    out: Path, shards: Sequence[PlannedShard], digest: str, arguments: dict[str, Any]
) -> tuple[dict[int, str | None], int]:
    """The planned shards that lie in `out` and seem whole, and the number of those that are plainly damaged.

    Of each the SHA-256 that the manifest states, None without a manifest. InputError where `out` holds anything of
    another plan.
    """
    hint = "pass --overwrite to replace it, or choose another --out"
    listed: dict[str, ShardEntry] = {}
    try:
        manifest = read_manifest(out) if (out / MANIFEST).exists() else None
    except DamagedManifest:
        manifest = None  # the shards carry their plan themselves
    if manifest:
        if manifest.plan != digest:
            old = manifest.arguments
            changed = [f"{name} {old.get(name)} -> {value}" for name, value in arguments.items() if old.get(name) != value]
            raise InputError(
                f"{out} holds a shard set made from other inputs or with other arguments "
                f"({', '.join(changed) or 'the list or the videos differ'}); {hint}"
            )
        listed = {shard.file: shard for shard in manifest.shards}
    found: dict[int, str | None] = {}
    damaged = 0
    for path in sorted(out.iterdir()):
        index = shard_index(path.name)
        if index is None:
            continue
        entry = listed.get(path.name)
        digest_there = read_plan(path)
        if index >= len(shards) or (entry is None and digest_there not in (None, shards[index].digest)):
            raise InputError(f"{path} is damaged, or of a set made from other inputs or with other arguments; {hint}")
        if digest_there is None or (entry and size_problem(path.stat().st_size, entry)):
            damaged += 1
        else:
            found[index] = entry.sha256 if entry else None
    return found, damaged


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


def _arguments(source: Path, annotations: Path | None, labels: Path | None, options: BuildOptions) -> dict[str, Any]:
    """What the manifest records of the command line."""
    paths = {"source": source, "annotations": annotations, "labels": labels}
    return {**{name: str(path) if path else None for name, path in paths.items()}, **asdict(options)}


def _finish(out: Path, plan: _Plan, gathered: Sequence[_Part], arguments: dict[str, Any]) -> Manifest:
    """Rank 0: put the ranks' shards together and write the manifest."""
    written = {index: shard for part in gathered for index, shard in part.written.items()}
    shards = [written[shard.index] for shard in plan.shards]
    quarantined = tuple(entry for shard in shards for entry in shard.quarantined)
    if not any(shard.entry.videos for shard in shards):
        with suppress(OSError):
            _remove_set(out)
        raise OperationFailed(
            f"{arguments['source']}: none of the {len(quarantined)} videos decodes; "
            f"the first, {quarantined[0].source}: {quarantined[0].reason}"
        )
    manifest = Manifest(
        tuple(shard.entry for shard in shards), plan.label_names, arguments, quarantined, plan.digest, __version__
    )
    try:
        write_manifest(out, manifest)
    except OSError as error:
        raise OperationFailed(
            f"{out / MANIFEST}: {error.strerror}; free some space and run the same command again: all shards are kept"
        ) from error
    return manifest
