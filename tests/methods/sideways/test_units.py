"""One unit's vector-Jacobian product, sum of gradients and update, against plain autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hpcvideo.errors import InputError
from hpcvideo.methods.sideways.units import UnitWorker
from hpcvideo.models.unit import Inlet, Unit


class Offsets(nn.Module):
    """Adds two parameters of its input's shape: autograd hands the cotangent itself on as the gradient of both."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Parameter(torch.zeros(1, 3, 2, 2)) for _ in range(2))

    def forward(self, features: Tensor) -> Tensor:
        return features + self.first + self.second


def test_gradients_add_up_without_touching_messages_or_each_other() -> None:
    worker = UnitWorker("b", Unit([Inlet("a")], Offsets()))
    cotangent, given = torch.randn(1, 3, 2, 2), torch.randn(1, 3, 2, 2)
    before = cotangent.clone()
    for times in (1, 2, 3):
        leaves, out = worker.forward([given], None, differentiable=True)
        (pulled,) = worker.pull_back(out, leaves, cotangent)
        assert pulled is not None
        assert torch.equal(pulled, before)
        assert torch.equal(cotangent, before)
        assert worker.count == times
        for gradient in worker.gradients.values():
            torch.testing.assert_close(gradient, times * before)


def test_what_does_not_count_is_handed_down_and_not_learnt() -> None:
    worker = UnitWorker("b", Unit([Inlet("a")], nn.Conv2d(3, 3, 1)))
    leaves, out = worker.forward([torch.randn(1, 3, 2, 2)], None, differentiable=True)
    (pulled,) = worker.pull_back(out, leaves, torch.ones_like(out), counts=False)
    assert pulled is not None
    assert pulled.any()
    assert worker.count == 0
    assert not worker.gradients


@pytest.mark.parametrize("largest", [float("inf"), 0.1])
def test_an_update_is_the_optimizers_with_the_mean_gradient_clipped_to_the_units_own_norm(largest: float) -> None:
    torch.manual_seed(0)
    ours, plain = (nn.Conv2d(3, 4, 1) for _ in range(2))
    plain.load_state_dict(ours.state_dict())
    unit = Unit([Inlet("frames")], ours)
    worker = UnitWorker("a", unit, torch.optim.SGD(unit.parameters(), 0.5, momentum=0.9), largest)
    optimizer = torch.optim.SGD(plain.parameters(), 0.5, momentum=0.9)
    for _ in range(2):
        frames, cotangents = torch.randn(4, 2, 3, 5, 5), torch.randn(4, 2, 4, 5, 5)
        for frame, cotangent in zip(frames, cotangents, strict=True):
            leaves, out = worker.forward([frame], None, differentiable=True)
            assert worker.pull_back(out, leaves, cotangent) == [None]
        worker.average_gradients(4, lambda gradients: None)
        worker.update()
        optimizer.zero_grad()
        (sum((plain(frame) * cotangent).sum() for frame, cotangent in zip(frames, cotangents, strict=True)) / 4).backward()
        norm = nn.utils.clip_grad_norm_(plain.parameters(), largest)
        optimizer.step()
        torch.testing.assert_close(worker.norm, norm)
        torch.testing.assert_close(ours.state_dict(), plain.state_dict())
        assert worker.count == 0
        assert not worker.gradients


def test_gradients_under_way_of_another_unit_are_refused() -> None:
    worker = UnitWorker("a", Unit([Inlet("frames")], nn.Conv2d(3, 4, 1)))
    state = {"count": torch.tensor(1), "gradient/body.weight": torch.zeros(5, 3, 1, 1)}
    with pytest.raises(InputError, match="gradients under way do not fit unit a"):
        worker.load(state)
