"""Checkpoints on disk: safetensors keyed by layer name plus JSON, bound to no rank, complete or not there.

    checkpoints/latest                           the name of the newest complete one, e.g. `step-120`
    checkpoints/step-120/weights.safetensors     parameters and buffers
                         optimizer.safetensors   PARAMETER/STATE
                         extra.safetensors       what task and method add
                         state.json              step, seed, config digest; by part its files, each with bytes and SHA-256
    checkpoints/damaged-step-120                 one that could not be read, set aside

Larger parts have several files (`weights-1-of-6.safetensors`), in pipelines each stage has its own
(`weights-stage-1.safetensors`); which tensors lie in which file matters to nobody who reads them.

All files are written under a temporary name and flushed to disk, then the folder is renamed, and only then `latest` names
it; so a kill at any moment leaves the one before in place.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from hpcvideo.errors import OperationFailed
from hpcvideo.runs.durable import UNFINISHED, flush_folder, write_durably
from hpcvideo.training.checkpoint_buffer import WrittenFile

PARTS = ("weights", "optimizer", "extra")
FORMAT = "hpcvideo checkpoint"
VERSION = 2
_DISCARDED = ".discarded-"
_DAMAGED = "damaged-"


@dataclass(frozen=True)
class CheckpointFacts:
    """What a checkpoint says of itself beside its tensors.

    step: updates done. Order and randomness follow from (seed, step) alone. data: what identifies the training set, `plan`
    (its digest), `samples`, `label_names` and, of ready features, `features` (see FeatureFile.identity). notes: what the
    trainer adds (JSON types).
    """

    step: int
    seed: int
    config_digest: str
    data: Mapping[str, Any]
    notes: Mapping[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run needs to go on."""

    facts: CheckpointFacts
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    extra: Mapping[str, Tensor]


class DamagedCheckpoint(Exception):
    """A checkpoint is not what its writer left; the text says which file and what of it."""


def unfinished_folder(folder: Path, step: int) -> Path:
    """Where the files of a checkpoint lie until all of them are written."""
    return folder / f"{UNFINISHED}step-{step}"


def complete_checkpoint(folder: Path, facts: CheckpointFacts, written: Sequence[WrittenFile], keep: int) -> Path:
    """Make the files in `unfinished_folder` the newest checkpoint, and remove all but the newest `keep`. Gives its folder.

    OSErrors pass through; then what was there before stays the latest.
    """
    files: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
    for file in sorted(written, key=lambda file: file.name):
        files[file.part][file.name] = {"bytes": file.size, "sha256": file.sha256}
    state = {
        "format": FORMAT,
        "version": VERSION,
        "step": facts.step,
        "seed": facts.seed,
        "config_digest": facts.config_digest,
        "data": dict(facts.data),
        "notes": dict(facts.notes),
        "files": files,
    }
    unfinished, final = unfinished_folder(folder, facts.step), folder / f"step-{facts.step}"
    write_durably(unfinished / "state.json", json.dumps(state, indent=1).encode())
    replaced = _put_away(final) if final.exists() else None  # written before: by a killed run, or since then evaluated
    unfinished.rename(final)
    flush_folder(folder)
    point_to(final)
    if replaced is not None:
        shutil.rmtree(replaced, ignore_errors=True)
    # Later steps are of an abandoned future (a kill before `latest`, an older one chosen by hand): never the newest.
    past = [step for step in _steps(folder) if step <= facts.step]
    for step in set(_steps(folder)) - set(sorted(past, reverse=True)[:keep]):
        # Renamed first: a kill while files are being removed must not leave a folder that looks like a checkpoint.
        shutil.rmtree(_put_away(folder / f"step-{step}"), ignore_errors=True)
    return final


def point_to(path: Path) -> None:
    """Make `latest` name a checkpoint."""
    write_durably(path.parent / "latest", path.name.encode())


def has_checkpoint(folder: Path) -> bool:
    """Whether one was ever completed here."""
    return (folder / "latest").is_file()


