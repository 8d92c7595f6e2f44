"""Checkpoints: safetensors keyed by layer name plus JSON, bound to no rank, complete or not there.

    checkpoints/latest                     the name of the newest complete one, e.g. `step-120`
    checkpoints/step-120/weights.safetensors     parameters and buffers
                         optimizer.safetensors   PARAMETER/STATE
                         extra.safetensors       what task and method add
                         state.json              step, seed, config digest, SHA-256 of the three

A checkpoint is written under a temporary name, flushed to disk, renamed, and only then named by `latest`; so a kill at any
moment leaves the one before in place.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from hpcvideo.errors import OperationFailed
from hpcvideo.runs.durable import UNFINISHED, flush_folder, write_durably

FORMAT = "hpcvideo checkpoint"
VERSION = 1
_DISCARDED = ".discarded-"


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run needs to go on after `step` updates. Order and randomness follow from (seed, step) alone.

    data: what identifies the training set, `plan` (its digest), `samples` and `label_names`.
    """

    step: int
    seed: int
    config_digest: str
    data: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    extra: Mapping[str, Tensor]


def write_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> tuple[Path, int]:
    """Write `folder/step-N`, point `latest` at it, and remove all but the newest `keep`. Gives (path, bytes).

    Raises OperationFailed where the disk is full or refuses; what was there before stays the latest.
    """
    name = f"step-{checkpoint.step}"
    unfinished = folder / f"{UNFINISHED}{name}-{os.getpid()}"
    try:
        clean_up(folder)
        unfinished.mkdir(parents=True)
        digests, size = {}, 0
        for part in ("weights", "optimizer", "extra"):
            data = safetensors.torch.save(dict(getattr(checkpoint, part)))
            write_durably(unfinished / f"{part}.safetensors", data)
            digests[part] = hashlib.sha256(data).hexdigest()
            size += len(data)
        state = {
            "format": FORMAT,
            "version": VERSION,
            "step": checkpoint.step,
            "seed": checkpoint.seed,
            "config_digest": checkpoint.config_digest,
            "data": dict(checkpoint.data),
            "sha256": digests,
        }
        write_durably(unfinished / "state.json", json.dumps(state, indent=1).encode())
        final = folder / name
        if final.exists():  # complete but never named by `latest`: a kill came between the two
            _discard(final)
        unfinished.rename(final)
        flush_folder(folder)
        write_durably(folder / "latest", name.encode())
        # Later steps are of an abandoned future (a kill before `latest`, an older one chosen by hand): never the newest.
        past = [step for step in _steps(folder) if step <= checkpoint.step]
        for step in set(_steps(folder)) - set(sorted(past, reverse=True)[:keep]):
            _discard(folder / f"step-{step}")
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise OperationFailed(
            f"{folder / name}: cannot write the checkpoint: {error.strerror or error}; "
            "free space (the checkpoint before is whole) and start the same command again"
        ) from error
    return final, size


def latest_checkpoint(folder: Path) -> Path | None:
    """The folder that `latest` names, or None where nothing was saved yet. Raises OperationFailed where it is gone."""
    pointer = folder / "latest"
    if not pointer.is_file():
        return None
    path = folder / pointer.read_text(encoding="utf-8").strip()
    if not path.name.removeprefix("step-").isdigit():
        raise OperationFailed(f"{pointer} holds {path.name!r}, not the name of a checkpoint; write one in, e.g. step-120")
    if not (path / "state.json").is_file():
        raise OperationFailed(f"{pointer} names {path.name}, which is not there; write the name of a whole one in")
    return path


def read_checkpoint(path: Path) -> Checkpoint:
    """Load `checkpoints/step-N`, every digest checked. Raises OperationFailed naming the damaged file."""
    try:
        state: dict[str, Any] = json.loads((path / "state.json").read_text(encoding="utf-8"))
        if (state["format"], state["version"]) != (FORMAT, VERSION):
            raise OperationFailed(f"{path}: {state['format']} version {state['version']} is not readable by this version")
        parts = {part: _read_tensors(path / f"{part}.safetensors", state["sha256"][part]) for part in state["sha256"]}
        return Checkpoint(
            state["step"], state["seed"], state["config_digest"], state["data"],
            parts["weights"], parts["optimizer"], parts["extra"],
        )  # fmt: skip
    except (OSError, ValueError, KeyError) as error:
        raise OperationFailed(
            f"{path}: the checkpoint is damaged ({error}); write the name of an older one into {path.parent / 'latest'}"
        ) from error


def _read_tensors(file: Path, digest: str) -> dict[str, Tensor]:
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(f"{file.name} does not have the digest that state.json says")
    try:
        return safetensors.torch.load(data)
    except SafetensorError as error:
        raise ValueError(f"{file.name}: {error}") from error


def clean_up(folder: Path) -> None:
    """Remove what a killed writer left unfinished or half removed."""
    for pattern in (UNFINISHED, _DISCARDED):
        for remains in folder.glob(f"{pattern}*"):
            if remains.is_dir():
                shutil.rmtree(remains, ignore_errors=True)
            else:
                remains.unlink(missing_ok=True)


def _steps(folder: Path) -> list[int]:
    return [int(path.name[5:]) for path in folder.glob("step-*") if path.name[5:].isdigit()]


def _discard(path: Path) -> None:
    # Renamed first: a kill while files are being removed must not leave a folder that looks like a checkpoint.
    doomed = path.with_name(f"{_DISCARDED}{path.name}-{os.getpid()}")
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
