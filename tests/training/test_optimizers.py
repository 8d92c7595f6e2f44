"""LARS and LAMB against their published equations, written out slowly in NumPy; and what of them a checkpoint keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from hpcvideo.config.schema import RecipeConfig
from hpcvideo.methods.named_state import load_optimizer_state, optimizer_state
from hpcvideo.training.optimizers import make_optimizer

Arrays = dict[str, NDArray[np.float64]]
STEPS = 6
RATES = (0.1, 0.3, 0.3, 0.2, 0.05, 0.4)
SCALES = {"fc.weight": 5.0, "fc.bias": 10.0, "stem.bias": 2.0}
"""Rates of the TSM recipe with a boosted head; all other parameters have 1."""
DECAYING = {"stem.weight", "wide.weight", "fc.weight"}


class Small(nn.Module):
    """One of everything: a convolution with bias, a norm with a gamma of zeros, a layer of norm above 10, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.wide = nn.Linear(4, 64, bias=False)
        self.fc = nn.Linear(64, 5)
        self.double()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
            self.norm.weight.zero_()
            self.fc.bias.zero_()


def recipe(**optimizer: Any) -> RecipeConfig:
    return RecipeConfig.model_validate({"global_batch": 8, "steps": STEPS, "boost_head": True, "optimizer": optimizer})


def arrays(model: nn.Module) -> Arrays:
    return {name: parameter.detach().numpy().copy() for name, parameter in model.named_parameters()}


def gradients(step: int, model: nn.Module) -> Arrays:
    generator = np.random.default_rng(100 + step)
    return {name: generator.normal(size=tuple(parameter.shape)) for name, parameter in model.named_parameters()}


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range, rates: tuple[float, ...] = RATES) -> None:
    for step in steps:
        for name, gradient in gradients(step, model).items():
            model.get_parameter(name).grad = torch.from_numpy(gradient)
        for group in optimizer.param_groups:
            group["lr"] = rates[step] * group["lr_scale"]
        optimizer.step()


def norm(values: NDArray[np.float64]) -> float:
    return float(np.sqrt((values**2).sum()))


def written_out_lars(weights: Arrays, options: dict[str, Any], model: nn.Module, rates: tuple[float, ...]) -> Arrays:
    """Section 4 of arXiv 1708.03888, with the rate outside of the momentum as torch.optim.SGD has it."""
    velocity = {name: np.zeros_like(value) for name, value in weights.items()}
    for step, rate in enumerate(rates):
        for name, gradient in gradients(step, model).items():
            weight, change = weights[name], gradient
            if name in DECAYING:
                decay = options["weight_decay"]
                trust = options["trust_coefficient"] * norm(weight) / (norm(gradient) + decay * norm(weight))
                change = trust * (gradient + decay * weight)
            velocity[name] = options["momentum"] * velocity[name] + change
            moved = change + options["momentum"] * velocity[name] if options.get("nesterov") else velocity[name]
            weights[name] = weight - rate * SCALES.get(name, 1.0) * moved
    return weights


def assert_moved_alike(model: nn.Module, reference: Arrays, tolerance: float) -> None:
    start = arrays(Small())
    for name, ours in arrays(model).items():
        moved = norm(reference[name] - start[name])
        assert moved > 1e-4, name
        assert norm(ours - reference[name]) < tolerance * moved, name


@pytest.mark.parametrize("nesterov", [False, True])
def test_lars_is_the_published_update_on_weights_and_plain_sgd_on_biases_and_norms(nesterov: bool) -> None:
    options = {"weight_decay": 0.1, "trust_coefficient": 0.02, "momentum": 0.8, "nesterov": nesterov}
    model = Small()
    train(model, make_optimizer(model, recipe(name="lars", **options)), range(STEPS))
    assert_moved_alike(model, written_out_lars(arrays(Small()), options, model, RATES), 1e-12)


def test_lars_at_a_constant_rate_is_the_paper_s_algorithm_1_literally() -> None:
    """There the rate is inside of the momentum: v = m v + rate x trust x (g + decay w); w = w - v."""
    model, rate, velocity = Small(), 0.2, dict.fromkeys(DECAYING, 0.0)
    train(model, make_optimizer(model, recipe(name="lars", weight_decay=0.05)), range(STEPS), (rate,) * STEPS)
    weights = arrays(Small())
    for step in range(STEPS):
        for name in DECAYING:
            gradient, weight = gradients(step, model)[name], weights[name]
            trust = 0.001 * norm(weight) / (norm(gradient) + 0.05 * norm(weight))
            local = rate * SCALES.get(name, 1.0) * trust
            velocity[name] = 0.9 * velocity[name] + local * (gradient + 0.05 * weight)
            weights[name] = weight - velocity[name]
    ours = arrays(model)
    for name in DECAYING:
        np.testing.assert_allclose(ours[name], weights[name], rtol=1e-12)