def latest_checkpoint(folder: Path) -> Path | None:
    """The folder that `latest` names, or None where nothing was saved yet. Raises OperationFailed where it is gone."""
    if not has_checkpoint(folder):
        return None
    newest = checkpoints(folder)[0]
    if not (newest / "state.json").is_file():
        raise OperationFailed(
            f"{folder / 'latest'} names {newest.name}, which is not there whole; write the name of a whole one in"
        )
    return newest


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoint that `latest` names and those before it, the newest first; empty where there is no `latest`.

    Where `latest` names none (its bytes are damaged), all that are there. Whether they are whole, reading them tells.
    """
    if not has_checkpoint(folder):
        return []
    named = (folder / "latest").read_text(encoding="utf-8", errors="replace").strip()
    digits = named.removeprefix("step-")
    found = _steps(folder)
    if named.startswith("step-") and digits.isdigit():
        found = [int(digits), *(step for step in found if step < int(digits))]
    return [folder / f"step-{step}" for step in sorted(set(found), reverse=True)]


def read_checkpoint(path: Path) -> Checkpoint:
    """Load `checkpoints/step-N`, every digest checked. Raises OperationFailed naming the damaged file."""
    try:
        facts, listed = read_state(path)
        tensors = {part: parse_files(read_files(path, listed[part]).items()) for part in PARTS}
    except DamagedCheckpoint as error:
        raise OperationFailed(
            f"{path}: the checkpoint is damaged ({error}); write the name of an older one into {path.parent / 'latest'}"
        ) from error
    return Checkpoint(facts, tensors["weights"], tensors["optimizer"], tensors["extra"])


def read_state(path: Path) -> tuple[CheckpointFacts, dict[str, dict[str, str]]]:
    """(what `state.json` says, by part the files and their SHA-256). Raises DamagedCheckpoint, and OperationFailed for a
    version that is not known here."""
    try:
        state: dict[str, Any] = json.loads(_bytes_of(path / "state.json"))
        if state["format"] != FORMAT or state["version"] not in (1, VERSION):
            raise OperationFailed(f"{path}: {state['format']} version {state['version']} is not readable by this version")
        if state["version"] == 1:  # one file a part
            files = {part: {f"{part}.safetensors": str(state["sha256"][part])} for part in PARTS}
        else:
            files = {part: {name: str(file["sha256"]) for name, file in state["files"][part].items()} for part in PARTS}
        facts = CheckpointFacts(
            int(state["step"]), int(state["seed"]), str(state["config_digest"]), state["data"], state.get("notes", {})
        )
        return facts, files
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpoint(f"state.json: {type(error).__name__} {error}") from error


def read_files(path: Path, digests: Mapping[str, str]) -> dict[str, bytes]:
    """The bytes of files by name, checked against their digests. Raises DamagedCheckpoint naming the first bad one."""
    content = {}
    for name, digest in digests.items():
        if Path(name).name != name:
            raise DamagedCheckpoint(f"state.json names {name!r}, which is no file of the checkpoint")
        content[name] = _bytes_of(path / name)
        if hashlib.sha256(content[name]).hexdigest() != digest:
            raise DamagedCheckpoint(f"{name} does not have the digest that state.json says")
    return content


def parse_files(files: Iterable[tuple[str, bytes]]) -> dict[str, Tensor]:
    """The tensors in safetensors files, given as pairs of name and bytes. Raises DamagedCheckpoint."""
    tensors: dict[str, Tensor] = {}
    for name, content in files:
        try:
            tensors |= safetensors.torch.load(content)
        except SafetensorError as error:
            raise DamagedCheckpoint(f"{name}: {error}") from error
    return tensors


def set_aside(path: Path) -> Path | None:
    """Rename a damaged checkpoint, so that nobody reads it and somebody may look at it. Gives its new path, None where the
    whole folder is missing."""
    if not path.exists():
        return None
    target, number = path.with_name(f"{_DAMAGED}{path.name}"), 2
    while target.exists():
        target, number = path.with_name(f"{_DAMAGED}{path.name}-{number}"), number + 1
    path.rename(target)
    return target


def clean_up(folder: Path) -> None:
    """Remove what a killed writer left unfinished or half removed; a checkpoint that it was about to replace comes back."""
    for newest in checkpoints(folder)[:1]:
        replaced = newest.with_name(f"{_DISCARDED}{newest.name}")
        if replaced.exists() and not newest.exists():
            replaced.rename(newest)
    for pattern in (UNFINISHED, _DISCARDED):
        for remains in folder.glob(f"{pattern}*"):
            if remains.is_dir():
                shutil.rmtree(remains, ignore_errors=True)
            else:
                remains.unlink(missing_ok=True)


def _bytes_of(file: Path) -> bytes:
    """A file's content. Raises DamagedCheckpoint where it is missing or its bytes cannot be had from the disk."""
    try:
        return file.read_bytes()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EIO, errno.EISDIR):
            raise DamagedCheckpoint(f"{file.name}: {error.strerror}") from error
        # Not damaged: a permission or a mount is missing, and the checkpoint is as good as before.
        raise OperationFailed(f"{file}: cannot be read: {error.strerror}") from error


def _steps(folder: Path) -> list[int]:
    return [int(path.name[5:]) for path in folder.glob("step-*") if path.name[5:].isdigit()]


def _put_away(path: Path) -> Path:
    """Give a checkpoint a name under which `clean_up` removes it."""
    doomed = path.with_name(f"{_DISCARDED}{path.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    return doomed
