"""manifest.json: what a finished shard set holds. It is written last, so a folder without it is no finished set."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpcvideo.errors import InputError
from hpcvideo.runs.durable import write_durably
from hpcvideo.shards.format import VERSION, Quarantined, shard_index

MANIFEST = "manifest.json"
SET_FORMAT = "hpcvideo-shard-set"


class DamagedManifest(InputError):
    """A manifest.json that is cut or damaged; a build takes it as absent, for the shards say what they are."""


@dataclass(frozen=True)
class ShardEntry:
    """One shard file as the manifest states it; `sha256` is over the whole file, in hex."""

    file: str
    bytes: int
    sha256: str
    videos: int
    frames: int


@dataclass(frozen=True)
class Manifest:
    """A shard set's table of contents. `plan` tells one set of arguments and inputs from another."""

    shards: tuple[ShardEntry, ...]
    label_names: tuple[str, ...]
    arguments: dict[str, Any]
    quarantined: tuple[Quarantined, ...]
    plan: str
    tool_version: str

    def to_json(self) -> dict[str, Any]:
        """The manifest as written: shards, totals, label_names, arguments, quarantined, plan, tool_version."""
        return {
            "format": SET_FORMAT,
            "version": VERSION,
            "tool_version": self.tool_version,
            "plan": self.plan,
            "arguments": self.arguments,
            "totals": {
                "shards": len(self.shards),
                "bytes": sum(shard.bytes for shard in self.shards),
                "videos": sum(shard.videos for shard in self.shards),
                "frames": sum(shard.frames for shard in self.shards),
                "quarantined": len(self.quarantined),
            },
            "label_names": list(self.label_names),
            "shards": [asdict(shard) for shard in self.shards],
            "quarantined": [asdict(entry) for entry in self.quarantined],
        }


def read_manifest(folder: Path) -> Manifest:
    """The manifest in `folder`. InputError where there is none, or where it is not one this version reads."""
    path = folder / MANIFEST
    is_shard = shard_index(folder.name) is not None
    if not folder.exists():
        raise InputError(f"{folder}: no such {'file' if is_shard else 'folder'}")
    if folder.is_file():
        what = "one shard" if is_shard else "a file"
        raise InputError(f"{folder}: is {what}; give the folder that holds {MANIFEST}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{folder}: no {MANIFEST}, so this is no finished shard set; finish or start it with `hpcvideo shards build`"
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DamagedManifest(f"{path} is damaged ({error}); run the same `hpcvideo shards build` again") from error
    if not isinstance(content, dict) or content.get("format") != SET_FORMAT:
        raise InputError(f"{path}: not the manifest of a shard set (format {SET_FORMAT!r} expected)")
    if content.get("version") != VERSION:
        raise InputError(
            f"{path}: format version {content.get('version')}, this hpcvideo reads version {VERSION}; "
            "use the version of hpcvideo that wrote it or build the set anew"
        )
    try:
        return Manifest(
            shards=tuple(ShardEntry(**entry) for entry in content["shards"]),
            label_names=tuple(content["label_names"]),
            arguments=content["arguments"],
            quarantined=tuple(Quarantined(**entry) for entry in content["quarantined"]),
            plan=content["plan"],
            tool_version=content["tool_version"],
        )
    except (KeyError, TypeError) as error:
        raise DamagedManifest(
            f"{path}: not a whole manifest ({error}); run the same `hpcvideo shards build` again"
        ) from error


def size_problem(found_bytes: int, entry: ShardEntry) -> str | None:
    """What is wrong with a shard file of this size; None where it is the manifest's."""
    if found_bytes == entry.bytes:
        return None
    how = "is cut short" if found_bytes < entry.bytes else "is too long"
    return f"{how}: {found_bytes} bytes, the manifest says {entry.bytes}"


def file_problem(folder: Path, entry: ShardEntry) -> str | None:
    """What one `stat` of a shard file finds wrong; None where it is there and has the manifest's size."""
    try:
        return size_problem((folder / entry.file).stat().st_size, entry)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write or replace manifest.json so that a reader, or a crash, sees the old one or the new one, never a part.

    OSError as the file system gives it.
    """
    text = json.dumps(manifest.to_json(), indent=1, ensure_ascii=False, sort_keys=False) + "\n"
    write_durably(folder / MANIFEST, text.encode())
