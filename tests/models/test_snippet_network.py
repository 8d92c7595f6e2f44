"""Networks in two parts: what is encoded, what trains, and whose random numbers are whose."""

from __future__ import annotations

import pytest
import torch

from hpcvideo.config.schema import RecipeConfig
from hpcvideo.models import create_model
from hpcvideo.models.snippet_network import SnippetClassifier, as_sequences
from hpcvideo.training.optimizers import parameter_groups

ENCODERS = {"tsm_resnet18": 64, "slowonly_resnet50": 256, "r2plus1d_18": 64, "i3d_resnet50": 256}


def network(encoder: str = "tsm_resnet18", dropout: float = 0.0, **options: object) -> SnippetClassifier:
    torch.manual_seed(0)
    made = create_model(
        "snippet_classifier", 5, 12, snippets=3, encoder=encoder, encoder_options={"width": 8}, dropout=dropout, **options
    )
    assert isinstance(made, SnippetClassifier)
    with torch.no_grad():
        made.fc.weight.normal_()
    return made


@pytest.mark.parametrize("name", ENCODERS)
def test_the_answer_is_the_classifiers_for_the_mean_of_what_each_snippet_is(name: str) -> None:
    model, clips = network(name).eval(), torch.randn(2, 12, 3, 32, 32)
    assert model.feature_channels == ENCODERS[name]
    with torch.no_grad():
        each = torch.stack([
            torch.cat([model.encode(clips[video : video + 1, 4 * at : 4 * at + 4]) for at in range(3)]).mean(dim=0)
            for video in range(2)
        ])  # fmt: skip
        torch.testing.assert_close(model(clips), model.fc(each), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model(clips).detach(), model.fc(each).detach(), rtol=1e-4, atol=1e-4)


def test_features_are_what_the_networks_own_classifier_reads() -> None:
    torch.manual_seed(0)
    whole = create_model("tsm_resnet18", 5, 4, width=8).eval()
    encoder = network().encoder.eval()
    encoder.network.load_state_dict({name: tensor for name, tensor in whole.state_dict().items() if name[:3] != "fc."})
    snippets = torch.randn(3, 4, 3, 32, 32)
    torch.testing.assert_close(whole(snippets), whole.fc(encoder(snippets)), rtol=1e-5, atol=1e-6)


def test_sequences_keep_the_order_of_videos_and_snippets() -> None:
    features = torch.arange(12.0).view(6, 2)  # two videos of three snippets
    assert as_sequences(features, 3).tolist() == [[[0, 2, 4], [1, 3, 5]], [[6, 8, 10], [7, 9, 11]]]


def test_norm_eval_leaves_statistics_alone_and_trains_gamma() -> None:
    for norm_eval in (True, False):
        model = network(norm_eval=norm_eval).train()
        before = {name: tensor.clone() for name, tensor in model.named_buffers()}
        model(torch.randn(2, 12, 3, 32, 32)).sum().backward()
        moved = [name for name, tensor in model.named_buffers() if not torch.equal(tensor, before[name])]
        assert bool(moved) != norm_eval
        assert model.encoder.network.bn1.weight.grad is not None


def test_a_videos_dropout_is_its_own() -> None:
    model = network(dropout=0.5).train()
    features, draws = torch.randn(4, 64, 3), torch.tensor([5, 6, 5, 7])
    together = model.decide(features, draws)
    for video in range(4):
        torch.testing.assert_close(model.decide(features[video : video + 1], draws[video : video + 1])[0], together[video])
    same = model.decide(features[:1].expand(4, -1, -1), draws)
    assert torch.equal(same[0], same[2]) and not torch.equal(same[0], same[1])
    ones = model.decide(torch.ones(4000, 64, 3), torch.arange(4000)).mean(dim=0)
    torch.testing.assert_close(ones, model.eval().decide(torch.ones(1, 64, 3))[0], atol=0.7, rtol=0)


def test_the_encoder_has_a_learning_rate_of_its_own() -> None:
    recipe = RecipeConfig.model_validate({"global_batch": 4, "steps": 1, "encoder_lr_scale": 0.001})
    groups = parameter_groups(network(frozen_stages=2), recipe)
    scales = {group["name"]: group["lr_scale"] for group in groups}
    assert scales == {"weight": 1.0, "bias": 2.0, "encoder_weight": 0.001, "encoder_normalisation": 0.001}
    assert sum(len(group["params"]) for group in groups) == sum(  # type: ignore[arg-type]
        parameter.requires_grad for parameter in network(frozen_stages=2).parameters()
    )
    plain = parameter_groups(network(), recipe.model_copy(update={"encoder_lr_scale": 1.0}))
    assert {group["name"] for group in plain} == {"weight", "bias", "normalisation"}
