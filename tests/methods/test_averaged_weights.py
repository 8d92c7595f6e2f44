"""Averaged weights against the sum that defines them, and how they change places with the trained ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hpcvideo.errors import InputError
from hpcvideo.methods.averaged_weights import AveragedWeights, in_place_of_trained, scored_weights

DECAY = 0.8


def model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 9, 2))


def change(trained: nn.Module, step: int, seed: int = 0) -> dict[str, Tensor]:
    """New weights and statistics, as an update would leave them; gives copies."""
    generator = torch.Generator().manual_seed(1000 * seed + step)
    with torch.no_grad():
        for tensor in trained.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
            else:
                tensor.add_(1)
    return {name: tensor.clone() for name, tensor in trained.state_dict().items()}


def test_weights_and_running_statistics_are_the_exponential_average_of_all_they_have_been() -> None:
    trained = model()
    passed = [{name: tensor.clone() for name, tensor in trained.state_dict().items()}]
    averaged = AveragedWeights(trained, DECAY)
    for step in range(5):
        passed.append(change(trained, step))
        averaged.update()
    shares = [DECAY**5, *((1 - DECAY) * DECAY ** (4 - step) for step in range(5))]
    assert sum(shares) == pytest.approx(1)
    state = averaged.state()
    names = [name for name, tensor in passed[0].items() if tensor.is_floating_point()]
    assert state.keys() == {f"{name}/averaged" for name in names}
    assert "1.running_mean" in names and "1.num_batches_tracked" not in names
    for name in names:
        expected = sum(share * past[name].double() for share, past in zip(shares, passed, strict=True))
        torch.testing.assert_close(state[f"{name}/averaged"].double(), expected, rtol=1e-5, atol=1e-6)


def test_averages_and_weights_change_places_and_back_bit_for_bit() -> None:
    trained = model()
    averaged = AveragedWeights(trained, DECAY)
    for step in range(3):
        now = change(trained, step)
        averaged.update()
    expected = {name: tensor.clone() for name, tensor in averaged.state().items()}
    parameters = list(trained.parameters())
    with in_place_of_trained(averaged) as told:
        assert told
        for name, tensor in trained.state_dict().items():
            assert torch.equal(tensor, expected.get(f"{name}/averaged", now[name]))
            assert torch.equal(tensor, now[name]) == (f"{name}/averaged" not in expected)
        assert all(one is other for one, other in zip(parameters, trained.parameters(), strict=True))
        trained[1].running_mean.fill_(7.0)  # type: ignore[union-attr, operator]  # as precise statistics would
    assert all(torch.equal(tensor, now[name]) for name, tensor in trained.state_dict().items())
    after = averaged.state()
    assert torch.equal(after.pop("1.running_mean/averaged"), torch.full((4,), 7.0))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in after.items())
    with in_place_of_trained(None) as told:
        assert not told


def test_weights_come_back_where_an_evaluation_fails() -> None:
    trained = model()
    averaged = AveragedWeights(trained, DECAY)
    now = change(trained, 0)
    with pytest.raises(RuntimeError, match="bad clip"), averaged.in_place():
        raise RuntimeError("bad clip")
    assert all(torch.equal(tensor, now[name]) for name, tensor in trained.state_dict().items())


def test_the_mean_of_the_ranks_averaged_statistics_is_the_average_of_their_mean() -> None:
    ranks = [model(), model()]
    averages = [AveragedWeights(one, DECAY) for one in ranks]
    mean = ranks[0][1].running_var.clone()  # type: ignore[union-attr, operator]
    for step in range(4):
        for rank, (one, averaged) in enumerate(zip(ranks, averages, strict=True)):
            change(one, step, seed=rank)
            averaged.update()
        now = torch.stack([one[1].running_var for one in ranks]).mean(0)  # type: ignore[union-attr, arg-type, misc]
        mean = DECAY * mean + (1 - DECAY) * now
    statistics = [averaged.statistics() for averaged in averages]
    assert [len(one) for one in statistics] == [2, 2], "running mean and variance of one BatchNorm"
    torch.testing.assert_close(torch.stack([one[1] for one in statistics]).mean(0), mean)


def test_a_stored_average_goes_on_with_the_same_bits_and_one_that_does_not_fit_is_refused() -> None:
    one, other = model(), model(seed=5)
    first, second = AveragedWeights(one, DECAY), AveragedWeights(other, DECAY)
    for step in range(2):
        change(one, step)
        first.update()
    second.load(first.state())
    for trained, averaged in ((one, first), (other, second)):
        change(trained, 9)
        averaged.update()
    assert all(torch.equal(tensor, second.state()[name]) for name, tensor in first.state().items())
    with pytest.raises(InputError, match=r"no averaged 0\.weight .* recipe\.ema_decay"):
        second.load({})
    with pytest.raises(InputError, match=r"3\.bias of shape \[2\]"):
        second.load({**first.state(), "3.bias/averaged": torch.zeros(3)})


def test_averages_are_what_of_a_checkpoint_is_scored_where_it_has_them() -> None:
    weights = {"fc.weight": torch.zeros(2), "count": torch.tensor(3)}
    assert scored_weights(weights, {}) == (weights, False)
    chosen, averaged = scored_weights(weights, {"fc.weight/averaged": torch.ones(2), "other": torch.ones(1)})
    assert averaged and chosen.keys() == weights.keys()
    assert torch.equal(chosen["fc.weight"], torch.ones(2)) and int(chosen["count"]) == 3
