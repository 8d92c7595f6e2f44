"""What a network for long videos costs, counted without its data: the encoder by shapes alone, the decision by running it.

The encoder of such a network sees a few snippets at a time, so that its cost is a snippet's, times as often as the method
takes it forwards and back. What a detector does depends on where its intervals lie: it runs once, on nothing but zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hpcvideo.config import RunConfig
from hpcvideo.methods.options import SampledGradientsOptions
from hpcvideo.methods.pipeline.layers import LayerCost, count_layers
from hpcvideo.methods.sampled_gradients.sampling import sampled_count
from hpcvideo.models.action_detector_network import FeatureDetectionNetwork
from hpcvideo.models.snippet_network import SnippetNetwork


def snippet_cost(config: RunConfig, model: nn.Module, videos: int) -> LayerCost | None:
    """The whole model as one layer, for a micro-batch of so many videos; None for a model that is neither in two parts nor a
    detector on features. model: on the meta device; it is left without its encoder.

    saved_bytes: of the encoder those of a chunk under sampled gradients and of all snippets otherwise.
    """
    if not isinstance(model, SnippetNetwork | FeatureDetectionNetwork):
        return None
    every = list(model.parameters())
    count, size = sum(parameter.numel() for parameter in every), sum(parameter.nbytes for parameter in every)
    forward = backward = saved = 0
    bins = model.frames
    if isinstance(model, SnippetNetwork):
        bins, encoder = model.snippets, model.encoder
        model.encoder = nn.Identity()  # type: ignore[assignment]
        once, back, kept = bins, bins, bins * videos
        if config.method.name == "sampled_gradients":
            options = SampledGradientsOptions(**config.method.options())
            sampled = bins if options.checkpointing else sampled_count(bins, options.ratio, options.chunk)
            once, back, kept = bins + sampled, sampled, min(options.chunk, bins * videos)
        forward, backward, saved = _encoder_cost(encoder.network, (1, encoder.frames, 3, config.data.size, config.data.size))
        forward, backward, saved = forward * once * videos, backward * back * videos, saved * kept
    features = torch.zeros(videos, model.feature_channels, bins)
    decision = _decision_cost(model, features)
    return LayerCost(
        name="model", modules=("",), parameter_count=count, parameter_bytes=size, forward_flops=forward + decision[0],
        backward_flops=backward + decision[1], saved_bytes=saved + decision[2], output_shape=decision[3],
        output_bytes=4 * torch.Size(decision[3]).numel(), draws=True,
    )  # fmt: skip


def _encoder_cost(network: nn.Module, clips: tuple[int, ...]) -> tuple[int, int, int]:
    """(operations forward, operations backward, bytes kept) of one snippet; of a frozen encoder forward alone."""
    if any(parameter.requires_grad for parameter in network.parameters()):
        cost = count_layers(network, clips, whole=True)[0]
        return cost.forward_flops, cost.backward_flops, cost.saved_bytes
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        network(torch.empty(clips, device="meta"))
    return counted.get_total_flops(), 0, 0


def _decision_cost(
    model: SnippetNetwork | FeatureDetectionNetwork, features: Tensor
) -> tuple[int, int, int, tuple[int, ...]]:
    """(operations forward, operations backward, bytes kept, shape of the outputs) in training."""
    decision = model._apply(lambda tensor: torch.zeros_like(tensor, device="cpu") if tensor.is_meta else tensor).train()
    kept = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    saving = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with torch.random.fork_rng(devices=[]), FlopCounterMode(display=False) as forward, saving:
        made: Tensor = (
            decision.decide(features) if isinstance(decision, SnippetNetwork) else decision(features.transpose(1, 2))
        )
    with FlopCounterMode(display=False) as backward:
        made.sum().backward()
    return forward.get_total_flops(), backward.get_total_flops(), kept, tuple(made.shape)
