"""What the method needs of a network: fragments with a state that is passed and returned, never kept inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

from torch import Tensor, nn

from hpcvideo.errors import InputError


class CarriedState(Protocol):
    """What a fragment leaves to the next one; it never changes."""

    def detach(self) -> CarriedState:
        """The same numbers without the graph that made them."""

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by name, the clips of the batch along the first axis; none at the start of a video."""


class FragmentNetwork(Protocol):
    """A network as hpcvideo.models has it (a whole clip in one forward), which also reads clips fragment by fragment.

    overlap: frames by which its fragments overlap in features. frame_multiple: what divides the new frames of every fragment
    but the last.
    """

    @property
    def overlap(self) -> int: ...
    @property
    def frame_multiple(self) -> int: ...

    def first_state(self) -> CarriedState:
        """The state before a video's first fragment."""

    def fragment(self, clips: Tensor, state: CarriedState) -> tuple[Tensor, CarriedState]:
        """Outputs for the next frames [batch, any number, 3, height, width], and the state after them."""

    def bin_logits(self, clips: Tensor, bins: int) -> Tensor:
        """[batch, bins, classes]: a whole clip in one forward, each of `bins` equal spans of its features classified."""


def fragment_network_of(model: nn.Module) -> FragmentNetwork:
    """The model itself, if it carries a state. Raises InputError."""
    if not (hasattr(model, "first_state") and hasattr(model, "fragment")):
        raise InputError(
            f"method progressive hands features from fragment to fragment, which {type(model).__name__} does not; use a "
            "model whose name begins with progressive_"
        )
    return cast(FragmentNetwork, model)


def state_from(network: FragmentNetwork, tensors: Mapping[str, Tensor]) -> CarriedState:
    """What `tensors` gave as a state again."""
    kind: Any = type(network.first_state())
    state: CarriedState = kind.from_tensors(tensors)
    return state
