"""What a stream of clips has under way between two steps of the trainer, as named tensors of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hpcvideo.methods.sideways.executor import Executor, part_of
from hpcvideo.methods.sideways.feed import Piece
from hpcvideo.methods.sideways.streams import PREFIX, Streams, check_streams, deal, streams_in


def under_way_state(executor: Executor, replica: int, pieces: Sequence[Piece]) -> dict[str, Tensor]:
    """Messages, sums of gradients and, as `pieces` from the newest on, labels, under the replica's name: each replica has
    its own clips. Empty where clips do not stream."""
    if not executor.schedule.streams:
        return {}
    state = executor.state()
    for ago, piece in enumerate(pieces):
        state |= {f"piece/{ago}/{key}": value for key, value in _tensors(piece).items()}
    return {f"{PREFIX}/{replica}/{key}": value for key, value in state.items()}


def load_under_way(
    executor: Executor, replica: int, now: Streams, extra: Mapping[str, Tensor], device: torch.device, drawn: bool = False
) -> list[Piece]:
    """Set what `under_way_state` gave on all ranks, of which `extra` may hold more; gives the pieces. Without any a stream
    begins anew.

    now: the streams of this run; other replicas than there were take over its rows. drawn: as in `check_streams`. Raises
    InputError where that cannot be.
    """
    own = part_of(extra, f"{PREFIX}/{replica}/")
    there = streams_in({name: tensor.shape for name, tensor in extra.items()}) if executor.schedule.streams else None
    if there is not None and there != now:
        check_streams(there, now, any(name.endswith("/mix_weight") for name in extra), drawn)
        own = deal(extra, executor.schedule.rule, there, now, replica)
    executor.load({key: value.to(device, copy=True) for key, value in own.items() if not key.startswith("piece/")})
    pieces: dict[int, Piece] = {}
    for key, value in part_of(own, "piece/").items():
        ago, name = key.split("/")
        pieces.setdefault(int(ago), {})[name] = float(value) if name == "mix_weight" else value
    return [pieces[ago] for ago in sorted(pieces)]


def _tensors(piece: Piece) -> dict[str, Tensor]:
    """What of a piece the loss needs, as tensors: no ids."""
    found = {key: value for key, value in piece.items() if isinstance(value, Tensor)}
    if "mix_weight" in piece:
        found["mix_weight"] = torch.tensor(piece["mix_weight"], dtype=torch.float64)
    return found
