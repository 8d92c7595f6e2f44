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
from hpcvideo.shards.annotations import read_sources
from hpcvideo.shards.format import Encoding, Quarantined, shard_index, shard_name
from hpcvideo.shards.manifest import MANIFEST, Manifest, read_manifest, write_manifest
from hpcvideo.shards.plan import PlannedShard, assign_to_ranks, plan_digest, plan_shards
from hpcvideo.shards.ranks import Ranks
from hpcvideo.shards.tables import read_plan
from hpcvideo.shards.writer import WrittenShard, describe_shard, write_shard

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
    """What rank 0 found at the end; the same on all ranks. `kept_shards` were there, whole, from an earlier build."""

    folder: Path
    rank: int
    shards: int
    kept_shards: int
    videos: int
    frames: int
    bytes: int
    quarantined: tuple[Quarantined, ...]


@dataclass(frozen=True)
class _Plan:
    shards: tuple[PlannedShard, ...]
    kept: frozenset[int]
    label_names: tuple[str, ...]
    digest: str


def build_shards(
    source: Path,
    out: Path,
    annotations: Path | None = None,
    labels: Path | None = None,
    options: BuildOptions | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> BuildResult:
    """Turn the videos below `source` into a shard set in `out`; collective under mpiexec and `srun --mpi=pmi2`.

    annotations, labels: see annotations.read_sources. A killed build goes on where it was when it is run again: finished
    shards are kept, and the result is the same to the byte, for any number of ranks. A video that does not decode
    whole is left out and listed. `progress(done, total)` counts videos over all ranks, on rank 0.
    Raises InputError for unusable inputs, options, and for a set in `out` that was made of something else (unless
    `overwrite`, which deletes that set first); OperationFailed where writing fails, or no video at all decodes.
    """
    options = options or BuildOptions()
    ranks = Ranks()
    cv2.setNumThreads(1)  # ranks are the parallelism; frames this small only lose by more threads
    encoding = Encoding(options.short_side, options.quality)
    plan = ranks.agree(lambda: _prepare(source, out, annotations, labels, options, encoding, overwrite))
    total = sum(len(shard.sources) for shard in plan.shards)
    done = sum(len(shard.sources) for shard in plan.shards if shard.index in plan.kept)
    if ranks.rank == 0:
        progress(done, total)

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(done, total)

    with ranks:
        todo = [shard for shard in plan.shards if shard.index not in plan.kept]
        written = {
            shard.index: write_shard(out, shard, encoding, lambda: ranks.count_one(count))
            for shard in assign_to_ranks(todo, ranks.size)[ranks.rank]
        }
        kept = [plan.shards[index] for index in sorted(plan.kept)]
        for shard in assign_to_ranks(kept, ranks.size)[ranks.rank]:
            written[shard.index] = describe_shard(out / shard_name(shard.index), shard_name(shard.index))
        gathered = ranks.gather(written, count)
    manifest = ranks.agree(
        lambda: _finish(out, plan, gathered, _arguments(source, annotations, labels, options))
    )
    return BuildResult(
        folder=out,
        rank=ranks.rank,
        shards=len(manifest.shards),
        kept_shards=len(plan.kept),
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
        kept = _finished_shards(out, shards, digest, _arguments(source, annotations, labels, options))
    except OSError as error:
        raise OperationFailed(f"{error.filename or out}: {error.strerror}; choose an --out folder you can write") from error
    return _Plan(shards, kept, label_names, digest)


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
) -> frozenset[int]:
    """Indices of the planned shards that lie in `out` whole. InputError where `out` holds anything of another plan."""
    hint = "pass --overwrite to replace it, or choose another --out"
    sizes: dict[str, int] = {}
    if (out / MANIFEST).exists():
        manifest = read_manifest(out)
        if manifest.plan != digest:
            old = manifest.arguments
            changed = [f"{name} {old.get(name)} -> {value}" for name, value in arguments.items() if old.get(name) != value]
            raise InputError(
                f"{out} holds a shard set made from other inputs or with other arguments "
                f"({', '.join(changed) or 'the list or the videos differ'}); {hint}"
            )
        sizes = {shard.file: shard.bytes for shard in manifest.shards}
    kept = set()
    for path in sorted(out.iterdir()):
        index = shard_index(path.name)
        if index is None:
            continue
        if sizes.get(path.name, path.stat().st_size) != path.stat().st_size:
            continue  # damaged since: written anew
        if index >= len(shards) or read_plan(path) != shards[index].digest:
            raise InputError(f"{path} is damaged, or of a set made from other inputs or with other arguments; {hint}")
        kept.add(index)
    return frozenset(kept)


def _arguments(
    source: Path, annotations: Path | None, labels: Path | None, options: BuildOptions
) -> dict[str, Any]:
    """What the manifest records of the command line."""
    paths = {"source": source, "annotations": annotations, "labels": labels}
    return {**{name: str(path) if path else None for name, path in paths.items()}, **asdict(options)}


def _finish(
    out: Path, plan: _Plan, gathered: Sequence[dict[int, WrittenShard]], arguments: dict[str, Any]
) -> Manifest:
    """Rank 0: put the ranks' shards together and write the manifest."""
    written = {index: shard for part in gathered for index, shard in part.items()}
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
