"""Gradients are compared as the text says, videos get faster as if frames were left out, and every claim is made."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sideways_laws
import torch
import unit_clips
from sideways_laws import DIRECTION_COURSE, LAW_COURSE, RATE_COURSE, SKIPS, claims
from torch import Tensor
from unit_training import exact_gradients, pseudo_gradients

from hpcvideo.models import create_model
from hpcvideo.models.unit_network import UnitNetwork

BOUNDS = {
    "law_skip_accuracy": ">= 0.85",
    "law_plain_minus_chance": "<= 0.10",
    "direction_delayed_accuracy": ">= 0.90",
    "still_bp_minus_sideways": "<= 0.05",
}
"""The first three restated from the project's plan, not read from the benchmark."""


@pytest.fixture
def network() -> UnitNetwork:
    torch.manual_seed(3)
    made = create_model("unit_vgg", 4, 12, convolutions=2, dense=0, pools=1, width=4, skips=list(SKIPS), dropout=0.0)
    assert isinstance(made, UnitNetwork)
    with torch.no_grad():
        made.unit("head").body.fc.weight.normal_()  # type: ignore[union-attr, operator]
    return made.double()


def pixels(still: bool) -> tuple[Tensor, Tensor]:
    clips = torch.randn(3, 1 if still else 12, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return clips.expand(-1, 12, -1, -1, -1), torch.tensor([0, 1, 3])


def test_on_a_still_video_the_pseudo_gradient_of_every_unit_is_the_exact_one(network: UnitNetwork) -> None:
    pseudo, exact = pseudo_gradients(network, *pixels(still=True)), exact_gradients(network, *pixels(still=True))
    for name in network.units:
        torch.testing.assert_close(pseudo[name], exact[name], rtol=1e-9, atol=1e-12)


def test_where_frames_change_the_delayed_rule_has_the_exact_directions_and_sideways_below_the_top_has_not(
    network: UnitNetwork,
) -> None:
    exact = exact_gradients(network, *pixels(still=False))
    for rule in ("delayed", "sideways"):
        found = pseudo_gradients(network, *pixels(still=False), rule)  # type: ignore[arg-type]
        alike = {name: float(torch.cosine_similarity(found[name], exact[name], dim=0)) for name in network.units}
        assert alike.pop("head") > 0.99
        assert all((value > 1 - 1e-9) == (rule == "delayed") for value in alike.values()), alike


def test_a_faster_pattern_is_the_slow_one_with_frames_left_out() -> None:
    slow = unit_clips.patterns(4, 5, 16, 13, 1)
    for pixels_a_frame in (0, 2, 4):
        fast = unit_clips.patterns(4, 5, 16, 4, pixels_a_frame)
        expected = [slow.pixels[:, pixels_a_frame * frame] for frame in range(4)]
        assert torch.equal(fast.pixels, torch.stack(expected, dim=1))
        assert torch.equal(fast.labels, slow.labels)


def test_all_courses_differ_in_what_is_seen_and_in_the_number_of_updates_alone() -> None:
    alike = {"clips": "", "train": 0, "held_out": 0, "size": 0, "frames": 0, "marks": ()}
    steps = {"steps": 1}
    courses = [replace(course, **alike, recipe={**course.recipe, **steps}) for course in (LAW_COURSE, DIRECTION_COURSE)]
    courses.append(replace(RATE_COURSE, **alike, recipe={**RATE_COURSE.recipe, **steps}))
    assert courses[0] == courses[1] == courses[2]


@pytest.mark.faults
def test_every_claim_comes_out_of_real_trainings_with_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    def tiny(course: sideways_laws.Course, quick: bool) -> sideways_laws.Course:
        recipe = {**course.recipe, "steps": 2, "warmup_epochs": 0.0, "global_batch": 8}
        return replace(course, train=16, held_out=16, size=16, recipe=recipe, marks=(0,) if course.marks else ())

    monkeypatch.setattr(sideways_laws, "scaled", tiny)
    told: list[str] = []
    found = {claim.name: claim for claim in claims(True, told.append)}
    assert {name: claim.bound for name, claim in found.items()} == BOUNDS
    assert all(claim.value is not None and 0 <= abs(claim.value) <= 1 for claim in found.values())
    laws, directions = found["law_skip_accuracy"].details, found["direction_delayed_accuracy"].details
    assert list(laws["accuracy"]) == ["skip_sideways", "sideways", "unrolled", "unrolled without skip"]
    assert list(directions["accuracy"]) == ["delayed", "unrolled", "skip_sideways", "sideways"]
    for details in (laws, directions):
        assert details["cosines"]["skip_sideways"].keys() == {"0"}
        assert details["cosines"]["skip_sideways"]["0"].keys() == {"conv1", "conv2", "head"}
    rates = found["still_bp_minus_sideways"].details["accuracy_by_pixels_a_frame"]
    assert {rate: list(kinds) for rate, kinds in rates.items()} == {rate: ["bp", "sideways"] for rate in "0124"}
    # The delayed mode and back-propagation through the same graph take the same steps.
    assert directions["accuracy"]["delayed"] == pytest.approx(directions["accuracy"]["unrolled"], abs=0.07)
    assert len([line for line in told if " seed " in line]) == 16
