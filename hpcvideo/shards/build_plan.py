"""What is to be built and what of it is there already: the work of rank 0 before the others start."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpcvideo.errors import InputError
from hpcvideo.shards.annotations.read import SourceList, read_sources
from hpcvideo.shards.build_options import BuildOptions, Inputs
from hpcvideo.shards.format import Quarantined, shard_index
from hpcvideo.shards.inputs.source import Source
from hpcvideo.shards.manifest import MANIFEST, DamagedManifest, ShardEntry, read_manifest, size_problem
from hpcvideo.shards.plan import Planned, PlannedShard, plan_digest, plan_shards
from hpcvideo.shards.tables import read_plan
from hpcvideo.shards.writer import partial_name

_LEFTOVERS = (".shard-*.h5.tmp-*", ".build-lock-*")
_PARTIALS = ".shard-*.partial"


@dataclass(frozen=True)
class BuildPlan:
    """All shards to be, and what an earlier build left of them.

    found: the SHA-256 that a manifest states of each shard that seems whole, None where there is no manifest. damaged: how
    many shards are there and plainly are not. arguments: for the manifest. skipped: listed inputs that are not there.
    """

    shards: tuple[PlannedShard, ...]
    found: dict[int, str | None]
    damaged: int
    label_names: tuple[str, ...]
    digest: str
    arguments: dict[str, Any]
    skipped: tuple[Quarantined, ...]
    warnings: tuple[str, ...]

    def unfinished(self) -> list[PlannedShard]:
        """The shards that are not there."""
        return [shard for shard in self.shards if shard.index not in self.found]


def check_request(inputs: Inputs, out: Path, options: BuildOptions) -> None:
    """Raise InputError for what cannot be built whatever the inputs are."""
    options.check()
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out wants a folder")
    if inputs.annotations is None and inputs.source.resolve() in out.resolve().parents:
        raise InputError(f"--out {out} lies inside SOURCE, where it would count as a class; choose a folder outside of it")


def list_inputs(inputs: Inputs, options: BuildOptions) -> SourceList:
    """The inputs with their labels. InputError where they are unusable, or the options do not fit them."""
    listed = read_sources(**asdict(inputs))
    _check_clock(listed.sources, options)
    return listed


def make_plan(inputs: Inputs, listed: SourceList, out: Path, options: BuildOptions, overwrite: bool) -> BuildPlan:
    """Plan, and look at what lies in `out`; of that, what is half-written is deleted. listed: from list_inputs.

    Raises InputError where `out` holds a set of another plan (unless `overwrite`, which deletes it); OSError where `out`
    cannot be written.
    """
    encoding = options.encoding()
    shards = plan_shards(listed.sources, encoding, options.shard_megabytes << 20, options.videos_per_shard, options.seed)
    digest = plan_digest(shards, listed.label_names)
    remove_leftovers(out)
    if overwrite:
        remove_set(out)
    arguments = {**inputs.describe(), "format": listed.format, **options.deciding()}
    found, damaged = finished_shards(out, shards, digest, arguments)
    return BuildPlan(
        shards, found, damaged, listed.label_names, digest, arguments,
        tuple(Quarantined(video.name, f"{video.where}: {video.reason}") for video in listed.skipped),
        _warnings(inputs.source, listed) if inputs.annotations is None else (),
    )  # fmt: skip


def remove_leftovers(out: Path) -> None:
    """Delete what dead builds left half-written; for the holder of the folder's BuildLock."""
    for pattern in _LEFTOVERS:
        for path in out.glob(pattern):
            path.unlink(missing_ok=True)


def remove_set(out: Path) -> None:
    """Delete a set, its manifest first, so that what remains at a crash is no finished set."""
    (out / MANIFEST).unlink(missing_ok=True)
    for path in [*out.iterdir(), *out.glob(_PARTIALS)]:
        if shard_index(path.name) is not None or path.match(_PARTIALS):
            path.unlink(missing_ok=True)


def _check_clock(sources: Sequence[Source], options: BuildOptions) -> None:
    if options.folder_fps is not None:
        return
    for source in sources:
        if source.is_folder and (options.store_fps is not None or source.span is not None):
            what = f"--store-fps {options.store_fps:g}" if options.store_fps is not None else "its times in the list"
            raise InputError(
                f"{source.id}: a frame folder has no clock, which {what} needs; say with --folder-fps how many frames a "
                "second were taken"
            )


def _warnings(source: Path, listed: SourceList) -> tuple[str, ...]:
    """What looks like a forgotten --annotations in a SOURCE that is read as a folder a class."""
    lists = sorted(path for path in source.iterdir() if path.suffix.lower() in (".csv", ".tsv")) if source.is_dir() else []
    used = {label for each in listed.sources for label in each.labels}
    what = f"only one class, {listed.label_names[used.pop()]!r}" if len(used) == 1 else ""
    if lists:
        return (f"{what or f'{lists[0]} is not read'}: did you mean --annotations {lists[0]}?",)
    return (f"{what}: a folder is a class, SOURCE/class/video; a list is given by --annotations FILE",) if what else ()


def finished_shards(
    out: Path, shards: Sequence[Planned], digest: str, arguments: dict[str, Any]
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
            changed = [
                f"{name} {_brief(old.get(name))} -> {_brief(value)}"
                for name, value in arguments.items() if old.get(name) != value
            ]  # fmt: skip
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
    _check_partials(out, shards, found)
    return found, damaged


def _brief(value: Any) -> str:
    return text if len(text := str(value)) <= 60 else f"{text[:57]}..."


def _check_partials(out: Path, shards: Sequence[Planned], found: dict[int, str | None]) -> None:
    """InputError where an interrupted build of another plan left a part of a shard; those that are done with are deleted."""
    planned = {partial_name(shard.index): shard for shard in shards}
    for path in sorted(out.glob(_PARTIALS)):
        shard = planned.get(path.name)
        digest = read_plan(path)
        if digest is not None and (shard is None or digest != shard.digest):
            raise InputError(
                f"{path} is of an interrupted build from other inputs or with other arguments; pass --overwrite to delete "
                "it, or choose another --out"
            )
        if shard is not None and shard.index in found:
            with suppress(OSError):
                path.unlink()