def written_out_lamb(weights: Arrays, options: dict[str, Any], model: nn.Module, corrected: bool = False) -> Arrays:
    """Algorithm 2 of arXiv 1904.00962 with phi(z) = min(z, 10); corrected: with the last version's bias correction."""
    first = {name: np.zeros_like(value) for name, value in weights.items()}
    second = {name: np.zeros_like(value) for name, value in weights.items()}
    (beta1, beta2), eps = options["betas"], options["eps"]
    for step, rate in enumerate(RATES):
        for name, gradient in gradients(step, model).items():
            first[name] = beta1 * first[name] + (1 - beta1) * gradient
            second[name] = beta2 * second[name] + (1 - beta2) * gradient**2
            m, v = first[name], second[name]
            if corrected:
                m, v = m / (1 - beta1 ** (step + 1)), v / (1 - beta2 ** (step + 1))
            change = m / (np.sqrt(v) + eps)
            if name in DECAYING:
                change = change + options["weight_decay"] * weights[name]
            size = norm(weights[name])
            trust = min(size, 10.0) / norm(change) if size > 0 else 1.0
            weights[name] = weights[name] - rate * SCALES.get(name, 1.0) * trust * change
    return weights


def test_lamb_is_the_published_update_with_decay_inside_of_the_trust_ratio() -> None:
    options = {"weight_decay": 0.5, "betas": (0.8, 0.95), "eps": 1e-8}
    model = Small()
    assert norm(arrays(model)["wide.weight"]) > 10, "the bound of the norm must bite somewhere"
    train(model, make_optimizer(model, recipe(name="lamb", **options)), range(STEPS))
    assert_moved_alike(model, written_out_lamb(arrays(Small()), options, model), 1e-6)


def test_without_decay_lamb_is_that_of_the_last_version_of_the_paper_too() -> None:
    """Bias correction scales a layer's whole update, which the trust ratio takes out again where the layer is not zero."""
    options = {"weight_decay": 0.0, "betas": (0.9, 0.999), "eps": 1e-9}
    model = Small()
    train(model, make_optimizer(model, recipe(name="lamb", **options)), range(STEPS))
    reference = written_out_lamb(arrays(Small()), options, model, corrected=True)
    for name in DECAYING:
        np.testing.assert_allclose(arrays(model)[name], reference[name], rtol=1e-5, atol=1e-6)


OPTIMIZERS: list[dict[str, Any]] = [
    {"name": "sgd"}, {"name": "lars"}, {"name": "lars", "momentum": 0.0}, {"name": "lamb"}, {"name": "adamw"},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIMIZERS, ids=lambda options: "-".join(map(str, options.values())))
def test_a_restored_optimizer_goes_on_with_the_same_bits_and_counts_on(options: dict[str, Any]) -> None:
    first, second = Small(), Small()
    ours, theirs = make_optimizer(first, recipe(**options)), make_optimizer(second, recipe(**options))
    train(first, ours, range(3))
    train(second, theirs, range(1))  # what it holds must go, its counters too
    second.load_state_dict(first.state_dict())
    kept = optimizer_state(first, ours)
    load_optimizer_state(second, theirs, kept)
    train(first, ours, range(3, STEPS))
    train(second, theirs, range(3, STEPS))
    after, again = optimizer_state(first, ours), optimizer_state(second, theirs)
    assert after.keys() == again.keys() and all(torch.equal(after[name], again[name]) for name in after)
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
    counted = {name: int(value) for name, value in after.items() if name.endswith("/group_step")}
    steps = {f"{name}/group_step": STEPS for name, _ in first.named_parameters()}
    expected = {} if options["name"] in ("sgd", "adamw") else steps
    assert counted == expected


def test_adamw_is_adam_with_bias_correction_and_decay_of_weights_apart_from_it() -> None:
    """Algorithm 2 of arXiv 1711.05101."""
    model, first, second, decay = Small(), 0.8, 0.9, 0.1
    weights = arrays(model)
    means, squares = ({name: np.zeros_like(value) for name, value in weights.items()} for _ in range(2))
    for step, base in enumerate(RATES):
        for name, gradient in gradients(step, model).items():
            rate = base * SCALES.get(name, 1.0)
            means[name] = first * means[name] + (1 - first) * gradient
            squares[name] = second * squares[name] + (1 - second) * gradient**2
            mean, square = means[name] / (1 - first ** (step + 1)), squares[name] / (1 - second ** (step + 1))
            weights[name] = weights[name] * (1 - rate * decay * (name in DECAYING))
            weights[name] -= rate * mean / (np.sqrt(square) + 1e-8)
    train(model, make_optimizer(model, recipe(name="adamw", betas=(first, second), weight_decay=decay)), range(STEPS))
    for name, value in arrays(model).items():
        np.testing.assert_allclose(value, weights[name], rtol=1e-9, atol=1e-12)


def test_a_group_s_counter_fits_other_groups() -> None:
    """boost_head makes five groups of three; a pipeline's stage has some of a group's parameters only."""
    model = Small()
    optimizer = make_optimizer(model, recipe(name="lamb"))
    train(model, optimizer, range(4))
    plain = RecipeConfig.model_validate({"global_batch": 8, "steps": 6, "optimizer": {"name": "lamb"}})
    other = make_optimizer(model, plain)
    load_optimizer_state(model, other, optimizer_state(model, optimizer))
    assert [group["step"] for group in other.param_groups] == [4, 4, 4]


def test_a_start_has_no_counter_left_of_an_abandoned_training() -> None:
    model = Small()
    optimizer = make_optimizer(model, recipe(name="lamb"))
    train(model, optimizer, range(4))
    load_optimizer_state(model, optimizer, {})
    assert optimizer_state(model, optimizer) == {}
