"""What waits in the delayed mode is part of a stream's state: inputs for their cotangents, and cotangents for each other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.methods.sideways.small import Record, equal, make_network, run, video

FRAMES = 14


def clip(number: int) -> Tensor:
    return video(FRAMES, seed=20 + number)


@pytest.fixture(scope="module")
def whole() -> Record:
    """Two clips of a stream through a network with skips, without a stop."""
    return run(make_network("skips", FRAMES), [clip(0), clip(1)], "stream", "delayed")


@pytest.fixture(scope="module")
def between() -> dict[str, Tensor]:
    """The state between the two."""
    record = run(make_network("skips", FRAMES), [clip(0)], "stream", "delayed")
    return {name: tensor.clone() for name, tensor in record.executor.state().items()}


def resumed(state: dict[str, Tensor]) -> Record:
    """The second clip alone, from a state."""
    return run(make_network("skips", FRAMES), [clip(1)], "stream", "delayed", change=lambda executor: executor.load(state))


def differing(whole: Record, part: Record) -> list[tuple[str, int]]:
    """(unit, step) of the second clip at which its pseudo-gradient is another one."""
    later = {(unit, step - FRAMES): one for (unit, step), one in whole.gradients.items() if step > FRAMES}
    assert later.keys() == part.gradients.keys() and later
    return [key for key, gradient in later.items() if not equal(gradient, part.gradients[key])]


def test_with_all_of_it_every_gradient_has_its_bits(whole: Record, between: dict[str, Tensor]) -> None:
    assert differing(whole, resumed(between)) == []
    kinds = {name.split("/")[2] for name in between if name.startswith("waiting/")}
    assert kinds == {"seed", "input", "cotangent"}


def test_without_inputs_that_wait_it_cannot_go_on(between: dict[str, Tensor]) -> None:
    with pytest.raises(KeyError):
        resumed({name: tensor for name, tensor in between.items() if not name.startswith("waiting/")})


def test_without_cotangents_that_wait_gradients_of_the_clip_before_are_wrong(
    whole: Record, between: dict[str, Tensor]
) -> None:
    without = {name: tensor for name, tensor in between.items() if "/cotangent/" not in name or "waiting" not in name}
    assert len(without) < len(between)
    wrong = differing(whole, resumed(without))
    assert wrong and all(whole.ago[unit, step + FRAMES] == 1 for unit, step in wrong)


@pytest.mark.parametrize("kind", ["input", "cotangent"])
def test_a_changed_one_is_noticed(whole: Record, between: dict[str, Tensor], kind: str) -> None:
    changed = {
        name: tensor + 1 if name.startswith("waiting/") and name.split("/")[2] == kind else tensor
        for name, tensor in between.items()
    }
    assert differing(whole, resumed(changed))
    assert any(not torch.equal(changed[name], between[name]) for name in between)
