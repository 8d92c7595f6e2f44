"""Networks for long videos in two parts: an encoder of snippets, each for itself, and what decides over all their features.

The cut between the parts is what ETAD's sampled gradients (arXiv 2205.07134, section 3) need: memory of the first part
then does not grow with the number of snippets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from hpcvideo.models.layered import Layer
from hpcvideo.models.snippet_encoder import SnippetEncoder

_SCORED_AT_ONCE = 8
"""Snippets in the encoder at a time where nothing is kept for backward: a long video must not need the memory of all."""


class SnippetNetwork(nn.Module, ABC):
    """`decide` over what `encode` makes of each snippet. All parameters outside of `encoder` belong to the decision.

    frames: of a clip, `snippets` x those of one snippet (`snippet_frames`), one snippet after another. feature_channels: how
    many numbers a snippet becomes. Raises ValueError where the frames are no whole snippets of the encoder's length.
    """

    def __init__(self, encoder: SnippetEncoder, frames: int, snippets: int) -> None:
        super().__init__()
        if frames != snippets * encoder.frames:
            raise ValueError(f"{frames} frames are not {snippets} snippets of {encoder.frames} frames each")
        self.encoder = encoder
        self.frames, self.snippets, self.snippet_frames = frames, snippets, encoder.frames
        self.feature_channels = encoder.feature_channels

    def encode(self, snippets: Tensor) -> Tensor:
        """[any number, snippet_frames, 3, height, width] float to [that number, feature_channels]."""
        features: Tensor = self.encoder(snippets)
        return features

    @abstractmethod
    def decide(self, features: Tensor, draws: Tensor | None = None) -> Tensor:
        """[batch, feature_channels, snippets] to outputs [batch, ...], each video's for itself.

        draws: int64 [batch], in training the key of each video's random draws; None takes them from torch's generator.
        """

    def forward(self, clips: Tensor, draws: Tensor | None = None) -> Tensor:
        """[batch, frames, 3, height, width] float to outputs; a few snippets at a time where no gradient is wanted.

        Raises ValueError for clips of another length.
        """
        return self.decide(self.encode_all(clips), draws)

    def encode_all(self, clips: Tensor) -> Tensor:
        """[batch, frames, 3, height, width] float to features [batch, feature_channels, snippets]; as `forward`."""
        if clips.ndim != 5 or clips.shape[1] != self.frames:
            raise ValueError(f"clips must be [batch, {self.frames} frames, 3, height, width], not {list(clips.shape)}")
        snippets = clips.reshape(-1, self.snippet_frames, *clips.shape[2:])
        at_once = len(snippets) if torch.is_grad_enabled() else _SCORED_AT_ONCE
        features = torch.cat([self.encode(part) for part in snippets.split(at_once)])
        return as_sequences(features, self.snippets)

    def layers(self) -> list[Layer]:
        """The two parts, `encoder` and `decision`: see LayeredNetwork.layers."""
        return [("encoder", self.encode_all), ("decision", self.decide)]

    def layer_modules(self) -> dict[str, tuple[str, ...]]:
        """Part -> names of its submodules with parameters."""
        others = [name for name, module in self.named_children() if name != "encoder" and module.state_dict()]
        return {"encoder": ("encoder",), "decision": tuple(others)}


def as_sequences(features: Tensor, snippets: int) -> Tensor:
    """[batch * snippets, channels], a video's snippets one after another, to [batch, channels, snippets]."""
    return features.unflatten(0, (-1, snippets)).transpose(1, 2)


class SnippetClassifier(SnippetNetwork):
    """Classes of a long video from the mean of its snippets' features: a linear classifier over all of it.

    dropout: probability in front of the classifier. Outputs are logits [batch, num_classes].
    """

    def __init__(
        self, encoder: SnippetEncoder, num_classes: int, frames: int, snippets: int, dropout: float = 0.5
    ) -> None:
        super().__init__(encoder, frames, snippets)
        self.num_classes = num_classes
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(self.feature_channels, num_classes)
        if not self.fc.weight.is_meta:
            nn.init.normal_(self.fc.weight, std=0.001)
            nn.init.zeros_(self.fc.bias)

    def decide(self, features: Tensor, draws: Tensor | None = None) -> Tensor:
        """[batch, channels, snippets] to logits [batch, num_classes]."""
        means = features.mean(dim=2)
        if draws is None or not self.training or self.dropout.p == 0:
            means = self.dropout(means)
        else:
            kept = [torch.rand(means.shape[1], generator=torch.Generator().manual_seed(key)) for key in draws.tolist()]
            means = means * (torch.stack(kept) >= self.dropout.p).to(means) / (1 - self.dropout.p)
        logits: Tensor = self.fc(means)
        return logits
