"""Causal (uni-directional) TSM on a stream: every frame is computed once, and a small cache stands for all before it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hpcvideo.errors import InputError
from hpcvideo.models.frame_blocks import BasicBlock, Bottleneck
from hpcvideo.models.mobilenet import FrameMobileNet, InvertedResidual
from hpcvideo.models.resnet import FrameResNet

StreamState = Mapping[str, Tensor]
"""Block name -> [batch, fold, height, width]: the first fold of channels that the block read at the last frame."""


def stream_frames(
    model: nn.Module, frames: Tensor, state: StreamState | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits of the next frames of a video, and the state for the frames after them.

    model: a TSM made with causal=True, in eval mode (batch statistics would mix frames). frames: [batch, any number, 3,
    height, width] float. state: what the call for the frames before gave, None at the start of a video.
    Returns logits [batch, number, num_classes], one row a frame. Their mean over the frames of a clip equals the model's
    output for that clip, whatever the pieces in which the frames came (arXiv 1811.08383, section 4.2).
    Raises InputError for a model that looks ahead or is in training mode, and ValueError for frames of another shape or a
    state that is not one of this model for this batch and frame size.
    """
    net = _streamable(model)
    if net.training:
        raise InputError("a stream needs the model in eval mode: call model.eval() first")
    if frames.ndim != 5 or frames.shape[1] < 1 or frames.shape[2] != 3:
        raise ValueError(f"a stream takes frames [batch, 1 or more, 3, height, width], but got {list(frames.shape)}")
    if state is not None and state.keys() != set(known := _shifted_layers(net)):
        told = ", ".join(state) or "nothing"
        raise ValueError(f"the stream's state has {told}, but the model's shifted blocks are {', '.join(known)}")
    after: dict[str, Tensor] = {}
    batch, count = frames.shape[:2]
    activations = net.read_frames(frames)
    for name, layer in net.layers()[1:-1]:
        if isinstance(layer, BasicBlock | Bottleneck | InvertedResidual) and layer.shift is not None:
            seen = layer.shift.before_the_first(activations, batch) if state is None else state[name]
            needed = (batch, activations.shape[1] // layer.shift.fold_divisor, *activations.shape[2:])
            if seen.shape != needed:
                raise ValueError(
                    f"the stream's state of {name} is {list(seen.shape)}, but these frames need {list(needed)}; "
                    "a stream keeps its batch and frame size"
                )
            activations, after[name] = layer.forward_onwards(activations, seen)
        else:
            activations = layer(activations)
    return net.frame_logits(activations).unflatten(0, (batch, count)), after


class OnlineStep(nn.Module):
    """`stream_frames` of one frame with the state as positional tensors: the form that an exported model has.

    Inputs: frame [batch, 3, height, width], then the state tensors in the order of `state_names`. Outputs: logits
    [batch, num_classes], then the next state in the same order.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = _streamable(model)
        self.state_names = _shifted_layers(self.model)

    def forward(self, frame: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """One frame and the state before it to its logits and the state after it."""
        given = dict(zip(self.state_names, state, strict=True))
        logits, after = stream_frames(self.model, frame.unsqueeze(1), given)
        return logits.squeeze(1), *(after[name] for name in self.state_names)

    def first_state(self, frame: Tensor) -> tuple[Tensor, ...]:
        """The zeros that stand before the first frame of a video, for frames of this shape."""
        with torch.no_grad():
            _, after = stream_frames(self.model, frame.unsqueeze(1))
        return tuple(torch.zeros_like(after[name]) for name in self.state_names)


def _shifted_layers(net: FrameResNet | FrameMobileNet) -> list[str]:
    return [
        name
        for name, layer in net.layers()
        if isinstance(layer, BasicBlock | Bottleneck | InvertedResidual) and layer.shift is not None
    ]


def _streamable(model: nn.Module) -> FrameResNet | FrameMobileNet:
    if not isinstance(model, FrameResNet | FrameMobileNet) or not model.causal:
        raise InputError(
            "this model cannot read a stream, because it looks ahead or does not look back; "
            "make a TSM with causal=True (option of tsm_resnet* and tsm_mobilenetv2) and train it so"
        )
    return model
