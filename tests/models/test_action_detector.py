"""The detector: shapes, what it draws, what flows back, and that videos of a batch do not see each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hpcvideo.errors import InputError
from hpcvideo.intervals.anchors import dense_anchors
from hpcvideo.intervals.detector_outputs import DetectorOutputs
from hpcvideo.intervals.refinement import refined
from hpcvideo.models import create_model
from hpcvideo.models.anchor_sampling import sampled_anchors

SMALL: dict[str, Any] = {"width": 16, "hidden": 32, "roi_bins": 8}


def detector(**options: Any) -> nn.Module:
    torch.manual_seed(1)
    return create_model("etad_features", 3, 16, channels=12, **{**SMALL, **options})


def features(batch: int) -> Tensor:
    torch.manual_seed(2)
    return torch.randn(batch, 16, 12)


def unpacked(numbers: Tensor) -> DetectorOutputs:
    return DetectorOutputs.unpack(numbers, 16, 3)


def test_training_looks_at_the_share_that_each_videos_key_draws_and_scoring_at_all() -> None:
    model = detector(proposals=0.25)
    draws = torch.tensor([5, -7])
    trained = unpacked(model(features(2), draws))
    for row, key in enumerate(draws.tolist()):
        expected = dense_anchors(16)[sampled_anchors(16, None, 0.25, "random", key)]
        assert torch.equal(trained.intervals[row, 0], expected)
    model.eval()
    scored = unpacked(model(features(2)))
    assert scored.intervals.shape == (2, 4, 136, 2)
    assert torch.equal(scored.intervals[0, 0], dense_anchors(16))


def test_without_keys_torchs_generator_draws() -> None:
    model = detector(proposals=0.25)
    runs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        runs.append(unpacked(model(torch.zeros(1, 16, 12))).intervals[:, 0])
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_each_stage_starts_where_the_one_before_moved_its_intervals() -> None:
    model = detector().eval()
    out = unpacked(model(features(2)))
    for stage in range(3):
        expected = refined(out.intervals[:, stage], out.shifts[:, stage].detach())
        torch.testing.assert_close(out.intervals[:, stage + 1], expected)
    assert (out.intervals[:, 1] - out.intervals[:, 0]).abs().max() > 1e-3


def test_scoring_in_parts_is_scoring_at_once() -> None:
    torch.manual_seed(0)
    model = create_model("etad_features", 2, 64, channels=4, **SMALL, dropout=0.0).eval()
    clips = torch.randn(1, 64, 4)
    whole = model(clips)  # with gradient: all 2,080 anchors at once
    with torch.no_grad():
        torch.testing.assert_close(model(clips), whole.detach(), rtol=1e-4, atol=1e-5)


def test_videos_of_a_batch_do_not_see_each_other_in_training_either() -> None:
    model, both, draws = detector(), features(2), torch.tensor([1, 2])
    together = model(both, draws)
    for row in range(2):
        torch.testing.assert_close(model(both[row : row + 1], draws[row : row + 1])[0], together[row], rtol=1e-4, atol=1e-5)


def test_every_parameter_gets_a_gradient_and_no_stage_learns_through_the_next_ones_intervals() -> None:
    model = detector(proposals=1.0)
    out = unpacked(model(features(1)))
    torch.autograd.backward([out.boundaries.sum(), out.classes.sum(), out.overlaps.sum(), out.edges.sum(), out.shifts.sum()])
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert missing == []
    model.zero_grad()
    unpacked(model(features(1))).overlaps[:, 2].sum().backward()
    first = model.get_submodule("detector.stages.0")
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in first.parameters())


def test_no_gradient_flows_through_where_intervals_lie() -> None:
    model = detector(proposals=1.0)
    unpacked(model(features(1))).intervals.sum().backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())


def test_one_lstm_reads_from_the_first_bin_on_and_the_other_from_the_last() -> None:
    model = detector().eval()
    enhance = model.get_submodule("detector.enhance")
    seen: dict[str, Tensor] = {}
    enhance.get_submodule("enter").register_forward_hook(lambda _, given, out: seen.update(enter=out))
    for name in ("after_forwards", "after_backwards"):
        part = enhance.get_submodule(name)
        part.register_forward_hook(lambda _, given, out, name=name: seen.update({name: given[0]}))
    model(features(1))
    for name, order in (("forwards", range(16)), ("backwards", range(15, -1, -1))):
        state, expected = None, {}
        for at in order:
            out, state = enhance.get_submodule(name)(seen["enter"][:, None, :, at], state)
            expected[at] = out[:, 0]
        slow = torch.stack([expected[at] for at in range(16)], dim=2)
        torch.testing.assert_close(seen[f"after_{name}"], slow)


def test_both_halves_of_the_video_are_known_everywhere() -> None:
    model = detector().eval()
    one = features(1)
    other = one.clone()
    other[:, -1] += 1
    assert (unpacked(model(one)).boundaries - unpacked(model(other)).boundaries)[..., 0].abs().max() > 0
    other = one.clone()
    other[:, 0] += 1
    assert (unpacked(model(one)).boundaries - unpacked(model(other)).boundaries)[..., -1].abs().max() > 0


def test_the_published_size_has_its_parts() -> None:
    with torch.device("meta"):
        model = create_model("etad_features", 200, 128, channels=512)
    stage = model.get_submodule("detector.stages.0")
    assert stage.get_submodule("shared.0").weight.shape == (512, 128 * 24)
    assert stage.get_submodule("begin.0").weight.shape == (512, 128 * 6)
    assert model.get_submodule("detector.enhance.enter.0").weight.shape == (256, 512 // 4, 3)
    assert model.get_submodule("detector.enhance.join.0").weight.shape == (256, 512 // 4, 1)


def test_an_encoder_in_front_makes_a_network_of_clips() -> None:
    torch.manual_seed(0)
    model = create_model(
        "etad", 3, 32, snippets=8, encoder="tsm_resnet18", encoder_options={"width": 8}, frozen_stages=0, **SMALL
    )
    clips = torch.randn(2, 32, 3, 16, 16)
    out = model(clips, torch.tensor([1, 2]))
    encoded = torch.stack([model.encode(one.view(8, 4, 3, 16, 16)) for one in clips]).transpose(1, 2)
    torch.testing.assert_close(model.decide(encoded, torch.tensor([1, 2])), out, rtol=1e-4, atol=1e-5)
    assert DetectorOutputs.unpack(out, 8, 3).intervals.shape[1:] == (4, 2, 2)


@pytest.mark.parametrize(("option", "value"), [
    ("width", 12), ("proposals", 0), ("proposals", 1.5), ("roi_bins", 6), ("longest", 0), ("proposal_sampling", "fps"),
    ("roi_aligned", 1), ("hidden", 0),
])  # fmt: skip
def test_options_that_no_detector_can_have_are_refused(option: str, value: Any) -> None:
    with pytest.raises(InputError, match=option):
        detector(**{option: value})


def test_features_of_another_shape_are_refused() -> None:
    model = detector()
    for wrong in (torch.zeros(1, 15, 12), torch.zeros(1, 16, 11), torch.zeros(16, 12)):
        with pytest.raises(ValueError, match="features"):
            model(wrong)
