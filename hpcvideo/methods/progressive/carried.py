"""States that are carried from one step of the trainer to the next, where every fragment is an update of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hpcvideo.errors import InputError
from hpcvideo.methods.progressive.network import CarriedState, FragmentNetwork, state_from

_PREFIX = "carried/"
_SAMPLES = "samples"


@dataclass
class CarriedStates:
    """By micro-batch of this rank (0-based): the state before its next fragment, and whose it is.

    A state is used for the videos that left it and no others: what comes after a gap starts anew.
    """

    network: FragmentNetwork
    _held: dict[int, tuple[Tensor, CarriedState]] = field(default_factory=dict)

    def before(self, micro: int, piece: Mapping[str, Any]) -> CarriedState:
        """The state for this piece: that of its videos' last fragment, or the first one."""
        held = self._held.get(micro)
        if piece["piece"] == 0 or held is None or not torch.equal(held[0], piece["samples"]):
            return self.network.first_state()
        return held[1]

    def keep(self, micro: int, piece: Mapping[str, Any], state: CarriedState) -> None:
        """`state` is what this piece left; after a video's last one nothing is kept."""
        self._held.pop(micro, None)
        if piece["piece"] < piece["pieces"] - 1:
            self._held[micro] = piece["samples"].clone(), state

    def tensors(self, first_place: int) -> dict[str, Tensor]:
        """All of it for a checkpoint, as `carried/PLACE/NAME`; first_place: of micro-batch 0 in the global batch."""
        found: dict[str, Tensor] = {}
        for micro, (samples, state) in self._held.items():
            names = {**state.tensors(), _SAMPLES: samples}
            found |= {f"{_PREFIX}{first_place + micro}/{name}": tensor for name, tensor in names.items()}
        return found

    def load(self, extra: Mapping[str, Tensor], rows: range, micro_batch: int, device: torch.device) -> None:
        """Take what all ranks' `tensors` gave, whatever their number was. rows: this rank's clips of the global batch.

        Raises InputError where the checkpoint's states are not those of a whole global batch.
        """
        self._held.clear()
        places: dict[int, dict[str, Tensor]] = {}
        for key, tensor in extra.items():
            if key.startswith(_PREFIX):
                place, _, name = key.removeprefix(_PREFIX).partition("/")
                places.setdefault(int(place), {})[name] = tensor
        if not places:
            return
        ordered = [places[place] for place in sorted(places)]
        whole = {name: torch.cat([part[name] for part in ordered]) for name in ordered[0]}
        if sorted(places) != list(range(len(places))) or len(whole[_SAMPLES]) < rows.stop:
            raise InputError(
                f"the checkpoint holds the carried features of {len(whole[_SAMPLES])} clips in the middle of their videos, "
                f"but this rank trains on number {rows.start} to {rows.stop - 1}; use the config that the run started with"
            )
        for micro, first in enumerate(range(rows.start, rows.stop, micro_batch)):
            own = {name: tensor[first : first + micro_batch] for name, tensor in whole.items()}
            samples = own.pop(_SAMPLES).cpu()
            state = state_from(self.network, {name: tensor.to(device, copy=True) for name, tensor in own.items()})
            self._held[micro] = samples, state
