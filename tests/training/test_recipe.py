"""The numbers that follow from a recipe."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hpcvideo.config.schema import RecipeConfig
from hpcvideo.errors import InputError
from hpcvideo.methods.batch_split import split_batch
from hpcvideo.models import create_model
from hpcvideo.training.optimizers import make_optimizer, parameter_groups
from hpcvideo.training.recipe import learning_rate, plan_run


def recipe(**values: Any) -> RecipeConfig:
    return RecipeConfig.model_validate({"global_batch": 64, "epochs": 10, **values})


def test_the_published_scales_give_the_published_learning_rates() -> None:
    """0.01 per 64 clips is 1.92 at 12,288 clips; 100 epochs of 240,436 videos there are 1,957 updates."""
    plan = plan_run(recipe(global_batch=12288, micro_batch=8, epochs=100), 240_436, 1536)
    assert plan.peak_learning_rate == pytest.approx(1.92)
    assert plan.total_steps == 1957
    assert (plan.split.micro_batch, plan.split.accumulation) == (8, 1)


@given(st.integers(1, 64), st.integers(1, 16), st.integers(1, 8))
def test_micro_batch_times_accumulation_times_ranks_is_the_global_batch(ranks: int, micro: int, times: int) -> None:
    split = split_batch(recipe(global_batch=ranks * micro * times, micro_batch=micro), ranks)
    assert (split.micro_batch, split.accumulation) == (micro, times)
    assert split_batch(recipe(global_batch=ranks * micro * times), ranks).accumulation == 1


def test_a_batch_that_does_not_divide_is_refused_with_those_that_do() -> None:
    with pytest.raises(InputError, match=r"global_batch = 100 is not divisible by 6 ranks x micro_batch 8; use 96 or 144"):
        split_batch(recipe(global_batch=100, micro_batch=8), 6)
    with pytest.raises(InputError, match=r"not divisible by 16 ranks; use 16"):
        split_batch(recipe(global_batch=8), 16)


def test_the_rate_warms_up_linearly_and_decays_as_asked() -> None:
    cosine = recipe(warmup_epochs=2, decay="cosine")
    plan = plan_run(cosine, 640, 1)
    rates = [learning_rate(cosine, plan, step) for step in range(plan.total_steps)]
    assert len(rates) == 100
    assert rates[0] == pytest.approx(0.01 / 20) and rates[19] == pytest.approx(0.01) == pytest.approx(max(rates))
    assert rates[60] == pytest.approx(0.005) and rates[99] < 1e-5
    stepped = recipe(decay="step", decay_epochs=[4, 8])
    rates = [learning_rate(stepped, plan_run(stepped, 640, 1), step) for step in (0, 39, 40, 79, 80)]
    assert rates == pytest.approx([0.01, 0.01, 0.001, 0.001, 0.0001])


@pytest.mark.parametrize("power", [1.0, 2.0, 3.5])
def test_polynomial_decay_is_that_power_of_what_is_left_after_the_warm_up(power: float) -> None:
    chosen = recipe(decay="polynomial", decay_power=power, warmup_epochs=2)
    plan = plan_run(chosen, 640, 1)
    rates = [learning_rate(chosen, plan, step) for step in range(plan.total_steps)]
    assert rates[:20] == pytest.approx([0.01 * (step + 1) / 20 for step in range(20)])
    assert rates[20:] == pytest.approx([0.01 * (left / 80) ** power for left in range(80, 0, -1)])
    assert rates == sorted(rates[:20]) + sorted(rates[20:], reverse=True)


def test_polynomial_decay_is_of_power_2_unless_told() -> None:
    chosen = recipe(decay="polynomial")
    plan = plan_run(chosen, 640, 1)
    rates = [learning_rate(chosen, plan, step) for step in (0, 50, 90, 99)]
    assert rates == pytest.approx([0.01, 0.0025, 0.0001, 0.000001])


def test_a_warm_up_longer_than_the_run_is_refused() -> None:
    with pytest.raises(InputError, match="takes 100 steps, but the run has only 100"):
        plan_run(recipe(warmup_epochs=10), 640, 1)


@pytest.mark.parametrize("boost", [False, True])
def test_parameter_groups_are_those_of_the_public_code(boost: bool) -> None:
    """Counts for TSM-R50 from the table in the paper's code: 53 convolutions, 53 BN layers, one classifier."""
    model = create_model("tsm_resnet50", 400, 8)
    groups = {group["name"]: group for group in parameter_groups(model, recipe(boost_head=boost))}
    counts = {name: len(group["params"]) for name, group in groups.items()}  # type: ignore[arg-type]
    head = {"head_weight": 1, "head_bias": 1}
    plain = {"weight": 54, "bias": 1, "normalisation": 106}
    assert counts == ({"weight": 53, "normalisation": 106, **head} if boost else plain)
    assert sum(counts.values()) == len(list(model.parameters())) == 161
    expected = {"weight": (1, 1e-4), "bias": (2, 0), "normalisation": (1, 0), "head_weight": (5, 1e-4), "head_bias": (10, 0)}
    assert {name: (group["lr_scale"], group["weight_decay"]) for name, group in groups.items()} == {
        name: expected[name] for name in groups
    }
    assert isinstance(model, nn.Module) and len(make_optimizer(model, recipe()).param_groups) == 3
