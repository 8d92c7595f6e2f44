"""Networks that detect actions: an encoder of snippets with the detector behind it, and the detector on ready features."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from hpcvideo.models.action_detector import ActionDetector
from hpcvideo.models.layered import Layer
from hpcvideo.models.snippet_encoder import SnippetEncoder
from hpcvideo.models.snippet_network import SnippetNetwork


class ActionDetectionNetwork(SnippetNetwork):
    """A video's snippets to packed hpcvideo.intervals.DetectorOutputs, one bin a snippet.

    options: those of ActionDetector.
    """

    def __init__(self, encoder: SnippetEncoder, num_classes: int, frames: int, snippets: int, **options: Any) -> None:
        super().__init__(encoder, frames, snippets)
        self.num_classes = num_classes
        self.detector = ActionDetector(self.feature_channels, snippets, num_classes, **options)

    def decide(self, features: Tensor, draws: Tensor | None = None) -> Tensor:
        """[batch, channels, snippets] to outputs float [batch, numbers]; draws: see ActionDetector.forward."""
        outputs: Tensor = self.detector(features, draws)
        return outputs


class FeatureDetectionNetwork(nn.Module):
    """The detector alone: what it is given as clips are features [batch, frames, channels], one bin a frame.

    options: those of ActionDetector.
    """

    def __init__(self, num_classes: int, frames: int, *, channels: int = 512, **options: Any) -> None:
        super().__init__()
        self.frames, self.num_classes, self.feature_channels = frames, num_classes, channels
        self.detector = ActionDetector(channels, frames, num_classes, **options)

    def forward(self, clips: Tensor, draws: Tensor | None = None) -> Tensor:
        """[batch, frames, channels] float to outputs float [batch, numbers].

        Raises ValueError for features of another shape.
        """
        if clips.ndim != 3 or clips.shape[1] != self.frames or clips.shape[2] != self.feature_channels:
            expected = f"[batch, {self.frames}, {self.feature_channels}]"
            raise ValueError(f"the model takes features {expected}, got {list(clips.shape)}")
        outputs: Tensor = self.detector(clips.transpose(1, 2), draws)
        return outputs

    def layers(self) -> list[Layer]:
        """One part, `decision`: see LayeredNetwork.layers."""
        return [("decision", self.forward)]

    def layer_modules(self) -> dict[str, tuple[str, ...]]:
        """Part -> names of its submodules with parameters."""
        return {"decision": ("detector",)}
