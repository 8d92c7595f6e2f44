"""What a stream of clips has under way between two steps of the trainer, as named tensors of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hpcvideo.errors import InputError
from hpcvideo.methods.sideways.executor import Executor, part_of
from hpcvideo.methods.sideways.feed import Piece

_PREFIX = "under_way"


def under_way_state(executor: Executor, replica: int, pieces: Sequence[Piece]) -> dict[str, Tensor]:
    """Messages, sums of gradients and, as `pieces` from the newest on, labels, under the replica's name: each replica has
    its own clips. Empty where clips do not stream."""
    if not executor.schedule.streams:
        return {}
    state = executor.state()
    for ago, piece in enumerate(pieces):
        state |= {f"piece/{ago}/{key}": value for key, value in _tensors(piece).items()}
    return {f"{_PREFIX}/{replica}/{key}": value for key, value in state.items()}


def load_under_way(
    executor: Executor, replica: int, replicas: int, extra: Mapping[str, Tensor], device: torch.device
) -> list[Piece]:
    """Set what `under_way_state` gave, of which `extra` may hold more; gives the pieces. Without any a stream begins anew.

    Raises InputError where there were other replicas: their messages are of other clips.
    """
    there = {name.split("/")[1] for name in extra if name.startswith(f"{_PREFIX}/")}
    if executor.schedule.streams and there and len(there) != replicas:
        raise InputError(
            f"the checkpoint has messages under way of {len(there)} replicas, but there are {replicas} now: a stream cannot "
            f"be dealt anew; use ranks = {len(there)} x method.stages"
        )
    own = part_of(extra, f"{_PREFIX}/{replica}/")
    executor.load({key: value.to(device, copy=True) for key, value in own.items() if not key.startswith("piece/")})
    pieces: dict[int, Piece] = {}
    for key, value in part_of(own, "piece/").items():
        ago, name = key.split("/")
        pieces.setdefault(int(ago), {})[name] = float(value) if name == "mix_weight" else value
    return [pieces[ago] for ago in sorted(pieces)]


def _tensors(piece: Piece) -> dict[str, Tensor]:
    """What of a piece the loss needs, as tensors: no clips, no ids."""
    found = {key: value for key, value in piece.items() if isinstance(value, Tensor) and key != "clips"}
    if "mix_weight" in piece:
        found["mix_weight"] = torch.tensor(piece["mix_weight"], dtype=torch.float64)
    return found
