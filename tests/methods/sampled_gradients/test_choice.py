"""What the choice of snippets is given: the features of each video and the loss's gradient at them."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from hpcvideo.config.schema import RecipeConfig
from hpcvideo.distributed.device import Device
from hpcvideo.distributed.environment import ProcessEnvironment
from hpcvideo.methods import BatchSplit, MethodParts, create_method
from hpcvideo.methods.sampled_gradients import method as under_test
from hpcvideo.methods.sampled_gradients.sampling import choose_snippets
from hpcvideo.models.normalisation import normalise_clips
from hpcvideo.models.snippet_network import SnippetNetwork
from hpcvideo.runs.phases import PhaseClock
from hpcvideo.tasks import create_task
from hpcvideo.training.optimizers import make_optimizer
from tests.methods.sampled_gradients.ranks import BATCH, CLASSES, FRAMES, SIZE, SNIPPETS, fresh_model, global_batch


@pytest.mark.parametrize("sampling", ["feature", "gradient"])
def test_snippets_are_chosen_by_their_features_and_by_the_gradient_at_them(
    lone_rank: tuple[ProcessEnvironment, Device], monkeypatch: pytest.MonkeyPatch, sampling: str
) -> None:
    model = fresh_model({"model": {"norm_eval": True}})
    assert isinstance(model, SnippetNetwork)
    batch = global_batch(0)
    clips = normalise_clips(batch["clips"].reshape(BATCH * SNIPPETS, FRAMES, 3, SIZE, SIZE))
    model.eval()
    features = model.encode(clips).detach().requires_grad_()
    logits = model.decide(features.view(BATCH, SNIPPETS, -1).transpose(1, 2))
    cross_entropy(logits, batch["labels"]).backward()
    assert features.grad is not None

    given: list[tuple[torch.Tensor, torch.Tensor]] = []

    def told(kind: str, count: int, key: int, known: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        given.append((known.clone(), gradient.clone()))
        return choose_snippets(sampling, count, key, known, gradient)  # type: ignore[arg-type]

    monkeypatch.setattr(under_test, "choose_snippets", told)
    place, device = lone_rank
    recipe = RecipeConfig.model_validate({"global_batch": BATCH, "steps": 2, "gradient_clip": 0})
    parts = MethodParts(
        model=model, task=create_task("classification", {"num_classes": CLASSES}),
        clip_shape=(SNIPPETS * FRAMES, 3, SIZE, SIZE), optimizer=lambda module: make_optimizer(module, recipe),
        split=BatchSplit(BATCH, BATCH, 1, 1), gradient_clip=0.0, seed=3, place=place, device=device,
    )  # fmt: skip
    made = create_method("sampled_gradients", {"ratio": 0.5, "chunk": 1, "sampling": sampling}, parts)
    made.set_learning_rate(0.01)
    made.step(iter([batch]), 0, PhaseClock())
    assert len(given) == BATCH
    for video, (known, gradient) in enumerate(given):
        rows = slice(video * SNIPPETS, (video + 1) * SNIPPETS)
        torch.testing.assert_close(gradient.T, features.grad[rows], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(known.T, features[rows].detach(), rtol=1e-4, atol=1e-5)
