"""A classifier of clips as what it knows before it decides: the encoder of snippets, ETAD's first part."""

from __future__ import annotations

from torch import Tensor, nn

from hpcvideo.errors import InputError
from hpcvideo.models.batch_norm import use_running_statistics
from hpcvideo.models.layered import LayeredNetwork
from hpcvideo.models.parameter_roles import HEAD


class SnippetEncoder(nn.Module):
    """A network of this package without its classifier.

    network: as `create_model` makes it; its classifier `fc` is taken off, so that what it gives is what the classifier read:
    the features of a clip, averaged over its frames. Names are the network's own below `network.`, so that published weights
    fit `self.network`. feature_channels: how many numbers a snippet becomes. frozen_stages: so many of layer1 to layer4 do
    not train, and with one or more the stem does not either (ETAD: 2). norm_eval: BatchNorms normalise by their running
    statistics in training too, while gamma and beta train (ETAD); else a chunk of snippets is their batch.
    Raises InputError for a network whose last layer is no linear `fc`.
    """

    def __init__(self, network: nn.Module, frozen_stages: int = 0, norm_eval: bool = True) -> None:
        super().__init__()
        classifier = getattr(network, HEAD, None)
        if not isinstance(network, LayeredNetwork) or not isinstance(classifier, nn.Linear):
            raise InputError(
                f"model.options.encoder: {type(network).__name__} cannot encode snippets, for it has no classifier {HEAD!r} "
                "behind its last layer; take a tsn, tsm, i3d, slowonly or r2plus1d ResNet"
            )
        self.feature_channels, self.frames = classifier.in_features, network.frames
        setattr(network, HEAD, nn.Identity())
        if frozen_stages:
            frozen = ("stem", *(f"layer{number}." for number in range(1, frozen_stages + 1)))
            for layer, modules in network.layer_modules().items():
                for name in modules if layer.startswith(frozen) else ():
                    network.get_submodule(name).requires_grad_(False)
        if norm_eval:
            use_running_statistics(network)
        self.network = network

    def forward(self, snippets: Tensor) -> Tensor:
        """[snippets, frames, 3, height, width] float to [snippets, feature_channels]."""
        features: Tensor = self.network(snippets)
        return features
