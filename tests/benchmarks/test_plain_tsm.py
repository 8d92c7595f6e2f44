"""The plain peer computes what our TSM computes, so that the benchmark compares two ways to do the same."""

from __future__ import annotations

import pytest
import torch
from plain_tsm import PlainTsm, shift

from hpcvideo.models import create_model

CLASSES, FRAMES, WIDTH = 7, 4, 8


def twins(dtype: torch.dtype, **options: object) -> tuple[torch.nn.Module, PlainTsm]:
    torch.manual_seed(3)
    ours = create_model("tsm_resnet50", CLASSES, FRAMES, width=WIDTH, dropout=0.0, channels_last=True, **options)
    with torch.no_grad():
        ours.fc.weight.normal_(std=0.1)
    plain = PlainTsm(CLASSES, FRAMES, WIDTH, dropout=0.0)
    plain.load_state_dict(ours.state_dict())  # strict: the names are torchvision's in both
    return ours.to(dtype), plain.to(dtype)


def test_the_plain_shift_moves_two_folds_and_fills_with_zeros() -> None:
    features = torch.arange(2 * 3 * 8, dtype=torch.float32).view(6, 8, 1, 1) + 1
    moved = shift(features, frames=3, divisor=4).view(2, 3, 8)
    before = features.view(2, 3, 8)
    assert moved[:, :2, :2].equal(before[:, 1:, :2]) and not moved[:, 2, :2].any()
    assert moved[:, 1:, 2:4].equal(before[:, :2, 2:4]) and not moved[:, 0, 2:4].any()
    assert moved[:, :, 4:].equal(before[:, :, 4:])


@pytest.mark.parametrize("training", [False, True])
def test_the_plain_peer_has_our_logits_and_gradients_with_our_weights(training: bool) -> None:
    ours, plain = twins(torch.float64)
    clips = torch.randn(3, FRAMES, 3, 48, 48, dtype=torch.float64)
    labels = torch.tensor([0, 3, 6])
    gradients = []
    for model in (ours, plain):
        logits = model.train(training)(clips)
        torch.nn.functional.cross_entropy(logits, labels).backward()
        gradients.append((logits.detach(), {name: tensor.grad for name, tensor in model.named_parameters()}))
    (own_logits, own), (peer_logits, peer) = gradients
    torch.testing.assert_close(own_logits, peer_logits, rtol=1e-9, atol=1e-12)
    assert own.keys() == peer.keys()
    for name, gradient in own.items():
        torch.testing.assert_close(gradient, peer[name], rtol=1e-7, atol=1e-10, msg=name)
