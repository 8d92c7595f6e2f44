"""Weight files of other programs: read without running code from them, and what their names say."""

from __future__ import annotations

import hashlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from hpcvideo.errors import InputError

_STATE_KEYS = ("state_dict", "model_state", "model")
_DIGEST = re.compile(r"-([0-9a-f]{8,64})\.(?:pth|pt|pth\.tar|safetensors)$")
_TORCHVISION_NAME = re.compile(r"^(?:resnet\d+|mobilenet_v2)-[0-9a-f]{8}\.pth$")
# NumPy numbers (best accuracies) stand beside the weights in some files; rebuilding one runs no code of the file.
_NUMPY_NUMBERS: list[Any] = [
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float32", "float64", "int32", "int64")),
]


def read_checkpoint(file: Path, run_code: bool = False) -> dict[str, Tensor]:
    """The tensors of a weight file by their names in it, on the CPU.

    `.safetensors` is read as such; anything else as a torch file, with weights_only: a file that would run code is
    refused, unless its reader trusts it and says so by run_code. Of a training checkpoint only its weights are taken.
    Where the name ends in the start of a SHA-256, as torchvision's and mmaction2's do (resnet50-0676ba61.pth), the content
    is checked against it.
    Raises InputError for a file that is missing, damaged, not what its name says, or without tensors.
    """
    if not file.is_file():
        raise InputError(f"{file}: there is no such weight file")
    check_digest(file)
    if file.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(file)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{file}: no readable safetensors file ({_one_line(error)})") from error
    try:
        with torch.serialization.safe_globals(_NUMPY_NUMBERS):
            content = torch.load(file, map_location="cpu", weights_only=not run_code)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{file}: holds more than tensors and numbers, and reading that could run code ({_one_line(error)}); "
            "where you trust whoever made it, tools/import_checkpoint.py --run-code reads it all the same"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, ImportError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(f"{file}: no readable torch file ({_one_line(error)})") from error
    return find_tensors(content, str(file))


def find_tensors(content: Any, where: str) -> dict[str, Tensor]:
    """The weights in what a torch file holds: a mapping of names to tensors, or one under `state_dict` or `model`."""
    for key in _STATE_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    tensors = {}
    if isinstance(content, Mapping):
        tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise InputError(f"{where}: holds no named tensors; expected a state dict, or one under {' or '.join(_STATE_KEYS)}")
    return tensors


def check_digest(file: Path) -> None:
    """Compare the content's SHA-256 with the one that the file's name ends in, if it does.

    Eight digits without a letter may be a date, and count only behind torchvision's names.
    Raises InputError where they differ.
    """
    found = _DIGEST.search(file.name)
    if found is None or (found[1].isdigit() and not _TORCHVISION_NAME.match(file.name)):
        return
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if not digest.startswith(found[1]):
        raise InputError(
            f"{file}: its SHA-256 begins with {digest[: len(found[1])]}, but its name says {found[1]}; "
            "it is damaged or another file: fetch it again"
        )


@dataclass(frozen=True)
class TsmFileName:
    """What the name of a checkpoint of the public TSM code says. `fold_divisor` and `place` are None without a shift."""

    dataset: str
    modality: str
    architecture: str
    fold_divisor: int | None
    place: str | None
    temporal_pool: bool
    consensus: str
    frames: int
    epochs: int
    dense: bool
    non_local: bool


_TSM_NAME = re.compile(
    r"^TSM_(?P<dataset>[^_]+)_(?P<modality>RGBDiff|RGB|Flow)_(?P<architecture>[A-Za-z0-9-]+)"
    r"(?:_shift(?P<fold>\d+)_(?P<place>[a-z]+))?(?P<pool>_tpool)?"
    r"_(?P<consensus>[a-z]+)_segment(?P<frames>\d+)_e(?P<epochs>\d+)(?P<rest>(?:_[^_]+)*)$"
)
_NAME_ENDINGS = (".pth.tar", ".pth", ".pt", ".safetensors")


def parse_tsm_name(name: str) -> TsmFileName | None:
    """Read `TSM_kinetics_RGB_resnet50_shift8_blockres_avg_segment8_e100_dense.pth`; None for a name of another grammar.

    A directory of such a name holding `ckpt.best.pth.tar` is how training leaves it: give the directory's name then.
    """
    for ending in _NAME_ENDINGS:
        name = name.removesuffix(ending)
    found = _TSM_NAME.match(name)
    if found is None:
        return None
    rest = found["rest"].split("_")
    return TsmFileName(
        dataset=found["dataset"],
        modality=found["modality"],
        architecture=found["architecture"],
        fold_divisor=int(found["fold"]) if found["fold"] else None,
        place=found["place"],
        temporal_pool=found["pool"] is not None,
        consensus=found["consensus"],
        frames=int(found["frames"]),
        epochs=int(found["epochs"]),
        dense="dense" in rest,
        non_local="nl" in rest,
    )


def model_of_tsm_name(name: str) -> tuple[str, int, dict[str, Any]] | None:
    """Our model's name, its frames and its options for a name that `parse_tsm_name` reads, None for others."""
    said = parse_tsm_name(name)
    if said is None:
        return None
    options: dict[str, Any] = {"temporal_pool": True} if said.temporal_pool else {}
    if said.fold_divisor is None:
        return f"tsn_{said.architecture}", said.frames, options
    options["shift_fraction"] = said.fold_divisor
    if said.architecture.startswith("resnet"):
        options["shift_place"] = said.place
    return f"tsm_{said.architecture}", said.frames, options


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
